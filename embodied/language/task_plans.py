"""Plans sampled from a task model under the grammar, and what the symbolic world makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embodied.language.symbolic_world import SymbolicWorld, Verdict
from embodied.language.task_tokens import (
    MACROS,
    NOT,
    PAD,
    TOKENS,
    Follower,
    Macro,
    left_padded,
    plan_automaton,
    plan_tokens,
    prompt_tokens,
    read_plan,
    right_padded,
    token,
)
from envs.goals import Goal
from envs.vocabulary import SWITCHED
from policies.task_lm import Sampled, TaskLM, masked_log_probability

__all__ = [
    "LONGEST",
    "Answers",
    "Task",
    "answer",
    "flat",
    "kept_as_macro",
    "may_begin",
    "shortened",
    "success_by_depth",
]

LONGEST = 8  # steps of a plan
MORE = 2  # steps beyond its goal's literals that a plan goes on for


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
    going_on: int = 0,
) -> Answers:
    """``copies`` plans for each task, those of a task one after another.

    The last ``going_on`` of a task's plans are not left to end by themselves: they go on for some steps more than the
    goal has literals and are then cut where they first met the goal. What they say is the model's own, when they end is
    the world's; probabilities are the model's for the whole, end included.
    """
    automaton = plan_automaton(frozenset(world.goals))
    prompts = left_padded([task.prompt() for task in tasks])
    rows = [task for task in tasks for _ in range(copies)]
    first = np.stack([may_begin(task) for task in rows])
    goals = {tuple(plan_tokens([goal])[:-1]): goal for goal in world.goals}
    states = np.stack([world.state(task.facts) for task in rows])

    def judged(plans: Sequence[Sequence[Goal | str]]) -> Verdict:
        skills = [[world.skill(goal) for goal in flat(plan, task)] for plan, task in zip(plans, rows, strict=True)]
        return world.run(states, [task.goal for task in rows], skills)

    urged = np.arange(len(rows)) % copies >= copies - going_on
    least = np.array([min(LONGEST, len(task.goal.literals) + MORE) for task in rows]) * urged
    follower = Follower(automaton, len(rows), first, LONGEST, least if going_on else None)
    sampled = model.sample(prompts, follower, copies, temperature, generator)
    plans = [read_plan(row, goals) for row in sampled.tokens]
    verdict = judged(plans)
    if going_on:
        plans = [
            _cut(plan, task, int(met)) if goes_on and met >= 0 else plan
            for plan, task, met, goes_on in zip(plans, rows, verdict.met, urged, strict=True)
        ]
        verdict = judged(plans)
        sampled = _said(model, prompts, plans, Follower(automaton, len(rows), first, LONGEST))
    return Answers(prompts, sampled, plans, verdict.success)


def _cut(plan: Sequence[Goal | str], task: Task, steps: int) -> list[Goal | str]:
    """The shortest beginning of a plan that runs at least so many skills."""
    short: list[Goal | str] = []
    while len(flat(short, task)) < steps:
        short.append(plan[len(short)])
    return short


@torch.no_grad()
def _said(model: TaskLM, prompts: np.ndarray, plans: Sequence[Sequence[Goal | str]], follower: Follower) -> Sampled:
    """Plans as if they had been sampled: with the grammar's masks and the model's probabilities."""
    tokens = right_padded([plan_tokens(plan) for plan in plans])
    masks = np.ones((*tokens.shape, len(TOKENS)), np.bool_)
    for t in range(tokens.shape[1]):
        masks[:, t] = follower.mask() | follower.finished[:, None]
        follower.take(tokens[:, t])
    given = torch.from_numpy(tokens)
    with model.autocast():
        logits, _ = model.logits(torch.from_numpy(prompts), given)
    logs = masked_log_probability(logits, torch.from_numpy(masks)).gather(2, given[..., None])[..., 0]
    return Sampled(tokens, masks, (logs * (given != PAD)).numpy().astype(np.float32))


def success_by_depth(
    model: TaskLM, world: SymbolicWorld, tasks: dict[int, list[Task]], copies: int = 1, seed: int = 0
) -> dict[int, float]:
    """Depth → share of tasks solved: by the likeliest plan, or by any of several samples."""
    generator = torch.Generator().manual_seed(seed)
    temperature = 0.0 if copies == 1 else 1.0
    return {
        depth: float(
            answer(model, world, rows, copies, temperature, generator).success.reshape(-1, copies).any(1).mean()
        )
        for depth, rows in tasks.items()
    }


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


def shortened(world: SymbolicWorld, task: Task, steps: Sequence[Goal]) -> list[Goal]:
    """A plan that reaches the task's goal, without steps that it reaches the goal without, the last ones first."""
    state, left = world.state(task.facts), list(steps)
    while left:
        fewer = [left[:i] + left[i + 1 :] for i in reversed(range(len(left)))]
        skills = [[world.skill(goal) for goal in plan] for plan in fewer]
        still = world.run(np.repeat(state[None], len(fewer), 0), [task.goal] * len(fewer), skills).success
        if not still.any():
            break
        left = fewer[int(still.argmax())]
    return left


def kept_as_macro(task: Task, steps: Sequence[Goal], name: str) -> Task:
    """The task with a plan in its library, under a macro's name."""
    return replace(task, macros=(*(m for m in task.macros if m.name != name), Macro(name, tuple(steps))))
