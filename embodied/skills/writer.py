"""What can be written to a library, all of it inside a transaction: ``SkillLibrary.round`` or ``.edit``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.core import EvalReport, OperatorCount, Skill, canonical_json
from embodied.skills.artifacts import LibraryError
from embodied.skills.records import Evidence, RoundRecord

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
        """Keep a policy directory as a version of a skill; the same content again gives the version there is."""
        if parent is not None:
            self.library.skill(parent)
        artifact = self.library.artifacts.put(directory)
        return self.insert(
            Skill(schema, artifact, conditioning or {}, signature or {}, parent, provenance or {}, self.index)
        )

    def insert(self, skill: Skill) -> Skill:
        """Record a skill whose artifact is in the library; returns the one recorded first where it is known."""
        self.library.artifact(skill)
        if self.library._query("SELECT 1 FROM skills WHERE version = ?", [skill.version]):
            return self.library.skill(skill.version)
        skill = replace(skill, created_round=self.index)
        texts = [canonical_json(dict(d)) for d in (skill.conditioning, skill.signature, skill.provenance)]
        row = (skill.version, skill.schema, skill.artifact, *texts[:2], skill.parent, texts[2], self.index)
        self.library._query(f"INSERT INTO skills (version, {_SKILL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return skill

    def add_evidence(
        self, version: str, purpose: str, report: EvalReport, *, origin: str = "local"
    ) -> Evidence:
        """Record a measured set for a version; LibraryError for an unknown purpose or version, or a seed used
        before.
        """
        return self.record(
            Evidence(
                report.goal,
                version,
                report.kind,
                purpose,
                report.seed,
                report.n,
                report.successes,
                self.index,
                origin,
                report.versions,
            )  # fmt: skip
        )

    def record(self, item: Evidence) -> Evidence:
        """Record evidence as it stands, in this round."""
        item = replace(item, round=self.index)
        known = "goal = ? AND version = ? AND seed = ? AND kind = ? AND origin = 'local'"
        key = (item.goal, item.version, item.seed, item.kind)
        if item.origin == "local" and self.library._query(f"SELECT 1 FROM evidence WHERE {known}", key):
            raise LibraryError(
                f"seed {item.seed} was already used to measure skill {item.version[:12]} on '{item.goal}'; "
                "evidence must come from fresh seeds"
            )
        row = (*key[:2], item.kind, item.purpose, item.seed, item.n, item.successes, item.round, item.origin)
        marks = ", ".join("?" * 10)
        values = (*row, canonical_json(dict(item.versions)))
        self.library._query(f"INSERT INTO evidence ({_EVIDENCE}) VALUES ({marks})", values)
        return item

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
        """Say where the ledger and the episode store (``store.commit()``) end, and what the loop must
        remember.
        """
        self.sealed = RoundRecord(self.index, ledger_offset, dict(store_offsets), dict(state or {}))
