"""The skill library: what was learnt, what was measured about it, and hence what counts as mastered.

A library is ``library.sqlite`` with ``artifacts/`` beside it. Everything found out in a round of the loop is
written in one transaction::

    with library.round(library.next_round) as tx:
        skill = tx.add_skill("on(?a:block, ?b:block)", directory)
        tx.add_evidence(skill.version, "gate", report)
        tx.seal(ledger_offset=…, store_offsets=store.commit(), state={…})

A process killed inside leaves nothing of the round but unreferenced artifacts, which `gc` removes. Nothing
sets a status: a version is admitted for a goal while its pooled gate episodes and its pooled confirmation
episodes, all judged by the simulator here, each have a Wilson lower bound at the threshold or above; a later
regression set whose upper bound lies below it deprecates the version for that goal. All statuses, and what makes
them: `embodied.skills.schema`.

Besides, a *head* says which versions of each family are in use (`embodied.skills.heads`)::

    head = library.commit(library.head.id, Change(add=(skill.version,)))
    pinned = library.at(head.id)  # shows the same versions for as long as it is kept

Any number of processes may read, and write in turns. A round or an edit is on the disk when it ends; a commit of the
head survives the death of its process, but a loss of power may take the last ones back, whole and in order.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embodied.core import LOCAL, OperatorCount, Skill, canonical_json
from embodied.skills.artifacts import ArtifactStore, LibraryError
from embodied.skills.heads import ROOT, Change, FamilyFull, Head, HeadMoved, Snapshot, after
from embodied.skills.manifest import ManifestError, facets_from_dict
from embodied.skills.records import (
    Evidence,
    GateRow,
    Mastered,
    Principal,
    Revocation,
    RoundRecord,
    Standing,
    Status,
    TaughtLesson,
    Usage,
)
from embodied.skills.schema import EVIDENCE_COLUMNS, SKILL_COLUMNS, standing_where
from embodied.skills.statistics import wilson
from embodied.skills.tables import begin, connect, translated
from embodied.skills.writer import Round, Writer

__all__ = [
    "Change", "Evidence", "FamilyFull", "Head", "HeadMoved", "LibraryError", "Mastered", "Round", "RoundRecord",
    "SkillLibrary", "Snapshot", "Status", "Writer",
]  # fmt: skip


class SkillLibrary:
    """Skills, evidence, operators, rounds and heads; made by `SkillLibrary.open`. Writers take turns."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.artifacts = ArtifactStore(path.parent / "artifacts")
        self._connection = connection
        threshold, capacity = self._query("SELECT threshold, capacity FROM settings")[0]
        self.threshold, self.capacity = float(threshold), int(capacity)

    @classmethod
    def open(
        cls, path: str | Path, *, readonly: bool = False, threshold: float | None = None, capacity: int | None = None
    ) -> SkillLibrary:
        """Open or create a library file. `threshold` (0.8 unless given) and `capacity` (versions of a family in the
        head, 10 unless given) are fixed when the file is made.
        """
        path = Path(path)
        return cls(path, connect(path, readonly, threshold, capacity))

    def _query(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._connection.execute(sql, tuple(values)).fetchall()

    # ------------------------------------------------------------------ reading
    @property
    def last_round(self) -> RoundRecord | None:
        """The last committed round; None before the first."""
        rows = self._query("SELECT * FROM rounds ORDER BY round DESC LIMIT 1")
        return RoundRecord(*rows[0][:2], *map(self._json, rows[0][2:])) if rows else None

    @property
    def next_round(self) -> int:
        """Index of the round to do next: 0, or one more than the last committed one's."""
        last = self.last_round
        return 0 if last is None else last.index + 1

    def skill(self, version: str) -> Skill:
        """The skill of a version hash; LibraryError where unknown or altered."""
        rows = self._query(f"SELECT {SKILL_COLUMNS} FROM skills WHERE version = ?", [version])
        if not rows:
            raise LibraryError(f"the library {self.path} has no skill {version[:12]}; `embodied skills` lists them")
        return self._skill(version, rows[0])

    def skills(self, schema: str | None = None) -> list[Skill]:
        """All versions (of a schema), oldest round first."""
        sql = f"SELECT version, {SKILL_COLUMNS} FROM skills WHERE ?1 IS NULL OR schema = ?1"
        return [self._skill(row[0], row[1:]) for row in self._query(f"{sql} ORDER BY created_round, version", [schema])]

    def _skill(self, version: str, row: tuple[Any, ...]) -> Skill:
        schema, artifact, conditioning, signature, parent, provenance, created, facets, principal, tainted = row
        try:
            known = facets_from_dict(self._json(facets)) if facets != "{}" else {}
        except ManifestError as error:
            raise LibraryError(f"the library {self.path} is damaged ({error}); restore it from a copy") from error
        skill = Skill(
            schema, artifact, self._json(conditioning), self._json(signature), parent, self._json(provenance), created,
            **known, principal=principal, tainted=bool(tainted),
        )  # fmt: skip
        if skill.version != version:
            raise LibraryError(
                f"the library {self.path} is damaged: skill {version[:12]} was altered and no longer has "
                "that hash; restore the file from a copy or start a new run"
            )
        return skill

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LibraryError(f"the library {self.path} is damaged ({error}); restore it from a copy") from error

    def artifact(self, skill: Skill | str) -> Path:
        """The verified policy directory of a skill or of an artifact hash, for ``policies.load_policy``."""
        return self.artifacts.path(skill.artifact if isinstance(skill, Skill) else skill)

    def evidence(self, *, version: str | None = None, goal: str | None = None) -> list[Evidence]:
        """Measured sets in the order they were recorded, of a version and a goal where given."""
        rows = self._about("evidence", EVIDENCE_COLUMNS, "id", version, goal)
        names = EVIDENCE_COLUMNS.split(", ")
        tables = (dict(zip(names, row, strict=True)) for row in rows)
        return [Evidence(**{**table, "versions": self._json(table["versions"])}) for table in tables]

    def status(self, *, version: str | None = None, goal: str | None = None) -> list[Status]:
        """What the simulator's evidence from here makes of every goal and version it is about, by goal."""
        columns = "goal, version, schema, status, gate_n, gate_k, confirm_n, confirm_k, created_round"
        return [Status(*row) for row in self._about("status", columns, "goal, version", version, goal)]

    def standing(self, versions: Sequence[str] | None = None) -> list[Standing]:
        """What becomes of every version (or of those named), oldest round first."""
        marks = ", ".join(f"?{i + 1}" for i in range(len(versions or ())))
        condition = "TRUE" if versions is None else f"version IN ({marks})"
        rows = self._query(f"{standing_where(condition)} ORDER BY created_round, version", versions or ())
        return [Standing(a, b, c, d, bool(tainted), status) for a, b, c, d, tainted, status in rows]

    def _about(
        self, table: str, columns: str, order: str, version: str | None, goal: str | None
    ) -> list[tuple[Any, ...]]:
        where = "(?1 IS NULL OR version = ?1) AND (?2 IS NULL OR goal = ?2)"
        return self._query(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order}", [version, goal])

    def mastered(self) -> list[Mastered]:
        """Every goal with an admitted version, by goal, each with its best version."""
        return self._best(self.status())

    def best(self, goal: str) -> Mastered | None:
        """The best admitted version for a ground goal's text; None where there is none."""
        return next(iter(self._best(self.status(goal=goal))), None)

    def _best(self, rows: list[Status]) -> list[Mastered]:
        """The version with the highest lower bound for each goal; of equal ones the youngest."""
        best: dict[str, tuple[tuple[float, int, str], Status]] = {}
        for row in rows:
            lower = float(wilson(row.confirm_successes, row.confirm_n)[0])
            rank = (lower, row.created_round, row.version)
            if row.status == "admitted" and (row.goal not in best or rank > best[row.goal][0]):
                best[row.goal] = (rank, row)
        return [
            Mastered(goal, self.skill(row.version), row.confirm_n, row.confirm_successes, rank[0])
            for goal, (rank, row) in best.items()
        ]

    def operators(self, schema: str | None = None) -> list[OperatorCount]:
        """Counts per literal of a schema, or of all."""
        sql = "SELECT schema, literal, role, trials, hits FROM operators WHERE ?1 IS NULL OR schema = ?1"
        return [OperatorCount(*row) for row in self._query(f"{sql} ORDER BY schema, role, literal", [schema])]

    # ------------------------------------------------------------------ the head, and what was told
    @property
    def head(self) -> Head:
        """The current head; `embodied.skills.heads.ROOT` before the first commit."""
        rows = self._query("SELECT * FROM heads ORDER BY id DESC LIMIT 1")
        return self._head(rows[0]) if rows else ROOT

    def _head(self, row: tuple[Any, ...]) -> Head:
        number, parent, digest, principal, changes = row
        return Head(number, parent, digest, principal, self._json(changes))

    def heads(self) -> list[Head]:
        """The whole chain, oldest first."""
        return [self._head(row) for row in self._query("SELECT * FROM heads ORDER BY id")]

    def at(self, head: int | None = None) -> Snapshot:
        """The versions of a head (the current one), pinned: what others write changes nothing in it."""
        number = self.head.id if head is None else head
        found = [*self._query("SELECT * FROM heads WHERE id = ?", [number])]
        if not found and number != ROOT.id:
            raise LibraryError(f"the library {self.path} has no head {number}; the current one is {self.head.id}")
        sql = "SELECT family, version, change, MAX(head) FROM members WHERE head <= ? GROUP BY version"
        families: dict[str, list[str]] = {}
        for family, version, change, _ in self._query(sql, [number]):
            if change == "add":
                families.setdefault(family, []).append(version)
        pinned = self._head(found[0]) if found else ROOT
        return Snapshot(self, pinned, {family: tuple(versions) for family, versions in families.items()})

    def members(self, family: str) -> list[str]:
        """The versions of a family in the current head."""
        sql = "SELECT version, change, MAX(head) FROM members WHERE family = ? GROUP BY version"
        return [version for version, change, _ in self._query(sql, [family]) if change == "add"]

    def principals(self) -> list[Principal]:
        """Everyone skills and lessons come from, as last told."""
        newest = "SELECT MAX(id) FROM principals GROUP BY name"
        sql = f"SELECT name, public_key, trust FROM principals WHERE id IN ({newest}) ORDER BY id"
        return [Principal(*row) for row in self._query(sql)]

    def principal(self, name: str) -> Principal:
        """A principal by name; LibraryError where unknown."""
        known = {principal.name: principal for principal in self.principals()}
        if name not in known:
            raise LibraryError(f"the library {self.path} knows no principal '{name}'; it knows {', '.join(known)}")
        return known[name]

    def gate_decisions(self, version: str | None = None) -> list[GateRow]:
        """What gates decided (about a version), oldest first."""
        sql = "SELECT goal, base_head, candidates, numbers, verdict, reason, round FROM gate_decisions"
        sql += " WHERE ?1 IS NULL OR id IN (SELECT decision FROM decided WHERE candidate = ?1) ORDER BY id"
        return [
            GateRow(goal, head, tuple(self._json(candidates)), self._json(numbers), *rest)
            for goal, head, candidates, numbers, *rest in self._query(sql, [version])
        ]

    def usage(self, version: str | None = None) -> list[Usage]:
        """Uses (of a version) outside of measured sets, oldest first."""
        sql = "SELECT version, goal, head, success, steps FROM usage WHERE ?1 IS NULL OR version = ?1 ORDER BY id"
        return [Usage(a, goal, head, bool(hit), steps) for a, goal, head, hit, steps in self._query(sql, [version])]

    def lessons(self, schema: str | None = None) -> list[TaughtLesson]:
        """Where a schema (or any) must not be used, in the order it was told."""
        sql = "SELECT schema, literals, reason, principal, tainted FROM lessons WHERE ?1 IS NULL OR schema = ?1"
        return [
            TaughtLesson(name, tuple(self._json(literals)), reason, principal, bool(tainted))
            for name, literals, reason, principal, tainted in self._query(f"{sql} ORDER BY id", [schema])
        ]

    def revocations(self) -> list[Revocation]:
        """The versions nobody may use any more."""
        return [Revocation(*row) for row in self._query("SELECT version, principal, reason FROM revocations")]

    # ------------------------------------------------------------------ the whole
    def digest(self) -> str:
        """sha256 of the content (skills, evidence, operator counts, head, revocations), whatever the order of
        recording, but for the head's.

        Provenance and versions of software do not count, so two runs of one seed agree.
        """
        skills = "SELECT 'skill', version, created_round FROM skills"
        evidence = "SELECT 'evidence', goal, version, kind, purpose, origin, seed, n, successes, round FROM evidence"
        operators = "SELECT 'operator', schema, literal, role, trials, hits FROM operators"
        heads = "SELECT 'head', id, digest FROM heads ORDER BY id DESC LIMIT 1"
        revoked = "SELECT 'revoked', version FROM revocations"
        tables = (skills, evidence, operators, heads, revoked)
        lines = sorted(canonical_json(row) for sql in tables for row in self._query(sql))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def verify(self) -> None:
        """Read everything: every version's hash, every artifact, every head's digest, the whole file; LibraryError at
        the first damage.
        """
        report = self._query("PRAGMA integrity_check(1)")[0][0]
        if report != "ok":
            raise LibraryError(f"the library {self.path} is damaged ({report}); restore it from a copy")
        for artifact in sorted({skill.artifact for skill in self.skills()} - {""}):
            self.artifact(artifact)
        head = ROOT
        for found in self.heads():
            head = after(head, found.principal, found.changes)
            if head != found:
                raise LibraryError(f"the library {self.path} is damaged: head {found.id} was altered; restore a copy")

    # ------------------------------------------------------------------ writing
    @contextmanager
    def round(self, index: int) -> Iterator[Round]:
        """One round of the loop as one transaction; it must be `next_round` and must be sealed before the
        end.
        """
        with self._transaction():
            if index != self.next_round:
                raise LibraryError(
                    f"round {index} cannot be written to {self.path}: its next round is {self.next_round}"
                )
            tx = Round(self, index)
            yield tx
            if tx.sealed is None:
                raise LibraryError(f"round {index} was not sealed; call seal(…) with the offsets before it ends")
            values = (
                index,
                tx.sealed.ledger_offset,
                *map(canonical_json, (tx.sealed.store_offsets, tx.sealed.state)),
            )
            self._query("INSERT INTO rounds VALUES (?, ?, ?, ?)", values)

    @contextmanager
    def edit(self, *, durable: bool = True) -> Iterator[Writer]:
        """A transaction outside of the loop's rounds (importing a pack, measuring again); part of the last
        round. Where it need not be `durable`, it does not wait for the disk: see the top of this file.
        """
        with self._transaction(durable):
            yield Writer(self, int(self._query("SELECT COALESCE(MAX(round), -1) FROM rounds")[0][0]))

    def commit(self, expected_head: int, change: Change, *, principal: str = LOCAL) -> Head:
        """Move the head in a transaction of its own, as `Writer.commit` does."""
        current = self.head
        if current.id != expected_head:  # no need to wait for the other writers
            raise HeadMoved(expected_head, current)
        with self.edit(durable=False) as tx:
            return tx.commit(expected_head, change, principal=principal)

    @contextmanager
    def _transaction(self, durable: bool = True) -> Iterator[None]:
        if self._connection.in_transaction:
            raise LibraryError(f"a transaction on {self.path} is already open; end it before the next one")
        with translated(self.path):
            begin(self._connection, durable)
        try:
            yield
            self._query("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._query("ROLLBACK")

    def gc(self) -> list[str]:
        """Remove artifacts that no skill refers to (left by killed rounds); returns their hashes."""
        with self._transaction():
            return self.artifacts.sweep({row[0] for row in self._query("SELECT artifact FROM skills")})

    def close(self) -> None:
        """Close the file; an open transaction is rolled back."""
        self._connection.close()

    def __enter__(self) -> SkillLibrary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
