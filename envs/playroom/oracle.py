"""A scripted expert: acts towards whatever goals an environment's slots have now, from privileged manoeuvres.

It is the yardstick of evaluations, never a teacher: what can be reached, and how fast. For each slot it
takes the unsatisfied literal whose turn comes first, removes what is in its way (a shut drawer, a block on
top, a block where this one should go) and runs one manoeuvre of `envs.playroom.scripts` at a time.

Turns within a conjunction: put blocks away, then stack, switch the lamp, shut the drawer, and hold last.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

from envs import predicates as f
from envs.playroom import scripts as m
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import literal_distance
from envs.vector import TabletopVectorEnv

__all__ = ["ScriptedOracle"]

_CABINET = f.OBJECT_INDEX["cabinet"]
_CX, _CY = float(CABINET[0]), float(CABINET[1])
_SHELF = CABINET_TOP + BLOCK_HALF
_ON_TABLE = BLOCK_HALF + 0.006
_PULLED = 0.155  # how far the drawer is drawn, m
_HIGH = 0.20  # carrying height over the cabinet and what stands on it, m


@nb.njit(cache=True, nogil=True)
def _turn(predicate, b, sign):
    """When a literal's turn comes: lower is earlier."""
    if predicate in (f.HOLDING, f.LIFTED):
        return 0 if sign < 0 else 13
    if predicate in (f.OPEN, f.CLOSED):
        return 1 if (predicate == f.OPEN) == (sign > 0) else 12
    if predicate == f.CLEAR:
        return 10
    if predicate == f.TOUCHING:
        return 11 if sign > 0 else 13
    if predicate == f.LIT:
        return 9
    if sign < 0:
        return 2
    if predicate == f.INSIDE or (predicate == f.ON and b == _CABINET):
        return 3
    if predicate == f.ON:
        return 6
    return 4 if predicate in (f.PLACED, f.AT) else 5


@nb.njit(cache=True, nogil=True)
def _holds(r, predicate, block):
    return literal_distance(r, predicate, block, 0, 0.0, 0.0) > 0.0


@nb.njit(cache=True, nogil=True)
def _in_drawer(r, block):
    p = f.BLOCK + f.BLOCK_STRIDE * block
    return r[p + 2] < CABINET_TOP and abs(r[p] - _CX) < 0.09 and r[p + 1] < _CY + r[f.DRAWER] + 0.09


@nb.njit(cache=True, nogil=True)
def _transport(s, r, a, relative_to, x, y, z, yaw):
    """Transport of block ``a`` on which nothing stands, or the opening of the drawer it lies in."""
    p, q = f.BLOCK + f.BLOCK_STRIDE * a, f.BLOCK + f.BLOCK_STRIDE * (1 - a)
    if _in_drawer(r, a) and r[f.DRAWER] < f.OPEN_AT and not _holds(r, f.HOLDING, a):
        m.begin(s, m.PULL, 0, _PULLED)
        return
    carry = _HIGH if r[p + 1] < -0.08 or relative_to == m.AIM_DRAWER or y < -0.1 else 0.13
    if relative_to == m.AIM_OTHER:
        carry = _HIGH if r[q + 1] < -0.08 else max(carry, r[q + 2] + z + 0.05)
    m.begin(s, m.TRANSPORT, a, 0.0)
    m.aim(s, relative_to, x, y, z, yaw, carry)


@nb.njit(cache=True, nogil=True)
def _aside(s, r, a, ax, ay):
    """Moves block ``a`` to the nearest spot of the table that is well off (ax, ay) and the other block."""
    p, q = f.BLOCK + f.BLOCK_STRIDE * a, f.BLOCK + f.BLOCK_STRIDE * (1 - a)
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
    _transport(s, r, a, m.AIM_WORLD, x, y, BLOCK_HALF, math.nan)


@nb.njit(cache=True, nogil=True)
def _fetch(s, r, a, relative_to, x, y, z, yaw):
    """`_transport` of block ``a``, once nothing stands on it any more."""
    p = f.BLOCK + f.BLOCK_STRIDE * a
    if _holds(r, f.HOLDING, a) or _holds(r, f.CLEAR, a):
        _transport(s, r, a, relative_to, x, y, z, yaw)
    else:
        _aside(s, r, 1 - a, r[p], r[p + 1])


