"""Skill packs: they travel, and a hostile one is turned away before anything is written."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embodied.core import EvalReport, Skill
from embodied.skills import signing
from embodied.skills.library import SkillLibrary
from embodied.skills.manifest import HandbookFacet, PolicyFacet
from embodied.skills.packs import PackError, export_pack, import_pack
from policies.checkpoint import write_checkpoint

GOAL = "open(drawer)"
NAN = float("nan")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Skill]:
    """A pack of one skill that is admitted where it comes from."""
    write_checkpoint(tmp_path / "p", "random", {"x": 1}, {"weight": np.ones(3, np.float32)})
    with SkillLibrary.open(tmp_path / "home" / "library.sqlite") as library:
        with library.edit() as tx:
            skill = tx.add_skill("open(drawer)", tmp_path / "p", parent=None, provenance={"seed": 3})
            for seed, purpose in enumerate(("gate", "confirm")):
                tx.add_evidence(skill.version, purpose, EvalReport(GOAL, "", seed, np.ones(200, bool)))
        assert [m.goal for m in library.mastered()] == [GOAL]
        first = export_pack(library, [skill.version], tmp_path / "a.zip")
        again = export_pack(library, [skill.version, skill.version], tmp_path / "b.zip")
    assert first.read_bytes() == again.read_bytes()
    return first, skill


def take_in(path: Path, folder: Path, **options: object) -> list[Skill]:
    with SkillLibrary.open(folder / "library.sqlite") as library, library.edit() as tx:
        return import_pack(tx, path, **options)  # type: ignore[arg-type]


def test_a_pack_brings_the_skill_but_its_evidence_admits_nothing(tmp_path: Path, made: tuple[Path, Skill]) -> None:
    path, skill = made
    for _ in range(2):  # a second time changes nothing
        (stored,) = take_in(path, tmp_path / "away")
        assert stored.version == skill.version and stored.provenance["seed"] == 3 and "pack" in stored.provenance
    with SkillLibrary.open(tmp_path / "away" / "library.sqlite") as library:
        assert [(e.origin, e.n, e.successes) for e in library.evidence()] == [("foreign", 200, 200)] * 2
        assert library.mastered() == [] and library.status() == []
        assert [(row.status, row.tainted) for row in library.standing()] == [("quarantined", True)]
        with library.edit() as tx:  # the same seed measured here is evidence of its own
            for seed, purpose in enumerate(("gate", "confirm")):
                tx.add_evidence(skill.version, purpose, EvalReport(GOAL, "", seed, np.ones(200, bool)))
        assert [m.skill.version for m in library.mastered()] == [skill.version]
        assert json.loads((library.artifact(skill) / "config.json").read_text())["type"] == "random"


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The pack with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def manifest(key: str, change: Callable[[list[dict[str, object]]], object]) -> Callable[[dict[str, bytes]], None]:
    """Change one list of the manifest."""

    def apply(entries: dict[str, bytes]) -> None:
        content = json.loads(entries["manifest.json"])
        change(content[key])
        entries["manifest.json"] = json.dumps(content).encode()

    return apply


def nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


def weights(entries: dict[str, bytes]) -> str:
    return next(name for name in entries if name.endswith(".safetensors"))


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "slip": (lambda e: e.update({"../../evil.txt": b"x"}), "does not belong"),
    "absolute": (lambda e: e.update({"/etc/evil": b"x"}), "does not belong"),
    "pickle": (lambda e: e.update({weights(e).replace("safetensors", "pkl"): b"x"}), "does not belong"),
    "no manifest": (lambda e: e.pop("manifest.json"), "has no manifest.json"),
    "flipped weights": (lambda e: e.update({weights(e): e[weights(e)][:-1] + b"!"}), "another content"),
    "missing weights": (lambda e: e.pop(weights(e)), "disagree about"),
    "another version": (
        manifest("skills", lambda s: s[0].update(schema="lit(lamp)")),
        "does not have its hash",
    ),
    "a status": (manifest("skills", lambda s: s[0].update(status="admitted")), "bad manifest .*status"),
    "local": (manifest("evidence", lambda e: e[0].update(origin="local")), "bad manifest .*origin"),
    "too good": (manifest("evidence", lambda e: e[0].update(successes=201)), "cannot be: 201 of 200"),
    "huge seed": (manifest("evidence", lambda e: e[0].update(seed=1 << 70)), "bad manifest .*seed"),
    "unknown goal": (manifest("evidence", lambda e: e[0].update(goal="fly(red)")), "unknown goal"),
    "terminal": (manifest("skills", lambda s: s[0].update(schema="\x1b[2J")), "bad manifest .*schema"),
    "not a number": (
        manifest("skills", lambda s: s[0].update(conditioning={"z": float("nan")})),
        "cannot be stored",
    ),
    "future": (
        lambda e: e.update({"manifest.json": b'{"format": 3}'}),
        "is of format 3, this version reads formats 1 to 2",
    ),
    "no format": (lambda e: e.update({"manifest.json": b"[]"}), "bad manifest"),
    "recursion": (lambda e: e.update({"manifest.json": b"[" * 100_000}), "bad manifest"),
    "huge number": (lambda e: e.update({"manifest.json": b'{"format": ' + b"9" * 5000 + b"}"}), "bad manifest"),
    "deep": (manifest("skills", lambda s: s[0].update(conditioning={"z": nested(60)})), "deeper than 16|bad manifest"),
    "facet": (manifest("skills", lambda s: s[0].update(facets={"code": "import os"})), "have no 'code'"),
    "unknown symbol": (
        manifest("skills", lambda s: s[0].update(facets={"policy": {"initiation": ["fly(red)"]}})),
        "unknown predicate 'fly'",
    ),
    "long handbook": (
        manifest("skills", lambda s: s[0].update(facets={"handbook": {"do": "x " * 200}})),
        "200 words is too long",
    ),
    "facets besides the hash": (
        manifest("skills", lambda s: s[0].update(facets={"handbook": {"do": "burn it"}})),
        "does not have its hash",
    ),
    "bad lesson": (
        manifest("lessons", lambda x: x.append({"schema": "s", "literals": ["no"], "reason": "", "tainted": False})),
        "bad lesson",
    ),
    "no skill": (manifest("skills", lambda s: s.clear()), "holds no skill|cannot be"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_is_refused_and_leaves_nothing(tmp_path: Path, made: tuple[Path, Skill], name: str) -> None:
    change, sentence = HOSTILE[name]
    path = rewritten(made[0], change)  # type: ignore[arg-type]
    with pytest.raises(PackError, match=sentence) as caught:
        take_in(path, tmp_path / "away")
    assert str(path) in str(caught.value)
    with SkillLibrary.open(tmp_path / "away" / "library.sqlite") as library:
        assert library.skills() == [] and list(library.artifacts) == [] and library.evidence() == []


def test_types_sizes_and_broken_files_are_refused(tmp_path: Path, made: tuple[Path, Skill]) -> None:
    path, _ = made
    with pytest.raises(PackError, match="unknown type 'random'; the types are flow-bc, sb3"):
        take_in(path, tmp_path / "away", policy_types=("sb3", "flow-bc"))
    with pytest.raises(PackError, match="empty or larger than 100 bytes"):
        take_in(path, tmp_path / "away", max_bytes=100)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * 20_000_000)
    with pytest.raises(PackError, match="unpacks to more than"):
        take_in(bomb, tmp_path / "away")
    link = zipfile.ZipInfo(f"artifacts/{'0' * 64}/config.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PackError, match="as a link"):
        take_in(bomb, tmp_path / "away")
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1)):
        path.write_bytes(content)
        with pytest.raises(PackError, match=str(path)):
            take_in(path, tmp_path / "away")
    with pytest.raises(PackError, match=r"missing\.zip cannot be read"):
        take_in(tmp_path / "missing.zip", tmp_path / "away")
    with (
        SkillLibrary.open(tmp_path / "away" / "library.sqlite") as library,
        pytest.raises(PackError, match="no skill to put"),
    ):
        export_pack(library, [], tmp_path / "c.zip")


def test_a_pack_of_format_1_is_still_read(tmp_path: Path, made: tuple[Path, Skill]) -> None:
    def older(entries: dict[str, bytes]) -> None:
        content = json.loads(entries["manifest.json"]) | {"format": 1}
        del content["lessons"]
        for skill in content["skills"]:
            del skill["facets"], skill["tainted"]
        entries["manifest.json"] = json.dumps(content).encode()

    (stored,) = take_in(rewritten(made[0], older), tmp_path / "away")
    assert stored.version == made[1].version and stored.tainted


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, made: tuple[Path, Skill]) -> None:
    from embodied.skills import artifacts

    with SkillLibrary.open(tmp_path / "bad" / "library.sqlite") as library:
        with pytest.MonkeyPatch.context() as patch, library.edit() as tx:
            patch.setattr(artifacts, "check_finite", lambda _: None)
            write_checkpoint(tmp_path / "q", "random", {}, {"weight": np.array([NAN], np.float32)})
            skill = tx.add_skill("open(drawer)", tmp_path / "q")
        pack = export_pack(library, [skill.version], tmp_path / "bad.zip")
    with pytest.raises(PackError, match=r"damaged policy .*'weight' are not all finite"):
        take_in(pack, tmp_path / "away")


def test_facets_and_lessons_travel_and_a_tainted_lesson_binds_nobody(tmp_path: Path) -> None:
    facets = {"handbook": HandbookFacet("now", "this", "that"), "policy": PolicyFacet(("open(drawer)",), (), 80)}
    with SkillLibrary.open(tmp_path / "home" / "library.sqlite") as library:
        with library.edit() as tx:
            skill = tx.add_skill("open(drawer)", None, **facets)  # type: ignore[arg-type]
            tx.add_lesson("open(drawer)", ["lit(lamp)"], "it is hot")
        pack = export_pack(library, [skill.version], tmp_path / "a.zip")
    (stored,) = take_in(pack, tmp_path / "away")
    assert (stored.version, stored.handbook, stored.policy) == (skill.version, skill.handbook, skill.policy)
    with SkillLibrary.open(tmp_path / "away" / "library.sqlite") as library:
        assert [(lesson.reason, lesson.tainted) for lesson in library.lessons()] == [("it is hot", True)]
        assert [p.trust for p in library.principals()] == ["own", "untrusted"]


@pytest.mark.skipif(find_spec("cryptography") is None, reason="needs the extra 'signing'")
def test_a_signature_makes_a_known_sender_and_a_bad_one_is_refused(tmp_path: Path, made: tuple[Path, Skill]) -> None:
    public = signing.new_key(tmp_path / "key")
    with pytest.raises(signing.SigningError, match="exists and is not replaced"):
        signing.new_key(tmp_path / "key")
    with SkillLibrary.open(tmp_path / "home" / "library.sqlite", readonly=True) as library:
        signed = export_pack(library, [made[1].version], tmp_path / "signed.zip", key=tmp_path / "key")
        with pytest.raises(signing.SigningError, match="is no private key"):
            export_pack(library, [made[1].version], tmp_path / "x.zip", key=made[0])
    (stored,) = take_in(signed, tmp_path / "stranger")
    assert stored.tainted and stored.principal == f"key:{public}"
    for trust, tainted in (("trusted", False), ("untrusted", True)):
        folder = tmp_path / trust
        with SkillLibrary.open(folder / "library.sqlite") as library, library.edit() as tx:
            tx.add_principal("ann", public_key=public, trust=trust)
            (stored,) = import_pack(tx, signed)
            assert (stored.principal, stored.tainted) == ("ann", tainted)
            assert library.standing()[0].status == "quarantined"

    def forged(entries: dict[str, bytes]) -> None:
        entries["manifest.json"] = entries["manifest.json"].replace(b'"seed": 3', b'"seed": 4')

    def other_key(entries: dict[str, bytes]) -> None:
        entry = json.loads(entries["signature.json"]) | {"public_key": "ab" * 32}
        entries["signature.json"] = json.dumps(entry).encode()

    for change in (forged, other_key):
        with pytest.raises(PackError, match="has a signature that is not of its content"):
            take_in(rewritten(signed, change), tmp_path / "forged")
    with pytest.raises(PackError, match=r"bad signature \(algorithm: Field required"):
        take_in(rewritten(signed, lambda e: e.update({"signature.json": b"{}"})), tmp_path / "forged")
    with SkillLibrary.open(tmp_path / "forged" / "library.sqlite") as library:
        assert library.skills() == [] and list(library.artifacts) == []


def test_without_the_signing_library_a_signed_pack_is_refused_in_one_sentence(
    tmp_path: Path, made: tuple[Path, Skill], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    entry = {"algorithm": "ed25519", "public_key": "ab" * 32, "signature": "cd" * 64}
    signed = rewritten(made[0], lambda e: e.update({"signature.json": json.dumps(entry).encode()}))
    with pytest.raises(PackError, match=r"cannot be checked here: .*embodied-repertoire\[signing\]"):
        take_in(signed, tmp_path / "away")
