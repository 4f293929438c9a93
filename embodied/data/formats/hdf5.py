"""What the two HDF5 formats share: arrays of a group, and numbers from observations in several parts."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from embodied.data.dataset import DatasetError, rows

__all__ = ["array", "flat", "store_simulation", "stored_simulation"]


def array(group: h5py.Group, name: str) -> np.ndarray:
    """A data set of a group, whole. KeyError naming its path where there is none."""
    if name not in group:
        raise KeyError(f"{group.name}/{name}".lstrip("/"))
    return np.asarray(group[name][()])  # type: ignore[index]


def flat(item: Any, name: str = "") -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """float32[n, width] of a data set or of a group's, one after the other; column names; names of what was left out.

    Texts and pictures are left out. DatasetError where nothing remains.
    """
    if isinstance(item, h5py.Dataset):
        found = np.asarray(item[()])
        if found.dtype.kind not in "fiub" or found.ndim > 2:
            raise DatasetError(f"'{item.name}' holds texts or pictures, and there is nothing else to learn from")
        numbers = rows(found)
        width = numbers.shape[1]
        return numbers, tuple(f"{name}[{i}]" for i in range(width)) if width > 1 else (name,), ()
    blocks, columns, left = [], [], []
    for key, value in item.items():
        try:
            block, names, missing = flat(value, f"{name}.{key}" if name else key)
        except DatasetError:
            left.append(f"{name}.{key}" if name else key)
            continue
        blocks.append(block)
        columns += names
        left += missing
    if not blocks:
        raise DatasetError(f"'{item.name}' holds no numbers to learn from")
    return np.concatenate(blocks, axis=1), tuple(columns), tuple(left)


def store_simulation(group: h5py.Group, episode: Any) -> None:
    """An episode's simulator states and the steps they precede, and its reward terms, into a group."""
    for name in ("states", "state_steps"):
        group.create_dataset(name, data=getattr(episode, name))
    if episode.rewards.shape[1] != 1:
        group.create_dataset("reward_terms", data=episode.rewards)


def stored_simulation(group: h5py.Group, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, their steps, and rewards float32[T, K], from what `store_simulation` wrote."""
    terms = array(group, "reward_terms") if "reward_terms" in group else rewards
    return array(group, "states"), array(group, "state_steps"), terms
