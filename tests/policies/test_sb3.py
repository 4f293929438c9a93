from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO, SAC

from policies import load_policy, policy_class
from policies.sb3 import SB3Policy, SB3VecEnv


def test_the_adapter_keeps_last_observations_and_time_limits(point_reach):
    env = point_reach(slots=4, limit=5, terminate=True)
    adapter = SB3VecEnv(env)
    adapter.seed(3)
    observation = adapter.reset()
    assert isinstance(observation, np.ndarray)
    position, seen = observation[:, :2].copy(), {True: 0, False: 0}
    for _ in range(40):
        towards = np.clip((observation[:, 2:] - observation[:, :2]) * 5, -1, 1)
        observation, reward, done, infos = adapter.step(towards)
        assert isinstance(observation, np.ndarray) and reward.dtype == np.float32
        for i, info in enumerate(infos):
            if done[i]:
                last = info["terminal_observation"]
                np.testing.assert_allclose(last[:2], position[i] + 0.2 * towards[i], atol=1e-5)
                near = np.linalg.norm(last[:2] - last[2:]) < 0.15
                assert info["is_success"] == near != info["TimeLimit.truncated"]
                seen[bool(near)] += 1
            else:
                assert info == {}
        position = observation[:, :2].copy()
    assert min(seen.values()) > 0
    adapter.close()
    env.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    with pytest.raises(ValueError, match="SAME_STEP"):
        SB3VecEnv(env)


def test_ppo_learns_through_the_adapter_and_is_kept(point_reach, reached, tmp_path):
    model = PPO(
        "MlpPolicy",
        SB3VecEnv(point_reach(slots=16)),
        n_steps=64,
        batch_size=256,
        n_epochs=5,
        learning_rate=2e-3,
        gamma=0.9,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [32, 32]},
    )
    before = reached(SB3Policy.from_algorithm(model))
    model.learn(40_000)
    policy = SB3Policy.from_algorithm(model)
    assert policy_class("sb3") is SB3Policy and before < 0.3
    assert reached(policy) > 0.9
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    observation = np.random.default_rng(0).uniform(-1, 1, (6, 4)).astype(np.float32)
    theirs, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], theirs)
    policy.seed(1)
    loaded.seed(1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    np.testing.assert_array_equal(policy.predict(observation)[0], loaded.predict(observation)[0])
    assert torch.equal(torch.rand(1), expected)


def test_other_algorithms_are_kept_too_and_unknown_ones_refused(point_reach, tmp_path):
    env = SB3VecEnv(point_reach(slots=2))
    model = SAC("MlpPolicy", env, buffer_size=100, seed=0, device="cpu", policy_kwargs={"net_arch": [16]})
    SB3Policy.from_algorithm(model).save_pretrained(tmp_path / "policy")
    observation = np.ones((2, 4), np.float32)
    loaded = load_policy(tmp_path / "policy")
    theirs, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], theirs)
    with pytest.raises(ValueError, match="valid: ppo, a2c, sac, td3"):
        SB3Policy("dqn", 4, 2)
    odd = PPO("MlpPolicy", env, device="cpu", policy_kwargs={"activation_fn": torch.nn.ReLU})
    with pytest.raises(ValueError, match="plain values"):
        SB3Policy.from_algorithm(odd)
