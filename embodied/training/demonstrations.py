"""What the planner shows the task model: plans of a step or two, and how they are asked for and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.language.task_plans import Task, kept_as_macro
from embodied.language.task_tokens import MACROS
from embodied.training.symbolic_tasks import Tasks
from envs.goals import Goal

__all__ = ["Demonstration", "demonstrate", "dressed"]

LITERALS = {1: 0.3, 2: 0.45, 3: 0.15, 4: 0.1}  # of a goal → share of tasks drawn
LACKING = 0.1  # share of prompts that name a skill which is lacking


@dataclass(frozen=True)
class Demonstration:
    """A task, steps taken before the planner was asked (a detour), and its plan from there."""

    task: Task
    steps: tuple[Goal, ...]
    detour: tuple[Goal, ...] = ()

    def to_json(self) -> list[Any]:
        """As JSON values; the library's macros are left out."""
        steps, detour = ([str(goal) for goal in part] for part in (self.steps, self.detour))
        return [sorted(self.task.facts), str(self.task.goal), steps, detour]

    @classmethod
    def from_json(cls, row: Sequence[Any]) -> Demonstration:
        """Inverse of `to_json`."""
        facts, goal, steps, detour = row
        return cls(
            Task(frozenset(facts), Goal.parse(goal)), tuple(map(Goal.parse, steps)), tuple(map(Goal.parse, detour))
        )


def demonstrate(tasks: Tasks, rng: np.random.Generator, calls: int, deepest: int) -> list[Demonstration]:
    """The planner's plans for so many tasks, those of at most ``deepest`` steps, each again after a detour."""
    world, found = tasks.world, []
    for _ in range(calls):
        task = tasks.task(rng, int(rng.choice(list(LITERALS), p=list(LITERALS.values()))))
        plan = world.plan(task.goal, world.state(task.facts))
        if not plan.found or len(plan.steps) > deepest:
            continue
        steps = tuple(Goal.parse(step.goal) for step in plan.steps)
        found.append(Demonstration(task, steps))
        detour, left, state = tasks.detour(rng, task, steps)
        plan = world.plan(left, state)
        if plan.found and len(plan.steps) <= deepest:
            found.append(Demonstration(task, tuple(Goal.parse(s.goal) for s in plan.steps), tuple(detour)))
    return found


def dressed(
    demo: Demonstration, others: Sequence[Demonstration], tasks: Tasks, rng: np.random.Generator, macros: float
) -> tuple[Task, list[Goal | str]]:
    """A demonstration as it is asked and answered: at times with a macro, or with a skill that is lacking.

    A macro, in a share ``macros`` of the prompts, is steps of the plan, for which its name then stands in the answer,
    or steps of another plan.
    """
    task = demo.task
    said: list[Goal | str] = list(demo.steps)
    name = MACROS[int(rng.integers(len(MACROS)))]
    if rng.random() < macros:
        if len(demo.steps) > 1 and rng.random() < 0.5:
            n = int(rng.integers(2, len(demo.steps) + 1))
            i = int(rng.integers(len(demo.steps) - n + 1))
            task = kept_as_macro(task, demo.steps[i : i + n], name)
            said[i : i + n] = [name]
        else:
            other = others[int(rng.integers(len(others)))].steps
            if len(other) > 1 and other != demo.steps:
                task = kept_as_macro(task, other, name)
    if rng.random() < LACKING:
        used = {x.predicate for goal in (*demo.detour, *demo.steps) for x in goal.literals}
        free = sorted({x.predicate for goal in tasks.world.goals for x in goal.final} - used)
        if free:
            task = Task(task.facts, task.goal, task.macros, (free[int(rng.integers(len(free)))],))
    return task, said
