"""PPO for discrete actions: what it learns, what counts, what is kept."""

import numpy as np
import pytest

from policies.base import load_policy
from policies.discrete_ppo import DiscretePPO, DiscretePPOConfig, Rollout, advantages


def rollout(**changed: np.ndarray) -> Rollout:
    zeros = np.zeros((3, 1), np.float32)
    parts = {
        "observations": np.zeros((3, 1, 2), np.float32), "actions": np.zeros((3, 1), np.int64),
        "log_probabilities": zeros, "values": zeros, "rewards": zeros, "ended": np.zeros((3, 1), bool),
        "active": np.ones((3, 1), bool), "last_values": np.zeros(1, np.float32),
    }  # fmt: skip
    return Rollout(**{**parts, **changed})


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_advantages_are_discounted_within_a_stretch():
    found = advantages(rollout(rewards=column(0, 0, 1)), 0.5, 1.0)
    np.testing.assert_allclose(found[:, 0], [0.25, 0.5, 1.0])
    found = advantages(rollout(rewards=column(0, 0, 1), ended=column(1, 0, 0) > 0), 0.5, 1.0)
    np.testing.assert_allclose(found[:, 0], [0.0, 0.5, 1.0])
    found = advantages(rollout(rewards=column(0, 0, 1), active=column(1, 0, 1) > 0), 0.5, 1.0)
    np.testing.assert_allclose(found[:, 0], [0.0, 0.0, 1.0])
    found = advantages(rollout(last_values=np.ones(1, np.float32)), 0.5, 1.0)
    np.testing.assert_allclose(found[:, 0], [0.125, 0.25, 0.5])


def test_it_learns_which_action_an_observation_asks_for():
    policy, rng = DiscretePPO(DiscretePPOConfig(3, 3, hidden=(16,), learning_rate=1e-2)), np.random.default_rng(0)
    for _ in range(20):
        wanted = rng.integers(0, 3, (16, 16))
        seen = np.eye(3, dtype=np.float32)[wanted]
        actions, said, values = policy.act(seen.reshape(-1, 3))
        shape = (16, 16)
        policy.update(
            Rollout(
                seen, actions.reshape(shape), said.reshape(shape), values.reshape(shape),
                (actions.reshape(shape) == wanted).astype(np.float32), np.ones(shape, bool), np.ones(shape, bool),
                np.zeros(16, np.float32),
            )
        )  # fmt: skip
    assert policy.predict(np.eye(3, dtype=np.float32), deterministic=True)[0].tolist() == [0, 1, 2]


def test_actions_are_drawn_from_all():
    policy = DiscretePPO(DiscretePPOConfig(2, 4))
    counts = np.bincount(policy.predict(np.zeros((4000, 2)))[0], minlength=4)
    assert (abs(counts - 1000) < 150).all()


def test_it_is_kept_and_repeats_itself(tmp_path):
    policy = DiscretePPO(DiscretePPOConfig(2, 4, seed=3))
    policy.save_pretrained(tmp_path / "policy")
    loaded, seen = load_policy(tmp_path / "policy"), np.ones((50, 2))
    policy.seed(5)
    loaded.seed(5)
    np.testing.assert_array_equal(policy.predict(seen)[0], loaded.predict(seen)[0])


def test_a_policy_of_one_action_is_refused():
    with pytest.raises(ValueError, match="at least 2 actions"):
        DiscretePPO(DiscretePPOConfig(2, 1))
