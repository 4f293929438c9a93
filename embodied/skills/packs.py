"""Skill packs: skills as one zip file, to share and to take in without trusting the sender.

``manifest.json`` lists skills, evidence and files with their hashes; ``artifacts/HASH/`` holds each policy.
On import every name, size and hash is checked before anything is written, nothing is unpickled or executed,
and foreign evidence stays foreign: an imported skill is a candidate until the gate here admits it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from embodied.core import Skill, canonical_json
from embodied.data.durable import replace_file
from embodied.skills.artifacts import FILES
from embodied.skills.library import Evidence, SkillLibrary, Writer
from envs.goals import Goal, GoalError
from policies import REGISTRY
from policies.checkpoint import CheckpointError, content_hash, read_header

MANIFEST = "manifest.json"
MAX_BYTES = 1 << 30  # of everything in a pack
MAX_MANIFEST = 16 << 20
_NAME = re.compile(rf"{MANIFEST}|artifacts/[0-9a-f]{{64}}/({'|'.join(map(re.escape, FILES))})")

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


class _Skill(_Strict):
    version: Hash
    schema_: Line = Field(alias="schema")
    artifact: Hash
    conditioning: dict[str, JsonValue]
    signature: dict[str, JsonValue]
    parent: Hash | None
    provenance: dict[str, JsonValue]


class _Evidence(_Strict):
    goal: Line
    version: Hash
    kind: Literal["simulator", "judge", "language"]
    purpose: Literal["screen", "gate", "confirm", "regression"]
    seed: Count
    n: Annotated[int, Field(ge=1, lt=1 << 31)]
    successes: Count
    versions: dict[Line, Line]


class _Manifest(_Strict):
    format: Literal[1]
    skills: list[_Skill]
    evidence: list[_Evidence]
    files: dict[str, _File]


def export_pack(library: SkillLibrary, versions: Iterable[str], path: str | Path) -> Path:
    """Write skills, what was measured of them here, and their policies to a pack; the same skills, the same
    bytes.
    """
    skills = [library.skill(version) for version in sorted(set(versions))]
    if not skills:
        raise PackError(f"there is no skill to put into {path}; name at least one version")
    files = {
        f"artifacts/{artifact}/{name}": (library.artifact(artifact) / name).read_bytes()
        for artifact in sorted({skill.artifact for skill in skills})
        for name in FILES
    }
    evidence = [e for s in skills for e in library.evidence(version=s.version) if e.origin == "local"]
    manifest = {
        "format": 1,
        "skills": [
            {"version": s.version, "schema": s.schema, "artifact": s.artifact, "parent": s.parent,
             "conditioning": dict(s.conditioning), "signature": dict(s.signature),
             "provenance": dict(s.provenance)}
            for s in skills
        ],
        "evidence": [
            {"goal": e.goal, "version": e.version, "kind": e.kind, "purpose": e.purpose, "seed": e.seed,
             "n": e.n, "successes": e.successes, "versions": dict(e.versions)}
            for e in evidence
        ],
        "files": {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in files.items()},
    }  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {
            MANIFEST: json.dumps(manifest, indent=1, sort_keys=True).encode(),
            **files,
        }.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    try:
        replace_file(Path(path), buffer.getvalue())
    except OSError as error:
        raise PackError(f"the pack {path} cannot be written: {error}") from error
    return Path(path)


def import_pack(
    tx: Writer,
    path: str | Path,
    *,
    policy_types: Collection[str] = tuple(REGISTRY),
    max_bytes: int = MAX_BYTES,
) -> list[Skill]:
    """Take a pack's skills in as candidates, inside a transaction (``with library.edit() as tx``); returns
    them.

    PackError, before anything is written, where the file is no sound pack, is larger than `max_bytes`, or
    holds a policy of an unknown type. Its evidence is recorded as foreign.
    """
    path = Path(path)
    try:
        data = path.read_bytes() if path.stat().st_size <= max_bytes else b""
        if not data:
            raise PackError(f"the pack {path} is empty or larger than {max_bytes} bytes and was not read")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _read(archive, path, max_bytes)
        manifest = _Manifest.model_validate_json(files.pop(MANIFEST))
        skills = _skills(manifest, path, hashlib.sha256(data).hexdigest())
        evidence = _evidence(manifest, path)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise PackError(f"the pack {path} cannot be read ({error}); ask for it again") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PackError(f"the pack {path} has a bad manifest ({place}: {first['msg']})") from error
    _check_files(manifest, files, path)
    with tempfile.TemporaryDirectory() as folder:
        directories = {s.artifact: _unpack(s.artifact, files, Path(folder), path, policy_types) for s in skills}
        for directory in directories.values():
            tx.library.artifacts.put(directory)
    stored = [tx.insert(skill) for skill in skills]
    for item in evidence:
        tx.record(item)
    return stored


def _read(archive: zipfile.ZipFile, path: Path, max_bytes: int) -> dict[str, bytes]:
    """The content of every entry by name; PackError for entries that a pack of ours cannot have."""
    files: dict[str, bytes] = {}
    total = 0
    for entry in archive.infolist():
        total += entry.file_size
        if not _NAME.fullmatch(entry.filename) or entry.filename in files:
            raise PackError(f"the pack {path} has an entry {entry.filename!r} that does not belong into a pack")
        if entry.flag_bits & 1 or stat.S_ISLNK(entry.external_attr >> 16) or entry.compress_type not in (0, 8):
            raise PackError(f"the pack {path} has {entry.filename!r} encrypted, as a link or oddly compressed")
        if total > max_bytes or (entry.filename == MANIFEST and entry.file_size > MAX_MANIFEST):
            raise PackError(f"the pack {path} unpacks to more than {max_bytes} bytes and was not read")
        files[entry.filename] = archive.read(entry)
    if MANIFEST not in files:
        raise PackError(f"the pack {path} has no {MANIFEST}; it is a zip file but no skill pack")
    return files


def _skills(manifest: _Manifest, path: Path, digest: str) -> list[Skill]:
    skills = []
    for entry in manifest.skills:
        provenance = {**entry.provenance, "pack": digest}
        skill = Skill(entry.schema_, entry.artifact, entry.conditioning, entry.signature, entry.parent, provenance)
        try:
            canonical_json(provenance)
            version = skill.version
        except ValueError as error:
            raise PackError(f"the pack {path} has a skill that cannot be stored: {error}") from error
        if version != entry.version:
            raise PackError(f"the pack {path} has a skill whose content does not have its hash {entry.version[:12]}")
        skills.append(skill)
    if not skills:
        raise PackError(f"the pack {path} holds no skill")
    return skills


def _evidence(manifest: _Manifest, path: Path) -> list[Evidence]:
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


def _check_files(manifest: _Manifest, files: dict[str, bytes], path: Path) -> None:
    wanted = {f"artifacts/{skill.artifact}/{name}" for skill in manifest.skills for name in FILES}
    if not wanted == set(files) == set(manifest.files):
        odd = sorted(wanted ^ set(files) | wanted ^ set(manifest.files))[0]
        raise PackError(f"the pack {path} and its manifest disagree about {odd!r}; ask for it again")
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256 or len(data) != manifest.files[name].size:
            raise PackError(f"the pack {path} has {name} with another content than its hash says; ask for it again")


def _unpack(artifact: str, files: dict[str, bytes], folder: Path, path: Path, policy_types: Collection[str]) -> Path:
    """Write one artifact to a temporary folder and check that it is what its name says."""
    directory = folder / artifact
    directory.mkdir(exist_ok=True)
    for name in FILES:
        (directory / name).write_bytes(files[f"artifacts/{artifact}/{name}"])
    try:
        kind, found = read_header(directory).type, content_hash(directory)
    except CheckpointError as error:
        raise PackError(f"the pack {path} has a damaged policy {artifact[:12]}: {error}") from error
    if found != artifact:
        raise PackError(f"the pack {path} has a policy whose content does not have its hash {artifact[:12]}")
    if kind not in policy_types:
        raise PackError(
            f"the pack {path} has a policy of the unknown type '{kind}'; the types are "
            f"{', '.join(sorted(policy_types))}"
        )
    return directory
