"""Where an episode begins: a world drawn from (seed, slot, episode) alone, and from what its goal asks for.

The draws come from a counter-based generator (SplitMix64 over the three numbers), so that a slot's n-th start never
depends on when another slot's episode ended. Everything a goal does not speak of varies freely: lamp, drawer, the other
block (mostly on the table, now and then on the cabinet, in the open drawer, or stacked), the arm's pose and gripper.
What it speaks of is drawn so that the goal does not hold yet and can be reached by one skill: `inside` begins with an
open drawer, `open` with a closed one, and so on. Without a goal (count 0) everything varies freely.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import (
    BLOCK,
    BLOCK_STRIDE,
    CLOSED,
    DRAWER,
    GRIP,
    INSIDE,
    LAMP,
    LIT,
    ON,
    OPEN,
    PLACED,
    TOOL,
    WIDTH,
    literal_distance,
)  # fmt: skip

__all__ = [
    "AREA_HIGH", "AREA_LOW", "PLACES_HIGH", "PLACES_LOW", "START_COLUMNS", "draw_kept", "draw_places", "draw_starts",
]  # fmt: skip

AREA_LOW, AREA_HIGH = np.array([0.385, 0.0]), np.array([0.63, 0.21])  # where blocks lie, m
# Where places to put a block are drawn: a wider area, cut off, so that its rim, where most named places lie,
# comes up often.
PLACES_LOW, PLACES_HIGH, RIM = np.array([0.375, 0.005]), np.array([0.62, 0.215]), 0.03
START_COLUMNS = 16  # red x y z yaw, blue x y z yaw, drawer, lamp, tool x y z yaw, opening (m), spare
_GAP = 0.085  # m between a place and the other block, for fingers to get in between
_LEVEL = 0.008  # m above the table's rest that still counts as lying on the table
_CX, _CY = float(CABINET[0]), float(CABINET[1])
_LOW, _HIGH = (float(v) for v in AREA_LOW), (float(v) for v in AREA_HIGH)
_LX, _LY = _LOW
_UX, _UY = _HIGH
_PLX, _PLY = (float(v) for v in PLACES_LOW)
_PUX, _PUY = (float(v) for v in PLACES_HIGH)


@nb.njit(cache=True, nogil=True)
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@nb.njit(cache=True, nogil=True)
def _uniform(state, low, high):
    """The next draw in [low, high) of the generator whose counter is state[0]."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return low + (high - low) * (np.float64(_mix(state[0]) >> np.uint64(11)) / 9007199254740992.0)


@nb.njit(cache=True, nogil=True)
def _spot(state, ox, oy, gap):
    """A point of the block area at least ``gap`` from (ox, oy), after at most 40 tries."""
    x = 0.0
    y = 0.0
    for _ in range(40):
        x = _uniform(state, _LX, _UX)
        y = _uniform(state, _LY, _UY)
        if (x - ox) ** 2 + (y - oy) ** 2 > gap * gap:
            break
    return x, y


@nb.njit(cache=True, nogil=True)
def _blocks(state, start, first, easy):
    """Both blocks; ``first`` is the one that matters. Returns nothing, fills start[0:8]."""
    other = 1 - first
    x, y = _spot(state, 9.0, 9.0, 0.0)
    start[4 * other] = x
    start[4 * other + 1] = y
    start[4 * other + 2] = BLOCK_HALF
    x, y = _spot(state, x, y, 0.075)
    start[4 * first] = x
    start[4 * first + 1] = y
    start[4 * first + 2] = BLOCK_HALF
    for b in range(2):
        start[4 * b + 3] = _uniform(state, -math.pi / 4, math.pi / 4)
    for b in (other, first):
        u = _uniform(state, 0.0, 1.0)
        if b == first and easy:
            continue
        taken = start[4 * (1 - b) + 1] < -0.02  # the other block is in the drawer or on the cabinet already
        if u < 0.07 and not taken:
            start[4 * b] = _CX + _uniform(state, -0.06, 0.06)
            start[4 * b + 1] = _CY + _uniform(state, -0.04, 0.0)
            start[4 * b + 2] = CABINET_TOP + BLOCK_HALF
        elif 0.07 <= u < 0.14 and start[8] > 0.148 and not taken:
            start[4 * b] = _CX + _uniform(state, -0.05, 0.05)
            start[4 * b + 1] = _CY + start[8] + _uniform(state, 0.005, 0.045)
            start[4 * b + 2] = DRAWER_FLOOR + BLOCK_HALF
        elif 0.14 <= u < 0.20 and start[4 * (1 - b) + 2] < BLOCK_HALF + 0.001 and b == first:
            start[4 * b] = start[4 * (1 - b)] + _uniform(state, -0.008, 0.008)
            start[4 * b + 1] = start[4 * (1 - b) + 1] + _uniform(state, -0.008, 0.008)
            start[4 * b + 2] = 3 * BLOCK_HALF
    return