@nb.njit(cache=True, nogil=True)
def _place_block(s, r, predicate, a, b, px, py):
    """The next manoeuvre towards a positive literal that wants block ``a`` somewhere."""
    p, q = f.BLOCK + f.BLOCK_STRIDE * a, f.BLOCK + f.BLOCK_STRIDE * (1 - a)
    if predicate in (f.PLACED, f.AT):
        if (r[q] - px) ** 2 + (r[q + 1] - py) ** 2 < 0.06**2 and r[q + 2] < 0.1:
            if _holds(r, f.CLEAR, 1 - a):
                _aside(s, r, 1 - a, px, py)
            else:
                _aside(s, r, a, px, py)
        else:
            _fetch(s, r, a, m.AIM_WORLD, px, py, BLOCK_HALF, math.nan)
    elif predicate == f.INSIDE:
        if r[f.DRAWER] < f.OPEN_AT + 0.01:
            m.begin(s, m.PULL, 0, _PULLED)
            return
        x = _CX
        if _in_drawer(r, 1 - a):
            x += -0.045 if r[q] > _CX else 0.045
        _fetch(s, r, a, m.AIM_DRAWER, x, _CY + 0.012, DRAWER_FLOOR + BLOCK_HALF, 0.0)
    elif predicate == f.ON and b == _CABINET:
        x, y = _CX, _CY
        if r[q + 2] > CABINET_TOP and r[q + 1] < _CY + 0.12:
            x += -0.06 if r[q] > _CX else 0.06
        _fetch(s, r, a, m.AIM_WORLD, x, y, _SHELF, 0.0)
    elif predicate == f.ON:
        if _in_drawer(r, b) and r[f.DRAWER] < f.OPEN_AT:
            m.begin(s, m.PULL, 0, _PULLED)
            return
        _fetch(s, r, a, m.AIM_OTHER, 0.0, 0.0, 2 * BLOCK_HALF, r[q + f.B_YAW])
    elif r[q + 2] > _ON_TABLE or r[q + 1] < -0.06:  # beside a block that is not on the table
        if _holds(r, f.CLEAR, b):
            _aside(s, r, b, r[p], r[p + 1])
        else:
            _aside(s, r, a, r[q], r[q + 1])
    else:
        yaw = m.quarter(r[q + f.B_YAW])
        if predicate == f.NEXT_TO:
            side = 0.053 if r[q] < 0.5 else -0.053  # face to face
            x, y = r[q] + side * math.cos(yaw), r[q + 1] + side * math.sin(yaw)
        elif predicate == f.LEFT_OF:
            x, y, yaw = r[q], min(r[q + 1] + 0.09, max(0.28, r[q + 1] + 0.075)), 0.0  # short of the button
        else:
            x, y, yaw = max(r[q] - 0.09, min(0.32, r[q] - 0.065)), r[q + 1], 0.0  # and within reach
        _fetch(s, r, a, m.AIM_WORLD, x, y, BLOCK_HALF, yaw)


@nb.njit(cache=True, nogil=True)
def _choose(s, r, count, codes, place):
    """Writes the next manoeuvre towards the conjunction into row ``s``; idle where everything holds."""
    s[m.KIND] = m.IDLE
    first = 99
    c = -1
    for j in range(count):
        d = literal_distance(r, codes[j, 0], codes[j, 1], codes[j, 2], place[j, 0], place[j, 1]) * codes[j, 3]
        turn = _turn(codes[j, 0], codes[j, 2], codes[j, 3])
        if d <= 0.0 and turn < first:
            first = turn
            c = j
    if c < 0:
        return
    predicate, a, b, sign = codes[c, 0], codes[c, 1], codes[c, 2], codes[c, 3]
    if predicate in (f.OPEN, f.CLOSED):
        m.begin(s, m.PULL, 0, _PULLED if (predicate == f.OPEN) == (sign > 0) else 0.0)
        return
    if predicate == f.LIT:
        m.begin(s, m.PRESS, 0, 0.0)
        return
    p = f.BLOCK + f.BLOCK_STRIDE * a
    if sign < 0:
        if predicate == f.TOUCHING:
            m.begin(s, m.REACH, a, 0.0)
            m.aim(s, m.AIM_WORLD, 0.45, 0.1, 0.25, math.nan, 0.0)
        elif predicate == f.CLEAR:
            _fetch(s, r, 1 - a, m.AIM_OTHER, 0.0, 0.0, 2 * BLOCK_HALF, r[p + f.B_YAW])
        else:
            _aside(s, r, a, r[p], r[p + 1])
    elif predicate in (f.HOLDING, f.LIFTED, f.TOUCHING):
        _fetch(s, r, a, m.AIM_WORLD, r[p], r[p + 1], BLOCK_HALF, math.nan)
        if s[m.KIND] == m.TRANSPORT and s[m.OBJECT] == a:
            height = 0.13 if predicate == f.LIFTED else 0.05
            m.begin(s, m.LIFT, a, -1.0)
            s[m.CARRY] = max(r[p + 2], BLOCK_HALF) + height
    elif predicate == f.CLEAR:
        _aside(s, r, 1 - a, r[p], r[p + 1])
    else:
        _place_block(s, r, predicate, a, b, place[c, 0], place[c, 1])


@nb.njit(cache=True, nogil=True)
def _act(scripts, scratch, facts, count, codes, place, begun, actions):
    """One step of every slot: fills actions float32[n, 5]; ``begun`` bool[n] marks where a goal is new."""
    for i in range(facts.shape[0]):
        s = scripts[i]
        if begun[i]:
            s[m.KIND] = m.IDLE
        if s[m.KIND] == m.IDLE or s[m.STATUS] != m.RUNNING:
            _choose(s, facts[i], count[i], codes[i], place[i])
        m.advance(s, facts[i], scratch, actions[i])


class ScriptedOracle:
    """Acts on a `TabletopVectorEnv` in ``tool`` control; raises ValueError for another."""

    def __init__(self, env: TabletopVectorEnv, speed: float = 1.0):
        if env.control != "tool":
            raise ValueError(f"the oracle drives 'tool' control; this environment has '{env.control}'")
        self.env = env
        self._scripts = np.zeros((env.num_envs, m.SCRIPT))
        self._scripts[:, m.KIND] = m.IDLE
        self._scripts[:, m.SPEED], self._scripts[:, m.GAIN] = speed, 0.6
        self._scratch = np.zeros(5)
        self._running = np.full((env.num_envs, 3), -1, np.int64)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Acts by the protocol of policies; what it goes by is the environment itself."""
        return self.act(), state

    def act(self, env: TabletopVectorEnv | None = None) -> np.ndarray:
        """Actions float32[n, 5] in [-1, 1] towards the current stage of every slot's goal."""
        env = self.env if env is None else env
        now = np.stack([env.episodes, env.clock.goal_of, env.clock.stage], axis=1)
        begun = (now != self._running).any(axis=1) | (env.elapsed == 0)
        self._running = now
        actions = np.zeros((env.num_envs, 5), np.float32)
        codes = env.clock.codes
        _act(self._scripts, self._scratch, env.facts, codes.count, codes.codes, codes.place, begun, actions)
        return actions
