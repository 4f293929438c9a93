"""A skill induced over verified instances of a subgoal: practised, measured for the gate, tried out of its context.

What the skill sees of the world is only what its subgoal names (`envs.suites.babyai_facts.Tracker.features`), so that
what was practised with some kinds and colours serves the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.training.babyai_world import ACTIONS, EXPLORE, Levels, Option, Over, Runner, resolved
from envs.suites.babyai_facts import feature_size
from envs.suites.babyai_missions import PREDICATES, Fact, Thing, key_of

__all__ = ["Case", "Collector", "blank_policy", "draw", "gather", "practise"]

LEARNER = "learner"
ROLLOUT = 48  # steps between updates
WINDOW = 150  # last attempts that a rate is told of
PROGRESS = 0.05  # reward for an action that brings the fact nearer by one
EXPLORATION = 12  # steps that exploration has to reach a subgoal in
WANDER = Option(EXPLORE, Fact("facing", (Thing("door", "red", "front"),)), steps=4)

Allowed = Callable[[Thing], bool]
"""Which things may be drawn as arguments."""


@dataclass(frozen=True)
class Case:
    """A subgoal in a level, tried once its context was brought about; ``named``: of the mission's own things."""

    level: str
    predicate: str
    context: tuple[str, ...] = ()
    named: bool = True


def blank_policy(seed: int, gamma: float = 0.97, named: bool = True, extra: int = 0) -> Any:
    """An untrained policy over what a skill sees, and ``extra`` numbers."""
    from policies.discrete_ppo import DiscretePPO, DiscretePPOConfig  # late: torch

    return DiscretePPO(DiscretePPOConfig(feature_size(named) + extra, ACTIONS, gamma=gamma, seed=seed))


def draw(
    levels: Levels, slot: int, case: Case, actor: str, rng: np.random.Generator, steps: int, allowed: Allowed
) -> list[Option]:
    """The options that bring a case's context about and then try its subgoal; none where nothing fits in the slot."""
    known = [t for t in levels.tracker.known(slot) if allowed(t)]
    objects = [t for t in known if t.kind != "door"]
    goal = resolved(levels, slot, levels.goals[slot])
    args: list[Thing] = []
    for k, kind in enumerate(PREDICATES[case.predicate]):
        fitting = known if kind == "thing" else objects if kind == "object" else [t for t in known if t.kind == "door"]
        if case.named and goal.things:
            own = (
                goal.things[k]
                if len(PREDICATES[case.predicate]) > 1 and k < len(goal.things)
                else goal.things[rng.integers(len(goal.things))]
            )
            fits = kind == "thing" or (kind == "door") == (own.kind == "door")
            fitting = [own] if fits and allowed(own) else []
        fitting = [t for t in fitting if t not in args]
        if not fitting:
            return []
        args.append(fitting[rng.integers(len(fitting))])
    names = dict(zip("ab", args, strict=False))
    if args and args[0].kind == "door":
        names["k"] = key_of(args[0])
    others = [t for t in objects if t not in names.values()]
    if others:
        names["o"] = others[rng.integers(len(others))]
    wanted = [Fact(case.predicate, tuple(args))]
    for text in reversed(case.context):
        predicate, _, variable = text.rstrip(")").partition("(?")
        if variable not in names or (predicate == "carrying" and names[variable].kind == "door"):
            return []
        context = Fact(predicate, (names[variable],))
        if predicate == "carrying" and "facing" not in text:
            wanted[:0] = [Fact("facing", (names[variable],)), context]
        else:
            wanted[:0] = [context]
    holds = levels.tracker.judge(wanted, np.full(len(wanted), slot))
    if holds[-1]:
        return []
    prepared = [Option(f.predicate, f) for f, done in zip(wanted[:-1], holds[:-1], strict=True)]
    if prepared and prepared[0].fact.predicate == "facing" and len(prepared) > 1 and holds[1]:
        prepared = prepared[2:]  # it is carried already
    return [*prepared, Option(actor, wanted[-1], case, steps)]


