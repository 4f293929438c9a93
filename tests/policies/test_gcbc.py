from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policies import load_policy
from policies.gcbc import GCBC, GCBCConfig


def make(**changes: Any) -> GCBC:
    settings: dict[str, Any] = {
        "feature_size": 3,
        "action_size": 2,
        "chunk": 4,
        "execute": 4,
        "hidden": (64, 64),
        "learning_rate": 2e-3,
        "warmup": 20,
        "gradient_steps": 400,
    }
    return GCBC(GCBCConfig(**(settings | changes)))


def play(rng: np.random.Generator, size: int = 128, chunk: int = 4) -> dict[str, np.ndarray]:
    """The first feature says which way to go; half of the time, whatever it says, the gripper is open."""
    features = rng.uniform(-1, 1, size=(size, 3)).astype(np.float32)
    motion = np.repeat(features[:, None, :1], chunk, axis=1) * 0.8
    gripper = np.broadcast_to(rng.choice([-1.0, 1.0], (size, 1, 1)), motion.shape)
    return {"features": features, "actions": np.concatenate([motion, gripper], axis=2).astype(np.float32)}


@pytest.fixture(scope="module")
def trained() -> GCBC:
    policy, rng = make(), np.random.default_rng(0)
    errors = [policy.update(play(rng))["motion_error"] for _ in range(400)]
    assert errors[-1] < 0.1 * errors[0]
    return policy


def test_motion_follows_the_goal_and_two_ways_become_their_mean(trained):
    features = play(np.random.default_rng(1), 200)["features"]
    chunk = trained.sample(features, np.zeros((200, 0), np.float32))
    assert np.abs(chunk[..., 0] - 0.8 * features[:, :1]).mean() < 0.05
    assert np.abs(chunk[..., 1]).max() < 0.5


def test_the_loss_is_the_weighted_squared_error_of_the_representation():
    policy, batch = make(gripper_weight=0.25, hidden=()), play(np.random.default_rng(0), 8)
    for parameter in policy.network.parameters():
        parameter.data.zero_()
    metrics = policy.update(batch)
    motion = np.square(batch["actions"][..., 0].cumsum(1) / 3).mean()
    assert metrics["motion_error"] == pytest.approx(motion, rel=1e-5) and metrics["gripper_error"] == pytest.approx(1)
    assert metrics["loss"] == pytest.approx((motion + 0.25) / 2, rel=1e-5)


def test_a_chunk_of_one_looks_again_after_every_step():
    policy, rng = make(chunk=1, execute=1, gradient_steps=300), np.random.default_rng(0)
    for _ in range(300):
        policy.update(play(rng, chunk=1))
    state = None
    for x in (-0.9, 0.9, 0.0):
        action, state = policy.predict(np.array([[x, 0, 0]], np.float32), state)
        assert action.shape == (1, 2) and abs(action[0, 0] - 0.8 * x) < 0.15


def test_no_chance_is_involved_and_slots_do_not_meet(trained):
    rng = np.random.default_rng(3)
    observations = rng.normal(size=(6, 3, 3)).astype(np.float32)
    starts = np.zeros((6, 3), bool)
    starts[2, 1] = True
    together, alone, state, own = [], [], None, None
    for observation, start in zip(observations, starts, strict=True):
        action, state = trained.predict(observation, state, start)
        single, own = trained.predict(observation[:1], own, start[:1], deterministic=True)
        together.append(action)
        alone.append(single)
    np.testing.assert_allclose(np.stack(together)[:, :1], np.stack(alone), atol=1e-6)
    assert state is not None and state["position"].tolist() == [2, 4, 2]


def test_half_precision_learns_alike():
    losses = {}
    for precision in ("float32", "bfloat16"):
        policy, rng = make(precision=precision, hidden=(32,)), np.random.default_rng(0)
        losses[precision] = np.mean([policy.update(play(rng))["loss"] for _ in range(60)][-10:])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_training_resumes_bit_for_bit_and_a_saved_policy_acts_alike(tmp_path):
    batches = [play(np.random.default_rng(i), 16) for i in range(40)]
    policy = make(hidden=(16,))
    for batch in batches[:25]:
        policy.update(batch)
    policy.save_training(tmp_path / "training")
    resumed = GCBC.load_training(tmp_path / "training")
    for batch in batches[25:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])
    policy.save_pretrained(tmp_path / "policy")
    observation = np.ones((2, 3), np.float32)
    reloaded = load_policy(tmp_path / "policy")
    np.testing.assert_array_equal(reloaded.predict(observation)[0], policy.predict(observation)[0])


def test_misuse_is_refused_in_one_sentence(trained):
    with pytest.raises(ValueError, match=r"'features' has shape .2, 4.; expected .b, 3."):
        trained.update({"features": np.zeros((2, 4), np.float32), "actions": np.zeros((2, 4, 2), np.float32)})
