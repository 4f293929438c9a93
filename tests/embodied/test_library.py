"""The skill library: immutable, atomic by round, and a status that only evidence can give."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import embodied
from embodied.core import EvalReport, OperatorCount, Skill
from embodied.skills.gate import Gate
from embodied.skills.library import LibraryError, SkillLibrary
from embodied.skills.statistics import wilson
from policies.checkpoint import write_checkpoint

ROOT = Path(embodied.__file__).parents[1]
GOAL = "open(drawer)"


def policy(directory: Path, number: int = 0) -> Path:
    write_checkpoint(directory, "random", {"number": number}, {"weight": np.full(3, number, np.float32)})
    return directory


def report(n: int, k: int, seed: int, goal: str = GOAL, kind: str = "simulator") -> EvalReport:
    return EvalReport(goal, "", seed, np.arange(n) < k, kind=kind, versions={"mujoco": "4.0"})


def admit(tx: object, version: str, goal: str = GOAL, k: int = 190, seed: int = 0) -> None:
    for offset, purpose in enumerate(("gate", "confirm")):
        tx.add_evidence(version, purpose, report(200, k, seed + offset, goal))  # type: ignore[attr-defined]


def one_skill(directory: Path) -> Skill:
    """A library with one committed round: a skill admitted for one goal."""
    with SkillLibrary.open(directory / "library.sqlite") as library, library.round(0) as tx:
        skill = tx.add_skill("open(drawer)", policy(directory / "p"), provenance={"round": 0})
        admit(tx, skill.version)
        tx.seal(ledger_offset=10, store_offsets={"index": 5}, state={"next": "lamp"})
    return skill


def test_a_round_comes_back_as_it_was_written(tmp_path: Path) -> None:
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        assert (library.next_round, library.last_round, library.mastered()) == (0, None, [])
        with library.round(0) as tx:
            first = tx.add_skill(
                "on(?a:block, ?b:block)", policy(tmp_path / "a", 1), conditioning={"type": "goal"},
                signature={"?a": "block"}, provenance={"steps": 9},
            )  # fmt: skip
            second = tx.add_skill("on(?a:block, ?b:block)", policy(tmp_path / "b", 2), parent=first.version)
            assert tx.add_skill("on(?a:block, ?b:block)", tmp_path / "b", parent=first.version) == second
            admit(tx, first.version, "on(red, blue)", 190)
            admit(tx, second.version, "on(red, blue)", 195, seed=50)
            admit(tx, first.version, "on(blue, red)", 180)
            tx.count([OperatorCount("on(?a:block, ?b:block)", "clear(?b)", "precondition", 10, 9)] * 2)
            assert [m.goal for m in library.mastered()] == ["on(blue, red)", "on(red, blue)"]
            tx.seal(ledger_offset=123, store_offsets={"index": 7}, state={"bandit": [0.5, {"x": None}]})
    with SkillLibrary.open(tmp_path / "library.sqlite", readonly=True) as library:
        last = library.last_round
        assert last is not None and library.next_round == 1
        assert (last.ledger_offset, last.store_offsets, last.state) == (
            123,
            {"index": 7},
            {"bandit": [0.5, {"x": None}]},
        )
        assert library.skills() == sorted([first, second], key=lambda s: s.version)
        assert library.skill(first.version).provenance == {"steps": 9}
        best = library.best("on(red, blue)")
        assert best is not None and best.skill == second and (best.n, best.successes) == (200, 195)
        assert best.lower == pytest.approx(float(wilson(195, 200)[0]))
        assert library.best("lit(lamp)") is None
        assert library.operators() == [OperatorCount("on(?a:block, ?b:block)", "clear(?b)", "precondition", 20, 18)]
        assert [e.purpose for e in library.evidence(version=first.version, goal="on(blue, red)")] == [
            "gate",
            "confirm",
        ]
        assert (library.artifact(second) / "model.safetensors").is_file()
        library.verify()


@pytest.mark.parametrize("threshold", [0.8, 0.5, 0.0])
def test_the_status_is_wilsons_bound_for_every_count(tmp_path: Path, threshold: float) -> None:
    with SkillLibrary.open(tmp_path / "library.sqlite", threshold=threshold) as library, library.edit() as tx:
        version = tx.add_skill("s", policy(tmp_path / "p")).version
        cases = [(n, k) for n in (1, 7, 16, 40, 100, 200, 333) for k in range(0, n + 1, 1 + n // 60)]
        for n, k in cases:
            for purpose, seed in (("gate", 0), ("confirm", 1)):
                tx.add_evidence(version, purpose, report(n, k, seed, f"{n} {k}"))
        status = {row.goal: row.status == "admitted" for row in library.status()}
        assert status == {f"{n} {k}": bool(wilson(k, n)[0] >= threshold) for n, k in cases}


def test_only_the_simulators_gate_and_confirmation_from_here_admit(tmp_path: Path) -> None:
    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        version = tx.add_skill("s", policy(tmp_path / "p")).version

        def status() -> str:
            return library.status(version=version, goal=GOAL)[0].status

        tx.add_evidence(version, "screen", report(200, 200, 1))
        tx.add_evidence(version, "gate", report(200, 190, 2))
        tx.add_evidence(version, "confirm", report(200, 200, 3, kind="language"))
        tx.add_evidence(version, "confirm", report(200, 200, 4, kind="judge"))
        assert status() == "probation" and library.best(GOAL) is None
        tx.add_evidence(version, "regression", report(100, 10, 5))  # before the admission: no retirement
        tx.add_evidence(version, "confirm", report(200, 190, 6))
        assert status() == "admitted"
        tx.add_evidence(version, "regression", report(100, 76, 7))  # 0.76, but its upper bound is 0.83
        assert status() == "admitted"
        tx.add_evidence(version, "regression", report(100, 60, 8))
        assert status() == "deprecated" and library.best(GOAL) is None
        tx.add_evidence(version, "regression", report(100, 100, 9))
        assert status() == "deprecated"


def test_a_second_try_is_pooled_with_the_first_not_chosen_from(tmp_path: Path) -> None:
    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        version = tx.add_skill("s", policy(tmp_path / "p")).version
        tx.add_evidence(version, "gate", report(200, 140, 1))
        admit(tx, version, seed=10)
        assert library.status()[0].status == "candidate" and library.status()[0].gate_n == 400
        with pytest.raises(LibraryError, match=r"seed 10 was already used .* fresh seeds"):
            tx.add_evidence(version, "confirm", report(200, 200, 10))


def test_the_gates_decision_becomes_evidence_that_says_the_same(tmp_path: Path) -> None:
    def evaluate(candidate: float, questions: Sequence[tuple[str, int, int]]) -> list[EvalReport]:
        return [
            EvalReport(goal, "", seed, np.random.default_rng(seed).random(n) < candidate) for goal, n, seed in questions
        ]

    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        for number, rate in enumerate((0.97, 0.6)):
            version = tx.add_skill("s", policy(tmp_path / "p", number)).version
            decision = Gate(evaluate, 0).decide(GOAL, [rate], round=number, earlier_goals=["lit(lamp)"])
            tx.add_decision(version, decision)
            assert len(library.evidence(version=version)) == len(decision.winner_reports)
            assert (library.status(version=version, goal=GOAL)[0].status == "admitted") == decision.admitted


@pytest.mark.parametrize("table", ["skills", "evidence", "rounds", "settings"])
def test_what_was_found_out_cannot_be_changed_even_by_hand(tmp_path: Path, table: str) -> None:
    one_skill(tmp_path)
    connection = sqlite3.connect(tmp_path / "library.sqlite")
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    for statement in (
        *(f"UPDATE {table} SET {column} = {column}" for column in columns),
        f"DELETE FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        f"REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
    ):
        with pytest.raises(sqlite3.IntegrityError, match=f"{table} are immutable"):
            connection.execute(statement)
    connection.close()
    assert not [name for name in dir(SkillLibrary) if "set_status" in name or "admit" in name]


def test_an_unfinished_round_leaves_nothing_and_the_order_is_kept(tmp_path: Path) -> None:
    skill = one_skill(tmp_path)
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        digest = library.digest()
        for index, sentence in (
            (0, "its next round is 1"),
            (2, "its next round is 1"),
            (1, "was not sealed"),
        ):
            with pytest.raises(LibraryError, match=sentence), library.round(index) as tx:
                tx.add_skill("lost", policy(tmp_path / "q", 9))
        with pytest.raises(KeyError), library.round(1) as tx:
            orphan = tx.add_skill("lost", policy(tmp_path / "q", 9)).artifact
            raise KeyError("the loop failed")
        with pytest.raises(LibraryError, match="already open"), library.round(1), library.edit():
            pass
        with pytest.raises(LibraryError, match="has no skill"), library.edit() as tx:
            tx.add_evidence("0" * 64, "gate", report(1, 1, 0))
        with (
            pytest.raises(LibraryError, match=r"unknown purpose 'test'; the|screen, gate"),
            library.edit() as tx,
        ):
            tx.add_evidence(skill.version, "test", report(1, 1, 0))
        assert library.digest() == digest and library.skills() == [skill] and library.next_round == 1
        assert library.gc() == [orphan] and library.gc() == []
        assert (library.artifact(skill) / "config.json").is_file()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import embodied.skills.artifacts as artifacts
from test_library import SkillLibrary, admit, policy
from test_store import episode
from embodied.data.store import EpisodeStore
folder, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
with SkillLibrary.open(folder / "library.sqlite") as library, EpisodeStore.open(folder / "episodes") as store:
    for index in range(4):
        last = index == 2
        with library.round(index) as tx:
            store.extend([episode(10 * index + i) for i in range(3)])
            if last and moment == "artifact": artifacts.write_durably = die
            skill = tx.add_skill("s", policy(folder / "p", index))
            if last and moment == "skill": die()
            admit(tx, skill.version, f"goal {{index}}")
            tx.seal(ledger_offset=index, store_offsets=store.commit(), state=dict(index=index))
            if last and moment == "sealed": die()
        if last and moment == "committed": store.extend([episode(99)]); die()
"""


