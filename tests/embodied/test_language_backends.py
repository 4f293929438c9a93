"""Backends beside the grammar: what they are asked, what they may answer, and what is done when they fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.errors import UsageError
from embodied.evaluation.backend_claims import questions
from embodied.language import roles
from embodied.language.agreement import agreement
from embodied.language.base import LMError, LMRequest, LMResult, Usage
from embodied.language.budget import Budget, Limits
from embodied.language.cassettes import Cassette, key_of, read_lines
from embodied.language.checking import check_answer
from embodied.language.dialogue import Said, converse
from embodied.language.faults import KINDS, Faults
from embodied.language.grammar import GrammarModel
from embodied.language.guard import FIRST_REST, HANGING, PATIENCE, Fallback, Guard
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
