"""Facts of a scene, in numba: from simulator arrays to the numbers that goals, rewards and features are made of.

A row of facts float64[NX] (SI units, world frame), with B blocks, S slides, L lamps:

    tool x y z, yaw, finger width and its rate, tool velocity (3), lag x y z yaw (commanded minus actual), grip command
    joint angles (7; zero beyond those an arm has)
    a block (15): x y z, yaw, upright (0 lying … 1), velocity (3), peak (highest clearance of its lowest point since the
        goal began), bottom (height of its lowest point), its start x y z, upright at the start, turn since then (rad)
    a slide (3): value (m), rate, value at the start
    a lamp (3): lit, lit at the start, depth of its button (m)

What a row cannot be computed from alone is kept in latches float64[NL]: commanded tool x y z yaw, grip command, lit and
pressed of each lamp; of each block peak, start x y z upright, turn, last yaw; starts of slides and lamps.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.control import GRIP, L_GRIP, L_YAW, LAG, TOOL, TOOL_V, WIDTH, YAW
from envs.kinematics import tool_motion

__all__ = [
    "BLOCKS",
    "BLOCK_STRIDE",
    "REACH",
    "columns",
    "extract",
    "latch_count",
    "names",
    "remember",
    "remember_all",
    "slot_facts",
]

JOINTS = 14
YAW_LIMIT = 1.5  # rad that the tool may be turned either way
BLOCKS, BLOCK_STRIDE = 21, 15
B_YAW, B_UP, B_V, B_PEAK, B_BOTTOM, B_START, B_UP0, B_TURN = 3, 4, 5, 8, 9, 10, 13, 14
L_LAMPS = 5
REACH = np.array([[0.20, -0.55, -0.02], [0.78, 0.50, 1.0]])  # a block beyond these is lost, m
PRESSED, RELEASED = 0.012, 0.006  # m of button travel at which the lamp switches, and at which it may switch again
_BLOCK = ("x", "y", "z", "yaw", "upright", "vx", "vy", "vz", "peak", "bottom", "x0", "y0", "z0", "upright0", "turn")
_TOOL = (
    "tool_x", "tool_y", "tool_z", "tool_yaw", "width", "width_rate", "tool_vx", "tool_vy", "tool_vz",
    "lag_x", "lag_y", "lag_z", "lag_yaw", "grip_command",
)  # fmt: skip


def columns(blocks: int, slides: int, lamps: int) -> int:
    """NX: how many facts a scene has."""
    return BLOCKS + BLOCK_STRIDE * blocks + 3 * slides + 3 * lamps


def latch_count(blocks: int, slides: int, lamps: int) -> int:
    """NL: how many numbers the world remembers beyond the simulator's state."""
    return L_LAMPS + 2 * lamps + 7 * blocks + slides + lamps


def names(blocks: list[str], slides: list[str], lamps: list[str]) -> tuple[str, ...]:
    """The columns' names, in order."""
    return (
        *_TOOL,
        *(f"joint{i}" for i in range(1, 8)),
        *(f"{block}_{name}" for block in blocks for name in _BLOCK),
        *(f"{slide}_{name}" for slide in slides for name in ("value", "rate", "value0")),
        *(f"{lamp}_{name}" for lamp in lamps for name in ("lit", "lit0", "depth")),
    )


@nb.njit(cache=True, nogil=True)
def turned(angle):
    """An angle in (-pi, pi]."""
    return angle - 2.0 * math.pi * math.floor(angle / (2.0 * math.pi) + 0.5)


@nb.njit(cache=True, nogil=True)
def _bottom(shape, half, r20, r21, r22):
    """How far the lowest point of a block is below its centre; r2k: the rotation's last row."""
    if shape == 1:
        return half[0]
    if shape == 2:
        return half[2] * abs(r22) + half[0] * math.sqrt(max(0.0, 1.0 - r22 * r22))
    return half[0] * abs(r20) + half[1] * abs(r21) + half[2] * abs(r22)


