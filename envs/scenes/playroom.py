"""`Embodied/Playroom-v0`: goals in a scene's words, judged on the change between an episode's start and its end.

The room is that of *Learning Latent Plans from Play* (Lynch et al. 2019), from primitive shapes, with its 18 tasks; any
other scene works the same (``scene=my_room.yaml``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numba as nb
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.kinematics import tool_motion
from envs.scenes.facts import REACH, slot_facts
from envs.scenes.features import LIMIT
from envs.scenes.predicates import Codes, distances, encode
from envs.scenes.scene import Scene
from envs.scenes.signals import COSTS, REWARD_TERMS, feature_count, slot_features, slot_terms
from envs.scenes.words import PREDICATES
from envs.scenes.world import WorldVectorEnv
from envs.single import SingleEnv

if TYPE_CHECKING:
    from envs.scenes.experts import ScriptedExpert

__all__ = ["PlayroomEnv", "PlayroomVectorEnv"]

_PLACING = np.array(["place" in kinds for kinds in PREDICATES.values()])


class PlayroomVectorEnv(WorldVectorEnv):
    """n playrooms. Observations float32[n, F]: tool, then each block, slide and lamp with what the goal wants of it.

    Args:
        goals: tasks of the scene (``open_drawer``) or goals (``lifted(cube) & lit(red_lamp)``); an episode's is drawn
            from them by (seed, slot, episode). None: all the scene's tasks.
        reward: ``dense`` (weighted reward terms) or ``sparse`` (1 where the goal has been reached).
        reward_weights: of the terms task, reach and safety.
        free_starts: draw starts without regard to the goal (it may hold already, or be out of reach of one skill).
        others: `WorldVectorEnv`'s.
    """

    def __init__(
        self,
        num_envs: int = 1,
        goals: str | Sequence[str] | None = None,
        scene: str | Path | Scene = "playroom",
        *,
        reward: str = "dense",
        reward_weights: tuple[float, float, float] = (1.0, 0.5, 0.5),
        free_starts: bool = False,
        **world: Any,
    ):
        if reward not in ("dense", "sparse"):
            raise ValueError(f"unknown reward '{reward}'; valid: dense, sparse")
        super().__init__(num_envs, scene, **world)
        n = num_envs
        self.reward, self.reward_weights = reward, np.asarray(reward_weights, np.float64)
        self.free_starts = free_starts
        size = feature_count(*self.sizes)
        self.single_observation_space = gym.spaces.Box(-LIMIT, LIMIT, (size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.codes = Codes(n)
        self.goal_of = np.zeros(n, np.int64)
        self.distance = np.zeros((n, self.codes.place.shape[1]))
        self.terms, self.costs = np.zeros((n, len(REWARD_TERMS))), np.zeros((n, len(COSTS)))
        self._features = np.zeros((n, size), np.float32)
        self._texts = [""] * n
        self.set_goals(list(self.scene.tasks) if goals is None else goals)

    def set_goals(self, goals: str | Sequence[str]) -> None:
        """Replaces what later episodes draw from: tasks, goals or English. Raises WordError (a ValueError)."""
        names = [goals] if isinstance(goals, str) else list(goals)
        if not names:
            raise ValueError("no goals given; name a task of the scene, or a goal such as open(drawer)")
        texts = [self.scene.tasks.get(name) or self.scene.vocabulary.understand(name) for name in names]
        self._source = encode([self.scene.vocabulary.parse(text) for text in texts], self.scene.vocabulary)
        self.goals, self.tasks = texts, names

    def goal_text(self, slot: int) -> str:
        """The goal of a slot's running episode."""
        return self._texts[slot]

    def scripted_policy(self) -> ScriptedExpert:
        """What acts towards each slot's goal by a script; it takes ``tool`` control."""
        from envs.scenes.experts import ScriptedExpert

        return ScriptedExpert(self)

    def observation(self) -> np.ndarray:
        features = self._features.copy()
        self.randomisation.noise(self._seed, self.episodes, self.elapsed, features)
        return features

    def _reset_options(self) -> tuple[str, ...]:
        return ("goals", "which")

    def _goals(self, slots, options: Mapping[str, Any]):
        if "goals" in options:
            self.set_goals(options["goals"])
        which = options.get("which")
        if which is None:
            which = (slots + self.episodes[slots] * 7919 + self._seed % len(self.goals)) % len(self.goals)
        which = np.asarray(which)
        if which.dtype.kind not in "iu" or which.shape not in ((), (self.num_envs,), slots.shape):
            raise ValueError(f"which = {which} must be the index of a goal, or {self.num_envs} of them")
        which = which[slots] if which.shape == (self.num_envs,) else np.broadcast_to(which, slots.shape)
        if which.min(initial=0) < 0 or which.max(initial=0) >= len(self.goals):
            raise ValueError(f"goal index {which} is out of range; valid: 0 to {len(self.goals) - 1}")
        self.goal_of[slots] = which
        for slot, goal in zip(slots.tolist(), which.tolist(), strict=True):
            self._texts[slot] = self.goals[goal]
        self.codes.count[slots] = self._source.count[which]
        self.codes.codes[slots] = self._source.codes[which]
        place = self._source.place[which].copy()
        count = self.codes.count[slots]
        return np.zeros_like(count) if self.free_starts else count, self.codes.codes[slots], place, _PLACING

    def _places(self, slots):
        return self.codes.place[slots]

    def _begun(self, slots, places) -> None:
        self.codes.place[slots] = places
        self.terms[slots] = self.costs[slots] = 0.0
        look(slots, self.facts, *self._book, self._layout, self.distance, self._features)

    @property
    def _book(self):
        return self.codes.count, self.codes.codes, self.codes.place

    def _settle(self, actions, broken):
        n, s = self.num_envs, self.simulation
        ends = np.zeros(n), *(np.zeros(n, np.bool_) for _ in range(3))
        physics = (s.qpos, s.qvel, self.latches, self.facts, self.lost, self._arm, REACH)
        rules = (self.hold, self.reward_weights, self.reward == "sparse", self.terminate_on_success, self.max_steps)
        clock = (self._held, self._reached, self.elapsed)
        seen = (self.distance, self.terms, self.costs, self._features)
        s.share(settle, physics, rules, self._book, clock, seen, ends, actions, broken, self._layout)
        return ends

    def _more_info(self) -> dict[str, np.ndarray]:
        return {"reward_terms": self.terms.copy(), "costs": self.costs.copy()}


