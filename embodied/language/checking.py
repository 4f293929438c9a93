"""What a well-typed reply must hold beyond its type: it fits the request it answers.

A type keeps a reply within the closed grammar; these checks keep it within what was asked. A goal that is held out or
mastered cannot be proposed, a label that the predicates refute is refused, a plan names only skills that exist, and
only the simulator's predicates may sign as ``simulator``. So the most that a model which errs, lies or was talked into
something can get through is another valid choice, which the gate then measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embodied.curriculum.proposer import candidates
from embodied.language import roles
from embodied.language.base import LMError, LMRequest, T
from envs.goals import Goal, Literal, schema_of

__all__ = ["LONGEST_PLAN", "check_answer"]

LONGEST_PLAN = 64  # steps


def check_answer(request: LMRequest[T], value: T) -> None:
    """Raises LMError, one sentence, where the reply does not fit the request."""
    check = _CHECKS.get(request.role)
    problem = check(request.message, value) if check else ""
    if problem:
        raise LMError(f"the reply to '{request.role}' does not fit: {problem}")


def _propose(message: roles.ProposeRequest, value: roles.ProposeReply) -> str:
    goals = [proposal.goal for proposal in value.proposals]
    open_goals = {str(goal) for goal in candidates(message.records, message.excluded)}
    if len(goals) > message.count:
        return f"{len(goals)} goals, where at most {message.count} were asked for"
    if not goals and open_goals:
        return f"no goal, where {len(open_goals)} may be practised"
    for i, goal in enumerate(goals):
        if goal not in open_goals:
            return f"'{goal}' is not one of the {len(open_goals)} goals that may be practised now"
        if goal in goals[:i]:
            return f"'{goal}' stands there twice"
    return ""


def _relabel(message: roles.RelabelRequest, value: roles.RelabelReply) -> str:
    column = {x.atom: (i, x.positive) for i, x in enumerate(map(Literal.parse, message.literals))}
    for found in value.reached:
        goal = Goal.parse(found.goal)
        unknown = [str(literal) for literal in goal.literals if literal.atom not in column]
        if unknown:
            return f"no predicate was recorded for {unknown[0]}"
        if not goal.is_conjunction:
            return f"'{goal}' has several stages"
        holds = message.truth[:, 0] | True
        for literal in goal.final:
            i, sign = column[literal.atom]
            holds &= (message.truth[:, i] == sign) == literal.positive
        if holds[0] or found.step >= len(holds) or not holds[found.step :].all():
            return f"the predicates refute that '{goal}' became true for good by step {found.step}"
    return ""


def _judge(message: roles.JudgeRequest, value: roles.JudgeReply) -> str:
    if value.evidence != "language":
        return f"evidence '{value.evidence}' is not a language model's to give; it signs as 'language'"
    if value.success != (value.step is not None):
        return "a step stands there exactly where the goal was reached"
    if value.step is not None and not 1 <= value.step < len(message.truth):
        return f"step {value.step} is none of the {len(message.truth) - 1} steps of the episode"
    return ""


def _plan(message: roles.PlanRequest, value: roles.PlanReply) -> str:
    if len(value.steps) > LONGEST_PLAN:
        return f"{len(value.steps)} steps, where at most {LONGEST_PLAN} are carried out"
    known = None if message.operators is None else {str(operator.get("schema")) for operator in message.operators}
    for step in value.steps:
        if known is not None and step.skill not in known:
            return f"there is no skill '{step.skill[:100]}'"
        if schema_of(Goal.parse(step.goal)) != step.skill:
            return f"the skill '{step.skill[:100]}' cannot be given the goal '{step.goal}'"
        if message.allowed is not None and step.goal not in message.allowed:
            return f"'{step.goal}' is not one of the {len(message.allowed)} goals that skills may be given"
    holds = all(literal.holds(message.facts) for literal in Goal.parse(message.goal).final)
    if not value.steps and not value.explanation and not holds:
        return "no steps, and no explanation why"
    return ""


def _analyse(message: roles.AnalyseRequest, value: roles.AnalyseReply) -> str:
    if not value.low <= value.rate <= value.high:
        return f"the rate {value.rate:g} lies outside its interval, {value.low:g} to {value.high:g}"
    if value.converged != (value.state in ("mastered", "converged")):
        return f"converged = {value.converged} does not go with '{value.state}'"
    return ""


def _describe(message: roles.DescribeRequest, value: roles.DescribeReply) -> str:
    names = {other.name for other in message.others}
    unknown = [name for name in value.merge if name not in names]
    if unknown:
        return f"'{unknown[0]}' is none of the {len(names)} skills that it could be merged with"
    return f"another skill is called '{value.name}'" if value.name in names else ""


_CHECKS: dict[str, Callable[[Any, Any], str]] = {
    "propose": _propose,
    "relabel": _relabel,
    "judge": _judge,
    "plan": _plan,
    "analyse": _analyse,
    "describe": _describe,
}
