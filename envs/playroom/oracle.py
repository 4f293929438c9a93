"""A scripted expert: acts towards whatever goals an environment's slots have now, from privileged manoeuvres.

It is the yardstick of evaluations, never a teacher: what can be reached, and how fast. For each slot it takes the
unsatisfied literal that comes first in the order below, removes what is in its way (a shut drawer, a block on top, a
block where this one should go) and runs one manoeuvre of `envs.playroom.scripts` at a time.

Order within a conjunction: put blocks away, then stack, then switch the lamp, then shut the drawer, and hold last.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.playroom.scripts import (
    AIM_DRAWER, AIM_OTHER, AIM_WORLD, CARRY, GAIN, IDLE, KIND, LIFT, OBJECT, PRESS, PULL, REACH, RUNNING, SCRIPT, SPEED, STATUS,
    TRANSPORT, advance, aim, begin,
)  # fmt: skip
from envs.predicates import (
    AT, B_YAW, BLOCK, BLOCK_STRIDE, CLEAR, CLOSED, DRAWER, HOLDING, IN_FRONT_OF, INSIDE, LEFT_OF, LIFTED, LIT, NEXT_TO,
    OBJECT_INDEX, ON, OPEN, OPEN_AT, PLACED, TOUCHING, literal_distance,
)  # fmt: skip
from envs.vector import TabletopVectorEnv

__all__ = ["ScriptedOracle"]

_CABINET = OBJECT_INDEX["cabinet"]
_CX, _CY = float(CABINET[0]), float(CABINET[1])
_SHELF = CABINET_TOP + BLOCK_HALF
_ON_TABLE = BLOCK_HALF + 0.006
_PULLED = 0.155  # how far the drawer is drawn, m
_HIGH = 0.20  # carrying height over the cabinet and what stands on it, m


@nb.njit(cache=True, nogil=True)
def _order(predicate, a, b, sign):
    """When a literal's turn comes: lower is earlier."""
    if predicate == HOLDING or predicate == LIFTED:
        return 0 if sign < 0 else 12
    if predicate == OPEN or predicate == CLOSED:
        return 1 if (predicate == OPEN) == (sign > 0) else 11
    if predicate == TOUCHING or predicate == CLEAR:
        return 10
    if predicate == LIT:
        return 9
    if sign < 0:
        return 2
    if predicate == INSIDE or (predicate == ON and b == _CABINET):
        return 3
    if predicate == ON:
        return 6
    return 4 if predicate == PLACED or predicate == AT else 5


@nb.njit(cache=True, nogil=True)
def _in_drawer(r, block):
    p = BLOCK + BLOCK_STRIDE * block
    return r[p + 2] < CABINET_TOP and abs(r[p] - _CX) < 0.09 and r[p + 1] < _CY + r[DRAWER] + 0.09


@nb.njit(cache=True, nogil=True)
def _transport(s, r, a, relative_to, x, y, z, yaw):
    """Transport of block ``a`` on which nothing stands, or the opening of the drawer it lies in."""
    p, q = BLOCK + BLOCK_STRIDE * a, BLOCK + BLOCK_STRIDE * (1 - a)
    if _in_drawer(r, a) and r[DRAWER] < OPEN_AT and literal_distance(r, HOLDING, a, 0, 0.0, 0.0) <= 0.0:
        begin(s, PULL, 0, _PULLED)
        return
    far = r[p + 1] < -0.08 or relative_to == AIM_DRAWER or y < -0.1 or (relative_to == AIM_OTHER and r[q + 1] < -0.08)
    carry = _HIGH if far else 0.13
    if relative_to == AIM_OTHER:
        carry = max(carry, r[q + 2] + z + 0.05)
    begin(s, TRANSPORT, a, 0.0)
    aim(s, relative_to, x, y, z, yaw, carry)


