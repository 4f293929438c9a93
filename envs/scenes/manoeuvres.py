"""Hand-written manoeuvres as phase machines: what scripted experts and scripted play of any scene are made of.

A manoeuvre lives in one row of ``float64[n, SCRIPT]``: kind, phase, parameters and memory. `begin` and `aim` write such
a row; `advance` turns rows and facts into ``tool`` actions, a control step at a time, until the row's status is
FINISHED or FAILED. It sees facts and the scene's layout alone.

=========== ============================================================================================
REACH       move the tool to a point and hold the gripper as told
TRANSPORT   grasp a block, carry it through the air, put it down somewhere and let go
LIFT        grasp a block and hold it up (for LENGTH steps, then put it down; for ever if negative)
PUSH        push a block LENGTH metres along the table with closed fingers
TURN        grasp a block, raise it a little, turn it by LENGTH rad, put it down and let go
TOPPLE      push a standing block over, at its top
SLIDE       straddle a handle and move the drawer or door to LENGTH metres, either way
PRESS       press a button until its lamp changes
=========== ============================================================================================
"""

from __future__ import annotations

import math

import numba as nb

from envs.control import STEP_M, STEP_RAD
from envs.scenes.facts import B_BOTTOM, B_YAW, BLOCK_STRIDE, BLOCKS, GRIP, LAG, TOOL, WIDTH, YAW, YAW_LIMIT
from envs.scenes.predicates import HOLDING, contained, term_distance

__all__ = [
    "AIM_BLOCK", "AIM_CONTAINER", "AIM_WORLD", "FAILED", "FINISHED", "IDLE", "MANOEUVRES", "RUNNING", "SCRIPT",
    "advance", "aim", "begin",
]  # fmt: skip

MANOEUVRES = ("reach", "transport", "lift", "push", "turn", "topple", "slide", "press")
IDLE = -1
REACH, TRANSPORT, LIFT, PUSH, TURN, TOPPLE, SLIDE, PRESS = range(8)
AIM_WORLD, AIM_BLOCK, AIM_CONTAINER = range(3)  # what a transport's target is relative to (OTHER: which one)
RUNNING, FINISHED, FAILED = range(3)

SCRIPT = 22
# CLOCK: steps in this phase. OBJECT: number of the block, slide or lamp. GOAL: x, y, z (m); GOAL_YAW: nan: as it was
# grasped. CARRY: height of the tool (m). ANCHOR: where the block was taken or let go. MEMORY: the height there, or the
# lamp then. OPENING: width of the open gripper (m), which whoever makes the row writes.
KIND, PHASE, CLOCK, AGE, STATUS, OBJECT, AIM, OTHER = range(8)
GOAL, GOAL_YAW, LENGTH, GRIPPER, CARRY = 8, 11, 12, 13, 14
SPEED, GAIN, ANCHOR, GRASP_YAW, MEMORY, OPENING = 15, 16, 17, 19, 20, 21

_OPEN, _CLOSE = 1.0, -1.0
_ROOM, _ROOMY = 0.016, 0.030  # m by which the open fingers are wider than what they close on, in a crowd and else
_STRADDLE = 0.034  # m between the fingers at a handle
_AHEAD = 0.0025  # m from the handle's middle, away from a drawer's front: room for the inner finger
_TRAVEL = 0.15  # height of the empty tool at which nothing is in the way, m
_TIMEOUT = 60  # steps a phase may take
_WIDEST = 0.066  # m that fit between fingers that open wide enough
_DRAWER_FLOOR = 0.043  # lowest height of the tool at a block in a drawer: the hand stays above the cabinet


@nb.njit(cache=True, nogil=True)
def aim(s, relative_to, other, x, y, z, yaw, carry):
    """Where the manoeuvre goes: a target (m) relative to the world, a block or a container, a yaw (rad; nan: whatever
    it is), and the height (m) at which a block is carried. A push has its direction in (x, y)."""
    s[AIM], s[OTHER] = relative_to, other
    s[GOAL], s[GOAL + 1], s[GOAL + 2] = x, y, z
    s[GOAL_YAW], s[CARRY] = yaw, carry


@nb.njit(cache=True, nogil=True)
def begin(s, kind, thing, length):
    """Starts manoeuvre ``kind`` with a block, slide or lamp in row ``s``, keeping SPEED … OPENING; `aim` says where."""
    s[KIND] = kind
    s[PHASE] = s[CLOCK] = s[AGE] = 0.0
    s[STATUS] = RUNNING
    s[OBJECT] = thing
    s[LENGTH] = length
    s[GRIPPER] = 1.0
    s[MEMORY] = math.nan
    aim(s, AIM_WORLD, -1, 0.0, 0.0, 0.0, math.nan, 0.17)


