"""Tasks on the table that skills are discovered on: what skills are worth once somebody wants something.

===== ================================================================ ==========================
place the first block to a spot on the table, drawn 8 to 25 cm away    within 4 cm of it
lift  the first block up                                               its lowest point above 8 cm
===== ================================================================ ==========================

A task is solved, and its episode ends, when that has been so for ``hold`` control steps: a block that flies through
a spot was not put there. The reward is dense; ``info["reward_terms"]`` float64[n, 2] has

    task    how much nearer the block came to where it shall be, in steps of 3 cm; 5 more where the task is solved,
            minus 5 instead where a block fell off
    reach   how much nearer the tool came to the nearest block, in steps of 3 cm

The block is beside its wish in the observation: (wish - block) in x y z, times 8, and times 40 within ±2.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.control import STEP_M
from envs.scenes.discovery import DiscoveryVectorEnv
from envs.scenes.facts import B_BOTTOM, BLOCKS
from envs.scenes.features import LIMIT
from envs.scenes.scene import Scene

__all__ = ["TASKS", "TASK_TERMS", "DiscoveryTaskVectorEnv"]

TASKS = ("place", "lift")
TASK_TERMS = ("task", "reach")
NEAR, FAR = 0.08, 0.25  # m between which a spot lies from where its block begins
TOLERANCE, LIFTED = 0.04, 0.08  # m
_EDGE = 0.05  # m from the table's edges within which no spot lies
_UP = 0.11  # m that a block shall be lifted by; above LIFTED, so that being there is no edge
_BONUS = 5.0
_GOAL_FEATURES = 6


class DiscoveryTaskVectorEnv(DiscoveryVectorEnv):
    """n tables with a task. Observations float32[n, F + 6]: `DiscoveryVectorEnv`'s, then the wish.

    Args:
        task: one of `TASKS`.
        goals: observations are dictionaries (observation float32[n, F], achieved_goal, desired_goal float64[n, 3]: m),
            the reward is 0 where the block is within the tolerance and -1 elsewhere, and `compute_reward` relabels: for
            hindsight. For place.
        hold: control steps for which a task must be solved.
        others: `DiscoveryVectorEnv`'s.
    """

    def __init__(
        self,
        num_envs: int = 1,
        scene: str | Scene = "discovery",
        *,
        task: str = "place",
        goals: bool = False,
        hold: int = 5,
        **world: Any,
    ):
        if task not in TASKS:
            raise ValueError(f"unknown task '{task}'; valid: {', '.join(TASKS)}")
        if goals and task != "place":
            raise ValueError(f"task '{task}' has no place as its goal; goals=True is for place")
        super().__init__(num_envs, scene, hold=hold, **world)
        if self.scene.document.table is None:
            raise ValueError(f"scene '{self.scene.name}' has no table of its own to draw spots on; give it one")
        self._table = self.scene.document.table
        n, size = num_envs, self._features.shape[1]
        self.task, self.goals = task, goals
        self.skill_features = size
        self.goal = np.zeros((n, 3))
        self._away = np.zeros(n)
        self._task_terms = np.zeros((n, len(TASK_TERMS)))
        flat = gym.spaces.Box(-LIMIT, LIMIT, (size if goals else size + _GOAL_FEATURES,), np.float32)
        goal = gym.spaces.Box(-10.0, 10.0, (3,), np.float64)
        parts = {"observation": flat, "achieved_goal": goal, "desired_goal": goal}
        self.single_observation_space = gym.spaces.Dict(parts) if goals else flat
        self.observation_space = batch_space(self.single_observation_space, n)

    def observation(self) -> Any:
        features = super().observation()
        if self.goals:
            return {"observation": features, "achieved_goal": self._block.copy(), "desired_goal": self.goal.copy()}
        away = self._wish - self._block
        return np.concatenate([features, 8.0 * away, np.clip(40.0 * away, -2.0, 2.0)], axis=1, dtype=np.float32)

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """0 where goals float[…, 3] (m) are within the tolerance, else -1; vectorised."""
        away = np.linalg.norm(np.asarray(achieved_goal) - np.asarray(desired_goal), axis=-1)
        return np.where(away < TOLERANCE, 0.0, -1.0)

    def set_state(self, states: np.ndarray, slots: np.ndarray | None = None) -> None:
        """Puts slots into states from `get_state`; their goals stay."""
        goal = self.goal.copy()
        super().set_state(states, slots)
        self.goal[:] = goal
        self._away[:] = self._distance()

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _block(self) -> np.ndarray:
        return self.facts[:, BLOCKS : BLOCKS + 3]

    @property
    def _wish(self) -> np.ndarray:
        """Where each block shall be, float64[n, 3]: m."""
        if self.task == "place":
            return self.goal
        return np.concatenate([self._block[:, :2], self.goal[:, 2:]], axis=1)

    def _distance(self) -> np.ndarray:
        return np.linalg.norm(self._wish - self._block, axis=1)

    def _begun(self, slots, places) -> None:
        super()._begun(slots, places)
        half = self._layout[0][2][0, 2]
        if self.task == "place":
            for i in slots:
                self.goal[i] = *self._spot(i), half
        else:
            self.goal[slots] = 0.0, 0.0, half + _UP
        self._task_terms[slots] = 0.0
        self._away[slots] = self._distance()[slots]

    def _spot(self, slot: int) -> np.ndarray:
        """A spot x y (m) on the table for a slot's block, drawn from (seed, slot, episode) and where the block is."""
        draws = np.random.default_rng((self._seed, int(slot), int(self.episodes[slot]) + 1, 7))
        low_x, low_y, high_x, high_y = self._table
        spot = block = self._block[slot, :2]
        for _ in range(100):
            spot = draws.uniform((low_x + _EDGE, low_y + _EDGE), (high_x - _EDGE, high_y - _EDGE))
            if NEAR < np.linalg.norm(spot - block) < FAR:
                break
        return spot

    def _settle(self, actions, broken):
        _, _, terminated, _ = super()._settle(actions, broken)
        away = self._distance()
        there = away < TOLERANCE if self.task == "place" else self.facts[:, BLOCKS + B_BOTTOM] > LIFTED
        self._held[:] = np.where(there & ~broken, self._held + 1, 0)
        success = (self._held >= self.hold) & ~terminated
        self._task_terms[:, 0] = (self._away - away) / STEP_M + _BONUS * success
        self._task_terms[terminated, 0] = -_BONUS
        self._task_terms[:, 1] = self.terms[:, 0]
        self._task_terms[broken] = 0.0
        self._away[:] = away
        terminated = terminated | (success & self.terminate_on_success)
        truncated = ~terminated & (broken | (self.elapsed >= self.max_steps))
        reward = self._task_terms.sum(axis=1)
        if self.goals:
            reward = np.asarray(self.compute_reward(self._block, self.goal, {}), np.float64)
        return reward, success, terminated, truncated

    def _info(self, success: np.ndarray | None = None, bad_physics: np.ndarray | None = None) -> dict[str, Any]:
        return super()._info(success, bad_physics) | {"reward_terms": self._task_terms.copy()}
