"""The backend ``task_lm``: a small language model trained here plans and proposes; the grammar does the rest.

*plan*: the likeliest plan and some samples, all within the grammar, are tried in the symbolic world of the operators;
the most probable of those that reach the goal is the answer. Where none does, the embedded planner answers, and the
result says so in ``degraded``. *propose*: goals are sampled among those that may be practised (possible, not excluded,
not mastered: nothing else can be said) and ranked by the proposer's rule. The other roles are the embedded model's own.

The model knows the closed vocabulary and no common sense. Same request, same reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from embodied.curriculum.proposer import choose
from embodied.language import roles
from embodied.language.base import LMError, LMRequest, LMResult, T, parse_reply
from embodied.language.grammar import GrammarModel
from embodied.language.symbolic_world import SymbolicWorld, random_start
from embodied.language.task_plans import Task, answer, flat
from embodied.language.task_tokens import (
    PLAN,
    TOKENS,
    Automaton,
    Follower,
    Macro,
    goal_tokens,
    left_padded,
    prompt_tokens,
)
from embodied.planning.operators import Operator
from envs.goals import Goal, GoalError, all_ground_goals, impossible_reason
from policies.checkpoint import CheckpointError
from policies.task_lm import TaskLM

__all__ = ["TaskLanguageModel"]

SAMPLES = 8  # plans tried besides the likeliest
GUESSES = 8  # goals sampled for each that is wanted


class TaskLanguageModel:
    """Answers every role. ``operators`` serve plan requests that bring none; ``macros`` are plans kept as skills.

    CheckpointError where the model was trained on another vocabulary.
    """

    name = "task_lm"

    def __init__(
        self, model: TaskLM, operators: Mapping[str, Operator] | None = None, *, macros: Sequence[Macro] = (),
        samples: int = SAMPLES, seed: int = 0,
    ) -> None:  # fmt: skip
        if model.config.vocabulary != len(TOKENS):
            raise CheckpointError(
                f"the task model knows {model.config.vocabulary} words, the vocabulary has {len(TOKENS)}: train it anew"
            )
        self.model, self.macros, self.samples, self.seed = model, tuple(macros), samples, seed
        self.grammar = GrammarModel(operators)

    @classmethod
    def from_pretrained(cls, directory: str | Path, operators: Mapping[str, Operator] | None = None) -> Self:
        """The backend with the model in a directory; CheckpointError in one sentence where there is none."""
        return cls(TaskLM.from_pretrained(directory), operators)

    @property
    def operators(self) -> Mapping[str, Operator]:
        """What plan requests are answered with that bring no operators."""
        return self.grammar.operators

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """Answer a request; LMError for an unknown role, another role's message, or what has no answer."""
        message = request.message
        try:
            if request.role == "propose" and isinstance(message, roles.ProposeRequest):
                return LMResult(_as(self._propose(message), request), self.name)
            if request.role == "plan" and isinstance(message, roles.PlanRequest):
                found = self._plan(message)
                if found is not None:
                    return LMResult(_as(found, request), self.name)
                why = "no plan of the task model reached the goal in the operators' world: the planner answered"
                return LMResult(self.grammar.complete(request).value, self.name, why)
        except ValueError as error:
            raise LMError(f"the request to '{request.role}' cannot be answered: {error}") from error
        return self.grammar.complete(request)

    def _plan(self, message: roles.PlanRequest) -> roles.PlanReply | None:
        """The most probable verified plan, or None."""
        pool = dict(self.operators)
        if message.operators is not None:
            pool = {o.schema: o for o in map(Operator.from_dict, message.operators)}
        goal = Goal.parse(message.goal)
        allowed = None if message.allowed is None else frozenset(map(Goal.parse, message.allowed))
        if impossible_reason(goal) is not None:
            return None
        world = SymbolicWorld(pool, None if allowed is None else lambda skill: skill in allowed)
        start = world.state(message.facts)
        if world.run(start[None], [goal], [()]).success[0]:
            return roles.PlanReply(steps=(), probability=1.0)
        able = {x.predicate for skill in world.goals for x in skill.final}
        lacking = tuple(sorted({x.predicate for skill in all_ground_goals() for x in skill.final} - able))
        macros = tuple(m for m in self.macros if all(step in world.goals for step in m.steps))
        if not len(world):
            return None
        task = Task(world.facts(start), goal, macros, lacking)
        generator = torch.Generator().manual_seed(self.seed)
        try:
            said = [(answer(self.model, world, [task]), 1)]
        except GoalError:  # the model has no words for the goal
            return None
        if self.samples > 0:
            said.append((answer(self.model, world, [task], self.samples, 1.0, generator), self.samples))
        best: tuple[float, list[int]] | None = None
        for found, n in said:
            for i in range(n):
                if found.success[i]:
                    steps = _needed(world, start, [world.skill(x) for x in flat(found.plans[i], task)])
                    chance = float(np.prod(world.probabilities[steps]))
                    if best is None or chance > best[0] + 1e-9:
                        best = (chance, steps)
        if best is None:
            return None
        steps = tuple(
            roles.PlanStep(skill=world.schemas[k], goal=str(world.goals[k]), probability=world.probabilities[k])
            for k in best[1]
        )
        return roles.PlanReply(steps=steps, probability=best[0])

    def _propose(self, message: roles.ProposeRequest) -> roles.ProposeReply:
        ranked = choose(
            message.records, excluded=message.excluded, recent=message.recent, gains=message.gains, count=1 << 30,
            seed=message.seed, mode=message.mode,
        )  # fmt: skip
        if not ranked:
            return roles.ProposeReply(proposals=())
        words = {tuple(goal_tokens(choice.goal)): i for i, choice in enumerate(ranked)}
        rng = np.random.default_rng([self.seed, message.seed])
        n = GUESSES * message.count
        prompts = left_padded([prompt_tokens(random_start(rng), None, self.macros) for _ in range(n)])
        follower = Follower(Automaton(words, repeat=False, end=PLAN), n)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        sampled = self.model.sample(prompts, follower, 1, 1.0, generator)
        drawn = [words[tuple(int(t) for t in row if t not in (0, PLAN))] for row in sampled.tokens]
        picked = sorted(dict.fromkeys(drawn), key=lambda i: -ranked[i].score)  # a sort keeps equals as they were drawn
        picked += [i for i in range(len(ranked)) if i not in picked]
        chosen = [ranked[i] for i in picked[: message.count]]
        return roles.ProposeReply(
            proposals=tuple(roles.Proposal(goal=str(c.goal), reason=c.reason, score=c.score) for c in chosen)
        )


def _as(reply: roles.Message, request: LMRequest[T]) -> T:
    """The reply in the type that was asked for."""
    if isinstance(reply, request.reply):
        return reply
    return parse_reply(reply.model_dump(), request.reply, request.role)


def _needed(world: SymbolicWorld, state: np.ndarray, skills: Sequence[int]) -> list[int]:
    """The skills that change something, in order."""
    kept, now = [], state[None]
    for k in skills:
        after, _ = world.step(now, np.array([k]))
        if (after != now).any():
            kept.append(k)
        now = after
    return kept