@nb.njit(cache=True, nogil=True)
def _command(s, width):
    """Gripper command that opens the fingers to ``width`` m."""
    return min(1.0, max(-1.0, width / (0.5 * s[OPENING]) - 1.0))


@nb.njit(cache=True, nogil=True)
def _edge(half, shape, b, quarter):
    """Width (m) of a block across the fingers, aligned with its yaw plus ``quarter`` right angles."""
    return 2.0 * half[b, 0 if quarter % 2 else 1]


@nb.njit(cache=True, nogil=True)
def _grasp_yaw(x, b, half, shape, turn, opening):
    """Tool yaw that aligns the fingers with block ``b``, clear of what stands beside it; ``turn`` rad come after it."""
    p = BLOCKS + BLOCK_STRIDE * b
    best, score = x[YAW], math.inf
    raised = x[p + B_BOTTOM] > 0.012
    for k in range(-3, 4):
        yaw = x[p + B_YAW] + k * math.pi / 2
        if shape[b] > 0:
            yaw = x[YAW] * k / 3.0
        elif _edge(half, shape, b, k) > min(_WIDEST, opening - 0.006):
            continue
        if abs(yaw) > YAW_LIMIT - 0.03 or abs(yaw + turn) > YAW_LIMIT - 0.03:
            continue
        cost = 0.5 * abs(yaw - x[YAW]) + 0.3 * abs(yaw) + (1.5 * abs(yaw) if raised else 0.0)
        for other in range(half.shape[0]):
            q = BLOCKS + BLOCK_STRIDE * other
            dx, dy = x[q] - x[p], x[q + 1] - x[p + 1]
            far = math.sqrt(dx * dx + dy * dy + 1e-9)
            if other != b and far < 0.13:  # the fingers open along (sin yaw, -cos yaw)
                cost += (0.13 - far) / 0.05 * abs(dx * math.sin(yaw) - dy * math.cos(yaw)) / far
        if cost < score:
            score = cost
            best = yaw
    return best


@nb.njit(cache=True, nogil=True)
def _crowded(x, b, blocks):
    """Whether a wide open gripper would hit something beside the block."""
    p = BLOCKS + BLOCK_STRIDE * b
    for other in range(blocks):
        q = BLOCKS + BLOCK_STRIDE * other
        if other != b and (x[p] - x[q]) ** 2 + (x[p + 1] - x[q + 1]) ** 2 < 0.11**2:
            return True
    return x[p + B_BOTTOM] > 0.008 or x[p + 1] < -0.06 or x[p + 1] > 0.22 or x[p] > 0.54


@nb.njit(cache=True, nogil=True)
def _floor(x, b, layout):
    """Lowest height of the tool at block ``b``."""
    slide = layout[3][3]
    for c in range(slide.shape[0]):
        if slide[c] >= 0 and contained(x, b, c, False, layout) > -0.01:
            return _DRAWER_FLOOR
    return 0.015


@nb.njit(cache=True, nogil=True)
def _grasp(s, x, b, goal, layout):
    """Phases 0 to 2 of TRANSPORT, LIFT and TURN: over the block, down, close. Same contract as `_carry`."""
    half, shape = layout[0][2], layout[0][3]
    p = BLOCKS + BLOCK_STRIDE * b
    phase = int(s[PHASE])
    if phase == 2:
        goal[0], goal[1], goal[2] = s[ANCHOR], s[ANCHOR + 1], s[MEMORY]
        goal[3], goal[4] = s[GRASP_YAW], _CLOSE
        return (
            s[CLOCK] > 2 and term_distance(x, HOLDING, b, 0, 0.0, 0.0, layout) > 0.0 and abs(x[WIDTH + 1]) < 0.02,
            7,
            0.0,
        )
    if phase == 0 or s[CLOCK] == 0:
        s[GRASP_YAW] = _grasp_yaw(x, b, half, shape, s[LENGTH] if s[KIND] == TURN else 0.0, s[OPENING])
    width = 2.0 * half[b, 0]
    if shape[b] == 0:
        along = abs(math.sin(s[GRASP_YAW] - x[p + B_YAW]))
        width = 2.0 * (half[b, 0] if along > 0.7 else half[b, 1])
    goal[0], goal[1], goal[3] = x[p], x[p + 1], s[GRASP_YAW]
    low = max(x[p + 2], _floor(x, b, layout))
    top = 2.0 * x[p + 2] - x[p + B_BOTTOM]
    goal[2] = max(low + 0.05, top + 0.035) if phase == 0 else low
    goal[4] = _command(s, width + (_ROOM if _crowded(x, b, half.shape[0]) else _ROOMY))
    s[ANCHOR], s[ANCHOR + 1], s[MEMORY] = x[p], x[p + 1], low
    if phase == 1:
        return s[CLOCK] > 25, 0, 0.008
    turned = abs(x[YAW] - s[GRASP_YAW]) < 0.08 or s[CLOCK] > 30
    return False, 0, 0.012 if turned else 0.0


