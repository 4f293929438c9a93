"""Hand-written manoeuvres as phase machines: what scripted play and the scripted oracle are made of.

A manoeuvre lives in one row of ``float64[n, SCRIPT]``: which it is, its phase, its parameters and what it remembers.
`begin` and `aim` write such a row, `advance` turns rows and facts into actions, one control step at a time, until the row's
status is FINISHED or FAILED. Everything here sees facts alone, the same numbers a policy's features come from.

=========== ============================================================================================
REACH       move the tool to a point and hold the gripper as told
TRANSPORT   grasp a block, carry it through the air, put it down somewhere and let go
LIFT        grasp a block and hold it up (for ``LENGTH`` steps, then put it down; for ever if negative)
PUSH        push a block ``LENGTH`` metres along the table with closed fingers
PULL        straddle the drawer's handle and move the drawer to ``LENGTH`` metres, either way
SHUT        push the drawer to ``LENGTH`` metres from the front with closed fingers
PRESS       press the button until the lamp changes
=========== ============================================================================================
"""

from __future__ import annotations

import math

import numba as nb

from envs.playroom.scene import BLOCK_HALF, BUTTON, CABINET, CABINET_TOP, HANDLE
from envs.predicates import (
    B_YAW, BLOCK, BLOCK_STRIDE, DRAWER, GRIP, HOLDING, LAG, LAMP, TOOL, WIDTH, YAW, literal_distance,
)  # fmt: skip
from envs.step import STEP_M, STEP_RAD, YAW_LIMIT

__all__ = [
    "AIM_DRAWER", "AIM_OTHER", "AIM_WORLD", "FAILED", "FINISHED", "IDLE", "LIFT", "MANOEUVRES", "PRESS", "PULL", "PUSH", "REACH",
    "RUNNING", "SCRIPT", "SHUT", "TRANSPORT", "advance", "aim", "begin",
]  # fmt: skip

MANOEUVRES = ("reach", "transport", "lift", "push", "pull", "shut", "press")
IDLE = -1
REACH, TRANSPORT, LIFT, PUSH, PULL, SHUT, PRESS = range(7)
AIM_WORLD, AIM_DRAWER, AIM_OTHER = range(3)  # what a transport's target is relative to
RUNNING, FINISHED, FAILED = range(3)

SCRIPT = 24
KIND, PHASE, CLOCK, AGE, STATUS, OBJECT, AIM = range(7)  # CLOCK: steps in this phase
GOAL, GOAL_YAW, LENGTH, GRIPPER, CARRY = 7, 10, 11, 12, 13  # GOAL: x y z (m); GOAL_YAW nan: as grasped; CARRY: height
SPEED, GAIN, ANCHOR, GRASP_YAW, MEMORY = 14, 15, 16, 18, 19  # ANCHOR: x y; MEMORY: lamp or height it began with

_OPEN, _CLOSE = 1.0, -1.0
_NARROW = 0.42  # gripper command that leaves a block 8 mm a side
_STRADDLE = -0.15  # and the handle 9 mm a side
_TRAVEL = 0.15  # height at which nothing but the cabinet's load is in the way, m
_TIMEOUT = 60  # steps a phase may take
_HX, _HY, _HZ = float(CABINET[0] + HANDLE[0]), float(CABINET[1] + HANDLE[1]), float(HANDLE[2])
_BX, _BY, _BZ = (float(v) for v in BUTTON)
_FRONT = float(CABINET[1]) + 0.105  # y of the cabinet's front edge


@nb.njit(cache=True, nogil=True)
def aim(s, relative_to, x, y, z, yaw, carry):
    """Where the manoeuvre goes: target (m) relative to the world, the drawer's travel or the other block; yaw (rad,
    nan: whatever it is) and the height at which a block is carried (m). A push keeps its direction in (x, y).
    """
    s[AIM] = relative_to
    s[GOAL] = x
    s[GOAL + 1] = y
    s[GOAL + 2] = z
    s[GOAL_YAW] = yaw
    s[CARRY] = carry


@nb.njit(cache=True, nogil=True)
def begin(s, kind, block, length):
    """Starts manoeuvre ``kind`` in row ``s``, keeping its SPEED and GAIN; `aim` then says where."""
    s[KIND] = kind
    s[PHASE] = s[CLOCK] = s[AGE] = 0.0
    s[STATUS] = RUNNING
    s[OBJECT] = block
    s[LENGTH] = length
    s[GRIPPER] = 1.0
    s[MEMORY] = math.nan
    aim(s, AIM_WORLD, 0.0, 0.0, 0.0, math.nan, 0.12)


