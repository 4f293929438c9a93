"""A run measured anew: every row on the same fresh episodes, one line an episode, and what counts as mastered."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from embodied import runs
from embodied.cli.schema import EvalConfig
from embodied.core import EvalReport
from embodied.evaluation import evaluate, fresh, heldout
from embodied.skills.library import SkillLibrary
from envs.observations import FEATURES
from policies.random import RandomPolicy

GOALS = {"open(drawer)": 200, "lit(lamp)": 20}  # goal -> successes of 200 in its evidence


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two versions: one admitted for the drawer, a younger one with evidence of both goals."""
    with SkillLibrary.open(tmp_path / runs.LIBRARY) as library:
        for number in range(2):
            folder = tmp_path / f"policy{number}"
            RandomPolicy(FEATURES, 5, seed=number).save_pretrained(folder)
            with library.round(number) as tx:
                skill = tx.add_skill("open(drawer)", folder)
                for k, (goal, successes) in enumerate(GOALS.items()):
                    for j, purpose in enumerate(("gate", "confirm")):
                        good = np.arange(200) < (0 if number else successes)
                        tx.add_evidence(skill.version, purpose, EvalReport(goal, "", 10 * k + j, good))
                state = {"play": folder.name, "operators": {}}
                tx.seal(ledger_offset=0, store_offsets={}, state=state)
    return tmp_path


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def config(episodes: int = 4, what: str = "skills") -> EvalConfig:
    return EvalConfig(episodes=episodes, what=what, num_envs=3, threads=1, seed=77)


def test_every_goal_has_every_row_and_each_episode_a_line(run: Path):
    out = console()
    found = evaluate(run, config(), out)
    assert [(row["goal"], row["method"]) for row in found.rows] == [
        (goal, method) for goal in sorted(GOALS) for method in ("agent", "play policy", "random", "oracle")
    ]
    by = {(row["goal"], row["method"]): row for row in found.rows}
    assert all(by[goal, "oracle"]["successes"] == 4 for goal in GOALS)
    assert by["open(drawer)", "agent"]["status"] == "admitted"
    assert by["lit(lamp)", "agent"]["status"] == "candidate"
    with runs.library(run) as library:
        first, second = library.skills()
    assert by["open(drawer)", "agent"]["version"] == first.version  # the admitted one
    assert by["lit(lamp)", "agent"]["version"] == second.version  # the youngest
    lines = [json.loads(line) for line in found.episodes.read_text().splitlines()]
    assert len(lines) == 2 * 4 * 4
    seeds = by["lit(lamp)", "agent"]["seeds"]
    assert seeds[0] == 77
    assert [(line["seed"], line["episode"]) for line in lines[:4]] == [(seeds[0], 0), (seeds[0], 1), (seeds[0], 2),
                                                                       (seeds[1], 0)]  # fmt: skip
    summary = json.loads(found.summary.read_text())
    assert summary["versions"]["mujoco"]
    assert summary["rows"] == [*found.rows]
    assert found.mastered == ()  # random actions master nothing, whatever the library has evidence of
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert "100% [51, 100]" in printed
    assert "0 of 2 goals" in printed


def test_the_same_seed_gives_the_same_episodes(run: Path):
    first = evaluate(run, config(), console(), baselines=False).episodes.read_text()
    assert evaluate(run, config(), console(), baselines=False).episodes.read_text() == first
    assert {json.loads(line)["method"] for line in first.splitlines()} == {"agent"}


def test_what_reaches_the_bound_is_mastered_and_counted_once(run: Path, monkeypatch: pytest.MonkeyPatch):
    def perfect(actor, settings, artifact=""):
        return lambda goal, n, seed: EvalReport(goal, artifact, seed, np.ones(n, np.bool_))

    monkeypatch.setattr(fresh, "_judge", perfect)
    assert set(evaluate(run, config(episodes=40), console(), baselines=False).mastered) == set(GOALS)
    assert evaluate(run, config(episodes=10), console(), baselines=False).mastered == ()


def test_an_empty_library_has_nothing_to_measure(tmp_path: Path):
    SkillLibrary.open(tmp_path / runs.LIBRARY).close()
    out = console()
    assert evaluate(tmp_path, config(), out).mastered == ()
    assert "0 of 0 goals" in out.file.getvalue()  # type: ignore[attr-defined]


def test_the_exam_is_kept_and_mends_a_damaged_result(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heldout, "step_budget", lambda goal, replans: 2)
    monkeypatch.setattr(heldout, "_agent", lambda sitting, repertoire: np.ones(len(sitting.goals), np.bool_))
    (run / runs.HELDOUT).write_text("{")
    out = console()
    found = evaluate(run, config(what="instructions"), out)
    assert [row["method"] for row in found.rows if row["depth"] == "all"] == [*heldout.METHODS.values()]
    assert (found.rows[0]["successes"], found.rows[0]["n"]) == (40, 40)
    assert len(found.episodes.read_text().splitlines()) == 4 * 40
    assert heldout.kept_rows(run / runs.HELDOUT)[0] == {"method": "agent", "depth": 2, "successes": 20, "n": 20}
    assert "100% [91, 100]" in out.file.getvalue()  # type: ignore[attr-defined]
    (run / runs.HELDOUT).unlink()
    evaluate(run, config(what="instructions"), console(), baselines=False)
    assert not (run / runs.HELDOUT).exists()