@nb.njit(cache=True, nogil=True)
def _carry(s, x, goal, layout):
    """TRANSPORT, LIFT and TURN. Fills goal (x, y, z, yaw, gripper); returns (advance?, wait steps, tolerance)."""
    (bq, _, half, _), (_, _, axis, _, _), _, (_, _, _, slide) = layout
    b = int(s[OBJECT])
    p = BLOCKS + BLOCK_STRIDE * b
    grip = term_distance(x, HOLDING, b, 0, 0.0, 0.0, layout)
    if s[PHASE] == 0 and s[CLOCK] == 0 and grip > 0.0:  # it is in the hand already
        s[PHASE] = 3
        s[ANCHOR], s[ANCHOR + 1], s[GRASP_YAW] = x[TOOL], x[TOOL + 1], x[YAW]
        s[MEMORY] = half[b, 2]
    phase = int(s[PHASE])
    if phase <= 2:
        return _grasp(s, x, b, goal, layout)
    if phase <= 5 and grip <= -0.012 and s[CLOCK] > 1:
        s[STATUS] = FAILED
    goal[3], goal[4] = s[GRASP_YAW], _CLOSE
    if s[KIND] == TURN and phase <= 5:
        goal[0], goal[1] = s[ANCHOR], s[ANCHOR + 1]
        goal[2] = s[MEMORY] + (0.025 if phase < 5 else 0.0)
        if phase >= 4:
            goal[3] = s[GRASP_YAW] + s[LENGTH]
        turned = abs(x[YAW] - goal[3]) < 0.05 or s[CLOCK] > 40
        if phase == 3:
            return False, 0, 0.008
        return (phase == 4 and turned) or (phase == 5 and s[CLOCK] > 10), 0, 0.006 if phase == 5 else 0.0
    if phase == 3:
        goal[0], goal[1], goal[2] = s[ANCHOR], s[ANCHOR + 1], s[CARRY]
        if s[KIND] == TRANSPORT:
            return x[TOOL + 2] > s[CARRY] - 0.03, 0, 0.02
        if s[LENGTH] < 0.0:
            s[CLOCK] = min(s[CLOCK], 10.0)
            return False, 0, 0.0
        return s[CLOCK] >= s[LENGTH], 0, 0.0
    if phase <= 5:
        tx, ty, tz = s[GOAL], s[GOAL + 1], s[GOAL + 2]
        in_drawer = False
        if s[KIND] == LIFT:
            tx, ty, tz = s[ANCHOR], s[ANCHOR + 1], s[MEMORY]
        elif s[AIM] == AIM_BLOCK:
            q = BLOCKS + BLOCK_STRIDE * int(s[OTHER])
            tx, ty, tz = tx + x[q], ty + x[q + 1], tz + 2.0 * x[q + 2] - x[q + B_BOTTOM]
        elif s[AIM] == AIM_CONTAINER and slide[int(s[OTHER])] >= 0:
            k = slide[int(s[OTHER])]
            value = x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * k]
            tx, ty = tx + axis[k, 0] * value, ty + axis[k, 1] * value
            in_drawer = True
        # The block, not the tool, has to come to the target.
        goal[0] = tx - min(0.02, max(-0.02, x[p] - x[TOOL]))
        goal[1] = ty - min(0.02, max(-0.02, x[p + 1] - x[TOOL + 1]))
        if not math.isnan(s[GOAL_YAW]):
            goal[3] = s[GOAL_YAW]
        if phase == 4:
            goal[2] = s[CARRY]
            turned = abs(x[YAW] - goal[3]) < 0.08 or s[CLOCK] > 25
            return False, 0, 0.012 if turned else 0.0
        goal[2] = tz + 0.003 - min(0.03, max(-0.03, x[p + 2] - x[TOOL + 2]))
        if in_drawer:
            goal[2] = max(goal[2], _DRAWER_FLOOR)
        if s[KIND] == TRANSPORT:
            s[ANCHOR], s[ANCHOR + 1], s[MEMORY] = x[TOOL], x[TOOL + 1], x[TOOL + 2]
        return s[CLOCK] > 14, 0, 0.006
    width = 2.0 * max(half[b, 0] if half[b, 0] < 0.035 else 0.0, half[b, 1] if half[b, 1] < 0.035 else 0.0)
    goal[0], goal[1], goal[3], goal[4] = s[ANCHOR], s[ANCHOR + 1], x[YAW] + x[LAG + 3], _command(s, width + _ROOM)
    if phase == 6:
        goal[2] = s[MEMORY]
        return s[CLOCK] > 2 and x[WIDTH] > width + 0.008, 8, 0.0
    goal[2] = min(0.30, s[MEMORY] + 0.10)
    if x[TOOL + 2] > s[MEMORY] + 0.06:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _push(s, x, goal, layout):
    """PUSH and TOPPLE: from behind the block, along (GOAL, GOAL+1). Same contract as `_carry`."""
    half = layout[0][2]
    b = int(s[OBJECT])
    p = BLOCKS + BLOCK_STRIDE * b
    phase = int(s[PHASE])
    dx, dy = s[GOAL], s[GOAL + 1]
    if phase == 0 and s[CLOCK] == 0:
        s[ANCHOR], s[ANCHOR + 1] = x[p], x[p + 1]
        s[MEMORY] = 0.017 if s[KIND] == PUSH else max(0.03, 2.0 * x[p + 2] - x[p + B_BOTTOM] - 0.018)
    goal[3], goal[4] = 0.0, _CLOSE
    finger = 0.017 if abs(dy) > 0.5 else 0.011  # closed fingers are thicker along y
    reach = max(half[b, 0], half[b, 1])
    if phase <= 1:
        back = reach + finger + 0.022
        goal[0], goal[1] = s[ANCHOR] - dx * back, s[ANCHOR + 1] - dy * back
        goal[2] = max(0.09, s[MEMORY] + 0.05) if phase == 0 else s[MEMORY]
        return False, 0, 0.012
    if phase == 2:
        far = s[LENGTH] - reach - finger + 0.006
        goal[0], goal[1], goal[2] = s[ANCHOR] + dx * far, s[ANCHOR + 1] + dy * far, s[MEMORY]
        if s[KIND] == PUSH:  # stay behind the block where it slips to the side
            aside = dx * (x[p + 1] - s[ANCHOR + 1]) - dy * (x[p] - s[ANCHOR])
            aside = 1.5 * min(0.03, max(-0.03, aside))
            goal[0] -= dy * aside
            goal[1] += dx * aside
        return False, 0, 0.010
    if phase == 3:  # off the block first, or friction would raise it
        far = s[LENGTH] - reach - finger - 0.025
        goal[0], goal[1], goal[2] = s[ANCHOR] + dx * far, s[ANCHOR + 1] + dy * far, s[MEMORY]
        return s[CLOCK] > 8, 0, 0.010
    goal[0], goal[1], goal[2] = x[TOOL], x[TOOL + 1], s[MEMORY] + 0.10
    if x[TOOL + 2] > s[MEMORY] + 0.06:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _slide(s, x, goal, layout):
    """SLIDE: a finger on either side of the handle. Same contract as `_carry`."""
    (bq, _, _, _), (_, _, axis, handle, _), _, _ = layout
    k = int(s[OBJECT])
    value = x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * k]
    hx, hy, hz = handle[k, 0] + axis[k, 0] * value, handle[k, 1] + axis[k, 1] * value, handle[k, 2]
    yaw = math.atan2(axis[k, 0], -axis[k, 1])  # the fingers open along (sin yaw, -cos yaw)
    yaw -= math.pi * math.floor(yaw / math.pi + 0.5)
    phase = int(s[PHASE])
    wanted = s[LENGTH] - value
    hx += _AHEAD * axis[k, 0]
    hy += _AHEAD * axis[k, 1]
    goal[0], goal[1], goal[3], goal[4] = hx + s[GOAL], hy + s[GOAL + 1], yaw, _command(s, _STRADDLE)
    if phase <= 1:
        goal[2] = hz + 0.065 if phase == 0 else hz + 0.003
        ready = abs(x[WIDTH] - _STRADDLE) < 0.006 and abs(x[YAW] - yaw) < 0.08
        if phase == 1 and s[CLOCK] > 18:  # came down on something: once more from above
            s[PHASE], s[CLOCK] = 0.0, 1.0
        return False, 0, (0.012 if phase == 0 else 0.009) if ready else 0.0
    if phase == 2:
        push = math.copysign(0.012, wanted) + min(0.05, max(-0.05, wanted))
        goal[0] += axis[k, 0] * push
        goal[1] += axis[k, 1] * push
        goal[2] = hz + 0.003
        return abs(wanted) < 0.008 or s[CLOCK] > 45, 0, 0.0
    goal[2] = hz + 0.11
    if x[TOOL + 2] > hz + 0.055:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def _press(s, x, goal, layout):
    """PRESS: down on the button until its lamp changes. Same contract as `_carry`."""
    (bq, _, _, _), (sq, _, _, _, _), (_, top), _ = layout
    k = int(s[OBJECT])
    lit = x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * sq.shape[0] + 3 * k]
    if math.isnan(s[MEMORY]):
        s[MEMORY] = lit
    goal[0], goal[1], goal[3], goal[4] = top[k, 0], top[k, 1], 0.0, _CLOSE
    if s[PHASE] == 0:
        goal[2] = top[k, 2] + 0.05
        return False, 0, 0.015
    if s[PHASE] == 1:
        goal[2] = top[k, 2] - 0.015
        return lit != s[MEMORY] or s[CLOCK] > 20, 0, 0.0
    goal[2] = top[k, 2] + 0.06
    if x[TOOL + 2] > top[k, 2] + 0.03:
        s[STATUS] = FINISHED
    return False, 0, 0.0


