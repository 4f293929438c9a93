"""What can be said of an edit without running it: types, hashes, literal symbols, numbers, room and coverage."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core import Skill, canonical_json
from embodied.skills.artifacts import LibraryError
from embodied.skills.gate import GateError
from embodied.skills.probes import Recorded
from envs.goals import Goal, GoalError, ground
from envs.vocabulary import PREDICATES
from policies.checkpoint import MODEL

__all__ = ["KINDS", "Edit", "Fork", "Snapshot", "by_failure_mode", "fault_of", "least_used"]

Fork = Mapping[str, str]
"""The current set: slot → version. A slot is a family's name, or "family [version]" where a family has several; what
the evaluation takes. Forks are plain mappings that share every artifact: nothing is copied."""

KINDS = ("add", "modify", "remove")
_HASH = re.compile(r"[0-9a-f]{64}")
_LIFTED = re.compile(r"(?:not )?(?P<name>\w+)\((?P<args>[^()]*)\)")
_VARIABLE = re.compile(r"(?P<name>\?\w+)(?::(?P<type>\w+))?")


@dataclass(frozen=True)
class Edit:
    """One change of the set. ``goals`` are the instructions it is meant for, named before any look at it.

    ``skill`` is the version that comes in (None where one is removed), ``literals`` the lifted literals of the operator
    that comes with it, ``mode`` the failure mode that it answers.
    """

    kind: str
    slot: str
    goals: tuple[str, ...]
    skill: Skill | None = None
    literals: tuple[str, ...] = ()
    mode: str = ""

    @property
    def family(self) -> str:
        """The family that the slot belongs to."""
        return self.slot.split(" [")[0]

    def fork(self, base: Fork) -> dict[str, str]:
        """The set with this edit in it."""
        changed = {slot: version for slot, version in base.items() if slot != self.slot}
        return changed if self.skill is None else changed | {self.slot: self.skill.version}

    def credited(self, base: Fork) -> str:
        """The version whose use the edit is credited for: what comes in, or what is removed."""
        return base[self.slot] if self.skill is None else self.skill.version


@dataclass(frozen=True)
class Snapshot:
    """What edits are decided against: the set, what is recorded of it, what each slot covers, where weights lie.

    ``covers``: slot → the goals that its version is admitted for. ``artifact`` gives a skill's verified directory
    (``library.artifact``); without it only hashes are checked.
    """

    base: Fork
    recorded: Sequence[Recorded]
    covers: Mapping[str, Collection[str]] = field(default_factory=dict)
    artifact: Callable[[Skill], Path] | None = None

    def rate(self, goals: Collection[str]) -> float:
        """The base's recorded success over these goals; nan where nothing is recorded."""
        found = [row.success for row in self.recorded if row.task.goal in goals]
        return float(np.mean(found)) if found else float("nan")

    def mastered(self, threshold: float, n: int) -> tuple[str, ...]:
        """The instructions that the base is recorded to carry out with at least this rate, over n episodes or more."""
        counts: dict[str, list[int]] = {}
        for row in self.recorded:
            entry = counts.setdefault(row.task.goal, [0, 0])
            entry[0] += row.success
            entry[1] += 1
        return tuple(sorted(goal for goal, (k, m) in counts.items() if m >= n and k >= threshold * m))


def fault_of(edit: Edit, snapshot: Snapshot, capacity: int) -> str:
    """Why an edit cannot be made at all, in one sentence; "" where it can. Runs nothing and writes nothing."""
    here = edit.slot in snapshot.base
    if edit.kind not in KINDS:
        return f"unknown kind '{edit.kind}' of an edit; the kinds are {', '.join(KINDS)}"
    if (edit.kind == "remove") != (edit.skill is None):
        return f"an edit that {edit.kind}s '{edit.slot}' must {'not ' if edit.skill else ''}come with a skill"
    if here == (edit.kind == "add"):
        return f"'{edit.slot}' is {'already' if here else 'not'} in the set, so nothing can {edit.kind} it"
    if not edit.goals:
        return f"an edit of '{edit.slot}' must name the instructions it is meant for"
    try:
        for text in edit.goals:
            if str(Goal.parse(text)) != text:
                return f"'{text}' is not an instruction's canonical text, which is '{Goal.parse(text)}'"
    except GoalError as error:
        return f"an edit of '{edit.slot}' is meant for an unknown instruction: {error}"
    for goal in sorted(set(edit.goals) - {row.task.goal for row in snapshot.recorded}):
        return f"nothing is recorded of the base on '{goal}'; carry it out before an edit is meant for it"
    if edit.skill is None:
        rest = {goal for slot, goals in snapshot.covers.items() if slot != edit.slot for goal in goals}
        alone = sorted(set(snapshot.covers.get(edit.slot, ())) - rest)
        return f"'{edit.slot}' is the sole coverage of '{alone[0]}' and is never evicted" if alone else ""
    held = sum(slot.split(" [")[0] == edit.family for slot in snapshot.base)
    if edit.kind == "add" and held >= capacity:
        return f"the family '{edit.family}' holds {held} of {capacity} skills; modify or remove one first"
    return _fault_of_skill(edit, edit.skill, snapshot)


