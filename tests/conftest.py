"""Worlds small enough to be learnt in seconds: reach a point in the plane, by a shaped or a sparse reward."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores; before anything imports torch

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


class PointGoal(PointReach):
    """The same as a goal environment: dict observations, 0 within 0.15 of the goal, else -1, until the time limit.

    ``shaped`` keeps the reward of `PointReach`; ``mode`` is the autoreset mode that it says it keeps to.
    """

    def __init__(
        self, slots: int = 16, limit: int = 20, mode: AutoresetMode = AutoresetMode.SAME_STEP, shaped: bool = False
    ) -> None:
        super().__init__(slots, limit)
        self.shaped = shaped
        plane = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        parts: dict[str, gymnasium.Space] = {"observation": plane, "achieved_goal": plane, "desired_goal": plane}
        self.single_observation_space = gymnasium.spaces.Dict(parts)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, slots)
        self.metadata = {"autoreset_mode": mode}
        self.max_steps, self.calls = limit, 0

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        self.calls += 1
        return np.where(np.linalg.norm(achieved_goal - desired_goal, axis=-1) < 0.15, 0.0, -1.0)

    def _parts(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        wide = flat.astype(np.float64)
        return {"observation": wide[:, :2], "achieved_goal": wide[:, :2], "desired_goal": wide[:, 2:]}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if seed is None and hasattr(self, "rng"):
            seed = self.rng.integers(1 << 30)
        flat, info = super().reset(seed=seed)
        self.elapsed[:] = 0
        return self._parts(flat), info

    def step(self, actions: np.ndarray) -> Any:
        flat, reward, terminated, truncated, info = super().step(actions)
        last = self._parts(info["final_obs"])
        if not self.shaped:
            reward = np.where(info["success"], 0.0, -1.0)
        info |= {"final_obs": last}
        return self._parts(flat), reward, terminated, truncated, info


@pytest.fixture
def point_goal() -> Callable[..., PointGoal]:
    return PointGoal


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
