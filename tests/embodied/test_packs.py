"""Skill packs: they travel, and a hostile one is turned away before anything is written."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embodied.core import EvalReport, Skill
from embodied.skills.library import SkillLibrary
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
