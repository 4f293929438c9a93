"""Forward kinematics, Jacobian and damped least squares of the arm, in numba, on whole batches.

The tool points down: its wanted orientation is Rz(yaw)·diag(1, -1, -1). One step of the inverse is

    dq = J⁺(e − J b) + b,   J⁺ = Jᵀ(J Jᵀ + λI)⁻¹,   b = w (home − q)

(damped least squares with a posture bias b in the null space; Nakamura & Hanafusa 1986), steps clipped to
``MAX_JOINT_STEP`` and joints to their ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numba as nb
import numpy as np

__all__ = ["Chain", "forward_kinematics", "solve", "tool_motion"]

DAMPING = 1e-4
POSTURE_WEIGHT = 0.06
MAX_JOINT_STEP = 0.3  # rad an iteration


@dataclass(frozen=True)
class Chain:
    """Constant transforms of a serial arm of J hinges: its links, the hand, the tool point.

    positions float64[J + 2, 3] (m), rotations float64[J + 1, 3, 3], low, high, home float64[J] (rad). A link turns
    about its own z axis.
    """

    positions: np.ndarray
    rotations: np.ndarray
    low: np.ndarray
    high: np.ndarray
    home: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All of it, as compiled code takes it."""
        return self.positions, self.rotations, self.low, self.high, self.home

    @classmethod
    def from_model(cls, model: mujoco.MjModel, home: np.ndarray) -> Chain:
        """Reads the chain link1 … link7, hand, site ``tool`` out of a compiled model."""
        bodies = [model.body(f"link{i}") for i in range(1, 8)] + [model.body("hand")]
        rotations = np.zeros((8, 9))
        for index, body in enumerate(bodies):
            mujoco.mju_quat2Mat(rotations[index], body.quat)
        positions = np.array([*(body.pos for body in bodies), model.site("tool").pos])
        joints = [model.joint(f"joint{i}").id for i in range(1, 8)]
        limits = model.jnt_range[joints]
        return cls(positions, rotations.reshape(8, 3, 3), limits[:, 0].copy(), limits[:, 1].copy(), home.astype(float))


@nb.njit(cache=True, nogil=True)
def _chain(q, positions, rotations, axes, origins, tool, rot, tmp):
    """Fills axes[≥ J,3] and origins[≥ J,3] (world), tool[3] and rot[3,3] for joint angles q[≥ J]."""
    joints = rotations.shape[0] - 1
    for a in range(3):
        tool[a] = 0.0
        for b in range(3):
            rot[a, b] = 1.0 if a == b else 0.0
    for k in range(joints + 1):
        for a in range(3):
            tool[a] += rot[a, 0] * positions[k, 0] + rot[a, 1] * positions[k, 1] + rot[a, 2] * positions[k, 2]
        for a in range(3):
            for b in range(3):
                value = rot[a, 0] * rotations[k, 0, b] + rot[a, 1] * rotations[k, 1, b]
                tmp[a, b] = value + rot[a, 2] * rotations[k, 2, b]
        if k == joints:
            for a in range(3):
                for b in range(3):
                    rot[a, b] = tmp[a, b]
            break
        c = math.cos(q[k])
        s = math.sin(q[k])
        for a in range(3):
            rot[a, 0] = tmp[a, 0] * c + tmp[a, 1] * s
            rot[a, 1] = -tmp[a, 0] * s + tmp[a, 1] * c
            rot[a, 2] = tmp[a, 2]
            axes[k, a] = tmp[a, 2]
            origins[k, a] = tool[a]
    last = joints + 1
    for a in range(3):
        tool[a] += rot[a, 0] * positions[last, 0] + rot[a, 1] * positions[last, 1] + rot[a, 2] * positions[last, 2]


@nb.njit(cache=True, nogil=True)
def tool_motion(q, dq, positions, rotations, axes, origins, rot, tmp, out):
    """Fills out float64[7] with the tool's x y z (m), yaw (rad) and velocity (m/s) for joints q, dq float64[≥ J].

    axes and origins float64[≥ J, 3], rot and tmp float64[3, 3] are scratch.
    """
    _chain(q, positions, rotations, axes, origins, out, rot, tmp)
    out[3] = math.atan2(rot[1, 0], rot[0, 0])
    for a in range(3):
        out[4 + a] = 0.0
    for k in range(rotations.shape[0] - 1):
        d0 = out[0] - origins[k, 0]
        d1 = out[1] - origins[k, 1]
        d2 = out[2] - origins[k, 2]
        out[4] += (axes[k, 1] * d2 - axes[k, 2] * d1) * dq[k]
        out[5] += (axes[k, 2] * d0 - axes[k, 0] * d2) * dq[k]
        out[6] += (axes[k, 0] * d1 - axes[k, 1] * d0) * dq[k]


