"""Where an episode of a scene begins: drawn from (seed, slot, episode) alone, and from what its goal asks for.

A start is a row float64: x y z yaw of each block, value of each slide, lit of each lamp, tool x y z yaw, opening.
What the goal does not speak of varies freely; what it speaks of is drawn so that the goal does not hold yet and can be
brought about: `closed` begins open, `inside` with its drawer open, `taken_out` with the block inside, `swept_left` with
room on the left, `turned_left` with the block turned to where the wrist can take it round.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.control import command
from envs.kinematics import solve
from envs.playroom.draws import start_counter, uniform
from envs.scenes.facts import L_GRIP, L_LAMPS, L_YAW, turned
from envs.scenes.predicates import (
    CLOSED,
    INSIDE,
    LIT,
    MOVED_AWAY,
    MOVED_LEFT,
    MOVED_NEAR,
    MOVED_RIGHT,
    OPEN,
    SWEPT,
    SWEPT_LEFT,
    SWEPT_RIGHT,
    TAKEN_OUT,
    TOPPLED,
    TURNED_LEFT,
    TURNED_RIGHT,
)  # fmt: skip

__all__ = ["draw_starts", "start_columns", "write_starts"]

_TRIES = 2000
_TALL = 0.065  # m; the hand has to pass beside what is taller
_INSIDE = 0.12  # chance that a block the goal does not speak of begins in a container
_OPENED = 0.97  # share of the travel of a slide that begins open


def start_columns(blocks: int, slides: int, lamps: int) -> int:
    """Numbers a start has."""
    return 4 * blocks + slides + lamps + 5


@nb.njit(cache=True, nogil=True)
def _gap(half, a, b):
    """Distance of two blocks' centres at which the gripper gets between them (m)."""
    reach = max(half[a, 0], half[a, 1]) + max(half[b, 0], half[b, 1]) + 0.033
    if half[a, 2] * 2 > _TALL or half[b, 2] * 2 > _TALL:
        reach += 0.03
    return reach


@nb.njit(cache=True, nogil=True)
def _fits(start, b, half, placed):
    """Whether block ``b`` stands clear of the blocks placed before it."""
    for other in range(half.shape[0]):
        if other != b and placed[other]:
            gap = _gap(half, b, other)
            if (start[4 * b] - start[4 * other]) ** 2 + (start[4 * b + 1] - start[4 * other + 1]) ** 2 < gap * gap:
                return False
    return True


@nb.njit(cache=True, nogil=True)
def _corridor(start, b, dy, half):
    """Whether block ``b`` can be pushed 13 cm along y (sign ``dy``), and a finger gets in behind it."""
    for other in range(half.shape[0]):
        if other == b:
            continue
        x = abs(start[4 * other] - start[4 * b])
        y = (start[4 * other + 1] - start[4 * b + 1]) * dy
        room = max(half[other, 0], half[other, 1]) + max(half[b, 0], half[b, 1]) + 0.01
        hand = 0.09 if half[other, 2] * 2 > _TALL else 0.0  # the hand is wider than the fingers, and above low blocks
        if x < max(room, 0.6 * hand) and -0.06 - max(room, hand + 0.03) < y < 0.13 + max(room, hand):
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _into(counter, start, b, c, layout, slides, placed):
    """Puts block ``b`` into container ``c``, whose slide's value is in start[slides + …]; whether there was room."""
    (_, _, half, _), (_, _, axis, _, _), _, (centre, size, yaw, slide) = layout
    value = start[slides + slide[c]] if slide[c] >= 0 else 0.0
    across = half[b, 0] + 0.005 > size[c, 0]  # too long for it that way
    for _ in range(20):
        reach = max(half[b, 0], half[b, 1])
        u = uniform(counter, -1.0, 1.0) * max(0.0, size[c, 0] - reach - 0.02)
        v = uniform(counter, -1.0, 1.0) * max(0.0, size[c, 1] - reach - 0.03)
        if slide[c] >= 0:
            v = uniform(counter, 0.005, 0.045)  # the front of a drawer: its back stays under the cabinet
        cos, sin = math.cos(yaw[c]), math.sin(yaw[c])
        start[4 * b] = centre[c, 0] + cos * u - sin * v
        start[4 * b + 1] = centre[c, 1] + sin * u + cos * v
        if slide[c] >= 0:
            start[4 * b] += axis[slide[c], 0] * value
            start[4 * b + 1] += axis[slide[c], 1] * value
        start[4 * b + 2] = centre[c, 2] + half[b, 2]
        start[4 * b + 3] = turned(yaw[c] + (math.pi / 2 if across else 0.0) + uniform(counter, -0.25, 0.25))
        if _fits(start, b, half, placed):
            return True
    return False


