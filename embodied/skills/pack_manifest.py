"""What stands in a skill pack's ``manifest.json``, formats 1 and 2, and reading it without trusting a word of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from embodied.core import Skill
from embodied.skills.manifest import ManifestError, check_json, check_symbols, facets_from_dict, literal_of
from embodied.skills.records import Evidence, TaughtLesson
from envs.goals import Goal, GoalError
from envs.scenes.words import PREDICATES as SCENE_PREDICATES
from envs.vocabulary import PREDICATES

FORMAT = 2
KNOWN = frozenset(PREDICATES) | frozenset(SCENE_PREDICATES)  # the symbols that a facet may speak of

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class PackError(RuntimeError):
    """A pack cannot be written or taken in; the sentence names the file and what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _File(_Strict):
    sha256: Hash
    size: Count


class _Skill1(_Strict):
    version: Hash
    schema_: Line = Field(alias="schema")
    artifact: Hash
    conditioning: dict[str, JsonValue]
    signature: dict[str, JsonValue]
    parent: Hash | None
    provenance: dict[str, JsonValue]


class _Skill2(_Skill1):
    artifact: Hash | Literal[""]
    facets: dict[str, JsonValue]
    tainted: bool


class _Evidence(_Strict):
    goal: Line
    version: Hash
    kind: Literal["simulator", "judge", "language"]
    purpose: Literal["screen", "gate", "confirm", "regression", "smoke", "probe", "canary"]
    seed: Count
    n: Annotated[int, Field(ge=1, lt=1 << 31)]
    successes: Count
    versions: dict[Line, Line]


class _Lesson(_Strict):
    schema_: Line = Field(alias="schema")
    literals: Annotated[list[Line], Field(min_length=1, max_length=64)]
    reason: Line
    tainted: bool


class Manifest1(_Strict):
    """Format 1: skills with a policy each, what was measured of them, and the files."""

    format: Literal[1]
    skills: list[_Skill1]
    evidence: list[_Evidence]
    files: dict[str, _File]


class Manifest2(_Strict):
    """Format 2: besides, facets, taint and lessons."""

    format: Literal[2]
    skills: list[_Skill2]
    evidence: list[_Evidence]
    lessons: Annotated[list[_Lesson], Field(max_length=10_000)]
    files: dict[str, _File]


class SignatureEntry(_Strict):
    """``signature.json``: of the manifest's bytes, which hold the hash of every other file."""

    algorithm: Literal["ed25519"]
    public_key: Hash
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


Manifest = Manifest1 | Manifest2


def manifest_of(
    skills: list[Skill], evidence: list[Evidence], lessons: list[TaughtLesson], files: dict[str, dict[str, Any]]
) -> bytes:
    """The manifest (format 2) of a pack; the same content, the same bytes."""
    content = {
        "format": FORMAT,
        "skills": [
            {"version": s.version, "schema": s.schema, "artifact": s.artifact, "parent": s.parent,
             "conditioning": dict(s.conditioning), "signature": dict(s.signature), "facets": s.facets,
             "provenance": dict(s.provenance), "tainted": s.tainted}
            for s in skills
        ],
        "evidence": [
            {"goal": e.goal, "version": e.version, "kind": e.kind, "purpose": e.purpose, "seed": e.seed,
             "n": e.n, "successes": e.successes, "versions": dict(e.versions)}
            for e in evidence
        ],
        "lessons": [
            {"schema": x.schema, "literals": list(x.literals), "reason": x.reason, "tainted": x.tainted}
            for x in lessons
        ],
        "files": files,
    }  # fmt: skip
    return json.dumps(content, indent=1, sort_keys=True).encode()


def read_manifest(data: bytes, path: Path) -> Manifest:
    """A manifest of any format that is read; PackError otherwise."""
    try:
        content = json.loads(data)
        found = content.get("format") if isinstance(content, dict) else None
    except (ValueError, RecursionError) as error:
        raise PackError(f"the pack {path} has a bad manifest ({str(error)[:200]})") from error
    if isinstance(found, int) and found > FORMAT:
        raise PackError(f"the pack {path} is of format {found}, this version reads formats 1 to {FORMAT}")
    return _validated(Manifest1 if found == 1 else Manifest2, data, path, "manifest")


def read_signature(data: bytes, path: Path) -> SignatureEntry:
    """The signature that came with a pack; PackError where it is none."""
    return _validated(SignatureEntry, data, path, "signature")


def _validated(model: type[Any], data: bytes, path: Path, what: str) -> Any:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PackError(f"the pack {path} has a bad {what} ({place}: {first['msg']})") from error


def skills_of(manifest: Manifest, path: Path, provenance: dict[str, Any], principal: str) -> list[Skill]:
    """The skills of a manifest, each checked against its own hash; nothing in them is known to be true."""
    skills = []
    for entry in manifest.skills:
        told = {**entry.provenance, **provenance}
        facets, tainted = (entry.facets, entry.tainted) if isinstance(entry, _Skill2) else ({}, False)
        try:
            for name, value in (("conditioning", entry.conditioning), ("signature", entry.signature), ("", told)):
                check_json(value, f"its {name or 'provenance'}")
            known = facets_from_dict(facets)
            check_symbols(known, KNOWN)
        except ManifestError as error:
            raise PackError(f"the pack {path} has a skill that cannot be stored: {error}") from error
        skill = Skill(
            entry.schema_, entry.artifact, entry.conditioning, entry.signature, entry.parent, told, **known,
            principal=principal, tainted=tainted,
        )  # fmt: skip
        if skill.version != entry.version:
            raise PackError(f"the pack {path} has a skill whose content does not have its hash {entry.version[:12]}")
        if not skill.artifact and not known:
            raise PackError(f"the pack {path} has the skill '{skill.schema}' with neither a policy nor a facet")
        skills.append(skill)
    if not skills:
        raise PackError(f"the pack {path} holds no skill")
    return skills


def evidence_of(manifest: Manifest, path: Path) -> list[Evidence]:
    """What the sender says was measured there: foreign evidence, in canonical goals."""
    known = {entry.version for entry in manifest.skills}
    rows = []
    for e in manifest.evidence:
        try:
            canonical = str(Goal.parse(e.goal))
        except GoalError as error:
            raise PackError(f"the pack {path} has evidence on an unknown goal: {error}") from error
        if e.version not in known or e.successes > e.n or canonical != e.goal:
            raise PackError(f"the pack {path} has evidence on '{e.goal}' that cannot be: {e.successes} of {e.n}")
        rows.append(Evidence(e.goal, e.version, e.kind, e.purpose, e.seed, e.n, e.successes, -1, "foreign", e.versions))
    return rows


def lessons_of(manifest: Manifest, path: Path) -> list[TaughtLesson]:
    """What the sender warns of; who says so is filled in by whoever takes it in."""
    lessons = []
    for entry in manifest.lessons if isinstance(manifest, Manifest2) else ():
        try:
            for literal in entry.literals:
                literal_of(literal)
        except ManifestError as error:
            raise PackError(f"the pack {path} has a bad lesson: {error}") from error
        lessons.append(TaughtLesson(entry.schema_, tuple(entry.literals), entry.reason, "", entry.tainted))
    return lessons