@nb.njit(cache=True, nogil=True)
def _wrap(angle):
    """An angle in (-pi/4, pi/4], a block's yaw being known modulo a quarter turn."""
    return angle - math.pi / 2 * math.floor(angle / (math.pi / 2) + 0.5)


@nb.njit(cache=True, nogil=True)
def _grasp_yaw(r, p, q):
    """Tool yaw that aligns the fingers with the block in column ``p``, keeping clear of the one in column ``q``."""
    base = _wrap(r[p + B_YAW])
    best = base
    score = math.inf
    for turn in range(-1, 2):
        yaw = base + turn * math.pi / 2
        if abs(yaw) > YAW_LIMIT - 0.03:
            continue
        cost = abs(yaw - r[YAW])
        dx, dy, dz = r[q] - r[p], r[q + 1] - r[p + 1], r[q + 2] - r[p + 2]
        if dx * dx + dy * dy < 0.0081 and abs(dz) < 0.03:  # the fingers open along (sin yaw, -cos yaw)
            cost += 2.0 * abs(dx * math.sin(yaw) - dy * math.cos(yaw)) / math.sqrt(dx * dx + dy * dy + 1e-9)
        if cost < score:
            score = cost
            best = yaw
    return best


@nb.njit(cache=True, nogil=True)
def _crowded(r, p, q):
    """Whether a wide open gripper would hit something beside the block in column ``p``."""
    dx, dy, dz = r[q] - r[p], r[q + 1] - r[p + 1], r[q + 2] - r[p + 2]
    if dx * dx + dy * dy < 0.01 and dz > -0.03:
        return True
    return r[p + 1] < -0.06 or r[p + 1] > 0.22


