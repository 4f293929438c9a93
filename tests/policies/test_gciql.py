from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies.gciql import GCIQL, GCIQLConfig


def bandit(rng: np.random.Generator, size: int = 256) -> dict[str, np.ndarray]:
    """One step: the action nearest to the feature is the best, and no action ends anything but the step."""
    features, actions = rng.uniform(-0.7, 0.7, (2, size, 1)).astype(np.float32)
    rewards = -(2 * (actions - features)[:, 0] ** 2)
    return {
        "features": features, "value_features": features, "next_features": features, "rewards": rewards,
        "masks": np.zeros(size, np.float32), "actions": actions[:, None],
    }  # fmt: skip


def make(**changes: Any) -> GCIQL:
    settings: dict[str, Any] = {
        "feature_size": 1,
        "action_size": 1,
        "hidden": (48, 48),
        "learning_rate": 2e-3,
        "target_rate": 0.1,
        "expectile": 0.5,
    }
    return GCIQL(GCIQLConfig(**(settings | changes)))


@pytest.mark.parametrize(("changes", "error"), [({"cloning": 0.03}, 0.1), ({"actor": "awr"}, 0.15)])
def test_the_actor_climbs_the_value_of_actions(changes: dict[str, Any], error: float):
    policy, rng = make(**changes), np.random.default_rng(0)
    for _ in range(250):
        metrics = policy.update(bandit(rng))
    features = np.linspace(-0.5, 0.5, 11, dtype=np.float32)[:, None]
    assert np.abs(policy.predict(features)[0] - features).mean() < error
    assert metrics["critic_loss"] < 0.03


def test_much_cloning_stays_at_the_datas_mean():
    policy, rng = make(cloning=100.0), np.random.default_rng(0)
    for _ in range(100):
        policy.update(bandit(rng))
    assert np.abs(policy.predict(np.linspace(-0.5, 0.5, 11, dtype=np.float32)[:, None])[0]).mean() < 0.15


def test_the_actors_loss_does_not_teach_the_critics():
    policy, same = make(cloning=0.01), make(cloning=50.0)
    rng = np.random.default_rng(0)
    for batch in [bandit(rng) for _ in range(3)]:
        policy.update(batch)
        same.update(batch)
    for part, equal in (("critic", True), ("value", True), ("actor", False)):
        pairs = zip(policy.network[part].parameters(), same.network[part].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is equal
    assert all(p.requires_grad for p in policy.network.parameters())


def test_misuse_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="actor = 'sac' is none of ddpg, awr"):
        make(actor="sac")
    with pytest.raises(ValueError, match=r"'features' has shape \(256, 1\); expected \(b, 2\)"):
        make(feature_size=2).update(bandit(np.random.default_rng(0)))