@pytest.mark.parametrize("moment", ["artifact", "skill", "sealed", "committed"])
def test_kill_in_the_middle_of_a_round_leaves_the_last_whole_one(tmp_path: Path, moment: str) -> None:
    from embodied.data.store import EpisodeStore

    code = KILLED.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path), moment], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    rounds = 3 if moment == "committed" else 2
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        last = library.last_round
        assert last is not None and last.index == rounds - 1 and last.state == {"index": rounds - 1}
        assert [m.goal for m in library.mastered()] == [f"goal {i}" for i in range(rounds)]
        assert len(library.gc()) == (1 if moment in ("skill", "sealed") else 0)
        library.verify()
        with EpisodeStore.open(tmp_path / "episodes", last.store_offsets) as store:
            assert [e.seed for e in store.iterate()] == [10 * r + i for r in range(rounds) for i in range(3)]
        with library.round(rounds) as tx:  # and the round can be done again
            skill = tx.add_skill("s", policy(tmp_path / "p", rounds))
            admit(tx, skill.version, f"goal {rounds}")
            tx.seal(ledger_offset=0, store_offsets={})
        assert len(library.mastered()) == rounds + 1 and not list((tmp_path / "artifacts").glob(".*"))


def test_the_digest_is_of_the_content_whatever_the_order(tmp_path: Path) -> None:
    digests = []
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1]), ("c", [0, 1])):
        folder = tmp_path / name
        with SkillLibrary.open(folder / "library.sqlite") as library, library.edit() as tx:
            for number in order:
                skill = tx.add_skill("s", policy(folder / "p", number), provenance={"minutes": len(digests)})
                admit(tx, skill.version, seed=number * 10)
        with SkillLibrary.open(folder / "library.sqlite", readonly=True) as library:
            digests.append(library.digest())
    assert digests[0] == digests[1] != digests[2]


