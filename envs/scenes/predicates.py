"""What is true in a scene: every predicate as a signed distance on facts, > 0 where it holds, in numba.

Several conditions combine by their minimum, so the sign is exact and the size says how far the worst of them is
(metres; radians for turns; 0.5 for lamps).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from envs.scenes.facts import (
    B_BOTTOM,
    B_PEAK,
    B_START,
    B_TURN,
    B_UP,
    B_UP0,
    B_V,
    B_YAW,
    BLOCK_STRIDE,
    BLOCKS,
    GRIP,
    TOOL,
    WIDTH,
)  # fmt: skip
from envs.scenes.words import ANYWHERE, MAX_TERMS, PREDICATES

if TYPE_CHECKING:
    from envs.scenes.words import Term, Vocabulary

__all__ = ["Codes", "distances", "encode", "resting", "shifted", "term_distance"]

_P = {name: index for index, name in enumerate(PREDICATES)}
OPEN, CLOSED, LIT, TOGGLED = (_P[k] for k in ("open", "closed", "lit", "toggled"))
TOUCHING, HOLDING, LIFTED, AT, PLACED, ON = (
    _P[k] for k in ("touching", "holding", "lifted", "at", "placed", "on")
)  # fmt: skip
INSIDE, TAKEN_OUT = _P["inside"], _P["taken_out"]
SWEPT, SWEPT_LEFT, SWEPT_RIGHT = (_P[k] for k in ("swept", "swept_left", "swept_right"))
TURNED_LEFT, TURNED_RIGHT, TOPPLED = (_P[k] for k in ("turned_left", "turned_right", "toppled"))
MOVED_LEFT, MOVED_RIGHT, MOVED_AWAY, MOVED_NEAR = (
    _P[k] for k in ("moved_left", "moved_right", "moved_away", "moved_near")
)  # fmt: skip

OPEN_SHARE, CLOSED_SHARE = 0.75, 0.125  # of a slide's travel
LIFT_CLEARANCE = 0.08  # m
CARRY_CLEARANCE = 0.02  # `placed` asks that the block's lowest point was this far off the table
PLACE_TOLERANCE = 0.03  # m
SWEEP = 0.08  # m along the table; a swept block has not been carried
TURN, TURN_RADIUS = math.pi / 3, 0.10  # rad, and m it may have moved meanwhile
_STILL = 0.05  # m/s
_FALLEN = 0.01  # m below the table at which a block is no longer on it


class Codes:
    """A batch of conjunctions as arrays: ``count[n]``, ``codes[n, 4, 4]`` (predicate, a, b, sign), ``place[n, 4, 2]``.

    a and b number things among those of their kind (see `Vocabulary.index`); ``place`` is in metres, and nan where it
    is to be drawn at reset (``anywhere``).
    """

    def __init__(self, n: int):
        self.count = np.zeros(n, np.int64)
        self.codes = np.zeros((n, MAX_TERMS, 4), np.int64)
        self.place = np.full((n, MAX_TERMS, 2), np.nan)


def encode(goals: list[tuple[Term, ...]], words: Vocabulary) -> Codes:
    """Conjunctions as `Codes`."""
    out = Codes(len(goals))
    group = {"drawer|door": "slide", "drawer|shelf": "container"}
    for i, terms in enumerate(goals):
        out.count[i] = len(terms)
        for j, term in enumerate(terms):
            numbers = [-1, -1]
            for k, (arg, kind) in enumerate(zip(term.args, PREDICATES[term.predicate], strict=True)):
                if kind != "place":
                    numbers[k] = words.index(group.get(kind, kind), arg)
                elif arg != ANYWHERE:
                    out.place[i, j] = words.places[arg]
            out.codes[i, j] = _P[term.predicate], *numbers, 1 if term.positive else -1
    return out


@nb.njit(cache=True, nogil=True)
def _held(x, b, half):
    """How surely the gripper holds block ``b``: it is between the fingers, which are about as wide apart as it is."""
    p = BLOCKS + BLOCK_STRIDE * b
    dx, dy, dz = x[TOOL] - x[p], x[TOOL + 1] - x[p + 1], x[TOOL + 2] - x[p + 2]
    c, s = math.cos(x[p + B_YAW]), math.sin(x[p + B_YAW])
    tall = x[p + 2] - x[p + B_BOTTOM]
    out = tall + 0.010 - abs(dz)
    if x[p + B_UP] > 0.9:
        out = min(out, min(half[b, 0] + 0.006 - abs(c * dx + s * dy), half[b, 1] + 0.006 - abs(c * dy - s * dx)))
    else:
        out = min(out, max(half[b, 0], half[b, 2]) + 0.006 - math.sqrt(dx * dx + dy * dy))
    fit = 1.0
    for k in range(3):
        fit = min(fit, abs(x[WIDTH] - 2.0 * half[b, k]))
    return min(min(out, 0.012 - fit), -x[GRIP])


@nb.njit(cache=True, nogil=True)
def resting(x, b, half):
    """Whether block ``b`` lies still and is let go (> 0)."""
    p = BLOCKS + BLOCK_STRIDE * b
    near = math.sqrt((x[TOOL] - x[p]) ** 2 + (x[TOOL + 1] - x[p + 1]) ** 2 + (x[TOOL + 2] - x[p + 2]) ** 2)
    speed = math.sqrt(x[p + B_V] ** 2 + x[p + B_V + 1] ** 2 + x[p + B_V + 2] ** 2)
    clear = near - 0.02 - max(half[b, 0], max(half[b, 1], half[b, 2]))
    return min(max(clear, -_held(x, b, half)), _STILL - speed)


@nb.njit(cache=True, nogil=True)
def _within(px, py, bottom, centre, half, yaw, axis, value):
    """How surely a point on a block's lowest level is in a container that has moved ``value`` along ``axis``."""
    dx, dy = px - centre[0] - axis[0] * value, py - centre[1] - axis[1] * value
    c, s = math.cos(yaw), math.sin(yaw)
    aside = min(half[0] - abs(c * dx + s * dy), half[1] - abs(c * dy - s * dx))
    return min(aside, min(bottom - centre[2] + 0.008, centre[2] + half[2] - bottom))


