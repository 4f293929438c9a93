"""Codes beside observations: what a policy of skills sees, is given, and shows to what learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from policies.coded import CodedVectorEnv
from policies.discovery import STEP, Discovery, DiscoveryConfig

TERMS, COSTS = ("reach", "grasp"), ("force", "speed")


class Pushed:
    """Two slots whose block moves by an action's first two numbers times `STEP`; slot 1 ends at step 2."""

    num_envs = 2

    def __init__(self, mode: Any = AutoresetMode.SAME_STEP) -> None:
        self.metadata = {"autoreset_mode": mode}
        self.objects = np.zeros((2, 1, 3))

    def reset(self, *, seed: Any = None) -> Any:
        self.objects, self.count = np.tile([0.5, 0.0, 0.02], (2, 1, 1)), 0
        return np.zeros((2, 3), np.float32), {}

    def step(self, actions: np.ndarray) -> Any:
        self.count += 1
        self.objects[:, 0, :2] += STEP * actions[:, :2]
        after, seen = self.objects.copy(), np.full((2, 3), self.count, np.float32)
        truncated = np.array([False, self.count == 2])
        info = {
            "objects": after,
            "reward_terms": np.array([[1.0, 2.0], [3.0, 4.0]]),
            "costs": np.array([[0.5, 0.0], [0.25, 1.0]]),
            "final_obs": seen,
        }
        observation = np.where(truncated[:, None], np.float32(0), seen)
        self.objects[truncated] = [0.5, 0.0, 0.02]
        return observation, np.zeros(2), np.zeros(2, bool), truncated, info


def make(rewards: tuple[str, ...] = ("skill", "safety", "grasp", "speed"), **scales: float) -> CodedVectorEnv:
    return CodedVectorEnv(Pushed(), Discovery(DiscoveryConfig("position")), rewards, TERMS, COSTS, scales)


def test_rewards_come_in_the_order_asked_for_times_their_scales():
    env = make(speed=2.0)
    seen = env.reset(seed=0)
    z = env.codes.numpy()
    np.testing.assert_array_equal(seen, np.concatenate([np.zeros((2, 3)), z], axis=1, dtype=np.float32))
    action = np.array([[1.0, 0.0], [0.5, -1.0]])
    _, reward, _, _, info = env.step(action)
    expected = np.stack([(action * z).sum(axis=1), [-0.5, -1.25], [2.0, 4.0], [0.0, -2.0]], axis=1)
    np.testing.assert_allclose(info["reward_terms"], expected, atol=1e-5)
    np.testing.assert_allclose(reward, expected.sum(axis=1), atol=1e-5)
    means, hits = env.take_costs()
    assert means.tolist() == [0.375, 0.5] and hits.tolist() == [1.0, 0.5]
    assert env.take_costs()[0].tolist() == [0.0, 0.0]


def test_a_code_lasts_an_episode_and_no_longer():
    env = make(("skill",))
    env.reset(seed=0)
    z, no = env.codes.numpy().copy(), np.zeros((2, 2))
    seen = env.step(no)[0]
    np.testing.assert_array_equal(seen[:, 3:], z)
    seen, *_, info = env.step(np.ones((2, 2)))
    np.testing.assert_array_equal(info["final_obs"][:, 3:], z)  # what ended was seen under its own code
    np.testing.assert_array_equal(info["final_obs"][:, :3], 2)
    np.testing.assert_array_equal(seen[0, 3:], z[0])
    assert (seen[1, 3:] != z[1]).all() and (seen[1, :3] == 0).all()
    *_, info = env.step(no)  # from where the new episode began, not from where the old one ended
    np.testing.assert_allclose(info["reward_terms"], 0, atol=1e-5)


def test_every_transition_is_shown_to_what_learns():
    env = CodedVectorEnv(Pushed(), Discovery(DiscoveryConfig("diayn")), ("skill",), TERMS, COSTS)
    env.reset(seed=0)
    z = env.codes.clone()
    for _ in range(2):
        env.step(np.ones((2, 2)))
    before, after, codes = (torch.cat(parts) for parts in zip(*env.discovery._fresh, strict=True))
    torch.testing.assert_close(after - before, torch.ones(4, 2), atol=1e-4, rtol=0)
    assert torch.equal(codes, z.repeat(2, 1))


def test_misuse_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="no reward 'fame'; valid: skill, safety, reach, grasp, force, speed"):
        make(("fame",))
    with pytest.raises(ValueError, match="no reward 'fame'"):
        make(fame=1.0)
    with pytest.raises(ValueError, match="No rewards given"):
        make(())
    with pytest.raises(ValueError, match="must be finite"):
        make(speed=np.inf)
    with pytest.raises(ValueError, match="has no objects"):
        CodedVectorEnv(SimpleNamespace(), Discovery(DiscoveryConfig()), ("skill",), TERMS, COSTS)
    env = Pushed(AutoresetMode.NEXT_STEP)
    env.reset()
    with pytest.raises(ValueError, match="SAME_STEP only"):
        CodedVectorEnv(env, Discovery(DiscoveryConfig()), ("skill",), TERMS, COSTS)
