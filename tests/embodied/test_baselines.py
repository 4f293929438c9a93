"""``embodied train``: what it leaves, that it goes on after a kill as if there had been none, and what it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from embodied import cli
from embodied.cli.config import choices, compose, config_dir
from embodied.cli.learners import LEARNERS, PPOConfig, SACConfig, SACHerConfig, TrainConfig
from embodied.errors import ConfigError
from embodied.evaluation import baseline_claims
from embodied.evaluation.claims import ClaimError, Context
from embodied.training import baselines, learners
from embodied.training.baselines import TrainingError, folder_of, train
from embodied.training.episodes import NoSuccessError, run_episodes, seed_of
from policies import load_policy
from policies.checkpoint import content_hash


@pytest.fixture(autouse=True)
def tiny_world(monkeypatch: pytest.MonkeyPatch, point_goal: Any):
    """Every name of a world is the point in the plane; one thread."""

    def make(name: str, slots: int, reward: str = "sparse") -> Any:
        return point_goal(slots, shaped=reward == "dense")

    monkeypatch.setattr(learners, "make_vector", make)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(out: Path, **values: Any) -> TrainConfig:
    sac = SACHerConfig(learning_rate=2e-3, learning_starts=200, gradient_steps=2, batch_size=64, net_arch=[16])
    defaults = {"steps": 900, "num_envs": 8, "eval_every": 400, "eval_episodes": 5, "final_episodes": 20}
    return TrainConfig(**{**defaults, "policy": sac, "out": str(out), **values})


def quiet() -> Console:
    return Console(quiet=True)


# -- training ------------------------------------------------------------------------------------------------------


def test_a_training_leaves_its_policy_its_curve_and_a_summary(tmp_path):
    import io

    text = io.StringIO()
    result = train(small(tmp_path), Console(file=text, width=120))
    assert [point.steps for point in result.curve] == [0, 400, 800, 904]
    assert [point.n for point in result.curve] == [5, 5, 5, 20]
    assert len({point.seed for point in result.curve}) == 4
    assert result.final.lower <= result.final.rate <= result.final.upper
    lines = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert lines == [asdict(point) for point in result.curve]
    with (tmp_path / "curve.csv").open() as file:
        assert [int(row["successes"]) for row in csv.DictReader(file)] == [line["successes"] for line in lines]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["final"] == lines[-1]
    assert summary["policy"] == content_hash(result.policy)
    assert summary["training"]["policy"]["learner"] == "sb3/sac_her"
    assert {"embodied", "mujoco", "torch", "stable-baselines3", "python"} <= summary["versions"].keys()
    assert len(list((tmp_path / "scalars").iterdir())) == 4
    assert load_policy(result.policy).observation_size == 6
    shown = text.getvalue()
    assert shown.count("env steps  success") == 1
    assert "[" in shown.splitlines()[-2]
    assert "/s" in shown


def test_a_training_that_was_killed_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = train(small(tmp_path / "whole"), quiet())
    calls = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_episodes(*args, **kwargs)

    monkeypatch.setattr(baselines, "run_episodes", killed)
    with pytest.raises(KeyboardInterrupt):
        train(small(tmp_path / "killed"), quiet())
    assert not (tmp_path / "killed" / "policy").exists()
    resumed = train(small(tmp_path / "killed"), quiet())
    assert content_hash(resumed.policy) == content_hash(whole.policy)
    assert [replace(p, seconds=0) for p in resumed.curve] == [replace(p, seconds=0) for p in whole.curve]


def test_a_finished_training_says_so_and_goes_on_with_more_steps(tmp_path, monkeypatch):
    first = train(small(tmp_path), quiet())
    before = content_hash(first.policy)
    again = train(small(tmp_path), quiet())
    assert again.finished_before
    assert again.curve == first.curve
    more = train(small(tmp_path, steps=1_300), quiet())
    assert [point.steps for point in more.curve] == [0, 400, 800, 904, 1_200, 1_304]
    assert content_hash(more.policy) != before


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    train(small(tmp_path, steps=100), quiet())
    with pytest.raises(ConfigError, match=r"seed \(was 0, is 1\)"):
        train(small(tmp_path, seed=1), quiet())
    with pytest.raises(ConfigError, match=r"policy.learner \(was sb3/sac_her, is sb3/ppo\)"):
        train(small(tmp_path, policy=PPOConfig()), quiet())


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_trains_from_its_configuration(name, tmp_path):
    kind = LEARNERS[name]
    values = {"n_steps": 16} if hasattr(kind, "n_steps") else {"learning_starts": 50, "gradient_steps": 1}
    values |= {"batch_size": 64} if hasattr(kind, "batch_size") else {}
    policy = kind(**values, net_arch=[8])  # type: ignore[call-arg]
    result = train(small(tmp_path, policy=policy, steps=256, world={"reward": "dense"}), quiet())
    assert result.steps >= 256
    assert load_policy(result.policy).config_dict()["algorithm"] == kind.algorithm


def test_learner_and_world_that_do_not_fit_are_one_sentence(tmp_path, monkeypatch, point_reach, point_goal):
    monkeypatch.setattr(learners, "make_vector", lambda name, slots: point_reach(slots))
    with pytest.raises(TrainingError, match="sb3/sac_her cannot learn on reach: hindsight needs a goal environment"):
        train(small(tmp_path), quiet())
    with pytest.raises(NoSuccessError, match="success"):
        env = point_goal(2)
        step = env.step
        env.step = lambda actions: (*step(actions)[:4], {})
        run_episodes(_Still(), env, 2, 0)

    def long(name: str, slots: int) -> Any:
        env = point_goal(slots, limit=500)
        del env.max_steps  # so that nobody knows how long an episode is
        return env

    monkeypatch.setattr(learners, "make_vector", long)
    with pytest.raises(TrainingError, match=r"policy.learning_starts=200 steps: raise it above num_envs=8"):
        train(small(tmp_path), quiet())


def test_a_worlds_unknown_argument_is_answered_with_those_it_takes(monkeypatch, tmp_path):
    from envs.registry import make_vector

    monkeypatch.setattr(learners, "make_vector", make_vector)
    with pytest.raises(TrainingError, match=r"it takes no 'gaols'; valid: goals, control, observation"):
        train(small(tmp_path, env="tabletop", world={"gaols": 1}), quiet())
    with pytest.raises(TrainingError, match="valid: tool, joint"):
        train(small(tmp_path, env="tabletop", world={"control": "torque"}), quiet())


# -- episodes ------------------------------------------------------------------------------------------------------


class _Still:
    """Never moves."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        return np.zeros((len(observation["observation"]), 2), np.float32), state


