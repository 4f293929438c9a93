"""Goals given as states: features of a scene's facts beside other facts that shall come to hold.

Nothing of the robot in the goal counts, only where things are, how they lie, and how high each block was on the way (a
fact of the goal's own, ``peak``: a swept block and a carried one can end in the same place). The first S = `state_size`
columns depend on the present alone (tool, then each block, slide and lamp as seen from the tool); the others are what
the goal wants of each thing, as a difference to the present, and once more, in the same place whatever it is, the thing
to be changed that is nearest to the tool: what is learnt of one block serves for all.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.scenes.facts import (
    B_BOTTOM,
    B_PEAK,
    B_UP,
    B_V,
    B_YAW,
    BLOCK_STRIDE,
    BLOCKS,
    TOOL,
)  # fmt: skip
from envs.scenes.features import (
    LIMIT,
    TOOL_FEATURES,
    block_features,
    clip,
    heading,
    lamp_features,
    slide_features,
    slide_offset,
    tool_features,
)
from envs.scenes.scene import Scene

__all__ = ["COARSE", "GoalStates", "all_differ"]

_BLOCK_STATE, _SLIDE_STATE, _LAMP_STATE = 18, 6, 5
_BLOCK_GOAL, _SLIDE_GOAL, _LAMP_GOAL, _FOCUS = 13, 2, 1, 39
MOVED, TURNED, FALLEN, SLID = 0.02, 0.3, 0.3, 0.03  # m, rad, share of upright, m: changes that goals are drawn for
COARSE = (MOVED, TURNED, FALLEN, SLID)
_FINE = (0.01, 0.12, 0.2, 0.008)  # from where on features say that a thing is not yet as it shall be
CARRIED = 0.02  # m a block is lifted on its way, beyond where it is and shall be, for the goal to say so
_LONGEST = 400  # rows that hindsight looks back over


class GoalStates:
    """Features of (facts, goal facts) in a scene, and when they differ.

    Attributes: ``state_size`` S and ``feature_size`` F; ``watched`` int64[m], the columns of facts in which a change
    counts, and ``thresholds`` float64[m], how large a change.
    """

    def __init__(self, scene: Scene):
        blocks, slides, lamps = len(scene.blocks), len(scene.slides), len(scene.lamps)
        self.layout = scene.layout.arrays
        self.state_size = TOOL_FEATURES + _BLOCK_STATE * blocks + _SLIDE_STATE * slides + _LAMP_STATE * lamps
        self.feature_size = self.state_size + _BLOCK_GOAL * blocks + _SLIDE_GOAL * slides + _LAMP_GOAL * lamps
        self.feature_size += _FOCUS
        watched, thresholds = [], []
        for b in range(blocks):
            watched += [BLOCKS + BLOCK_STRIDE * b + k for k in (0, 1, 2, B_YAW, B_UP)]
            thresholds += [MOVED] * 3 + [TURNED, FALLEN]
        first = BLOCKS + BLOCK_STRIDE * blocks
        watched += [first + 3 * s for s in range(slides)] + [first + 3 * slides + 3 * k for k in range(lamps)]
        thresholds += [SLID] * slides + [0.5] * lamps
        self.watched, self.thresholds = np.array(watched, np.int64), np.array(thresholds)

    def features(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """float32[n, F] of the present facts[n, NX] and the goals' facts[n, NX]."""
        out = np.empty((len(facts), self.feature_size), np.float32)
        _features(facts, goals, self.layout, self.state_size, out)
        return out

    def past(self, facts: np.ndarray) -> np.ndarray:
        """float32[rows, blocks] of recorded facts[rows, NX]: how high the lowest point of each block was."""
        blocks = len(self.layout[0][0])
        return np.ascontiguousarray(
            facts[:, BLOCKS + B_BOTTOM : BLOCKS + BLOCK_STRIDE * blocks : BLOCK_STRIDE], np.float32
        )

    def hindsight(
        self, facts: np.ndarray, start: np.ndarray, goal: np.ndarray, past: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows ``goal`` of recorded facts[rows, NX] as the goals of moments ``start``: each block's peak is that of
        the way between, where they lie in order and at most 400 rows apart, else its height at the goal.

        ``past`` of the same facts, where it is at hand: the way is then read from little memory.
        """
        out = facts[goal]
        _peaks(self.past(facts) if past is None else past, start, goal, out)
        return out

    def states(self, facts: np.ndarray, goals: np.ndarray | None = None) -> np.ndarray:
        """float32[n, S] of facts[n, NX]: the goal-free part of `features`."""
        out = np.empty((len(facts), self.state_size), np.float32)
        _states(facts, self.layout, out)
        return out


@nb.njit(cache=True, nogil=True)
def _peaks(past, start, goal, out):
    blocks = past.shape[1]
    for i in range(start.shape[0]):
        near = 0 <= goal[i] - start[i] <= _LONGEST
        for b in range(blocks):
            peak = past[goal[i], b]
            if near:
                for row in range(start[i], goal[i]):
                    peak = max(peak, past[row, b])
            out[i, BLOCKS + BLOCK_STRIDE * b + B_PEAK] = peak


@nb.njit(cache=True, nogil=True)
def _state(x, layout, o):
    """Fills o[:S] from one row of facts."""
    (bq, _, _, _), (sq, _, axis, handle, _), (lq, top), _ = layout
    tool_features(x, o)
    c = TOOL_FEATURES
    for b in range(bq.shape[0]):
        p = BLOCKS + BLOCK_STRIDE * b
        block_features(x, p, o[c:])
        heading(x, p, o[c + 12 :])
        o[c + 16] = x[p + B_UP]
        o[c + 17] = x[p + B_BOTTOM] * 15.0
        c += _BLOCK_STATE
    at = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    for s in range(sq.shape[0]):
        slide_features(x, at, o[c:])
        slide_offset(x, at, axis[s], handle[s], o[c + 2 :])
        c += _SLIDE_STATE
        at += 3
    for i in range(lq.shape[0]):
        lamp_features(x, at, top[i], o[c:])
        c += _LAMP_STATE
        at += 3
    for k in range(c):
        o[k] = clip(o[k], LIMIT)


@nb.njit(cache=True, nogil=True)
def _to_carry(x, g, p):
    """1 where a block on the table is to leave it on its way: yes or no, however high it is carried."""
    high = g[p + B_PEAK] > max(x[p + B_BOTTOM], g[p + B_BOTTOM]) + CARRIED
    return 1.0 if high and x[p + B_BOTTOM] < CARRIED else 0.0


@nb.njit(cache=True, nogil=True)
def things_differ(x, g, layout, limits, out):
    """Fills out bool[M], blocks, slides, lamps: which things are not as the goal has them.

    By more than ``limits``: m moved, sine turned, share of upright fallen, m slid.
    """
    (bq, _, _, _), (sq, _, _, _, _), (lq, _), _ = layout
    moved, turned, fallen, slid = limits
    blocks, slides = bq.shape[0], sq.shape[0]
    for b in range(blocks):
        p = BLOCKS + BLOCK_STRIDE * b
        away = 0.0
        for k in range(3):
            away = max(away, abs(g[p + k] - x[p + k]))
        turn, rise = g[p + B_YAW] - x[p + B_YAW], g[p + B_UP] - x[p + B_UP]
        out[b] = away > moved or abs(math.sin(turn)) > turned or abs(rise) > fallen
    at = BLOCKS + BLOCK_STRIDE * blocks
    for k in range(blocks, blocks + slides + lq.shape[0]):
        out[k] = abs(g[at] - x[at]) > (slid if k < blocks + slides else 0.5)
        at += 3


@nb.njit(cache=True, nogil=True)
def all_differ(facts, goals, layout, limits, out):
    """`things_differ` for every row: out bool[n, M]."""
    for i in range(facts.shape[0]):
        things_differ(facts[i], goals[i], layout, limits, out[i])


@nb.njit(cache=True, nogil=True)
def _wanted(x, g, layout, differs, o):
    """Fills o[S:] from a row of facts and the goal's; differs bool[M]: which things shall change."""
    (bq, _, _, _), (sq, _, _, _, _), (lq, _), _ = layout
    c = 0
    for b in range(bq.shape[0]):
        p = BLOCKS + BLOCK_STRIDE * b
        for k in range(3):
            wanted = g[p + k] - x[p + k]
            o[c + k] = wanted * 6.0
            o[c + 3 + k] = clip(wanted * 40.0, 2.0)
        turn = g[p + B_YAW] - x[p + B_YAW]
        o[c + 6] = math.sin(turn)
        o[c + 7] = 1.0 - math.cos(turn)
        o[c + 8] = math.sin(2.0 * turn)
        o[c + 9] = 1.0 - math.cos(2.0 * turn)
        o[c + 10] = g[p + B_UP] - x[p + B_UP]
        o[c + 11] = 1.0 if differs[b] else 0.0
        o[c + 12] = _to_carry(x, g, p)
        c += 13
    at = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    for _ in range(sq.shape[0]):
        o[c] = (g[at] - x[at]) * 12.0
        o[c + 1] = clip((g[at] - x[at]) * 40.0, 2.0)
        c += 2
        at += 3
    for _ in range(lq.shape[0]):
        o[c] = g[at] - x[at]
        c += 1
        at += 3
    _focus(x, g, layout, differs, o[c : c + _FOCUS])
    for k in range(c + _FOCUS):
        o[k] = clip(o[k], LIMIT)


@nb.njit(cache=True, nogil=True)
def _focus(x, g, layout, differs, o):
    """Fills o[:_FOCUS] with the thing nearest to the tool of those that shall change; zeros where none shall."""
    (bq, _, half, _), (sq, _, axis, handle, _), (lq, top), _ = layout
    for k in range(o.shape[0]):
        o[k] = 0.0
    best, kind, which = np.inf, -1, 0
    for b in range(bq.shape[0]):
        p = BLOCKS + BLOCK_STRIDE * b
        near = 0.0
        for k in range(3):
            near += (x[p + k] - x[TOOL + k]) ** 2
        if differs[b] and near < best:
            best, kind, which = near, 0, b
    at = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    for s in range(sq.shape[0]):
        near = 0.0
        for k in range(3):
            near += (handle[s, k] + axis[s, k] * x[at] - x[TOOL + k]) ** 2
        if differs[bq.shape[0] + s] and near < best:
            best, kind, which = near, 1, s
        at += 3
    for i in range(lq.shape[0]):
        near = 0.0
        for k in range(3):
            near += (top[i, k] - x[TOOL + k]) ** 2
        if differs[bq.shape[0] + sq.shape[0] + i] and near < best:
            best, kind, which = near, 2, i
    if kind < 0:
        return
    o[kind] = 1.0
    if kind == 0:
        p = BLOCKS + BLOCK_STRIDE * which
        turn = g[p + B_YAW] - x[p + B_YAW]
        for k in range(3):
            relative, wanted = x[p + k] - x[TOOL + k], g[p + k] - x[p + k]
            o[3 + k] = relative * 8.0
            o[6 + k] = clip(relative * 40.0, 2.0)
            o[9 + k] = wanted * 6.0
            o[12 + k] = clip(wanted * 40.0, 2.0)
            o[15 + k] = clip(x[p + B_V + k] * 4.0, 3.0)
            o[18 + k] = half[which, k] * 20.0
        heading(x, p, o[21:])
        o[25], o[26] = math.sin(turn), 1.0 - math.cos(turn)
        o[27], o[28] = x[p + B_UP], g[p + B_UP] - x[p + B_UP]
        o[29], o[30] = x[p + B_BOTTOM] * 15.0, g[p + B_BOTTOM] * 15.0
        o[31], o[32] = math.sin(x[p + B_YAW]), math.cos(x[p + B_YAW])
        o[38] = _to_carry(x, g, p)
    elif kind == 1:
        at = BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * which
        for k in range(3):
            relative = handle[which, k] + axis[which, k] * x[at] - x[TOOL + k]
            o[3 + k] = relative * 8.0
            o[6 + k] = clip(relative * 40.0, 2.0)
            o[9 + k] = (g[at] - x[at]) * axis[which, k] * 6.0
            o[12 + k] = clip((g[at] - x[at]) * axis[which, k] * 40.0, 2.0)
            o[15 + k] = clip(x[at + 1] * axis[which, k] * 4.0, 3.0)
            o[33 + k] = axis[which, k]
    else:
        at = BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * sq.shape[0] + 3 * which
        for k in range(3):
            relative = top[which, k] - x[TOOL + k]
            o[3 + k] = relative * 8.0
            o[6 + k] = clip(relative * 40.0, 2.0)
        o[36], o[37] = x[at + 2] * 50.0, g[at] - x[at]


@nb.njit(cache=True, nogil=True)
def _features(facts, goals, layout, size, out):
    differs = np.empty(layout[0][0].shape[0] + layout[1][0].shape[0] + layout[2][0].shape[0], np.bool_)
    for i in range(facts.shape[0]):
        _state(facts[i], layout, out[i])
        things_differ(facts[i], goals[i], layout, _FINE, differs)
        _wanted(facts[i], goals[i], layout, differs, out[i, size:])


@nb.njit(cache=True, nogil=True)
def _states(facts, layout, out):
    """Fills out float32[n, S] from facts[n, NX]."""
    for i in range(facts.shape[0]):
        _state(facts[i], layout, out[i])
