"""What learners get from a scene's facts, in numba: where the goal wants things, reward terms, features.

Reward terms, each fit for a critic of its own: ``task`` = (m + progress of the first term that does not hold) / k with
m of k terms holding; ``reach`` = how close the tool is to what that term is about; ``safety`` = minus weighted costs.
"""

from __future__ import annotations

import math

import numba as nb

from envs.scenes.facts import (
    B_BOTTOM,
    B_PEAK,
    B_START,
    B_TURN,
    B_UP,
    B_V,
    BLOCK_STRIDE,
    BLOCKS,
    GRIP,
    JOINTS,
    TOOL,
    TOOL_V,
    WIDTH,
)  # fmt: skip
from envs.scenes.features import (
    LIMIT,
    TOOL_FEATURES,
    block_features,
    clip,
    heading,
    lamp_features,
    slide_features,
    slide_offset,
    tool_features,
)
from envs.scenes.predicates import (
    AT,
    CARRY_CLEARANCE,
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
    TAKEN_OUT,
    TOGGLED,
    TOPPLED,
    TOUCHING,
    TURN,
    TURNED_LEFT,
    TURNED_RIGHT,
    shifted,
    term_distance,
)  # fmt: skip

__all__ = ["COSTS", "REWARD_TERMS", "feature_count", "slot_features", "slot_terms", "term_target"]

REWARD_TERMS = ("task", "reach", "safety")
COSTS = ("joint_margin", "table_press", "overspeed", "disturbance", "lost_block", "effort")
_COST_WEIGHTS = (0.2, 0.2, 0.2, 0.5, 0.5, 0.02)
_HOVER = 0.07  # m above a target at which it is approached from the side
_BLOCK_FEATURES, _SLIDE_FEATURES, _LAMP_FEATURES = 28, 8, 7


def feature_count(blocks: int, slides: int, lamps: int) -> int:
    """How many features a scene has."""
    return TOOL_FEATURES + _BLOCK_FEATURES * blocks + _SLIDE_FEATURES * slides + _LAMP_FEATURES * lamps


@nb.njit(cache=True, nogil=True)
def spot_in(x, b, container, layout, out):
    """Writes a free spot of a container for block ``b`` (out float64[3], m): of two, the one with nothing on it."""
    (bq, _, half, _), (_, _, axis, _, _), _, (centre, size, yaw, slide) = layout
    s = slide[container]
    value = x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * s] if s >= 0 else 0.0
    wide = size[container, 1] > 1.2 * size[container, 0]
    cos, sin = math.cos(yaw[container]), math.sin(yaw[container])
    best = -1.0
    for k in range(2):
        along = (0.04 if not wide else 0.5 * size[container, 1]) * (1.0 if (k + b) % 2 else -1.0)
        u, v = (0.0, along) if wide else (along, 0.022 if s >= 0 else 0.0)
        px, py = centre[container, 0] + cos * u - sin * v, centre[container, 1] + sin * u + cos * v
        if s >= 0:
            px += axis[s, 0] * value
            py += axis[s, 1] * value
        room = 0.09
        for other in range(bq.shape[0]):
            if other != b:
                o = BLOCKS + BLOCK_STRIDE * other
                room = min(room, math.sqrt((x[o] - px) ** 2 + (x[o + 1] - py) ** 2))
        if room > best + 1e-6:
            best = room
            out[0], out[1], out[2] = px, py, centre[container, 2] + half[b, 2]


