"""A life of a few thousand steps: it ends, it can be killed and goes on as if it had not been, and it repeats."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from embodied import loop, runs
from embodied.cli.config import compose
from embodied.cli.schema import GateConfig, RenderConfig, RunConfig
from embodied.data.store import EpisodeStore
from embodied.errors import UsageError
from embodied.journal import Journal
from embodied.training import rounds
from embodied.viz import gather
from embodied.viz.film import film


def tiny(out: Path, **changes: Any) -> RunConfig:
    config = RunConfig(
        name="life", out=str(out), steps=50_000, num_envs=16, threads=1, play_steps=1_600, flow_updates=3,
        practice_steps=512, heldout_episodes=0, gate=GateConfig(1, 2, 2, 0.0),
        render=RenderConfig(width=64, height=48),
    )  # fmt: skip
    return replace(config, **changes)


def live(config: RunConfig) -> tuple[Path, str]:
    """The run's directory, and what was printed."""
    printed = io.StringIO()
    return loop.run(config, Console(file=printed, width=200)), printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Fewer trials than the numbers in the code ask for, and no films."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "EXECUTIONS", 2)
        patch.setattr(rounds, "COMPOSED", 4)
        patch.setattr(rounds, "PracticeConfig", functools.partial(rounds.PracticeConfig, trials=2, clone_epochs=1))
        patch.setattr(gather, "film", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    return live(tiny(tmp_path_factory.mktemp("runs")))[0]


CHOICES = {"proposer": "soar", "starts": "disagreement", "cloning": "filtered", "rollback": True}


def ledger(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / runs.LEDGER).read_text(encoding="utf-8").splitlines()]


def test_a_life_ends_and_leaves_what_it_should(life: Path):
    lines = ledger(life)
    assert [line["round"] for line in lines] == list(range(len(lines)))
    assert [line["kind"] for line in lines[:5]] == ["play", *["practice"] * 3, "plan"]
    page = (life / runs.REPORT).read_text(encoding="utf-8")
    assert "finished" in page
    assert runs.config(life).steps == 50_000
    with runs.library(life) as library:
        last = library.last_round
        assert last is not None
        assert last.index == len(lines) - 1
        assert last.state["steps"] >= 30_000
        library.verify()
    with EpisodeStore.open(life / runs.EPISODES, readonly=True) as store:
        assert len(store) == last.state["episodes"] > 0
        assert {episode.source for episode in store.iterate()} >= {"scripted-play", "evaluation"}
        assert all(np.isfinite(episode.observations).all() for episode in store.iterate())
    assert any((life / "scalars").iterdir())


def test_every_number_of_the_ledger_is_backed_by_evidence(life: Path):
    with runs.library(life) as library:
        mastered = {entry.goal for entry in library.mastered()}
        assert mastered  # the threshold is 0: whatever was measured is kept
        assert mastered == {row.goal for row in library.status() if row.status == "admitted"}
        for entry in library.mastered():
            measured = library.evidence(version=entry.skill.version, goal=entry.goal)
            assert {"screen", "gate", "confirm"} <= {e.purpose for e in measured}
            seeds = [e.seed for e in measured]
            assert len(set(seeds)) == len(seeds)  # fresh episodes each time
            assert library.artifact(entry.skill).is_dir()


def test_asked_again_it_does_nothing(life: Path):
    before, kept = runs.digests(life), (life / runs.LEDGER).read_bytes()
    again, printed = live(runs.config(life))
    assert again == life
    assert "mastered in" in printed
    assert runs.digests(life) == before
    assert (life / runs.LEDGER).read_bytes() == kept


def test_other_settings_are_refused_with_what_differs(life: Path):
    config = runs.config(life)
    with pytest.raises(UsageError, match=r"practice_steps was 512, now 600.*choose another name"):
        loop.run(replace(config, practice_steps=600), Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="resume=false"):
        loop.run(replace(config, resume=False), Console(file=io.StringIO()))


def test_killed_in_any_round_it_ends_as_if_it_had_not_been(life: Path, tmp_path: Path, monkeypatch):
    config = tiny(tmp_path)
    seal = Journal.seal
    killed: list[int] = []

    def dies(journal: Journal, tx: Any) -> None:
        seal(journal, tx)
        if journal.round not in killed:  # everything but the commit itself has been done
            killed.append(journal.round)
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "seal", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            loop.run(config, Console(file=io.StringIO()))
    monkeypatch.setattr(Journal, "seal", seal)
    run, _ = live(config)
    assert killed == [0, 1]
    assert runs.digests(run) == runs.digests(life)
    assert ledger(run) == ledger(life)


@pytest.mark.slow
def test_another_seed_is_another_life(life: Path, tmp_path: Path):
    other, _ = live(tiny(tmp_path, seed=1))
    assert runs.digests(other) != runs.digests(life)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"use_play": False}, {"use_gate": False}, {"proposer": "uniform"}, CHOICES])
def test_the_ablations_live_too(tmp_path: Path, changes: dict[str, Any]):
    run, _ = live(tiny(tmp_path, **changes))
    assert (ledger(run)[0]["kind"] == "play") == changes.get("use_play", True)
    runs.digests(run)


@pytest.mark.slow
def test_the_smoke_preset_does_all_there_is(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gather, "film", film)
    config = compose(RunConfig, ["preset=smoke", "threads=1", f"out={tmp_path}"])
    run, printed = live(config)
    assert "examining" in printed
    assert {row["method"] for row in runs.heldout(run)}
    page = (run / runs.REPORT).read_text(encoding="utf-8")
    assert "finished" in page
    assert list((run / runs.VIDEOS).glob("*.png")) or not runs.mastered(run)[1]
