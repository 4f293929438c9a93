"""The OpenAI-compatible backend against a server of our own, on 127.0.0.1, that behaves in every way there is."""

from __future__ import annotations

import builtins
import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from embodied.asking import say
from embodied.cli.config import compose
from embodied.cli.doctor import language as examine_language
from embodied.cli.schema import LANGUAGES, ROLES, AskConfig, BudgetConfig, LanguageConfig, RunConfig
from embodied.errors import ConfigError, UsageError
from embodied.evaluation.backend_claims import ask_all, language_of, questions
from embodied.language import roles
from embodied.language.base import LMError, LMRequest
from embodied.language.grammar import GrammarModel
from embodied.language.openai_server import MOST_BYTES, OpenAIModel
from embodied.language.selection import BACKENDS, LEDGER, agent_of, describe
from embodied.language.stub_server import MODES, Stub, stub_server
from embodied.planning.execute import Outcome

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
ASKED = questions()


def model(stub: Stub, **settings: Any) -> OpenAIModel:
    return OpenAIModel(stub.url, "stub", **({"timeout": 20.0, "retries": 1} | settings))


def request(role: str, **changes: Any) -> LMRequest[Any]:
    return LMRequest(role, ASKED[role].model_copy(update=changes), roles.ROLES[role][1])


@pytest.mark.parametrize(
    ("mode", "schema", "stream"),
    [("ok", "strict", False), ("rejects strict", "schema", False), ("plain only", "text", False),
     ("ignores schemas", "strict", False), ("streams", "strict", False), ("429", "strict", False)],
)  # fmt: skip
def test_what_a_server_can_do_is_found_out_once_and_remembered(mode: str, schema: str, stream: bool) -> None:
    with stub_server(mode) as stub:
        asking = model(stub)
        first = asking.complete(request("answer"))
        assert first.value == GrammarModel().complete(request("answer")).value
        assert asking.able is not None
        assert (asking.able.schema, asking.able.stream) == (schema, stream)
        before = stub.count
        second = asking.complete(request("plan"))
        assert second.value == GrammarModel().complete(request("plan")).value
        assert stub.count - before == second.usage.requests <= 2
        assert first.usage.requests == before
        body = stub.seen[-1]
        assert body["model"] == "stub" and ("response_format" in body) == (schema != "text")
        assert ("JSON schema" in body["messages"][0]["content"]) == (schema == "text")


def test_pictures_are_sent_where_they_are_seen_and_left_out_where_not() -> None:
    shown = request("judge", frames=(PNG,))
    with stub_server("ok") as stub:
        asking = model(stub)
        assert asking.complete(shown).value.success
        assert stub.seen[-1]["messages"][1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
        assert asking.able is not None and asking.able.images
    with stub_server("plain only") as stub:
        blind = model(stub)
        assert blind.complete(shown).value.success
        assert isinstance(stub.seen[-1]["messages"][1]["content"], str)
        assert blind.able is not None and blind.able.images is False
        assert "sees no pictures" in blind.able.describe()


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("truncates", r"cut off\), and stub at 127.0.0.1 did not mend it in 2 tries"),
        ("500", "answered 500: .*out of order"),
        ("breaks off", "cannot be reached"),
        ("huge", f"more than {MOST_BYTES:,} bytes"),
        ("nested", "nested deeper|sent no chat completion"),
        ("wrong types", "is no ProposeReply"),
        ("unknown symbols", "unknown predicate 'zorb'|unknown"),
        ("no completion", "sent no chat completion: no text in"),
        ("injection", "Extra inputs are not permitted|did not mend"),
    ],
)
def test_a_bad_server_is_one_sentence(mode: str, why: str) -> None:
    with stub_server(mode) as stub:
        asking = model(stub, retries=0)
        if mode == "injection":  # every second reply is one that could be used: the first has to be bad, and is mended
            value = asking.complete(request("propose")).value
            goals = {p.goal for p in value.proposals}
            assert goals and "lifted(red)" not in goals  # whatever it was told, what comes out is a goal to practise
            return
        with pytest.raises(LMError, match=why) as caught:
            asking.complete(request("propose"))
        assert "\n" not in str(caught.value) and caught.value.usage.requests > 0


@pytest.mark.parametrize("mode", ["stalls", "drips"])
def test_waiting_ends(mode: str) -> None:
    with stub_server(mode, stall=5.0) as stub:
        asking = model(stub, timeout=0.3)
        began = time.monotonic()
        with pytest.raises(LMError):
            asking.complete(request("answer"))
        assert time.monotonic() - began < 4.0


def test_a_server_that_is_not_there_or_not_ours_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asking = OpenAIModel(f"http://127.0.0.1:{port}/v1", "stub", timeout=5.0, retries=0)
    with pytest.raises(LMError, match="cannot be reached: APIConnectionError"):
        asking.complete(request("answer"))
    with stub_server("ok") as stub:
        lost = OpenAIModel(stub.url, "stub", key="secret", timeout=5.0)
        lost.complete(request("answer"))
        assert "secret" not in json.dumps(stub.seen)
        for body, status in ((b"{}", 400), (b"[1", 400)):
            call = urllib.request.Request(f"{stub.url}/chat/completions", data=body)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call, timeout=5)
            assert caught.value.code == status
            caught.value.close()
    with pytest.raises(ValueError, match="unknown mode 'rude'; valid are ok"), stub_server("rude"):
        pass


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("stalls", "drips", "breaks off", "500")])
def test_every_role_gets_an_answer_whatever_the_server_does(mode: str, tmp_path: Path) -> None:
    with stub_server(mode) as stub:
        config = language_of(stub.url)
        config.retries = 0 if mode != "429" else 1
        found = ask_all(lambda: agent_of(config, tmp_path))
    assert sum(found["answered"].values()) + sum(found["degraded"].values()) == len(roles.ROLES)
    if mode in ("ok", "rejects strict", "plain only", "429", "streams", "ignores schemas"):
        assert not found["degraded"]
    if mode in ("truncates", "huge", "nested", "no completion", "wrong types"):
        assert not found["answered"]
    assert (tmp_path / LEDGER).is_file()


