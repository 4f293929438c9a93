"""MyoSuite's hand and finger, moved by muscles, as envpool runs them.

``hand-…`` and ``finger-…`` are MyoSuite's tasks; ``sarc-hand-…``, ``fati-hand-…`` and ``reaf-hand-…`` the same with
sarcopenia, fatigue and a transferred tendon; ``track-…`` follow a recorded motion of an object. Actions are the
muscles' excitations, 39 for the hand, scaled by MyoSuite from [-1, 1]. ``success`` is MyoSuite's ``solved``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.suites import library
from envs.suites.pool import POOL_LIMITS, PoolVectorEnv, newest

__all__ = ["MyoSuiteVectorEnv"]

_TIMESTEP = 0.002  # s, that of MyoSuite's models


class MyoSuiteVectorEnv(PoolVectorEnv):
    """n copies of a MyoSuite task; see the module."""

    suite = "myosuite"
    limits = POOL_LIMITS + (
        " In envpool 1.2.5 every episode of a MyoSuite task begins in the same state with the same target, whatever "
        "the seed and also where the task is called random: episodes are no independent samples. MyoSuite itself "
        "counts an episode as solved after more than five solved steps; here one step is enough."
    )

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        tracked = {f"track-{task}": name for task, name in newest(r"MyoHand(\w+)").items()}
        return newest(r"myo((?:Sarc|Fati|Reaf)?(?:Hand|Finger)\w+)") | tracked

    @property
    def control_dt(self) -> float:
        library("envpool")
        from envpool.mujoco.myosuite.tasks import MYOSUITE_TASKS  # type: ignore[import-not-found]

        skip = next(task["frame_skip"] for task in MYOSUITE_TASKS if task["id"] == self._id)
        return _TIMESTEP * skip

    def _success(self, info: dict[str, Any], reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        return np.asarray(info["solved"]) > 0.5