@nb.njit(cache=True, nogil=True)
def contained(x, b, container, started, layout):
    """How surely block ``b`` is, or (``started``) was when the goal began, within a container."""
    (bq, _, half, _), (_, _, axis, _, _), _, (centre, size, yaw, slide) = layout
    p, s = BLOCKS + BLOCK_STRIDE * b, slide[container]
    value = 0.0
    if s >= 0:
        value = x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * s + (2 if started else 0)]
    way = axis[max(s, 0)] if s >= 0 else centre[container]
    if started:
        low = x[p + B_START + 2] - half[b, 2]
        return _within(
            x[p + B_START], x[p + B_START + 1], low, centre[container], size[container], yaw[container], way, value
        )
    return _within(x[p], x[p + 1], x[p + B_BOTTOM], centre[container], size[container], yaw[container], way, value)


@nb.njit(cache=True, nogil=True)
def shifted(x, predicate, b):
    """How far block ``b`` is from where it began, the way that a ``swept`` or ``moved`` fact says (m)."""
    p = BLOCKS + BLOCK_STRIDE * b
    dx, dy = x[p] - x[p + B_START], x[p + 1] - x[p + B_START + 1]
    if predicate == SWEPT_LEFT or predicate == MOVED_LEFT:
        return dy
    if predicate == SWEPT_RIGHT or predicate == MOVED_RIGHT:
        return -dy
    if predicate == MOVED_AWAY:
        return dx
    return -dx if predicate == MOVED_NEAR else math.sqrt(dx * dx + dy * dy)


