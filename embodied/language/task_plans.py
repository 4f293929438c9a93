"""Plans sampled from a task model under the grammar, and what the symbolic world makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embodied.language.symbolic_world import SymbolicWorld
from embodied.language.task_tokens import (
    MACROS,
    NOT,
    TOKENS,
    Follower,
    Macro,
    left_padded,
    plan_automaton,
    plan_tokens,
    prompt_tokens,
    read_plan,
    token,
)
from envs.goals import Goal
from envs.vocabulary import SWITCHED
from policies.task_lm import Sampled, TaskLM

__all__ = ["LONGEST", "Answers", "Task", "answer", "flat", "kept_as_macro", "may_begin"]

LONGEST = 8  # steps of a plan


@dataclass(frozen=True)
class Task:
    """A start (true facts), a goal, the library's macros and the predicates that no skill achieves."""

    facts: frozenset[str]
    goal: Goal
    macros: tuple[Macro, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[frozenset[str], Goal]:
        """What makes two tasks the same."""
        return self.facts, self.goal

    def prompt(self) -> list[int]:
        """The task in the model's tokens."""
        return prompt_tokens(self.facts, self.goal, self.macros, self.lacking)


@dataclass(frozen=True)
class Answers:
    """n plans (steps are skills' goals or macros' names), and whether each reaches its goal."""

    prompts: np.ndarray  # int64[b, P], each for n / b answers
    sampled: Sampled
    plans: list[list[Goal | str]]
    success: np.ndarray  # bool[n]

    @property
    def decisions(self) -> np.ndarray:
        """int[n]: steps said; a macro is one."""
        return np.array([len(plan) for plan in self.plans])

    def used_macro(self, name: str = "") -> np.ndarray:
        """bool[n]: whether a macro (that one, or any) stands in the plan."""
        names = (name,) if name else MACROS
        return np.array([any(step in names for step in plan) for plan in self.plans], np.bool_)


def answer(
    model: TaskLM,
    world: SymbolicWorld,
    tasks: Sequence[Task],
    copies: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Answers:
    """``copies`` plans for each task, those of a task one after another."""
    automaton = plan_automaton(frozenset(world.goals))
    prompts = left_padded([task.prompt() for task in tasks])
    first = np.repeat(np.stack([may_begin(task) for task in tasks]), copies, 0)
    follower = Follower(automaton, len(first), first, LONGEST)
    sampled = model.sample(prompts, follower, copies, temperature, generator)
    goals = {tuple(plan_tokens([goal])[:-1]): goal for goal in world.goals}
    plans = [read_plan(row, goals) for row in sampled.tokens]
    rows = [task for task in tasks for _ in range(copies)]
    states = np.repeat(np.stack([world.state(task.facts) for task in tasks]), copies, 0)
    skills = [[world.skill(goal) for goal in flat(plan, task)] for plan, task in zip(plans, rows, strict=True)]
    verdict = world.run(states, [task.goal for task in rows], skills)
    return Answers(prompts, sampled, plans, verdict.success)


def may_begin(task: Task) -> np.ndarray:
    """bool[vocabulary]: tokens that may begin a step: no unknown macro, nothing that no skill achieves."""
    allowed = np.ones(len(TOKENS), np.bool_)
    known = {macro.name for macro in task.macros}
    allowed[[token(name) for name in MACROS if name not in known]] = False
    allowed[[token(name) for name in task.lacking]] = False
    allowed[NOT] = not SWITCHED & {*task.lacking}
    return allowed


def flat(plan: Sequence[Goal | str], task: Task) -> list[Goal]:
    """The plan with macros replaced by their steps."""
    steps = {macro.name: macro.steps for macro in task.macros}
    return [goal for step in plan for goal in (steps[step] if isinstance(step, str) else (step,))]


def kept_as_macro(task: Task, steps: Sequence[Goal], name: str) -> Task:
    """The task with a plan in its library, under a macro's name."""
    return replace(task, macros=(*(m for m in task.macros if m.name != name), Macro(name, tuple(steps))))
