"""Goal-conditioned behaviour cloning: one perceptron from features of state and goal to a chunk, by squared error.

With y the representation of a chunk of K actions (`policies.chunks`) and f the features,

    L = mean w (p(f) - y)^2     w = .5 at the gripper

It is the plainest learner from play, and the control for those that draw one of several ways of doing a thing: where
the data know several, it does their mean. K = 1 is ordinary behaviour cloning, which looks again after every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from policies.chunks import ChunkPolicy, SightConfig, make_sight
from policies.networks import MLP
from policies.offline import Batch, expect

__all__ = ["GCBC", "GCBCConfig"]


@dataclass(frozen=True)
class GCBCConfig(SightConfig):
    """Everything that decides how a cloned chunk is built and learnt."""

    hidden: tuple[int, ...] = (512, 512, 512)


class GCBC(ChunkPolicy):
    """A chunk that is a function of state and goal; see the module's docstring."""

    registry_key = "gcbc"
    config_class = GCBCConfig

    def __init__(self, config: GCBCConfig) -> None:
        def network(generator: torch.Generator) -> nn.Module:
            sight = make_sight(config, generator)
            inputs = config.feature_size if sight is None else sight.width
            sizes = (inputs, *config.hidden, config.chunk * config.action_size)
            body = MLP(sizes, "silu", 0.1, generator)
            return body if sight is None else nn.Sequential(sight, body)

        super().__init__(config, network)

    @property
    def noise_size(self) -> int:
        return 0

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F] and actions [b, K, A].

        Returns: loss; motion_error and gripper_error (mean squared, unweighted); learning_rate; gradient_norm.
        ValueError for arrays of other shapes.
        """
        config = self.config
        shapes = {"features": ("b", config.feature_size), "actions": ("b", config.chunk, config.action_size)}
        features, actions = expect(batch, shapes).values()
        chunk = self.encode(actions)
        with self._autocast():
            predicted = self.network(features)
        error = (predicted.float().view_as(chunk) - chunk).square().mean((0, 1))
        metrics = self._descend((error * self._component_weight).mean())
        errors = error.detach()
        return metrics | {"motion_error": errors[:-1].mean().item(), "gripper_error": errors[-1].item()}

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        chunk = self.average(torch.from_numpy(features))
        return self.decode(chunk.unflatten(1, (self.config.chunk, self.action_size))).numpy()