@nb.njit(cache=True, nogil=True)
def term_distance(x, predicate, a, b, px, py, layout):
    """Signed distance of one positive term on one facts row; > 0 where it holds."""
    (bq, _, half, _), (sq, _, _, _, travel), _, _ = layout
    slides = BLOCKS + BLOCK_STRIDE * bq.shape[0]
    if predicate == OPEN:
        return x[slides + 3 * a] - OPEN_SHARE * travel[a]
    if predicate == CLOSED:
        return CLOSED_SHARE * travel[a] - x[slides + 3 * a]
    if predicate == LIT or predicate == TOGGLED:
        lamp = slides + 3 * sq.shape[0] + 3 * a
        return x[lamp] - 0.5 if predicate == LIT else abs(x[lamp] - x[lamp + 1]) - 0.5
    p = BLOCKS + BLOCK_STRIDE * a
    if predicate == TOUCHING:
        near = math.sqrt((x[TOOL] - x[p]) ** 2 + (x[TOOL + 1] - x[p + 1]) ** 2 + (x[TOOL + 2] - x[p + 2]) ** 2)
        return 0.02 + max(half[a, 0], half[a, 1]) - near
    if predicate == HOLDING or predicate == LIFTED:
        held = _held(x, a, half)
        return held if predicate == HOLDING else min(held, x[p + B_BOTTOM] - LIFT_CLEARANCE)
    if predicate == TOPPLED:
        return min(min(x[p + B_UP0] - 0.9, 0.3 - x[p + B_UP]), _STILL - abs(x[p + B_V + 2]))
    if predicate >= MOVED_LEFT and predicate <= MOVED_NEAR:
        return min(shifted(x, predicate, a) - SWEEP, x[p + B_BOTTOM] + _FALLEN)
    rest = resting(x, a, half)
    if predicate == INSIDE:
        return min(rest, contained(x, a, b, False, layout))
    if predicate == ON:
        q = BLOCKS + BLOCK_STRIDE * b
        aside = math.sqrt((x[p] - x[q]) ** 2 + (x[p + 1] - x[q + 1]) ** 2)
        top = 2.0 * x[q + 2] - x[q + B_BOTTOM]
        reach = max(0.022, min(half[b, 0], half[b, 1]))
        return min(rest, min(reach - aside, 0.01 - abs(x[p + B_BOTTOM] - top)))
    rest = min(rest, 0.012 - x[p + B_BOTTOM])  # the others lie on the table
    if predicate == TAKEN_OUT:
        return min(rest, min(contained(x, a, b, True, layout), -contained(x, a, b, False, layout)))
    if predicate == AT or predicate == PLACED:
        if not math.isnan(px):  # no place was drawn: anywhere on the table will do
            rest = min(rest, PLACE_TOLERANCE - math.sqrt((x[p] - px) ** 2 + (x[p + 1] - py) ** 2))
        return min(rest, x[p + B_PEAK] - CARRY_CLEARANCE) if predicate == PLACED else rest
    far = shifted(x, predicate, a)
    if predicate == SWEPT or predicate == SWEPT_LEFT or predicate == SWEPT_RIGHT:
        return min(min(rest, far - SWEEP), CARRY_CLEARANCE - x[p + B_PEAK])
    turn = x[p + B_TURN] if predicate == TURNED_LEFT else -x[p + B_TURN]
    return min(min(rest, turn - TURN), TURN_RADIUS - far)


@nb.njit(cache=True, nogil=True)
def distances(row, count, codes, place, layout, out):
    """Signed distances of one slot's terms on its facts: out float64[4], negation applied; +inf past ``count``."""
    for j in range(out.shape[0]):
        if j >= count:
            out[j] = np.inf
        else:
            d = term_distance(row, codes[j, 0], codes[j, 1], codes[j, 2], place[j, 0], place[j, 1], layout)
            out[j] = d * codes[j, 3]