@nb.njit(cache=True, nogil=True)
def _places(state, start, count, codes, place):
    """Draws what is nan in place[4, 2]: away from where the block is, and mostly from the other block.

    Now and then the other block stands close, or in the way.
    """
    for j in range(count):
        b = codes[j, 1]
        if b >= 2 or not math.isnan(place[j, 0]):
            continue
        other = 1 - b
        px = 0.0
        py = 0.0
        gap = _GAP if _uniform(state, 0.0, 1.0) < 0.75 else _uniform(state, 0.0, _GAP)
        for _ in range(60):
            px = min(_PUX, max(_PLX, _uniform(state, _PLX - RIM, _PUX + RIM)))
            py = min(_PUY, max(_PLY, _uniform(state, _PLY - RIM, _PUY + RIM)))
            away = (px - start[4 * b]) ** 2 + (py - start[4 * b + 1]) ** 2 > 0.08**2
            if away and (px - start[4 * other]) ** 2 + (py - start[4 * other + 1]) ** 2 > gap * gap:
                break
        place[j, 0] = px
        place[j, 1] = py


@nb.njit(cache=True, nogil=True)
def _seeded(state, seed, slot, episode):
    state[0] = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(slot) + np.uint64(1))
    state[0] = _mix(state[0] + np.uint64(episode) * np.uint64(0xD1B54A32D192ED03))


@nb.njit(cache=True, nogil=True)
def _lying(x, start):
    """Writes where the blocks of facts x are into start."""
    for b in range(2):
        for k in range(3):
            start[4 * b + k] = x[BLOCK + BLOCK_STRIDE * b + k]


@nb.njit(cache=True, nogil=True)
def _holds(x, count, codes, place):
    """Whether the goal holds on facts x, at whose moment it is given: ``placed`` never does, it takes a carry since."""
    for j in range(count):
        c = codes[j]
        if c[0] == PLACED or literal_distance(x, c[0], c[1], c[2], place[j, 0], place[j, 1]) * c[3] <= 0.0:
            return False
    return count > 0


@nb.njit(cache=True, nogil=True)
def draw_places(seed, slots, episodes, facts, count, codes, place):
    """Fills undrawn places (nan) of goals given to running slots; facts float64[m, NX], place float64[m, 4, 2]."""
    state = np.zeros(1, np.uint64)
    start = np.zeros(START_COLUMNS)
    for i in range(slots.shape[0]):
        _seeded(state, seed + 1, slots[i], episodes[i])
        _lying(facts[i], start)
        _places(state, start, count[i], codes[i], place[i])


@nb.njit(cache=True, nogil=True)
def _free(start, x, y, z):
    """Whether a tool there is clear of cabinet, button and blocks."""
    if y < 0.0 and z < 0.17 and abs(x - _CX) < 0.15:
        return False
    if y > 0.26 and z < 0.12:
        return False
    for b in range(2):
        if abs(start[4 * b] - x) < 0.05 and abs(start[4 * b + 1] - y) < 0.09 and z < start[4 * b + 2] + 0.04:
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _reachable(x, count, codes):
    """Whether blocks lie so that the goal's relations between them can be brought about by moving one."""
    for j in range(count):
        c = codes[j]
        if c[1] >= 2 or c[2] < 0 or c[2] >= 2 or c[1] == c[2]:
            continue
        first = x[BLOCK + BLOCK_STRIDE * c[1] + 2]
        second = x[BLOCK + BLOCK_STRIDE * c[2] + 2]
        if c[0] == ON and c[3] > 0:
            if first > 2 * BLOCK_HALF and second > BLOCK_HALF + 0.001:
                return False
        elif c[0] != ON and second > BLOCK_HALF + _LEVEL:  # side by side on the table: the other block must lie there
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _at_hand(x, count, codes):
    """Whether one skill can reach the goal from facts x that experience left: nothing shut away or built upon."""
    for j in range(count):
        c = codes[j]
        if c[0] == INSIDE and x[DRAWER] < 0.13:
            return False
        if c[1] >= 2:
            continue
        p, q = BLOCK + BLOCK_STRIDE * c[1], BLOCK + BLOCK_STRIDE * (1 - c[1])
        aside = math.sqrt((x[p] - x[q]) ** 2 + (x[p + 1] - x[q + 1]) ** 2)
        if aside < 0.03 and x[q + 2] - x[p + 2] > 0.02:  # something lies on it
            return False
        inside = abs(x[p] - _CX) < 0.12 and x[p + 1] < _CY + x[DRAWER] + 0.1 and x[p + 2] < CABINET_TOP
        if inside and x[DRAWER] < 0.13:
            return False
    return _reachable(x, count, codes)


