"""Other people's worlds, each behind one thin adapter that keeps to our conventions."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import VectorEnv

__all__ = ["SUITES", "make_vector"]

SUITES: tuple[str, ...] = ()


def make_vector(suite: str, task: str, num_envs: int, **arguments: Any) -> VectorEnv:
    """``num_envs`` copies of a suite's task."""
    raise NotImplementedError(f"{suite}/{task}")
