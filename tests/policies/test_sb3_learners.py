"""stable-baselines3's learners on dict goal observations, what is kept of them, and the adapter's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.her import HerReplayBuffer

from policies import load_policy
from policies.checkpoint import CheckpointError, module_arrays
from policies.sb3 import SB3Policy
from policies.sb3_learners import begin_stretch, is_goal_env, learner_arrays, load_learner, make_learner
from policies.sb3_vec_env import SB3VecEnv

SAC = {"learning_rate": 2e-3, "buffer_size": 20_000, "learning_starts": 500, "gamma": 0.9, "gradient_steps": 4}
FEW = SAC | {"learning_starts": 300, "gradient_steps": 1, "batch_size": 32}
PPO = {"learning_rate": 2e-3, "n_steps": 64, "batch_size": 128, "n_epochs": 5, "gamma": 0.9}
HER = {"n_sampled_goal": 4, "goal_selection_strategy": "future"}
SMALL: dict[str, Any] = {"net_arch": [32, 32]}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def share_reached(policy: Any, env: Any) -> float:
    """Success at the end of one fresh episode a slot, by deterministic actions."""
    observation, _ = env.reset(seed=1000)
    info: dict[str, Any] = {}
    for _ in range(env.limit):
        observation, *_, info = env.step(policy.predict(observation, deterministic=True)[0])
    return float(info["success"].mean())


# -- learning ------------------------------------------------------------------------------------------------------


def test_sac_with_hindsight_learns_a_sparse_goal_through_the_adapter(point_goal, tmp_path):
    env = point_goal()
    model = make_learner("sac", SB3VecEnv(env), SAC, hindsight=HER, **SMALL)
    assert isinstance(model.replay_buffer, HerReplayBuffer)  # type: ignore[attr-defined]
    before = share_reached(SB3Policy.from_algorithm(model), point_goal(200))
    model.learn(8_000)
    policy = SB3Policy.from_algorithm(model)
    assert env.calls > 0
    assert before < 0.4 < 0.9 < share_reached(policy, point_goal(200))
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    observation, _ = point_goal(6).reset(seed=3)
    theirs, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], theirs)
    flat = np.concatenate([observation[key] for key in sorted(observation)], axis=1)
    np.testing.assert_array_equal(loaded.predict(flat, deterministic=True)[0], theirs)
    assert loaded.observation_size == 6


def test_ppo_learns_from_dict_observations(point_goal):
    model = make_learner("ppo", SB3VecEnv(point_goal(shaped=True)), PPO, **SMALL)
    model.learn(30_000)
    assert share_reached(SB3Policy.from_algorithm(model), point_goal(200)) > 0.9


@pytest.mark.parametrize(
    ("algorithm", "settings", "extra"),
    [
        ("ppo", PPO, {"normalise": True}),
        ("a2c", {}, {}),
        ("sac", FEW, {"hindsight": HER, "normalise": True}),
        ("sac", FEW, {}),
        ("td3", FEW | {"policy_delay": 3}, {"action_noise": 0.2}),
    ],
    ids=["ppo", "a2c", "sac_her", "sac", "td3"],
)
def test_interrupted_learning_equals_uninterrupted_learning(point_goal, algorithm, settings, extra):
    def fresh(seed: int = 0) -> Any:
        return make_learner(algorithm, SB3VecEnv(point_goal(8)), settings, seed=seed, net_arch=[8], **extra)

    def stretch(model: Any, seed: int) -> None:
        begin_stretch(model, seed)
        model.learn(520, reset_num_timesteps=False)

    whole, first, second = fresh(), fresh(), fresh(9)
    stretch(first, 1)
    arrays, counts = learner_arrays(first)
    load_learner(second, arrays, counts)
    stretch(second, 2)
    for seed in (1, 2):
        stretch(whole, seed)
    expected, found = learner_arrays(whole), learner_arrays(second)
    assert found[1] == expected[1]
    assert found[0].keys() == expected[0].keys()
    for name, array in expected[0].items():
        np.testing.assert_array_equal(found[0][name], array, err_msg=name)
    untrained = module_arrays(fresh().policy)
    assert not all(np.array_equal(array, untrained[name]) for name, array in module_arrays(whole.policy).items())


@pytest.mark.parametrize("kind", ["flat", "dict"])
def test_normalised_observations_are_kept_with_the_policy(kind, point_goal, point_reach, tmp_path):
    make = point_goal if kind == "dict" else point_reach
    model = make_learner("ppo", SB3VecEnv(make(4)), PPO, normalise=True, **SMALL)
    model.learn(512)
    normaliser = model.get_vec_normalize_env()
    assert normaliser is not None
    SB3Policy.from_algorithm(model).save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    observation, _ = make(6).reset(seed=1)
    theirs, _ = model.predict(normaliser.normalize_obs(observation), deterministic=True)
    plain, _ = model.predict(observation, deterministic=True)
    ours, _ = policy.predict(observation, deterministic=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours - plain).max() > 1e-3
    with pytest.raises(CheckpointError, match="moments"):
        policy.load_arrays(module_arrays(model.policy))


def test_a_state_of_another_learner_is_refused(point_goal):
    arrays, counts = learner_arrays(make_learner("ppo", SB3VecEnv(point_goal(2)), PPO, net_arch=[8]))
    for other in (
        make_learner("ppo", SB3VecEnv(point_goal(2)), PPO, net_arch=[9]),
        make_learner("sac", SB3VecEnv(point_goal(2)), SAC, net_arch=[8]),
    ):
        with pytest.raises(CheckpointError, match="does not fit this learner"):
            load_learner(other, arrays, counts)


# -- the adapter ---------------------------------------------------------------------------------------------------


def test_dict_observations_are_the_learners_own_and_ends_are_told_whole(point_goal):
    adapter = SB3VecEnv(point_goal(3, limit=4))
    adapter.seed(5)
    first = adapter.reset()
    assert isinstance(first, dict)
    kept = {key: value.copy() for key, value in first.items()}
    rewards = np.zeros(3)
    for k in range(4):
        observation, reward, done, infos = adapter.step(np.full((3, 2), 0.1, np.float32))
        rewards += reward
        assert done.all() == (k == 3)
    for key, value in first.items():
        np.testing.assert_array_equal(value, kept[key])
    assert isinstance(observation, dict)
    for i, info in enumerate(infos):
        last = info["terminal_observation"]
        assert adapter.observation_space.contains(last)
        np.testing.assert_allclose(last["achieved_goal"], first["achieved_goal"][i] + 4 * 0.02, atol=1e-6)
        np.testing.assert_array_equal(last["desired_goal"], first["desired_goal"][i])
        assert info["TimeLimit.truncated"]
        assert info["episode"]["l"] == 4
        assert info["episode"]["r"] == pytest.approx(rewards[i])
        assert info["episode"]["t"] >= 0
        assert not np.array_equal(observation["desired_goal"][i], last["desired_goal"])
    adapter.seed(5)
    again = adapter.reset()
    assert isinstance(again, dict)
    np.testing.assert_array_equal(again["desired_goal"], first["desired_goal"])


def test_methods_and_attributes_are_those_of_the_one_environment(point_goal):
    env = point_goal(3)
    adapter = SB3VecEnv(RecordEpisodeStatistics(env))
    assert is_goal_env(adapter)
    assert adapter.get_attr("max_steps") == [20, 20, 20]
    assert adapter.get_attr("max_steps", [1]) == [20]
    goals = np.zeros((5, 2)), np.array([[0.0, 0.0]] * 4 + [[1.0, 1.0]])
    (reward,) = adapter.env_method("compute_reward", *goals, [{}] * 5, indices=[0])
    np.testing.assert_array_equal(reward, [0, 0, 0, 0, -1])
    assert len(adapter.env_method("_distance")) == 3
    adapter.set_attr("limit", 7)
    assert env.limit == 7
    for call in (lambda: adapter.set_attr("limit", 8, [0]), lambda: adapter.env_method("_distance", indices=[1])):
        with pytest.raises(ValueError, match="Slots share one environment"):
            call()
    assert not adapter.has_attr("nothing")
    assert adapter.env_is_wrapped(RecordEpisodeStatistics) == [True, True, True]
    assert adapter.env_is_wrapped(Monitor, [0]) == [True]
    assert adapter.env_is_wrapped(AutoresetMode) == [False, False, False]
    assert list(adapter.get_images()) == [None, None, None]


def test_their_own_evaluation_takes_the_adapter_as_it_is(point_goal):
    model = make_learner("ppo", SB3VecEnv(point_goal(4)), PPO, net_arch=[8])
    returns, lengths = evaluate_policy(model, SB3VecEnv(point_goal(4)), 8, return_episode_rewards=True)
    assert lengths == [20] * 8
    assert all(-20 <= value <= 0 for value in returns)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused_with_the_way_out(point_goal, mode):
    with pytest.raises(ValueError, match=r"SAME_STEP.*autoreset_mode='SameStep'"):
        SB3VecEnv(point_goal(mode=mode))


def test_an_end_without_its_last_observation_is_an_error(point_goal):
    env = point_goal(2, limit=1)
    adapter = SB3VecEnv(env)
    adapter.reset()
    step = env.step

    def forgetful(actions: np.ndarray) -> Any:
        *rest, info = step(actions)
        return *rest, {key: value for key, value in info.items() if key != "final_obs"}

    env.step = forgetful
    with pytest.raises(ValueError, match="final_obs"):
        adapter.step(np.zeros((2, 2)))


def test_hindsight_without_goals_and_wrong_observations_are_named(point_reach, point_goal):
    with pytest.raises(ValueError, match="achieved_goal, desired_goal, observation"):
        make_learner("sac", SB3VecEnv(point_reach(2)), SAC, hindsight=HER)
    with pytest.raises(ValueError, match="valid: ppo, a2c, sac, td3"):
        make_learner("dqn", SB3VecEnv(point_reach(2)), {})
    policy = SB3Policy.from_algorithm(make_learner("ppo", SB3VecEnv(point_goal(2)), PPO, net_arch=[8]))
    with pytest.raises(ValueError, match="expected a dict of achieved_goal, desired_goal, observation"):
        policy.predict({"observation": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"expected \(n, 6\)"):
        policy.predict(np.zeros((1, 5)))
    adapter = SB3VecEnv(point_reach(2))
    adapter.set_options([{"a": 1}, {}])
    with pytest.raises(ValueError, match="the same for all"):
        adapter.reset()
