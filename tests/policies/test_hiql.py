from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies.hiql import HIQL, HIQLConfig


def make(**changes: Any) -> HIQL:
    settings: dict[str, Any] = {"feature_size": 5, "state_size": 3, "action_size": 2, "hidden": (16, 16)}
    return HIQL(HIQLConfig(**(settings | changes)))


def batch(rng: np.random.Generator, size: int = 32) -> dict[str, np.ndarray]:
    names = ("features", "value_features", "next_features", "waypoint_features", "waypoint_next", "waypoint_goal")
    arrays = {name: rng.standard_normal((size, 5)).astype(np.float32) for name in names}
    there = (rng.random(size) < 0.3).astype(np.float32)
    actions = rng.uniform(-1, 1, (size, 1, 2)).astype(np.float32)
    return arrays | {"actions": actions, "rewards": there - 1, "masks": 1 - there}


def test_goals_have_one_length_and_the_lower_actor_sees_no_more_of_them():
    policy = make(goal_size=7)
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    seen = policy._seen(features)
    assert seen.shape == (6, 3 + 7)
    torch.testing.assert_close(seen[:, :3], features[:, :3])
    torch.testing.assert_close(seen[:, 3:].norm(dim=1), torch.full((6,), 7**0.5))
    given = []
    policy.network["lower"].register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    policy.predict(features.numpy())
    assert given[0].shape == (6, 10)
    torch.testing.assert_close(given[0][:, 3:].norm(dim=1), torch.full((6,), 7**0.5))


def test_only_the_value_teaches_what_a_goal_is():
    """Rows of the actors' goals do not move the value's parts, whatever is in them."""
    rng = np.random.default_rng(0)
    policy, same = make(), make()
    for _ in range(3):
        rows = batch(rng)
        policy.update(rows)
        other = {name: -rows[name] for name in ("waypoint_features", "waypoint_next", "waypoint_goal", "features")}
        same.update(rows | other)
    for part, equal in (("goal", True), ("value", True), ("upper", False), ("lower", False)):
        pairs = zip(policy.network[part].parameters(), same.network[part].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is equal


def test_the_upper_actor_learns_the_waypoint_and_the_lower_its_action():
    """The waypoint's representation is a function of the batch's row; both actors come to predict theirs."""
    rng = np.random.default_rng(0)
    policy = make(learning_rate=3e-3, hidden=(32, 32), upper_temperature=0.0, lower_temperature=0.0, goal_size=3)
    for _ in range(160):
        rows = batch(rng, 128)
        rows["waypoint_features"] = rows["features"] * [1, 1, 1, -1, -1]  # same state, the goal mirrored
        rows["waypoint_features"] = rows["waypoint_features"].astype(np.float32)
        rows["actions"] = np.tanh(rows["waypoint_features"][:, None, :2])
        metrics = policy.update(rows)
    assert metrics["lower_loss"] < 0.05 and metrics["upper_loss"] < 0.5  # a guess of no use costs 1.5
    features = rng.standard_normal((200, 5)).astype(np.float32)
    assert np.abs(policy.predict(features)[0] - np.tanh(features[:, :2])).mean() < 0.2


def test_what_it_asks_of_a_batch_and_misuse():
    assert make(waypoint=25).spec.waypoint == 25 and make().spec.waypoint == 10 and make().config.expectile == 0.7
    with pytest.raises(ValueError, match="state_size must be at least 1"):
        make(state_size=0)
    with pytest.raises(ValueError, match="waypoint = 0 and goal_size = 10 must be at least 1"):
        make(waypoint=0)