@nb.njit(cache=True, nogil=True)
def _draw(counter, start, count, codes, place, layout, area, workspace):
    """One try at a start; whether it came out."""
    (bq, _, half, _), (_, _, _, _, travel), (lq, _), (_, _, _, slide) = layout
    blocks, slides, lamps = bq.shape[0], travel.shape[0], lq.shape[0]
    first_slide, first_lamp = 4 * blocks, 4 * blocks + slides
    for s in range(slides):
        u = uniform(counter, 0.0, 1.0)
        share = 0.0 if u < 0.45 else _OPENED if u < 0.8 else uniform(counter, 0.0, _OPENED)
        for j in range(count):
            p, a, b, sign = codes[j, 0], codes[j, 1], codes[j, 2], codes[j, 3]
            if (p == OPEN or p == CLOSED) and a == s:
                wants_open = (p == OPEN) == (sign > 0)
                if wants_open:
                    share = 0.0 if u < 0.6 else uniform(counter, 0.0, 0.6 if p == OPEN else 0.1)
                else:
                    share = _OPENED if u < 0.6 else uniform(counter, 0.3 if p == CLOSED else 0.8, _OPENED)
            elif (p == INSIDE or p == TAKEN_OUT) and slide[b] == s:
                share = uniform(counter, 0.88, _OPENED)
        start[first_slide + s] = share * travel[s]
    for k in range(lamps):
        lit = uniform(counter, 0.0, 1.0) < 0.5
        for j in range(count):
            if codes[j, 0] == LIT and codes[j, 1] == k:
                lit = codes[j, 3] < 0
        start[first_lamp + k] = 1.0 if lit else 0.0
    placed = np.zeros(blocks, np.bool_)
    for _ in range(blocks):  # what the goal speaks of comes first, where it has room
        b = -1
        spoken = False
        low, high = -math.pi / 4, math.pi / 4
        container = -1
        for candidate in range(blocks):
            if placed[candidate]:
                continue
            mentioned = False
            for j in range(count):
                p = codes[j, 0]
                about = p != OPEN and p != CLOSED and p != LIT and (p < 2 or p > 3)
                mentioned = mentioned or (about and (codes[j, 1] == candidate))
            if b < 0 or (mentioned and not spoken):
                b = candidate
                spoken = mentioned
        if half[b, 0] > 1.5 * half[b, 1]:
            low, high = -1.1, 1.1
        away_from = -1
        for j in range(count):
            p, a, sign = codes[j, 0], codes[j, 1], codes[j, 3]
            if a != b:
                continue
            if (p == TAKEN_OUT and sign > 0) or (p == INSIDE and sign < 0):
                container = codes[j, 2]
            elif p == TURNED_LEFT:
                low, high = -1.1, 0.15
            elif p == TURNED_RIGHT:
                low, high = -0.15, 1.1
            if not math.isnan(place[j, 0]):
                away_from = j
        if container < 0 and not spoken and uniform(counter, 0.0, 1.0) < _INSIDE and slide.shape[0] > 0:
            container = int(uniform(counter, 0.0, float(slide.shape[0])))
            if slide[container] >= 0 and start[first_slide + slide[container]] < 0.85 * travel[slide[container]]:
                container = -1
        done = container >= 0 and _into(counter, start, b, container, layout, first_slide, placed)
        if container >= 0 and not done and spoken:
            return False
        for _ in range(60):
            if done:
                break
            start[4 * b] = uniform(counter, area[0], area[2])
            start[4 * b + 1] = uniform(counter, area[1], area[3])
            start[4 * b + 2] = half[b, 2]
            start[4 * b + 3] = uniform(counter, low, high)
            done = _fits(start, b, half, placed)
            if away_from >= 0:
                px, py = place[away_from, 0], place[away_from, 1]
                done = done and (start[4 * b] - px) ** 2 + (start[4 * b + 1] - py) ** 2 > 0.08**2
        if not done:
            return False
        placed[b] = True
    for j in range(count):
        p, a = codes[j, 0], codes[j, 1]
        if p == SWEPT_LEFT and not (_corridor(start, a, 1.0, half) and start[4 * a + 1] < area[3] - 0.08):
            return False
        if p == SWEPT_RIGHT and not (_corridor(start, a, -1.0, half) and start[4 * a + 1] > area[1] + 0.05):
            return False
        if p == MOVED_LEFT and start[4 * a + 1] > area[3] - 0.08:  # what stands in the way can be carried over
            return False
        if p == MOVED_RIGHT and start[4 * a + 1] < area[1] + 0.05:
            return False
        if p == MOVED_AWAY and start[4 * a] > area[2] - 0.05:
            return False
        if p == MOVED_NEAR and start[4 * a] < area[0] + 0.07:
            return False
        if p == SWEPT:
            left = _corridor(start, a, 1.0, half) and start[4 * a + 1] < area[3] - 0.08
            if not left and not (_corridor(start, a, -1.0, half) and start[4 * a + 1] > area[1] + 0.05):
                return False
        if p == TOPPLED and not (_corridor(start, a, 1.0, half) or _corridor(start, a, -1.0, half)):
            return False
    at = first_lamp + lamps
    start[at] = uniform(counter, max(workspace[0, 0], 0.34), min(workspace[1, 0], 0.62))
    start[at + 1] = uniform(counter, -0.25, 0.27)
    start[at + 2] = uniform(counter, 0.15, 0.28)
    for k in range(3):
        start[at + k] = min(workspace[1, k], max(workspace[0, k], start[at + k]))
    start[at + 3] = uniform(counter, -0.8, 0.8)
    start[at + 4] = 0.08 if uniform(counter, 0.0, 1.0) < 0.7 else 0.0
    return True


