"""Features that policies see, from facts and a goal, in numba.

The goal is *where things should be*: ``targets float64[n, 8]`` = red xyz, blue xyz, drawer, lamp, with a mask of four
groups (red, blue, drawer, lamp) for what it speaks of; it says nothing about the robot itself. Blocks are put in order
by role (the one the goal speaks of first), so that what is learnt with one block carries over to the other.
Every policy, from play or from practice, reads these same features.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.playroom.scene import BUTTON, CABINET, HANDLE
from envs.predicates import (
    AT,
    B_UP,
    B_V,
    B_YAW,
    BLOCK,
    BLOCK_STRIDE,
    BUTTON_DEPTH,
    CLOSED,
    DRAWER,
    GRIP,
    HOLDING,
    IN_FRONT_OF,
    INSIDE,
    LAG,
    LAMP,
    LEFT_OF,
    LIFTED,
    LIT,
    NEXT_TO,
    ON,
    OPEN,
    PLACED,
    TOOL,
    TOOL_V,
    WIDTH,
    YAW,
    literal_target,
)  # fmt: skip

__all__ = ["FEATURES", "GOAL_DIM", "GROUPS", "LIMIT", "features", "goal_targets", "hindsight_features"]

GOAL_DIM, GROUPS = 8, 4
FEATURES = 78
LIMIT = 20.0  # features are clipped to ±LIMIT
_CENTRE = (0.50, 0.05, 0.10)
_HX, _HY, _HZ = float(CABINET[0] + HANDLE[0]), float(CABINET[1] + HANDLE[1]), float(HANDLE[2])
_BX, _BY, _BZ = (float(v) for v in BUTTON)


@nb.njit(cache=True, nogil=True)
def slot_targets(row, count, codes, place, spot, targets, mask):
    """Fills one slot's targets float64[8] and mask float64[4]; its role. spot float64[3] is scratch."""
    for b in range(2):
        for k in range(3):
            targets[3 * b + k] = row[BLOCK + BLOCK_STRIDE * b + k]
    targets[6] = row[DRAWER]
    targets[7] = row[LAMP]
    for k in range(GROUPS):
        mask[k] = 0.0
    role = -1
    for j in range(count):
        p, a, b, sign = codes[j, 0], codes[j, 1], codes[j, 2], codes[j, 3]
        if p == OPEN or p == CLOSED:
            targets[6] = 0.15 if (p == OPEN) == (sign > 0) else 0.0
            mask[2] = 1.0
        elif p == LIT:
            targets[7] = 1.0 if sign > 0 else 0.0
            mask[3] = 1.0
        else:
            if role < 0:
                role = a
            if sign > 0 and (
                p == HOLDING or p == LIFTED or p == AT or p == PLACED or p == ON or p == INSIDE or p == LEFT_OF
                or p == IN_FRONT_OF or p == NEXT_TO
            ):  # fmt: skip
                literal_target(row, p, a, b, place[j, 0], place[j, 1], spot)
                for k in range(3):
                    targets[3 * a + k] = spot[k]
                mask[a] = 1.0
    return max(role, 0)


@nb.njit(cache=True, nogil=True)
def goal_targets(x, count, codes, place, targets, mask, role):
    """Fills targets float64[n, 8], mask float64[n, 4] and role int64[n] (index of the first block) from goal codes.

    Groups the goal does not mention keep their present values in ``targets`` and 0 in ``mask``.
    """
    spot = np.empty(3)
    for i in range(x.shape[0]):
        role[i] = slot_targets(x[i], count[i], codes[i], place[i], spot, targets[i], mask[i])


@nb.njit(cache=True, nogil=True)
def _clip(v, limit):
    return min(limit, max(-limit, v))


