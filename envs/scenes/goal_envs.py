"""Goal environments: `Embodied/{Reach, Push, PickPlace, Stack, DrawerPlace, Rearrange}-v0`.

Observations are dictionaries (observation, achieved_goal, desired_goal), the goal is where things shall be (m, world
frame), and `compute_reward` is vectorised, so that hindsight relabelling works on them as it is.

=========== ======================================================= ===========================================
Reach       the tool to a point                                     achieved: tool x y z
Push        a cube along the table to a spot                        x y z of every cube
PickPlace   a cube to a spot on the table, or in the air (half)     x y z of every cube
Stack       cubes on top of one another, the first at the bottom    x y z of every cube
DrawerPlace a cube into the drawer, which begins open               x y z of every cube
Rearrange   every cube to a spot of its own                         x y z of every cube
=========== ======================================================= ===========================================

Success: everything within ``tolerance`` of where it shall be. The sparse reward is 0 there and -1 elsewhere; ``dense``
is minus the mean distance, and in a step less half the tool's distance to the first thing that is out of place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numba as nb
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.kinematics import tool_motion
from envs.playroom.draws import start_counter, uniform
from envs.scenes.facts import BLOCK_STRIDE, BLOCKS, REACH, TOOL, slot_facts
from envs.scenes.features import LIMIT
from envs.scenes.predicates import INSIDE, Codes
from envs.scenes.signals import feature_count, slot_features
from envs.scenes.words import PREDICATES
from envs.scenes.world import WorldVectorEnv
from envs.single import SingleEnv

__all__ = ["KINDS", "GoalVectorEnv"]

KINDS = ("reach", "push", "pick_place", "stack", "drawer_place", "rearrange")
_REACHING, _PUSHING, _PICKING, _STACKING, _STORING, _REARRANGING = range(6)
_PLACING = np.zeros(len(PREDICATES), np.bool_)
_AWAY = 0.08  # a goal is at least so far from where its cube begins, m
_APART = 0.075  # and from the other goals, m
_REACH_SHARE = 0.5  # of the dense reward: metres from the tool to what is out of place count half


class GoalVectorEnv(WorldVectorEnv):
    """n goal environments of one ``kind``. See the module's docstring.

    Args:
        blocks: how many cubes, 1 to 6 (Reach has none).
        reward: ``sparse`` (0 or -1) or ``dense``.
        tolerance: m within which a goal counts as reached.
        goal_range: m in the plane from where its cube begins within which a cube's goal lies (gymnasium-robotics'
            Fetch: 0.15, with a tolerance of 0.05); None: anywhere in the area. For push and pick_place.
        others: `WorldVectorEnv`'s.
    """

    kind: ClassVar[str] = "reach"
    cubes: ClassVar[int] = 0

    def __init__(
        self,
        num_envs: int = 1,
        *,
        blocks: int | None = None,
        reward: str = "sparse",
        tolerance: float = 0.03,
        goal_range: float | None = None,
        max_steps: int = 60,
        hold: int = 1,
        terminate_on_success: bool = False,
        **world: Any,
    ):
        if reward not in ("sparse", "dense"):
            raise ValueError(f"unknown reward '{reward}'; valid: sparse, dense")
        count = self.cubes if blocks is None else blocks
        least = 0 if self.kind == "reach" else 2 if self.kind == "stack" else 1
        if not least <= count <= 6 or not 0 < tolerance < 1:
            raise ValueError(
                f"blocks = {count}, tolerance = {tolerance}: {self.kind} takes {least} to 6 blocks and a tolerance "
                "in (0, 1) m"
            )
        if goal_range is not None and (self.kind not in ("push", "pick_place") or not goal_range > 1.2 * _AWAY):
            raise ValueError(
                f"goal_range = {goal_range} of {self.kind}: push and pick_place have one, of > {1.2 * _AWAY:.3f} m"
            )
        scene = "drawer_cubes" if self.kind == "drawer_place" else "cubes"
        super().__init__(
            num_envs, world.pop("scene", scene), blocks=count, max_steps=max_steps, hold=hold,
            terminate_on_success=terminate_on_success, **world,
        )  # fmt: skip
        if self.kind == "drawer_place" and [x.slide for x in self.scene.containers[:1]] != [0]:
            raise ValueError(f"scene '{self.scene.name}' has no drawer as its first container; {self.kind} needs one")
        n, size = num_envs, feature_count(*self.sizes)
        self.reward, self.tolerance = reward, float(tolerance)
        self.goal_range = np.inf if goal_range is None else float(goal_range)
        self.goal_size = 3 if self.kind == "reach" else 3 * count
        flat = gym.spaces.Box(-LIMIT, LIMIT, (size,), np.float32)
        goal = gym.spaces.Box(-10.0, 10.0, (self.goal_size,), np.float64)
        self.single_observation_space = gym.spaces.Dict(
            {"observation": flat, "achieved_goal": goal, "desired_goal": goal}
        )
        self.observation_space = batch_space(self.single_observation_space, n)
        self.goal = np.zeros((n, self.goal_size))
        self._achieved = np.zeros((n, self.goal_size))
        self._features = np.zeros((n, size), np.float32)
        self._codes = Codes(n)  # what starts are drawn for: nothing, or an open drawer
        if self.kind == "drawer_place":
            self._codes.count[:] = 1
            self._codes.codes[:, 0] = INSIDE, 0, 0, 1

    def observation(self) -> dict[str, np.ndarray]:
        features = self._features.copy()
        self.randomisation.noise(self._seed, self.episodes, self.elapsed, features)
        return {
            "observation": features,
            "achieved_goal": self._achieved.copy(),
            "desired_goal": self.goal.copy(),
        }

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """Reward of goals float[…, G] (m): 0 or -1 if sparse, minus the mean distance if dense; vectorised."""
        worst, mean = self._gaps(achieved_goal, desired_goal)
        return np.where(worst < self.tolerance, 0.0, -1.0) if self.reward == "sparse" else -mean

    @staticmethod
    def _gaps(achieved: np.ndarray, desired: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Worst and mean distance (m) of the things of a goal."""
        gap = (np.asarray(achieved) - np.asarray(desired)).reshape(*np.shape(achieved)[:-1], -1, 3)
        away = np.linalg.norm(gap, axis=-1)
        return away.max(-1), away.mean(-1)

    def _goals(self, slots, options: Mapping[str, Any]):
        return self._codes.count[slots], self._codes.codes[slots], self._codes.place[slots].copy(), _PLACING

    def _places(self, slots):
        return self._codes.place[slots]

    def _begun(self, slots, places) -> None:
        draw_goals(
            KINDS.index(self.kind), self._seed, slots, self.episodes[slots], self.facts, self._layout, self._area,
            self._workspace, self.goal_range, self.goal,
        )  # fmt: skip
        see(slots, self.kind == "reach", self.facts, self._layout, self._achieved, self._features)

    def set_state(self, states: np.ndarray, slots: np.ndarray | None = None) -> None:
        """Puts slots into states from `get_state`; their goals stay."""
        goal = self.goal.copy()
        super().set_state(states, slots)
        self.goal[:] = goal

    def _settle(self, actions, broken):
        n, s = self.num_envs, self.simulation
        physics = (s.qpos, s.qvel, self.latches, self.facts, self.lost, self._arm, REACH)
        s.share(settle, physics, self.kind == "reach", broken, self._achieved, self._features, self._layout)
        self.elapsed += 1
        worst, _ = self._gaps(self._achieved, self.goal)
        there = worst < self.tolerance
        self._held[:] = np.where(there & ~broken, self._held + 1, 0)
        success = self._held >= self.hold
        terminated = ~broken & (self.lost | (success & self.terminate_on_success))
        truncated = ~terminated & (broken | (self.elapsed >= self.max_steps))
        reward = np.asarray(self.compute_reward(self._achieved, self.goal, {}), np.float64).reshape(n)
        if self.reward == "dense" and self.kind != "reach":
            reward = reward - _REACH_SHARE * reach_gap(self.facts, self._achieved, self.goal, self.tolerance)
        return reward, success, terminated, truncated


