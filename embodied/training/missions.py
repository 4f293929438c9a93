"""Missions carried out with a library's skills: a plan over their operators, made anew whenever an option is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied.planning.lifted import LiftedOperator, atoms_of, plan_mission, universe
from embodied.planning.search import Plan
from embodied.training.babyai_world import EXPLORE, Levels, Option, Over, Runner, resolved
from envs.suites.babyai_missions import Fact, MissionGoal, Thing, fact

__all__ = ["MissionRunner", "carry_out"]


class MissionRunner(Runner):
    """Plans and acts in every slot until its mission is over. ``done``: mission outcomes, bool, by slot."""

    def __init__(
        self, levels: Levels, policies: Mapping[str, Any], operators: Mapping[str, LiftedOperator],
        rng: np.random.Generator, lift: bool = True,
    ) -> None:  # fmt: skip
        self.operators = {p: o for p, o in operators.items() if p in policies}
        self.stage = np.zeros(levels.n, np.int64)
        self.failed: list[dict[str, int]] = [{} for _ in range(levels.n)]
        self.done: list[list[bool]] = [[] for _ in range(levels.n)]
        self.plans: list[Plan] = [Plan((), 0.0)] * levels.n
        self._found: dict[Any, Plan] = {}
        super().__init__(levels, policies, self._plan, rng, lift)

    def over(self, over: Sequence[Over], ended: np.ndarray, success: np.ndarray) -> None:
        for o in over:
            if not o.success:
                self.failed[o.slot][str(o.option.fact)] = self.failed[o.slot].get(str(o.option.fact), 0) + 1
        for i in np.flatnonzero(ended):
            self.done[i].append(bool(success[i]))
            self.failed[i], self.stage[i] = {}, 0

    def _plan(self, slot: int) -> list[Option]:
        goal = resolved(self.levels, slot, self.levels.goals[slot])
        things = universe(goal, self.levels.tracker.locked(slot))
        atoms = atoms_of(things)
        truth = self.levels.tracker.judge(atoms, np.full(len(atoms), slot))
        true = frozenset(a.atom for a, holds in zip(atoms, truth, strict=True) if holds)
        while self.stage[slot] < len(goal.stages) - 1 and all(f.atom in true for f in goal.stages[self.stage[slot]]):
            self.stage[slot] += 1
        rest = MissionGoal(goal.stages[self.stage[slot] :])
        key = (rest, true, things, tuple(sorted(self.failed[slot].items())))
        if key not in self._found:
            self._found[key] = plan_mission(rest, set(true), things, self.operators, self.failed[slot])
        plan = self.plans[slot] = self._found[key]
        if plan.steps:
            first = fact(plan.steps[0].goal)
            return [Option(first.predicate, first)]
        return [self._look(rest)]

    def _look(self, rest: MissionGoal) -> Option:
        """Without a plan: go to what the mission names, by chance where no skill does that; or act at random."""
        things = [t for f in rest.stages[0] for t in f.args] or [Thing()]
        known = "facing" in self.operators and self.rng.random() < 0.5
        wanted = Fact("facing", (things[self.rng.integers(len(things))],)) if known else rest.stages[0][0]
        return Option("facing" if known else EXPLORE, wanted, steps=16)


def carry_out(runner: MissionRunner, episodes: int) -> tuple[dict[str, np.ndarray], list[Over]]:
    """Every slot's first ``episodes`` missions: outcomes bool[each, episodes] by level, and the options run."""
    seen: list[Over] = []
    while min(map(len, runner.done)) < episodes:
        seen += runner.step(runner.actions())[0]
    outcomes = np.array([d[:episodes] for d in runner.done])
    each = runner.levels.each
    return {level: outcomes[k * each : (k + 1) * each] for k, level in enumerate(runner.levels.levels)}, seen
