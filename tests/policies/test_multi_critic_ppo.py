from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig, train_ppo


def make(**changes: Any) -> MultiCriticPPO:
    settings: dict[str, Any] = {
        "observation_size": 4,
        "action_size": 2,
        "reward_names": ("progress", "effort"),
        "hidden": (32, 32),
        "critic_hidden": (32, 32),
        "minibatch": 320,
    }
    return MultiCriticPPO(MultiCriticPPOConfig(**(settings | changes)))


def weights_of(policy: MultiCriticPPO) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.networks.state_dict().items()}


def same(a: MultiCriticPPO, b: MultiCriticPPO) -> bool:
    other = weights_of(b)
    return all(torch.equal(tensor, other[name]) for name, tensor in weights_of(a).items())


@pytest.mark.parametrize("critic", ["multi", "sum"])
@pytest.mark.parametrize("terminate", [False, True])
def test_a_point_learns_to_reach(point_reach, reached, critic, terminate):
    policy = make(critic=critic, weights=(1.0, 0.2))
    before = reached(policy)
    result = train_ppo(policy, point_reach(terminate=terminate), 40_000, seed=0)
    assert before < 0.3
    assert reached(policy) > 0.95
    last = result.metrics[-1]
    assert result.steps == last["steps"] == 40_960
    assert last["reward/progress"] > result.metrics[0]["reward/progress"]
    assert last[f"explained_variance/{policy.critic_names[0]}"] > 0.5
    assert last["success"] > 0.5 and 0.1 < last["std"] < 0.6


def test_the_same_seed_gives_the_same_weights_and_another_does_not(point_reach):
    trained = []
    for seed in (0, 0, 1):
        torch.rand(seed + 1)  # nothing may depend on the global stream
        policy = make(seed=seed)
        train_ppo(policy, point_reach(), 3000, seed=7)
        policy.predict(np.zeros((3, 4), np.float32))
        trained.append(policy)
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_practice_interrupted_and_reloaded_is_bit_identical(point_reach, tmp_path):
    env, policy = point_reach(), make()
    first = train_ppo(policy, env, 4000, seed=3)
    policy.save_training(tmp_path / "checkpoint")
    env_then = copy.deepcopy(env)
    straight = train_ppo(policy, env, 4000, observation=first.observation)
    resumed = MultiCriticPPO.load_training(tmp_path / "checkpoint")
    again = train_ppo(resumed, env_then, 4000, observation=first.observation)
    assert straight.metrics == again.metrics
    assert same(policy, resumed)
    for a, b in zip(policy.act(first.observation), resumed.act(first.observation), strict=True):
        assert torch.equal(a, b)
    for name, array in policy.training_arrays().items():
        np.testing.assert_array_equal(array, resumed.training_arrays()[name])


def test_a_saved_policy_predicts_the_same(point_reach, tmp_path):
    policy = make(discounts=(0.97, 0.8), weights=(1.0, 0.3))
    env = point_reach()
    result = train_ppo(policy, env, 1500, seed=0)
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, MultiCriticPPO) and loaded.config == policy.config
    for deterministic in (True, False):
        policy.seed(5)
        loaded.seed(5)
        a, _ = policy.predict(result.observation, deterministic=deterministic)
        b, _ = loaded.predict(result.observation, deterministic=deterministic)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32 and np.abs(a).max() <= 1
    assert torch.equal(policy.values(result.observation), loaded.values(result.observation))


@pytest.mark.parametrize("critic", ["multi", "sum"])
def test_rescaled_rewards_change_the_sum_and_nothing_else(point_reach, critic):
    """The whole update, not only its advantages: critics, gradients and learning rate."""
    outcome = []
    for scale in (np.ones(2), np.array([0.1, 10.0])):
        env, policy = point_reach(), make(critic=critic)
        env.scale = scale
        train_ppo(policy, env, 1280, seed=0)
        outcome.append(torch.nn.utils.parameters_to_vector(policy.networks.actor.parameters()))
    distance = float((outcome[0] - outcome[1]).detach().norm() / outcome[0].detach().norm())
    assert (distance < 1e-3) if critic == "multi" else (distance > 1e-2)


@pytest.mark.parametrize("truncate", [True, False])
def test_a_time_limit_bootstraps_and_a_termination_does_not(truncate):
    """Reward 1 a step, g .9, episodes of 4 steps: V is 1/(1-g) throughout, or what is left to collect."""
    policy = make(reward_names=("one",), discounts=(0.9,), gae_lambda=0.9, learning_rate=3e-3, minibatch=80)
    rollout = policy.new_rollout(40, 2)
    phase = 0
    for _ in range(60):
        rollout.clear()
        while not rollout.full:
            now = np.eye(4, dtype=np.float32)[[phase, phase]]
            phase = (phase + 1) % 4
            ends = np.full(2, phase == 0)
            following = np.eye(4, dtype=np.float32)[[phase, phase]]
            final = np.eye(4, dtype=np.float32)[[3, 3]]
            action, log_prob, mean, _ = policy.act(now)
            no = np.zeros(2, bool)
            terminated, truncated = (no, ends) if truncate else (ends, no)
            rollout.add(now, action, log_prob, mean, np.ones((2, 1)), terminated, truncated, following, final)
        policy.update(rollout, critic_only=True)
    values = policy.values(np.eye(4, dtype=np.float32))[:, 0]
    expected = [10.0] * 4 if truncate else [(1 - 0.9**left) / 0.1 for left in (4, 3, 2, 1)]
    assert values.tolist() == pytest.approx(expected, rel=0.1)


