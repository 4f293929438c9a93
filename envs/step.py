"""The numba half of an environment step: from actions to joint targets, from simulator arrays to facts."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from envs.kinematics import solve
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

__all__ = ["LATCHES", "STEP_M", "STEP_RAD", "WORKSPACE_HIGH", "WORKSPACE_LOW", "extract", "joint_action", "tool_action"]

STEP_M, STEP_RAD, STEP_JOINT = 0.03, 0.15, 0.12  # what an action of 1 moves a step: m, rad of yaw, rad of a joint
LEASH = 0.05  # the commanded pose stays within this of the real one (no wind-up), m
YAW_LIMIT = 0.95  # rad; blocks repeat every 90 degrees
WORKSPACE_LOW, WORKSPACE_HIGH = np.array([0.30, -0.41, 0.014]), np.array([0.68, 0.38, 0.30])
PRESSED, RELEASED = 0.012, 0.006  # m of button travel at which the lamp toggles, and at which it may toggle again
# Latches: what the world remembers beyond the simulator's state. Columns of float64[n, LATCHES]:
# commanded tool x y z yaw, grip command, lamp, pressed, peak of red, peak of blue.
LATCHES = 9
L_YAW, L_GRIP, L_LAMP, L_PRESSED, L_PEAK = 3, 4, 5, 6, 7
_WL, _WH = WORKSPACE_LOW, WORKSPACE_HIGH


@nb.njit(cache=True, nogil=True)
def _unit(v):
    return min(1.0, max(-1.0, v))


@nb.njit(cache=True, nogil=True)
def tool_action(action, facts, latches, qcmd, ctrl, positions, rotations, low, high, home):
    """Action float[n, 5] (Δx, Δy, Δz, Δyaw, gripper: -1 close … 1 open) → joint targets in ctrl float64[n, 8]."""
    n = action.shape[0]
    for i in range(n):
        for k in range(3):
            t = latches[i, k] + STEP_M * _unit(action[i, k])
            t = min(facts[i, TOOL + k] + LEASH, max(facts[i, TOOL + k] - LEASH, t))
            latches[i, k] = min(_WH[k], max(_WL[k], t))
        yaw = latches[i, L_YAW] + STEP_RAD * _unit(action[i, 3])
        yaw = min(facts[i, YAW] + 0.3, max(facts[i, YAW] - 0.3, yaw))
        latches[i, L_YAW] = min(YAW_LIMIT, max(-YAW_LIMIT, yaw))
        latches[i, L_GRIP] = _unit(action[i, 4])
    solve(qcmd, latches[:, :3], latches[:, L_YAW], positions, rotations, low, high, home, 2)
    for i in range(n):
        for k in range(7):
            ctrl[i, k] = qcmd[i, k]
        ctrl[i, 7] = 127.5 * (1.0 + latches[i, L_GRIP])


@nb.njit(cache=True, nogil=True)
def joint_action(action, facts, latches, qcmd, ctrl, low, high):
    """Action float[n, 8] (seven joint steps, gripper) → joint targets in ctrl float64[n, 8]."""
    for i in range(action.shape[0]):
        for k in range(7):
            q = qcmd[i, k] + STEP_JOINT * _unit(action[i, k])
            q = min(facts[i, JOINTS + k] + 2 * STEP_JOINT, max(facts[i, JOINTS + k] - 2 * STEP_JOINT, q))
            qcmd[i, k] = min(high[k], max(low[k], q))
            ctrl[i, k] = qcmd[i, k]
        for k in range(3):
            latches[i, k] = facts[i, TOOL + k]
        latches[i, L_YAW] = facts[i, YAW]
        latches[i, L_GRIP] = _unit(action[i, 7])
        ctrl[i, 7] = 127.5 * (1.0 + latches[i, L_GRIP])


@nb.njit(cache=True, nogil=True)
def extract(qpos, qvel, sensor, latches, facts, lost):
    """Facts float64[n, len(COLUMNS)] from simulator arrays; updates lamp's and peaks' latches, marks lost blocks."""
    for i in range(qpos.shape[0]):
        s = sensor[i]
        x = facts[i]
        for k in range(3):
            x[TOOL + k] = s[k]
            x[TOOL_V + k] = s[7 + k]
            x[LAG + k] = latches[i, k] - s[k]
        w, a, b, c = s[3], s[4], s[5], s[6]
        x[YAW] = math.atan2(2 * (a * b + w * c), 1 - 2 * (b * b + c * c))
        x[LAG + 3] = latches[i, L_YAW] - x[YAW]
        x[WIDTH] = qpos[i, 7] + qpos[i, 8]
        x[WIDTH + 1] = qvel[i, 7] + qvel[i, 8]
        x[GRIP] = latches[i, L_GRIP]
        lost[i] = False
        for block in range(2):
            p = BLOCK + BLOCK_STRIDE * block
            at = 10 + 7 * block
            for k in range(3):
                x[p + k] = s[at + k]
                x[p + B_V + k] = qvel[i, 9 + 6 * block + k]
            w, a, b, c = s[at + 3], s[at + 4], s[at + 5], s[at + 6]
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
            latches[i, L_PEAK + block] = max(latches[i, L_PEAK + block], s[at + 2] - 0.02)
            x[p + B_PEAK] = latches[i, L_PEAK + block]
            if s[at] < 0.25 or s[at] > 0.75 or s[at + 1] < -0.50 or s[at + 1] > 0.45 or s[at + 2] < -0.02:
                lost[i] = True
        x[DRAWER] = qpos[i, 23]
        x[DRAWER + 1] = qvel[i, 21]
        depth = min(BUTTON_TRAVEL, -qpos[i, 24])
        if latches[i, L_PRESSED] > 0.5:
            if depth < RELEASED:
                latches[i, L_PRESSED] = 0.0
        elif depth > PRESSED:
            latches[i, L_PRESSED] = 1.0
            latches[i, L_LAMP] = 1.0 - latches[i, L_LAMP]
        x[BUTTON_DEPTH] = depth
        x[LAMP] = latches[i, L_LAMP]
        for k in range(7):
            x[JOINTS + k] = qpos[i, k]
