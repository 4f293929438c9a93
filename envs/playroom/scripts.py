"""Hand-written manoeuvres as phase machines: what scripted play and the scripted oracle are made of.

A manoeuvre lives in one row of ``float64[n, SCRIPT]``: kind, phase, parameters and memory. `begin` and
`aim` write such a row; `advance` turns rows and facts into actions, a control step at a time, until the
row's status is FINISHED or FAILED. It sees facts alone, the numbers that a policy's features come from.

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

from envs import predicates as f
from envs.control import STEP_M, STEP_RAD
from envs.playroom.scene import BLOCK_HALF, BUTTON, CABINET, CABINET_TOP, HANDLE
from envs.predicates import literal_distance
from envs.step import YAW_LIMIT

__all__ = [
    "AIM_DRAWER", "AIM_OTHER", "AIM_WORLD", "FAILED", "FINISHED", "IDLE", "LIFT", "MANOEUVRES", "PRESS",
    "PULL", "PUSH", "REACH", "RUNNING", "SCRIPT", "SHUT", "TRANSPORT", "advance", "aim", "begin", "quarter",
]  # fmt: skip

MANOEUVRES = ("reach", "transport", "lift", "push", "pull", "shut", "press")
IDLE = -1
REACH, TRANSPORT, LIFT, PUSH, PULL, SHUT, PRESS = range(7)
AIM_WORLD, AIM_DRAWER, AIM_OTHER = range(3)  # what a transport's target is relative to
RUNNING, FINISHED, FAILED = range(3)

SCRIPT = 20
# Columns of a row. CLOCK: steps in this phase; GOAL: x, y, z (m); GOAL_YAW: nan for as grasped; CARRY: height
# (m); ANCHOR: x, y where the block was taken or let go; MEMORY: the height there, or the lamp's first state.
KIND, PHASE, CLOCK, AGE, STATUS, OBJECT, AIM = range(7)
GOAL, GOAL_YAW, LENGTH, GRIPPER, CARRY = 7, 10, 11, 12, 13
SPEED, GAIN, ANCHOR, GRASP_YAW, MEMORY = 14, 15, 16, 18, 19

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
    """Where the manoeuvre goes: a target (m) relative to the world, the drawer's travel or the other
    block, a yaw (rad; nan: whatever it is), and the height (m) at which a block is carried. A push
    has its direction in (x, y).
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
def quarter(angle):
    """An angle in (-pi/4, pi/4], a block's yaw being known modulo a quarter turn."""
    return angle - math.pi / 2 * math.floor(angle / (math.pi / 2) + 0.5)


@nb.njit(cache=True, nogil=True)
def _grasp_yaw(r, p, q):
    """Tool yaw that aligns the fingers with the block at column ``p``, clear of the one at column ``q``."""
    base = quarter(r[p + f.B_YAW])
    best = base
    score = math.inf
    for turn in range(-1, 2):
        yaw = base + turn * math.pi / 2
        if abs(yaw) > YAW_LIMIT - 0.03:
            continue
        cost = abs(yaw - r[f.YAW])
        dx, dy, dz = r[q] - r[p], r[q + 1] - r[p + 1], r[q + 2] - r[p + 2]
        if dx * dx + dy * dy < 0.0081 and abs(dz) < 0.03:  # the fingers open along (sin yaw, -cos yaw)
            cost += 2.0 * abs(dx * math.sin(yaw) - dy * math.cos(yaw)) / math.sqrt(dx * dx + dy * dy + 1e-9)
        if cost < score:
            score = cost
            best = yaw
    return best


@nb.njit(cache=True, nogil=True)
def _crowded(r, p, q):
    """Whether a wide open gripper would hit something beside the block at column ``p``."""
    dx, dy, dz = r[q] - r[p], r[q + 1] - r[p + 1], r[q + 2] - r[p + 2]
    if dx * dx + dy * dy < 0.01 and dz > -0.03:
        return True
    return r[p + 1] < -0.06 or r[p + 1] > 0.22


