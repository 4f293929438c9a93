"""Replies of a language backend and what it is asked: what is read, what is refused, how data are fenced off."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.evaluation.backend_claims import questions
from embodied.language import roles
from embodied.language.base import DEEPEST, LONGEST, LMError, LMRequest, LMResult, Usage, depth, parse_reply, read_json
from embodied.language.cassettes import canonical
from embodied.language.checking import check_answer
from embodied.language.faults import INJECTION
from embodied.language.grammar import GrammarModel
from embodied.language.prompts import data_of, messages_of, strict_schema, table_of

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
ASKED = questions()


def request(role: str, **changes: Any) -> LMRequest[Any]:
    return LMRequest(role, ASKED[role].model_copy(update=changes), roles.ROLES[role][1])


def signed(request: LMRequest[Any]) -> LMResult[Any]:
    """The grammar's answer as another backend would sign it."""
    result = GrammarModel().complete(request)
    if request.role == "judge":
        result = replace(result, value=result.value.model_copy(update={"evidence": "language"}))
    return replace(result, backend="other", usage=Usage(1, 10, 5, 0.1))


# -- replies of strangers


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("{" + '"a":' + "[" * 200_000, "no JSON object"),
        ('{"proposals": ' + "[" * 100_000 + "]" * 100_000 + "}", f"deeper than {DEEPEST}"),
        ('{"a": "' + "x" * 10_000_000 + '"}', f"{LONGEST:,} are allowed"),
        ('{"proposals": [{"goal": "lit(lamp)", "reason": "x", "score": NaN}]}', "NaN is no number"),
        ('{"proposals": [{"goal": "lit(lamp)", "reason": "x", "score": -Infinity}]}', "-Infinity is no number"),
        ('{"proposals": [{"goal": "lit(lamp)", "reason": "x", "score": 1e999}]}', "finite number"),
        ('{"proposals": ' + "9" * 5_000 + "}", "not JSON"),
        ('{"proposals": [{"goal": "' + "not " * 5_000 + 'lit(lamp)", "reason": "x"}]}', "at most 1000"),
        ('{"proposals": [{"goal": "lit(lamp)", "reason": "\\u001b[2J"}]}', "control characters"),
        ('{"proposals": [{"goal": "lit(\\ud800)", "reason": "x"}]}', "goal"),
        ('{"proposals": [{"goal": "eval(red)", "reason": "x"}]}', "unknown predicate 'eval'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_short_sentence(raw: str, why: str) -> None:
    with pytest.raises(LMError) as caught:
        parse_reply(raw, roles.ProposeReply, "propose")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_depth_is_counted_outside_of_strings_alone() -> None:
    assert depth('{"a": "[[[[\\"[[", "b": [1, {"c": 2}]}') == 3
    assert depth('"' + '\\"' * 100_000) == 0
    assert read_json('{"a": "[[[["}') == {"a": "[[[["}


WORDS = st.sampled_from(["proposals", "goal", "reason", "reached", "step", "success", "steps", "text"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner),
    max_leaves=8,
)


@given(ANYTHING)
@settings(max_examples=20, deadline=None)
def test_anything_at_all_is_a_reply_or_one_error(value: Any) -> None:
    for role, (_, reply) in roles.ROLES.items():
        for raw in (json.dumps(value), {"proposals": value, "text": value}):
            with contextlib.suppress(LMError):
                assert isinstance(parse_reply(raw, reply, role), reply)


def test_pictures_are_small_png_files_and_count_only_where_there_are_some() -> None:
    with pytest.raises(ValueError, match="a frame is a PNG"):
        roles.ProposeRequest(frames=(b"GIF89a",))
    plain, seen = roles.ProposeRequest(), roles.ProposeRequest(frames=(PNG,))
    assert "frames" not in canonical(plain) and canonical(plain) != canonical(seen)
    assert roles.ProposeRequest.model_validate_json(seen.model_dump_json()) == seen


# -- what a reply may say


def test_every_role_is_answered_by_the_grammar_and_the_answer_fits() -> None:
    for role in roles.ROLES:
        result = signed(request(role))
        check_answer(request(role), result.value)


@pytest.mark.parametrize(
    ("role", "changes", "why"),
    [
        ("propose", {"proposals": ()}, "no goal, where"),
        ("propose", {"proposals": (roles.Proposal(goal="lifted(red)", reason="x"),)}, "'lifted(red)' is not one of"),
        ("propose", {"proposals": (roles.Proposal(goal="lit(lamp)", reason="x"),) * 2}, "stands there twice"),
        ("propose", {"proposals": (roles.Proposal(goal="lit(lamp)", reason="x"),) * 3}, "at most 2"),
        ("relabel", {"reached": (roles.Reached(goal="lit(lamp)", step=1),)}, "the predicates refute"),
        ("relabel", {"reached": (roles.Reached(goal="open(drawer)", step=3),)}, "the predicates refute"),
        ("relabel", {"reached": (roles.Reached(goal="open(drawer)", step=99),)}, "the predicates refute"),
        ("relabel", {"reached": (roles.Reached(goal="lifted(red)", step=1),)}, "no predicate was recorded"),
        ("judge", {"evidence": "simulator"}, "evidence 'simulator' is not a language model's to give"),
        ("judge", {"step": None}, "a step stands there exactly where"),
        ("judge", {"step": 99}, "step 99 is none of the 8"),
        ("plan", {"steps": (roles.PlanStep(skill="fly", goal="lit(lamp)"),)}, "there is no skill 'fly'"),
        ("plan", {"steps": (roles.PlanStep(skill="open(drawer)", goal="lit(lamp)"),)}, "cannot be given the goal"),
        ("plan", {"steps": ()}, "no explanation why"),
        ("plan", {"steps": (roles.PlanStep(skill="open(drawer)", goal="open(drawer)"),) * 65}, "at most 64"),
        ("analyse", {"low": 0.9, "rate": 0.1}, "outside its interval"),
        ("analyse", {"converged": True, "state": "improving"}, "does not go with"),
        ("describe", {"merge": ("skill-9",)}, "'skill-9' is none of the 1 skills"),
        ("describe", {"name": "skill-2"}, "another skill is called"),
    ],
)  # fmt: skip
def test_well_typed_replies_that_do_not_fit_are_refused(role: str, changes: dict[str, Any], why: str) -> None:
    value = signed(request(role)).value.model_copy(update=changes)
    with pytest.raises(LMError) as caught:
        check_answer(request(role), value)
    assert why in str(caught.value)


def test_handbooks_are_short() -> None:
    fields = {"name": "push", "when": "Always.", "do": "word " * 119, "dont": "Never."}
    with pytest.raises(LMError, match="at most 120 tokens, not 123"):
        parse_reply(fields | {"do": ("word " * 119).strip()}, roles.DescribeReply, "describe")
    found = signed(request("describe")).value
    assert found.name == "open-drawer" and found.merge == ("skill-2",) and INJECTION not in found.model_dump_json()


# -- prompts and repairs


def test_data_are_fenced_off_and_nothing_in_them_closes_the_fence() -> None:
    system, user = messages_of(request("describe"))
    assert INJECTION not in system["content"] and INJECTION in user["content"]
    mark = user["content"].split(">")[0][1:]
    assert mark in system["content"] and user["content"].count(f"</{mark}>") == 1
    long = roles.AnswerRequest(instruction="x" * 300_000)
    with pytest.raises(LMError, match=r"300,0.. characters of data; 200,000 are sent"):
        messages_of(LMRequest("answer", long, roles.AnswerReply))
    content = messages_of(request("judge", frames=(PNG,)))[1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]


def test_excluded_goals_are_not_even_shown() -> None:
    goals = data_of(ASKED["propose"])["candidates"]
    assert "lifted(red)" not in goals and "lifted(blue)" in goals


def test_truth_tables_travel_by_their_changes() -> None:
    truth = np.random.default_rng(0).random((12, 4)) < 0.5
    names = ("open(drawer)", "lit(lamp)", "lifted(red)", "closed(drawer)")
    data = data_of(roles.RelabelRequest(literals=names, truth=truth))
    back, table = table_of(data["changes"], data["steps"])
    assert back == names and np.array_equal(table, truth)


@pytest.mark.parametrize("role", roles.ROLES)
def test_strict_schemas_name_every_field_and_nothing_that_servers_refuse(role: str) -> None:
    def check(part: Any) -> None:
        if isinstance(part, dict):
            assert set(part) <= {"type", "enum", "const", "$ref", "description", "$defs", "properties", "required",
                                 "additionalProperties", "items", "anyOf"}  # fmt: skip
            if "properties" in part:
                assert part["required"] == list(part["properties"]) and part["additionalProperties"] is False
            for key in ("$defs", "properties"):
                for inner in part.get(key, {}).values():
                    check(inner)
            check(part.get("items"))

    check(strict_schema(roles.ROLES[role][1]))
