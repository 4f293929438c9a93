"""From actions to joint targets, in numba, for every native world; with the delay that a world may be given.

A row of any world's facts begins with the tool's columns, and its latches with the commanded pose and grip: they are
numbered here.
"""

from __future__ import annotations

import numba as nb

from envs.kinematics import solve

__all__ = ["STEP_JOINT", "STEP_M", "STEP_RAD", "command", "delayed", "joint_action", "tool_action"]

TOOL, YAW, WIDTH, TOOL_V, LAG, GRIP = 0, 3, 4, 6, 9, 13  # columns of facts
L_YAW, L_GRIP = 3, 4  # columns of latches, after the commanded x, y, z
STEP_M, STEP_RAD, STEP_JOINT = 0.03, 0.15, 0.12  # what an action of 1 moves a step: m, rad of yaw, rad of a joint
IK_ITERATIONS = 1  # of damped least squares a control step: what is left over is made good in the next one
LEASH, LEASH_RAD = 0.05, 0.3  # the commanded pose stays within this of the real one (no wind-up): m, rad


@nb.njit(cache=True, nogil=True)
def _unit(v):
    return min(1.0, max(-1.0, v))


@nb.njit(cache=True, nogil=True)
def command(ctrl, q, grip, drive):
    """Writes joint targets q float64[J] and the gripper's command (-1 shut … 1 open) into a row of controls.

    drive: actuators of the joints int64[J] and of the gripper int64[G], its controls when shut and half their ranges
    float64[G].
    """
    motors, grips, shut, half = drive
    for k in range(motors.shape[0]):
        ctrl[motors[k]] = q[k]
    for k in range(grips.shape[0]):
        ctrl[grips[k]] = shut[k] + half[k] * (1.0 + grip)


@nb.njit(cache=True, nogil=True)
def tool_action(begin, end, action, facts, latches, qcmd, ctrl, chain, drive, workspace, yaw_limit):
    """Action float[n, 5] (Δx, Δy, Δz, Δyaw, gripper: -1 close … 1 open) → joint targets in ctrl float64[n, U].

    Of slots ``begin`` … ``end`` - 1. chain: `Chain.arrays`; drive: see `command`. workspace float64[2, 3]: where the
    tool may be sent (m); yaw_limit: how far it may be turned either way (rad).
    """
    positions, rotations, low, high, home = chain
    for i in range(begin, end):
        for k in range(3):
            t = latches[i, k] + STEP_M * _unit(action[i, k])
            t = min(facts[i, TOOL + k] + LEASH, max(facts[i, TOOL + k] - LEASH, t))
            latches[i, k] = min(workspace[1, k], max(workspace[0, k], t))
        yaw = latches[i, L_YAW] + STEP_RAD * _unit(action[i, 3])
        yaw = min(facts[i, YAW] + LEASH_RAD, max(facts[i, YAW] - LEASH_RAD, yaw))
        latches[i, L_YAW] = min(yaw_limit, max(-yaw_limit, yaw))
        latches[i, L_GRIP] = _unit(action[i, 4])
    some = slice(begin, end)
    solve(qcmd[some], latches[some, :3], latches[some, L_YAW], positions, rotations, low, high, home, IK_ITERATIONS)
    for i in range(begin, end):
        command(ctrl[i], qcmd[i], latches[i, L_GRIP], drive)


@nb.njit(cache=True, nogil=True)
def joint_action(begin, end, action, facts, latches, qcmd, ctrl, chain, drive, joints):
    """Action float[n, J + 1] (joint steps, gripper) → joint targets; ``joints``: facts' first column of angles."""
    low, high = chain[2], chain[3]
    count = low.shape[0]
    for i in range(begin, end):
        for k in range(count):
            q = qcmd[i, k] + STEP_JOINT * _unit(action[i, k])
            q = min(facts[i, joints + k] + 2 * STEP_JOINT, max(facts[i, joints + k] - 2 * STEP_JOINT, q))
            qcmd[i, k] = min(high[k], max(low[k], q))
        for k in range(3):
            latches[i, k] = facts[i, TOOL + k]
        latches[i, L_YAW] = facts[i, YAW]
        latches[i, L_GRIP] = _unit(action[i, count])
        command(ctrl[i], qcmd[i], latches[i, L_GRIP], drive)


@nb.njit(cache=True, nogil=True)
def delayed(action, delay, past):
    """Lets actions float64[n, A] arrive ``delay`` int64[n] steps late; past float64[n, D, A] holds the last D ones."""
    length = past.shape[1]
    for i in range(action.shape[0]):
        for d in range(length - 1, 0, -1):
            past[i, d] = past[i, d - 1]
        past[i, 0] = action[i]
        action[i] = past[i, min(delay[i], length - 1)]
