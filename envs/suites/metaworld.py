"""Meta-World's 50 tasks (version 3): a Sawyer arm on a table, as envpool runs them.

Actions (4): three steps of the hand and the gripper. Observations (39): hand, gripper and objects now and one step
before, and three zeros for the goal, whose place is hidden. A task ends by its step limit alone; ``success`` is
Meta-World's own, in each state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.suites.pool import POOL_LIMITS, PoolVectorEnv, newest

__all__ = ["MetaWorldVectorEnv"]

_TIMESTEP = 0.0025  # s, that of Meta-World's models


class MetaWorldVectorEnv(PoolVectorEnv):
    """n copies of a Meta-World task; see the module."""

    suite = "metaworld"
    limits = POOL_LIMITS + (
        " Meta-World counts an episode as a success if its flag was up at any step; no episode ends by success. Its "
        "scripted experts are not in envpool. The goal's place is hidden (zeros in the observation), as Meta-World has "
        "it for single tasks."
    )

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        return newest(r"MetaWorld/(\w+)")

    @property
    def control_dt(self) -> float:
        return _TIMESTEP * self.config["frame_skip"]

    def _success(self, info: dict[str, Any], reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        return np.asarray(info["success"]) > 0.5
