"""Backends beside the grammar: what they are asked, what they may answer, and what is done when they fail."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.errors import UsageError
from embodied.evaluation.backend_claims import questions
from embodied.language import roles
from embodied.language.agreement import agreement
from embodied.language.base import DEEPEST, LONGEST, LMError, LMRequest, LMResult, Usage, depth, parse_reply, read_json
from embodied.language.budget import Budget, Limits
from embodied.language.cassettes import Cassette, canonical, key_of, read_lines
from embodied.language.checking import check_answer
from embodied.language.dialogue import Said, converse
from embodied.language.faults import INJECTION, KINDS, Faults
from embodied.language.grammar import GrammarModel
from embodied.language.guard import FIRST_REST, HANGING, PATIENCE, Fallback, Guard
from embodied.language.prompts import data_of, messages_of, strict_schema, table_of
from embodied.language.stub_server import answer
from embodied.language.transformers_local import load

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
ASKED = questions()


def request(role: str, **changes: Any) -> LMRequest[Any]:
    return LMRequest(role, ASKED[role].model_copy(update=changes), roles.ROLES[role][1])


class Scripted:
    """Does what ``act`` does, and counts."""

    name = "scripted"

    def __init__(self, act: Callable[[LMRequest[Any]], Any]) -> None:
        self.act, self.count = act, 0

    def complete(self, request: LMRequest[Any]) -> LMResult[Any]:
        self.count += 1
        return self.act(request)


def fails(text: str = "no", **fields: Any) -> Scripted:
    def act(request: LMRequest[Any]) -> Any:
        raise LMError(text, **fields)

    return Scripted(act)


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


def test_a_reply_is_mended_at_most_twice_and_everything_is_counted() -> None:
    shown: list[Any] = []

    def speak(messages: list[dict[str, Any]], reply: Any) -> Said:
        shown.append(messages)
        return Said(answer(messages) if len(shown) == 3 else '{"proposals": 3}', Usage(1, 7, 3, 0.5))

    result = converse(request("propose"), speak, "writer")
    assert result.usage == Usage(3, 21, 9, 1.5) and result.backend == "writer"
    assert [len(messages) for messages in shown] == [2, 4, 4]
    assert "proposals: Input should be a valid tuple" in shown[1][-1]["content"]
    with pytest.raises(LMError, match=r"proposals: .* writer did not mend it in 2 tries") as caught:
        converse(request("propose"), lambda m, r: Said('{"proposals": 3}', Usage(1), cut=True), "writer")
    assert caught.value.usage.requests == 3 and "cut off" in str(caught.value)
    with pytest.raises(LMError, match="unknown role 'sing'"):
        converse(LMRequest("sing", ASKED["answer"], roles.AnswerReply), speak, "writer")


# -- guard and fallback


def test_a_guard_lets_nothing_through_but_checked_replies() -> None:
    good = Guard(Scripted(signed), 5.0)
    for role in roles.ROLES:
        assert good.complete(request(role)).value == signed(request(role)).value

    def crash(request: LMRequest[Any]) -> Any:
        raise ZeroDivisionError("oh")

    forged = roles.ProposeReply.model_construct(proposals="all")  # type: ignore[arg-type]
    for act, why in (
        (crash, "failed at 'propose' with ZeroDivisionError: oh"),
        (lambda r: "text", "with a str, not a ProposeReply"),
        (lambda r: LMResult(signed(request("answer")).value, "x"), "with a AnswerReply"),
        (lambda r: LMResult(forged, "x"), "no ProposeReply"),
    ):
        with pytest.raises(LMError, match=why):
            Guard(Scripted(act), 5.0).complete(request("propose"))


def test_a_guard_waits_no_longer_than_it_is_told_and_not_for_ever_more() -> None:
    slow = Guard(Scripted(lambda request: time.sleep(0.6)), 0.02)
    began = time.monotonic()
    for _ in range(HANGING):
        with pytest.raises(LMError, match=r"gave no answer to 'answer' within 0\.02 s"):
            slow.complete(request("answer"))
    with pytest.raises(LMError, match=f"still hangs in {HANGING}"):
        slow.complete(request("answer"))
    assert time.monotonic() - began < 0.55


def test_failures_are_answered_by_the_default_marked_and_told_once() -> None:
    told: list[str] = []
    broken = fails("the \x1b[31m line is dead", usage=Usage(2))
    model = Fallback(broken, GrammarModel(), ("propose",), told.append)
    results = [model.complete(request("propose")) for _ in range(PATIENCE + FIRST_REST + 1)]
    assert all(r.degraded.startswith("scripted: the  [31m line") and r.backend == "grammar" for r in results)
    assert results[0].value == GrammarModel().complete(request("propose")).value
    assert results[0].usage.requests == 2
    assert broken.count == PATIENCE + 1  # between, it was left alone
    assert len(told) == 1 and told[0].endswith("grammar answers instead")
    assert model.complete(request("answer")).degraded == ""  # a role that the other is not asked for
    working = Fallback(Scripted(signed), GrammarModel())
    assert working.complete(request("propose")).backend == "other" and working.degraded == {}


# -- cassettes and budgets


def test_cassettes_say_again_what_was_said_and_refuse_what_was_not(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    with pytest.raises(UsageError, match="there is no cassette"):
        Cassette(path, "m")
    backend = Scripted(signed)
    recorder = Cassette(path, "m", backend)
    said = {role: recorder.complete(request(role)) for role in roles.ROLES}
    assert recorder.complete(request("propose")).value == said["propose"].value
    assert backend.count == len(roles.ROLES)
    player = Cassette(path, "m")
    assert all(player.complete(request(role)).value == said[role].value for role in roles.ROLES)
    assert player.complete(request("answer")).backend == "other"
    for other in (request("propose", seed=4), request("judge", frames=(PNG,))):
        with pytest.raises(LMError, match="has no answer to this request"):
            player.complete(other)
    with pytest.raises(LMError, match="has no answer"):
        Cassette(path, "another model").complete(request("answer"))
    assert key_of(request("answer"), "m") == key_of(request("answer"), "m")


def test_failures_are_recorded_too_and_come_again_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    with pytest.raises(LMError, match="busy"):
        Cassette(path, "m", fails("busy")).complete(request("answer"))
    assert Cassette(path, "m", Scripted(signed)).complete(request("answer")).backend == "other"
    player = Cassette(path, "m")
    with pytest.raises(LMError, match="busy"):
        player.complete(request("answer"))
    assert [player.complete(request("answer")).backend for _ in range(2)] == ["other", "other"]


def test_a_torn_line_is_dropped_and_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    Cassette(path, "m", Scripted(signed)).complete(request("answer"))
    with path.open("ab") as file:
        file.write(b'{"key": "half')
    assert len(read_lines(path)) == 1
    Cassette(path, "m", Scripted(signed)).complete(request("propose"))
    assert [row["role"] for row in read_lines(path)] == ["answer", "propose"]
    path.write_bytes(b'{"key": 1}\n')
    with pytest.raises(UsageError, match="is no cassette"):
        Cassette(path, "m")
    path.write_bytes(b"hello\n{}\n")
    with pytest.raises(UsageError, match="line 1 of"):
        Cassette(path, "m")


def test_a_budget_ends_and_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    limits = Limits(requests=3, price_in=1e6, price_out=2e6)
    model = Budget(Scripted(signed), limits, path)
    for _ in range(2):
        model.complete(request("answer"))
    with pytest.raises(LMError, match="dead"):
        Budget(fails("dead", usage=Usage(1)), limits, path).complete(request("answer"))
    again = Budget(Scripted(signed), limits, path)
    assert again.spent.requests == 3
    with pytest.raises(LMError, match=r"the budget of 3 requests is used up \(3\)") as caught:
        again.complete(request("answer"))
    assert caught.value.final
    rows = read_lines(path)
    assert [row["money"] for row in rows] == [20.0, 20.0, 0.0] and rows[2]["problem"] == "dead"
    for name, limit in (("tokens", 15), ("seconds", 0.1), ("money", 20)):
        assert name in Limits(**{name: limit, "price_in": 1e6, "price_out": 2e6}).used_up(Usage(1, 10, 5, 0.1))
    path.write_text('{"requests": "many"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="is no cost ledger"):
        Budget(Scripted(signed), limits, path)


# -- faults, local models, agreement


@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_drawn_by_seed_and_never_get_past_the_guard_as_truth(kind: str) -> None:
    def run(seed: int) -> tuple[list[str], dict[str, int]]:
        faulty = Faults(Scripted(signed), {kind: 0.5}, seed, delay=0.0)
        model = Fallback(Guard(faulty, 5.0), GrammarModel())
        found = []
        for role in roles.ROLES:
            for k in range(4):
                asked = request(role, **({"seed": k} if role == "propose" else {}))
                result = model.complete(asked)
                if not result.degraded:
                    check_answer(asked, result.value)
                found.append(result.value.model_dump_json())
        return found, faulty.count

    assert run(0) == run(0)
    assert sum(run(0)[1].values()) == run(0)[1][kind] > 3
    with pytest.raises(UsageError, match="unknown fault 'rude'; valid are invalid, slow"):
        Faults(Scripted(signed), {"rude": 1.0})
    with pytest.raises(UsageError, match="together at most 1"):
        Faults(Scripted(signed), {"slow": 0.7, "lying": 0.7})


def test_a_liar_flips_verdicts_and_agreement_counts_it() -> None:
    rng = np.random.default_rng(1)
    episodes = []
    for _ in range(40):
        truth = np.zeros((6, 1), np.bool_)
        truth[3:] = rng.random() < 0.5
        episodes.append(roles.JudgeRequest(goal="lit(lamp)", literals=("lit(lamp)",), truth=truth, hold=1))
    honest = agreement(Scripted(signed), episodes)
    assert honest.rate == 1.0 and honest.kappa == 1.0 and honest.n == 40 and honest.failed == 0
    liar = agreement(Faults(Scripted(signed), {"lying": 1.0}), episodes)
    assert liar.rate == 0.0 and liar.only_model + liar.only_simulator == 40
    some = agreement(Faults(Scripted(signed), {"lying": 0.25}), episodes)
    assert 0.5 < some.rate < 0.95 and 0.0 < some.kappa < 1.0
    seen: list[Any] = []

    def blind(request: LMRequest[Any]) -> Any:
        seen.append(request.message)
        raise LMError("I see nothing")

    assert agreement(Scripted(blind), episodes[:2], blind=True).failed == 2
    assert seen[0].literals == () and len(seen[0].truth) == 6


def test_agreement_is_kept(tmp_path: Path) -> None:
    found = agreement(Scripted(signed), [ASKED["judge"]])  # type: ignore[list-item]
    found.save(tmp_path / "agreement.json")
    kept = json.loads((tmp_path / "agreement.json").read_text(encoding="utf-8"))
    assert kept["both"] == kept["n"] == 1 and kept["interval"][0] < 1.0


class _Tokens:
    """Stands in for a tokenizer and a model at once: a text's words are its tokens."""

    def __init__(self) -> None:
        self.text = ""

    def from_pretrained(self, path: str, **options: Any) -> _Tokens:
        assert options["local_files_only"] and not options["trust_remote_code"]
        if not (Path(path) / "config.json").is_file():
            raise OSError("no config.json\nhere")
        return self

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        assert "JSON schema" in messages[0]["content"]
        self.text = answer(messages)
        return {"input_ids": np.zeros((1, 9), np.int64)}

    def generate(self, input_ids: np.ndarray, max_new_tokens: int, do_sample: bool) -> np.ndarray:
        return np.zeros((1, 14), np.int64)

    def decode(self, tokens: np.ndarray, **_: Any) -> str:
        return self.text


def test_a_local_model_comes_from_a_folder_or_not_at_all(tmp_path: Path) -> None:
    library = type("Library", (), {"AutoTokenizer": _Tokens(), "AutoModelForCausalLM": None})
    library.AutoModelForCausalLM = library.AutoTokenizer  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="is no folder with a model; nothing is downloaded"):
        load("some/model")
    with pytest.raises(UsageError, match="holds no model that can be read: no config"):
        load(str(tmp_path), library=library)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    result = load(str(tmp_path), library=library).complete(request("describe"))
    assert (
        result.value.name == "open-drawer" and result.usage.prompt_tokens == 9 and result.usage.completion_tokens == 5
    )
