"""``embodied skills``: what it lists, shows, exports and imports."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from embodied import cli, runs
from embodied.core import EvalReport, Skill
from embodied.skills.library import Change, SkillLibrary
from policies.random import RandomPolicy

GOALS = ("open(drawer)", "lit(lamp)", "touching(red)")


def report(goal: str, seed: int, successes: int = 200) -> EvalReport:
    return EvalReport(goal, "", seed, np.arange(200) < successes, versions={"mujoco": "4.0.0"})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with one skill that masters three goals, of which two count, and fails at a fourth."""
    directory = tmp_path / "runs" / "first"
    RandomPolicy(4, 2).save_pretrained(tmp_path / "policy")
    with SkillLibrary.open(directory / runs.LIBRARY) as library, library.round(0) as tx:
        skill = tx.add_skill("open(?a:drawer)", tmp_path / "policy")
        for seed, goal in enumerate((*GOALS, "closed(drawer)")):
            for purpose in ("gate", "confirm"):
                successes = 150 if goal == "closed(drawer)" else 198
                tx.add_evidence(skill.version, purpose, report(goal, 10 * seed + len(purpose), successes))
        tx.seal(ledger_offset=0, store_offsets={})
    return directory


def skill_of(run: Path) -> Skill:
    with runs.library(run) as library:
        (skill,) = library.skills()
    return skill


def test_the_list_counts_distinct_goals_and_is_readable_by_a_script(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["skills", f"run={run}"]) == 0
    text = capsys.readouterr().out
    assert "● lit(lamp)" in text
    assert "○ touching(red)" in text
    assert "closed(drawer)" not in text
    assert "2 distinct goals mastered (●), 3 in all, 1 versions" in text
    assert cli.main(["skills", "list", "--json", f"run={run}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mastered"] == ["lit(lamp)", "open(drawer)"]
    row = found["goals"][0]
    assert (row["goal"], row["n"], row["successes"]) == ("lit(lamp)", 200, 198)
    assert 0.9 < row["lower"] < row["rate"] == 0.99 < row["upper"] < 1


def test_show_finds_a_skill_by_goal_or_by_the_beginning_of_its_hash(run: Path, capsys: pytest.CaptureFixture[str]):
    version = skill_of(run).version
    for word in ("lit(lamp)", version[:6]):
        assert cli.main(["skills", "show", word, f"run={run}"]) == 0
        text = capsys.readouterr().out
        assert version in text
        assert "closed(drawer): candidate" in text
        assert "confirm 198/200" in text
    assert cli.main(["skills", "show", "--json", version, f"run={run}"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["lit(lamp)"] == "admitted"
    assert cli.main(["skills", "show", "on(red, blue)", f"run={run}"]) == 2
    assert "lit(lamp), open(drawer), touching(red)" in capsys.readouterr().err


def test_a_pack_goes_from_one_run_to_another_as_a_candidate(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pack, other = tmp_path / "skills.pack", tmp_path / "runs" / "second"
    SkillLibrary.open(other / runs.LIBRARY).close()
    assert cli.main(["skills", "export", str(pack), f"run={run}"]) == 0
    assert cli.main(["skills", "import", str(pack), f"run={other}"]) == 0
    assert "1 skills taken" in capsys.readouterr().out
    assert runs.mastered(other) == ([], [])
    with runs.library(other) as library:
        (taken,) = library.skills()
    assert taken.artifact == skill_of(run).artifact


def test_a_forged_pack_is_refused_in_one_sentence_and_changes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pack, forged = tmp_path / "skills.pack", tmp_path / "forged.pack"
    assert cli.main(["skills", "export", str(pack), f"run={run}"]) == 0
    with zipfile.ZipFile(pack) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[:-1] + b"x" if name.endswith("safetensors") else content)
    with runs.library(run) as library:
        before = library.digest()
    capsys.readouterr()
    assert cli.main(["skills", "import", str(forged), f"run={run}"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the pack")
    assert len(err.splitlines()) == 1
    with runs.library(run) as library:
        assert library.digest() == before


def test_a_corrupted_library_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]):
    path = run / runs.LIBRARY
    path.write_bytes(b"not a database, " * 512)
    for leftover in run.glob(f"{runs.LIBRARY}-*"):
        leftover.unlink()
    assert cli.main(["skills", f"run={run}"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the library")
    assert len(err.splitlines()) == 1


def test_heads_are_listed_and_a_revoked_skill_is_used_no_more(run: Path, capsys: pytest.CaptureFixture[str]):
    version = skill_of(run).version
    with SkillLibrary.open(run / runs.LIBRARY) as library:
        library.commit(0, Change(add=(version,)))
    assert cli.main(["skills", "heads", f"run={run}"]) == 0
    assert f"add {version[:12]}  open(?a:drawer)" in capsys.readouterr().out
    assert cli.main(["skills", f"run={run}"]) == 0
    assert "1 admitted; head 1: 1" in capsys.readouterr().out
    assert cli.main(["skills", "revoke", version[:8], "it", "lies", f"run={run}"]) == 0
    assert runs.mastered(run) == ([], [])
    capsys.readouterr()
    assert cli.main(["skills", "show", version, f"run={run}"]) == 0
    assert "status    revoked" in capsys.readouterr().out
    assert cli.main(["skills", "heads", "--json", f"run={run}"]) == 0
    assert [head["changes"] for head in json.loads(capsys.readouterr().out)][1] == {
        "remove": {"open(?a:drawer)": [version]}
    }
    assert cli.main(["skills", "revoke", version[:8], "again", f"run={run}"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_key_must_be_one_to_be_trusted(run: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["skills", "trust", "ann", "no key", f"run={run}"]) == 1
    assert "64 hexadecimal digits" in capsys.readouterr().err
    assert cli.main(["skills", "trust", "ann", "ab" * 32, f"run={run}"]) == 0
    with runs.library(run) as library:
        assert library.principal("ann").trust == "trusted"