@nb.njit(cache=True, nogil=True)
def _store(counter, x, layout, g):
    """Writes a spot of the open drawer, of some the one with most room about it, as block 0's goal g[:3]."""
    (bq, _, half, _), (_, _, axis, _, _), _, (centre, _, yaw, _) = layout
    value = x[BLOCKS + BLOCK_STRIDE * bq.shape[0]]
    cos, sin = math.cos(yaw[0]), math.sin(yaw[0])
    best = -1.0
    for _ in range(20):
        u, v = uniform(counter, -0.04, 0.04), uniform(counter, 0.0, 0.03)
        px = centre[0, 0] + cos * u - sin * v + axis[0, 0] * value
        py = centre[0, 1] + sin * u + cos * v + axis[0, 1] * value
        room = 0.05
        for other in range(1, bq.shape[0]):
            q = BLOCKS + BLOCK_STRIDE * other
            room = min(room, math.sqrt((x[q] - px) ** 2 + (x[q + 1] - py) ** 2))
        if room > best:
            best = room
            g[0], g[1], g[2] = px, py, centre[0, 2] + half[0, 2]


@nb.njit(cache=True, nogil=True)
def draw_goals(kind, seed, slots, episodes, facts, layout, area, workspace, within, goal):
    """Draws goals float64[n, G] of ``slots`` from (seed, slot, episode) alone, given where things are."""
    (bq, _, half, _), _, _, _ = layout
    blocks = bq.shape[0]
    counter = np.zeros(1, np.uint64)
    for row in range(slots.shape[0]):
        i = slots[row]
        x, g = facts[i], goal[i]
        counter[0] = start_counter(seed + 3, i, episodes[row])
        if kind == _REACHING:
            for _ in range(40):
                g[0] = uniform(counter, 0.34, 0.62)
                g[1] = uniform(counter, -0.25, 0.25)
                g[2] = uniform(counter, 0.04, 0.26)
                for k in range(3):
                    g[k] = min(workspace[1, k], max(workspace[0, k], g[k]))
                if (g[0] - x[TOOL]) ** 2 + (g[1] - x[TOOL + 1]) ** 2 + (g[2] - x[TOOL + 2]) ** 2 > _AWAY**2:
                    break
            continue
        for b in range(blocks):
            p = BLOCKS + BLOCK_STRIDE * b
            air = kind == _PICKING and b == 0 and uniform(counter, 0.0, 1.0) < 0.5
            for _ in range(60):
                g[3 * b] = uniform(counter, max(area[0], x[p] - within), min(area[2], x[p] + within))
                g[3 * b + 1] = uniform(counter, max(area[1], x[p + 1] - within), min(area[3], x[p + 1] + within))
                g[3 * b + 2] = half[b, 2] + (uniform(counter, 0.05, 0.20) if air else 0.0)
                far = (g[3 * b] - x[p]) ** 2 + (g[3 * b + 1] - x[p + 1]) ** 2
                fine = _AWAY**2 < far < within**2
                for other in range(blocks):
                    q = BLOCKS + BLOCK_STRIDE * other
                    if (
                        other < b
                        and (g[3 * b] - g[3 * other]) ** 2 + (g[3 * b + 1] - g[3 * other + 1]) ** 2 < _APART**2
                    ):
                        fine = False
                    still = kind == _PUSHING or kind == _PICKING or kind == _STACKING  # the others stay for now
                    if still and other > b and (g[3 * b] - x[q]) ** 2 + (g[3 * b + 1] - x[q + 1]) ** 2 < _APART**2:
                        fine = False
                if fine:
                    break
            if b > 0 and (kind == _PUSHING or kind == _PICKING or kind == _STORING):
                for k in range(3):
                    g[3 * b + k] = x[p + k]
            if kind == _STACKING and b > 0:
                g[3 * b], g[3 * b + 1] = g[0], g[1]
                g[3 * b + 2] = g[3 * (b - 1) + 2] + half[b - 1, 2] + half[b, 2]
            if kind == _STORING and b == 0:
                _store(counter, x, layout, g)


