"""Facts and predicates: what is true of the table-top, computed in numba on whole batches.

*Facts* are the low-dimensional state ``float64[n, len(COLUMNS)]`` from which everything else follows: predicates,
goals, rewards and the policies' features. SI units, world frame. A *predicate* is a signed distance on facts,
``> 0`` where it holds; several conditions combine by their minimum, so that the sign is exact and the size says how
far the worst of them is (metres; 0.5 for the lamp).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from envs.control import GRIP, LAG, TOOL, TOOL_V, WIDTH, YAW  # noqa: F401 - columns of facts
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.vocabulary import OBJECTS, PLACES, PREDICATES

if TYPE_CHECKING:
    from envs.goals import Literal

__all__ = ["COLUMNS", "MAX_LITERALS", "Codes", "encode", "evaluate", "literal_distance", "literal_target"]

_TOOL = ("tool_x", "tool_y", "tool_z", "tool_yaw", "width", "width_rate", "tool_vx", "tool_vy", "tool_vz")
_LAG = ("lag_x", "lag_y", "lag_z", "lag_yaw", "grip_command")  # commanded minus actual; command -1 close … 1 open
_BLOCK = ("x", "y", "z", "yaw", "upright", "vx", "vy", "vz", "peak")  # peak: highest clearance since the goal began
COLUMNS: tuple[str, ...] = (
    *_TOOL,
    *_LAG,
    *(f"{block}_{name}" for block in ("red", "blue") for name in _BLOCK),
    "drawer",
    "drawer_rate",
    "button",
    "lamp",
    *(f"joint{i}" for i in range(1, 8)),
)
BLOCK, BLOCK_STRIDE = 14, 9  # first column of the first block, columns a block
B_YAW, B_UP, B_V, B_PEAK = 3, 4, 5, 8
DRAWER, BUTTON_DEPTH, LAMP, JOINTS = 32, 34, 35, 36

OBJECT_INDEX = {name: index for index, name in enumerate(OBJECTS)}
PREDICATE_INDEX = {name: index for index, name in enumerate(PREDICATES)}
MAX_LITERALS = 4
_P = PREDICATE_INDEX
OPEN, CLOSED, LIT = (_P[k] for k in ("open", "closed", "lit"))
HOLDING, LIFTED, TOUCHING = (_P[k] for k in ("holding", "lifted", "touching"))
CLEAR, AT, PLACED, ON, INSIDE = (_P[k] for k in ("clear", "at", "placed", "on", "inside"))
LEFT_OF, IN_FRONT_OF, NEXT_TO = (_P[k] for k in ("left_of", "in_front_of", "next_to"))
_CABINET = OBJECT_INDEX["cabinet"]
_CX, _CY = float(CABINET[0]), float(CABINET[1])

OPEN_AT, CLOSED_AT = 0.12, 0.02  # drawer travel, m
LIFT_CLEARANCE = 0.08
PLACE_TOLERANCE = 0.03
CARRY_CLEARANCE = 0.04  # `placed` asks that the block was this far off the table since the goal began
SIDE_STEP = 0.09  # centre distance aimed at by left_of and in_front_of
DRAWER_AIM = 0.022  # inside: where in the drawer to aim, ahead of its centre (m, y)
BESIDE_STEP = 0.058  # and by next_to


class Codes:
    """A batch of conjunctions as arrays: ``count[n]``, ``codes[n, 4, 4]`` (predicate, a, b, sign), ``place[n, 4, 2]``.

    ``place`` holds metres on the table and is nan where it is drawn at reset ("anywhere").
    """

    def __init__(self, n: int):
        self.count = np.zeros(n, np.int64)
        self.codes = np.zeros((n, MAX_LITERALS, 4), np.int64)
        self.place = np.full((n, MAX_LITERALS, 2), np.nan)

    def assign(self, rows: np.ndarray, source: Codes, which: np.ndarray) -> None:
        """Copies rows ``which`` of ``source`` to ``rows`` here."""
        self.count[rows] = source.count[which]
        self.codes[rows] = source.codes[which]
        self.place[rows] = source.place[which]


def encode(conjunctions: list[tuple[Literal, ...]]) -> Codes:
    """Conjunctions as ``Codes``; raises ValueError where one has more than four literals."""
    out = Codes(len(conjunctions))
    for i, literals in enumerate(conjunctions):
        if len(literals) > MAX_LITERALS:
            raise ValueError(f"a conjunction has {len(literals)} literals; at most {MAX_LITERALS} can be judged")
        out.count[i] = len(literals)
        for j, literal in enumerate(literals):
            first = OBJECT_INDEX[literal.args[0]]
            second = OBJECT_INDEX.get(literal.args[1], -1) if len(literal.args) > 1 else -1
            out.codes[i, j] = PREDICATE_INDEX[literal.predicate], first, second, 1 if literal.positive else -1
            if len(literal.args) > 1 and literal.args[1] in PLACES:
                out.place[i, j] = PLACES[literal.args[1]]
    return out


@nb.njit(cache=True, nogil=True)
def _side(x, a):
    """Which half of the drawer or cabinet block ``a`` goes to (m along x): red left, blue right, or the free half."""
    side = -0.04 if a == 0 else 0.04
    other = BLOCK + BLOCK_STRIDE * (1 - a)
    if x[other + 1] < _CY + x[DRAWER] + 0.1 and (x[other] - _CX) * side > 0.0:
        return -side
    return side


@nb.njit(cache=True, nogil=True)
def literal_target(x, predicate, a, b, px, py, out):
    """Writes where block ``a`` should be (out float64[3], m) for a literal about a block; facts row ``x``."""
    pa = BLOCK + BLOCK_STRIDE * a
    out[0] = px
    out[1] = py
    out[2] = BLOCK_HALF
    if predicate == LIFTED or predicate == HOLDING:
        out[0] = x[pa]
        out[1] = x[pa + 1]
        out[2] = BLOCK_HALF + 0.11
    elif predicate == INSIDE:
        out[0] = _CX + _side(x, a)
        out[1] = _CY + x[DRAWER] + DRAWER_AIM
        out[2] = DRAWER_FLOOR + BLOCK_HALF
    elif predicate == ON and b == _CABINET:
        out[0] = _CX + _side(x, a)
        out[1] = _CY
        out[2] = CABINET_TOP + BLOCK_HALF
    elif predicate == ON or predicate == LEFT_OF or predicate == IN_FRONT_OF or predicate == NEXT_TO:
        pb = BLOCK + BLOCK_STRIDE * b
        out[0] = x[pb]
        out[1] = x[pb + 1]
        if predicate == ON:
            out[2] = x[pb + 2] + 2 * BLOCK_HALF
        elif predicate == LEFT_OF:
            out[1] += SIDE_STEP
        elif predicate == IN_FRONT_OF:
            out[0] -= SIDE_STEP
        else:
            out[0] += BESIDE_STEP if x[pb] < 0.5 else -BESIDE_STEP
        if predicate != ON:  # within reach, and clear of the button's box; the predicates' ranges allow for it
            out[0] = max(out[0], 0.325)
            out[1] = min(out[1], 0.28)


@nb.njit(cache=True, nogil=True)
def literal_distance(x, predicate, a, b, px, py):
    """Signed distance of one positive literal on one facts row; > 0 where it holds."""
    if predicate == OPEN:
        return x[DRAWER] - OPEN_AT
    if predicate == CLOSED:
        return CLOSED_AT - x[DRAWER]
    if predicate == LIT:
        return x[LAMP] - 0.5
    pa = BLOCK + BLOCK_STRIDE * a
    ax = x[pa]
    ay = x[pa + 1]
    az = x[pa + 2]
    near = math.sqrt((ax - x[TOOL]) ** 2 + (ay - x[TOOL + 1]) ** 2 + (az - x[TOOL + 2]) ** 2)
    width = x[WIDTH]
    if predicate == TOUCHING:
        return 0.04 - near
    held = min(min(0.025 - near, 0.055 - width), min(width - 0.03, -x[GRIP]))
    if predicate == HOLDING:
        return held
    if predicate == LIFTED:
        return min(held, az - BLOCK_HALF - LIFT_CLEARANCE)
    if predicate == CLEAR:
        other = BLOCK + BLOCK_STRIDE * (1 - a)
        aside = math.sqrt((x[other] - ax) ** 2 + (x[other + 1] - ay) ** 2) - 0.03
        rise = x[other + 2] - az
        return max(aside, max(rise - 0.06, 0.02 - rise))
    speed = math.sqrt(x[pa + B_V] ** 2 + x[pa + B_V + 1] ** 2 + x[pa + B_V + 2] ** 2)
    rest = min(max(width - 0.048, near - 0.035), 0.05 - speed)
    if predicate == AT or predicate == PLACED:
        away = PLACE_TOLERANCE - math.sqrt((ax - px) ** 2 + (ay - py) ** 2)
        if math.isnan(px):  # no place was drawn: anywhere on the table will do
            away = PLACE_TOLERANCE
        low = 0.01 - abs(az - BLOCK_HALF)
        d = min(rest, min(away, low))
        return min(d, x[pa + B_PEAK] - CARRY_CLEARANCE) if predicate == PLACED else d
    if predicate == INSIDE:
        dy = ay - _CY - x[DRAWER]
        level = min(az - DRAWER_FLOOR - 0.008, DRAWER_FLOOR + 0.05 - az)
        return min(rest, min(min(0.085 - abs(ax - _CX), 0.085 - abs(dy)), level))
    if predicate == ON and b == _CABINET:
        level = 0.01 - abs(az - CABINET_TOP - BLOCK_HALF)
        return min(rest, min(min(0.10 - abs(ax - _CX), 0.10 - abs(ay - _CY)), level))
    pb = BLOCK + BLOCK_STRIDE * b
    dx = ax - x[pb]
    dy = ay - x[pb + 1]
    dz = az - x[pb + 2]
    if predicate == ON:
        return min(rest, min(0.022 - math.sqrt(dx * dx + dy * dy), 0.01 - abs(dz - 2 * BLOCK_HALF)))
    table = min(0.01 - abs(az - BLOCK_HALF), 0.01 - abs(dz))
    if predicate == LEFT_OF:
        return min(min(rest, table), min(min(dy - 0.05, 0.14 - dy), 0.035 - abs(dx)))
    if predicate == IN_FRONT_OF:
        return min(min(rest, table), min(min(-dx - 0.05, 0.14 + dx), 0.035 - abs(dy)))
    return min(min(rest, table), 0.068 - math.sqrt(dx * dx + dy * dy))  # next_to


@nb.njit(cache=True, nogil=True)
def distances(row, count, codes, place, out):
    """Signed distances of one slot's literals on its facts: out float64[4], negation applied; +inf past ``count``."""
    for j in range(out.shape[0]):
        if j >= count:
            out[j] = np.inf
        else:
            d = literal_distance(row, codes[j, 0], codes[j, 1], codes[j, 2], place[j, 0], place[j, 1])
            out[j] = d * codes[j, 3]


@nb.njit(cache=True, nogil=True)
def evaluate(x, count, codes, place, out):
    """`distances` of every slot: facts x float64[n, NX], out float64[n, 4]."""
    for i in range(x.shape[0]):
        distances(x[i], count[i], codes[i], place[i], out[i])