@nb.njit(cache=True, nogil=True)
def term_target(x, predicate, a, b, px, py, layout, out):
    """Writes where block ``a`` should be (out float64[3], m) for a term about a block; where it is if it may stay."""
    half = layout[0][2]
    p = BLOCKS + BLOCK_STRIDE * a
    for k in range(3):
        out[k] = x[p + k]
    if predicate == LIFTED or predicate == HOLDING:
        out[2] = half[a, 2] + 0.11
    elif predicate == AT or predicate == PLACED:
        if not math.isnan(px):
            out[0], out[1] = px, py
        out[2] = half[a, 2]
    elif predicate == ON:
        q = BLOCKS + BLOCK_STRIDE * b
        out[0], out[1], out[2] = x[q], x[q + 1], 2.0 * x[q + 2] - x[q + B_BOTTOM] + half[a, 2]
    elif predicate == INSIDE:
        spot_in(x, a, b, layout, out)
    elif predicate == TAKEN_OUT:
        out[0], out[1], out[2] = 0.43, 0.10, half[a, 2]
    elif predicate == SWEPT or predicate == SWEPT_LEFT or predicate == MOVED_LEFT:
        out[0], out[1] = x[p + B_START], x[p + B_START + 1] + SWEEP + 0.02
    elif predicate == SWEPT_RIGHT or predicate == MOVED_RIGHT:
        out[0], out[1] = x[p + B_START], x[p + B_START + 1] - SWEEP - 0.02
    elif predicate == MOVED_AWAY:
        out[0], out[1] = x[p + B_START] + SWEEP + 0.02, x[p + B_START + 1]
    elif predicate == MOVED_NEAR:
        out[0], out[1] = x[p + B_START] - SWEEP - 0.02, x[p + B_START + 1]


@nb.njit(cache=True, nogil=True)
def _closeness(d):
    return 0.5 * (1.0 - math.tanh(5.0 * d)) + 0.5 * (1.0 - math.tanh(20.0 * d))


@nb.njit(cache=True, nogil=True)
def _to(x, px, py, pz):
    return math.sqrt((x[TOOL] - px) ** 2 + (x[TOOL + 1] - py) ** 2 + (x[TOOL + 2] - pz) ** 2)


@nb.njit(cache=True, nogil=True)
def _carried(x, predicate, a, b, px, py, held, layout, target):
    """Progress of bringing a block somewhere: hold, raise, carry (down a funnel onto the target), let go."""
    p = BLOCKS + BLOCK_STRIDE * a
    term_target(x, predicate, a, b, px, py, layout, target)
    side = math.sqrt((x[p] - target[0]) ** 2 + (x[p + 1] - target[1]) ** 2)
    aim = target[2] + _HOVER * min(1.0, max(0.0, (side - 0.02) / 0.05))
    funnel = side + abs(x[p + 2] - aim)
    progress = 0.0
    if held:
        raised = 1.0 if side < 0.06 else min(1.0, max(0.0, x[p + B_BOTTOM]) / (0.5 * _HOVER))
        nearer = 0.5 * max(0.0, 1.0 - funnel / 0.35) + 0.5 * max(0.0, 1.0 - funnel / 0.7)
        progress = 0.05 + 0.15 * raised + 0.35 * nearer + 0.2 * (1.0 - math.tanh(12.0 * funnel))
    there = side < 0.025 and abs(x[p + 2] - target[2]) < 0.02
    if there and (predicate != PLACED or x[p + B_PEAK] > CARRY_CLEARANCE):
        progress = max(progress, 0.75 + 0.1 * (1.0 + x[GRIP]))  # what remains is to let go
    return progress


