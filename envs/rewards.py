"""Reward terms of a goal, each for a critic of its own: ``task``, ``reach``, ``safety``.

A reward is a fixed function of the predicates' distances. With c = the first literal of the conjunction that does
not hold, m of k literals holding:

    task   = (m + progress(c)) / k        0 … 1, 1 only where the goal holds
    reach  = closeness of the tool to what c is about, 1 once that is held or done
    safety = −Σ weighted costs            joint margin, table press, overspeed, disturbed things, lost block, effort

``progress`` is staged, so that each stage pays more than any state of the one before: hold, raise, carry (through a
funnel that comes down on the target from above), let go, done.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.playroom.robot import JOINT_HIGH, JOINT_LOW
from envs.playroom.scene import BLOCK_HALF, BUTTON, CABINET, HANDLE
from envs.predicates import (
    AT,
    B_PEAK,
    B_V,
    BLOCK,
    BLOCK_STRIDE,
    BUTTON_DEPTH,
    CARRY_CLEARANCE,
    CLOSED,
    DRAWER,
    GRIP,
    HOLDING,
    IN_FRONT_OF,
    INSIDE,
    JOINTS,
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
    literal_distance,
    literal_target,
)  # fmt: skip

__all__ = ["COSTS", "REWARD_TERMS", "reward_terms"]

REWARD_TERMS = ("task", "reach", "safety")
COSTS = ("joint_margin", "table_press", "overspeed", "disturbance", "lost_block", "effort")
_WEIGHTS = np.array([0.2, 0.2, 0.2, 0.5, 0.5, 0.02])
_LOW, _HIGH = JOINT_LOW, JOINT_HIGH
_HX, _HY, _HZ = float(CABINET[0] + HANDLE[0]), float(CABINET[1] + HANDLE[1]), float(HANDLE[2])
_BX, _BY, _BZ = (float(v) for v in BUTTON)
_FAR = 0.7  # distance from which carrying closer pays: nothing is further away, m
_CARRY = 0.07  # height above the target at which the funnel is entered, m


@nb.njit(cache=True, nogil=True)
def _closeness(d):
    return 0.5 * (1.0 - math.tanh(5.0 * d)) + 0.5 * (1.0 - math.tanh(20.0 * d))


@nb.njit(cache=True, nogil=True)
def _to(x, px, py, pz):
    return math.sqrt((x[TOOL] - px) ** 2 + (x[TOOL + 1] - py) ** 2 + (x[TOOL + 2] - pz) ** 2)


@nb.njit(cache=True, nogil=True)
def _block_progress(x, predicate, a, b, px, py, target):
    """(progress, reach) of a literal that wants block ``a`` somewhere."""
    pa = BLOCK + BLOCK_STRIDE * a
    ax, ay, az = x[pa], x[pa + 1], x[pa + 2]
    near = _to(x, ax, ay, az)
    held = literal_distance(x, HOLDING, a, 0, 0.0, 0.0) > 0.0
    reach = 0.8 * _closeness(near)
    if math.sqrt((ax - x[TOOL]) ** 2 + (ay - x[TOOL + 1]) ** 2) < 0.015 and abs(az - x[TOOL + 2]) < 0.018:
        reach += 0.2 * min(1.0, max(0.0, (0.078 - x[WIDTH]) / 0.034))
    if held:
        reach = 1.0
    clear = max(0.0, az - BLOCK_HALF)
    if predicate == HOLDING:
        return 0.0, reach
    if predicate == LIFTED:
        return (0.25 + 0.65 * min(1.0, clear / 0.09)) if held else 0.0, reach
    literal_target(x, predicate, a, b, px, py, target)
    side = math.sqrt((ax - target[0]) ** 2 + (ay - target[1]) ** 2)
    aim = target[2] + _CARRY * min(1.0, max(0.0, (side - 0.02) / 0.05))
    funnel = side + abs(az - aim)
    progress = 0.0
    if held:
        raised = min(1.0, clear / 0.05)
        if predicate == PLACED:
            raised = max(raised, min(1.0, x[pa + B_PEAK] / 0.05))
        elif side < 0.06:
            raised = 1.0
        lift, carry = 0.1, 0.4
        if predicate == INSIDE or predicate == ON:  # what has to come down from above is raised first
            lift, carry = 0.25, 0.25
            if side >= 0.06:
                raised = min(1.0, clear / (target[2] - BLOCK_HALF + 0.5 * _CARRY))
        nearer = 0.5 * max(0.0, 1.0 - funnel / 0.35) + 0.5 * max(0.0, 1.0 - funnel / _FAR)
        progress = 0.05 + lift * raised + carry * nearer + 0.2 * (1.0 - math.tanh(12.0 * funnel))
    carried = predicate != PLACED or x[pa + B_PEAK] > CARRY_CLEARANCE
    if carried and not held and abs(az - target[2]) < 0.012:  # let go: better than held where the aim was good
        progress = max(progress, 0.9 * max(0.0, 1.0 - side / 0.12))
        if side < 0.03:
            reach = 1.0
    if carried and side < 0.025 and abs(az - target[2]) < (0.035 if predicate == INSIDE else 0.02):
        progress = max(progress, 0.75 + 0.1 * (1.0 + x[GRIP]))  # there: what remains is to let go
    return progress, reach


@nb.njit(cache=True, nogil=True)
def _progress(x, predicate, a, b, sign, px, py, target):
    """(progress, reach), both 0 … 1, of a literal that does not hold."""
    if predicate == OPEN or predicate == CLOSED:
        opened = min(1.0, max(0.0, x[DRAWER] / 0.15))
        wanted = (predicate == OPEN) == (sign > 0)
        reach = _closeness(_to(x, _HX, _HY + x[DRAWER], _HZ))
        return 0.9 * (opened if wanted else 1.0 - opened), reach
    if predicate == LIT:
        depth = min(1.0, max(0.0, x[BUTTON_DEPTH] / 0.015))
        return 0.4 * depth, _closeness(_to(x, _BX, _BY, _BZ - x[BUTTON_DEPTH]))
    if sign > 0 and (
        predicate == HOLDING or predicate == LIFTED or predicate == AT or predicate == PLACED or predicate == ON
        or predicate == INSIDE or predicate == LEFT_OF or predicate == IN_FRONT_OF or predicate == NEXT_TO
    ):  # fmt: skip
        return _block_progress(x, predicate, a, b, px, py, target)
    pa = BLOCK + BLOCK_STRIDE * a
    d = literal_distance(x, predicate, a, b, px, py) * sign
    return 0.9 * (1.0 - math.tanh(10.0 * max(0.0, -d))), _closeness(_to(x, x[pa], x[pa + 1], x[pa + 2]))


@nb.njit(cache=True, nogil=True)
def slot_terms(row, action, count, codes, place, distance, lost, target, terms, costs):
    """Fills one slot's terms float64[3] and costs float64[6]; target float64[3] is scratch. See `reward_terms`."""
    held = 0
    current = -1
    moves0 = False
    moves1 = False
    drawer = False
    lamp = False
    for j in range(count):
        if distance[j] > 0.0:
            held += 1
        elif current < 0:
            current = j
        predicate = codes[j, 0]
        if predicate == OPEN or predicate == CLOSED:
            drawer = True
        elif predicate == LIT:
            lamp = True
        elif codes[j, 1] == 0:
            moves0 = True
        else:
            moves1 = True
    if current < 0:
        terms[0] = 1.0
        terms[1] = 1.0
    else:
        c = codes[current]
        progress, reach = _progress(row, c[0], c[1], c[2], c[3], place[current, 0], place[current, 1], target)
        terms[0] = (held + progress) / count
        terms[1] = reach
    margin = 0.0
    for k in range(7):
        room = min(row[JOINTS + k] - _LOW[k], _HIGH[k] - row[JOINTS + k])
        margin += max(0.0, 0.05 - room) / 0.05
    speed = math.sqrt(row[TOOL_V] ** 2 + row[TOOL_V + 1] ** 2 + row[TOOL_V + 2] ** 2)
    disturbed = 0.0
    for b in range(2):
        if (b == 0 and moves0) or (b == 1 and moves1):
            continue
        v = BLOCK + BLOCK_STRIDE * b + B_V
        disturbed += min(1.0, max(0.0, math.sqrt(row[v] ** 2 + row[v + 1] ** 2 + row[v + 2] ** 2) - 0.01) / 0.1)
    if not drawer:
        disturbed += min(1.0, max(0.0, abs(row[DRAWER + 1]) - 0.01) / 0.1)
    if not lamp:
        disturbed += min(1.0, max(0.0, row[BUTTON_DEPTH] - 0.003) / 0.01)
    effort = 0.0
    for k in range(action.shape[0]):
        effort += min(1.0, action[k] * action[k])
    costs[0] = min(1.0, margin)
    costs[1] = min(1.0, max(0.0, 0.014 - row[TOOL + 2]) * 50.0)
    costs[2] = min(1.0, max(0.0, speed - 0.8))
    costs[3] = disturbed
    costs[4] = 1.0 if lost else 0.0
    costs[5] = effort / action.shape[0]
    total = 0.0
    for k in range(costs.shape[0]):
        total += _WEIGHTS[k] * costs[k]
    terms[2] = -total


@nb.njit(cache=True, nogil=True)
def reward_terms(x, action, count, codes, place, distance, lost, terms, costs):
    """Fills terms float64[n, 3] and costs float64[n, 6] for facts x, the action taken and the goals' distances.

    ``lost`` bool[n] marks slots with a block out of reach.
    """
    target = np.empty(3)
    for i in range(x.shape[0]):
        slot_terms(
            x[i], action[i], count[i], codes[i], place[i], distance[i], lost[i], target, terms[i], costs[i],
        )  # fmt: skip
