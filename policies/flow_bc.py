"""Goal-conditioned behaviour cloning from play: a flow over chunks of actions.

A chunk of K actions is represented by y: the motion components as the running sum of their deltas over 3,
the gripper as it is. With y0 ~ N(0, I), y_u = (1-u) y0 + u y and features f of state and goal, the network
predicts the clean chunk,

    L = mean w (p(f, y_u, u) - y)^2     u ~ .98 U[0,1], or 0 with probability .15;  w = .5 at the gripper

and a chunk is sampled by n Euler steps from noise, x <- x + (p(f, x, u) - x) / (1-u) / n at u = 0, 1/n, ...
Because it starts from noise, it commits to one of several ways of doing a thing where a squared error would
average them; because it executes a whole chunk before the next, it does not dither between them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from policies.base import LearnablePolicy, State, as_batch, config_from_dict
from policies.checkpoint import (
    Arrays,
    load_module,
    load_optimizer,
    module_arrays,
    optimizer_arrays,
    with_prefix,
    without_prefix,
)
from policies.distributions import mix, slot_noise
from policies.networks import MLP

__all__ = ["FlowBC", "FlowBCConfig"]

CUMULATIVE_SCALE = 3.0
GRIPPER_SNAP = 0.5


@dataclass(frozen=True)
class FlowBCConfig:
    """Everything that decides how a flow policy is built and learns. Budgets count gradient steps."""

    feature_size: int
    action_size: int  # motion components, then the gripper
    chunk: int = 16
    execute: int = 16  # how much of a chunk is carried out before the next is drawn
    sampling_steps: int = 5
    hidden: tuple[int, ...] = (256, 256, 256)
    frequencies: int = 8
    gripper_weight: float = 0.5
    learning_rate: float = 1e-3
    warmup: int = 200
    gradient_steps: int = 20_000
    gradient_limit: float = 1.0
    ema_decay: float = 0.98
    ema_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.feature_size < 1 or self.action_size < 2 or self.chunk < 1:
            raise ValueError("feature_size and chunk must be at least 1, action_size at least 2.")
        if not 1 <= self.execute <= self.chunk:
            raise ValueError(f"execute must lie in 1..{self.chunk}, the length of a chunk; found {self.execute}.")
        if self.sampling_steps < 1 or self.gradient_steps < 1:
            raise ValueError("sampling_steps and gradient_steps must be at least 1.")


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


class FlowBC(LearnablePolicy):
    """Acts with a moving average of the weights that learn; only the average is saved by `save_pretrained`.

    State, one row a slot: `chunk` float32[n, K, A], `position` int64[n] within it, `key` uint64[n] and `draw`
    int64[n], from which the noise of the next chunk follows: a slot's noise never depends on its neighbours.
    `deterministic` uses the same key for every slot and episode, so what a slot does is a function of its own
    observations since the episode began.
    """

    registry_key = "flow-bc"

    def __init__(self, config: FlowBCConfig) -> None:
        self.config = config
        self.observation_size, self.action_size = config.feature_size, config.action_size
        self._generator = torch.Generator().manual_seed(config.seed)
        self._sampling = torch.Generator().manual_seed(config.seed)
        self.network = _Flow(config, self._generator)
        self.average = _Flow(config, torch.Generator())
        self.average.load_state_dict(self.network.state_dict())
        self.average.requires_grad_(False)
        weight = torch.ones(config.action_size)
        weight[-1] = config.gripper_weight
        self._component_weight = weight
        self.start_training(config.gradient_steps)

    # ---- learning

    def start_training(self, gradient_steps: int) -> None:
        """Begin a schedule of `gradient_steps` updates from the present weights, with a fresh optimiser."""
        self.steps, self.gradient_steps = 0, gradient_steps
        self._optimizer = torch.optim.Adam(self.network.parameters(), self.config.learning_rate, fused=True)

    def update(self, batch: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, float]:
        """One gradient step.

        Args:
            batch: "features" float32[b, F]; "actions" float32[b, K, A], the K actions taken from there on
                (an episode's last one repeated beyond its end).

        Returns: loss; motion_error and gripper_error (mean squared, of the clean chunk, unweighted);
        learning_rate; gradient_norm. ValueError for arrays of other shapes.
        """
        config = self.config
        features, actions = torch.as_tensor(batch["features"]), torch.as_tensor(batch["actions"])
        expected = (len(features), config.chunk, config.action_size)
        if features.shape[1:] != (config.feature_size,) or actions.shape != expected:
            raise ValueError(
                f"features {tuple(features.shape)} and actions {tuple(actions.shape)} must have shapes "
                f"(b, {config.feature_size}) and (b, {config.chunk}, {config.action_size})."
            )
        clean = self.encode(actions).flatten(1)
        noise = torch.randn(clean.shape, generator=self._generator)
        uniform = torch.rand(2, len(clean), 1, generator=self._generator)
        time = 0.98 * uniform[0] * (uniform[1] > 0.15)
        predicted = self.network(features, torch.lerp(noise, clean, time), time)
        error = (predicted - clean).square().unflatten(1, expected[1:]).mean((0, 1))
        loss = (error * self._component_weight).mean()
        rate = self._schedule()
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_limit)
        self._optimizer.step()
        self.steps += 1
        if self.steps % config.ema_every == 0:
            self._follow(self.steps // config.ema_every)
        errors = error.detach()
        return {
            "loss": loss.item(),
            "motion_error": errors[:-1].mean().item(),
            "gripper_error": errors[-1].item(),
            "learning_rate": rate,
            "gradient_norm": norm.item(),
        }

    def _schedule(self) -> float:
        """Linear warm-up, then half a cosine towards zero over `gradient_steps`."""
        progress = min(1.0, self.steps / self.gradient_steps)
        ramp = min(1.0, (self.steps + 1) / max(1, self.config.warmup))
        return self.config.learning_rate * ramp * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6

    @torch.no_grad()
    def _follow(self, times: int) -> None:
        """Move the average towards the weights; faster at first, for the sake of short trainings."""
        decay = min(self.config.ema_decay, times / (times + 9.0))
        for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - decay)

    def encode(self, actions: torch.Tensor) -> torch.Tensor:
        """Actions [..., K, A] -> the representation learnt, of the same shape."""
        motion = actions[..., :-1].cumsum(-2) / CUMULATIVE_SCALE
        return torch.cat([motion, actions[..., -1:]], dim=-1)

    def decode(self, chunk: torch.Tensor) -> torch.Tensor:
        """The inverse of `encode`, clipped to [-1, 1]; a gripper beyond half way is taken all the way."""
        origin = torch.zeros_like(chunk[..., :1, :-1])
        motion = torch.diff(chunk[..., :-1] * CUMULATIVE_SCALE, dim=-2, prepend=origin)
        gripper = chunk[..., -1:]
        gripper = torch.where(gripper.abs() > GRIPPER_SNAP, gripper.sign(), gripper)
        return torch.cat([motion.clamp(-1.0, 1.0), gripper], dim=-1)

    # ---- acting

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks of actions float32[b, K, A] from features float32[b, F] and noise float32[b, K A]."""
        inputs, x = torch.from_numpy(features), torch.from_numpy(noise)
        steps = self.config.sampling_steps
        for i in range(steps):
            u = i / steps
            clean = self.average(inputs, x, torch.full((len(x), 1), u))
            x = x + (clean - x) / ((1 - u) * steps)
        return self.decode(x.unflatten(1, (self.config.chunk, self.action_size))).numpy()

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        features = as_batch(observation, self.observation_size)
        slots = len(features)
        state = self._fresh_state(slots) if state is None else {name: a.copy() for name, a in state.items()}
        if len(state["position"]) != slots:
            raise ValueError(f"The state has {len(state['position'])} slots, the observations {slots}.")
        if episode_start is not None and np.any(episode_start):
            begun = np.asarray(episode_start, dtype=bool)
            state["position"][begun] = self.config.execute
            state["key"][begun] = mix(state["key"][begun] + np.uint64(1))
            state["draw"][begun] = 0
        due = np.flatnonzero(state["position"] >= self.config.execute)
        if len(due):
            keys = np.zeros(len(due), np.uint64) if deterministic else state["key"][due]
            noise = slot_noise(keys, state["draw"][due], self.config.chunk * self.action_size)
            state["chunk"][due] = self.sample(features[due], noise)
            state["position"][due] = 0
            state["draw"][due] += 1
        action = state["chunk"][np.arange(slots), state["position"]]
        state["position"] += 1
        return action, state

    def _fresh_state(self, slots: int) -> State:
        keys = torch.randint(2**63 - 1, (slots,), generator=self._sampling).numpy()
        return {
            "chunk": np.zeros((slots, self.config.chunk, self.action_size), np.float32),
            "position": np.full(slots, self.config.execute, np.int64),
            "key": keys.astype(np.uint64),
            "draw": np.zeros(slots, np.int64),
        }

    def seed(self, seed: int) -> None:
        self._sampling.manual_seed(seed)

    # ---- saving

    def config_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(config_from_dict(FlowBCConfig, config))

    def arrays(self) -> Arrays:
        return module_arrays(self.average)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.average, arrays)
        self.network.load_state_dict(self.average.state_dict())

    def training_arrays(self) -> Arrays:
        return {
            "generator": self._generator.get_state().numpy(),
            "sampling": self._sampling.get_state().numpy(),
            "steps": np.array([self.steps, self.gradient_steps]),
            **with_prefix("network", module_arrays(self.network)),
            **with_prefix("optimizer", optimizer_arrays(self._optimizer)),
        }

    def load_training_arrays(self, arrays: Arrays) -> None:
        self._generator.set_state(torch.from_numpy(arrays["generator"]))
        self._sampling.set_state(torch.from_numpy(arrays["sampling"]))
        self.steps, self.gradient_steps = (int(count) for count in arrays["steps"])
        load_module(self.network, without_prefix("network", arrays))
        load_optimizer(self._optimizer, without_prefix("optimizer", arrays))