def _fault_of_skill(edit: Edit, skill: Skill, snapshot: Snapshot) -> str:
    if not isinstance(skill.schema, str) or skill.schema != edit.family:
        return f"the skill's schema {skill.schema!r} is not the slot's family '{edit.family}'"
    try:
        if not ground(skill.schema):
            return f"the schema '{skill.schema}' has no ground goal"
    except (GoalError, KeyError) as error:
        return f"the schema '{skill.schema}' cannot be grounded: {error}"
    if not _HASH.fullmatch(str(skill.artifact)):
        return f"{str(skill.artifact)[:20]!r} is not the hash of an artifact (64 hexadecimal digits)"
    try:
        canonical_json([dict(skill.conditioning), dict(skill.signature), dict(skill.provenance)])
        version = skill.version
    except (TypeError, ValueError, RecursionError) as error:
        return f"the skill for '{edit.slot}' says what is no finite JSON: {error}"
    if version in snapshot.base.values():
        return f"the version {version[:12]} is in the set already"
    if edit.kind == "modify" and skill.parent not in (None, snapshot.base[edit.slot]):
        return f"the skill was made from {str(skill.parent)[:12]}, but '{edit.slot}' is {snapshot.base[edit.slot][:12]}"
    for literal in edit.literals:
        if fault := _fault_of_literal(literal, skill.schema):
            return fault
    return _fault_of_weights(skill, snapshot)


def _fault_of_literal(literal: str, schema: str) -> str:
    """Whether a lifted literal speaks the closed vocabulary, of the schema's own variables and of named things."""
    found = _LIFTED.fullmatch(literal) if len(literal) <= 200 else None
    if found is None:
        return f"{literal[:40]!r} is no literal such as 'clear(?a)' or 'not on(?a, ?b)'"
    if found["name"] not in PREDICATES:
        return f"unknown predicate '{found['name']}'; the predicates are {', '.join(PREDICATES)}"
    types = {match["name"]: match["type"] for match in _VARIABLE.finditer(schema)}
    for word in (word.strip() for word in found["args"].split(",")):
        variable = _VARIABLE.fullmatch(word)
        if variable is not None and variable["name"] not in types:
            return f"the variable {variable['name']} of '{literal}' is none of '{schema}'"
        if variable is not None and variable["type"] not in (None, types[variable["name"]]):
            return f"the variable {word} of '{literal}' has another type in '{schema}'"
    typed = _VARIABLE.sub(lambda match: f"{match['name']}:{types[match['name']]}", literal.removeprefix("not "))
    try:
        return "" if ground(typed) else f"'{literal}' cannot hold of anything"
    except (GoalError, KeyError) as error:
        return f"'{literal}' cannot be grounded: {error}"


def _fault_of_weights(skill: Skill, snapshot: Snapshot) -> str:
    """Whether the artifact is there under its hash, and every number in it finite."""
    if snapshot.artifact is None:
        return ""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Any] = load_file(snapshot.artifact(skill) / MODEL)
    except (LibraryError, SafetensorError, OSError, KeyError, ValueError) as error:
        return str(error)
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            return f"the artifact {skill.artifact[:12]} has weights '{name}' that are not finite"
    return ""


def by_failure_mode(candidates: Sequence[Edit], recorded: Sequence[Recorded], k: int) -> list[Edit]:
    """At most k candidates, taken in turn from the failure modes, the commonest first; order kept within a mode.

    An edit whose mode was never recorded comes last. GateError where k is below 1.
    """
    if k < 1:
        raise GateError(f"{k} candidates cannot be probed; at least 1 is needed")
    seen: dict[str, int] = {}
    for row in recorded:
        if not row.success:
            seen[row.mode] = seen.get(row.mode, 0) + 1
    groups: dict[str, list[Edit]] = {}
    for edit in candidates:
        groups.setdefault(edit.mode, []).append(edit)
    ranked = sorted(groups, key=lambda mode: -seen.get(mode, 0))
    longest = max(map(len, groups.values()), default=0)
    return [groups[mode][i] for i in range(longest) for mode in ranked if i < len(groups[mode])][:k]


def least_used(base: Fork, family: str, covers: Mapping[str, Collection[str]], uses: Mapping[str, int]) -> str | None:
    """The slot of a full family to propose for removal: the least used whose goals others cover; None where none is."""
    free = []
    for slot in base:
        others = {goal for other, goals in covers.items() if other != slot for goal in goals}
        if slot.split(" [")[0] == family and not set(covers.get(slot, ())) - others:
            free.append(slot)
    return min(free, key=lambda slot: (uses.get(slot, 0), slot), default=None)