class Collector(Runner):
    """Tries cases, drawn by level; ``tried``: how tries ended, by their numbers in the order in which they began."""

    def __init__(
        self, levels: Levels, policies: Mapping[str, Any], cases: Sequence[Case], rng: np.random.Generator,
        actor: Callable[[Case], str], steps: int, lift: bool = True, allowed: Allowed = lambda _: True,
    ) -> None:  # fmt: skip
        by_level = {level: [c for c in cases if c.level == level] for level in levels.levels}
        self.tried: dict[int, Over] = {}
        self.begun, self._number = 0, np.zeros(levels.n, np.int64)

        def following(slot: int) -> list[Option]:
            own = by_level[levels.level(slot)]
            for _ in range(4):
                case = own[rng.integers(len(own))]
                options = draw(levels, slot, case, actor(case), rng, steps, allowed)
                if options:
                    return options
            return [WANDER]

        super().__init__(levels, policies, following, rng, lift)

    def begin(self, slots: Sequence[int] | range) -> None:
        super().begin(slots)
        for i in slots:
            option = self.running[i]
            if option is not None and option.label is not None:
                self._number[i], self.begun = self.begun, self.begun + 1

    def over(self, over: Sequence[Over], ended: np.ndarray, success: np.ndarray) -> None:
        for o in over:
            if o.option.label is not None:
                self.tried[int(self._number[o.slot])] = o


def gather(runner: Collector, *, tries: int = 0, steps: int = 0) -> list[Over]:
    """All that was tried in ``steps`` environment steps; or the first ``tries`` begun, each to its end.

    Which count is settled before they end, so that none is left out for taking long. Fewer come back only where things
    to try are so rare that a hundred steps a try and slot are not enough.
    """
    begun, most = runner.levels.steps, 100 * (tries + runner.levels.n)
    while runner.levels.steps - begun < (steps or most):
        runner.step(runner.actions())
        if tries and runner.begun >= tries and all(k in runner.tried for k in range(tries)):
            break
    numbers = sorted(runner.tried)
    return [runner.tried[k] for k in numbers if not tries or k < tries]


def practise(
    policy: Any, levels: Levels, policies: Mapping[str, Any], cases: Sequence[Case], rng: np.random.Generator,
    steps: int, *, horizon: int = 32, enough: float = 0.94, allowed: Allowed = lambda _: True,
    say: Callable[[str], None] = lambda _: None,
) -> list[float]:  # fmt: skip
    """Improves a policy until ``enough`` of its last attempts succeed, or ``steps`` are spent; the curve."""
    from policies.discrete_ppo import Rollout

    runner = Collector(
        levels, {**policies, LEARNER: policy}, cases, rng, lambda _: LEARNER, horizon, lift=False, allowed=allowed
    )
    runner.progress = True
    n, size, begun = levels.n, policy.observation_size, levels.steps
    recent: deque[bool] = deque(maxlen=WINDOW)
    curve = []
    while levels.steps - begun < steps and not (len(recent) == WINDOW and np.mean(recent) >= enough):
        seen = np.zeros((ROLLOUT, n, size), np.float32)
        actions = np.zeros((ROLLOUT, n), np.int64)
        said, values, rewards = (np.zeros((ROLLOUT, n), np.float32) for _ in range(3))
        ended, active = np.zeros((ROLLOUT, n), np.bool_), np.zeros((ROLLOUT, n), np.bool_)
        for t in range(ROLLOUT):
            slots = np.flatnonzero(runner.acting(LEARNER))
            given, away = {}, np.zeros(0)
            if len(slots):
                seen[t, slots] = runner.features(slots)
                away = runner.distances(slots)
                actions[t, slots], said[t, slots], values[t, slots] = policy.act(seen[t, slots])
                given = {LEARNER: actions[t, slots]}
            active[t, slots] = True
            over = runner.step(runner.actions(given))[0]
            if len(slots):
                rewards[t, slots] = PROGRESS * (away - runner.nearness[slots])
            for o in over:
                if o.option.actor == LEARNER:
                    ended[t, o.slot] = True
                    rewards[t, o.slot] += o.success
                    recent.append(o.success)
        last = np.zeros(n, np.float32)
        slots = np.flatnonzero(runner.acting(LEARNER))
        if len(slots):
            last[slots] = policy.act(runner.features(slots))[2]
        policy.update(Rollout(seen, actions, said, values, rewards, ended, active, last))
        curve.append(float(np.mean(recent)) if recent else 0.0)
        say(f"{levels.steps - begun} steps: {curve[-1]:.2f} of the last {len(recent)} attempts")
    return curve
