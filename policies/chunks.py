"""Policies that carry out chunks of K actions: how a chunk is represented, learnt by an averaged network, and acted on.

A chunk is represented by y: the motion components as the running sum of their deltas over 3, the gripper as it is. What
is learnt is a displacement to come rather than jitter, and a squared error on it weighs the end of the motion.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from policies.base import State, as_batch
from policies.checkpoint import Arrays, load_module, module_arrays, with_prefix, without_prefix
from policies.distributions import mix, slot_noise
from policies.encoders import ENCODERS, Sight
from policies.offline import BatchSpec, OfflinePolicy, cosine_rate

__all__ = ["ChunkConfig", "ChunkPolicy", "SightConfig", "make_sight"]

CUMULATIVE_SCALE = 3.0
GRIPPER_SNAP = 0.5
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class ChunkConfig:
    """What every policy over chunks has. Budgets count gradient steps.

    ``state_size`` is S, how many of the features say nothing of the goal (see `policies.offline`); 0 where a policy
    makes no difference between them. The last action component is the gripper.
    """

    feature_size: int
    action_size: int
    state_size: int = 0
    chunk: int = 16
    execute: int = 16  # how much of a chunk is carried out before the next is drawn
    gripper_weight: float = 0.5
    learning_rate: float = 1e-3
    warmup: int = 200
    gradient_steps: int = 20_000
    gradient_limit: float = 1.0
    ema_decay: float = 0.98
    ema_every: int = 10
    precision: str = "float32"  # of the products in an update; bfloat16 is about 1.7 times as fast on a recent CPU
    temperature: float = 1.0  # scales the noise a chunk is drawn from: below 1 the likely is done more often
    seed: int = 0

    def __post_init__(self) -> None:
        if self.feature_size < 1 or self.action_size < 2 or self.chunk < 1:
            raise ValueError("feature_size and chunk must be at least 1, action_size at least 2.")
        if not 0 <= self.state_size <= self.feature_size:
            raise ValueError(f"state_size = {self.state_size} must lie in 0..{self.feature_size}, the feature_size.")
        if not 1 <= self.execute <= self.chunk:
            raise ValueError(f"execute must lie in 1..{self.chunk}, the length of a chunk; found {self.execute}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {self.precision!r}; valid: {', '.join(PRECISIONS)}.")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative; found {self.temperature}.")
        if self.gradient_steps < 1:
            raise ValueError("gradient_steps must be at least 1.")


@dataclass(frozen=True)
class SightConfig(ChunkConfig):
    """What a policy over chunks has that may see: ``encoder`` "pixels" takes the first H·W·3 features for a picture of
    ``image`` = (H, W), and a goal of as many for another; see `policies.encoders`.
    """

    encoder: str = "state"
    image: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in ENCODERS:
            raise ValueError(f"unknown encoder {self.encoder!r}; valid: {', '.join(ENCODERS)}")
        if self.encoder == "pixels" and (len(self.image) != 2 or math.prod(self.image) * 3 > self.state_size):
            raise ValueError(f"image = {self.image} must be (H, W) with H·W·3 at most state_size = {self.state_size}")


def make_sight(config: SightConfig, generator: torch.Generator) -> Sight | None:
    """What looks at the pictures in the features; None where there are none."""
    if config.encoder != "pixels":
        return None
    return Sight(config.image, config.feature_size, config.state_size, generator)


class ChunkPolicy(OfflinePolicy):
    """Acts with a moving average of the weights that learn; only the average is saved by `save_pretrained`.

    A subclass sets `registry_key` and `config_class`, calls ``super().__init__(config, make_network)``, and gives
    `update` (which ends with `_descend`) and `sample`.

    State, one row a slot: `chunk` float32[n, K, A], `position` int64[n] within it, `key` uint64[n] and `draw` int64[n],
    from which the noise of the next chunk follows: a slot's noise never depends on its neighbours. `deterministic` uses
    the same key for every slot and episode, so what a slot does is a function of its own observations since the episode
    began.
    """

    config_class: ClassVar[type[ChunkConfig]] = ChunkConfig

    def __init__(self, config: Any, make_network: Callable[[torch.Generator], nn.Module]) -> None:
        self.config = config
        self.observation_size, self.action_size = config.feature_size, config.action_size
        self._generator = torch.Generator().manual_seed(config.seed)
        self._sampling = torch.Generator().manual_seed(config.seed)
        self.network = make_network(self._generator)
        self.average = make_network(torch.Generator())
        self.average.load_state_dict(self.network.state_dict())
        self.average.requires_grad_(False)
        weight = torch.ones(config.action_size)
        weight[-1] = config.gripper_weight
        self._component_weight = weight
        self.start_training(config.gradient_steps)

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(chunk=self.config.chunk)

    @property
    def noise_size(self) -> int:
        """How many standard normal numbers `sample` takes for a chunk; 0 where no chance is involved."""
        return self.config.chunk * self.action_size

    # ---- learning

    def start_training(self, gradient_steps: int) -> None:
        self.steps, self.gradient_steps = 0, gradient_steps
        self._optimizer = torch.optim.Adam(self.network.parameters(), self.config.learning_rate, fused=True)

    def _autocast(self) -> torch.autocast:
        """The context that an update's networks run in."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _descend(self, loss: torch.Tensor) -> dict[str, float]:
        """One step down the loss; returns it with the step size and the gradient's norm."""
        config = self.config
        rate = cosine_rate(config.learning_rate, self.steps, self.gradient_steps, config.warmup)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_limit)
        self._optimizer.step()
        self.steps += 1
        if self.steps % config.ema_every == 0:
            self._follow(self.steps // config.ema_every)
        return {"loss": loss.item(), "learning_rate": rate, "gradient_norm": norm.item()}

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

    def due(self, state: State | None, slots: int) -> np.ndarray:
        """bool[n]: whose observation the next `predict` looks at, where no episode begins; of others any will do."""
        return np.ones(slots, np.bool_) if state is None else state["position"] >= self.config.execute

    @abstractmethod
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks of actions float32[b, K, A] from features float32[b, F] and noise float32[b, noise_size]."""

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
            noise = slot_noise(keys, state["draw"][due], self.noise_size)
            if self.config.temperature != 1.0:
                noise *= np.float32(self.config.temperature)
            self._renew(state, due, features[due], noise)
            state["position"][due] = 0
            state["draw"][due] += 1
        action = state["chunk"][np.arange(slots), state["position"]]
        state["position"] += 1
        return action, state

    def _renew(self, state: State, due: np.ndarray, features: np.ndarray, noise: np.ndarray) -> None:
        """Write the next chunks into the rows ``due`` of the state; features and noise are those rows'."""
        state["chunk"][due] = self.sample(features, noise)

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

    def arrays(self) -> Arrays:
        return module_arrays(self.average)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.average, arrays)
        self.network.load_state_dict(self.average.state_dict())

    def training_arrays(self) -> Arrays:
        return {
            "generator": self._generator.get_state().numpy(),
            "sampling": self._sampling.get_state().numpy(),
            **with_prefix("network", module_arrays(self.network)),
            **super().training_arrays(),
        }

    def load_training_arrays(self, arrays: Arrays) -> None:
        self._generator.set_state(torch.from_numpy(arrays["generator"]))
        self._sampling.set_state(torch.from_numpy(arrays["sampling"]))
        load_module(self.network, without_prefix("network", arrays))
        super().load_training_arrays(arrays)
