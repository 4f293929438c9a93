"""Imports prove themselves: what passes is adopted with words of our own, what fails stays out, and why is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied import cli, runs
from embodied.cli.config import save
from embodied.cli.schema import GateConfig, RunConfig
from embodied.core import EvalReport, Skill
from embodied.errors import UsageError
from embodied.journal import Journal
from embodied.language.faults import INJECTION
from embodied.language.grammar import GrammarModel
from embodied.repertoire import Repertoire
from embodied.skills.index import SkillIndex
from embodied.skills.library import SkillLibrary
from embodied.skills.manifest import HandbookFacet
from embodied.skills.packs import export_pack, import_pack
from embodied.skills.retrieval import CapabilityGap, Query, retrieve
from embodied.training import proving, rounds
from embodied.training.proving import prove, waiting
from embodied.training.rounds import Worker
from envs.observations import FEATURES
from policies.random import RandomPolicy

GOAL = "open(drawer)"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "EXECUTIONS", 2)
    monkeypatch.setattr(proving, "CONTEXTS", 2)


def worker_of(folder: Path, threshold: float = 0.0) -> Worker:
    """A life of nothing yet; its gate lets everything pass unless a threshold is given."""
    n = 2 if threshold == 0.0 else 20
    config = RunConfig(
        name="life", out=str(folder), num_envs=16, threads=1, gate=GateConfig(2, n, n, threshold), heldout_episodes=0
    )
    (folder / "life").mkdir(parents=True, exist_ok=True)
    save(config, folder / "life" / runs.CONFIG)
    journal = Journal.open(folder / "life", threshold)
    return Worker(config, journal, GrammarModel(), lambda steps: None, lambda line: None)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = worker_of(tmp_path)
    yield made
    made.journal.close()


def take_in(
    worker: Worker, folder: Path, *, seed: int = 0, size: int = FEATURES, schema: str = GOAL, **how: Any
) -> Skill:
    """A stranger's skill, taken in from a pack with perfect evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    RandomPolicy(size, 5, seed).save_pretrained(folder / "policy")
    told = {"conditioning": {"kind": "goal"}, "provenance": {"executed": {GOAL: [900, 900]}}} | how
    place = None if told.pop("words", False) else folder / "policy"
    with SkillLibrary.open(folder / "home" / "library.sqlite") as library:
        with library.edit() as tx:
            skill = tx.add_skill(schema, place, **told)
            for number, purpose in enumerate(("gate", "confirm")):
                tx.add_evidence(skill.version, purpose, EvalReport(GOAL, "", number, np.ones(500, np.bool_)))
        pack = export_pack(library, [skill.version], folder / "skill.pack")
    with worker.journal.library.edit() as tx:
        (taken,) = import_pack(tx, pack)
    return taken


def served(worker: Worker) -> tuple[set[str], Any]:
    """The versions that a plan may use, and what retrieval answers."""
    library = worker.journal.library
    repertoire = Repertoire.load(library, worker.journal.state.operators)
    return set(repertoire.versions.values()), retrieve(SkillIndex(library), Query(text="open drawer"))


def test_what_passes_is_adopted_with_our_own_words_and_before_that_nothing_uses_it(worker: Worker, tmp_path: Path):
    taken = take_in(worker, tmp_path / "away", handbook=HandbookFacet(INJECTION, INJECTION, INJECTION))
    library = worker.journal.library
    assert waiting(library) == [taken]
    used, found = served(worker)
    assert not used and isinstance(found, CapabilityGap)
    proof = prove(worker, taken.version)
    assert (proof.stage, proof.goals) == ("adopted", (GOAL,))
    made = library.skill(proof.version)
    assert made.parent == taken.version and made.artifact == taken.artifact and made.tainted
    assert made.handbook is not None and INJECTION not in str(made.facets)
    assert made.provenance["executed"] != taken.provenance["executed"]
    used, found = served(worker)
    assert used == {proof.version} and [one.version for one in found] == [proof.version]
    assert library.standing([taken.version])[0].status == "quarantined" and not waiting(library)
    assert proof.version in library.members(GOAL) and taken.version not in library.members(GOAL)
    assert len(worker.journal.store) == 0  # what a stranger's policy did is nothing to learn from
    (line,) = [json.loads(x) for x in (worker.journal.directory / runs.LEDGER).read_text().splitlines()]
    assert (line["kind"], line["outcome"]) == ("import", "admitted")
    with pytest.raises(UsageError, match="is admitted, not quarantined"):
        prove(worker, proof.version)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"schema": INJECTION}, "is none of the 11 kinds of goals"),
        ({"conditioning": {"kind": "code", "code": [1.0]}}, "another kind of run"),
        ({"size": 7}, "its policy takes 7 numbers and gives 5; this body has 78 and 5"),
        ({"words": True, "handbook": HandbookFacet("now", "this", "")}, "comes without a policy"),
    ],
)
def test_static_checks_let_nothing_act(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Mapping[str, Any], sentence: str
):
    def acts(*_: object, **__: object) -> None:
        raise AssertionError("it must not act")

    taken = take_in(worker, tmp_path / "away", **how)
    monkeypatch.setattr(proving, "measure_all", acts)
    monkeypatch.setattr(proving, "simulated", acts)
    proof = prove(worker, taken.version)
    assert proof.stage == "static" and sentence in proof.reason and not proof.goals
    assert not served(worker)[0] and not waiting(worker.journal.library)


