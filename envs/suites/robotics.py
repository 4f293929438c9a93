"""gymnasium-robotics' Fetch arm and Shadow hand, as envpool runs them: tasks with a goal to be reached.

Observations have three parts, ``observation``, ``achieved_goal`` and ``desired_goal``; flat ones are these in the order
achieved goal, desired goal, observation (that of the names). Rewards are -1 until the goal is reached, else 0; the
``-dense`` tasks give minus the distance. A task ends by its step limit alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.suites import SuiteError
from envs.suites.pool import POOL_LIMITS, PoolVectorEnv, newest

__all__ = ["FetchVectorEnv", "HandVectorEnv"]

_TIMESTEP = 0.002  # s, that of their models
_STEP = 0.05  # m, the longest step of Fetch's gripper that an action can ask for


class _GoalVectorEnv(PoolVectorEnv):
    limits = POOL_LIMITS + (
        " An episode counts as a success if the goal is reached at its last step, and does not end by it."
    )
    success_counts = "end"

    @property
    def control_dt(self) -> float:
        return _TIMESTEP * self.config["frame_skip"]

    def _success(self, info: dict[str, Any], reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        return np.asarray(info["is_success"]) > 0.5


class FetchVectorEnv(_GoalVectorEnv):
    """n Fetch arms. Actions (4): three steps of the gripper (5 cm at most) and its opening."""

    suite = "fetch"

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        return {task.replace("-and-", "-"): name for task, name in newest(r"Fetch(\w+)").items()}

    def expert(self) -> Any:
        """Straight to the goal, for the reaching tasks. SuiteError for the others."""
        if not self.task.startswith("reach"):
            raise SuiteError(f"fetch/{self.task} has no expert; fetch/reach and fetch/reach-dense have")

        def act(observation: Any, begins: np.ndarray) -> np.ndarray:
            flat = self.observation_kind == "flat"
            achieved = observation[:, :3] if flat else observation["achieved_goal"]
            desired = observation[:, 3:6] if flat else observation["desired_goal"]
            return np.pad(np.clip((desired - achieved) / _STEP, -1, 1), ((0, 0), (0, 1))).astype(np.float32)

        return act

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Rewards float64[…] of goals float[…, 3] in metres, for relabelling: as the task itself gives them."""
        distance = np.linalg.norm(np.asarray(achieved_goal) - np.asarray(desired_goal), axis=-1)
        if self.config["reward_type"] == "dense":
            return -distance
        return -(distance > self.config["distance_threshold"]).astype(np.float64)


class HandVectorEnv(_GoalVectorEnv):
    """n Shadow hands. Actions (20): the joints' target positions within their ranges."""

    suite = "hand"

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        return newest(r"Hand((?:Reach|Manipulate)\w*)")
