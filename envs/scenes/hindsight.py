"""Which goals came true in stretches of recorded facts, judged as the environment does: on the change since the start.

A recorded row remembers the start of its own episode. Here every stretch is given a start of its own: where things
were, how high each block has been since, and how far it has turned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba as nb
import numpy as np

from envs.scenes.facts import (
    B_BOTTOM,
    B_PEAK,
    B_START,
    B_TURN,
    B_UP,
    B_UP0,
    B_YAW,
    BLOCK_STRIDE,
    BLOCKS,
    turned,
)  # fmt: skip
from envs.scenes.predicates import distances, encode
from envs.scenes.scene import Scene

__all__ = ["came_true"]


def came_true(
    facts: np.ndarray, start: np.ndarray, end: np.ndarray, goals: Sequence[str], scene: Scene, hold: int = 3
) -> np.ndarray:
    """int64[n, goals]: the first row of each stretch from row ``start`` to ``end`` (int64[n], both of one episode) at
    which a goal has held for ``hold`` rows and did not at the start; -1 where there is none.

    facts float[rows, NX]. Raises WordError for a goal that is not in the scene's words.
    """
    codes = encode([scene.vocabulary.parse(scene.tasks.get(goal, goal)) for goal in goals], scene.vocabulary)
    found = np.full((len(start), len(goals)), -1, np.int64)
    _came_true(
        facts, np.asarray(start, np.int64), np.asarray(end, np.int64), codes.count, codes.codes, codes.place,
        scene.layout.arrays, hold, found,
    )  # fmt: skip
    return found


@nb.njit(cache=True, nogil=True)
def _came_true(facts, start, end, count, codes, place, layout, hold, found):
    x, d = np.empty(facts.shape[1]), np.empty(codes.shape[1])
    blocks, slides, lamps = layout[0][0].shape[0], layout[1][0].shape[0], layout[2][0].shape[0]
    first = BLOCKS + BLOCK_STRIDE * blocks
    peak, turn, yaw = np.empty(blocks), np.empty(blocks), np.empty(blocks)
    held = np.empty(codes.shape[0], np.int64)
    for i in range(start.shape[0]):
        origin = facts[start[i]]
        held[:] = 0
        for row in range(start[i], end[i] + 1):
            x[:] = facts[row]
            for b in range(blocks):
                p = BLOCKS + BLOCK_STRIDE * b
                if row == start[i]:
                    peak[b], turn[b], yaw[b] = x[p + B_BOTTOM], 0.0, x[p + B_YAW]
                peak[b] = max(peak[b], x[p + B_BOTTOM])
                turn[b] += turned(x[p + B_YAW] - yaw[b])
                yaw[b] = x[p + B_YAW]
                for k in range(3):
                    x[p + B_START + k] = origin[p + k]
                x[p + B_UP0], x[p + B_PEAK], x[p + B_TURN] = origin[p + B_UP], peak[b], turn[b]
            for s in range(slides):
                x[first + 3 * s + 2] = origin[first + 3 * s]
            for k in range(lamps):
                at = first + 3 * slides + 3 * k
                x[at + 1] = origin[at]
            for g in range(codes.shape[0]):
                if found[i, g] >= 0 or held[g] < 0:
                    continue
                distances(x, count[g], codes[g], place[g], layout, d)
                if d.min() <= 0.0:
                    held[g] = 0
                elif row == start[i]:
                    held[g] = -1  # it held already
                else:
                    held[g] += 1
                    if held[g] >= hold:
                        found[i, g] = row
