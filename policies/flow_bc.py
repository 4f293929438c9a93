"""Goal-conditioned behaviour cloning from play: a flow over chunks of actions.

With y the representation of a chunk (`policies.chunks`), y0 ~ N(0, I), y_u = (1-u) y0 + u y and features f of state and
goal, the network predicts the clean chunk,

    L = mean w (p(f, y_u, u) - y)^2     u ~ .98 U[0,1], or 0 with probability .15;  w = .5 at the gripper

and a chunk is sampled by n Euler steps from noise, x <- x + (p(f, x, u) - x) / (1-u) / n at u = 0, 1/n, ...
Because it starts from noise, it commits to one of several ways of doing a thing where a squared error would
average them; because it executes a whole chunk before the next, it does not dither between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from policies.chunks import ChunkConfig, ChunkPolicy
from policies.networks import MLP
from policies.offline import Batch, expect

__all__ = ["FlowBC", "FlowBCConfig"]


@dataclass(frozen=True)
class FlowBCConfig(ChunkConfig):
    """Everything that decides how a flow policy is built and learns."""

    sampling_steps: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    frequencies: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling_steps < 1:
            raise ValueError("sampling_steps must be at least 1.")


class _Flow(nn.Module):
    """Predicts the clean chunk: features [b, F], noisy chunk [b, K A], time [b, 1] -> [b, K A]."""

    frequencies: torch.Tensor

    def __init__(self, config: FlowBCConfig, generator: torch.Generator) -> None:
        super().__init__()
        size = config.chunk * config.action_size
        frequencies = torch.randn(config.frequencies, generator=generator) * 4 * math.pi
        self.register_buffer("frequencies", frequencies)
        inputs = config.feature_size + size + 2 * config.frequencies
        self.body = MLP((inputs, *config.hidden, size), "silu", 0.1, generator)

    def forward(self, features: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        phase = time * self.frequencies
        return self.body(torch.cat([features, noisy, phase.sin(), phase.cos()], dim=-1))


class FlowBC(ChunkPolicy):
    """A chunk drawn by a flow from noise; see the module's docstring."""

    registry_key = "flow-bc"
    config_class = FlowBCConfig

    def __init__(self, config: FlowBCConfig) -> None:
        super().__init__(config, lambda generator: _Flow(config, generator))

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F] and actions [b, K, A].

        Returns: loss; motion_error and gripper_error (mean squared, of the clean chunk, unweighted); learning_rate;
        gradient_norm. ValueError for arrays of other shapes.
        """
        config = self.config
        shapes = {"features": ("b", config.feature_size), "actions": ("b", config.chunk, config.action_size)}
        features, actions = expect(batch, shapes).values()
        clean = self.encode(actions).flatten(1)
        noise = torch.randn(clean.shape, generator=self._generator)
        uniform = torch.rand(2, len(clean), 1, generator=self._generator)
        time = 0.98 * uniform[0] * (uniform[1] > 0.15)
        with self._autocast():
            predicted = self.network(features, torch.lerp(noise, clean, time), time)
        error = (predicted.float() - clean).square().unflatten(1, actions.shape[1:]).mean((0, 1))
        metrics = self._descend((error * self._component_weight).mean())
        errors = error.detach()
        return metrics | {"motion_error": errors[:-1].mean().item(), "gripper_error": errors[-1].item()}

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        inputs, x = torch.from_numpy(features), torch.from_numpy(noise)
        steps = self.config.sampling_steps
        for i in range(steps):
            u = i / steps
            clean = self.average(inputs, x, torch.full((len(x), 1), u))
            x = x + (clean - x) / ((1 - u) * steps)
        return self.decode(x.unflatten(1, (self.config.chunk, self.action_size))).numpy()
