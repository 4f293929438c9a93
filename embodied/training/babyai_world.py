"""Slots of BabyAI levels as one batch, and what runs in them: skills, one after another, towards facts.

A slot's *option* is a fact to bring about, who acts for it, and the steps it may take. When it is over (the fact holds,
its time is up, or the episode ended) the next of the slot's queue begins, if it came about; else whoever runs the slots
says what is next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.suites.adapter import slot_seeds
from envs.suites.babyai import BabyAIVectorEnv, missions
from envs.suites.babyai_facts import FORWARD, Tracker, encode
from envs.suites.babyai_missions import PREDICATES, Fact, MissionGoal, Thing, parse_mission

__all__ = ["ACTIONS", "EXPLORE", "Levels", "Option", "Over", "Runner"]

ACTIONS = 6  # all but "done", which does nothing
EXPLORE = "explore"  # who acts at random
STEPS = 32  # that an option may take
LONGEST = 128  # steps that a mission may take, which for deep levels is below their own limit


class Levels:
    """``each`` slots of every level; slot i is of level i // each. Counts every step it makes, in ``steps``."""

    def __init__(self, levels: Sequence[str], each: int, seed: int) -> None:
        self.levels, self.each, self.n = tuple(levels), each, each * len(levels)
        self._envs = [BabyAIVectorEnv(level, each, threads=1, max_steps=LONGEST) for level in levels]
        self.tracker, self.steps = Tracker(self.n), 0
        self.goals: list[MissionGoal] = []
        self.mission: list[str] = []
        seen = [env.reset(seed=s)[0] for env, s in zip(self._envs, slot_seeds(seed, len(self._envs)), strict=True)]
        self._fresh = {k: np.concatenate([o[k] for o in seen]) for k in ("image", "direction", "mission")}
        self.mission = [""] * self.n
        self.goals = [MissionGoal(((),))] * self.n
        self.renew(np.ones(self.n, np.bool_))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ended, success bool[n] and reward float64[n]; the tracker shows the true last cells until `renew`."""
        results = [env.step(actions[i * self.each : (i + 1) * self.each]) for i, env in enumerate(self._envs)]
        self._fresh = {k: np.concatenate([r[0][k] for r in results]) for k in ("image", "direction", "mission")}
        last = {k: self._fresh[k].copy() for k in ("image", "direction")}
        for i, (*_, info) in enumerate(results):
            if "final_obs" in info:
                rows = np.flatnonzero(info["_final_obs"])
                for k in last:
                    last[k][i * self.each + rows] = info["final_obs"][k][rows]
        ended = np.concatenate([r[2] | r[3] for r in results])
        self.tracker.step(actions, last["image"], last["direction"])
        self.steps += self.n
        success = np.concatenate([r[4]["success"] for r in results])
        return ended, success, np.concatenate([r[1] for r in results])

    def renew(self, ended: np.ndarray) -> None:
        """Begins the episodes after those that ended, bool[n]."""
        slots = np.flatnonzero(ended)
        if not len(slots):
            return
        self.tracker.begin(slots, self._fresh["image"][slots], self._fresh["direction"][slots])
        for i, text in zip(slots.tolist(), missions(self._fresh["mission"][slots]), strict=True):
            self.mission[i], self.goals[i] = text, parse_mission(text)

    def level(self, slot: int) -> str:
        """The level of a slot."""
        return self.levels[slot // self.each]

    def close(self) -> None:
        """Ends the simulations."""
        for env in self._envs:
            env.close()


@dataclass(frozen=True)
class Option:
    """A fact to bring about, and who acts: a skill's predicate, `EXPLORE`, or the name of a policy that learns."""

    actor: str
    fact: Fact
    label: Any = None
    steps: int = STEPS


@dataclass(frozen=True)
class Over:
    """An option that is over: what lifted literals held when it began and ended, and whether its fact came about."""

    slot: int
    option: Option
    success: bool
    before: frozenset[str]
    after: frozenset[str]


Next = Callable[[int], Sequence[Option]]
"""What a slot does next: options in order; none to stand."""


