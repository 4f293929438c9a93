"""The protocol on a fake task whose goals are told apart, and on OGBench's where it is installed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from embodied.evaluation.environments import PolicyError
from embodied.evaluation.goals_protocol import evaluate_goals
from envs.suites import SuiteError, make_vector


class FakeTask(VectorEnv):
    """Flat observations: goal (its number, 0), then state (0, steps taken). Success at step 2 by an action of the
    goal's number over ten; the end there or at step 3.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    limits, success_counts = "a fake", "ever"

    def __init__(self, name: str, num_envs: int, goals: Any = (), threads: int = 0) -> None:
        self.num_envs, self.goals = num_envs, np.resize(np.array(goals), num_envs)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.taken = np.zeros(num_envs, int)

    def _look(self) -> np.ndarray:
        zero = np.zeros(self.num_envs)
        return np.stack([self.goals, zero, zero, self.taken], axis=1).astype(np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.taken[:] = 0
        return self._look(), {}

    def step(self, actions: np.ndarray) -> Any:
        self.taken += 1
        success = (self.taken == 2) & (np.abs(actions[:, 0] - self.goals / 10) < 1e-6)
        truncated = self.taken == 3
        self.taken[success | truncated] = 0
        return self._look(), success - 1.0, success, truncated & ~success, {"success": success}

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}


class Reader:
    """Answers the goals 1, 2 and 4; features are (state, goal)."""

    observation_size, action_size = 4, 1

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        assert (observation[:, [0, 3]] == 0).all() and observation[:, 1].max() < 3
        goal = observation[:, 2:3]
        return np.where(np.isin(goal, [1, 2, 4]), goal / 10, 0.0).astype(np.float32), state


def test_rates_are_by_goal_and_averaged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("embodied.evaluation.environments.make_vector", FakeTask)
    for num_envs in (1, 10, 1000):
        found = evaluate_goals("ogbench/fake", Reader(), 6, num_envs=num_envs)
        assert found.successes.tolist() == [6, 6, 0, 6, 0] and found.episodes.tolist() == [6] * 5
        assert found.rate == pytest.approx(0.6) and found.all.num_envs == {1: 5, 10: 10, 1000: 30}[num_envs]
    summary = found.summary()
    assert summary["n"] == 30 and summary["rate"] == pytest.approx(0.6) and summary["versions"]["fake"] == "1"
    assert summary["policy"] == "Reader" and summary["env"] == "ogbench/fake"
    third = summary["goals"][2]
    assert third["goal"] == 3 and third["lower"] == 0.0 and 0.3 < third["upper"] < 0.5
    assert evaluate_goals("ogbench/fake", "random", 2).rate == 0.0


def test_features_are_the_callers_and_must_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("embodied.evaluation.environments.make_vector", FakeTask)
    same = evaluate_goals(
        "ogbench/fake", Reader(), 1, features=lambda state, goal: np.concatenate([state, goal], axis=1)
    )
    assert same.rate == pytest.approx(0.6)
    with pytest.raises(PolicyError, match="takes 4 numbers, but state and goal make 2 features"):
        evaluate_goals("ogbench/fake", Reader(), 1, features=lambda state, goal: goal - state)


def test_misuse_is_refused_in_one_sentence():
    for name in ("fetch/reach", "ogbench/cube-single-singletask"):
        with pytest.raises(PolicyError, match=f"{name} has no five goals"):
            evaluate_goals(name, "random")
    with pytest.raises(PolicyError, match="0 episodes of a goal"):
        evaluate_goals("ogbench/cube-single", "random", 0)


def test_ogbenchs_slots_keep_their_goals():
    pytest.importorskip("ogbench", reason="the extra [suites] is not installed")
    env = make_vector("ogbench", "cube-single", 3, goals=(1, 4), max_steps=2)
    first, _ = env.reset(seed=0)
    places = [one._data.mocap_pos[0][:2].tolist() for one in env.envs]  # type: ignore[attr-defined]
    assert places == [[0.425, -0.1], [0.5, 0.2], [0.425, -0.1]]
    for _ in range(2):
        later, *_ = env.step(np.zeros((3, 5)))
    assert [one.cur_task_id for one in env.envs] == [1, 4, 1]  # type: ignore[attr-defined]
    assert not np.array_equal(first, later)  # the next episode starts elsewhere
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)
    env.close()
    for task, goals in (("cube-single", (0,)), ("cube-single", (6,)), ("cube-single-singletask", (1,))):
        with pytest.raises(SuiteError, match=r"those of cube-single.* are 1 to 5"):
            make_vector("ogbench", task, 1, goals=goals)


def test_ogbenchs_expert_reaches_every_goal_and_no_action_reaches_none():
    pytest.importorskip("ogbench", reason="the extra [suites] is not installed")
    found = evaluate_goals("ogbench/cube-single", "expert", 1)
    assert found.successes.tolist() == [1] * 5
    assert "ogbench" in found.summary()["versions"]

    class Idle:
        def predict(self, observation: Any, *_: Any, **__: Any) -> Any:
            assert observation.shape == (5, 56)
            return np.zeros((5, 5), np.float32), None

    assert evaluate_goals("ogbench/cube-single", Idle(), 1, max_steps=5).rate == 0.0
