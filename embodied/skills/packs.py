"""Skill packs: skills as one zip file, to share and to take in without trusting the sender.

``manifest.json`` lists skills with their facets, evidence, lessons and files with their hashes;
``artifacts/HASH/`` holds each policy; ``signature.json``, where the pack is signed, the signature of the manifest. On
import every name, size and hash is checked before anything is written, nothing is unpickled or executed, and foreign
evidence stays foreign: an imported skill is quarantined until the simulator here has seen it succeed, and a candidate
until the gate here admits it. It is tainted, with all that is learnt from it, unless it is signed by a key that is
trusted here and was clean there.
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

from embodied.core import Skill
from embodied.data.durable import replace_file
from embodied.skills.artifacts import FILES, check_finite
from embodied.skills.library import SkillLibrary, Writer
from embodied.skills.pack_manifest import (
    Manifest,
    PackError,
    evidence_of,
    lessons_of,
    manifest_of,
    read_manifest,
    read_signature,
    skills_of,
)
from embodied.skills.signing import SigningError, is_signed_by, sign
from policies import REGISTRY
from policies.checkpoint import CheckpointError, content_hash, read_header

__all__ = ["PackError", "export_pack", "import_pack"]

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_BYTES = 1 << 30  # of everything in a pack
MAX_MANIFEST = 16 << 20
_NAME = re.compile(rf"{MANIFEST}|{SIGNATURE}|artifacts/[0-9a-f]{{64}}/({'|'.join(map(re.escape, FILES))})")


def export_pack(
    library: SkillLibrary, versions: Iterable[str], path: str | Path, *, key: str | Path | None = None
) -> Path:
    """Write skills, what was measured of them here, lessons about them and their policies to a pack; the same skills,
    the same bytes. `key`, the file of a private key, signs it.
    """
    skills = [library.skill(version) for version in sorted(set(versions))]
    if not skills:
        raise PackError(f"there is no skill to put into {path}; name at least one version")
    files = {
        f"artifacts/{artifact}/{name}": (library.artifact(artifact) / name).read_bytes()
        for artifact in sorted({skill.artifact for skill in skills} - {""})
        for name in FILES
    }
    evidence = [e for s in skills for e in library.evidence(version=s.version) if e.origin == "local"]
    lessons = [lesson for schema in sorted({s.schema for s in skills}) for lesson in library.lessons(schema)]
    hashes = {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in files.items()}
    content = {MANIFEST: manifest_of(skills, evidence, lessons, hashes)}
    if key is not None:
        public, signature = sign(key, content[MANIFEST])
        entry = {"algorithm": "ed25519", "public_key": public, "signature": signature}
        content[SIGNATURE] = json.dumps(entry, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**content, **files}.items():
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
    """Take a pack's skills in, quarantined, inside a transaction (``with library.edit() as tx``); returns them.

    PackError, before anything is written, where the file is no sound pack, is larger than `max_bytes`, has a bad
    signature, or holds a policy of an unknown type. Its evidence is recorded as foreign.
    """
    path = Path(path)
    try:
        data = path.read_bytes() if path.stat().st_size <= max_bytes else b""
        if not data:
            raise PackError(f"the pack {path} is empty or larger than {max_bytes} bytes and was not read")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = _read(archive, path, max_bytes)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise PackError(f"the pack {path} cannot be read ({error}); ask for it again") from error
    digest = hashlib.sha256(data).hexdigest()
    name, public_key = _sender(tx.library, files, path, digest)
    manifest = read_manifest(files.pop(MANIFEST), path)
    skills = skills_of(manifest, path, {"pack": digest}, name)
    evidence, lessons = evidence_of(manifest, path), lessons_of(manifest, path)
    _check_files(manifest, files, path)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = sorted({skill.artifact for skill in skills} - {""})
        directories = [_unpack(artifact, files, Path(folder), path, policy_types) for artifact in artifacts]
        for directory in directories:
            tx.library.artifacts.put(directory)
    if name not in {principal.name for principal in tx.library.principals()}:
        tx.add_principal(name, public_key=public_key)
    stored = [tx.insert(skill) for skill in skills]
    for item in evidence:
        tx.record(item)
    for lesson in lessons:
        tx.add_lesson(lesson.schema, lesson.literals, lesson.reason, principal=name, tainted=lesson.tainted)
    return stored


def _sender(library: SkillLibrary, files: dict[str, bytes], path: Path, digest: str) -> tuple[str, str | None]:
    """Who a pack comes from, and the public key: a principal known here by the key, a new one for an unknown key, or
    one for an unsigned pack alone. PackError for a signature that is not that of the manifest.
    """
    if SIGNATURE not in files:
        return f"pack:{digest[:16]}", None
    entry = read_signature(files.pop(SIGNATURE), path)
    try:
        if not is_signed_by(entry.public_key, entry.signature, files[MANIFEST]):
            raise PackError(f"the pack {path} has a signature that is not of its content; do not use it")
    except SigningError as error:
        raise PackError(f"the pack {path} is signed, and that cannot be checked here: {error}") from error
    known = [principal.name for principal in library.principals() if principal.public_key == entry.public_key]
    return (known[0] if known else f"key:{entry.public_key}"), entry.public_key


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
        if total > max_bytes or (entry.filename in (MANIFEST, SIGNATURE) and entry.file_size > MAX_MANIFEST):
            raise PackError(f"the pack {path} unpacks to more than {max_bytes} bytes and was not read")
        files[entry.filename] = archive.read(entry)
    if MANIFEST not in files:
        raise PackError(f"the pack {path} has no {MANIFEST}; it is a zip file but no skill pack")
    return files


def _check_files(manifest: Manifest, files: dict[str, bytes], path: Path) -> None:
    artifacts = {skill.artifact for skill in manifest.skills} - {""}
    wanted = {f"artifacts/{artifact}/{name}" for artifact in artifacts for name in FILES}
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
        if found == artifact:
            check_finite(directory)
    except (CheckpointError, RecursionError) as error:
        raise PackError(f"the pack {path} has a damaged policy {artifact[:12]}: {error}") from error
    if found != artifact:
        raise PackError(f"the pack {path} has a policy whose content does not have its hash {artifact[:12]}")
    if kind not in policy_types:
        raise PackError(
            f"the pack {path} has a policy of the unknown type '{kind}'; the types are "
            f"{', '.join(sorted(policy_types))}"
        )
    return directory
