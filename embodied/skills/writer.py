"""What can be written to a library, all of it inside a transaction: ``SkillLibrary.round`` or ``.edit``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.core import LOCAL, PURPOSES, EvalReport, OperatorCount, Skill, canonical_json
from embodied.skills.artifacts import LibraryError
from embodied.skills.heads import Change, Head, HeadMoved, after, evicted
from embodied.skills.manifest import (
    HandbookFacet,
    ManifestError,
    OperatorFacet,
    PolicyFacet,
    check_json,
    literal_of,
)
from embodied.skills.records import Evidence, Principal, RoundRecord, Usage
from embodied.skills.schema import EVIDENCE_COLUMNS, SKILL_COLUMNS, TRUST

if TYPE_CHECKING:
    from embodied.skills.gate import GateDecision
    from embodied.skills.library import SkillLibrary


CHUNK = 500  # versions asked for in one statement


class Writer:
    """What can be written inside a transaction; `index` is the round that the rows belong to."""

    def __init__(self, library: SkillLibrary, index: int) -> None:
        self.library = library
        self.index = index

    # ------------------------------------------------------------------ skills and what was measured of them
    def add_skill(
        self,
        schema: str,
        directory: str | Path | None,
        *,
        conditioning: Mapping[str, object] | None = None,
        signature: Mapping[str, object] | None = None,
        parent: str | None = None,
        provenance: Mapping[str, object] | None = None,
        policy: PolicyFacet | None = None,
        operator: OperatorFacet | None = None,
        handbook: HandbookFacet | None = None,
    ) -> Skill:
        """Keep a policy directory as a version of a skill; the same content gives the version there is. Without a
        directory it is an operator or a handbook entry alone.
        """
        if parent is not None:
            self.library.skill(parent)
        artifact = "" if directory is None else self.library.artifacts.put(directory)
        return self.insert(
            Skill(
                schema, artifact, conditioning or {}, signature or {}, parent, provenance or {}, self.index, policy,
                operator, handbook,
            )
        )  # fmt: skip

    def insert(self, skill: Skill) -> Skill:
        """Record a skill whose artifact is in the library; returns the one there is where it is known.

        It is tainted where it says so, where its principal is not trusted here, or where its parent or anything in
        ``provenance["data"]`` (versions or artifacts that its training data came from) is tainted.
        """
        try:
            for name in ("conditioning", "signature", "provenance"):
                check_json(dict(getattr(skill, name)), f"a skill's {name}")
            check_json([skill.schema, skill.parent, skill.principal], "a skill")
        except ManifestError as error:
            raise LibraryError(f"this skill cannot be kept in {self.library.path}: {error}") from error
        if skill.artifact:
            self.library.artifact(skill)
        elif not skill.facets:
            raise LibraryError(
                f"the skill '{skill.schema}' is empty: give it a policy directory, an operator or a handbook"
            )
        version = skill.version
        if self.library._query("SELECT 1 FROM skills WHERE version = ?", [version]):
            return self.library.skill(version)
        skill = replace(skill, created_round=self.index, tainted=self._is_tainted(skill))
        values = [getattr(skill, name) for name in SKILL_COLUMNS.split(", ")]
        self._insert("skills", f"version, {SKILL_COLUMNS}", [version, *values])
        return skill

    def _is_tainted(self, skill: Skill) -> bool:
        data = skill.provenance.get("data", ())
        sources = [skill.parent, *(data if isinstance(data, Sequence) and not isinstance(data, str) else (data,))]
        named = [source for source in sources if isinstance(source, str)]
        marks = ", ".join("?" * len(named))
        sql = f"SELECT 1 FROM skills WHERE tainted AND (version IN ({marks}) OR artifact IN ({marks})) LIMIT 1"
        doubtful = skill.principal != LOCAL and self.library.principal(skill.principal).trust == "untrusted"
        return skill.tainted or doubtful or bool(named and self.library._query(sql, [*named, *named]))

    def add_evidence(
        self, version: str, purpose: str, report: EvalReport, *, probe: str | None = None, trace: str | None = None
    ) -> Evidence:
        """Record what was measured here of a version; see `record` for what is refused."""
        return self.record(
            Evidence(
                goal=report.goal, version=version, kind=report.kind, purpose=purpose, seed=report.seed,
                n=report.n, successes=report.successes, round=self.index, origin="local",
                versions=report.versions, probe=probe, trace=trace,
            )
        )  # fmt: skip

    def record(self, item: Evidence) -> Evidence:
        """Record a row of evidence as it stands, but in this round; a foreign row that is known is left
        alone.

        LibraryError for an unknown version or purpose, and for a seed that the version was already measured
        with on the goal: what chose a skill must not prove it too.
        """
        self._require(item.version)
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

    def _require(self, version: str) -> None:
        """LibraryError for an unknown version."""
        if not self.library._query("SELECT 1 FROM skills WHERE version = ?", [version]):
            self.library.skill(version)

    def _insert(self, table: str, columns: str, values: list[Any]) -> None:
        values = [canonical_json(dict(value)) if isinstance(value, Mapping) else value for value in values]
        marks = ", ".join("?" * len(values))
        self.library._query(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)

    def add_decision(self, version: str | None, *decisions: GateDecision) -> None:
        """Record what the gate decided, and all that it measured about its winner, which was stored as this version
        (None: it was not kept). A version that was admitted for some goal comes into the head.
        """
        head = self.library.head.id
        for decision in decisions:
            rows = [(m.purpose, m.report.goal, m.report.successes, m.report.n) for m in decision.winner_reports]
            verdict = "admitted" if decision.admitted else "rejected"
            named = [] if version is None else [version]
            self.add_gate_decision(decision.goal, head, named, {"measured": rows}, verdict, decision.reason)
            for measured in decision.winner_reports:
                for one in named:
                    self.add_evidence(one, measured.purpose, measured.report)
        if version is None or not any(decision.admitted for decision in decisions):
            return
        if version not in self.library.members(self.library.skill(version).schema):
            self.commit(head, Change(add=(version,)))

    def count(self, counts: Iterable[OperatorCount]) -> None:
        """Add executions to the operators' counts."""
        for item in counts:
            self.library._query(
                "INSERT INTO operators VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET trials = trials + excluded.trials, hits = hits + excluded.hits",
                (item.schema, item.literal, item.role, item.trials, item.hits),
            )

    # ------------------------------------------------------------------ the head
    def commit(self, expected_head: int, change: Change, *, principal: str = LOCAL) -> Head:
        """Move the head: compare-and-swap. Families that grow too large lose what is dominated in them.

        HeadMoved where the head is another than expected; LibraryError for a version that is unknown, revoked,
        quarantined, in the head already (to add) or not in it (to remove); FamilyFull.
        """
        library, head = self.library, self.library.head
        if head.id != expected_head:
            raise HeadMoved(expected_head, head)
        changes: dict[str, dict[str, list[str]]] = {"add": {}, "remove": {}, "evict": {}}
        families: dict[str, set[str]] = {}
        known = self._known((*change.remove, *change.add))
        for kind, versions in (("remove", change.remove), ("add", change.add)):
            for version in versions:
                family, status = known[version]
                if kind == "add" and status in ("quarantined", "revoked"):
                    way = "measure it here first" if status == "quarantined" else "learn the skill anew"
                    raise LibraryError(f"skill {version[:12]} is {status} and cannot come into the head; {way}")
                members = families.setdefault(family, set(library.members(family)))
                if (version in members) == (kind == "add"):
                    there = "is in the head already" if kind == "add" else "is not in the head"
                    raise LibraryError(f"skill {version[:12]} {there} ({head.id}); leave it out of the change")
                (members.add if kind == "add" else members.remove)(version)
                changes[kind].setdefault(family, []).append(version)
        for family, added in changes["add"].items():
            if len(families[family]) > library.capacity:
                marks = ", ".join("?" * len(families[family]))
                sql = f"SELECT version, goal, status, confirm_n, confirm_k FROM status WHERE version IN ({marks})"
                rows = library._query(sql, families[family])
                changes["evict"][family] = evicted(family, families[family], added, rows, library.capacity)
        head = after(head, principal, {kind: table for kind, table in changes.items() if table})
        self._insert(
            "heads", "id, parent, digest, principal, changes",
            [head.id, head.parent, head.digest, head.principal, head.changes],
        )  # fmt: skip
        for kind, table in changes.items():
            for family, versions in table.items():
                for version in versions:
                    row = [version, head.id, family, "add" if kind == "add" else "remove"]
                    self._insert("members", "version, head, family, change", row)
        return head

    def _known(self, versions: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Family and status of versions; LibraryError where one is unknown."""
        found: dict[str, tuple[str, str]] = {}
        for first in range(0, len(versions), CHUNK):
            for row in self.library.standing(versions[first : first + CHUNK]):
                found[row.version] = row.schema, row.status
        for version in versions:
            if version not in found:
                self.library.skill(version)
        return found

    def revoke(self, version: str, reason: str, *, principal: str = LOCAL) -> None:
        """Say that a version must not be used any more, whatever its evidence; it leaves the head."""
        skill = self.library.skill(version)
        self._insert("revocations", "version, principal, reason", [version, principal, reason])
        if version in self.library.members(skill.schema):
            self.commit(self.library.head.id, Change(remove=(version,)), principal=principal)

    # ------------------------------------------------------------------ what is told and what happened
    def add_principal(self, name: str, *, public_key: str | None = None, trust: str = "untrusted") -> Principal:
        """Say who somebody is, and whether to trust what they sign; what is said last of a name holds."""
        if trust not in TRUST[1:] or name == LOCAL:
            raise LibraryError(f"'{name}' cannot be '{trust}' here; another name, and {' or '.join(TRUST[1:])}, can")
        if public_key is not None and not (len(public_key) == 64 and set(public_key) <= set("0123456789abcdef")):
            raise LibraryError(f"the public key of '{name}' must be 64 hexadecimal digits, not {public_key[:80]!r}")
        if trust == "trusted" and public_key is None:
            raise LibraryError(f"'{name}' cannot be trusted without a public key: anyone could use the name")
        self._insert("principals", "name, public_key, trust", [name, public_key, trust])
        return Principal(name, public_key, trust)

    def add_gate_decision(
        self,
        goal: str,
        base_head: int,
        candidates: Sequence[str],
        numbers: Mapping[str, Any],
        verdict: str,
        reason: str,
    ) -> int:
        """Record what a gate decided about candidates (version hashes, or descriptions of those not kept); its number.

        While the last decision that names a version is "canary", the version is on probation.
        """
        try:
            check_json(dict(numbers), "a gate decision's numbers")
        except ManifestError as error:
            raise LibraryError(f"this decision cannot be kept in {self.library.path}: {error}") from error
        values = [goal, base_head, canonical_json(list(candidates)), numbers, verdict, reason, self.index]
        self._insert("gate_decisions", "goal, base_head, candidates, numbers, verdict, reason, round", values)
        number = int(self.library._query("SELECT last_insert_rowid()")[0][0])
        for candidate in dict.fromkeys(candidates):
            self._insert("decided", "candidate, decision", [candidate, number])
        return number

    def add_usage(self, version: str, goal: str, success: bool, steps: int, *, head: int | None = None) -> Usage:
        """Record one use of a version outside of any measured set; `head` is the current one unless given."""
        self._require(version)
        item = Usage(version, goal, self.library.head.id if head is None else head, bool(success), int(steps))
        self._insert("usage", "version, goal, head, success, steps",
                     [version, goal, item.head, int(item.success), item.steps])  # fmt: skip
        return item

    def add_lesson(
        self, schema: str, literals: Iterable[str], reason: str, *, principal: str = LOCAL, tainted: bool = False
    ) -> None:
        """Say that a schema must not be used where all of these lifted literals hold. What an untrusted principal says
        is tainted: it is kept, and no planner obeys it.
        """
        literals = sorted(set(literals))
        try:
            for literal in literals:
                literal_of(literal)
        except ManifestError as error:
            raise LibraryError(f"this lesson about '{schema}' cannot be kept: {error}") from error
        if not literals:
            raise LibraryError(f"a lesson about '{schema}' without a literal would forbid it everywhere; revoke it")
        doubtful = principal != LOCAL and self.library.principal(principal).trust == "untrusted"
        values = [schema, canonical_json(literals), reason, principal, int(tainted or doubtful)]
        columns = "schema, literals, reason, principal, tainted"
        same = " AND ".join(f"{column} = ?" for column in columns.split(", "))
        if not self.library._query(f"SELECT 1 FROM lessons WHERE {same}", values):
            self._insert("lessons", columns, values)


class Round(Writer):
    """A writer for one round, which ends with `seal`."""

    sealed: RoundRecord | None = None

    def seal(
        self, *, ledger_offset: int, store_offsets: Mapping[str, int], state: Mapping[str, Any] | None = None
    ) -> None:
        """Say where the ledger and the episode store end (``store.commit()``), and the loop's own state."""
        self.sealed = RoundRecord(self.index, ledger_offset, dict(store_offsets), dict(state or {}))