@nb.njit(cache=True, nogil=True)
def slot_features(r, targets, mask, role, o):
    """Fills one slot's features, o float32[FEATURES]. See `features`."""
    for k in range(3):
        o[k] = (r[TOOL + k] - _CENTRE[k]) * 8.0
        o[3 + k] = r[TOOL_V + k] * 2.5
        o[6 + k] = r[LAG + k] * 25.0
    o[9] = r[YAW] * 1.5
    o[10] = r[LAG + 3] * 5.0
    o[11] = r[WIDTH] * 25.0 - 1.0
    o[12] = r[WIDTH + 1] * 5.0
    o[13] = r[GRIP]
    c = 14
    for slot in range(2):
        b = role if slot == 0 else 1 - role
        p = BLOCK + BLOCK_STRIDE * b
        for k in range(3):
            relative = r[p + k] - r[TOOL + k]
            goal = targets[3 * b + k] - r[p + k]
            o[c + k] = relative * 8.0
            o[c + 3 + k] = _clip(relative * 40.0, 2.0)
            o[c + 6 + k] = (r[p + k] - _CENTRE[k]) * 8.0
            o[c + 9 + k] = _clip(r[p + B_V + k] * 4.0, 3.0)
            o[c + 12 + k] = goal * 6.0 * mask[b]
            o[c + 15 + k] = _clip(goal * 40.0, 2.0) * mask[b]
        turn = 4.0 * (r[p + B_YAW] - r[YAW])
        o[c + 18] = math.sin(turn)
        o[c + 19] = math.cos(turn)
        o[c + 20] = r[p + B_UP]
        o[c + 21] = min(1.0, r[p + 8] * 15.0)
        o[c + 22] = mask[b]
        c += 23
    first = BLOCK + BLOCK_STRIDE * role
    second = BLOCK + BLOCK_STRIDE * (1 - role)
    for k in range(3):
        o[c + k] = _clip((r[second + k] - r[first + k]) * 12.0, 3.0)
    c += 3
    o[c] = r[DRAWER] * 12.0 - 1.0
    o[c + 1] = _clip(r[DRAWER + 1] * 5.0, 3.0)
    o[c + 2] = (targets[6] - r[DRAWER]) * 12.0 * mask[2]
    o[c + 3] = mask[2]
    o[c + 4] = (_HX - r[TOOL]) * 10.0
    o[c + 5] = (_HY + r[DRAWER] - r[TOOL + 1]) * 10.0
    o[c + 6] = (_HZ - r[TOOL + 2]) * 10.0
    o[c + 7] = _clip((_HY + r[DRAWER] - r[TOOL + 1]) * 40.0, 2.0)
    o[c + 8] = (_BX - r[TOOL]) * 10.0
    o[c + 9] = (_BY - r[TOOL + 1]) * 10.0
    o[c + 10] = (_BZ - r[TOOL + 2]) * 10.0
    o[c + 11] = r[BUTTON_DEPTH] * 50.0
    o[c + 12] = r[LAMP] * 2.0 - 1.0
    o[c + 13] = (targets[7] - r[LAMP]) * mask[3]
    o[c + 14] = mask[3]
    for k in range(o.shape[0]):
        o[k] = _clip(o[k], LIMIT)


@nb.njit(cache=True, nogil=True)
def features(x, targets, mask, role, out):
    """Fills out float32[n, FEATURES]; values are of order one."""
    for i in range(x.shape[0]):
        slot_features(x[i], targets[i], mask[i], role[i], out[i])


@nb.njit(cache=True, nogil=True)
def hindsight_targets(x, later, targets, mask, role):
    """What happened between two facts rows, as a goal: fills targets, mask and role from x and later float[n, NX].

    A group is spoken of where it changed: a block that moved 2 cm, a drawer that moved 3 cm, a switched lamp.
    The first block is the one that moved more.
    """
    for i in range(x.shape[0]):
        far = 0.0
        role[i] = 0
        for b in range(2):
            moved = 0.0
            for k in range(3):
                c = BLOCK + BLOCK_STRIDE * b + k
                targets[i, 3 * b + k] = later[i, c]
                moved += (later[i, c] - x[i, c]) ** 2
            mask[i, b] = 1.0 if moved > 0.02**2 else 0.0
            if moved > far:
                far = moved
                role[i] = b
        targets[i, 6] = later[i, DRAWER]
        mask[i, 2] = 1.0 if abs(later[i, DRAWER] - x[i, DRAWER]) > 0.03 else 0.0
        targets[i, 7] = later[i, LAMP]
        mask[i, 3] = 1.0 if abs(later[i, LAMP] - x[i, LAMP]) > 0.5 else 0.0


def hindsight_features(x: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Features float32[n, FEATURES] of facts x float[n, NX] for the goal of what had changed by ``later``."""
    n = len(x)
    targets, mask, role = np.zeros((n, GOAL_DIM)), np.zeros((n, GROUPS)), np.zeros(n, np.int64)
    out = np.zeros((n, FEATURES), np.float32)
    x, later = np.ascontiguousarray(x, np.float64), np.ascontiguousarray(later, np.float64)
    hindsight_targets(x, later, targets, mask, role)
    features(x, targets, mask, role, out)
    return out
