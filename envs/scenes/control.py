"""From actions to joint targets, in numba; with the delay that an environment may be given."""

from __future__ import annotations

import numba as nb

from envs.kinematics import solve
from envs.scenes.facts import JOINTS, L_GRIP, L_YAW, TOOL, YAW

__all__ = ["STEP_JOINT", "STEP_M", "STEP_RAD", "YAW_LIMIT", "delayed", "joint_action", "tool_action"]

STEP_M, STEP_RAD, STEP_JOINT = 0.03, 0.15, 0.12  # what an action of 1 moves a step: m, rad of yaw, rad of a joint
LEASH, LEASH_RAD = 0.05, 0.3  # the commanded pose stays within this of the real one (no wind-up)
YAW_LIMIT = 1.5  # rad


@nb.njit(cache=True, nogil=True)
def _unit(v):
    return min(1.0, max(-1.0, v))


@nb.njit(cache=True, nogil=True)
def tool_action(begin, end, action, facts, latches, qcmd, ctrl, chain, workspace):
    """Action float64[n, 5] (Δx, Δy, Δz, Δyaw, gripper: -1 close … 1 open) → joint targets in ctrl float64[n, 8].

    Of slots ``begin`` … ``end`` - 1. workspace float64[2, 3]: where the tool may be sent (m).
    """
    positions, rotations, low, high, home = chain
    for i in range(begin, end):
        for k in range(3):
            t = latches[i, k] + STEP_M * _unit(action[i, k])
            t = min(facts[i, TOOL + k] + LEASH, max(facts[i, TOOL + k] - LEASH, t))
            latches[i, k] = min(workspace[1, k], max(workspace[0, k], t))
        yaw = latches[i, L_YAW] + STEP_RAD * _unit(action[i, 3])
        yaw = min(facts[i, YAW] + LEASH_RAD, max(facts[i, YAW] - LEASH_RAD, yaw))
        latches[i, L_YAW] = min(YAW_LIMIT, max(-YAW_LIMIT, yaw))
        latches[i, L_GRIP] = _unit(action[i, 4])
    some = slice(begin, end)
    solve(qcmd[some], latches[some, :3], latches[some, L_YAW], positions, rotations, low, high, home, 1)
    for i in range(begin, end):
        for k in range(7):
            ctrl[i, k] = qcmd[i, k]
        ctrl[i, 7] = 127.5 * (1.0 + latches[i, L_GRIP])


@nb.njit(cache=True, nogil=True)
def joint_action(begin, end, action, facts, latches, qcmd, ctrl, chain, workspace):
    """Action float64[n, 8] (seven joint steps, gripper) → joint targets; arguments as `tool_action`'s."""
    low, high = chain[2], chain[3]
    for i in range(begin, end):
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
def delayed(action, delay, past):
    """Lets actions float64[n, A] arrive ``delay`` int64[n] steps late; past float64[n, D, A] holds the last D ones."""
    length = past.shape[1]
    for i in range(action.shape[0]):
        for d in range(length - 1, 0, -1):
            past[i, d] = past[i, d - 1]
        past[i, 0] = action[i]
        action[i] = past[i, min(delay[i], length - 1)]
