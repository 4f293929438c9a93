"""The language roles, their checks, and the grammar backend that answers them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from embodied.curriculum.convergence import judge_curve
from embodied.curriculum.proposer import Record
from embodied.language import roles
from embodied.language.base import LanguageModel, LMError, LMRequest, parse_reply
from embodied.language.grammar import GrammarModel
from embodied.planning.operators import Operator
from envs.goals import Goal, all_ground_goals

MODEL: LanguageModel = GrammarModel()
FACTS = ("open(drawer)", "closed(drawer)", "lit(lamp)", "inside(red, drawer)", "lifted(red)", "clear(red)")


def ask(role: str, message: roles.Message) -> roles.Message:
    reply = roles.ROLES[role][1]
    result = MODEL.complete(LMRequest(role, message, reply))
    assert isinstance(result.value, reply) and result.backend == "grammar"
    return result.value


def table(*rows: str) -> np.ndarray:
    """One row of 0s and 1s a step, in the order of FACTS."""
    return np.array([[int(c) for c in row] for row in rows])


def relabel(truth: np.ndarray, **options: bool) -> list[tuple[str, int]]:
    reply = ask("relabel", roles.RelabelRequest(literals=FACTS, truth=truth, **options))
    assert isinstance(reply, roles.RelabelReply)
    return [(r.goal, r.step) for r in reply.reached]


def judge(goal: str, truth: np.ndarray, hold: int = 1) -> roles.JudgeReply:
    reply = ask("judge", roles.JudgeRequest(goal=goal, literals=FACTS, truth=truth, hold=hold))
    assert isinstance(reply, roles.JudgeReply)
    return reply


def test_relabelling_compares_start_and_end() -> None:
    truth = table("011001", "000001", "100001", "100101", "010101", "010101")
    assert relabel(truth) == [("not lit(lamp)", 1), ("inside(red, drawer)", 3)]
    assert ("inside(red, drawer) & not lit(lamp)", 3) in relabel(truth, pairs=True)
    flicker = table("010000", "100000", "010000", "100000", "100000")
    assert relabel(flicker) == [("open(drawer)", 3)]  # since when it holds for good
    assert relabel(flicker[:3]) == []
    assert relabel(table("010000", "010001")) == []  # clear is no goal that is practised


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_relabelled_goal_is_also_judged_reached(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((8, len(FACTS))) < 0.5
    for goal, step in relabel(truth, pairs=True):
        conjunction = Goal.parse(goal)
        columns = {literal: truth[:, FACTS.index(literal.atom)] == literal.positive for literal in conjunction.final}
        assert all(held[step:].all() for held in columns.values())
        assert not any(held[0] for held in columns.values())
        assert judge(goal, truth).success


def test_judging_follows_the_stages() -> None:
    truth = table("010000", "100000", "100100", "010100", "010100")
    assert judge("open(drawer) ; closed(drawer) & inside(red, drawer)", truth).step == 3
    assert judge("open(drawer) ; closed(drawer)", truth, hold=2).step == 4
    assert not judge("closed(drawer) ; open(drawer)", truth, hold=2).success
    failed = judge("inside(red, drawer) & lit(lamp)", truth)
    assert not failed.success and failed.step is None and "lit(lamp) did not hold" in failed.reason
    assert failed.evidence == "simulator"
    with pytest.raises(LMError, match=r"no predicate was recorded for on\(red, blue\)"):
        judge("on(red, blue)", truth)


def test_proposals_are_checked_and_reproducible() -> None:
    rows = tuple(Record(str(goal)) for goal in all_ground_goals())
    message = roles.ProposeRequest(records=rows, excluded=("lift the red block",), count=4, seed=3)
    reply = ask("propose", message)
    assert reply == ask("propose", message) and isinstance(reply, roles.ProposeReply)
    assert len({p.goal for p in reply.proposals}) == 4
    assert all(p.goal != "lifted(red)" and p.reason.startswith("I propose to ") for p in reply.proposals)
    with pytest.raises(LMError, match="'moon'"):
        ask("propose", roles.ProposeRequest(excluded=("put the red block on the moon",)))


def test_plans_over_operators_in_the_message_or_in_the_model() -> None:
    operator = Operator("open(drawer)")
    for i in range(20):
        operator.observe(Goal.parse("open(drawer)"), {}, {"open(drawer)": i > 1}, i > 1)
    stored = (json.loads(json.dumps(operator.to_dict())),)
    message = roles.PlanRequest(goal="open(drawer)", facts={"closed(drawer)": True}, operators=stored)
    reply = ask("plan", message)
    assert isinstance(reply, roles.PlanReply) and [(s.skill, s.goal) for s in reply.steps] == [("open(drawer)",) * 2]
    own = GrammarModel({"open(drawer)": operator})
    bare = roles.PlanRequest(goal="open(drawer)", facts={"closed(drawer)": True})
    assert own.complete(LMRequest("plan", bare, roles.PlanReply)).value == reply
    refused = ask("plan", roles.PlanRequest(goal="open(drawer)", facts={}, operators=stored, allowed=()))
    assert isinstance(refused, roles.PlanReply) and "no skill" in refused.explanation and not refused.steps
    with pytest.raises(LMError, match="stored operator cannot be read"):
        ask("plan", roles.PlanRequest(goal="open(drawer)", facts={}, operators=({"schema": "open(drawer)"},)))


def test_curves_are_judged_by_slope_and_interval() -> None:
    cases = {
        "mastered": ((19, 20), (50, 50), (49, 50)),
        "improving": ((0, 20), (2, 20), (5, 20), (9, 20), (12, 20)),
        "declining": ((15, 20), (12, 20), (8, 20), (4, 20)),
        "converged": ((8, 20), (10, 20), (9, 20), (8, 20), (10, 20), (9, 20)),
        "undecided": ((2, 4), (1, 4), (3, 4), (2, 4)),
    }
    for state, curve in cases.items():
        reply = ask("analyse", roles.AnalyseRequest(goal="lit(lamp)", curve=curve))
        assert isinstance(reply, roles.AnalyseReply) and reply.state == state
        assert reply.converged == (state in ("mastered", "converged"))
        assert reply.low <= reply.rate <= reply.high and state in reply.reason
    empty = ask("analyse", roles.AnalyseRequest(goal="lit(lamp)", curve=()))
    assert isinstance(empty, roles.AnalyseReply) and empty.state == "undecided"
    with pytest.raises(LMError, match="successes must lie between"):
        ask("analyse", roles.AnalyseRequest(goal="lit(lamp)", curve=((3, 2),)))


def test_flat_curves_are_seldom_called_moving_and_rising_ones_are_found() -> None:
    rng = np.random.default_rng(0)

    def share(rates: np.ndarray, state: str) -> float:
        curves = [[(int(rng.binomial(20, p)), 20) for p in rates] for _ in range(300)]
        return float(np.mean([judge_curve(curve).state == state for curve in curves]))

    flat = np.full(8, 0.5)
    assert share(flat, "improving") + share(flat, "declining") < 0.25  # two one-sided tests at 0.1
    assert share(flat, "converged") > 0.75
    assert share(np.linspace(0.2, 0.7, 8), "improving") > 0.95


def answer(**fields: object) -> str:
    reply = ask("answer", roles.AnswerRequest(instruction="…", **fields))  # type: ignore[arg-type]
    assert isinstance(reply, roles.AnswerReply)
    assert reply.text.endswith(".") and "(" not in reply.text.replace("(time ran out)", "")
    return reply.text


def test_the_robot_says_what_it_did() -> None:
    goal = "closed(drawer) & inside(red, drawer)"
    done = (("open(drawer)", True), ("inside(red, drawer)", True), ("closed(drawer)", True))
    text = answer(goal=goal, success=True, done=done, seconds=14.25)
    assert text == "Done: the red block is inside the drawer and the drawer is closed. It took 3 skills and 14.2 s."
    holds = {"closed(drawer)": False, "inside(red, drawer)": True}
    text = answer(goal=goal, holds=holds, done=(*done[:2], ("closed(drawer)", False)), reason="time ran out")
    assert "the red block is inside the drawer, but the drawer is not closed (time ran out)" in text
    assert "I failed to close the drawer" in text
    assert answer(goal=goal, success=True).startswith("There was nothing to do: ")
    assert answer(goal="lit(lamp)", reason="I have no skill for it").startswith("I cannot do that: I have no skill")
    assert answer(reason="I don't know 'moon'") == "I did not understand that: I don't know 'moon'."


@pytest.mark.parametrize(
    ("raw", "role", "naming"),
    [
        ("nothing of the kind", "propose", "no JSON object"),
        ('{"proposals": [', "propose", "no JSON object"),
        ('{"proposals": [}', "propose", "not JSON"),
        ({"proposals": [{"goal": "fly(red)", "reason": "up"}]}, "propose", "unknown predicate 'fly'"),
        ({"proposals": [{"goal": "on(red, red)", "reason": "why not"}]}, "propose", "impossible because"),
        ({"proposals": [{"goal": "lit(lamp)", "reason": "a\nb"}]}, "propose", "proposals.0.reason"),
        ({"proposals": [], "status": "mastered"}, "propose", "status: Extra inputs"),
        ({"success": "perhaps", "step": None, "evidence": "simulator", "reason": "x"}, "judge", "success"),
        ({"success": True, "step": 1, "evidence": "feeling", "reason": "x"}, "judge", "evidence"),
        ({"steps": [{"skill": "a", "goal": "lit(lamp)"}], "probability": 2}, "plan", "probability"),
        (
            {"steps": [{"skill": "a", "goal": "lit(lamp)"}], "probability": 1, "explanation": "no"},
            "plan",
            "steps or an explanation, not both",
        ),
        ({}, "answer", "text: Field required"),
    ],
)  # fmt: skip
def test_malformed_replies_are_one_clear_sentence(raw: str | dict[str, object], role: str, naming: str) -> None:
    with pytest.raises(LMError, match=rf"^the reply to '{role}' [^\n]+$") as error:
        parse_reply(raw, roles.ROLES[role][1], role)
    assert naming in str(error.value)


def test_replies_are_read_out_of_prose() -> None:
    raw = 'Sure! ```json\n{"proposals": [{"goal": " ON(red,blue) ", "reason": "It is new."}]}\n``` Good luck.'
    reply = parse_reply(raw, roles.ProposeReply, "propose")
    assert reply.proposals[0].goal == "on(red, blue)"


def test_requests_are_checked() -> None:
    with pytest.raises(LMError, match="unknown role 'sing'; the roles are propose, relabel"):
        MODEL.complete(LMRequest("sing", roles.ProposeRequest(), roles.ProposeReply))
    with pytest.raises(LMError, match="'plan' takes a PlanRequest, not a ProposeRequest"):
        MODEL.complete(LMRequest("plan", roles.ProposeRequest(), roles.PlanReply))
    with pytest.raises(LMError, match="no PlanReply"):
        MODEL.complete(LMRequest("propose", roles.ProposeRequest(), roles.PlanReply))
    with pytest.raises(ValidationError, match="as many columns"):
        roles.RelabelRequest(literals=("lit(lamp)",), truth=np.zeros((3, 2)))
    with pytest.raises(ValidationError, match="truth table is"):
        roles.RelabelRequest(literals=("lit(lamp)",), truth=np.full((3, 1), 0.5))


def test_messages_survive_json() -> None:
    message = roles.JudgeRequest(goal="lit(lamp)", literals=("lit(lamp)",), truth=np.array([[0], [1]]))
    again = roles.JudgeRequest.model_validate_json(message.model_dump_json())
    assert np.array_equal(again.truth, message.truth) and again.goal == message.goal
    rows = (Record("lit(lamp)", ((1, 20), (5, 20)), "mastered", 31.5),)
    propose = roles.ProposeRequest(records=rows)
    assert roles.ProposeRequest.model_validate_json(propose.model_dump_json()) == propose
    for _, reply in roles.ROLES.values():
        assert reply.model_json_schema()["type"] == "object"  # what a server backend will be asked to fill in