@dataclass
class Runner:
    """Runs options in all slots. ``policies``: who acts, by name; ``lift``: whether literals are judged for `Over`."""

    levels: Levels
    policies: Mapping[str, Any]
    next: Next
    rng: np.random.Generator
    lift: bool = True
    progress: bool = False  # whether `nearness` float64[n] is kept: the distances after the last step
    queue: list[list[Option]] = field(default_factory=list)
    running: list[Option | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = self.levels.n
        self.queue, self.running = [[] for _ in range(n)], [None] * n
        self._left, self._predicate = np.zeros(n, np.int64), np.full(n, -1)
        self._actor, self.nearness = np.full(n, -1), np.zeros(n)
        self.first, self.second = encode([None] * n), encode([None] * n)
        self._before: list[frozenset[str]] = [frozenset()] * n
        self._names = [EXPLORE, *self.policies]
        self._predicates = list(PREDICATES)
        self.begin(range(n))

    def begin(self, slots: Sequence[int] | range) -> None:
        """The next option of slots that have none."""
        begun = []
        for i in slots:
            if not self.queue[i]:
                self.queue[i] = list(self.next(i))
            option = self.running[i] = self.queue[i].pop(0) if self.queue[i] else None
            self._actor[i] = -1 if option is None else self._names.index(option.actor)
            if option is None:
                continue
            begun.append(i)
            self._left[i], self._predicate[i] = option.steps, self._predicates.index(option.fact.predicate)
            args = (*option.fact.args, None, None)
            self.first[i], self.second[i] = encode(args[:2])
        for i, literals in zip(begun, self._lifted(begun), strict=True):
            self._before[i] = literals

    def acting(self, name: str) -> np.ndarray:
        """bool[n]: the slots in which that one acts."""
        return self._actor == self._names.index(name)

    def features(self, slots: np.ndarray) -> np.ndarray:
        """float32[m, F]: what a skill sees, of the things its fact names."""
        return self.levels.tracker.features(slots, self.first[slots], self.second[slots])

    def distances(self, slots: np.ndarray) -> np.ndarray:
        """float64[m]: how far each slot's fact is from holding, in actions."""
        found = np.zeros(len(slots))
        for k in np.unique(self._predicate[slots]):
            rows = np.flatnonzero(self._predicate[slots] == k)
            name, own = self._predicates[k], slots[rows]
            things = [self.first[own], self.second[own]][: len(PREDICATES[name])]
            found[rows] = self.levels.tracker.distance(name, own, things)
        return found

    def actions(self, given: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """int64[n]; ``given`` holds those of actors that were asked already, one for each of their slots."""
        found = np.zeros(self.levels.n, np.int64)
        for k, name in enumerate(self._names):
            slots = np.flatnonzero(self._actor == k)
            if not len(slots):
                continue
            if given and name in given:
                found[slots] = given[name]
            elif name == EXPLORE:
                drawn = self.rng.integers(0, ACTIONS, len(slots))
                found[slots] = np.where(self.rng.random(len(slots)) < 0.3, FORWARD, drawn)
            else:
                found[slots] = self.policies[name].predict(self.features(slots))[0]
        return found

    def step(self, actions: np.ndarray) -> tuple[list[Over], np.ndarray, np.ndarray, np.ndarray]:
        """One step: the options that are over, and ended, success, reward of the slots' episodes."""
        ended, success, reward = self.levels.step(actions)
        busy = np.flatnonzero(self._actor >= 0)
        holds = np.zeros(self.levels.n, np.bool_)
        for k in np.unique(self._predicate[busy]):
            name, rows = self._predicates[k], busy[self._predicate[busy] == k]
            things = [self.first[rows], self.second[rows]][: len(PREDICATES[name])]
            holds[rows] = self.levels.tracker.holds(name, rows, things)
        self._left[busy] -= 1
        self.nearness[busy] = self.distances(busy) if self.progress else 0.0
        done = busy[holds[busy] | (self._left[busy] <= 0) | ended[busy]]
        over = []
        for i, after in zip(done.tolist(), self._lifted(done.tolist()), strict=True):
            option = self.running[i]
            assert option is not None
            over.append(Over(i, option, bool(holds[i]), self._before[i], after))
            if not holds[i]:
                self.queue[i] = []
        for i in np.flatnonzero(ended):
            self.queue[i] = []
        self.levels.renew(ended)
        self.over(over, ended, success)
        self.begin(sorted({*done.tolist(), *np.flatnonzero(ended).tolist()}))
        return over, ended, success, reward

    def over(self, over: Sequence[Over], ended: np.ndarray, success: np.ndarray) -> None:
        """Called before the next options begin; for those who plan."""

    def _lifted(self, slots: Sequence[int]) -> list[frozenset[str]]:
        if not self.lift or not slots:
            return [frozenset()] * len(slots)
        from embodied.planning.lifted import instances  # late: planning needs no world

        facts, texts, rows = [], [], []
        for k, i in enumerate(slots):
            option = self.running[i]
            assert option is not None
            for text, fact in instances(option.fact):
                facts.append(fact)
                texts.append(text)
                rows.append(k)
        truth = self.levels.tracker.judge(facts, np.asarray(slots)[rows])
        found: list[set[str]] = [set() for _ in slots]
        for k, text, holds in zip(rows, texts, truth, strict=True):
            if holds:
                found[k].add(text)
        return [frozenset(f) for f in found]


def resolved(levels: Levels, slot: int, goal: MissionGoal) -> MissionGoal:
    """A goal with the colour of a door that it leaves open, once such a door was seen."""
    known = [t for t in levels.tracker.known(slot) if t.kind == "door"]

    def of(thing: Thing) -> Thing:
        if thing.kind != "door" or thing.colour:
            return thing
        fitting = [Thing("door", t.colour, thing.place) for t in known]
        seen = levels.tracker.judge([Fact("seen", (t,)) for t in fitting], np.full(len(fitting), slot))
        return next((t for t, there in zip(fitting, seen, strict=True) if there), thing)

    stages = tuple(tuple(Fact(f.predicate, tuple(map(of, f.args)), f.positive) for f in s) for s in goal.stages)
    return MissionGoal(stages)
