"""The table-top's starts and facts, in numba: into simulator arrays, and out of them."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.control import L_GRIP, L_YAW
from envs.kinematics import solve, tool_motion
from envs.playroom.scene import BUTTON_TRAVEL
from envs.predicates import (
    B_PEAK,
    B_UP,
    B_V,
    B_YAW,
    BLOCK,
    BLOCK_STRIDE,
    BUTTON_DEPTH,
    DRAWER,
    GRIP,
    JOINTS,
    LAG,
    LAMP,
    TOOL,
    TOOL_V,
    WIDTH,
    YAW,
)  # fmt: skip

__all__ = ["LATCHES", "WORKSPACE_HIGH", "WORKSPACE_LOW", "YAW_LIMIT", "extract", "slot_facts", "write_starts"]

YAW_LIMIT = 0.95  # rad; blocks repeat every 90 degrees
WORKSPACE_LOW, WORKSPACE_HIGH = np.array([0.30, -0.41, 0.014]), np.array([0.68, 0.38, 0.30])
PRESSED, RELEASED = 0.012, 0.006  # m of button travel at which the lamp toggles, and at which it may toggle again
# Latches: what the world remembers beyond the simulator's state. Columns of float64[n, LATCHES]:
# commanded tool x y z yaw, grip command, lamp, pressed, peak of red, peak of blue.
LATCHES = 9
L_LAMP, L_PRESSED, L_PEAK = 5, 6, 7
# A block beyond these is lost: the fingers do not get there (but the drawer's far end comes out again).
_RL, _RH = np.array([0.27, -0.50, -0.02]), np.array([0.71, 0.41, 1.0])


@nb.njit(cache=True, nogil=True)
def write_starts(slots, starts, qpos, ctrl, qcmd, latches, positions, rotations, low, high, home):
    """Writes starts float64[m, START_COLUMNS] into cleared simulations ``slots`` int64[m]."""
    q = np.empty((slots.shape[0], 7))
    q[:] = home
    solve(q, starts[:, 10:13], starts[:, 13], positions, rotations, low, high, home, 25)
    for row in range(slots.shape[0]):
        i, start = slots[row], starts[row]
        for k in range(7):
            qpos[i, k] = q[row, k]
            ctrl[i, k] = q[row, k]
            qcmd[i, k] = q[row, k]
        qpos[i, 7] = start[14] / 2
        qpos[i, 8] = start[14] / 2
        ctrl[i, 7] = 255.0 if start[14] > 0.0 else 0.0
        for block in range(2):
            at, pose = 9 + 7 * block, 4 * block
            for k in range(3):
                qpos[i, at + k] = start[pose + k]
            qpos[i, at + 3] = math.cos(start[pose + 3] / 2)
            qpos[i, at + 4] = 0.0
            qpos[i, at + 5] = 0.0
            qpos[i, at + 6] = math.sin(start[pose + 3] / 2)
        qpos[i, 23] = start[8]
        for k in range(LATCHES):
            latches[i, k] = start[10 + k] if k < 4 else 0.0
        latches[i, L_GRIP] = 1.0 if start[14] > 0.0 else -1.0
        latches[i, L_LAMP] = start[9]


@nb.njit(cache=True, nogil=True)
def slot_facts(q, v, latches, x, pose):
    """Fills one slot's facts x from qpos, qvel and the tool's pose float64[7]; updates latches. Is a block lost?"""
    for k in range(3):
        x[TOOL + k] = pose[k]
        x[TOOL_V + k] = pose[4 + k]
        x[LAG + k] = latches[k] - pose[k]
    x[YAW] = pose[3]
    x[LAG + 3] = latches[L_YAW] - pose[3]
    x[WIDTH] = q[7] + q[8]
    x[WIDTH + 1] = v[7] + v[8]
    x[GRIP] = latches[L_GRIP]
    lost = False
    for block in range(2):
        p, at = BLOCK + BLOCK_STRIDE * block, 9 + 7 * block
        for k in range(3):
            x[p + k] = q[at + k]
            x[p + B_V + k] = v[9 + 6 * block + k]
        w, a, b, c = q[at + 3], q[at + 4], q[at + 5], q[at + 6]
        # Rotation columns' z parts tell which body axis stands upright; the next axis gives the yaw.
        z0, z1, z2 = 2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)
        if abs(z2) >= abs(z0) and abs(z2) >= abs(z1):
            x[p + B_YAW] = math.atan2(2 * (a * b + w * c), 1 - 2 * (b * b + c * c))
            x[p + B_UP] = abs(z2)
        elif abs(z0) >= abs(z1):
            x[p + B_YAW] = math.atan2(1 - 2 * (a * a + c * c), 2 * (a * b - w * c))
            x[p + B_UP] = abs(z0)
        else:
            x[p + B_YAW] = math.atan2(2 * (b * c - w * a), 2 * (a * c + w * b))
            x[p + B_UP] = abs(z1)
        latches[L_PEAK + block] = max(latches[L_PEAK + block], q[at + 2] - 0.02)
        x[p + B_PEAK] = latches[L_PEAK + block]
        if q[at] < _RL[0] or q[at] > _RH[0] or q[at + 1] < _RL[1] or q[at + 1] > _RH[1] or q[at + 2] < _RL[2]:
            lost = True
    x[DRAWER] = q[23]
    x[DRAWER + 1] = v[21]
    depth = min(BUTTON_TRAVEL, -q[24])
    if latches[L_PRESSED] > 0.5:
        if depth < RELEASED:
            latches[L_PRESSED] = 0.0
    elif depth > PRESSED:
        latches[L_PRESSED] = 1.0
        latches[L_LAMP] = 1.0 - latches[L_LAMP]
    x[BUTTON_DEPTH] = depth
    x[LAMP] = latches[L_LAMP]
    for k in range(7):
        x[JOINTS + k] = q[k]
    return lost


@nb.njit(cache=True, nogil=True)
def extract(slots, qpos, qvel, latches, facts, lost, positions, rotations):
    """Facts float64[n, len(COLUMNS)] of ``slots`` int64[m] from the simulator's arrays and the arm's chain.

    Updates the latches of lamp and peaks, marks lost blocks.
    """
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose = np.empty((3, 3)), np.empty((3, 3)), np.empty(7)
    for i in slots:
        tool_motion(qpos[i], qvel[i], positions, rotations, axes, origins, rot, tmp, pose)
        lost[i] = slot_facts(qpos[i], qvel[i], latches[i], facts[i], pose)
