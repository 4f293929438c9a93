"""`Embodied/Discovery-v0`: a table with edges, blocks, no goal: named rewards and costs, and where the blocks are.

What skills are discovered in (`embodied.training.discovery`). The fingers can press on the table, blocks can be pushed
over its edges, and what the arm is pushed with is felt. A step's ``info`` has

    reward_terms float64[n, 3]   reach   how much nearer the tool came to the nearest block, in steps of 3 cm
                                 grasp   1 while a block is held
                                 lift    height of the highest block that is held, 1 from 10 cm on
    costs float64[n, 5]          joint_limit  a joint within 0.05 rad of its range's end (at the end: 1)
                                 table_hit    force of the tool on the table beyond 5 N (105 N: 1)
                                 off_table    a block fell off; the episode ends
                                 overspeed    tool beyond 0.6 m/s (1 m/s: 1)
                                 force        force on the tool from anything beyond 15 N (115 N: 1)
    objects float64[n, B, 3]     the blocks' centres (m, world) after the step, before any reset

every cost in 0 … 1. The force on the tool is what constraint torques t of the arm's joints are explained by best,
F = (J Jᵀ)⁻¹ J t with J the tool's Jacobian: contacts, and a joint at its range's end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numba as nb
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.control import STEP_M
from envs.kinematics import tool_motion
from envs.scenes.facts import B_BOTTOM, BLOCK_STRIDE, BLOCKS, JOINTS, REACH, TOOL, TOOL_V, slot_facts
from envs.scenes.predicates import HOLDING, Codes, term_distance
from envs.scenes.scene import Scene
from envs.scenes.signals import LIMIT, feature_count, slot_features
from envs.scenes.words import PREDICATES
from envs.scenes.world import WorldVectorEnv
from envs.single import SingleEnv

__all__ = ["COSTS", "TERMS", "DiscoveryEnv", "DiscoveryVectorEnv"]

TERMS = ("reach", "grasp", "lift")
COSTS = ("joint_limit", "table_hit", "off_table", "overspeed", "force")
_MARGIN = 0.05  # rad
_LIFTED = 0.10  # m
_LOW = 0.03  # m above the table below which a force upwards is the table's
_TABLE_FORCE, _ANY_FORCE, _SPEED = (5.0, 100.0), (15.0, 100.0), (0.6, 0.4)  # from where a cost begins, and its scale
_DAMPING = 1e-6
_NO_PLACING = np.zeros(len(PREDICATES), np.bool_)


class DiscoveryVectorEnv(WorldVectorEnv):
    """n tables without a task. Observations float32[n, F]: tool and blocks (see `envs.scenes.signals`).

    Args:
        blocks: how many, 1 to the scene's number.
        weights: of the terms and, negative, of the sum of costs in the one reward that gymnasium wants: reach, grasp,
            lift, safety. What learns from several rewards reads ``info``.
        others: `WorldVectorEnv`'s.
    """

    def __init__(
        self,
        num_envs: int = 1,
        scene: str | Path | Scene = "discovery",
        *,
        blocks: int | None = 1,
        max_steps: int = 80,
        weights: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0),
        **world: Any,
    ):
        super().__init__(num_envs, scene, blocks=blocks, max_steps=max_steps, **world)
        if not self.scene.blocks:
            raise ValueError(f"scene '{self.scene.name}' has no block to discover anything about; add one")
        if len(weights) != len(TERMS) + 1 or not np.isfinite(weights).all():
            raise ValueError(f"weights = {weights} must be {len(TERMS) + 1} finite numbers: {', '.join(TERMS)}, safety")
        n, size = num_envs, feature_count(*self.sizes)
        self.weights = np.asarray(weights, np.float64)
        self.single_observation_space = gym.spaces.Box(-LIMIT, LIMIT, (size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.terms, self.costs = np.zeros((n, len(TERMS))), np.zeros((n, len(COSTS)))
        self.forces = np.zeros((n, 3))  # on the tool, N, world
        self._gap = np.zeros(n)  # from the tool to the nearest block, m
        self._features = np.zeros((n, size), np.float32)
        self._codes = Codes(n)
        self._torques = self.simulation.batch.bind("qfrc_constraint")

    @property
    def objects(self) -> np.ndarray:
        """The blocks' centres now, float64[n, B, 3] (m, world), a copy."""
        columns = BLOCKS + BLOCK_STRIDE * np.arange(self.sizes[0])[:, None] + np.arange(3)
        return self.facts[:, columns]

    def observation(self) -> np.ndarray:
        features = self._features.copy()
        self.randomisation.noise(self._seed, self.episodes, self.elapsed, features)
        return features

    def _goals(self, slots, options):
        return self._codes.count[slots], self._codes.codes[slots], self._codes.place[slots].copy(), _NO_PLACING

    def _places(self, slots):
        return self._codes.place[slots]

    def _begun(self, slots, places) -> None:
        self.terms[slots] = self.costs[slots] = self.forces[slots] = 0.0
        self._objects = self.objects
        look(slots, self.facts, self._layout, self._gap, self._features)

    def _settle(self, actions, broken):
        n, s = self.num_envs, self.simulation
        physics = (s.qpos, s.qvel, self._torques, self.latches, self.facts, self.lost, self._arm, REACH)
        s.share(settle, physics, broken, self._gap, self.terms, self.costs, self.forces, self._features, self._layout)
        self.elapsed += 1
        self._objects = self.objects
        terminated = self.lost & ~broken
        truncated = ~terminated & (broken | (self.elapsed >= self.max_steps))
        reward = self.terms @ self.weights[:-1] - self.weights[-1] * self.costs.sum(axis=1)
        return reward, np.zeros(n, np.bool_), terminated, truncated

    def _info(self, success: np.ndarray | None = None, bad_physics: np.ndarray | None = None) -> dict[str, Any]:
        more = {"reward_terms": self.terms.copy(), "costs": self.costs.copy(), "objects": self._objects}
        return super()._info(success, bad_physics) | more