@nb.njit(cache=True, nogil=True)
def _floor(y, z):
    """Lowest height of the tool at a block there: near the drawer the hand has to stay above the cabinet."""
    return 0.043 if BLOCK_HALF + 0.01 < z < CABINET_TOP and y < _FRONT + 0.22 else 0.02


@nb.njit(cache=True, nogil=True)
def _grasp(s, r, p, q, goal):
    """Phases 0 to 2 of TRANSPORT and LIFT: over the block, down, close. Same contract as `_carry`."""
    bx, by, bz = r[p], r[p + 1], r[p + 2]
    phase = int(s[PHASE])
    if phase == 2:
        goal[0], goal[1], goal[2] = s[ANCHOR], s[ANCHOR + 1], max(s[MEMORY], _floor(by, s[MEMORY]))
        goal[3], goal[4] = s[GRASP_YAW], _CLOSE
        shut = s[CLOCK] > 2 and r[f.WIDTH] < 0.047 and abs(r[f.WIDTH + 1]) < 0.02
        return shut, 7, 0.0
    if phase == 0 or s[CLOCK] == 0:
        s[GRASP_YAW] = _grasp_yaw(r, p, q)
    goal[0], goal[1], goal[3] = bx, by, s[GRASP_YAW]
    goal[2] = bz + 0.065 if phase == 0 else max(bz, _floor(by, bz))
    goal[4] = _NARROW if _crowded(r, p, q) else _OPEN
    s[ANCHOR], s[ANCHOR + 1], s[MEMORY] = bx, by, bz
    if phase == 1:
        return s[CLOCK] > 25, 0, 0.008
    turned = abs(r[f.YAW] - s[GRASP_YAW]) < 0.1 or s[CLOCK] > 25
    return False, 0, 0.012 if turned else 0.0


