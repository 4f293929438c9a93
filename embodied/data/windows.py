"""Training windows drawn from flat episodes: a start, a goal later in the same episode, and a chunk of
actions.

A start is uniform over all rows that lie at least L before their episode's last; a goal lies L … H rows later,
uniformly, and never past the episode's last observation. Play is full of moments in which nothing happens, so goals in
which something changed are preferred: where no watched column differs between start and goal by more than its
threshold, the goal is drawn again with probability 0.9, up to 3 times. All randomness is drawn from the generator
passed, before the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class Windows:
    """n windows as row numbers of the flat arrays.

    start int64[n], goal int64[n], chunk int64[n, K] (rows of the K actions from the start on; past the
    episode's last action that one is repeated), valid int64[n] (how many of the K are not such repetitions,
    at least 1).
    """

    start: np.ndarray
    goal: np.ndarray
    chunk: np.ndarray
    valid: np.ndarray


class WindowSampler:
    """Draws windows from flat, row-aligned episodes (see ``embodied.data.store``).

    observations float[rows, NX]; episode_ends int64[episodes]. `columns` and `thresholds` say which columns
    must differ by more than what for a goal to count as a change; without columns every goal does. `episodes`
    restricts the draw to some episodes (int[m]), e.g. `store.indices("practice")`. ValueError where an
    argument cannot be used.
    """

    def __init__(
        self,
        observations: np.ndarray,
        episode_ends: np.ndarray,
        *,
        horizon: int,
        chunk: int,
        columns: Sequence[int] | np.ndarray = (),
        thresholds: ArrayLike = (),
        preference: float = 0.9,
        redraws: int = 3,
        episodes: np.ndarray | None = None,
        least: int = 1,
    ) -> None:
        self.observations = observations
        self.horizon, self.chunk = horizon, chunk
        self.columns = np.asarray(columns, np.int64)
        self.thresholds = np.asarray(thresholds, np.float64)
        self.preference, self.redraws = preference, redraws
        ends = np.asarray(episode_ends, np.int64)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        chosen = np.arange(len(ends)) if episodes is None else np.asarray(episodes, np.int64)
        if len(chosen) == 0:
            raise ValueError("there are no episodes to draw windows from; collect some first")
        if ends[-1] > len(observations):
            raise ValueError(f"the episodes end at row {ends[-1]}, but there are {len(observations)} observations")
        if horizon < 1 or chunk < 1 or redraws < 0 or not 0 <= preference <= 1:
            raise ValueError(
                f"horizon {horizon} and chunk {chunk} must be at least 1, redraws {redraws} at least 0 and "
                f"preference {preference} between 0 and 1"
            )
        if not 1 <= least <= horizon:
            raise ValueError(f"least = {least} steps to a goal must lie in 1 … {horizon}, the horizon")
        width = observations.shape[1]
        if self.thresholds.shape != self.columns.shape or np.any((self.columns < 0) | (self.columns >= width)):
            raise ValueError(
                f"{len(self.columns)} columns need as many thresholds and must lie in 0 … {width - 1}; got "
                f"columns {self.columns.tolist()} and thresholds {self.thresholds.tolist()}"
            )
        self.least = least
        self._starts, self._ends = starts[chosen], ends[chosen]
        rooms = np.maximum(0, self._ends - self._starts - least)
        if not rooms.any():
            longest = int((self._ends - self._starts).max()) - 1
            raise ValueError(f"windows need {least} steps, but the longest episode has {longest}; take shorter windows")
        self._cumulative = np.cumsum(rooms)

    @property
    def steps(self) -> int:
        """Number of rows a window can start at."""
        return int(self._cumulative[-1])

    def sample(self, n: int, rng: np.random.Generator) -> Windows:
        """Draw n windows; the same generator state gives the same windows."""
        uniform = rng.random((n, 2 + 2 * self.redraws))
        start, goal = np.empty(n, np.int64), np.empty(n, np.int64)
        rows, valid = np.empty((n, self.chunk), np.int64), np.empty(n, np.int64)
        _draw(
            self.observations, self._starts, self._ends, self._cumulative, self.least, self.horizon, self.columns,
            self.thresholds, self.preference, uniform, start, goal, rows, valid,
        )  # fmt: skip
        return Windows(start, goal, rows, valid)


@njit(cache=True, nogil=True)
def _draw(
    observations, starts, ends, cumulative, least, horizon, columns, thresholds, preference, uniform,
    start, goal, rows, valid,
):  # fmt: skip
    """Fill start, goal, rows and valid from uniform[n, 2 + 2 redraws]."""
    total = cumulative[-1]
    redraws = (uniform.shape[1] - 2) // 2
    for i in range(len(start)):
        position = min(int(uniform[i, 0] * total), total - 1)
        episode = np.searchsorted(cumulative, position, side="right")
        before = cumulative[episode - 1] if episode > 0 else 0
        s = starts[episode] + position - before
        last = ends[episode] - 1  # the row of the episode's last observation; its last action is one before
        reach = min(horizon, last - s) - least + 1
        g = s + least + min(int(uniform[i, 1] * reach), reach - 1)
        for k in range(redraws):
            changed = len(columns) == 0
            for j in range(len(columns)):
                if abs(observations[g, columns[j]] - observations[s, columns[j]]) > thresholds[j]:
                    changed = True
                    break
            if changed or uniform[i, 2 + 2 * k] >= preference:
                break
            g = s + least + min(int(uniform[i, 3 + 2 * k] * reach), reach - 1)
        start[i] = s
        goal[i] = g
        valid[i] = min(rows.shape[1], last - s)
        for k in range(rows.shape[1]):
            rows[i, k] = min(s + k, last - 1)
