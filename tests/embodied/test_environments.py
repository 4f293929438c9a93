"""A policy measured on an environment of the registry: episodes counted without bias, seeds, files, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from embodied import cli
from embodied.evaluation import environments
from embodied.evaluation.environments import PolicyError, evaluate_policy
from envs.observations import FEATURES
from envs.vector import ACTIONS
from policies.random import RandomPolicy


class Lengths(VectorEnv):
    """Slot i's episodes are i + 1 steps long; the flag is up in the first step and, of even slots, in the last."""

    limits = "Nothing but counting."

    def __init__(self, num_envs: int, success_counts: str = "ever"):
        self.num_envs, self.success_counts = num_envs, success_counts
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None):
        self.seed_given, self.age = seed, np.zeros(self.num_envs, int)
        return np.zeros((self.num_envs, 3), np.float32), {"success": np.zeros(self.num_envs, bool)}

    def step(self, actions: np.ndarray):
        self.age += 1
        done = self.age >= np.arange(self.num_envs) + 1
        success = (self.age == 1) | (done & (np.arange(self.num_envs) % 2 == 0))
        self.age[done] = 0
        observation = np.zeros((self.num_envs, 3), np.float32)
        none = np.zeros(self.num_envs, bool)
        return observation, np.ones(self.num_envs), none, done, {"success": success}


class Looks:
    """Remembers where episodes began; needs no particular shapes."""

    def __init__(self):
        self.begins: list[list[bool]] = []

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        self.begins.append(episode_start.tolist())
        return np.zeros((len(observation), 2), np.float32), state


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environments, "make_vector", lambda name, n, threads, **arguments: Lengths(n, **arguments))


def test_every_slot_plays_its_share_however_long_its_episodes_are(lengths: None):
    looks, heard = Looks(), []
    found = evaluate_policy("counting", looks, episodes=10, seed=3, num_envs=4, on_steps=heard.append)
    assert [line.episode for line in found.episodes] == list(range(10))
    assert [(line.slot, line.turn) for line in found.episodes] == [(i % 4, i // 4) for i in range(10)]
    assert [line.length for line in found.episodes] == [i % 4 + 1 for i in range(10)]  # no slot counted more often
    assert found.report.returns is not None
    assert found.report.returns.tolist() == [i % 4 + 1 for i in range(10)]
    assert sum(heard) == sum(line.length for line in found.episodes)  # what is played beyond is not counted
    assert all(line.truncated and not line.terminated for line in found.episodes)
    assert looks.begins[:3] == [[True] * 4, [True, False, False, False], [True, True, False, False]]
    summary = found.summary()
    assert (summary["n"], summary["successes"], summary["successes_end"]) == (10, 10, 5)
    assert summary["limits"] == "Nothing but counting."
    assert evaluate_policy("counting", Looks(), episodes=3, num_envs=8).num_envs == 3


def test_the_environment_says_which_step_decides(lengths: None):
    found = evaluate_policy("counting", Looks(), episodes=10, num_envs=4, success_counts="end")
    assert (found.report.successes, found.summary()["successes_ever"]) == (5, 10)


def test_on_the_native_world_the_same_seed_gives_the_same_episodes(tmp_path: Path):
    arguments: dict[str, Any] = {"episodes": 6, "seed": 5, "num_envs": 4, "threads": 1, "max_steps": 15}
    first, again = (evaluate_policy("tabletop", "random", **arguments) for _ in range(2))
    assert first.episodes == again.episodes
    assert all(line.length <= 15 for line in first.episodes)
    RandomPolicy(FEATURES, ACTIONS["tool"]).save_pretrained(tmp_path / "policy")
    saved = evaluate_policy("tabletop", tmp_path / "policy", **arguments)
    assert saved.policy.endswith("policy")
    assert saved.report.versions["mujoco"]
    arguments["seed"] = 6
    assert evaluate_policy("tabletop", "random", **arguments).episodes != first.episodes


def test_the_expert_of_the_native_world_succeeds():
    found = evaluate_policy("tabletop", "expert", 4, seed=1, num_envs=4, threads=1, goals="open(drawer)")
    assert found.report.successes == 4
    assert found.summary()["lower"] > 0.5


@pytest.mark.parametrize(
    ("env", "policy", "words"),
    [
        ("tabletop", "nowhere", "random, expert or the directory"),
        ("tabletop", RandomPolicy(7, 2), "maps 7 numbers to 2"),
        ("counting", "expert", "has no expert; tabletop"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_sentence(env: str, policy: Any, words: str, request: pytest.FixtureRequest):
    if env == "counting":
        request.getfixturevalue("lengths")
    with pytest.raises(PolicyError, match=words):
        evaluate_policy(env, policy, 2, threads=1)
    with pytest.raises(PolicyError, match="at least 1"):
        evaluate_policy(env, "random", 0)


def test_the_command_prints_a_table_and_keeps_the_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lengths: None
):
    out = tmp_path / "kept" / "found.jsonl"
    assert cli.main(["eval", "env=counting", "episodes=6", "num_envs=3", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "6 of 6 episodes, 100% [61, 100]" in printed
    assert "Nothing but counting." in printed
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["episode"] for line in lines] == list(range(6))
    assert {line["env"] for line in lines} == {"counting"}
    summary = json.loads(out.with_suffix(".json").read_text())
    assert (summary["successes"], summary["n"], summary["policy"]) == (6, 6, "random")
    assert summary["versions"]["gymnasium"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["env=metawolrd/reach"], 1, "suites: metaworld/TASK"),
        (["env=tabletop", "run=somewhere"], 2, "give one of them"),
        (["policy=expert"], 2, "say which, as in env=tabletop"),
        (["out=x.jsonl"], 2, "say which, as in env=tabletop"),
    ],
)
def test_a_wrong_call_is_one_sentence(argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", *argv]) == code
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
