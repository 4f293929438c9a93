"""What has lasted too long goes on with noise.

A mean can come to rest where it should not: a block at its place, the gripper not quite willing to open. So after a
number of steps a policy that acts by its mean takes on the spread it was learnt with. The noise is a fixed function of
what the slot's episode began with and of the step: no chance is involved, and no neighbour.
"""

from __future__ import annotations

import numpy as np

from policies.base import State
from policies.distributions import row_key, slot_noise

__all__ = ["lasting_noise"]


def lasting_noise(
    observation: np.ndarray, size: int, patience: int, state: State | None, episode_start: np.ndarray | None
) -> tuple[np.ndarray, State]:
    """Standard normal float32[n, size], zero for slots whose episode is younger than ``patience`` steps; the state.

    State, one row a slot: `age` int64[n] of the episode, and `key` uint64[n], from its first observation.
    Raises ValueError for a state of another number of slots.
    """
    slots = len(observation)
    begun = np.ones(slots, np.bool_) if state is None else np.zeros(slots, np.bool_)
    if episode_start is not None:
        begun |= np.asarray(episode_start, np.bool_)
    state = state or {"age": np.zeros(slots, np.int64), "key": np.zeros(slots, np.uint64)}
    if len(state["age"]) != slots:
        raise ValueError(f"The state has {len(state['age'])} slots, the observations {slots}.")
    age, key = np.where(begun, 0, state["age"]), state["key"].copy()
    key[begun] = row_key(np.asarray(observation)[begun])
    noise, late = np.zeros((slots, size), np.float32), age >= patience
    noise[late] = slot_noise(key[late], age[late], size)
    return noise, {"age": age + 1, "key": key}
