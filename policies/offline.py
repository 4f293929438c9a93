"""What learners from recorded episodes share: which batches they ask for, and the common part of their training.

A batch is a mapping of arrays, b rows drawn at random moments t, each with a goal g that lies later in its episode.
Features of a moment and a goal are float32[F]; their first S = ``state_size`` columns depend on the moment alone, the
others say what the goal wants of it. With K = ``chunk`` and W = ``window`` a batch has

    features   float32[b, F]     moment t, goal g
    actions    float32[b, K, A]  the actions of t … t+K-1; past the episode's end its last one is repeated
    valid      int64[b]          how many of the K are not such repetitions, at least 1

and where a `BatchSpec` asks for it

    window     float32[b, W, F]  moments t … t+W-1, goal g, which then lies at t+W-1 or later (W = K)
    futures    float32[b, K, S]  states of moments t+1 … t+K; past the episode's end its last one is repeated
    value_features, next_features  float32[b, F]: moments t and t+1 with a goal drawn for values (`BatchSpec.values`)
    rewards    float32[b]        0 where moment t is the value's goal, -1 elsewhere: V(g, g) = 0
    masks      float32[b]        0 where moment t is the value's goal, 1 elsewhere
    features_next                float32[b, F]: moment t+1, goal g
    waypoint_features            float32[b, F]: moment t, a waypoint w = min(t + ``waypoint``, g) as its goal
    waypoint_next                float32[b, F]: moment t+1, goal w
    waypoint_goal                float32[b, F]: moment w, goal g
    words      int64 or float32[m, E]       instructions' encodings (E = ``words``) of m further moments t, each in a
                                 labelled window; the data may have no labels, then this and the next are left out
    labelled_features            float32[m, F]: moment t, its window's end as the goal
    labelled_actions             float32[m, K, A]: the actions from t on
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from policies.base import LearnablePolicy, config_from_dict
from policies.checkpoint import Arrays, load_optimizer, optimizer_arrays, with_prefix, without_prefix

__all__ = ["Batch", "BatchSpec", "OfflinePolicy", "cosine_rate", "expect"]

Batch = Mapping[str, np.ndarray | torch.Tensor]


@dataclass(frozen=True)
class BatchSpec:
    """Which arrays a learner asks for beyond features, actions and valid; see the module's docstring.

    Args:
        chunk: K, how many actions.
        window: W, 0 for none; otherwise W = K.
        futures: whether the states to come are wanted.
        values: whether the transition with a goal for values is wanted: the present with probability .2, a moment
            to come, geometrically distributed by ``discount``, with .5, any moment of the data with .3.
        waypoint: how many steps ahead a waypoint lies; 0 for none.
        words: E, the size of an instruction's encoding; 0 for none.
    """

    chunk: int = 1
    window: int = 0
    futures: bool = False
    values: bool = False
    waypoint: int = 0
    discount: float = 0.99
    words: int = 0

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.window not in (0, self.chunk) or self.waypoint < 0 or self.words < 0:
            raise ValueError(
                f"chunk = {self.chunk} must be at least 1, window = {self.window} 0 or equal to it, waypoint = "
                f"{self.waypoint} and words = {self.words} at least 0"
            )
        if not 0 < self.discount < 1:
            raise ValueError(f"discount = {self.discount} must lie in (0, 1)")


class OfflinePolicy(LearnablePolicy):
    """A learner from batches; `predict` takes features float32[n, F] of the present and its goal.

    `steps` counts the updates since `start_training`, `gradient_steps` is their budget. A subclass sets `config_class`
    and `config`, and `_optimizer` in `start_training`; to what is saved of its training it adds what else it has.
    """

    config_class: ClassVar[type]
    config: Any
    steps: int
    gradient_steps: int
    _optimizer: torch.optim.Optimizer

    @property
    @abstractmethod
    def spec(self) -> BatchSpec:
        """Which batches `update` takes."""

    @abstractmethod
    def start_training(self, gradient_steps: int) -> None:
        """Begin a schedule of so many updates from the present weights, with a fresh optimiser."""

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step; returns its metrics by name. ValueError for arrays of other shapes."""

    def seed(self, seed: int) -> None:
        """Seeds the chance in `predict`, where there is any."""

    # ---- saving

    def config_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(config_from_dict(cls.config_class, config))  # type: ignore[call-arg]

    def training_arrays(self) -> Arrays:
        return {
            "steps": np.array([self.steps, self.gradient_steps]),
            **with_prefix("optimizer", optimizer_arrays(self._optimizer)),
        }

    def load_training_arrays(self, arrays: Arrays) -> None:
        self.steps, self.gradient_steps = (int(count) for count in arrays["steps"])
        load_optimizer(self._optimizer, without_prefix("optimizer", arrays))


def cosine_rate(rate: float, step: int, total: int, warmup: int) -> float:
    """Step size: a linear warm-up, then half a cosine towards zero over ``total`` updates."""
    ramp = min(1.0, (step + 1) / max(1, warmup))
    return rate * ramp * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total))) + 1e-6


def expect(batch: Batch, shapes: Mapping[str, tuple[int | str, ...]]) -> dict[str, torch.Tensor]:
    """The named arrays as tensors, their shapes checked (a letter stands for a size that must agree); ValueError."""
    sizes: dict[str, int] = {}
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name not in batch:
            raise ValueError(f"the batch lacks '{name}'; it has {', '.join(sorted(batch))}")
        tensor = torch.as_tensor(batch[name])
        wanted = tuple(
            sizes.setdefault(s, n) if isinstance(s, str) else s for s, n in zip(shape, tensor.shape, strict=False)
        )
        if tensor.ndim != len(shape) or tuple(tensor.shape) != wanted:
            raise ValueError(f"'{name}' has shape {tuple(tensor.shape)}; expected ({', '.join(map(str, shape))})")
        found[name] = tensor
    return found