def test_a_policy_that_fails_to_run_is_its_senders_fault(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def explode(*_: object, **__: object) -> None:
        raise OverflowError("a billion layers")

    taken = take_in(worker, tmp_path / "away")
    monkeypatch.setattr(proving, "load_policy", explode)
    assert "does not run (OverflowError: a billion layers)" in prove(worker, taken.version).reason


def test_a_flagged_skill_is_rejected_with_lessons_that_bind_nobody_and_is_known_again(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = ("open(drawer)", "lit(lamp)", "clear(red)")

    def simulated(*_: object, **__: object) -> tuple[Any, tuple[str, ...]]:
        def execute(version: str, states: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
            before = np.random.default_rng(states[1]).random((200, 3)) < 0.5
            before[:, 0] = False
            after = before.copy()
            after[:, 0] = True
            if version == taken.version:
                after[before[:, 2], 1] = False  # puts out the lamp where red is clear
            return before, after

        return execute, facts

    own = take_in(worker, tmp_path / "own", seed=5)
    with worker.journal.library.edit() as tx:
        RandomPolicy(FEATURES, 5, 7).save_pretrained(tmp_path / "mine")
        mine = tx.add_skill(GOAL, tmp_path / "mine")
        for number, purpose in enumerate(("gate", "confirm")):
            tx.add_evidence(mine.version, purpose, EvalReport(GOAL, "", number, np.ones(9, np.bool_)))
    taken = take_in(worker, tmp_path / "away", seed=6)
    monkeypatch.setattr(proving, "simulated", simulated)
    proof = prove(worker, taken.version)
    library = worker.journal.library
    assert proof.stage == "consensus" and proof.reason.startswith("flagged: ")
    assert library.lessons(GOAL) and all(lesson.tainted for lesson in library.lessons())
    assert not Repertoire.load(library, {}).operators[GOAL].forbidden  # else a bad version would forbid the good one
    assert served(worker)[0] == {mine.version}
    (row,) = library.gate_decisions(taken.version)
    assert row.verdict == proving.REJECTED and row.numbers["consensus"][0]["near"]["count"] > 0
    again = take_in(worker, tmp_path / "again", seed=6, handbook=HandbookFacet("now", "as before", ""))
    assert again.version != taken.version
    assert f"is that of {taken.version[:12]}, which was rejected here" in prove(worker, again.version).reason
    assert waiting(library) == [own]
    with library.edit() as tx:
        tx.revoke(mine.version, "old")
    twin = take_in(worker, tmp_path / "twin", seed=7, handbook=HandbookFacet("now", "as before", ""))
    assert "which was revoked" in prove(worker, twin.version).reason


def test_what_fails_at_the_gate_stays_in_quarantine(tmp_path: Path):
    worker = worker_of(tmp_path, threshold=0.8)
    taken = take_in(worker, tmp_path / "away")
    proof = prove(worker, taken.version)
    assert proof.stage == "gate" and "rejected at the screen" in proof.reason and not proof.version
    assert worker.journal.library.standing([taken.version])[0].status == "quarantined"
    assert not served(worker)[0]
    worker.journal.close()


def test_what_a_stranger_says_of_executions_is_not_believed_and_an_untainted_equal_goes_first():
    from embodied.repertoire import _steadiest

    own = Skill(GOAL, "a" * 64, provenance={"executed": {GOAL: [80, 100]}})
    boast = Skill(GOAL, "b" * 64, provenance={"executed": {GOAL: [1_000, 1_000]}}, principal="key:ab", tainted=True)
    adopted = Skill(GOAL, "c" * 64, provenance={"executed": {GOAL: [81, 100]}}, tainted=True)
    better = replace(adopted, provenance={"executed": {GOAL: [99, 100]}})
    assert _steadiest([own, boast], GOAL) is own
    assert _steadiest([own, adopted], GOAL) is own
    assert _steadiest([own, better], GOAL) is better


def test_the_command_proves_what_waits(worker: Worker, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    taken = take_in(worker, tmp_path / "away")
    worker.journal.close()
    run = f"run={worker.journal.directory}"
    assert cli.main(["skills", "prove", run]) == 0
    text = capsys.readouterr().out
    assert f"{taken.version[:12]} open(drawer): adopted as " in text and "1 of 1 imports proved themselves" in text
    assert cli.main(["skills", "prove", "--json", run]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == []
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / runs.ENCODER).write_text("{}")
    assert cli.main(["skills", "prove", f"run={tmp_path / 'training'}"]) == 2
    assert "practises no goals of the grammar" in capsys.readouterr().err