def test_a_damaged_file_or_artifact_is_one_clear_error(tmp_path: Path) -> None:
    skill = one_skill(tmp_path)
    path = tmp_path / "library.sqlite"
    with SkillLibrary.open(path) as library:
        model = library.artifact(skill) / "model.safetensors"
        whole = model.read_bytes()
        model.write_bytes(whole[:-1] + b"\x07")
        with pytest.raises(LibraryError, match=rf"artifact at {model.parent} is damaged"):
            library.artifact(skill)
        with library.edit() as tx:  # adding the same policy again heals it
            tx.add_skill(skill.schema, tmp_path / "p")
        assert library.artifact(skill).is_dir() and model.read_bytes() == whole
        model.unlink()
        with pytest.raises(LibraryError, match="is damaged"):
            library.verify()
    sound = path.read_bytes()
    for content, sentence in (
        (b"no database at all, but long enough to be one" * 99, "is damaged .*not a database"),
        (sound[:4096] + b"\xff" * 8192 + sound[4096 + 8192 :], "is damaged"),
        (sound[: len(sound) // 2], "is damaged"),
        (b"", "was cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(LibraryError, match=sentence) as caught:
            SkillLibrary.open(path)
        assert str(path) in str(caught.value) and "restore" in str(caught.value)
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(LibraryError, match="no skill library"):
        SkillLibrary.open(path)


def test_misuse_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="there is no library"):
        SkillLibrary.open(tmp_path / "library.sqlite", readonly=True)
    skill = one_skill(tmp_path)
    with pytest.raises(LibraryError, match=r"admits at 0\.8, not at 0\.5"):
        SkillLibrary.open(tmp_path / "library.sqlite", threshold=0.5)
    with SkillLibrary.open(tmp_path / "library.sqlite", readonly=True) as library:
        with pytest.raises(LibraryError, match="opened read-only"), library.edit() as tx:
            tx.add_evidence(skill.version, "gate", report(1, 1, 99))
        assert library.threshold == 0.8 and len(library.mastered()) == 1
    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        (tmp_path / "empty").mkdir()
        with pytest.raises(LibraryError, match=r"empty cannot become a skill: .*config\.json"):
            tx.add_skill("s", tmp_path / "empty")
        with pytest.raises(LibraryError, match="has no skill"):
            tx.add_skill("s", tmp_path / "p", parent="0" * 64)
