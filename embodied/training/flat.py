"""Flat learning of BabyAI's missions: one policy for all levels, told the mission, by the same learner as the skills.

It sees what a skill sees of the two things that its mission names, and besides what missions do not name (doors that
are shut or locked, keys), and which of the four kinds of mission it is. It is paid as the skills are: for what brings
the mission's fact nearer, and where the environment says that the mission is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embodied.training.babyai_world import Levels
from embodied.training.induction import PROGRESS, ROLLOUT, blank_policy
from envs.suites.babyai_facts import encode, feature_size
from envs.suites.babyai_missions import PREDICATES, Fact

__all__ = ["Told", "flat_success", "learn_flat"]

VERBS = ("facing", "carrying", "open", "beside")


class Told:
    """What a flat policy is told in every slot: its mission's last fact."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self._facts: list[Fact] = [Fact("barred")] * levels.n
        self._first, self._second = encode([None] * levels.n), encode([None] * levels.n)
        self.renew(np.arange(levels.n))

    def renew(self, slots: np.ndarray) -> None:
        """Reads the missions of slots anew."""
        for i in slots.tolist():
            self._facts[i] = own = self.levels.goals[i].final[0]
            self._first[i], self._second[i] = encode((*own.args, None)[:2])

    def observation(self) -> np.ndarray:
        """float32[n, F]."""
        verbs = np.array([[f.predicate == v for v in VERBS] for f in self._facts], np.float32)
        slots = np.arange(self.levels.n)
        seen = self.levels.tracker.features(slots, self._first, self._second, named=False)
        return np.concatenate([seen, verbs], axis=1)

    def distances(self) -> np.ndarray:
        """float64[n]: how far the missions' facts are from holding."""
        found = np.zeros(self.levels.n)
        for predicate in {f.predicate for f in self._facts}:
            rows = np.array([i for i, f in enumerate(self._facts) if f.predicate == predicate])
            things = [self._first[rows], self._second[rows]][: len(PREDICATES[predicate])]
            found[rows] = self.levels.tracker.distance(predicate, rows, things)
        return found


def learn_flat(
    names: Sequence[str], seed: int, steps: int, slots: int = 96, say: Callable[[str], None] = lambda _: None
) -> Any:
    """A policy after ``steps`` environment steps, spread evenly over the levels."""
    from policies.discrete_ppo import Rollout

    levels = Levels(names, max(1, slots // len(names)), seed)
    told, n = Told(levels), levels.n
    policy = blank_policy(seed % (1 << 31), 0.99, named=False, extra=len(VERBS))
    size = feature_size(named=False) + len(VERBS)
    outcomes: list[bool] = []
    while levels.steps < steps:
        seen = np.zeros((ROLLOUT, n, size), np.float32)
        actions = np.zeros((ROLLOUT, n), np.int64)
        said, values, rewards = (np.zeros((ROLLOUT, n), np.float32) for _ in range(3))
        ended, active = np.zeros((ROLLOUT, n), np.bool_), np.ones((ROLLOUT, n), np.bool_)
        for t in range(ROLLOUT):
            seen[t] = told.observation()
            actions[t], said[t], values[t] = policy.act(seen[t])
            away = told.distances()
            ended[t], success, _ = levels.step(actions[t])
            rewards[t] = PROGRESS * (away - told.distances()) + success
            outcomes += success[ended[t]].tolist()
            levels.renew(ended[t])
            told.renew(np.flatnonzero(ended[t]))
        last = policy.act(told.observation())[2]
        policy.update(Rollout(seen, actions, said, values, rewards, ended, active, last))
        say(f"flat: {levels.steps} steps, {np.mean(outcomes[-300:] or [0.0]):.2f} of the last 300 missions")
    levels.close()
    return policy


def flat_success(policy: Any, levels: Levels, episodes: int) -> dict[str, np.ndarray]:
    """Every slot's first ``episodes`` missions: outcomes bool[each, episodes] by level."""
    told = Told(levels)
    done: list[list[bool]] = [[] for _ in range(levels.n)]
    while min(map(len, done)) < episodes:
        ended, success, _ = levels.step(policy.predict(told.observation())[0])
        for i in np.flatnonzero(ended):
            done[i].append(bool(success[i]))
        levels.renew(ended)
        told.renew(np.flatnonzero(ended))
    outcomes = np.array([d[:episodes] for d in done])
    return {x: outcomes[k * levels.each : (k + 1) * levels.each] for k, x in enumerate(levels.levels)}
