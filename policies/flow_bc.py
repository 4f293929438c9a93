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

from policies.chunks import ChunkPolicy, SightConfig, make_sight
from policies.encoders import Sight
from policies.networks import MLP
from policies.offline import Batch, expect

__all__ = ["Flow", "FlowBC", "FlowBCConfig"]


@dataclass(frozen=True)
class FlowBCConfig(SightConfig):
    """Everything that decides how a flow policy is built and learns."""

    sampling_steps: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    frequencies: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling_steps < 1:
            raise ValueError("sampling_steps must be at least 1.")


class Flow(nn.Module):
    """Predicts the clean chunk: features [b, F] as ``sight`` sees them, noisy chunk [b, C], time [b, 1] -> [b, C]."""

    frequencies: torch.Tensor

    def __init__(
        self, features: int, size: int, hidden: tuple[int, ...], frequencies: int, generator: torch.Generator,
        sight: Sight | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sight, features = sight, features if sight is None else sight.width
        self.register_buffer("frequencies", torch.randn(frequencies, generator=generator) * 4 * math.pi)
        self.body = MLP((features + size + 2 * frequencies, *hidden, size), "silu", 0.1, generator)

    def see(self, features: torch.Tensor) -> torch.Tensor:
        """What `forward` takes for features."""
        return features if self.sight is None else self.sight(features)

    def forward(self, features: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        phase = time * self.frequencies
        return self.body(torch.cat([features, noisy, phase.sin(), phase.cos()], dim=-1))

    def error(self, features: torch.Tensor, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """p - y [b, C] for clean chunks y at a random time and with random noise."""
        noise = torch.randn(clean.shape, generator=generator)
        uniform = torch.rand(2, len(clean), 1, generator=generator)
        time = 0.98 * uniform[0] * (uniform[1] > 0.15)
        return self(self.see(features), torch.lerp(noise, clean, time), time).float() - clean

    def draw(self, features: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Chunks [b, C] from noise x of the same shape, in so many Euler steps."""
        features = self.see(features)
        for i in range(steps):
            u = i / steps
            clean = self(features, x, torch.full((len(x), 1), u))
            x = x + (clean - x) / ((1 - u) * steps)
        return x


class FlowBC(ChunkPolicy):
    """A chunk drawn by a flow from noise; see the module's docstring."""

    registry_key = "flow-bc"
    config_class = FlowBCConfig
    network: Flow
    average: Flow

    def __init__(self, config: FlowBCConfig) -> None:
        size = config.chunk * config.action_size
        shape = (config.feature_size, size, config.hidden, config.frequencies)
        super().__init__(config, lambda generator: Flow(*shape, generator, make_sight(config, generator)))

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F] and actions [b, K, A].

        Returns: loss; motion_error and gripper_error (mean squared, of the clean chunk, unweighted); learning_rate;
        gradient_norm. ValueError for arrays of other shapes.
        """
        config = self.config
        shapes = {"features": ("b", config.feature_size), "actions": ("b", config.chunk, config.action_size)}
        features, actions = expect(batch, shapes).values()
        with self._autocast():
            difference = self.network.error(features, self.encode(actions).flatten(1), self._generator)
        error = difference.square().unflatten(1, actions.shape[1:]).mean((0, 1))
        metrics = self._descend((error * self._component_weight).mean())
        errors = error.detach()
        return metrics | {"motion_error": errors[:-1].mean().item(), "gripper_error": errors[-1].item()}

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        x = self.average.draw(torch.from_numpy(features), torch.from_numpy(noise), self.config.sampling_steps)
        return self.decode(x.unflatten(1, (self.config.chunk, self.action_size))).numpy()