@nb.njit(cache=True, nogil=True)
def advance(s, x, goal, action, layout):
    """One control step of row ``s`` on facts row ``x``: fills action float64[5], moves phases on.

    ``goal`` float64[5] is scratch: the tool pose and gripper that this step is after.
    """
    action[:] = 0.0
    action[4] = x[GRIP]
    if s[KIND] < 0 or s[STATUS] != RUNNING:
        return
    goal[:3] = x[TOOL : TOOL + 3]
    goal[3], goal[4] = x[YAW], x[GRIP]
    kind = int(s[KIND])
    if kind == REACH:
        goal[0], goal[1], goal[2], goal[4] = s[GOAL], s[GOAL + 1], s[GOAL + 2], s[GRIPPER]
        if not math.isnan(s[GOAL_YAW]):
            goal[3] = s[GOAL_YAW]
        done, wait, tolerance = s[PHASE] > 0, 0, 0.025
        if s[PHASE] > 0:
            s[STATUS] = FINISHED
    elif kind == TRANSPORT or kind == LIFT or kind == TURN:
        done, wait, tolerance = _carry(s, x, goal, layout)
    elif kind == PUSH or kind == TOPPLE:
        done, wait, tolerance = _push(s, x, goal, layout)
    elif kind == SLIDE:
        done, wait, tolerance = _slide(s, x, goal, layout)
    else:
        done, wait, tolerance = _press(s, x, goal, layout)
    level = math.sqrt((goal[0] - x[TOOL]) ** 2 + (goal[1] - x[TOOL + 1]) ** 2)
    gap = math.sqrt(level * level + (goal[2] - x[TOOL + 2]) ** 2)
    # Far away, go over things: rise first, come down last.
    z = goal[2]
    slow = 0.6 if kind == PUSH and s[PHASE] == 2 else 1.0  # what is struck hard takes off
    if kind != REACH and level > 0.03 and (s[PHASE] == 0 or s[PHASE] == 4):
        over = max(z, s[CARRY] if s[PHASE] == 4 else _TRAVEL if level > 0.06 else 0.0)
        z = over if level > 0.04 else max(z, x[TOOL + 2] - 0.02)
        slow = min(1.0, max(0.1, 1.0 + (x[TOOL + 2] - over + 0.03) / 0.05))
    dx = (goal[0] - x[TOOL] - x[LAG]) / STEP_M * s[GAIN]
    dy = (goal[1] - x[TOOL + 1] - x[LAG + 1]) / STEP_M * s[GAIN]
    dz = (z - x[TOOL + 2] - x[LAG + 2]) / STEP_M * s[GAIN]
    length = math.sqrt(dx * dx + dy * dy)
    if length > s[SPEED] * slow:
        dx *= s[SPEED] * slow / length
        dy *= s[SPEED] * slow / length
    action[0] = dx
    action[1] = dy
    action[2] = min(s[SPEED], max(-s[SPEED], dz))
    action[3] = min(1.0, max(-1.0, (goal[3] - x[YAW] - x[LAG + 3]) / STEP_RAD * s[GAIN]))
    action[4] = goal[4]
    s[CLOCK] += 1.0
    s[AGE] += 1.0
    if done or (wait > 0 and s[CLOCK] >= wait) or gap < tolerance * (1.0 + 0.05 * s[CLOCK]):
        s[PHASE] += 1.0
        s[CLOCK] = 0.0
    elif s[CLOCK] > _TIMEOUT:
        s[STATUS] = FAILED
