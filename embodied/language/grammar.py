"""The embedded default backend: every role answered by the closed grammar itself, without a network.

It proposes by learning progress or as its mode says (`embodied.curriculum.proposer`), relabels and judges by predicates
(`embodied.language.evidence`), plans over learnt operators (`embodied.planning.search`), judges learning
curves by statistics (`embodied.curriculum.convergence`) and says in plain words what was done. Stateless but
for the operators it is given: the same request gives the same reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from embodied.curriculum.convergence import Verdict, judge_curve
from embodied.curriculum.proposer import choose
from embodied.language import roles
from embodied.language.base import LMError, LMRequest, LMResult, T, parse_reply
from embodied.language.evidence import reached_at, reached_goals
from embodied.planning.operators import Operator
from embodied.planning.search import plan
from envs.goals import Goal, Literal
from envs.instructions import spoken, state_text


class GrammarModel:
    """Answers every role; ``operators`` (schema -> Operator) serve plan requests that bring none."""

    name = "grammar"

    def __init__(self, operators: Mapping[str, Operator] | None = None) -> None:
        self.operators: Mapping[str, Operator] = operators if operators is not None else {}
        self._handlers: dict[str, Callable[[Any], roles.Message]] = {
            "propose": _propose,
            "relabel": _relabel,
            "judge": _judge,
            "plan": self._plan,
            "analyse": _analyse,
            "answer": _answer,
            "describe": _describe,
        }

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """Answer a request; LMError for an unknown role, another role's message, or what has no answer."""
        if request.role not in self._handlers:
            raise LMError(f"unknown role '{request.role}'; the roles are {', '.join(self._handlers)}")
        expected, _ = roles.ROLES[request.role]
        if not isinstance(request.message, expected):
            given = type(request.message).__name__
            raise LMError(f"the role '{request.role}' takes a {expected.__name__}, not a {given}")
        try:
            reply = self._handlers[request.role](request.message)
        except ValueError as error:
            raise LMError(f"the request to '{request.role}' cannot be answered: {error}") from error
        if not isinstance(reply, request.reply):
            reply = parse_reply(reply.model_dump(), request.reply, request.role)
        return LMResult(reply, self.name)

    def _plan(self, message: roles.PlanRequest) -> roles.PlanReply:
        pool = self.operators
        if message.operators is not None:
            pool = {o.schema: o for o in map(Operator.from_dict, message.operators)}
        allowed = None if message.allowed is None else frozenset(map(Goal.parse, message.allowed))
        found = plan(
            Goal.parse(message.goal),
            message.facts,
            pool,
            allowed=None if allowed is None else lambda goal: goal in allowed,
        )
        steps = tuple(roles.PlanStep(skill=s.schema, goal=s.goal, probability=s.probability) for s in found.steps)
        return roles.PlanReply(steps=steps, probability=found.probability, explanation=found.explanation)


def _propose(message: roles.ProposeRequest) -> roles.ProposeReply:
    choices = choose(
        message.records,
        excluded=message.excluded,
        recent=message.recent,
        gains=message.gains,
        count=message.count,
        seed=message.seed,
        mode=message.mode,
    )
    return roles.ProposeReply(
        proposals=tuple(roles.Proposal(goal=str(c.goal), reason=c.reason, score=c.score) for c in choices)
    )


def _relabel(message: roles.RelabelRequest) -> roles.RelabelReply:
    found = reached_goals([Literal.parse(x) for x in message.literals], message.truth, message.pairs)
    return roles.RelabelReply(reached=tuple(roles.Reached(goal=str(goal), step=step) for goal, step in found))


def _judge(message: roles.JudgeRequest) -> roles.JudgeReply:
    goal = Goal.parse(message.goal)
    try:
        step = reached_at(goal, [Literal.parse(x) for x in message.literals], message.truth, message.hold)
    except KeyError as error:
        known = ", ".join(message.literals)
        raise ValueError(f"no predicate was recorded for {error.args[0]}; recorded are {known}") from None
    last = {Literal.parse(x): bool(value) for x, value in zip(message.literals, message.truth[-1], strict=True)}
    facts = {literal.atom: value == literal.positive for literal, value in last.items()}
    if step is not None:
        reason = f"'{message.goal}' was reached at step {step}"
    else:
        missing = [str(literal) for literal in goal.final if not literal.holds(facts)]
        lacking = f"{' and '.join(missing)} did not hold at the end" if missing else "its stages did not come in order"
        reason = f"'{message.goal}' was not reached: {lacking}"
    return roles.JudgeReply(success=step is not None, step=step, evidence="simulator", reason=f"{reason}.")