def test_only_the_first_episode_of_each_slot_counts_and_the_seed_draws_it(point_goal):
    env = point_goal(4, limit=3)
    one, same, other = (run_episodes(_Still(), env, 10, seed) for seed in (1, 1, 2))
    assert one.success.shape == one.returns.shape == (10,)
    np.testing.assert_array_equal(one.lengths, 3)
    np.testing.assert_array_equal(one.returns, np.where(one.success, 0.0, -3.0))
    np.testing.assert_array_equal(one.success, same.success)
    few, many = (run_episodes(_Still(), point_goal(400, limit=1), 400, seed).success for seed in (1, 2))
    assert not np.array_equal(few, many)
    assert other.lengths.shape == (10,)
    assert len({seed_of(0, *words) for words in ((), (0,), (1,), (0, 0), (0, 1))}) == 5
    assert 0 <= seed_of(3, 4) < 1 << 31


# -- configuration -------------------------------------------------------------------------------------------------


def test_every_learner_is_offered_by_a_file_whose_values_are_the_schemas():
    assert sorted(f"sb3/{name}" for name in choices("policy/sb3")) == sorted(LEARNERS)
    assert compose(TrainConfig) == TrainConfig()
    for name, kind in LEARNERS.items():
        composed = compose(TrainConfig, [f"policy={name}", "policy.gamma=0.5", "policy.net_arch=[4]"])
        assert composed.policy == kind(gamma=0.5, net_arch=[4])  # type: ignore[call-arg]
        assert f"/{kind.__name__}_schema@_here_" in (config_dir() / "policy" / f"{name}.yaml").read_text()
    config = compose(TrainConfig, ["world.reward=dense", "world.max_steps=9", "env=push", "seed=4"])
    assert config.world == {"reward": "dense", "max_steps": 9}
    assert compose(TrainConfig, ["world.goals=lit(lamp)"]).world == {"goals": "lit(lamp)"}
    assert compose(TrainConfig, ["world.goals=['lit(lamp)']"]).world == {"goals": ["lit(lamp)"]}
    assert folder_of(config) == Path("runs/train/push-sb3-sac_her-seed4")
    assert folder_of(compose(TrainConfig, ["env=suite/task"])).name == "suite-task-sb3-sac_her-seed0"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy.gama=1"], ("policy.gama", "did you mean 'policy.gamma'", "policy.n_sampled_goal")),
        (["policy=sb3/ppo", "policy.tau=1"], ("policy.tau", "policy.clip_range")),
        (["policy=sb3/dqn"], ("sb3/dqn", "sb3/sac_her, sb3/sac, sb3/ppo, sb3/a2c, sb3/td3")),
        (["policy=sb3/ppo", "policy.gamma=2"], ("policy.gamma = 2.0", "[0.0, 1.0]")),
        (["policy.goal_selection_strategy=late"], ("late", "future, final, episode")),
        (["wold.reward=dense"], ("wold.reward", "world.NAME")),
        (["policy.gamma=abc"], ("policy.gamma", "abc")),
        (["steps=0"], ("steps", "at least 1")),
    ],
)
def test_a_typo_is_one_sentence_that_names_the_valid_keys(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(TrainConfig, overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_the_help_teaches_every_learner_and_its_keys(capsys):
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"policy={name}: {(kind.__doc__ or '').splitlines()[0]}" in text for name, kind in LEARNERS.items())
    assert all(word in text for word in ("clip_range", "policy_delay", "n_sampled_goal", "world={}"))


def test_the_command_trains_and_prints_one_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["train", "env=reach", "policy=sb3/ppo", "policy.n_steps=16", "policy.batch_size=64", "num_envs=4"]
    assert cli.main([*argv, "steps=64", "eval_episodes=2", "final_episodes=4", "policy.net_arch=[8]"]) == 0
    assert capsys.readouterr().out.count("success") == 1
    assert (tmp_path / "runs/train/reach-sb3-ppo-seed0/summary.json").is_file()


# -- the claim -----------------------------------------------------------------------------------------------------


def test_the_claim_counts_arms_that_learnt_and_keeps_what_is_finished(tmp_path, monkeypatch):
    arms = {
        "reach/ppo": small(
            tmp_path, policy=PPOConfig(n_steps=8, batch_size=64, net_arch=[8]), world={"reward": "dense"}
        ),
        "reach/sac_her": small(tmp_path, policy=SACHerConfig(learning_starts=100, net_arch=[8], gradient_steps=1)),
    }
    monkeypatch.setattr(baseline_claims, "QUICK", arms)
    monkeypatch.setattr(baseline_claims, "LEARNT", 0.0)
    said: list[str] = []
    context = Context(quick=True, results=tmp_path / "results", out=tmp_path / "out", say=said.append)
    found = baseline_claims.sb3_learns(context)
    assert (found.figure, found.n, len(said)) == (2.0, 200, 2)
    assert found.details["arms"]["reach/ppo"]["reward"] == "dense"
    assert found.details["arms"]["reach/sac_her"]["reward"] == "sparse"
    kept = json.loads((tmp_path / "results" / baseline_claims.KEPT).read_text())
    assert kept["arms"]["quick reach/ppo"]["0"]["curve"][-1]["n"] == 100
    monkeypatch.setattr(baseline_claims, "LEARNT", 1.1)
    assert baseline_claims.sb3_learns(context).figure == 0.0
    assert len(said) == 2
    monkeypatch.setitem(arms, "reach/ppo", replace(arms["reach/ppo"], steps=1_000))
    baseline_claims.sb3_learns(context)
    assert len(said) == 3
    (tmp_path / "results" / baseline_claims.KEPT).write_text("{")
    with pytest.raises(ClaimError, match="damaged"):
        baseline_claims.sb3_learns(context)


def test_the_claims_arms_are_reach_and_push_by_both_learners():
    for arms, worlds in ((baseline_claims.ARMS, {"reach", "push"}), (baseline_claims.QUICK, {"reach"})):
        assert {arm.split("/")[0] for arm in arms} == {config.env for config in arms.values()} == worlds
        for arm, config in arms.items():
            assert config.policy.name == f"sb3/{arm.split('/')[1]}"
            assert (config.world.get("reward") == "dense") == (not isinstance(config.policy, SACConfig))
