"""Uniformly random actions: the row every table of results starts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from policies.base import Policy, State, as_batch


class RandomPolicy(Policy):
    """Every action component uniform on [-1, 1], independent of everything.

    `deterministic` has no effect: a policy without chance would be another baseline. Runs are repeatable by
    `seed`.
    """

    registry_key = "random"

    def __init__(self, observation_size: int, action_size: int, seed: int = 0) -> None:
        self.observation_size, self.action_size = observation_size, action_size
        self._seed = seed
        self.seed(seed)

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        slots = len(as_batch(observation, self.observation_size))
        return self._rng.uniform(-1.0, 1.0, (slots, self.action_size)).astype(np.float32), state

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def config_dict(self) -> dict[str, Any]:
        return {
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "seed": self._seed,
        }

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)