@nb.njit(cache=True, nogil=True)
def _aside(s, r, a, ax, ay):
    """Moves block ``a`` to the free spot of the table that is nearest to it and well off (ax, ay) and the other block."""
    p, q = BLOCK + BLOCK_STRIDE * a, BLOCK + BLOCK_STRIDE * (1 - a)
    best = math.inf
    x, y = 0.5, 0.1
    for i in range(6):
        for j in range(5):
            tx, ty = 0.40 + 0.044 * i, 0.02 + 0.045 * j
            room = min((tx - ax) ** 2 + (ty - ay) ** 2, (tx - r[q]) ** 2 + (ty - r[q + 1]) ** 2)
            near = (tx - r[p]) ** 2 + (ty - r[p + 1]) ** 2
            if room > 0.012 and near < best:
                best = near
                x, y = tx, ty
    _transport(s, r, a, AIM_WORLD, x, y, BLOCK_HALF, math.nan)


@nb.njit(cache=True, nogil=True)
def _fetch(s, r, a, relative_to, x, y, z, yaw):
    """`_transport` of block ``a``, once nothing stands on it any more."""
    p = BLOCK + BLOCK_STRIDE * a
    if literal_distance(r, HOLDING, a, 0, 0.0, 0.0) <= 0.0 and literal_distance(r, CLEAR, a, 0, 0.0, 0.0) <= 0.0:
        _aside(s, r, 1 - a, r[p], r[p + 1])
    else:
        _transport(s, r, a, relative_to, x, y, z, yaw)


@nb.njit(cache=True, nogil=True)
def _place_block(s, r, predicate, a, b, px, py):
    """The next manoeuvre towards a positive literal that wants block ``a`` somewhere."""
    p, q = BLOCK + BLOCK_STRIDE * a, BLOCK + BLOCK_STRIDE * (1 - a)
    if predicate == PLACED or predicate == AT:
        if (r[q] - px) ** 2 + (r[q + 1] - py) ** 2 < 0.06**2 and r[q + 2] < 0.1:
            if literal_distance(r, CLEAR, 1 - a, 0, 0.0, 0.0) > 0.0:
                _aside(s, r, 1 - a, px, py)
            else:
                _aside(s, r, a, px, py)
        else:
            _fetch(s, r, a, AIM_WORLD, px, py, BLOCK_HALF, math.nan)
    elif predicate == INSIDE:
        if r[DRAWER] < OPEN_AT + 0.01:
            begin(s, PULL, 0, _PULLED)
            return
        x = _CX
        if _in_drawer(r, 1 - a):
            x += -0.045 if r[q] > _CX else 0.045
        _fetch(s, r, a, AIM_DRAWER, x, _CY + 0.012, DRAWER_FLOOR + BLOCK_HALF, 0.0)
    elif predicate == ON and b == _CABINET:
        x, y = _CX, _CY
        if r[q + 2] > CABINET_TOP and r[q + 1] < _CY + 0.12:
            x += -0.06 if r[q] > _CX else 0.06
        _fetch(s, r, a, AIM_WORLD, x, y, _SHELF, 0.0)
    elif predicate == ON:
        if _in_drawer(r, b) and r[DRAWER] < OPEN_AT:
            begin(s, PULL, 0, _PULLED)
            return
        _fetch(s, r, a, AIM_OTHER, 0.0, 0.0, 2 * BLOCK_HALF, r[q + B_YAW])
    elif r[q + 2] > _ON_TABLE or r[q + 1] < -0.06:  # beside a block that is not on the table
        if literal_distance(r, CLEAR, b, 0, 0.0, 0.0) <= 0.0:
            _aside(s, r, a, r[q], r[q + 1])
        else:
            _aside(s, r, b, r[p], r[p + 1])
    else:
        yaw = r[q + B_YAW] - math.pi / 2 * math.floor(r[q + B_YAW] / (math.pi / 2) + 0.5)
        if predicate == NEXT_TO:
            side = 0.053 if r[q] < 0.5 else -0.053
            _fetch(s, r, a, AIM_WORLD, r[q] + side * math.cos(yaw), r[q + 1] + side * math.sin(yaw), BLOCK_HALF, yaw)
        elif predicate == LEFT_OF:
            _fetch(s, r, a, AIM_WORLD, r[q], min(r[q + 1] + 0.09, max(0.28, r[q + 1] + 0.075)), BLOCK_HALF, 0.0)
        else:
            _fetch(s, r, a, AIM_WORLD, max(r[q] - 0.09, min(0.32, r[q] - 0.065)), r[q + 1], BLOCK_HALF, 0.0)