@nb.njit(cache=True, nogil=True)
def _nearest(x, blocks):
    """Distance from the tool to the nearest block's centre, m."""
    best = 1e9
    for b in range(blocks):
        p = BLOCKS + BLOCK_STRIDE * b
        gap = 0.0
        for k in range(3):
            gap += (x[p + k] - x[TOOL + k]) ** 2
        best = min(best, gap)
    return math.sqrt(best)


@nb.njit(cache=True, nogil=True)
def tool_force(tool, torques, axes, origins, joints, out):
    """Writes the force float64[3] (N, world) at the tool that explains joint torques float64[≥ J] (Nm) best."""
    jac = np.empty((3, joints))
    for k in range(joints):
        d0, d1, d2 = tool[0] - origins[k, 0], tool[1] - origins[k, 1], tool[2] - origins[k, 2]
        jac[0, k] = axes[k, 1] * d2 - axes[k, 2] * d1
        jac[1, k] = axes[k, 2] * d0 - axes[k, 0] * d2
        jac[2, k] = axes[k, 0] * d1 - axes[k, 1] * d0
    a = np.zeros((3, 3))
    b = np.zeros(3)
    for i in range(3):
        for k in range(joints):
            b[i] += jac[i, k] * torques[k]
            for j in range(3):
                a[i, j] += jac[i, k] * jac[j, k]
        a[i, i] += _DAMPING
    c00 = a[1, 1] * a[2, 2] - a[1, 2] * a[2, 1]
    c01 = a[1, 2] * a[2, 0] - a[1, 0] * a[2, 2]
    c02 = a[1, 0] * a[2, 1] - a[1, 1] * a[2, 0]
    det = a[0, 0] * c00 + a[0, 1] * c01 + a[0, 2] * c02
    c11 = a[0, 0] * a[2, 2] - a[0, 2] * a[2, 0]
    c12 = a[0, 1] * a[2, 0] - a[0, 0] * a[2, 1]
    c22 = a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    out[0] = (c00 * b[0] + c01 * b[1] + c02 * b[2]) / det
    out[1] = (c01 * b[0] + c11 * b[1] + c12 * b[2]) / det
    out[2] = (c02 * b[0] + c12 * b[1] + c22 * b[2]) / det