@nb.njit(cache=True, nogil=True)
def _progress(x, predicate, a, b, sign, px, py, layout, target):
    """(progress, reach), both 0 … 1, of a term that does not hold."""
    (bq, _, half, _), (sq, _, axis, handle, travel), (_, top), _ = layout
    slides = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    if predicate == OPEN or predicate == CLOSED:
        value = x[slides + 3 * a]
        opened = min(1.0, max(0.0, value / (0.95 * travel[a])))
        hx, hy = handle[a, 0] + axis[a, 0] * value, handle[a, 1] + axis[a, 1] * value
        wanted = (predicate == OPEN) == (sign > 0)
        return 0.9 * (opened if wanted else 1.0 - opened), _closeness(_to(x, hx, hy, handle[a, 2]))
    if predicate == LIT or predicate == TOGGLED:
        depth = x[slides + 3 * sq.shape[0] + 3 * a + 2]
        pressed = min(1.0, max(0.0, depth / 0.015))
        return 0.4 * pressed, _closeness(_to(x, top[a, 0], top[a, 1], top[a, 2] - depth))
    p = BLOCKS + BLOCK_STRIDE * a
    near = _to(x, x[p], x[p + 1], x[p + 2])
    reach = 0.8 * _closeness(near)
    if sign < 0:
        d = -term_distance(x, predicate, a, b, px, py, layout)
        return 0.9 * (1.0 - math.tanh(10.0 * max(0.0, -d))), reach
    if predicate == TOUCHING:
        return 0.9 * _closeness(near), _closeness(near)
    if predicate == TOPPLED:
        return 0.9 * (1.0 - x[p + B_UP]), reach
    swept = predicate == SWEPT or predicate == SWEPT_LEFT or predicate == SWEPT_RIGHT
    if swept or (predicate >= MOVED_LEFT and predicate <= MOVED_NEAR):
        return 0.9 * min(1.0, max(0.0, shifted(x, predicate, a) / SWEEP)), reach
    if predicate == TURNED_LEFT or predicate == TURNED_RIGHT:
        turn = x[p + B_TURN] if predicate == TURNED_LEFT else -x[p + B_TURN]
        return 0.9 * min(1.0, max(0.0, turn / TURN)), reach
    held = term_distance(x, HOLDING, a, 0, 0.0, 0.0, layout) > 0.0
    if near < 0.02 and half[a, 1] < 0.0389:
        reach += 0.2 * min(1.0, max(0.0, (0.078 - x[WIDTH]) / (0.078 - 2.0 * half[a, 1])))
    if held:
        reach = 1.0
    if predicate == HOLDING:
        return 0.0, reach
    if predicate == LIFTED:
        return (0.25 + 0.65 * min(1.0, max(0.0, x[p + B_BOTTOM]) / 0.09)) if held else 0.0, reach
    return _carried(x, predicate, a, b, px, py, held, layout, target), reach


@nb.njit(cache=True, nogil=True)
def slot_terms(x, action, count, codes, place, distance, lost, low, high, layout, target, terms, costs):
    """Fills one slot's terms float64[3] and costs float64[6]; target float64[3] is scratch, low, high joint ranges."""
    (bq, _, _, _), (sq, _, _, _, _), (lq, _), _ = layout
    holding, current = 0, -1
    for j in range(count):
        if distance[j] > 0.0:
            holding += 1
        elif current < 0:
            current = j
    if current < 0:
        terms[0] = terms[1] = 1.0
    else:
        c = codes[current]
        progress, reach = _progress(x, c[0], c[1], c[2], c[3], place[current, 0], place[current, 1], layout, target)
        terms[0] = (holding + progress) / count
        terms[1] = reach
    margin = 0.0
    for k in range(low.shape[0]):
        room = min(x[JOINTS + k] - low[k], high[k] - x[JOINTS + k])
        margin += max(0.0, 0.05 - room) / 0.05
    speed = math.sqrt(x[TOOL_V] ** 2 + x[TOOL_V + 1] ** 2 + x[TOOL_V + 2] ** 2)
    disturbed = 0.0
    for b in range(bq.shape[0]):
        spoken = False
        for j in range(count):
            p = codes[j, 0]
            spoken = spoken or (p != OPEN and p != CLOSED and p != LIT and p != TOGGLED and codes[j, 1] == b)
        if not spoken:
            v = BLOCKS + BLOCK_STRIDE * b + B_V
            moving = math.sqrt(x[v] ** 2 + x[v + 1] ** 2 + x[v + 2] ** 2)
            disturbed += min(1.0, max(0.0, moving - 0.01) / 0.1)
    at = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    for s in range(sq.shape[0]):
        spoken = False
        for j in range(count):
            spoken = spoken or ((codes[j, 0] == OPEN or codes[j, 0] == CLOSED) and codes[j, 1] == s)
        if not spoken:
            disturbed += min(1.0, max(0.0, abs(x[at + 1]) - 0.01) / 0.1)
        at += 3
    for k in range(lq.shape[0]):
        spoken = False
        for j in range(count):
            spoken = spoken or ((codes[j, 0] == LIT or codes[j, 0] == TOGGLED) and codes[j, 1] == k)
        if not spoken:
            disturbed += min(1.0, max(0.0, x[at + 2] - 0.003) / 0.01)
        at += 3
    effort = 0.0
    for k in range(action.shape[0]):
        effort += min(1.0, action[k] * action[k])
    costs[0] = min(1.0, margin)
    costs[1] = min(1.0, max(0.0, 0.014 - x[TOOL + 2]) * 50.0)
    costs[2] = min(1.0, max(0.0, speed - 0.8))
    costs[3] = disturbed
    costs[4] = 1.0 if lost else 0.0
    costs[5] = effort / action.shape[0]
    total = 0.0
    for k in range(6):
        total += _COST_WEIGHTS[k] * costs[k]
    terms[2] = -total


