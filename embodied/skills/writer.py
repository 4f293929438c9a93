"""What can be written to a library, all of it inside a transaction: ``SkillLibrary.round`` or ``.edit``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.core import PURPOSES, EvalReport, OperatorCount, Skill, canonical_json
from embodied.skills.artifacts import LibraryError
from embodied.skills.records import Evidence, RoundRecord
from embodied.skills.tables import EVIDENCE_COLUMNS, SKILL_COLUMNS

if TYPE_CHECKING:
    from embodied.skills.gate import GateDecision
    from embodied.skills.library import SkillLibrary


class Writer:
    """What can be written inside a transaction; `index` is the round that the rows belong to."""

    def __init__(self, library: SkillLibrary, index: int) -> None:
        self.library = library
        self.index = index

    def add_skill(
        self,
        schema: str,
        directory: str | Path,
        *,
        conditioning: Mapping[str, object] | None = None,
        signature: Mapping[str, object] | None = None,
        parent: str | None = None,
        provenance: Mapping[str, object] | None = None,
    ) -> Skill:
        """Keep a policy directory as a version of a skill; the same content gives the version there is."""
        if parent is not None:
            self.library.skill(parent)
        artifact = self.library.artifacts.put(directory)
        return self.insert(
            Skill(schema, artifact, conditioning or {}, signature or {}, parent, provenance or {}, self.index)
        )

    def insert(self, skill: Skill) -> Skill:
        """Record a skill whose artifact is in the library; returns the one there is where it is known."""
        self.library.artifact(skill)
        if self.library._query("SELECT 1 FROM skills WHERE version = ?", [skill.version]):
            return self.library.skill(skill.version)
        skill = replace(skill, created_round=self.index)
        values = [getattr(skill, name) for name in SKILL_COLUMNS.split(", ")]
        self._insert("skills", f"version, {SKILL_COLUMNS}", [skill.version, *values])
        return skill

    def add_evidence(self, version: str, purpose: str, report: EvalReport) -> Evidence:
        """Record what was measured here of a version; see `record` for what is refused."""
        return self.record(
            Evidence(
                goal=report.goal, version=version, kind=report.kind, purpose=purpose, seed=report.seed,
                n=report.n, successes=report.successes, round=self.index, origin="local",
                versions=report.versions,
            )
        )  # fmt: skip

    def record(self, item: Evidence) -> Evidence:
        """Record a row of evidence as it stands, but in this round; a foreign row that is known is left
        alone.

        LibraryError for an unknown version or purpose, and for a seed that the version was already measured
        with on the goal: what chose a skill must not prove it too.
        """
        self.library.skill(item.version)
        if item.purpose not in PURPOSES:
            raise LibraryError(f"unknown purpose '{item.purpose}' of evidence; the purposes are {', '.join(PURPOSES)}")
        item = replace(item, round=self.index)
        same = "goal = ? AND version = ? AND seed = ? AND kind = ? AND origin = ?"
        key = [item.goal, item.version, item.seed, item.kind, item.origin]
        if not self.library._query(f"SELECT 1 FROM evidence WHERE {same}", key):
            self._insert("evidence", EVIDENCE_COLUMNS, [getattr(item, n) for n in EVIDENCE_COLUMNS.split(", ")])
        elif item.origin == "local":
            raise LibraryError(
                f"seed {item.seed} was already used to measure skill {item.version[:12]} on '{item.goal}'; "
                "evidence must come from fresh seeds"
            )
        return item

    def _insert(self, table: str, columns: str, values: list[Any]) -> None:
        values = [canonical_json(dict(value)) if isinstance(value, Mapping) else value for value in values]
        marks = ", ".join("?" * len(values))
        self.library._query(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)

    def add_decision(self, version: str, decision: GateDecision) -> None:
        """Record all that the gate measured about its winner, which was stored as this version."""
        for measured in decision.winner_reports:
            self.add_evidence(version, measured.purpose, measured.report)

    def count(self, counts: Iterable[OperatorCount]) -> None:
        """Add executions to the operators' counts."""
        for item in counts:
            self.library._query(
                "INSERT INTO operators VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET trials = trials + excluded.trials, hits = hits + excluded.hits",
                (item.schema, item.literal, item.role, item.trials, item.hits),
            )


class Round(Writer):
    """A writer for one round, which ends with `seal`."""

    sealed: RoundRecord | None = None

    def seal(
        self, *, ledger_offset: int, store_offsets: Mapping[str, int], state: Mapping[str, Any] | None = None
    ) -> None:
        """Say where the ledger and the episode store end (``store.commit()``), and the loop's own state."""
        self.sealed = RoundRecord(self.index, ledger_offset, dict(store_offsets), dict(state or {}))