@nb.njit(cache=True, nogil=True)
def _carry(s, r, goal):
    """TRANSPORT and LIFT. Fills goal (x, y, z, yaw, gripper); returns (advance?, wait steps, tolerance)."""
    block = int(s[OBJECT])
    p = f.BLOCK + f.BLOCK_STRIDE * block
    q = f.BLOCK + f.BLOCK_STRIDE * (1 - block)
    grip = literal_distance(r, f.HOLDING, block, 0, 0.0, 0.0)
    if s[PHASE] == 0 and s[CLOCK] == 0 and grip > 0.0:  # it is in the hand already
        s[PHASE] = 3
        s[ANCHOR], s[ANCHOR + 1], s[GRASP_YAW], s[MEMORY] = r[f.TOOL], r[f.TOOL + 1], r[f.YAW], BLOCK_HALF
    phase = int(s[PHASE])
    if phase <= 2:
        return _grasp(s, r, p, q, goal)
    if phase <= 5 and grip <= -0.01 and s[CLOCK] > 1:
        s[STATUS] = FAILED
    if phase == 3:
        goal[0], goal[1], goal[2] = s[ANCHOR], s[ANCHOR + 1], s[CARRY]
        goal[3], goal[4] = s[GRASP_YAW], _CLOSE
        if s[KIND] == TRANSPORT:
            return r[f.TOOL + 2] > s[CARRY] - 0.03, 0, 0.02
        if s[LENGTH] < 0.0:
            s[CLOCK] = min(s[CLOCK], 10.0)
            return False, 0, 0.0
        return s[CLOCK] >= s[LENGTH], 0, 0.0
    if phase <= 5:
        tx, ty, tz = s[GOAL], s[GOAL + 1], s[GOAL + 2]
        if s[KIND] == LIFT:
            tx, ty, tz = s[ANCHOR], s[ANCHOR + 1], s[MEMORY]
        elif s[AIM] == AIM_DRAWER:
            ty += r[f.DRAWER]
        elif s[AIM] == AIM_OTHER:
            tx += r[q]
            ty += r[q + 1]
            tz += r[q + 2]
        yaw = s[GRASP_YAW] if math.isnan(s[GOAL_YAW]) else quarter(s[GOAL_YAW])
        # The block, not the tool, has to come to the target.
        goal[0] = tx - min(0.02, max(-0.02, r[p] - r[f.TOOL]))
        goal[1] = ty - min(0.02, max(-0.02, r[p + 1] - r[f.TOOL + 1]))
        goal[3], goal[4] = yaw, _CLOSE
        if phase == 4:
            goal[2] = s[CARRY]
            turned = abs(r[f.YAW] - yaw) < 0.08 or s[CLOCK] > 20
            return False, 0, 0.012 if turned else 0.0
        goal[2] = tz + 0.003 - min(0.02, max(-0.02, r[p + 2] - r[f.TOOL + 2]))
        if s[AIM] == AIM_DRAWER:
            goal[2] = max(goal[2], 0.043)
        if s[KIND] == TRANSPORT:
            s[ANCHOR], s[ANCHOR + 1], s[MEMORY] = r[f.TOOL], r[f.TOOL + 1], r[f.TOOL + 2]
        return s[CLOCK] > 12, 0, 0.006
    goal[0], goal[1], goal[3], goal[4] = s[ANCHOR], s[ANCHOR + 1], r[f.YAW] + r[f.LAG + 3], _NARROW
    if phase == 6:
        goal[2] = s[MEMORY]
        return s[CLOCK] > 2 and r[f.WIDTH] > 0.052, 8, 0.0
    goal[2] = min(0.28, s[MEMORY] + 0.08)
    if r[f.TOOL + 2] > s[MEMORY] + 0.04:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _push(s, r, goal):
    """PUSH: from behind the block, along (GOAL, GOAL+1). Same contract as `_carry`."""
    p = f.BLOCK + f.BLOCK_STRIDE * int(s[OBJECT])
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
    goal[0], goal[1], goal[2] = r[f.TOOL], r[f.TOOL + 1], 0.11
    if r[f.TOOL + 2] > 0.08:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _drawer(s, r, goal):
    """PULL and SHUT: a finger behind the handle, or closed fingers before it. Same contract as `_carry`."""
    phase = int(s[PHASE])
    straddle = s[KIND] == PULL
    ahead = 0.0025 if straddle else 0.03
    handle = _HY + r[f.DRAWER]
    goal[0], goal[3], goal[4] = _HX + s[GOAL], 0.0, _STRADDLE if straddle else _CLOSE
    if phase <= 1:
        goal[1] = handle + ahead + (0.02 if not straddle else 0.0)
        goal[2] = 0.11 if phase == 0 else _HZ + 0.003
        ready = not straddle or abs(r[f.WIDTH] - 0.034) < 0.006
        if phase == 1 and s[CLOCK] > 18:  # came down on the drawer's front: once more from above
            s[PHASE] = 0.0
            s[CLOCK] = 1.0
        return False, 0, ((0.012 if phase == 0 else 0.009) if straddle else 0.02) if ready else 0.0
    if phase == 2:
        wanted = s[LENGTH] - r[f.DRAWER]
        reach = 0.012 if straddle else 0.026
        ahead = math.copysign(reach, wanted) if straddle else reach
        goal[1] = handle + ahead + min(0.05, max(-0.05, wanted))
        goal[2] = _HZ + 0.003
        there = abs(wanted) < 0.008 if straddle else wanted > -0.004
        return there or s[CLOCK] > 45, 0, 0.0
    goal[1], goal[2] = (handle + ahead if straddle else r[f.TOOL + 1] + 0.01), 0.15
    if r[f.TOOL + 2] > 0.10:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _press(s, r, goal):
    """PRESS: down on the button until the lamp changes. Same contract as `_carry`."""
    phase = int(s[PHASE])
    if math.isnan(s[MEMORY]):
        s[MEMORY] = r[f.LAMP]
    goal[0], goal[1], goal[3], goal[4] = _BX, _BY, 0.0, _CLOSE
    if phase == 0:
        goal[2] = _BZ + 0.05
        return False, 0, 0.02
    if phase == 1:
        goal[2] = _BZ - 0.015
        return r[f.LAMP] != s[MEMORY] or s[CLOCK] > 20, 0, 0.0
    goal[2] = _BZ + 0.06
    if r[f.TOOL + 2] > _BZ + 0.03:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def advance(s, r, goal, action):
    """One control step of row ``s`` on facts row ``r``: fills action float32[5], moves phases on.

    ``goal`` float64[5] is scratch space: the tool pose and gripper that this step is after.
    """
    action[:] = 0.0
    action[4] = r[f.GRIP]
    if s[KIND] < 0 or s[STATUS] != RUNNING:
        return
    goal[:3] = r[f.TOOL : f.TOOL + 3]
    goal[3], goal[4] = r[f.YAW], r[f.GRIP]
    kind = int(s[KIND])
    if kind == REACH:
        goal[0], goal[1], goal[2], goal[4] = s[GOAL], s[GOAL + 1], s[GOAL + 2], s[GRIPPER]
        if not math.isnan(s[GOAL_YAW]):
            goal[3] = s[GOAL_YAW]
        done, wait, tolerance = s[PHASE] > 0, 0, 0.025
        if s[PHASE] > 0:
            s[STATUS] = FINISHED
    elif kind in (TRANSPORT, LIFT):
        done, wait, tolerance = _carry(s, r, goal)
    elif kind == PUSH:
        done, wait, tolerance = _push(s, r, goal)
    elif kind in (PULL, SHUT):
        done, wait, tolerance = _drawer(s, r, goal)
    else:
        done, wait, tolerance = _press(s, r, goal)
    level = math.sqrt((goal[0] - r[f.TOOL]) ** 2 + (goal[1] - r[f.TOOL + 1]) ** 2)
    gap = math.sqrt(level * level + (goal[2] - r[f.TOOL + 2]) ** 2)
    # Far away, go over things: rise first, come down last.
    z = goal[2]
    slow = 1.0
    if kind != REACH and level > 0.03 and (s[PHASE] == 0 or s[PHASE] == 4):
        over = max(z, s[CARRY] if s[PHASE] == 4 else _TRAVEL if level > 0.08 else 0.0)
        z = over if level > 0.05 else max(z, r[f.TOOL + 2] - 0.02)
        slow = min(1.0, max(0.15, 1.0 + (r[f.TOOL + 2] - over + 0.03) / 0.05))
    dx = (goal[0] - r[f.TOOL] - r[f.LAG]) / STEP_M * s[GAIN]
    dy = (goal[1] - r[f.TOOL + 1] - r[f.LAG + 1]) / STEP_M * s[GAIN]
    dz = (z - r[f.TOOL + 2] - r[f.LAG + 2]) / STEP_M * s[GAIN]
    length = math.sqrt(dx * dx + dy * dy)
    if length > s[SPEED] * slow:
        dx *= s[SPEED] * slow / length
        dy *= s[SPEED] * slow / length
    action[0] = dx
    action[1] = dy
    action[2] = min(s[SPEED], max(-s[SPEED], dz))
    action[3] = min(1.0, max(-1.0, (goal[3] - r[f.YAW] - r[f.LAG + 3]) / STEP_RAD * s[GAIN]))
    action[4] = goal[4]
    s[CLOCK] += 1.0
    s[AGE] += 1.0
    if done or (wait > 0 and s[CLOCK] >= wait) or gap < tolerance * (1.0 + 0.05 * s[CLOCK]):
        s[PHASE] += 1.0
        s[CLOCK] = 0.0
    elif s[CLOCK] > _TIMEOUT:
        s[STATUS] = FAILED