@nb.njit(cache=True, nogil=True)
def _choose(s, r, count, codes, place):
    """Writes the next manoeuvre towards the conjunction into row ``s``; idle where everything holds."""
    s[KIND] = IDLE
    turn = 99
    c = -1
    for j in range(count):
        d = literal_distance(r, codes[j, 0], codes[j, 1], codes[j, 2], place[j, 0], place[j, 1]) * codes[j, 3]
        order = _order(codes[j, 0], codes[j, 1], codes[j, 2], codes[j, 3])
        if d <= 0.0 and order < turn:
            turn = order
            c = j
    if c < 0:
        return
    predicate, a, b, sign = codes[c, 0], codes[c, 1], codes[c, 2], codes[c, 3]
    if predicate == OPEN or predicate == CLOSED:
        begin(s, PULL, 0, _PULLED if (predicate == OPEN) == (sign > 0) else 0.0)
        return
    if predicate == LIT:
        begin(s, PRESS, 0, 0.0)
        return
    p, q = BLOCK + BLOCK_STRIDE * a, BLOCK + BLOCK_STRIDE * (1 - a)
    if sign < 0:
        if predicate == TOUCHING:
            begin(s, REACH, a, 0.0)
            aim(s, AIM_WORLD, 0.45, 0.1, 0.25, math.nan, 0.0)
        elif predicate == CLEAR:
            _fetch(s, r, 1 - a, AIM_OTHER, 0.0, 0.0, 2 * BLOCK_HALF, r[p + B_YAW])
        else:
            _aside(s, r, a, r[p], r[p + 1])
    elif predicate == HOLDING or predicate == LIFTED:
        _fetch(s, r, a, AIM_WORLD, r[p], r[p + 1], BLOCK_HALF, math.nan)
        if s[KIND] == TRANSPORT and s[OBJECT] == a:
            height = 0.05 if predicate == HOLDING else 0.13
            begin(s, LIFT, a, -1.0)
            s[CARRY] = max(r[p + 2], BLOCK_HALF) + height
    elif predicate == TOUCHING:
        begin(s, REACH, a, 0.0)
        aim(s, AIM_WORLD, r[p], r[p + 1], max(0.045, r[p + 2] + 0.02), math.nan, 0.0)
    elif predicate == CLEAR:
        _aside(s, r, 1 - a, r[p], r[p + 1])
    else:
        _place_block(s, r, predicate, a, b, place[c, 0], place[c, 1])


@nb.njit(cache=True, nogil=True)
def _act(scripts, scratch, facts, count, codes, place, begun, actions):
    """One step of every slot: facts float64[n, NX], actions float32[n, 5] (filled), begun bool[n] (a goal's first step)."""
    for i in range(facts.shape[0]):
        s = scripts[i]
        if begun[i]:
            s[KIND] = IDLE
        if s[KIND] == IDLE or s[STATUS] != RUNNING:
            _choose(s, facts[i], count[i], codes[i], place[i])
        advance(s, facts[i], scratch, actions[i])


class ScriptedOracle:
    """Acts on a `TabletopVectorEnv` in ``tool`` control; raises ValueError for another."""

    def __init__(self, env: TabletopVectorEnv, speed: float = 1.0):
        if env.control != "tool":
            raise ValueError(f"the scripted oracle drives 'tool' control; this environment has '{env.control}'")
        self.env = env
        self._scripts = np.zeros((env.num_envs, SCRIPT))
        self._scripts[:, KIND] = IDLE
        self._scripts[:, SPEED], self._scripts[:, GAIN] = speed, 0.6
        self._scratch = np.zeros(5)
        self._running = np.full((env.num_envs, 3), -1, np.int64)

    def act(self, env: TabletopVectorEnv | None = None) -> np.ndarray:
        """Actions float32[n, 5] in [-1, 1] towards the current stage of every slot's goal."""
        env = self.env if env is None else env
        now = np.stack([env.episodes, env._goal_of, env._stage], axis=1)
        begun = (now != self._running).any(axis=1) | (env.elapsed == 0)
        self._running = now
        actions = np.zeros((env.num_envs, 5), np.float32)
        codes = env._codes
        _act(self._scripts, self._scratch, env.facts, codes.count, codes.codes, codes.place, begun, actions)
        return actions
