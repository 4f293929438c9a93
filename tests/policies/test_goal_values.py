"""What the learners of goals' values have in common, on a ring whose data go the long way round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy, policy_class
from policies.base import CheckpointError
from policies.goal_values import (
    GoalValuePolicy,
    NormalizedMLP,
    advantage_weights,
    expectile_loss,
    regression_loss,
)
from policies.networks import MLP
from policies.offline import BatchSpec

RING = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "gcivl": {},
    "gciql": {},
    "gciql-awr": {"actor": "awr"},
    "hiql": {"waypoint": 2, "goal_size": 4, "expectile": 0.9, "upper_temperature": 4.0},
}


def make(name: str, **changes: Any) -> GoalValuePolicy:
    kind = policy_class(name.partition("-")[0])
    settings = {"feature_size": 2 * RING, "action_size": 1, "state_size": RING, "hidden": (32, 32)}
    quick = {"discount": 0.9, "target_rate": 0.05, "learning_rate": 3e-3}
    return kind(kind.config_class(**(settings | quick | SETTINGS[name] | changes)))


def features_of(states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(RING)[states], np.eye(RING)[goals]], axis=-1).astype(np.float32)


class Ring:
    """Episodes on a ring of states: seven steps of ten go one way (an action above 0), the others back (below)."""

    def __init__(self, episodes: int = 400, steps: int = 40, waypoint: int = 2) -> None:
        rng = self.rng = np.random.default_rng(0)
        self.steps, self.waypoint = steps, waypoint
        way = rng.choice([-1, 1], (episodes, steps), p=[0.3, 0.7])
        start = rng.integers(RING, size=(episodes, 1))
        self.states = np.concatenate([start, start + way.cumsum(1)], axis=1) % RING
        self.actions = (way * rng.uniform(0.05, 1.0, way.shape)).astype(np.float32)

    def batch(self, size: int = 128) -> dict[str, np.ndarray]:
        """A batch as `policies.offline` describes it; the value's goal is reached where the state equals it."""
        rng, last = self.rng, self.steps
        episode, t = rng.integers(len(self.states), size=size), rng.integers(last, size=size)
        goal = rng.integers(t + 1, last + 1)
        later = np.minimum(t + rng.geometric(0.1, size), last)
        kind, anywhere = rng.random(size), rng.integers(RING, size=size)
        state, after, far = (self.states[episode, moment] for moment in (t, t + 1, goal))
        wanted = np.where(kind < 0.2, state, np.where(kind < 0.7, self.states[episode, later], anywhere))
        there = (state == wanted).astype(np.float32)
        way = self.states[episode, np.minimum(t + self.waypoint, goal)]
        return {
            "features": features_of(state, far), "features_next": features_of(after, far),
            "value_features": features_of(state, wanted), "next_features": features_of(after, wanted),
            "waypoint_features": features_of(state, way), "waypoint_next": features_of(after, way),
            "waypoint_goal": features_of(way, far), "rewards": there - 1, "masks": 1 - there,
            "actions": self.actions[episode, t, None, None], "valid": np.ones(size, np.int64),
        }  # fmt: skip


def shortest(policy: GoalValuePolicy) -> np.ndarray:
    """bool[RING - 1] by how far the goal lies ahead: whether the policy's first step goes the shorter way round."""
    ahead = np.array([d for d in range(1, RING) if 2 * d != RING])
    states, far = np.meshgrid(np.arange(RING), ahead)
    features = features_of(states.ravel(), (states + far).ravel() % RING)
    action = policy.predict(features, deterministic=True)[0][:, 0].reshape(states.shape)
    return (np.sign(action) == np.where(2 * far < RING, 1, -1)).all(1)


def expectiles(discount: float, expectile: float) -> np.ndarray:
    """V float[RING] by how far the goal lies ahead: the expectile of what the data's two outcomes are worth."""
    values = np.zeros(RING)
    for _ in range(200):
        outcomes = discount * np.stack([np.roll(values, 1), np.roll(values, -1)]) - 1
        for _ in range(50):  # the weighted mean whose weights it decides itself
            weights = np.where(outcomes > values, expectile, 1 - expectile) * [[0.7], [0.3]]
            values = (weights * outcomes).sum(0) / weights.sum(0)
        values[0] = 0.0
    return values


@pytest.mark.parametrize("name", SETTINGS)
def test_the_short_way_is_found_where_cloning_goes_the_long_way(name: str):
    policy, ring = make(name), Ring()
    for _ in range(320):
        policy.update(ring.batch())
    assert shortest(policy).all()
    ahead = np.arange(RING)
    values = policy.value(features_of(0 * ahead, ahead))
    np.testing.assert_allclose(values, expectiles(0.9, 0.9), atol=0.25)
    assert values[0] > values[1] > values[2] > values[3] < values[4] < values[5]


