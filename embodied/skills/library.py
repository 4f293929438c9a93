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
regression set whose upper bound lies below it retires the version for that goal.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embodied.core import OperatorCount, Skill, canonical_json
from embodied.skills.artifacts import ArtifactStore, LibraryError
from embodied.skills.records import Evidence, Mastered, RoundRecord, Status
from embodied.skills.statistics import wilson
from embodied.skills.tables import EVIDENCE_COLUMNS, SKILL_COLUMNS, connect, translated
from embodied.skills.writer import Round, Writer

__all__ = ["Evidence", "LibraryError", "Mastered", "Round", "RoundRecord", "SkillLibrary", "Status", "Writer"]


class SkillLibrary:
    """Skills, evidence, operators and rounds; made by `SkillLibrary.open`, one writer at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.artifacts = ArtifactStore(path.parent / "artifacts")
        self._connection = connection
        self.threshold = float(self._query("SELECT threshold FROM settings")[0][0])

    @classmethod
    def open(cls, path: str | Path, *, readonly: bool = False, threshold: float | None = None) -> SkillLibrary:
        """Open or create a library file. `threshold` (0.8 unless given) is fixed when the file is made."""
        path = Path(path)
        return cls(path, connect(path, readonly, threshold))

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
        schema, artifact, conditioning, signature, parent, provenance, created = row
        skill = Skill(
            schema,
            artifact,
            self._json(conditioning),
            self._json(signature),
            parent,
            self._json(provenance),
            created,
        )
        if skill.version != version:
            raise LibraryError(
                f"the library {self.path} is damaged: skill {version[:12]} was altered and no longer has "
                "that hash; restore the file from a copy or start a new run"
            )
        return skill

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise LibraryError(f"the library {self.path} is damaged ({error}); restore it from a copy") from error

    def artifact(self, skill: Skill | str) -> Path:
        """The verified policy directory of a skill or of an artifact hash, for ``policies.load_policy``."""
        return self.artifacts.path(skill.artifact if isinstance(skill, Skill) else skill)

    def evidence(self, *, version: str | None = None, goal: str | None = None) -> list[Evidence]:
        """Measured sets in the order they were recorded, of a version and a goal where given."""
        rows = self._about("evidence", EVIDENCE_COLUMNS, "id", version, goal)
        names = EVIDENCE_COLUMNS.split(", ")
        return [Evidence(**{**dict(zip(names, row, strict=True)), "versions": self._json(row[-1])}) for row in rows]

    def status(self, *, version: str | None = None, goal: str | None = None) -> list[Status]:
        """What the simulator's evidence from here makes of every goal and version it is about, by goal."""
        columns = "goal, version, schema, status, gate_n, gate_k, confirm_n, confirm_k, created_round"
        return [Status(*row) for row in self._about("status", columns, "goal, version", version, goal)]

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

    def digest(self) -> str:
        """sha256 of the content (skills, evidence, operator counts), whatever the order of recording.

        Provenance and versions of software do not count, so two runs of one seed agree.
        """
        skills = "SELECT 'skill', version, created_round FROM skills"
        evidence = "SELECT 'evidence', goal, version, kind, purpose, origin, seed, n, successes, round FROM evidence"
        operators = "SELECT 'operator', schema, literal, role, trials, hits FROM operators"
        lines = sorted(canonical_json(row) for sql in (skills, evidence, operators) for row in self._query(sql))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def verify(self) -> None:
        """Read everything: every version's hash, every artifact, the whole file; LibraryError at the first
        damage.
        """
        report = self._query("PRAGMA integrity_check(1)")[0][0]
        if report != "ok":
            raise LibraryError(f"the library {self.path} is damaged ({report}); restore it from a copy")
        for skill in self.skills():
            self.artifact(skill)

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
    def edit(self) -> Iterator[Writer]:
        """A transaction outside of the loop's rounds (importing a pack, measuring again); part of the last
        round.
        """
        with self._transaction():
            yield Writer(self, self.next_round - 1)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._connection.in_transaction:
            raise LibraryError(f"a transaction on {self.path} is already open; end it before the next one")
        self._query("BEGIN IMMEDIATE")
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