@nb.njit(cache=True, nogil=True)
def draw_kept(seed, slots, episodes, share, facts, count, codes, place, chosen):
    """Chooses kept states to begin from: fills chosen int64[m] (row of ``facts``, or -1: draw a start instead).

    A slot is offered a kept state with probability ``share``; of up to eight rows of facts float64[k, NX] it takes the
    first from which its goal is still to be reached and can be. Fills undrawn places (nan) of its goal.
    """
    state = np.zeros(1, np.uint64)
    start = np.zeros(START_COLUMNS)
    given = place.copy()
    for i in range(slots.shape[0]):
        chosen[i] = -1
        _seeded(state, seed + 2, slots[i], episodes[i])
        if _uniform(state, 0.0, 1.0) >= share:
            continue
        for _ in range(8):
            row = int(_uniform(state, 0.0, float(facts.shape[0])))
            x = facts[row]
            _lying(x, start)
            for j in range(count[i]):
                for k in range(2):
                    place[i, j, k] = given[i, j, k]
            _places(state, start, count[i], codes[i], place[i])
            if not _holds(x, count[i], codes[i], place[i]) and _at_hand(x, count[i], codes[i]):
                chosen[i] = row
                break


@nb.njit(cache=True, nogil=True)
def draw_starts(seed, slots, episodes, count, codes, place, facts_columns, starts):
    """Draws starts float64[m, START_COLUMNS] for m slots and fills undrawn places (nan) of their goals.

    seed int, slots and episodes int64[m], count int64[m], codes int64[m, 4, 4], place float64[m, 4, 2] (changed).
    """
    x = np.zeros(facts_columns)
    given = place.copy()
    state = np.zeros(1, np.uint64)
    for i in range(slots.shape[0]):
        _seeded(state, seed, slots[i], episodes[i])
        start = starts[i]
        for _ in range(60):
            first = 0
            drawer_role = 0
            lamp_role = 0
            for j in range(count[i]):
                p, a, sign = codes[i, j, 0], codes[i, j, 1], codes[i, j, 3]
                if p == OPEN or p == CLOSED:
                    drawer_role = 1 if (p == OPEN) == (sign > 0) else 2
                elif p == LIT:
                    lamp_role = 1 if sign > 0 else 2
                elif p == INSIDE and sign > 0 and drawer_role == 0:
                    drawer_role = 3
                    first = a
                elif p != OPEN and p != CLOSED and p != LIT:
                    first = a
            u = _uniform(state, 0.0, 1.0)
            if drawer_role == 1:
                start[8] = 0.0 if u < 0.6 else _uniform(state, 0.0, 0.10)
            elif drawer_role == 2:
                start[8] = 0.155 if u < 0.6 else _uniform(state, 0.04, 0.155)
            elif drawer_role == 3:
                start[8] = _uniform(state, 0.13, 0.157)
            else:
                start[8] = 0.0 if u < 0.45 else (0.155 if u < 0.8 else _uniform(state, 0.0, 0.155))
            start[9] = 1.0 if _uniform(state, 0.0, 1.0) < 0.5 else 0.0
            if lamp_role > 0:
                start[9] = 0.0 if lamp_role == 1 else 1.0
            _blocks(state, start, first, drawer_role == 3)
            for _ in range(40):
                start[10] = _uniform(state, 0.34, 0.66)
                start[11] = _uniform(state, -0.30, 0.32)
                start[12] = _uniform(state, 0.04, 0.26)
                if _free(start, start[10], start[11], start[12]):
                    break
            start[13] = _uniform(state, -0.8, 0.8)
            start[14] = 0.08 if _uniform(state, 0.0, 1.0) < 0.7 else 0.0
            for j in range(count[i]):
                for k in range(2):
                    place[i, j, k] = given[i, j, k]
            _places(state, start, count[i], codes[i], place[i])
            # The goal must not hold yet: judge it on the facts this start would give.
            for b in range(2):
                for k in range(3):
                    x[BLOCK + BLOCK_STRIDE * b + k] = start[4 * b + k]
            x[DRAWER] = start[8]
            x[LAMP] = start[9]
            for k in range(3):
                x[TOOL + k] = start[10 + k]
            x[WIDTH] = start[14]
            x[GRIP] = 1.0 if start[14] > 0.0 else -1.0
            if not _holds(x, count[i], codes[i], place[i]) and _reachable(x, count[i], codes[i]):
                break
