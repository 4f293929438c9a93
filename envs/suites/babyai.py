"""BabyAI: a small robot in rooms of a grid world that is told in words what to do, as envpool runs it.

Actions are discrete: turn left, turn right, forward, pick up, drop, toggle, done. Observations: ``image``
uint8[7, 7, 3] (what it sees: object, colour, state), ``direction`` and ``mission``, 512 bytes of text that
`missions` reads. The reward is 0 until the mission is done, and then the more the sooner.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from envs.suites import SuiteError
from envs.suites.pool import POOL_LIMITS, PoolVectorEnv, newest

__all__ = ["BabyAIVectorEnv", "missions"]


class BabyAIVectorEnv(PoolVectorEnv):
    """n BabyAI levels; see the module. ``max_steps`` can only be below the level's own limit."""

    suite = "babyai"
    limits = POOL_LIMITS.partition(" The physics")[0] + (
        " A level sets its step limit by the mission it draws; max_steps is 0 then. There is no simulated time."
    )
    control_dt = math.nan

    def __init__(self, task: str, num_envs: int = 1, *, observation: str = "dict", **arguments: Any):
        super().__init__(task, num_envs, observation=observation, **arguments)

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        return newest(r"BabyAI-(\w+)")

    def _step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super()._step(actions)
        # a mission done in the last step allowed is reported as truncated alone
        terminated |= info["success"]
        return observation, reward, terminated, truncated & ~info["success"], info

    def _success(self, info: dict[str, Any], reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        return np.asarray(reward) > 0


def missions(mission: np.ndarray) -> list[str]:
    """The texts of missions uint8[n, 512]. Raises SuiteError for an array of another kind."""
    mission = np.asarray(mission)
    if mission.ndim != 2 or mission.dtype != np.uint8:
        raise SuiteError(f"missions are uint8[n, bytes], not {mission.dtype}{list(mission.shape)}")
    return [row.tobytes().partition(b"\0")[0].decode() for row in mission]
