"""A world small enough to be learnt in seconds: reach a point in the plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv


class PointReach(VectorEnv):
    """Move a point by 0.2 action a step to a goal; two rewards: progress times ten, and the effort's cost.

    Observation: position and goal, in the plane. Episodes are truncated after `limit` steps and, with
    `terminate`, end when the goal is closer than 0.15.
    """

    def __init__(self, slots: int = 32, limit: int = 20, terminate: bool = False) -> None:
        self.num_envs = slots
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, slots)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, slots)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.limit, self.terminate = limit, terminate
        self.scale = np.ones(2)
        self.observation = np.zeros((slots, 4), np.float32)
        self.elapsed = np.zeros(slots, int)

    def _begin(self, slots: np.ndarray) -> None:
        self.observation[slots] = self.rng.uniform(-1, 1, (len(slots), 4))
        self.elapsed[slots] = 0

    def _distance(self) -> np.ndarray:
        return np.linalg.norm(self.observation[:, :2] - self.observation[:, 2:], axis=1)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.rng = np.random.default_rng(seed)
        self._begin(np.arange(self.num_envs))
        self.elapsed[:] = np.arange(self.num_envs) % self.limit
        return self.observation, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        before = self._distance()
        self.observation[:, :2] += 0.2 * np.clip(actions, -1, 1)
        after = self._distance()
        terms = np.stack([10 * (before - after), -0.02 * np.square(actions).sum(1)], 1) * self.scale
        self.elapsed += 1
        success = after < 0.15
        terminated = success & self.terminate
        truncated = (self.elapsed >= self.limit) & ~terminated
        info = {"reward_terms": terms, "success": success, "final_obs": self.observation.copy()}
        self._begin(np.flatnonzero(terminated | truncated))
        return self.observation, terms.sum(1), terminated, truncated, info


@pytest.fixture
def point_reach() -> Callable[..., PointReach]:
    return PointReach


@pytest.fixture
def reached() -> Callable[..., float]:
    """Share of 200 fresh episodes that end within 0.15 of the goal under a policy's deterministic actions."""

    def measure(policy: Any, seed: int = 1000) -> float:
        env = PointReach(slots=200, limit=10**6)
        observation, _ = env.reset(seed=seed)
        info: dict[str, Any] = {}
        for _ in range(20):
            action, _ = policy.predict(observation, deterministic=True)
            observation, *_, info = env.step(action)
        return float(info["success"].mean())

    return measure
