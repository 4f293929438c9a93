"""How the main claims are measured: from runs on disk, and from processes really killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied import runs
from embodied.cli.config import save
from embodied.cli.schema import RunConfig
from embodied.core import EvalReport
from embodied.evaluation import main_claims, mastery
from embodied.evaluation.claims import ClaimError, Context
from embodied.skills.library import SkillLibrary
from policies.random import RandomPolicy

LIFE = """
import sys, time
from pathlib import Path
diary = Path(sys.argv[1], "diary")
diary.parent.mkdir(parents=True, exist_ok=True)
(diary.parent / "config.yaml").touch()
for day in range(len(diary.read_text()) if diary.exists() else 0, 25):
    time.sleep(0.02)
    with diary.open("a") as book:
        book.write("x")
"""


def context(folder: Path, *finished: Path, quick: bool = False) -> Context:
    return Context(quick, folder / "results", folder / "out", finished, say=lambda _: None)


def make_run(path: Path, seed: int, goals: list[str]) -> Path:
    policy = RandomPolicy(4, 2)
    policy.save_pretrained(path.with_suffix(".policy"))
    with SkillLibrary.open(path / runs.LIBRARY) as library, library.round(0) as tx:
        skill = tx.add_skill("open(?a:drawer)", path.with_suffix(".policy"))
        for number, goal in enumerate(goals):
            for offset, purpose in enumerate(("gate", "confirm")):
                tx.add_evidence(skill.version, purpose, EvalReport(goal, "", 2 * number + offset, np.ones(200, bool)))
        tx.seal(ledger_offset=0, store_offsets={})
    save(RunConfig(name=path.name, seed=seed), path / runs.CONFIG)
    return path


def test_mastered_goals_is_the_median_and_names_what_is_missing(tmp_path: Path):
    everything = [named[0] for named in mastery.REQUIRED.values()]
    whole = make_run(tmp_path / "whole", 3, [*everything, "next_to(blue, red)"])
    part = make_run(tmp_path / "part", 4, everything[:4])
    found = main_claims.mastered_goals(context(tmp_path, whole, part))
    assert (found.figure, found.interval, found.seeds) == (7.5, (4.0, 11.0), (3, 4))
    assert found.conditions["drawer open"]
    assert not found.conditions["stacked"]
    assert found.details["whole"]["missing"] == []
    assert main_claims.mastered_goals(context(tmp_path, part, quick=True)).conditions == {}


def test_heldout_success_is_pooled_and_read_beside_the_other_rows(tmp_path: Path):
    for seed, successes in ((0, 150), (1, 170)):
        run = make_run(tmp_path / f"run{seed}", seed, ["lit(lamp)"])
        rows = [
            {"method": "agent", "depth": 2, "successes": successes - 50, "n": 120},
            {"method": "agent", "depth": 3, "successes": 50, "n": 80},
            {"method": "random", "depth": 2, "successes": 2, "n": 200},
        ]
        (run / runs.HELDOUT).write_text(json.dumps(rows))
    found = main_claims.heldout_instructions(context(tmp_path, tmp_path / "run0", tmp_path / "run1"))
    assert (found.figure, found.n, found.seeds) == (0.8, 400, (0, 1))
    assert found.interval is not None
    assert 0.75 < found.interval[0] < 0.8 < found.interval[1] < 0.84
    assert found.details["rows"]["random"]["rate"] == 0.01
    assert found.details["rows"]["agent, 3 steps"]["successes"] == 100
    (tmp_path / "run0" / runs.HELDOUT).write_text("[]")
    with pytest.raises(ClaimError, match="no row 'agent'"):
        main_claims.heldout_instructions(context(tmp_path, tmp_path / "run0"))


def test_a_process_is_really_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "life.py").write_text(LIFE)

    def command(_: Context, preset: str, seed: int, *, label: str) -> tuple[list[str], Path, Path]:
        run = tmp_path / f"{preset}-{label}-{seed}"
        return [sys.executable, str(tmp_path / "life.py"), str(run)], tmp_path / f"{label}.log", run

    monkeypatch.setattr(main_claims, "_command", command)
    monkeypatch.setattr(runs, "digests", lambda run: {"diary": (run / "diary").read_text()})
    monkeypatch.setattr(main_claims, "_intact", lambda run: True)
    found = main_claims.kill_and_resume(context(tmp_path, quick=True))
    assert (found.figure, found.n) == (2, 2)
    assert found.details["digests"] == {"diary": "x" * 25}
    assert all(moment < found.details["whole_s"] for moment in found.details["moments_s"])


def test_a_run_that_fails_is_said_to_fail(tmp_path: Path):
    log = tmp_path / "log"
    with pytest.raises(ClaimError, match=f"exit code 3; its output is in {log}"):
        main_claims.end([sys.executable, "-c", "print('why'); raise SystemExit(3)"], log)
    assert log.read_text() == "why\n"


def test_two_runs_of_one_life_are_compared_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = (make_run(tmp_path / name, 3, ["open(drawer)"]) for name in ("one", "other"))
    monkeypatch.setattr(runs, "digests", lambda run: {"episodes": "e", "library": "l"})
    found = main_claims.same_seed_twice(context(tmp_path, one, other))
    assert (found.figure, found.seeds, found.n) == (1.0, (3,), 2)
    stranger = make_run(tmp_path / "stranger", 4, ["open(drawer)"])
    for given in ((one, stranger), (one, one), (one,)):
        with pytest.raises(ClaimError, match="two different runs of the same settings"):
            main_claims.same_seed_twice(context(tmp_path, *given))