@nb.njit(cache=True, nogil=True)
def settle(low, high, physics, rules, book, clock, seen, ends, actions, broken, layout):
    """Settles a control step of slots ``low`` … ``high`` - 1, which depend on no other."""
    qpos, qvel, latches, facts, lost, arm, bounds = physics
    hold, weights, sparse, success_ends, max_steps = rules
    count, codes, place = book
    held, reached, elapsed = clock
    distance, terms, costs, feature = seen
    reward, success, terminated, truncated = ends
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose, spot = np.empty((3, 3)), np.empty((3, 3)), np.empty(7), np.empty(3)
    positions, rotations, joint_low, joint_high, _ = arm[0]
    for i in range(low, high):
        x = facts[i]
        if not broken[i]:
            tool_motion(qpos[i], qvel[i], positions, rotations, axes, origins, rot, tmp, pose)
            lost[i] = slot_facts(qpos[i], qvel[i], latches[i], x, pose, arm, layout, bounds)
        elapsed[i] += 1
        distances(x, count[i], codes[i], place[i], layout, distance[i])
        held[i] = held[i] + 1 if distance[i].min() > 0.0 else 0
        slot_terms(
            x, actions[i], count[i], codes[i], place[i], distance[i], lost[i], joint_low, joint_high, layout, spot,
            terms[i], costs[i],
        )  # fmt: skip
        if held[i] >= hold and not broken[i]:
            reached[i] = True
        success[i] = reached[i]
        terminated[i] = not broken[i] and (lost[i] or (success_ends and reached[i]))
        truncated[i] = not terminated[i] and (broken[i] or elapsed[i] >= max_steps)
        reward[i] = 0.0
        if sparse:
            reward[i] = 1.0 if reached[i] else 0.0
        else:
            for k in range(weights.shape[0]):
                reward[i] += weights[k] * terms[i, k]
        slot_features(x, count[i], codes[i], place[i], layout, spot, feature[i])


@nb.njit(cache=True, nogil=True)
def look(slots, facts, count, codes, place, layout, distance, feature):
    """Distances and features of ``slots`` after starts or goals changed, without moving any clock."""
    spot = np.empty(3)
    for i in slots:
        distances(facts[i], count[i], codes[i], place[i], layout, distance[i])
        slot_features(facts[i], count[i], codes[i], place[i], layout, spot, feature[i])


class PlayroomEnv(SingleEnv):
    """The single playroom."""

    world = "envs.scenes.playroom:PlayroomVectorEnv"
