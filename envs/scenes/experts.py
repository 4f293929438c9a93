"""Scripted experts: for every goal of a scene a sequence of manoeuvres; the oracle row of every table.

They see what policies see no more of than facts, but know the scene's layout and are written by hand: what they do is
labelled *scripted* wherever it is reported, and no learner is judged with their help.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np

from envs.scenes import manoeuvres as m
from envs.scenes.facts import B_BOTTOM, B_START, BLOCK_STRIDE, BLOCKS
from envs.scenes.predicates import (
    AT,
    CLOSED,
    HOLDING,
    INSIDE,
    LIFTED,
    LIT,
    MOVED_AWAY,
    MOVED_LEFT,
    MOVED_NEAR,
    MOVED_RIGHT,
    ON,
    OPEN,
    PLACED,
    SWEEP,
    SWEPT,
    SWEPT_LEFT,
    SWEPT_RIGHT,
    TOGGLED,
    TOPPLED,
    TOUCHING,
    TURN,
    TURNED_LEFT,
    TURNED_RIGHT,
    term_distance,
)  # fmt: skip
from envs.scenes.signals import spot_in

if TYPE_CHECKING:
    from envs.scenes.playroom import PlayroomVectorEnv

__all__ = ["ScriptedExpert", "choose", "freest", "table_spot"]

_SPEED, _GAIN = 0.9, 0.6
_OPENED = 0.97


@nb.njit(cache=True, nogil=True)
def freest(x, b, blocks, behind, ahead, area):
    """Of the four directions along the axes, the one in which block ``b`` has most room; (dx, dy)."""
    p = BLOCKS + BLOCK_STRIDE * b
    best, bx, by = -1.0, 0.0, 1.0
    for k in range(4):
        dx, dy = (0.0, 1.0 if k == 0 else -1.0) if k < 2 else (1.0 if k == 2 else -1.0, 0.0)
        room = 0.12
        for other in range(blocks):
            q = BLOCKS + BLOCK_STRIDE * other
            u = (x[q] - x[p]) * dx + (x[q + 1] - x[p + 1]) * dy
            v = abs((x[q] - x[p]) * dy - (x[q + 1] - x[p + 1]) * dx)
            hand = (
                0.09 if 2.0 * (x[q + 2] - x[q + B_BOTTOM]) > 0.065 else 0.0
            )  # wider than the fingers, above low blocks
            if other != b:
                room = min(room, math.sqrt(max(0.0, max(-behind - hand - u, u - ahead - hand)) ** 2 + v * v))
        ex, ey = x[p] + dx * ahead, x[p + 1] + dy * ahead
        if ex > area[2] + 0.03 or ey > area[3] + 0.03 or ex < area[0] - 0.03 or ey < area[1] - 0.06:
            room *= 0.3
        if x[p] - dx * behind < 0.31:  # behind it the arm can hardly reach
            room *= 0.3
        if room > best + 1e-9:
            best, bx, by = room, dx, dy
    return bx, by


@nb.njit(cache=True, nogil=True)
def table_spot(x, b, blocks, area, out):
    """Writes the point of the area (out float64[2], m) furthest from all other blocks, on a coarse grid."""
    best = -1.0
    for i in range(6):
        for j in range(8):
            px = area[0] + (area[2] - area[0]) * (i + 0.5) / 6
            py = area[1] + (area[3] - area[1]) * (j + 0.5) / 8
            room = 1.0
            for other in range(blocks):
                q = BLOCKS + BLOCK_STRIDE * other
                if other != b:
                    room = min(room, math.sqrt((x[q] - px) ** 2 + (x[q + 1] - py) ** 2))
            if room > best:
                best = room
                out[0], out[1] = px, py


@nb.njit(cache=True, nogil=True)
def choose(s, x, count, codes, place, layout, area, spot):
    """Writes the next manoeuvre for the first term of a goal that does not hold into row ``s``; or none: waits."""
    (bq, _, half, _), (_, _, axis, _, travel), _, (_, _, _, slide) = layout
    blocks = bq.shape[0]
    s[m.SPEED], s[m.GAIN] = _SPEED, _GAIN
    s[m.KIND] = m.IDLE
    for j in range(count):
        p, a, b, sign = codes[j, 0], codes[j, 1], codes[j, 2], codes[j, 3]
        px, py = place[j, 0], place[j, 1]
        if term_distance(x, p, a, b, px, py, layout) * sign > 0.0:
            continue
        if p == OPEN or p == CLOSED:
            m.begin(s, m.SLIDE, a, _OPENED * travel[a] if (p == OPEN) == (sign > 0) else 0.0)
        elif p == LIT or p == TOGGLED:
            m.begin(s, m.PRESS, a, 0.0)
        elif p == LIFTED or p == HOLDING or p == TOUCHING:
            m.begin(s, m.LIFT, a, -1.0)
        elif p == SWEPT or p == SWEPT_LEFT or p == SWEPT_RIGHT or ((p == MOVED_LEFT or p == MOVED_RIGHT) and sign > 0):
            dx, dy = 0.0, 1.0 if p == SWEPT_LEFT or p == MOVED_LEFT else -1.0
            if p == SWEPT:
                dx, dy = freest(x, a, blocks, 0.07, 0.13, area)
            m.begin(s, m.PUSH, a, SWEEP + 0.025)
            m.aim(s, m.AIM_WORLD, -1, dx, dy, 0.0, math.nan, 0.17)
        elif p == TURNED_LEFT or p == TURNED_RIGHT:
            m.begin(s, m.TURN, a, (TURN + 0.12) * (1.0 if p == TURNED_LEFT else -1.0))
        elif p == TOPPLED:
            dx, dy = freest(x, a, blocks, 0.09, 0.13, area)
            m.begin(s, m.TOPPLE, a, 0.11)
            m.aim(s, m.AIM_WORLD, -1, dx, dy, 0.0, math.nan, 0.17)
        elif (
            (p == INSIDE and sign > 0)
            and slide[b] >= 0
            and x[BLOCKS + BLOCK_STRIDE * blocks + 3 * slide[b]] < 0.8 * travel[slide[b]]
        ):
            m.begin(s, m.SLIDE, slide[b], _OPENED * travel[slide[b]])
        else:
            m.begin(s, m.TRANSPORT, a, 0.0)
            if p == INSIDE and sign > 0:
                spot_in(x, a, b, layout, spot)
                if slide[b] >= 0:  # `advance` follows the drawer
                    k = slide[b]
                    value = x[BLOCKS + BLOCK_STRIDE * blocks + 3 * k]
                    spot[0] -= axis[k, 0] * value
                    spot[1] -= axis[k, 1] * value
                m.aim(s, m.AIM_CONTAINER, b, spot[0], spot[1], spot[2], 0.0, 0.19)
            elif p == ON and sign > 0:
                m.aim(s, m.AIM_BLOCK, b, 0.0, 0.0, half[a, 2], math.nan, 0.20)
            elif (p == MOVED_AWAY or p == MOVED_NEAR) and sign > 0:  # carried: there is no way in behind it
                far = (SWEEP + 0.025) * (1.0 if p == MOVED_AWAY else -1.0)
                q = BLOCKS + BLOCK_STRIDE * a + B_START
                m.aim(s, m.AIM_WORLD, -1, x[q] + far, x[q + 1], half[a, 2], math.nan, 0.17)
            elif (p == AT or p == PLACED) and sign > 0 and not math.isnan(px):
                m.aim(s, m.AIM_WORLD, -1, px, py, half[a, 2], math.nan, 0.17)
            else:  # out of where it is: somewhere free on the table
                table_spot(x, a, blocks, area, spot)
                m.aim(s, m.AIM_WORLD, -1, spot[0], spot[1], half[a, 2], math.nan, 0.19)
        return


@nb.njit(cache=True, nogil=True)
def _act(scripts, facts, count, codes, place, fresh, layout, area, scratch, spot, actions):
    for i in range(facts.shape[0]):
        s = scripts[i]
        if fresh[i]:
            s[m.KIND] = m.IDLE
        if s[m.KIND] < 0 or s[m.STATUS] != m.RUNNING:
            choose(s, facts[i], count[i], codes[i], place[i], layout, area, spot)
        m.advance(s, facts[i], scratch, actions[i], layout)


class ScriptedExpert:
    """Acts for the goals of an environment, whatever they are; scripted."""

    def __init__(self, env: PlayroomVectorEnv):
        if env.control != "tool":
            raise ValueError(f"scripted experts need 'tool' control; this environment has '{env.control}'")
        self.env = env
        n = env.num_envs
        self._scripts = np.zeros((n, m.SCRIPT))
        self._scripts[:, m.KIND] = m.IDLE
        self._scripts[:, m.OPENING] = env.scene.robot.opening
        self._scratch, self._spot = np.zeros(5), np.zeros(3)
        self._episodes = np.full(n, -2, np.int64)

    def predict(
        self, observation: Any = None, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """`act`, as a policy is asked."""
        return self.act(), None

    def act(self) -> np.ndarray:
        """Actions float32[n, 5] for the moment the environment is in; a slot whose episode is new starts afresh."""
        env = self.env
        fresh = env.episodes != self._episodes
        self._episodes = env.episodes.copy()
        actions = np.zeros((env.num_envs, 5))
        _act(
            self._scripts, env.facts, env.codes.count, env.codes.codes, env.codes.place, fresh, env._layout, env._area,
            self._scratch, self._spot, actions,
        )  # fmt: skip
        return actions.astype(np.float32)