@nb.njit(cache=True, nogil=True)
def slot_facts(q, v, latches, x, pose, arm, layout, bounds):
    """Fills one slot's facts x from qpos, qvel and the tool's pose float64[7]; updates latches. Is a block lost?

    arm: `envs.scenes.robots.Robot.arrays`. layout: `envs.scenes.scene.Layout.arrays`. bounds float64[2, 3]: a block
    outside them is lost.
    """
    (bq, bv, half, shape), (sq, sv, _, _, _), (lq, _), _ = layout
    chain, _, (finger, finger_v, shut, _, slope, least) = arm
    for k in range(3):
        x[TOOL + k] = pose[k]
        x[TOOL_V + k] = pose[4 + k]
        x[LAG + k] = latches[k] - pose[k]
    x[YAW] = pose[3]
    x[LAG + 3] = latches[L_YAW] - pose[3]
    x[WIDTH], x[WIDTH + 1] = least, 0.0
    for k in range(finger.shape[0]):
        x[WIDTH] += slope[k] * (q[finger[k]] - shut[k])
        x[WIDTH + 1] += slope[k] * v[finger_v[k]]
    x[GRIP] = latches[L_GRIP]
    for k in range(chain[2].shape[0]):
        x[JOINTS + k] = q[k]
    lost = False
    count, lamps = bq.shape[0], lq.shape[0]
    memory = L_LAMPS + 2 * lamps
    for b in range(count):
        p, at = BLOCKS + BLOCK_STRIDE * b, bq[b]
        m = memory + 7 * b
        for k in range(3):
            x[p + k] = q[at + k]
            x[p + B_V + k] = v[bv[b] + k]
            x[p + B_START + k] = latches[m + 1 + k]
        w, i, j, c = q[at + 3], q[at + 4], q[at + 5], q[at + 6]
        r00, r10 = 1 - 2 * (j * j + c * c), 2 * (i * j + w * c)
        r20, r21, r22 = 2 * (i * c - w * j), 2 * (j * c + w * i), 1 - 2 * (i * i + j * j)
        yaw = math.atan2(r10, r00)
        latches[m + 5] += turned(yaw - latches[m + 6])
        latches[m + 6] = yaw
        bottom = q[at + 2] - _bottom(shape[b], half[b], r20, r21, r22)
        latches[m] = max(latches[m], bottom)
        x[p + B_YAW] = yaw
        x[p + B_UP] = abs(r22)
        x[p + B_PEAK] = latches[m]
        x[p + B_BOTTOM] = bottom
        x[p + B_UP0] = latches[m + 4]
        x[p + B_TURN] = latches[m + 5]
        for k in range(3):
            if q[at + k] < bounds[0, k] or q[at + k] > bounds[1, k]:
                lost = True
    at = BLOCKS + BLOCK_STRIDE * count
    m = memory + 7 * count
    for s in range(sq.shape[0]):
        x[at] = q[sq[s]]
        x[at + 1] = v[sv[s]]
        x[at + 2] = latches[m + s]
        at += 3
    m += sq.shape[0]
    for k in range(lamps):
        depth = -q[lq[k]]
        on = L_LAMPS + 2 * k
        if latches[on + 1] > 0.5:
            if depth < RELEASED:
                latches[on + 1] = 0.0
        elif depth > PRESSED:
            latches[on + 1] = 1.0
            latches[on] = 1.0 - latches[on]
        x[at] = latches[on]
        x[at + 1] = latches[m + k]
        x[at + 2] = depth
        at += 3
    return lost


@nb.njit(cache=True, nogil=True)
def remember(latches, x, layout):
    """A goal begins: notes one slot's present as the start that changes are judged against, in latches and facts."""
    count, slides, lamps = layout[0][0].shape[0], layout[1][0].shape[0], layout[2][0].shape[0]
    m = L_LAMPS + 2 * lamps
    for b in range(count):
        p = BLOCKS + BLOCK_STRIDE * b
        for k in range(3):
            latches[m + 1 + k] = x[p + B_START + k] = x[p + k]
        latches[m] = x[p + B_PEAK] = x[p + B_BOTTOM]
        latches[m + 4] = x[p + B_UP0] = x[p + B_UP]
        latches[m + 5] = x[p + B_TURN] = 0.0
        latches[m + 6] = x[p + B_YAW]
        m += 7
    at = BLOCKS + BLOCK_STRIDE * count
    for _ in range(slides):
        latches[m] = x[at + 2] = x[at]
        m += 1
        at += 3
    for _ in range(lamps):
        latches[m] = x[at + 1] = x[at]
        m += 1
        at += 3


@nb.njit(cache=True, nogil=True)
def remember_all(slots, latches, facts, layout):
    """`remember` for ``slots`` int64[m]."""
    for i in slots:
        remember(latches[i], facts[i], layout)


@nb.njit(cache=True, nogil=True)
def extract(slots, qpos, qvel, latches, facts, lost, arm, layout, bounds):
    """Facts of ``slots`` int64[m] after their simulations were written."""
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose = np.empty((3, 3)), np.empty((3, 3)), np.empty(7)
    chain = arm[0]
    for i in slots:
        tool_motion(qpos[i], qvel[i], chain[0], chain[1], axes, origins, rot, tmp, pose)
        lost[i] = slot_facts(qpos[i], qvel[i], latches[i], facts[i], pose, arm, layout, bounds)