def test_critic_only_leaves_every_action_as_it_was(point_reach):
    policy = make()
    observation = point_reach().reset(seed=1)[0].copy()
    train_ppo(policy, point_reach(), 1280, seed=0)
    before, values = policy.predict(observation, deterministic=True)[0], policy.values(observation)
    log_std = policy.networks.log_std.detach().clone()
    metrics = train_ppo(policy, point_reach(), 2560, critic_warmup=2, seed=0).metrics
    np.testing.assert_array_equal(before, policy.predict(observation, deterministic=True)[0])
    assert torch.equal(log_std, policy.networks.log_std) and "kl" not in metrics[-1]
    assert not torch.equal(values, policy.values(observation))


def test_a_warm_start_clones_the_teacher_and_practice_continues_from_there(point_reach, reached):
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (4000, 4)).astype(np.float32)
    actions = np.clip(2 * (observations[:, 2:] - observations[:, :2]), -1, 1)
    policy = make(weights=(1.0, 0.2))
    metrics = policy.warm_start_actor(observations, actions, epochs=60, batch_size=128, std=0.2)
    assert metrics["loss"] < 0.01
    assert reached(policy) > 0.95
    assert policy.networks.log_std.exp().tolist() == pytest.approx([0.2, 0.2])
    np.testing.assert_allclose(policy.networks.norm.mean, observations.mean(0), atol=1e-5)
    train_ppo(policy, point_reach(), 2560, critic_warmup=1, seed=0)
    assert reached(policy) > 0.9


def test_minibatches_are_equal_and_cover_the_rollout(point_reach, monkeypatch):
    policy, sizes = make(minibatch=300, epochs=1), []
    original = policy._critic_step
    monkeypatch.setattr(policy, "_critic_step", lambda x, target: (sizes.append(len(x)), original(x, target))[1])
    train_ppo(policy, point_reach(slots=31), 31 * 40, seed=0)
    assert sum(sizes) == 31 * 40 and len(sizes) == 4 and max(sizes) - min(sizes) <= 1


def test_practice_stops_when_told(point_reach):
    result = train_ppo(make(), point_reach(), 10_000, lambda metrics: metrics["iteration"] == 1, 10, seed=0)
    assert len(result.metrics) == 2 and result.steps == 2 * 10 * 32


def test_a_patient_policy_takes_its_mean_and_then_its_spread():
    policy = make(patience=2)
    observation = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    mean = make().predict(observation, deterministic=True)[0]
    state, acted = None, []
    for step in range(4):
        begins = np.array([False, False, step == 3])
        action, state = policy.predict(observation, state, begins, deterministic=True)
        acted.append(action)
    assert state is not None and state["age"].tolist() == [4, 4, 1] and len(set(state["key"].tolist())) == 3
    np.testing.assert_array_equal(acted[0], mean)
    np.testing.assert_array_equal(acted[1], mean)
    assert (acted[2] != mean).all() and (acted[3][:2] != acted[2][:2]).all()
    np.testing.assert_array_equal(acted[3][2], mean[2])  # begun anew
    _, alone = policy.predict(observation[:1], None, np.ones(1, bool), deterministic=True)
    for _ in range(2):
        action, alone = policy.predict(observation[:1], alone, None, deterministic=True)
    np.testing.assert_array_equal(action[0], acted[2][0])  # whoever the neighbours are
    with pytest.raises(ValueError, match="3 slots, the observations 1"):
        policy.predict(observation[:1], state, deterministic=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "mean"}, "valid: multi, sum"),
        ({"weights": (1.0, 2.0, 3.0)}, "weights has 3 entries; expected 1 or 2"),
        ({"discounts": (0.9, 1.0)}, r"\[0, 1\)"),
        ({"minimum_std": 0.9}, "minimum_std"),
        ({"epochs": 0}, "at least 1"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_misuse_is_refused_in_one_sentence(point_reach):
    policy = make()
    with pytest.raises(ValueError, match=r"expected \(n, 4\)"):
        policy.predict(np.zeros((2, 5), np.float32))
    rollout = policy.new_rollout(2, 1)
    with pytest.raises(ValueError, match="holds 0 of its 2 steps"):
        policy.update(rollout)
    now, no, yes = np.zeros((1, 4), np.float32), np.zeros(1, bool), np.ones(1, bool)
    acted = policy.act(now)[:3]
    with pytest.raises(ValueError, match=r"shape \(1, 3\); expected \(1, 2\)"):
        rollout.add(now, *acted, np.zeros((1, 3)), no, no, now)
    with pytest.raises(ValueError, match="final_obs"):
        rollout.add(now, *acted, np.zeros((1, 2)), no, yes, now)
    rollout.clear()
    for reward in (0.0, np.nan):
        rollout.add(now, *acted, np.full((1, 2), reward), no, no, now)
    with pytest.raises(ValueError, match="not finite"):
        policy.update(rollout)
    policy.weights = (0.5, 2.0)
    assert policy.config.weights == (0.5, 2.0)
    with pytest.raises(ValueError, match="weights has 3"):
        policy.weights = (1.0, 1.0, 1.0)