# -- chosen by configuration


def test_the_grammar_comes_bare_and_every_name_has_a_backend(tmp_path: Path) -> None:
    assert type(agent_of(RunConfig().language, tmp_path)) is GrammarModel
    assert tuple(BACKENDS) == LANGUAGES and tuple(roles.ROLES) == ROLES
    assert not list(tmp_path.iterdir())


def test_a_backend_is_named_for_short_and_its_settings_below() -> None:
    settings = ["language=openai", "language.endpoint=http://127.0.0.1:9/v1", "language.model=m"]
    for schema in (RunConfig, AskConfig):
        found = compose(schema, [*settings, "language.budget.requests=7", "language.roles=[propose]"]).language
        assert (found.backend, found.budget.requests, found.roles) == ("openai", 7, ["propose"])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["language=gpt"], "language.backend = 'gpt' is not one of: grammar, task_lm, openai"),
        (["language=openai"], "needs language.endpoint"),
        (["language=openai", "language.endpoint=localhost:80", "language.model=m"], "needs language.endpoint"),
        (["language=replay"], "needs language.cassette"),
        (["language.roles=[sing]"], "must name at least one of: propose"),
        (["language.timeout=0"], "language.timeout = 0"),
        (["language.budget.money=-1"], "language.budget.money"),
        (["language.endpont=x"], "did you mean 'language.endpoint'"),
    ],
)
def test_mistakes_are_one_sentence(settings: list[str], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(RunConfig, settings)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_missing_keys_and_libraries_are_named(monkeypatch, tmp_path: Path) -> None:
    config = LanguageConfig("openai", "http://127.0.0.1:9/v1", "m", key_variable="NO_SUCH_KEY")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UsageError, match="names NO_SUCH_KEY, which is not set"):
        agent_of(config, tmp_path)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "embodied.language.openai_server":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    config.key_variable = ""
    with pytest.raises(UsageError, match=r"pip install 'embodied-repertoire\[language\]'"):
        agent_of(config, tmp_path)
    with pytest.raises(UsageError, match="is no folder with a model"):
        agent_of(LanguageConfig("transformers", model="nowhere"), tmp_path)
    with pytest.raises(UsageError, match=r"language.model = 'nowhere' holds no task model"):
        agent_of(LanguageConfig("task_lm", model="nowhere"), tmp_path)


def test_recorded_once_it_is_replayed_without_a_server(tmp_path: Path) -> None:
    tape = str(tmp_path / "tape.jsonl")
    with stub_server("ok") as stub:
        config = language_of(stub.url)
        config.cassette = tape
        said = agent_of(config, tmp_path / "one").complete(request("describe"))
    told: list[str] = []
    player = agent_of(LanguageConfig("replay", model="stub", cassette=tape), tmp_path / "two", told.append)
    again = player.complete(request("describe"))
    assert again.value == said.value and not again.degraded and not told
    other = player.complete(request("answer"))
    assert other.backend == "grammar" and "has no answer to this request to 'answer'" in other.degraded
    assert told == [f"{other.degraded}; grammar answers instead"]


def test_a_spent_budget_falls_to_the_grammar_and_says_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    with stub_server("ok") as stub:
        config = language_of(stub.url)
        config.budget = BudgetConfig(requests=2)
        agent = agent_of(config, tmp_path, told.append)
        results = [agent.complete(request("answer")) for _ in range(4)]
        count = stub.count
    assert [bool(result.degraded) for result in results] == [False, True, True, True]
    assert count == 2 and len(told) == 1 and "the budget of 2 requests is used up" in told[0]


def test_the_doctor_names_who_would_speak() -> None:
    with stub_server("rejects strict") as stub:
        config = language_of(stub.url)
        finding = examine_language(config)
        assert finding.fine and "openai: stub at 127.0.0.1, replies by schema" in finding.text
        assert "asked to propose, relabel" in describe(config)
    with stub_server("500") as stub:
        config = language_of(stub.url)
        config.retries = 0
        assert not examine_language(config).fine


def test_what_a_server_says_of_success_comes_after_what_the_simulator_says(tmp_path: Path) -> None:
    outcome = Outcome("lit(lamp)", holds={"lit(lamp)": False}, reason="I have no skill for it")
    plain = say("turn on the lamp", outcome)
    assert plain == say("turn on the lamp", outcome, GrammarModel())
    with stub_server("ok") as stub:
        text = say("turn on the lamp", outcome, agent_of(language_of(stub.url), tmp_path))
    assert text == f"Not done, says the simulator. stub at 127.0.0.1 says: {plain}"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ok", "500", "injection"])
def test_a_life_behind_a_server_ends_well(mode: str, tmp_path: Path) -> None:
    from embodied.evaluation.backend_claims import _live

    row: dict[str, Any] = {}
    with stub_server(mode) as stub:
        assert _live(tmp_path, language_of(stub.url), 0, row), row
    assert (row["server answered"] > 0) == (mode != "500")
