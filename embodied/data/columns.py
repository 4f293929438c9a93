"""How episodes lie end to end in flat columns, and what the store's ``layout.json`` says about them.

Columns of `ROWS` are row-aligned: an episode of T steps takes T+1 rows in each, and in all but the
observations the last of them is zeros. `states` and `state_steps` have rows of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embodied.core import EPISODE_ARRAYS, Episode
from embodied.data.durable import replace_file

FORMAT = 1
ROWS = ("observations", "actions", "rewards", "terminations", "truncations")
WIDE = tuple(name for name, (_, _, ndim) in EPISODE_ARRAYS.items() if ndim == 2)


class StoreError(RuntimeError):
    """The store on disk is unusable or used wrongly; the sentence says where, what is wrong, what to do."""


class BrokenEpisodeError(StoreError):
    """An episode holds NaN or infinity; nothing of its batch was stored. `position` is its place in the
    batch.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def padding(name: str) -> int:
    """Rows of zeros after an episode's own in a column."""
    return int(name in ROWS and name != "observations")


def bounds_of(name: str, batch: Sequence[Episode]) -> np.ndarray:
    """int64[episodes + 1]: where each episode of a batch begins and ends in the batch's block of a column."""
    lengths = [len(getattr(episode, name)) + padding(name) for episode in batch]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def block_of(name: str, batch: Sequence[Episode], bounds: np.ndarray) -> np.ndarray:
    """A column of a batch as one contiguous array [rows, width] or [rows], zeros where padded."""
    arrays = [getattr(episode, name) for episode in batch]
    block = np.zeros((int(bounds[-1]), *arrays[0].shape[1:]), EPISODE_ARRAYS[name][0])
    for array, begin in zip(arrays, bounds.tolist(), strict=False):
        block[begin : begin + len(array)] = array
    return block


def check_finite(
    name: str,
    block: np.ndarray,
    bounds: np.ndarray,
    batch: Sequence[Episode],
    first: int,
    columns: Sequence[str],
) -> None:
    """BrokenEpisodeError at the first NaN or infinity of a block; `first` is the number of the batch's
    episode 0.
    """
    if block.dtype.kind != "f" or np.isfinite(block).all():
        return
    row, column = (int(i) for i in np.argwhere(~np.isfinite(block))[0])
    position = int(np.searchsorted(bounds, row, side="right")) - 1
    label = f" ('{columns[column]}')" if name == "observations" and columns else ""
    raise BrokenEpisodeError(
        f"episode {first + position} (goal '{batch[position].goal}', seed {batch[position].seed}) holds "
        f"{block[row, column]} in {name} column {column}{label}, row {row - bounds[position]}; it was not "
        f"stored: quarantine it",
        position,
    )


def widths_of(batch: Sequence[Episode]) -> dict[str, int]:
    """The widths of the two-dimensional columns, taken from a batch's first episode."""
    return {name: getattr(batch[0], name).shape[1] for name in WIDE}


def check_widths(batch: Sequence[Episode], widths: dict[str, int], first: int, columns: Sequence[str]) -> None:
    """StoreError where an episode has other widths than the store, or there are not as many column names."""
    if columns and len(columns) != widths["observations"]:
        raise StoreError(
            f"{len(columns)} column names were given for {widths['observations']} observation columns; name all or none"
        )
    for position, episode in enumerate(batch):
        for name, width in widths.items():
            found = getattr(episode, name).shape[1]
            if found != width:
                raise StoreError(
                    f"episode {first + position} (goal '{episode.goal}') has {found} columns of {name} "
                    f"where the store holds {width}; give each environment a store of its own"
                )


def write_layout(directory: Path, widths: dict[str, int], columns: Sequence[str]) -> None:
    """Write ``layout.json``: format, widths, names of the observation columns."""
    layout = {"format": FORMAT, "widths": widths, "columns": list(columns)}
    replace_file(directory / "layout.json", json.dumps(layout, indent=1).encode())


def read_layout(directory: Path, columns: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The widths and column names of a store; StoreError where damaged or written with other names."""
    path = directory / "layout.json"
    try:
        layout = json.loads(path.read_bytes())
        widths = {name: int(layout["widths"][name]) for name in WIDE}
        names, number = tuple(layout["columns"]), int(layout["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is missing or damaged ({error}); restore it from a copy of the store") from error
    if number != FORMAT:
        raise StoreError(f"{path} is of format {number}; this version reads format {FORMAT}")
    if columns and names and tuple(columns) != names:
        odd = sorted(set(columns) ^ set(names)) or ["their order"]
        raise StoreError(
            f"{directory} was written with other observation columns (the difference: {', '.join(odd[:5])}); "
            f"its episodes cannot be mixed with new ones, so start a new run"
        )
    return widths, names