@nb.njit(cache=True, nogil=True)
def _see(x, tool, layout, codes, place, spot, achieved, feature):
    if tool:
        for k in range(3):
            achieved[k] = x[TOOL + k]
    else:
        for b in range(layout[0][0].shape[0]):
            for k in range(3):
                achieved[3 * b + k] = x[BLOCKS + BLOCK_STRIDE * b + k]
    slot_features(x, 0, codes, place, layout, spot, feature)


@nb.njit(cache=True, nogil=True)
def see(slots, tool, facts, layout, achieved, feature):
    """Achieved goals and features of ``slots``."""
    spot, codes, place = np.empty(3), np.zeros((1, 4), np.int64), np.zeros((1, 2))
    for i in slots:
        _see(facts[i], tool, layout, codes, place, spot, achieved[i], feature[i])


@nb.njit(cache=True, nogil=True)
def settle(low, high, physics, tool, broken, achieved, feature, layout):
    """Facts, achieved goals and features of slots ``low`` … ``high`` - 1 after a step."""
    qpos, qvel, latches, facts, lost, arm, bounds = physics
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose, spot = np.empty((3, 3)), np.empty((3, 3)), np.empty(7), np.empty(3)
    positions, rotations = arm[0][0], arm[0][1]
    codes, place = np.zeros((1, 4), np.int64), np.zeros((1, 2))
    for i in range(low, high):
        if not broken[i]:
            tool_motion(qpos[i], qvel[i], positions, rotations, axes, origins, rot, tmp, pose)
            lost[i] = slot_facts(qpos[i], qvel[i], latches[i], facts[i], pose, arm, layout, bounds)
        _see(facts[i], tool, layout, codes, place, spot, achieved[i], feature[i])