@nb.njit(cache=True, nogil=True)
def _places(counter, start, count, codes, place, half, area):
    """Draws what is nan in place[4, 2]: away from where the block is, and where there is most room for it."""
    for j in range(count):
        b = codes[j, 1]
        if codes[j, 2] >= 0 or not math.isnan(place[j, 0]) or b >= half.shape[0]:
            continue
        best = -math.inf
        for _ in range(60):
            x, y = uniform(counter, area[0], area[2]), uniform(counter, area[1], area[3])
            if (x - start[4 * b]) ** 2 + (y - start[4 * b + 1]) ** 2 < 0.08**2:
                continue
            room = 0.0
            for other in range(half.shape[0]):
                if other != b:
                    far = math.sqrt((x - start[4 * other]) ** 2 + (y - start[4 * other + 1]) ** 2)
                    room = min(room, far - _gap(half, b, other))
            if room > best:
                best = room
                place[j, 0], place[j, 1] = x, y
            if room >= 0.0:
                break


@nb.njit(cache=True, nogil=True)
def draw_starts(seed, slots, episodes, count, codes, place, placing, layout, area, workspace, starts):
    """Draws starts float64[m, start_columns] for slots int64[m]; fills undrawn places (nan) of terms in ``placing``.

    placing bool[P]: which predicates have a place. Returns the row that a crowded scene leaves no room for in 2000
    tries, or -1.
    """
    counter = np.zeros(1, np.uint64)
    half = layout[0][2]
    for i in range(slots.shape[0]):
        counter[0] = start_counter(seed, slots[i], episodes[i])
        found = False
        for _ in range(_TRIES):
            if _draw(counter, starts[i], count[i], codes[i], place[i], layout, area, workspace):
                found = True
                break
        if not found:
            return i
        wants = False
        for j in range(count[i]):
            wants = wants or placing[codes[i, j, 0]]
        if wants:
            _places(counter, starts[i], count[i], codes[i], place[i], half, area)
    return -1


@nb.njit(cache=True, nogil=True)
def write_starts(slots, starts, qpos, ctrl, qcmd, latches, arm, layout):
    """Writes starts float64[m, start_columns] into cleared simulations ``slots`` int64[m]; arm: `Robot.arrays`."""
    (bq, _, _, _), (sq, _, _, _, _), (lq, _), _ = layout
    (positions, rotations, low, high, home), drive, (finger, _, shut, wide, _, _) = arm
    blocks, slides, lamps = bq.shape[0], sq.shape[0], lq.shape[0]
    at = 4 * blocks + slides + lamps
    q = np.empty((slots.shape[0], home.shape[0]))
    q[:] = home
    solve(q, starts[:, at : at + 3], starts[:, at + 3], positions, rotations, low, high, home, 25)
    for row in range(slots.shape[0]):
        i, start = slots[row], starts[row]
        for k in range(home.shape[0]):
            qpos[i, k] = qcmd[i, k] = q[row, k]
        opened = start[at + 4] > 0.0
        for k in range(finger.shape[0]):
            qpos[i, finger[k]] = wide[k] if opened else shut[k]
        command(ctrl[i], q[row], 1.0 if opened else -1.0, drive)
        for b in range(blocks):
            for k in range(3):
                qpos[i, bq[b] + k] = start[4 * b + k]
            qpos[i, bq[b] + 3] = math.cos(start[4 * b + 3] / 2)
            qpos[i, bq[b] + 4] = qpos[i, bq[b] + 5] = 0.0
            qpos[i, bq[b] + 6] = math.sin(start[4 * b + 3] / 2)
        for s in range(slides):
            qpos[i, sq[s]] = start[4 * blocks + s]
        for k in range(latches.shape[1]):
            latches[i, k] = 0.0
        for k in range(3):
            latches[i, k] = start[at + k]
        latches[i, L_YAW] = start[at + 3]
        latches[i, L_GRIP] = 1.0 if opened else -1.0
        for k in range(lamps):
            latches[i, L_LAMPS + 2 * k] = start[4 * blocks + slides + k]
