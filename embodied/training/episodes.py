"""Fresh seeded episodes of a policy on any world of the registry, by gymnasium's interface and ``info["success"]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from embodied.training.rollouts import Actor

__all__ = ["NoSuccessError", "Outcome", "run_episodes", "seed_of"]


class NoSuccessError(ValueError):
    """An environment does not say whether an episode succeeded, so that nothing can be measured on it."""


@dataclass(frozen=True)
class Outcome:
    """n episodes: success bool[n] at the last step, return float64[n] (undiscounted), length int64[n] in steps."""

    success: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray


def seed_of(seed: int, *words: int) -> int:
    """A seed below 2³¹ that belongs to ``seed`` and the words, and to no other words."""
    return int(np.random.SeedSequence(seed, spawn_key=words).generate_state(1, np.uint64)[0] >> np.uint64(33))


def run_episodes(
    policy: Actor,
    env: VectorEnv,
    n: int,
    seed: int,
    *,
    deterministic: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """The first episode of each slot, in as many seeded sets of slots as n takes; later episodes do not count.

    So no policy gets more of the short episodes, whatever the autoreset mode. ``tick`` is called at each step.

    Raises NoSuccessError where ``info`` has no ``success``.
    """
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for part in range(-(-n // env.num_envs)):
        columns.append(_set(policy, env, seed_of(seed, part), deterministic, tick))
    success, returns, lengths = (np.concatenate(column)[:n] for column in zip(*columns, strict=True))
    return Outcome(success, returns, lengths)


def _set(
    policy: Actor, env: VectorEnv, seed: int, deterministic: bool, tick: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One episode a slot."""
    slots = env.num_envs
    success, alive, begins = np.zeros(slots, np.bool_), np.ones(slots, np.bool_), np.ones(slots, np.bool_)
    returns, lengths = np.zeros(slots), np.zeros(slots, np.int64)
    observation, memory = env.reset(seed=seed)[0], None
    while alive.any():
        action, memory = policy.predict(observation, memory, begins, deterministic=deterministic)
        observation, reward, terminated, truncated, info = env.step(action)
        begins = np.asarray(terminated) | np.asarray(truncated)
        returns[alive] += np.asarray(reward)[alive]
        lengths[alive] += 1
        over = alive & begins
        if over.any():
            success[over] = _success(env, info)[over]
            alive &= ~over
        tick()
    return success, returns, lengths


def _success(env: VectorEnv, info: dict[str, Any]) -> np.ndarray:
    """bool[n] of the episodes that ended in this step, also from gymnasium's own vector environments."""
    found = info.get("final_info", info).get("success")
    if found is None:
        raise NoSuccessError(f"{env} has no info['success']: what its episodes achieve cannot be measured")
    return np.asarray(found, np.bool_)