def test_cloning_the_same_data_goes_the_long_way():
    policy, ring = make("gcivl", temperature=0.0), Ring()
    for _ in range(300):
        policy.update(ring.batch())
    assert shortest(policy)[: RING // 2 - 1].all() and not shortest(policy)[RING // 2 - 1 :].any()


def test_the_expectile_of_a_sample_is_where_the_two_sides_balance():
    """e Σ (x - v)₊ = (1 - e) Σ (v - x)₊; one half is the mean."""
    sample = torch.tensor([0.0, 0.0, 0.0, 1.0])
    for e, expected in ((0.5, 0.25), (0.75, 0.5), (0.9, 0.75)):
        v = torch.tensor(expected, requires_grad=True)
        expectile_loss(sample - v, e).mean().backward()
        assert v.grad is not None and abs(v.grad.item()) < 1e-6
    loss = expectile_loss(torch.tensor([2.0, -2.0, 2.0]), 0.9, torch.tensor([1.0, 1.0, -1.0]))
    torch.testing.assert_close(loss, torch.tensor([3.6, 3.6, 0.4]))


def test_weights_are_clipped_and_the_regression_is_a_gaussians():
    weights = advantage_weights(torch.tensor([-0.1, 0.0, 0.1, 3.0]), 10.0)
    torch.testing.assert_close(weights, torch.tensor([np.exp(-1), 1.0, np.exp(1), 100.0], dtype=torch.float32))
    mean, wanted = torch.randn(4, 3), torch.randn(4, 3)
    density = torch.distributions.Normal(mean, 1.0).log_prob(wanted).sum(-1) + 1.5 * np.log(2 * np.pi)
    torch.testing.assert_close(regression_loss(mean, wanted, weights), -(weights * density).mean())


def test_members_of_a_normalized_ensemble_are_perceptrons_of_their_own():
    network = NormalizedMLP(2, (3, 16, 16, 2), torch.Generator().manual_seed(0))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    for k in range(2):
        single, hidden = MLP((3, 16, 16, 2), "gelu"), x
        for depth, layer in enumerate(list(single)[::2]):
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.data.copy_(network.weights[depth][k].T)
            hidden = layer(hidden)
            if depth < 2:
                hidden = torch.nn.functional.gelu(hidden)
                hidden = (hidden - hidden.mean(-1, keepdim=True)) / hidden.std(-1, correction=0, keepdim=True)
        torch.testing.assert_close(network(x)[k], hidden, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(network(x)[0], network(x)[1])


@pytest.mark.parametrize("name", SETTINGS)
def test_training_resumes_bit_for_bit_and_a_saved_policy_acts_and_values_alike(name: str, tmp_path):
    ring = Ring(episodes=20)
    batches = [ring.batch(32) for _ in range(12)]
    policy, same = make(name, hidden=(16,)), make(name, hidden=(16,))
    for batch in batches[:7]:
        assert policy.update(batch) == same.update(batch)
    policy.save_training(tmp_path / "training")
    policy.save_pretrained(tmp_path / "policy")
    reloaded = load_policy(tmp_path / "policy")
    assert isinstance(reloaded, GoalValuePolicy) and reloaded.config == policy.config
    features = batches[0]["features"]
    np.testing.assert_array_equal(reloaded.predict(features)[0], policy.predict(features)[0])
    np.testing.assert_array_equal(reloaded.value(features), policy.value(features))
    resumed = type(policy).load_training(tmp_path / "training")
    assert resumed.steps == 7
    for batch in batches[7:]:
        assert policy.update(batch) == resumed.update(batch)
    for part in ("arrays", "training_arrays"):
        mine, theirs = getattr(policy, part)(), getattr(resumed, part)()
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    with pytest.raises(CheckpointError, match="shape"):
        make(name, hidden=(8,)).load_arrays(policy.arrays())


@pytest.mark.parametrize("name", SETTINGS)
def test_the_target_follows_slowly_and_a_new_training_begins_with_it(name: str):
    policy, batch = make(name, hidden=(16,), target_rate=0.25), Ring(episodes=20).batch(32)
    part = policy.followed[0]
    before = [p.clone() for p in policy.network[part].parameters()]
    policy.update(batch)
    for start, now, target in zip(
        before, policy.network[part].parameters(), policy.target[part].parameters(), strict=True
    ):
        torch.testing.assert_close(target, start.lerp(now.detach(), 0.25))
        assert now.requires_grad and not target.requires_grad
    policy.start_training(10)
    assert (policy.steps, policy.gradient_steps) == (0, 10)
    for now, target in zip(policy.network[part].parameters(), policy.target[part].parameters(), strict=True):
        assert torch.equal(now, target)


@pytest.mark.parametrize("name", SETTINGS)
def test_acting_has_shapes_bounds_no_memory_and_no_chance(name: str):
    policy = make(name, action_size=3)
    features = 5 * np.random.default_rng(0).standard_normal((4, 2 * RING)).astype(np.float32)
    action, state = policy.predict(features)
    assert action.shape == (4, 3) and action.dtype == np.float32 and np.abs(action).max() <= 1 and state is None
    np.testing.assert_array_equal(policy.predict(features, deterministic=True)[0], action)
    np.testing.assert_allclose(policy.predict(features[1:2])[0], action[1:2], atol=1e-5)
    assert policy.value(features).shape == (4,)
    with pytest.raises(ValueError, match=r"shape \(4, 3\); expected \(n, 12\)"):
        policy.predict(features[:, :3])


@pytest.mark.parametrize("name", SETTINGS)
def test_misuse_is_refused_in_one_sentence(name: str):
    policy, batch = make(name, hidden=(16,)), Ring(episodes=20).batch(8)
    with pytest.raises(ValueError, match="the batch lacks 'next_features'"):
        policy.update({key: value for key, value in batch.items() if key != "next_features"})
    with pytest.raises(ValueError, match=r"'actions' has shape \(8, 2, 1\); expected \(b, 1, 1\)"):
        policy.update(batch | {"actions": np.repeat(batch["actions"], 2, axis=1)})
    for setting, value in {"discount": 1.0, "expectile": 0.0, "target_rate": 0.0, "state_size": 99}.items():
        with pytest.raises(ValueError, match=f"{setting} = {value} must lie in"):
            make(name, **{setting: value})
    assert policy.spec.values and policy.spec.discount == 0.9 and isinstance(policy.spec, BatchSpec)