def _analyse(message: roles.AnalyseRequest) -> roles.AnalyseReply:
    verdict = judge_curve(message.curve, message.threshold)
    return roles.AnalyseReply(
        state=verdict.state,  # type: ignore[arg-type]
        converged=verdict.converged,
        rate=verdict.rate,
        low=verdict.low,
        high=verdict.high,
        slope=verdict.slope,
        p_value=min(verdict.p_rise, verdict.p_fall),
        reason=_verdict_text(message, verdict),
    )


def _verdict_text(message: roles.AnalyseRequest, verdict: Verdict) -> str:
    level = f"{verdict.rate:.0%} of attempts succeed ({verdict.low:.0%} to {verdict.high:.0%})"
    change = f"{abs(100 * verdict.slope):.1f} points an evaluation"
    why = {
        "mastered": f"{level}, which surely reaches {message.threshold:.0%}",
        "improving": f"it gains {change}, so more practice pays; now {level}",
        "declining": f"it loses {change}; now {level}",
        "converged": f"{level} and no rise is visible over the last evaluations",
        "undecided": f"{level}, too few evaluations to tell" if message.curve else "it was never evaluated",
    }[verdict.state]
    return f"'{message.goal}' is {verdict.state}: {why}."


def _answer(message: roles.AnswerRequest) -> roles.AnswerReply:
    return roles.AnswerReply(text=" ".join(_answer_text(message).split()))


def _answer_text(message: roles.AnswerRequest) -> str:
    reason = message.reason.strip().rstrip(".")
    if message.goal is None:
        return f"I did not understand that: {reason or 'it is not a sentence I know'}."[:600]
    goal = Goal.parse(message.goal)
    if message.success:
        state = _listed([state_text(literal) for literal in spoken(goal.final)])
        if not message.done:
            return f"There was nothing to do: {state}."
        skills = f"{len(message.done)} skill{'s' if len(message.done) > 1 else ''}"
        return f"Done: {state}. It took {skills} and {message.seconds:.1f} s."
    if not message.done:
        return f"I cannot do that: {reason or 'I found no plan'}."
    truth = [(literal, message.holds.get(str(literal), False)) for literal in spoken(goal.final)]
    kept = [state_text(literal) for literal, holds in truth if holds]
    lost = [state_text(literal.negated) for literal, holds in truth if not holds]
    parts = [_listed(kept)] * bool(kept) + [_listed(lost)] * bool(lost)
    said = ", but ".join(parts) if lost else f"{_listed(kept)}, but not in the order or in the time asked for"
    failed = [skill for skill, reached in message.done if not reached]
    last = f" I failed to {Goal.parse(failed[-1]).text()}." if failed else ""
    return f"I did not manage all of it: {said}{f' ({reason})' if reason else ''}.{last}"


def _describe(message: roles.DescribeRequest) -> roles.DescribeReply:
    """Named by its schema; when its needs hold, not where it was seen to fail; one with all of the same schema."""
    skill = message.skill
    successes, n = skill.evidence
    needs = _listed([state_text(Literal.parse(x)) for x in message.needs[:4]]) if message.needs else "nothing is needed"
    effects = _listed([state_text(Literal.parse(x)) for x in message.effects[:4]]) if message.effects else "it ends"
    known = f"it worked {successes} times in {n}" if n else "it was never measured"
    failed = f"it failed {len(message.failures)} times lately" if message.failures else "no failure is known"
    name = "-".join(re.findall(r"[a-z0-9]+", skill.schema_text.lower()))[:64].strip("-")
    return roles.DescribeReply(
        name=name or skill.name,
        when=f"Use it when {needs}; {known}.",
        do=f"Run it until {effects}.",
        dont=f"Do not use it otherwise; {failed}.",
        merge=tuple(other.name for other in message.others if other.schema_text == skill.schema_text),
    )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