@nb.njit(cache=True, nogil=True)
def reach_gap(facts, achieved, goal, tolerance):
    """Distance float64[n] (m) from the tool to the first thing that is out of place; 0 where nothing is."""
    out = np.zeros(facts.shape[0])
    for i in range(facts.shape[0]):
        for b in range(goal.shape[1] // 3):
            away, near = 0.0, 0.0
            for k in range(3):
                away += (achieved[i, 3 * b + k] - goal[i, 3 * b + k]) ** 2
                near += (achieved[i, 3 * b + k] - facts[i, TOOL + k]) ** 2
            if math.sqrt(away) >= tolerance:
                out[i] = math.sqrt(near)
                break
    return out


class ReachVectorEnv(GoalVectorEnv):
    """The tool to a point."""

    kind, cubes = "reach", 0


class PushVectorEnv(GoalVectorEnv):
    """A cube along the table to a spot."""

    kind, cubes = "push", 1


class PickPlaceVectorEnv(GoalVectorEnv):
    """A cube to a spot on the table or in the air."""

    kind, cubes = "pick_place", 1


class StackVectorEnv(GoalVectorEnv):
    """Cubes on top of one another."""

    kind, cubes = "stack", 2


class DrawerPlaceVectorEnv(GoalVectorEnv):
    """A cube into the open drawer."""

    kind, cubes = "drawer_place", 1


class RearrangeVectorEnv(GoalVectorEnv):
    """Every cube to a spot of its own."""

    kind, cubes = "rearrange", 3


class ReachEnv(SingleEnv):
    """The single `ReachVectorEnv`."""

    world = "envs.scenes.goal_envs:ReachVectorEnv"


class PushEnv(SingleEnv):
    """The single `PushVectorEnv`."""

    world = "envs.scenes.goal_envs:PushVectorEnv"


class PickPlaceEnv(SingleEnv):
    """The single `PickPlaceVectorEnv`."""

    world = "envs.scenes.goal_envs:PickPlaceVectorEnv"


class StackEnv(SingleEnv):
    """The single `StackVectorEnv`."""

    world = "envs.scenes.goal_envs:StackVectorEnv"


class DrawerPlaceEnv(SingleEnv):
    """The single `DrawerPlaceVectorEnv`."""

    world = "envs.scenes.goal_envs:DrawerPlaceVectorEnv"


class RearrangeEnv(SingleEnv):
    """The single `RearrangeVectorEnv`."""

    world = "envs.scenes.goal_envs:RearrangeVectorEnv"