@nb.njit(cache=True, nogil=True)
def slot_features(x, count, codes, place, layout, target, o):
    """Fills one slot's features, o float32[feature_count]: tool, then each block, slide and lamp, in the scene's order.

    What the goal wants of a thing stands beside it, as a difference, with a mask that says whether it wants anything.
    """
    (bq, _, _, _), (sq, _, axis, handle, travel), (lq, top), _ = layout
    tool_features(x, o)
    c = TOOL_FEATURES
    for b in range(bq.shape[0]):
        p = BLOCKS + BLOCK_STRIDE * b
        moved, turn, fall = 0.0, 0.0, 0.0
        for k in range(3):
            target[k] = x[p + k]
        for j in range(count):
            predicate, sign = codes[j, 0], codes[j, 3]
            about = predicate != OPEN and predicate != CLOSED and predicate != LIT and predicate != TOGGLED
            if not about or codes[j, 1] != b or sign < 0:
                continue
            if predicate == TOPPLED:
                fall = 1.0
            elif predicate == TURNED_LEFT or predicate == TURNED_RIGHT:
                turn = 1.0 if predicate == TURNED_LEFT else -1.0
            else:
                term_target(x, predicate, b, codes[j, 2], place[j, 0], place[j, 1], layout, target)
                moved = 1.0
        block_features(x, p, o[c:])
        for k in range(3):
            wanted = target[k] - x[p + k]
            o[c + 12 + k] = wanted * 6.0 * moved
            o[c + 15 + k] = clip(wanted * 40.0, 2.0) * moved
        heading(x, p, o[c + 18 :])
        o[c + 22] = x[p + B_UP]
        o[c + 23] = min(1.0, x[p + B_PEAK] * 15.0)
        o[c + 24] = moved
        o[c + 25] = turn
        o[c + 26] = (turn * TURN * 1.1 - x[p + B_TURN]) * abs(turn)
        o[c + 27] = fall
        c += _BLOCK_FEATURES
    at = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    for s in range(sq.shape[0]):
        wanted, mask = 0.0, 0.0
        for j in range(count):
            if (codes[j, 0] == OPEN or codes[j, 0] == CLOSED) and codes[j, 1] == s:
                wanted = 0.95 * travel[s] if (codes[j, 0] == OPEN) == (codes[j, 3] > 0) else 0.0
                mask = 1.0
        slide_features(x, at, o[c:])
        o[c + 2] = (wanted - x[at]) * 12.0 * mask
        o[c + 3] = mask
        slide_offset(x, at, axis[s], handle[s], o[c + 4 :])
        c += _SLIDE_FEATURES
        at += 3
    for k in range(lq.shape[0]):
        wanted, mask = 0.0, 0.0
        for j in range(count):
            if codes[j, 1] == k and codes[j, 0] == LIT:
                wanted, mask = (1.0 if codes[j, 3] > 0 else 0.0), 1.0
            elif codes[j, 1] == k and codes[j, 0] == TOGGLED:
                wanted, mask = (1.0 - x[at + 1] if codes[j, 3] > 0 else x[at + 1]), 1.0
        lamp_features(x, at, top[k], o[c:])
        o[c + 5] = (wanted - x[at]) * mask
        o[c + 6] = mask
        c += _LAMP_FEATURES
        at += 3
    for k in range(o.shape[0]):
        o[k] = clip(o[k], LIMIT)
