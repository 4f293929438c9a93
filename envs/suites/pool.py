"""A pool of envpool's, native simulations stepped by C++ threads, as our VectorEnv.

envpool resets an ended slot by the step after its last one (gymnasium's NEXT_STEP). For SAME_STEP its slots are reset
by name right away, so that the observation of the last step is the true last one and nothing is lost.

A pool takes its seeds when it is made and never again: reset(seed=…) makes it anew.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import numpy as np

from envs.suites import library
from envs.suites.adapter import SuiteVectorEnv

__all__ = ["POOL_LIMITS", "PoolVectorEnv", "kebab", "newest"]

POOL_LIMITS = (
    "reset(seed=…) makes all simulations anew, which takes as long as making the environment. An ended episode cannot "
    "be left standing (autoreset DISABLED). States cannot be read or set, and there are no pictures. The physics is "
    "envpool's own build of MuJoCo, whatever mujoco is installed beside it."
)


class PoolVectorEnv(SuiteVectorEnv):
    """n simulations in an envpool pool. A subclass lists its tasks and says what success is."""

    limits = POOL_LIMITS

    def _open(self, max_steps: int | None) -> tuple[gym.Space, gym.Space, int]:
        self._envpool = library("envpool")
        self._id, self._pool = self.task_ids()[self.task], None
        self._arguments: dict[str, Any] = {} if max_steps is None else {"max_episode_steps": max_steps}
        spec = self._envpool.make_spec(self._id, **self._arguments)
        self.config = dict(spec.config._asdict() if hasattr(spec.config, "_asdict") else spec.config)
        return spec.gymnasium_observation_space, spec.gymnasium_action_space, int(self.config["max_episode_steps"])

    def _reset(self, slots: np.ndarray, seeds: Sequence[int] | None) -> Any:
        if seeds is not None:
            self.close_extras()
            self._pool = self._envpool.make_gymnasium(
                self._id, num_envs=self.num_envs, num_threads=min(self.threads, self.num_envs), seed=list(seeds),
                **self._arguments,
            )  # fmt: skip
            return self._pool.reset()[0]
        assert self._pool is not None
        return self._pool.reset(slots.astype(np.int32))[0]

    def _step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert self._pool is not None
        observation, reward, terminated, truncated, info = self._pool.step(actions)
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        success = self._success(info, reward, terminated)
        return observation, np.asarray(reward), terminated, truncated, {"success": success}

    @abstractmethod
    def _success(self, info: dict[str, Any], reward: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        """bool[n]: whether the task is done in the state that this step led to."""

    def versions(self) -> dict[str, str]:
        return {"envpool": version("envpool")}

    def close_extras(self, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def newest(pattern: str) -> dict[str, str]:
    """Task -> envpool's id, the newest version of each, for ids that match ``pattern`` (its group is the task)."""
    found: dict[str, tuple[int, str]] = {}
    for name in library("envpool").list_all_envs():
        if match := re.fullmatch(pattern + r"-v(\d+)", name):
            task, number = kebab(match[1]), int(match[2])
            found[task] = max(found.get(task, (-1, "")), (number, name))
    return {task: name for task, (_, name) in found.items()}


def kebab(name: str) -> str:
    """``GoToRedBall`` as ``go-to-red-ball``."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", name)
    return parts.lower()
