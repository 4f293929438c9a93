"""Every world by its name, native or of a suite, as one ``gymnasium.vector.VectorEnv``.

Native worlds are gymnasium ids (``Embodied/Tabletop-v0``) or their short names (``tabletop``); a suite's task is
``suite/task`` (``metaworld/drawer-open``). What every one of them keeps to: ``info["success"]`` bool[n], an explicit
``metadata["autoreset_mode"]``, the true last observation in ``final_obs``, ``reset(seed=…)`` for all slots.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

import envs

__all__ = ["UnknownEnvError", "make_vector", "native"]

_NAMESPACE = "Embodied"


class UnknownEnvError(ValueError):
    """There is no such environment; the sentence lists those there are."""


def native() -> dict[str, str]:
    """Short name -> gymnasium id of our own worlds."""
    assert envs.DISTRIBUTION  # importing the package has registered them
    specs = [spec for spec in gym.registry.values() if spec.namespace == _NAMESPACE]
    return {spec.name.lower(): spec.id for spec in specs}


def make_vector(name: str, num_envs: int = 1, **arguments: Any) -> VectorEnv:
    """``num_envs`` copies of the world called ``name``; ``arguments`` are the world's own.

    Raises UnknownEnvError for a name that is neither native nor of a suite, and whatever the suite raises for a task
    it has not or a library that is not installed.
    """
    known = native()
    suite, _, task = name.partition("/")
    from envs import suites

    if task and suite in suites.SUITES:
        return suites.make_vector(suite, task, num_envs, **arguments)
    full = known.get(name.lower(), name)
    if full not in known.values():
        raise UnknownEnvError(
            f"there is no environment '{name}'; native: {', '.join(known)}; suites: "
            f"{', '.join(f'{suite}/TASK' for suite in suites.SUITES)}"
        )
    return gym.make_vec(full, num_envs, vectorization_mode="vector_entry_point", **arguments)  # type: ignore[return-value]