@nb.njit(cache=True, nogil=True)
def _beyond(value, begins):
    return min(1.0, max(0.0, value - begins[0]) / begins[1])


@nb.njit(cache=True, nogil=True)
def settle(low, high, physics, broken, gaps, terms, costs, forces, feature, layout):
    """Facts, reward terms, costs and features of slots ``low`` … ``high`` - 1 after a step."""
    qpos, qvel, torques, latches, facts, lost, arm, bounds = physics
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose, spot = np.empty((3, 3)), np.empty((3, 3)), np.empty(7), np.empty(3)
    positions, rotations, joint_low, joint_high, _ = arm[0]
    codes, place = np.zeros((1, 4), np.int64), np.zeros((1, 2))
    blocks, joints = layout[0][0].shape[0], joint_low.shape[0]
    for i in range(low, high):
        x, f = facts[i], forces[i]
        if broken[i]:
            terms[i, :], costs[i, :], f[:] = 0.0, 0.0, 0.0
            continue
        tool_motion(qpos[i], qvel[i], positions, rotations, axes, origins, rot, tmp, pose)
        lost[i] = slot_facts(qpos[i], qvel[i], latches[i], x, pose, arm, layout, bounds)
        tool_force(pose, torques[i], axes, origins, joints, f)
        gap = _nearest(x, blocks)
        terms[i, 0] = (gaps[i] - gap) / STEP_M
        gaps[i] = gap
        terms[i, 1] = terms[i, 2] = 0.0
        for b in range(blocks):
            if term_distance(x, HOLDING, b, 0, 0.0, 0.0, layout) > 0.0:
                terms[i, 1] = 1.0
                bottom = x[BLOCKS + BLOCK_STRIDE * b + B_BOTTOM]
                terms[i, 2] = max(terms[i, 2], min(1.0, max(0.0, bottom) / _LIFTED))
        margin = 0.0
        for k in range(joints):
            room = min(x[JOINTS + k] - joint_low[k], joint_high[k] - x[JOINTS + k])
            margin = max(margin, (_MARGIN - room) / _MARGIN)
        speed = math.sqrt(x[TOOL_V] ** 2 + x[TOOL_V + 1] ** 2 + x[TOOL_V + 2] ** 2)
        costs[i, 0] = min(1.0, margin)
        costs[i, 1] = _beyond(f[2], _TABLE_FORCE) if x[TOOL + 2] < _LOW else 0.0
        costs[i, 2] = 1.0 if lost[i] else 0.0
        costs[i, 3] = _beyond(speed, _SPEED)
        costs[i, 4] = _beyond(math.sqrt(f[0] ** 2 + f[1] ** 2 + f[2] ** 2), _ANY_FORCE)
        slot_features(x, 0, codes, place, layout, spot, feature[i])


@nb.njit(cache=True, nogil=True)
def look(slots, facts, layout, gaps, feature):
    """Features of ``slots``, and how near their tools are, without moving any clock."""
    spot, codes, place = np.empty(3), np.zeros((1, 4), np.int64), np.zeros((1, 2))
    for i in slots:
        gaps[i] = _nearest(facts[i], layout[0][0].shape[0])
        slot_features(facts[i], 0, codes, place, layout, spot, feature[i])


class DiscoveryEnv(SingleEnv):
    """The single `DiscoveryVectorEnv`."""

    world = "envs.scenes.discovery:DiscoveryVectorEnv"