@nb.njit(cache=True, nogil=True)
def solve(q, target, yaw, positions, rotations, low, high, home, iterations):
    """Moves joint angles towards tool poses, in place.

    q float64[n, J] (rad, changed), target float64[n, 3] (m, world), yaw float64[n] (rad), iterations int.
    """
    joints = low.shape[0]
    axes = np.empty((joints, 3))
    origins = np.empty((joints, 3))
    tool = np.empty(3)
    rot = np.empty((3, 3))
    tmp = np.empty((3, 3))
    jac = np.empty((6, joints))
    gram = np.empty((6, 6))
    err = np.empty(6)
    bias = np.empty(joints)
    want = np.zeros((3, 3))
    want[2, 2] = -1.0
    for i in range(q.shape[0]):
        c = math.cos(yaw[i])
        s = math.sin(yaw[i])
        want[0, 0] = c
        want[1, 0] = s
        want[0, 1] = s
        want[1, 1] = -c
        for _ in range(iterations):
            _chain(q[i], positions, rotations, axes, origins, tool, rot, tmp)
            for a in range(3):
                err[a] = target[i, a] - tool[a]
                err[3 + a] = 0.0
            for col in range(3):
                err[3] += 0.5 * (rot[1, col] * want[2, col] - rot[2, col] * want[1, col])
                err[4] += 0.5 * (rot[2, col] * want[0, col] - rot[0, col] * want[2, col])
                err[5] += 0.5 * (rot[0, col] * want[1, col] - rot[1, col] * want[0, col])
            for k in range(joints):
                d0 = tool[0] - origins[k, 0]
                d1 = tool[1] - origins[k, 1]
                d2 = tool[2] - origins[k, 2]
                jac[0, k] = axes[k, 1] * d2 - axes[k, 2] * d1
                jac[1, k] = axes[k, 2] * d0 - axes[k, 0] * d2
                jac[2, k] = axes[k, 0] * d1 - axes[k, 1] * d0
                jac[3, k] = axes[k, 0]
                jac[4, k] = axes[k, 1]
                jac[5, k] = axes[k, 2]
                bias[k] = POSTURE_WEIGHT * (home[k] - q[i, k])
            for a in range(6):
                for k in range(joints):
                    err[a] -= jac[a, k] * bias[k]
                for b in range(a + 1):  # Cholesky factor of J Jᵀ + λI, row by row
                    value = 0.0
                    for k in range(joints):
                        value += jac[a, k] * jac[b, k]
                    if a == b:
                        value += DAMPING
                    for k in range(b):
                        value -= gram[a, k] * gram[b, k]
                    gram[a, b] = math.sqrt(value) if a == b else value / gram[b, b]
            for a in range(6):
                for k in range(a):
                    err[a] -= gram[a, k] * err[k]
                err[a] /= gram[a, a]
            for a in range(5, -1, -1):
                for k in range(a + 1, 6):
                    err[a] -= gram[k, a] * err[k]
                err[a] /= gram[a, a]
            for k in range(joints):
                step = bias[k]
                for a in range(6):
                    step += jac[a, k] * err[a]
                step = min(MAX_JOINT_STEP, max(-MAX_JOINT_STEP, step))
                q[i, k] = min(high[k], max(low[k], q[i, k] + step))


@nb.njit(cache=True, nogil=True)
def forward_kinematics(q, positions, rotations):
    """Tool position float64[n, 3] (m) and rotation float64[n, 3, 3] for joint angles float64[n, J]."""
    n, joints = q.shape
    tools = np.empty((n, 3))
    rots = np.empty((n, 3, 3))
    axes = np.empty((joints, 3))
    origins = np.empty((joints, 3))
    tmp = np.empty((3, 3))
    for i in range(n):
        _chain(q[i], positions, rotations, axes, origins, tools[i], rots[i], tmp)
    return tools, rots
