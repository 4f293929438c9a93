"""Heads, statuses, principals, decisions and lessons of a skill library; older formats; many processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embodied
from embodied.core import EvalReport, Skill
from embodied.evaluation import library_writer
from embodied.planning.operators import Operator
from embodied.repertoire import Repertoire
from embodied.skills.artifacts import LibraryError
from embodied.skills.heads import ROOT, Change, FamilyFull, HeadMoved
from embodied.skills.library import SkillLibrary
from embodied.skills.manifest import HandbookFacet
from embodied.skills.writer import Writer
from envs.goals import Goal

ROOT_DIR = Path(embodied.__file__).parents[1]
GOAL = "open(drawer)"


def entry(tx: Writer, number: int, schema: str = GOAL, **more: object) -> Skill:
    """A version without a policy; different for every number."""
    return tx.insert(Skill(schema, "", {"number": number}, handbook=HandbookFacet(do=f"entry {number}"), **more))  # type: ignore[arg-type]


def report(successes: int, seed: int, goal: str = GOAL, n: int = 200) -> EvalReport:
    return EvalReport(goal, "", seed, np.arange(n) < successes)


def master(tx: Writer, version: str, goal: str, successes: int = 195) -> None:
    for seed, purpose in enumerate(("gate", "confirm")):
        tx.add_evidence(version, purpose, report(successes, seed, goal))


@pytest.fixture
def library(tmp_path: Path):
    with SkillLibrary.open(tmp_path / "library.sqlite", capacity=3) as opened:
        yield opened


def test_a_head_is_swapped_or_the_one_there_is_said(library: SkillLibrary):
    with library.edit() as tx:
        first, second = entry(tx, 1), entry(tx, 2, "lit(lamp)")
    assert library.head == ROOT and library.heads() == [] and len(library.at()) == 0
    one = library.commit(0, Change(add=(first.version,)))
    assert (one.id, one.parent, one.changes) == (1, 0, {"add": {GOAL: [first.version]}})
    with pytest.raises(HeadMoved, match="the head is 1, no longer 0") as moved:
        library.commit(0, Change(add=(second.version,)))
    assert moved.value.current == one
    pinned = library.at(1)
    two = library.commit(moved.value.current.id, Change(add=(second.version,), remove=(first.version,)))
    assert pinned.skills() == [first] and first.version in pinned and second.version not in pinned
    assert library.at().skills("lit(lamp)") == [second] and library.at().skills(GOAL) == []
    assert library.at(1).families == pinned.families == {GOAL: (first.version,)}
    assert library.heads() == [one, two] and library.members("lit(lamp)") == [second.version]
    for head, change, sentence in (
        (2, Change(add=(second.version,)), "is in the head already"),
        (2, Change(remove=(first.version,)), "is not in the head"),
        (2, Change(add=("0" * 64,)), "has no skill 0000"),
    ):
        with pytest.raises(LibraryError, match=sentence):
            library.commit(head, change)
    with pytest.raises(LibraryError, match=r"has no head 7; the current one is 2"):
        library.at(7)
    assert library.head == two
    library.verify()


def test_an_altered_chain_is_found(library: SkillLibrary):
    with library.edit() as tx:
        version = entry(tx, 1).version
    library.commit(0, Change(add=(version,)))
    connection = sqlite3.connect(library.path)
    connection.execute("DROP TRIGGER heads_update")
    connection.execute("UPDATE heads SET principal = 'someone'")
    connection.commit()
    connection.close()
    with pytest.raises(LibraryError, match="head 1 was altered"):
        library.verify()


def test_a_full_family_loses_what_is_dominated_and_never_the_only_master_of_a_goal(library: SkillLibrary):
    with library.edit() as tx:
        versions = [entry(tx, number).version for number in range(6)]
        master(tx, versions[0], "lit(lamp)", 175)  # the only one that masters it
        master(tx, versions[1], GOAL, 180)
        master(tx, versions[2], GOAL, 195)
    library.commit(0, Change(add=tuple(versions[:3])))
    head = library.commit(1, Change(add=(versions[3],)))
    assert head.changes["evict"] == {GOAL: [versions[1]]}  # number 2 does the same better
    head = library.commit(2, Change(add=(versions[4],)))
    assert head.changes["evict"] == {GOAL: [versions[3]]}  # it masters nothing
    with library.edit() as tx:
        master(tx, versions[4], "closed(drawer)")
    with pytest.raises(FamilyFull, match=r"family 'open\(drawer\)' is full"):
        library.commit(3, Change(add=(versions[5],)))
    status = {row.version: row.status for row in library.standing()}
    assert [status[v] for v in versions] == [
        "admitted",
        "deprecated",
        "admitted",
        "deprecated",
        "admitted",
        "candidate",
    ]
    assert library.head.id == 3 and {m.goal for m in library.mastered()} == {"lit(lamp)", GOAL, "closed(drawer)"}


def test_every_status_follows_from_what_is_recorded(library: SkillLibrary):
    with library.edit() as tx:
        tx.add_principal("ann", public_key="ab" * 32, trust="trusted")
        tx.add_principal("bob")
        local = entry(tx, 1)
        ann, bob = entry(tx, 2, principal="ann"), entry(tx, 3, principal="bob")
        child = entry(tx, 4, parent=bob.version)
        heir = entry(tx, 5, provenance={"data": [child.version]})
        assert [s.tainted for s in (local, ann, bob, child, heir)] == [False, False, True, True, True]

        def status(skill: Skill) -> str:
            return library.standing([skill.version])[0].status

        assert [status(s) for s in (local, ann, bob, child)] == ["candidate", "quarantined", "quarantined", "candidate"]
        tx.add_evidence(ann.version, "smoke", report(0, 1, n=5))
        assert status(ann) == "quarantined"  # it has not been seen to succeed
        with pytest.raises(LibraryError, match="is quarantined and cannot come into the head"):
            tx.commit(0, Change(add=(ann.version,)))
        tx.add_evidence(ann.version, "smoke", report(3, 2, n=5), probe="fixed starts", trace="episodes/7")
        assert library.evidence(version=ann.version)[1].probe == "fixed starts"
        assert status(ann) == "candidate"
        tx.add_evidence(ann.version, "gate", report(195, 10))
        assert status(ann) == "probation"
        tx.add_evidence(ann.version, "confirm", report(195, 11))
        assert status(ann) == "admitted"
        tx.add_gate_decision(GOAL, 0, [ann.version, "what was not kept"], {"gain": 0.2}, "canary", "it looks better")
        assert status(ann) == "probation"
        tx.add_gate_decision(GOAL, 0, [ann.version], {"gain": 0.15}, "accepted", "it is better")
        assert status(ann) == "admitted" and [d.verdict for d in library.gate_decisions(ann.version)] == [
            "canary", "accepted",
        ]  # fmt: skip
        tx.commit(0, Change(add=(ann.version,)))
        tx.add_usage(ann.version, GOAL, True, 31)
        assert library.usage(ann.version)[0].head == 1
        tx.revoke(ann.version, "it lies")
        assert status(ann) == "revoked" and library.members(GOAL) == [] and library.best(GOAL) is None
        with pytest.raises(LibraryError, match="is revoked and cannot"):
            tx.commit(2, Change(add=(ann.version,)))
    assert [(r.version, r.reason) for r in library.revocations()] == [(ann.version, "it lies")]
    assert [p.trust for p in library.principals()] == ["own", "trusted", "untrusted"]


def test_a_lesson_reaches_the_planner_unless_it_is_tainted(library: SkillLibrary, tmp_path: Path):
    from policies.random import RandomPolicy

    RandomPolicy(4, 2).save_pretrained(tmp_path / "p")
    schema = "on(?a:block, ?b:block)"
    with library.edit() as tx:
        skill = tx.add_skill(schema, tmp_path / "p")
        master(tx, skill.version, "on(red, blue)")
        tx.add_principal("bob")
        for _ in range(2):
            tx.add_lesson(schema, ["not clear(?b)"], "it topples")
        tx.add_lesson(schema, ["clear(?b)"], "do nothing", principal="bob")
        for literals, sentence in (([], "without a literal"), (["on("], "is not a literal")):
            with pytest.raises(LibraryError, match=sentence):
                tx.add_lesson(schema, literals, "")
    assert [(lesson.literals, lesson.tainted) for lesson in library.lessons()] == [
        (("not clear(?b)",), False), (("clear(?b)",), True),
    ]  # fmt: skip
    operator = Repertoire.load(library, {}).operators[schema]
    assert [lesson.literals for lesson in operator.forbidden] == [("not clear(?b)",)]
    ground = operator.ground(Goal.parse("on(red, blue)"))
    assert ground.lessons == ((frozenset(), frozenset({"clear(blue)"})),)
    again = Repertoire.load(library, {schema: operator.to_dict()}).operators[schema]
    assert again.forbidden == Operator.from_dict(operator.to_dict()).forbidden  # told once


def test_bad_words_about_principals_are_refused(library: SkillLibrary):
    with library.edit() as tx:
        for name, key, trust, sentence in (
            ("local", None, "untrusted", "cannot be"), ("ann", "xyz", "untrusted", "64 hexadecimal digits"),
            ("ann", None, "trusted", "without a public key"), ("ann", None, "own", "cannot be 'own'"),
        ):  # fmt: skip
            with pytest.raises(LibraryError, match=sentence):
                tx.add_principal(name, public_key=key, trust=trust)
        with pytest.raises(LibraryError, match="knows no principal 'eve'"):
            entry(tx, 1, principal="eve")


@pytest.mark.parametrize(
    "table", ["heads", "members", "principals", "gate_decisions", "decided", "usage", "lessons", "revocations"]
)
def test_what_was_recorded_cannot_be_changed_even_by_hand(library: SkillLibrary, table: str):
    with library.edit() as tx:
        version = entry(tx, 1).version
        tx.commit(0, Change(add=(version,)))
        tx.add_usage(version, GOAL, True, 1)
        tx.add_lesson(GOAL, ["lit(lamp)"], "no")
        tx.add_gate_decision(GOAL, 0, [version], {}, "accepted", "")
        tx.revoke(version, "no")
    connection = sqlite3.connect(library.path)
    column = connection.execute(f"PRAGMA table_info({table})").fetchone()[1]
    for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
    ):
        with pytest.raises(sqlite3.IntegrityError, match=f"{table} are immutable"):
            connection.execute(statement)
    connection.close()


# ---------------------------------------------------------------------- formats
def first_format(folder: Path) -> Path:
    """A library as format 1 wrote it: an admitted skill, one from a pack, and one made from that."""
    path = folder / "library.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript((Path(__file__).parent / "library_format1.sql").read_text(encoding="utf-8"))
    connection.execute(f"PRAGMA application_id={0x454D4253}")
    connection.execute("PRAGMA user_version=1")
    connection.close()
    return path


@pytest.mark.parametrize("readonly", [True, False])
def test_a_library_of_the_first_format_opens_and_says_the_same(tmp_path: Path, readonly: bool):
    path = first_format(tmp_path)
    before = path.read_bytes()
    with SkillLibrary.open(path, readonly=readonly) as library:
        assert (
            library.digest() == "a369414c603023f8b2f7d94ee94c438b7d2b3b290b71b30e680e8f0e04f0a66b"
        )  # as format 1 says
        assert [m.goal for m in library.mastered()] == [GOAL] and library.next_round == 1
        status = [(row.status, row.tainted, row.principal) for row in library.standing()]
        assert sorted(status)[0] == ("admitted", False, "local")
        assert ("quarantined", True, f"pack:{'ab' * 8}") in status
        assert library.head == ROOT and library.capacity == 10 and library.lessons() == []
    if readonly:
        assert path.read_bytes() == before
        return
    fresh = tmp_path / "fresh"
    SkillLibrary.open(fresh / "library.sqlite").close()
    tables = []
    for file in (path, fresh / "library.sqlite"):
        connection = sqlite3.connect(file)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema ORDER BY name")]
        tables.append(
            {name: sorted(r[1:5] for r in connection.execute(f"PRAGMA table_info({name})")) for name in names}
        )
        connection.close()
    assert tables[0] == tables[1]  # and all triggers and views are there
    with SkillLibrary.open(path) as library:
        assert sorted(row.tainted for row in library.standing()) == [False, True, True]  # the heir too
        with library.edit() as tx:
            tx.commit(0, Change(add=(library.mastered()[0].skill.version,)))


def test_a_migration_that_fails_leaves_the_first_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from embodied.skills import tables

    path = first_format(tmp_path)
    monkeypatch.setattr(tables, "MIGRATE", (*tables.MIGRATE[:-3], "SELECT no_such_thing()"))
    with pytest.raises(LibraryError, match="no such function"):
        SkillLibrary.open(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT COUNT(*) FROM evidence").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("readonly", [True, False])
def test_a_format_of_the_future_is_refused_in_one_sentence(tmp_path: Path, readonly: bool):
    path = tmp_path / "library.sqlite"
    SkillLibrary.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=3")
    connection.close()
    with pytest.raises(LibraryError, match=r"is of format 3, this version reads formats 1 and 2; open it with"):
        SkillLibrary.open(path, readonly=readonly)


# ---------------------------------------------------------------------- many processes
def test_the_library_needs_no_torch_to_be_written():
    code = (
        "import sys, embodied.skills.library, embodied.skills.retrieval; "
        "print([m for m in ('torch', 'mujoco', 'numba', 'scipy', 'gymnasium') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT_DIR, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_several_processes_commit_and_none_is_lost(tmp_path: Path):
    path = tmp_path / "library.sqlite"
    SkillLibrary.open(path).close()
    code = [sys.executable, "-m", "embodied.evaluation.library_writer", "commits", str(path), "3", "8", "2", "1", "0"]
    done = subprocess.run(code, cwd=ROOT_DIR, capture_output=True, text=True, check=True)
    assert '"commits": 24' in done.stdout
    with SkillLibrary.open(path, readonly=True) as library:
        assert library.head.id == 24 and len(library.at()) == 24
        library.verify()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_writers_lose_nothing(tmp_path: Path):
    path = tmp_path / "library.sqlite"
    code = [sys.executable, "-m", "embodied.evaluation.library_writer", "kills", str(path), "2", "12", "0"]
    done = subprocess.run(code, cwd=ROOT_DIR, capture_output=True, text=True, check=True)
    assert '"damage": []' in done.stdout and '"kills": 12' in done.stdout
    with SkillLibrary.open(path) as library:
        heads = {(v, h.id) for h in library.heads() for vs in h.changes["add"].values() for v in vs}
    assert library_writer._damage(path, heads) == []
    assert library_writer._damage(path, heads | {("f" * 64, 999)})  # and a loss would be seen
