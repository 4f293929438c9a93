"""Plans, representations and discovered skills in the loop: they learn, are gated, kept, asked, and survive a kill."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from embodied import loop, runs
from embodied.cli.schema import FROM_PLAY, GateConfig, RenderConfig, RunConfig
from embodied.data.store import EpisodeStore
from embodied.errors import ConfigError
from embodied.journal import Journal
from embodied.repertoire import Repertoire
from embodied.training import discovery_round, experiments, operator_learning, play_policies, rounds
from embodied.training.discovery import DiscoverySettings, make_skills
from embodied.training.offline import load_goal_policy
from embodied.training.play_policies import learn_all, recorded_play, won
from embodied.training.rollouts import Trial, measure_all
from embodied.viz import gather
from envs.goals import Goal, all_ground_goals
from envs.observations import FEATURES
from envs.playroom.play import ScriptedPlay, play_env
from envs.predicates import COLUMNS
from envs.tabletop_goals import STATE_COLUMNS
from policies import load_policy
from policies.viewed import Viewed

QUICK = 12  # control steps of an episode
SMALL = {"hidden": [16], "width": 16, "heads": 2, "feed_hidden": 16, "chunk": 8, "execute": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A thousand steps of play on eight tables."""
    kept = EpisodeStore.open(tmp_path_factory.mktemp("play"), {}, columns=COLUMNS)
    kept.extend([rounds._play_episode(found) for found in ScriptedPlay(play_env(8, 1), 0).collect(1_000)])
    yield kept
    kept.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Learners of a few weights, few and short trials, two schemas, and no films or pages."""
    make = play_policies.make_learner

    def made(name: str, data: Any, **config: Any) -> Any:
        return make(name, data, **{k: SMALL.get(k, v) for k, v in config.items()})

    monkeypatch.setattr(play_policies, "make_learner", made)
    monkeypatch.setattr(play_policies, "BATCH", 16)
    monkeypatch.setattr(rounds, "EXECUTIONS", 2)
    monkeypatch.setattr(rounds, "schemas", lambda: {"lifted(?a:block)": ["lifted(red)"], "lit(lamp)": ["lit(lamp)"]})
    monkeypatch.setattr(rounds, "PracticeConfig", functools.partial(rounds.PracticeConfig, trials=2, clone_epochs=1))
    few = [Goal.parse(text) for text in ("lifted(red)", "lifted(blue)", "lit(lamp)")]
    monkeypatch.setattr(discovery_round, "all_ground_goals", lambda: few)
    for name, value in {"CODES": 3, "STARTS": 2, "SHOWN": 2, "LIKELY": 0.0, "CANDIDATES": 1}.items():
        monkeypatch.setattr(discovery_round, name, value)
    for module in (rounds, operator_learning, experiments):
        monkeypatch.setattr(module, "measure_all", functools.partial(measure_all, max_steps=QUICK))
    monkeypatch.setattr(discovery_round, "MAX_STEPS", QUICK)
    monkeypatch.setattr(gather, "film", lambda *_: None)
    monkeypatch.setattr(gather, "write", lambda run, _: run)


def short(out: Path, **changes: Any) -> RunConfig:
    """Play and what follows it at once, and no more."""
    given = {"steps": 1, "play_steps": 800, "flow_updates": 2, "practice_steps": 512, "gate": GateConfig(1, 1, 1, 0.0)}
    return RunConfig(
        name="life", out=str(out), num_envs=16, threads=1, heldout_episodes=0,
        render=RenderConfig(width=64, height=48), **(given | changes),
    )  # fmt: skip


def live(config: RunConfig) -> Path:
    return loop.run(config, Console(file=io.StringIO(), width=200))


def ledger(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / runs.LEDGER).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", FROM_PLAY)
def test_every_learner_from_play_acts_on_the_table_and_is_kept(store, tmp_path: Path, name: str):
    (taught,) = learn_all(name, store, 2, 5, tmp_path / "learners")
    assert taught.name == name and taught.policy.observation_size == FEATURES
    assert np.isfinite(list(taught.metrics.values())).all() and "loss" in taught.metrics
    (found,) = measure_all(taught.policy, [Trial("lifted(blue)", 2, 3)], threads=1, max_steps=20)
    assert found.report.n == 2
    taught.policy.save_pretrained(tmp_path / "policy")
    (again,) = measure_all(load_policy(tmp_path / "policy"), [Trial("lifted(blue)", 2, 3)], threads=1, max_steps=20)
    np.testing.assert_array_equal(found.end, again.end)
    if name != "flow_bc":
        learner, encoder = load_goal_policy(tmp_path / "learners" / name)
        assert (learner.observation_size, encoder.state_size) == (FEATURES, len(STATE_COLUMNS))


def test_only_scripted_play_is_learnt_from_and_goals_are_those_in_which_something_changed(store):
    data = recorded_play(store)
    assert data.episodes is not None and len(data.episodes) == len(store)
    assert data.observations.shape[1] == len(COLUMNS)


def test_a_choice_that_is_none_is_one_sentence_with_those_there_are():
    for wrong in ("plans", "flow_bc+", "act+act", ""):
        with pytest.raises(ConfigError, match=r"play_policy = .*flow_bc, gcbc, beso, act, act_jepa, latent_plans"):
            RunConfig(play_policy=wrong)
    with pytest.raises(ConfigError, match="discover_steps = -1 must be at least 0"):
        RunConfig(discover_steps=-1)


def test_plans_representations_and_discovery_in_one_life_that_is_killed_and_goes_on(tmp_path: Path, monkeypatch):
    how = {"play_policy": "latent_plans+act_jepa", "discover_steps": 640}
    whole = live(short(tmp_path / "whole", **how))
    lines = ledger(whole)
    assert [line["kind"] for line in lines] == ["play", "discovery"]
    with runs.library(whole) as library:
        last = library.last_round
        assert last is not None and last.state["steps"] > 800 + 640 and set(last.state["discovered"]) <= {
            "lifted(red)", "lifted(blue)", "lit(lamp)",
        }  # fmt: skip
        skills = library.skills()
        from_play = [s for s in skills if s.provenance["from"] == "play"]
        assert {s.provenance["learner"] for s in from_play} <= {"latent_plans", "act_jepa"}
        discovered = [s for s in skills if s.provenance["from"] == "discovery"]
        assert discovered and all(s.conditioning["kind"] in ("code", "direction") for s in discovered)
        assert all(isinstance(load_policy(library.artifact(s)), Viewed) for s in skills)
        repertoire = Repertoire.load(library, last.state["operators"])
        assert "lifted(blue)" in repertoire.acts  # play was asked for the other two alone
        library.verify()

    seal, killed = Journal.seal, []

    def dies(journal: Journal, tx: Any) -> None:
        seal(journal, tx)
        if journal.round not in killed:  # everything but the commit itself has been done
            killed.append(journal.round)
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "seal", dies)
    config = short(tmp_path / "killed", **how)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            live(config)
    run = live(config)
    assert killed == [0, 1]
    assert runs.digests(run) == runs.digests(whole)
    assert ledger(run) == lines


def test_practice_may_begin_from_what_was_discovered(tmp_path: Path):
    run = live(short(tmp_path, use_play=False, discover_steps=640))
    assert [line["kind"] for line in ledger(run)] == ["discovery"]
    config = runs.config(run)
    journal = Journal.open(run, config.gate.threshold)
    worker = rounds.Worker(config, journal, None, lambda _: None, lambda _: None)  # type: ignore[arg-type]
    before = journal.state.steps
    found = worker.starts("lifted(?a:block)", {"lifted(?a:block)": ["lifted(red)", "lifted(blue)"]})
    assert list(found) == ["what was discovered"]
    assert found["what was discovered"].observation_size == FEATURES
    assert journal.state.steps == before + 4 * QUICK
    journal.state.discovered = None  # as where nothing was discovered
    assert worker.starts("lifted(?a:block)", {"lifted(?a:block)": ["lifted(red)"]}) == {}
    journal.close()


def test_a_code_serves_a_goal_and_its_twin_and_the_rank_says_which(monkeypatch):
    monkeypatch.setattr(discovery_round, "all_ground_goals", all_ground_goals)
    skills = make_skills(DiscoverySettings(steps=0, num_envs=4), len(STATE_COLUMNS), 5)
    skills.policy.networks.norm.count += 1
    found, steps = discovery_round.survey(skills, 3, threads=1)
    assert steps == 3 * 2 * QUICK
    assert set(found) == {str(goal) for goal in all_ground_goals()}  # LIKELY is 0
    np.testing.assert_array_equal(found["on(red, blue)"].codes, found["on(blue, red)"].codes)
    points = discovery_round.coded(skills, None)
    rows = np.zeros((2, FEATURES), np.float32)
    rows[0, [26, 27]] = 3.0, 4.0
    seen = np.concatenate([rows[:, STATE_COLUMNS], [[0.6, 0.8], [0.0, 0.0]]], axis=1).astype(np.float32)
    np.testing.assert_allclose(
        points.predict(rows, deterministic=True)[0], skills.policy.predict(seen, deterministic=True)[0], atol=1e-6
    )


def test_each_goal_goes_to_the_policy_that_did_best():
    class Decided:
        def __init__(self, winner: int) -> None:
            self.winner = winner

    taught = [play_policies.Taught(name, None) for name in ("act", "beso")]  # type: ignore[arg-type]
    decisions: Any = [Decided(1), Decided(1)]
    assert [(one.name, len(own)) for one, own in won(taught, decisions)] == [("beso", 2)]
