from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import policy_class
from policies.gcivl import GCIVL, GCIVLConfig, value_loss

CHAIN = 5


def test_the_value_of_a_chain_is_the_discounted_number_of_steps():
    """One way only, s -> s + 1; the last state stays. A goal left behind is never reached: -1 / (1 - γ)."""
    settings: dict[str, Any] = {"hidden": (64,), "discount": 0.8, "target_rate": 0.1, "learning_rate": 5e-3}
    policy = GCIVL(GCIVLConfig(feature_size=2 * CHAIN, action_size=1, **settings))
    state, goal = (grid.ravel() for grid in np.meshgrid(np.arange(CHAIN), np.arange(CHAIN), indexing="ij"))
    pairs = np.concatenate([np.eye(CHAIN)[state], np.eye(CHAIN)[goal]], axis=1).astype(np.float32)
    after = np.concatenate([np.eye(CHAIN)[np.minimum(state + 1, CHAIN - 1)], np.eye(CHAIN)[goal]], axis=1)
    there = (state == goal).astype(np.float32)
    batch = {
        "features": pairs, "features_next": after.astype(np.float32), "value_features": pairs,
        "next_features": after.astype(np.float32), "actions": np.ones((len(pairs), 1, 1), np.float32),
        "rewards": there - 1, "masks": 1 - there,
    }  # fmt: skip
    for _ in range(600):
        metrics = policy.update(batch)
    exact = np.where(goal >= state, -(1 - 0.8 ** np.maximum(goal - state, 0)) / 0.2, -5.0)
    np.testing.assert_allclose(policy.value(pairs), exact, atol=0.12)
    assert metrics["value"] == pytest.approx(exact.mean(), abs=0.05) and metrics["value_loss"] < 0.01
    np.testing.assert_allclose(policy.predict(pairs)[0], 1.0, atol=0.15)


def test_the_value_loss_by_hand():
    """The side is judged by the pessimist of the targets, the error of each critic by its own."""
    values = torch.tensor([[-2.0], [-1.0]])
    target_now, target_later = torch.tensor([[-3.0], [-1.0]]), torch.tensor([[-2.0], [0.0]])
    # q = -1 + .5 * -2 = -2, judged against the mean -2: on the upper side; errors -1 - 1 + 2 = 0 and -1 + 0 + 1 = 0
    rewards, discounts = torch.tensor([-1.0]), torch.tensor([0.5])
    assert value_loss(values, target_now, target_later, rewards, discounts, 0.9).item() == 0.0
    loss = value_loss(values + 1, target_now, target_later, rewards, discounts, 0.9)
    assert loss.item() == pytest.approx(0.9 * 1 + 0.9 * 1)
    loss = value_loss(values + 1, target_now + 0.5, target_later, rewards, discounts, 0.9)
    assert loss.item() == pytest.approx(0.1 * 1 + 0.1 * 1)


def test_the_actor_clones_what_gained():
    """Two actions in one state, the outcome of one nearer to the goal: temperature 0 takes their mean."""
    rng = np.random.default_rng(0)
    means = {}
    for temperature in (0.0, 3.0):
        settings: dict[str, Any] = {"hidden": (32,), "temperature": temperature, "learning_rate": 3e-3, "discount": 0.5}
        policy = GCIVL(GCIVLConfig(feature_size=1, action_size=1, target_rate=0.1, **settings))
        for _ in range(300):
            good = rng.random((64, 1)) < 0.5
            after, now = np.where(good, 1.0, -1.0).astype(np.float32), np.zeros((64, 1), np.float32)
            at = rng.choice([-1.0, 0.0, 1.0], (64, 1)).astype(np.float32)  # at 1 is the goal, at -1 never
            later = np.where(at == 0, after, at)
            there = (at[:, 0] > 0).astype(np.float32)
            policy.update({
                "features": now, "features_next": after, "value_features": at, "next_features": later,
                "actions": np.where(good, 0.5, -0.5).astype(np.float32)[:, None], "rewards": there - 1,
                "masks": 1 - there,
            })  # fmt: skip
        means[temperature] = policy.predict(np.zeros((1, 1), np.float32))[0].item()
    assert abs(means[0.0]) < 0.1 and means[3.0] > 0.4
    assert policy_class("gcivl") is GCIVL