@nb.njit(cache=True, nogil=True)
def _carry(s, r, goal):
    """TRANSPORT and LIFT. Fills goal (x, y, z, yaw, gripper); returns (advance?, wait steps, tolerance)."""
    block = int(s[OBJECT])
    p = BLOCK + BLOCK_STRIDE * block
    q = BLOCK + BLOCK_STRIDE * (1 - block)
    bx, by, bz = r[p], r[p + 1], r[p + 2]
    low = 0.043 if bz > BLOCK_HALF + 0.01 and by < _FRONT + 0.22 and bz < CABINET_TOP else 0.02  # stay over the cabinet's lid
    phase = int(s[PHASE])
    held = literal_distance(r, HOLDING, block, 0, 0.0, 0.0) > -0.01
    if phase == 0 and s[CLOCK] == 0 and literal_distance(r, HOLDING, block, 0, 0.0, 0.0) > 0.0:
        s[PHASE] = phase = 3  # it is in the hand already
        s[ANCHOR], s[ANCHOR + 1], s[GRASP_YAW] = r[TOOL], r[TOOL + 1], r[YAW]
        s[MEMORY] = BLOCK_HALF
    if phase <= 1:
        if phase == 0 or s[CLOCK] == 0:
            s[GRASP_YAW] = _grasp_yaw(r, p, q)
        goal[0], goal[1], goal[3] = bx, by, s[GRASP_YAW]
        goal[2] = bz + 0.065 if phase == 0 else max(bz, low)
        goal[4] = _NARROW if _crowded(r, p, q) else _OPEN
        turned = abs(r[YAW] - s[GRASP_YAW]) < 0.1
        s[ANCHOR], s[ANCHOR + 1], s[MEMORY] = bx, by, bz
        return (phase == 1 and s[CLOCK] > 25), 0, (0.012 if turned else 0.0) if phase == 0 else 0.008
    if phase == 2:
        goal[0], goal[1], goal[2], goal[3], goal[4] = s[ANCHOR], s[ANCHOR + 1], max(s[MEMORY], low), s[GRASP_YAW], _CLOSE
        if s[CLOCK] > 2 and r[WIDTH] < 0.047 and abs(r[WIDTH + 1]) < 0.02:
            return True, 0, 0.0
        return False, 7, 0.0
    if phase <= 5 and not held and s[CLOCK] > 1:
        s[STATUS] = FAILED
    if phase == 3:
        goal[0], goal[1], goal[2], goal[3], goal[4] = s[ANCHOR], s[ANCHOR + 1], s[CARRY], s[GRASP_YAW], _CLOSE
        if s[KIND] == LIFT:
            if s[LENGTH] < 0.0:
                s[CLOCK] = min(s[CLOCK], 10.0)
                return False, 0, 0.0
            return s[CLOCK] >= s[LENGTH], 0, 0.0
        return r[TOOL + 2] > s[CARRY] - 0.03, 0, 0.02
    tx, ty, tz = s[GOAL], s[GOAL + 1], s[GOAL + 2]
    if s[KIND] == LIFT:
        tx, ty, tz = s[ANCHOR], s[ANCHOR + 1], s[MEMORY]
    elif s[AIM] == AIM_DRAWER:
        ty += r[DRAWER]
    elif s[AIM] == AIM_OTHER:
        tx += r[q]
        ty += r[q + 1]
        tz += r[q + 2]
    yaw = s[GRASP_YAW]
    if not math.isnan(s[GOAL_YAW]):
        yaw = s[GRASP_YAW] + _wrap(s[GOAL_YAW] - s[GRASP_YAW])
        if abs(yaw) > YAW_LIMIT - 0.03:
            yaw -= math.copysign(math.pi / 2, yaw)
    if phase <= 5:  # the block, not the tool, has to come to the target
        ox = min(0.02, max(-0.02, bx - r[TOOL]))
        oy = min(0.02, max(-0.02, by - r[TOOL + 1]))
        oz = min(0.02, max(-0.02, bz - r[TOOL + 2]))
        goal[0], goal[1], goal[3], goal[4] = tx - ox, ty - oy, yaw, _CLOSE
        goal[2] = s[CARRY] if phase == 4 else max(tz - oz + 0.003, low if s[AIM] == AIM_DRAWER else 0.0)
        s[ANCHOR], s[ANCHOR + 1] = r[TOOL], r[TOOL + 1]
        if phase == 5:
            s[MEMORY] = r[TOOL + 2]
            return s[CLOCK] > 12, 0, 0.006
        turned = abs(r[YAW] - yaw) < 0.08
        return False, 0, 0.012 if turned or s[CLOCK] > 20 else 0.0
    goal[0], goal[1], goal[3] = s[ANCHOR], s[ANCHOR + 1], r[YAW] + r[LAG + 3]
    if phase == 6:
        goal[2], goal[4] = s[MEMORY], _NARROW
        return s[CLOCK] > 2 and r[WIDTH] > 0.052, 8, 0.0
    goal[2], goal[4] = min(0.28, s[MEMORY] + 0.08), _NARROW
    if r[TOOL + 2] > s[MEMORY] + 0.04:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _push(s, r, goal):
    """PUSH: from behind the block, along (GOAL, GOAL+1). Same contract as `_carry`."""
    p = BLOCK + BLOCK_STRIDE * int(s[OBJECT])
    phase = int(s[PHASE])
    dx, dy = s[GOAL], s[GOAL + 1]
    if phase == 0 and s[CLOCK] == 0:
        s[ANCHOR], s[ANCHOR + 1] = r[p], r[p + 1]
    goal[3], goal[4] = 0.0, _CLOSE
    back = 0.075 if abs(dy) > 0.5 else 0.06  # closed fingers are thicker along y
    if phase <= 1:
        goal[0], goal[1] = s[ANCHOR] - dx * back, s[ANCHOR + 1] - dy * back
        goal[2] = 0.09 if phase == 0 else 0.024
        return False, 0, 0.015
    if phase == 2:
        far = s[LENGTH] - back + 0.04
        goal[0], goal[1], goal[2] = s[ANCHOR] + dx * far, s[ANCHOR + 1] + dy * far, 0.024
        return False, 0, 0.012
    goal[0], goal[1], goal[2] = r[TOOL], r[TOOL + 1], 0.11
    if r[TOOL + 2] > 0.08:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _drawer(s, r, goal):
    """PULL and SHUT: a finger behind the handle, or closed fingers before it. Same contract as `_carry`."""
    phase = int(s[PHASE])
    straddle = s[KIND] == PULL
    ahead = 0.0025 if straddle else 0.03
    handle = _HY + r[DRAWER]
    goal[0], goal[3], goal[4] = _HX + s[GOAL], 0.0, _STRADDLE if straddle else _CLOSE
    if phase <= 1:
        goal[1] = handle + ahead + (0.02 if not straddle else 0.0)
        goal[2] = 0.11 if phase == 0 else _HZ + 0.003
        ready = not straddle or abs(r[WIDTH] - 0.034) < 0.006
        return False, 0, ((0.012 if phase == 0 else 0.009) if straddle else 0.02) if ready else 0.0
    if phase == 2:
        wanted = s[LENGTH] - r[DRAWER]
        reach = 0.012 if straddle else 0.026
        goal[1] = handle + (math.copysign(reach, wanted) if straddle else reach) + min(0.05, max(-0.05, wanted))
        goal[2] = _HZ + 0.003
        there = abs(wanted) < 0.008 if straddle else wanted > -0.004
        return there or s[CLOCK] > 45, 0, 0.0
    goal[1], goal[2] = (handle + ahead if straddle else r[TOOL + 1] + 0.01), 0.15
    if r[TOOL + 2] > 0.10:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _press(s, r, goal):
    """PRESS: down on the button until the lamp changes. Same contract as `_carry`."""
    phase = int(s[PHASE])
    if math.isnan(s[MEMORY]):
        s[MEMORY] = r[LAMP]
    goal[0], goal[1], goal[3], goal[4] = _BX, _BY, 0.0, _CLOSE
    if phase == 0:
        goal[2] = _BZ + 0.05
        return False, 0, 0.02
    if phase == 1:
        goal[2] = _BZ - 0.015
        return r[LAMP] != s[MEMORY] or s[CLOCK] > 20, 0, 0.0
    goal[2] = _BZ + 0.06
    if r[TOOL + 2] > _BZ + 0.03:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def advance(s, r, goal, action):
    """One control step of row ``s`` float64[SCRIPT] on facts row ``r``: fills action float32[5], moves phases on.

    ``goal`` float64[5] is scratch space: the tool pose and gripper this step is after.
    """
    action[:] = 0.0
    action[4] = r[GRIP]
    if s[KIND] < 0 or s[STATUS] != RUNNING:
        return
    goal[0], goal[1], goal[2], goal[3], goal[4] = r[TOOL], r[TOOL + 1], r[TOOL + 2], r[YAW], r[GRIP]
    kind = int(s[KIND])
    if kind == REACH:
        goal[0], goal[1], goal[2], goal[4] = s[GOAL], s[GOAL + 1], s[GOAL + 2], s[GRIPPER]
        if not math.isnan(s[GOAL_YAW]):
            goal[3] = s[GOAL_YAW]
        done, wait, tolerance = s[PHASE] > 0, 0, 0.025
        if s[PHASE] > 0:
            s[STATUS] = FINISHED
    elif kind == TRANSPORT or kind == LIFT:
        done, wait, tolerance = _carry(s, r, goal)
    elif kind == PUSH:
        done, wait, tolerance = _push(s, r, goal)
    elif kind == PULL or kind == SHUT:
        done, wait, tolerance = _drawer(s, r, goal)
    else:
        done, wait, tolerance = _press(s, r, goal)
    gap = math.sqrt((goal[0] - r[TOOL]) ** 2 + (goal[1] - r[TOOL + 1]) ** 2 + (goal[2] - r[TOOL + 2]) ** 2)
    level = math.sqrt((goal[0] - r[TOOL]) ** 2 + (goal[1] - r[TOOL + 1]) ** 2)
    # Far away, go over things: rise first, come down last.
    z = goal[2]
    slow = 1.0
    if kind != REACH and level > 0.03 and (s[PHASE] == 0 or s[PHASE] == 4):
        over = max(z, s[CARRY] if s[PHASE] == 4 else _TRAVEL if level > 0.08 else 0.0)
        z = over if level > 0.05 else max(z, r[TOOL + 2] - 0.02)
        slow = min(1.0, max(0.15, 1.0 + (r[TOOL + 2] - over + 0.03) / 0.05))
    dx = (goal[0] - r[TOOL] - r[LAG]) / STEP_M * s[GAIN]
    dy = (goal[1] - r[TOOL + 1] - r[LAG + 1]) / STEP_M * s[GAIN]
    dz = (z - r[TOOL + 2] - r[LAG + 2]) / STEP_M * s[GAIN]
    length = math.sqrt(dx * dx + dy * dy)
    if length > s[SPEED] * slow:
        dx *= s[SPEED] * slow / length
        dy *= s[SPEED] * slow / length
    action[0] = dx
    action[1] = dy
    action[2] = min(s[SPEED], max(-s[SPEED], dz))
    action[3] = min(1.0, max(-1.0, (goal[3] - r[YAW] - r[LAG + 3]) / STEP_RAD * s[GAIN]))
    action[4] = goal[4]
    s[CLOCK] += 1.0
    s[AGE] += 1.0
    if done or (wait > 0 and s[CLOCK] >= wait) or gap < tolerance:
        s[PHASE] += 1.0
        s[CLOCK] = 0.0
    elif s[CLOCK] > _TIMEOUT:
        s[STATUS] = FAILED
