from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.act import ACT, ACTConfig, parameters


def make(**changes: Any) -> ACT:
    settings: dict[str, Any] = {
        "feature_size": 5,
        "action_size": 3,
        "state_size": 3,
        "chunk": 4,
        "execute": 4,
        "width": 16,
        "heads": 2,
        "feed_hidden": 16,
        "trunk_layers": 1,
        "decoder_layers": 1,
        "latent_size": 4,
        "encoder_hidden": (32,),
        "learning_rate": 3e-3,
        "warmup": 20,
        "gradient_steps": 240,
    }
    return ACT(ACTConfig(**(settings | changes)))


def reach(rng: np.random.Generator, size: int = 64) -> dict[str, np.ndarray]:
    """The goal is where to go within four steps, and the state's last number whether to hold."""
    state, goal = rng.uniform(-1, 1, (size, 3)), rng.uniform(-1, 1, (size, 2))
    motion = np.repeat(goal[:, None] * 0.75, 4, axis=1)
    gripper = np.broadcast_to(np.sign(state[:, None, 2:]), (size, 4, 1))
    return {
        "features": np.concatenate([state, goal], axis=1).astype(np.float32),
        "actions": np.concatenate([motion, gripper], axis=2).astype(np.float32),
        "valid": rng.integers(1, 5, size),
    }


@pytest.fixture(scope="module")
def trained() -> ACT:
    policy, rng = make(), np.random.default_rng(0)
    metrics = [policy.update(reach(rng)) for _ in range(240)]
    assert metrics[-1]["loss"] < 0.25 * metrics[0]["loss"] and metrics[-1]["kl"] < 0.05
    return policy


def features(rows: int, seed: int = 1) -> np.ndarray:
    return reach(np.random.default_rng(seed), rows)["features"]


def test_what_the_goal_asks_is_done(trained):
    x = features(300)
    _, state = trained.predict(x)
    chunk = state["chunk"]
    assert np.abs(chunk[..., :2].sum(1) - 3 * x[:, 3:]).mean() < 0.35  # 1.5 for a policy that stays
    assert (np.sign(chunk[..., 2]) == np.sign(x[:, 2:3])).mean() > 0.9


def test_repetitions_beyond_an_episodes_end_are_not_learnt():
    batch = reach(np.random.default_rng(0))
    batch["valid"][:] = 2
    other = dict(batch, actions=batch["actions"].copy())
    other["actions"][:, 2:] = 0.123
    first, second = make(), make()
    assert first.update(batch) == second.update(other)
    assert first.update(batch) != second.update(dict(other, valid=np.full(64, 3)))


def test_the_loss_is_what_it_says():
    policy, batch = make(latent_size=0, gripper_weight=0.25), reach(np.random.default_rng(0))
    actor, x = policy.network.actor, torch.from_numpy(batch["features"])
    with torch.no_grad():
        predicted = actor.head(actor(actor.embed(x[:, :3]), x[:, 3:])).numpy()
    actions = batch["actions"]
    wanted = np.concatenate([actions[..., :2].cumsum(1) / 3, actions[..., 2:]], axis=2)
    errors = np.abs(predicted - wanted)[np.arange(4) < batch["valid"][:, None]].mean(0)
    metrics = policy.update(batch)
    assert metrics["loss"] == pytest.approx((errors * [1, 1, 0.25]).sum() / 3, rel=1e-5)
    assert metrics["motion_error"] == pytest.approx(errors[:2].mean(), rel=1e-5)
    assert metrics["gripper_error"] == pytest.approx(errors[2], rel=1e-5) and metrics["kl"] == 0.0
    with_style = make()
    metrics = with_style.update(batch)
    imitation = (2 * metrics["motion_error"] + 0.5 * metrics["gripper_error"]) / 3
    assert metrics["loss"] == pytest.approx(imitation + 10 * metrics["kl"], rel=1e-5) and metrics["kl"] > 0


def test_two_ways_are_told_apart_by_the_style_where_it_costs_little():
    """Left or right by chance: without a style the error cannot fall below the displacements' mean, .5."""
    rng = np.random.default_rng(0)

    def fork() -> dict[str, np.ndarray]:
        batch = reach(rng)
        batch["actions"][..., :2] = 0.75 * rng.choice([-1.0, 1.0], (64, 1, 1))
        return batch

    errors = {}
    for latent_size in (0, 4):
        policy = make(latent_size=latent_size, kl_weight=0.001, gradient_steps=120)
        errors[latent_size] = np.mean([policy.update(fork())["motion_error"] for _ in range(120)][-20:])
    assert errors[0] > 0.45 and errors[4] < 0.3


def test_every_decoder_layer_acts():
    policy, x = make(decoder_layers=3), features(4)
    plain = policy.sample(x, np.zeros((4, 0), np.float32))
    blocks: Any = policy.average.actor.decoder.blocks
    for block in blocks:
        weight = block.feed[-1].bias
        weight += torch.linspace(-1, 1, 16)
        assert np.abs(policy.sample(x, np.zeros((4, 0), np.float32)) - plain).max() > 1e-3
        weight -= torch.linspace(-1, 1, 16)


def test_no_chance_acts_and_slots_do_not_notice_their_neighbours(trained):
    x = features(3)
    first, state = trained.predict(x)
    trained.seed(5)
    np.testing.assert_array_equal(trained.predict(x)[0], first)
    np.testing.assert_allclose(trained.predict(x[1:2])[0], first[1:2], atol=1e-5)
    assert first.dtype == np.float32 and first.shape == (3, 3) and np.abs(first).max() <= 1
    before = {name: array.copy() for name, array in state.items()}
    _, plain = trained.predict(x[::-1], state)
    _, restarted = trained.predict(x[::-1], state, episode_start=np.array([False, True, False]))
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])
        np.testing.assert_array_equal(plain[name][[0, 2]], restarted[name][[0, 2]])
    assert restarted["position"].tolist() == [2, 1, 2]


def test_an_ensemble_is_the_weighted_mean_of_all_predictions_for_a_step(trained):
    policy = make(ensemble=True, ensemble_rate=0.3)
    policy.load_arrays(trained.arrays())
    walk = np.stack([features(2, seed) for seed in range(9)])
    starts = np.zeros((9, 2), bool)
    starts[0], starts[5, 1] = True, True
    chunks = np.stack([policy.sample(x, np.zeros((2, 0), np.float32)) for x in walk])
    state = None
    for t in range(9):
        previous = None if state is None else {name: array.copy() for name, array in state.items()}
        action, following = policy.predict(walk[t], state, starts[t])
        if previous is not None and state is not None:
            for name, array in state.items():
                np.testing.assert_array_equal(array, previous[name])
        state = following
        for slot in range(2):
            begun = 5 if slot == 1 and t >= 5 else 0
            made = np.arange(max(begun, t - 3), t + 1)  # the oldest first
            weights = np.exp(-0.3 * np.arange(len(made)))
            wanted = weights @ chunks[made, slot, t - made] / weights.sum()
            np.testing.assert_allclose(action[slot], wanted, atol=1e-5)
    assert state is not None and state["age"].tolist() == [9, 4]
    with pytest.raises(ValueError, match="2 slots, the observations 3"):
        policy.predict(features(3), state)


def test_training_resumes_bit_for_bit_and_only_the_average_is_the_policy(tmp_path):
    batches = [reach(np.random.default_rng(i), 16) for i in range(24)]
    policy = make()
    for batch in batches[:14]:
        policy.update(batch)
    x = features(3)
    action = policy.predict(x)[0]
    policy.save_training(tmp_path / "training")
    policy.save_pretrained(tmp_path / "policy")
    resumed = ACT.load_training(tmp_path / "training")
    np.testing.assert_array_equal(load_policy(tmp_path / "policy").predict(x)[0], action)
    for batch in batches[14:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])


def test_training_is_its_seeds_alone():
    batches = [reach(np.random.default_rng(i), 16) for i in range(3)]
    before = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        policy = make(seed=seed)
        runs.append([policy.update(batch)["loss"] for batch in batches])
    assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]


def test_embeddings_are_of_the_state_and_parameters_what_acts(trained):
    states = features(5000)[:, :3]
    z = trained.embed(states)
    assert z.shape == (5000, 16) and z.dtype == np.float32
    np.testing.assert_allclose(trained.embed(states[4095:4098]), z[4095:4098], atol=1e-5)
    assert parameters(make()) == parameters(make(latent_size=0)) < parameters(make(decoder_layers=3))
    network = make(latent_size=0).network
    assert parameters(make()) == sum(weight.numel() for weight in network.parameters())
    assert make().noise_size == 0 and make(chunk=8).spec.chunk == 8


def test_pixels_stand_for_the_state():
    policy = make(state_size=12 * 10 * 3, feature_size=362, encoder="pixels", image=(12, 10), gradient_steps=5)
    rng = np.random.default_rng(0)
    batch = reach(rng, 8)
    pixels = rng.integers(256, size=(8, 360)).astype(np.float32)
    batch["features"] = np.concatenate([pixels, batch["features"][:, 3:]], axis=1)
    assert np.isfinite(policy.update(batch)["loss"])
    assert policy.predict(batch["features"])[0].shape == (8, 3) and policy.embed(pixels).shape == (8, 16)
    assert ACT.build(policy.config_dict()).config == policy.config


def test_a_policy_without_a_goal_has_a_blank_token():
    policy = make(state_size=5)
    assert np.isfinite(policy.update(reach(np.random.default_rng(0)))["loss"])
    assert policy.predict(features(2))[0].shape == (2, 3)


def test_misuse_is_refused_in_one_sentence(trained):
    with pytest.raises(ValueError, match="state_size must be at least 1"):
        make(state_size=0)
    with pytest.raises(ValueError, match="unknown encoder 'sound'; valid: state, pixels"):
        make(encoder="sound")
    with pytest.raises(ValueError, match=r"image = \(4, 4\) must be \(H, W\)"):
        make(encoder="pixels", image=(4, 4))
    with pytest.raises(ValueError, match="layers must be at least 1"):
        make(decoder_layers=0)
    with pytest.raises(ValueError, match="width = 16 must be a multiple of heads = 3"):
        make(heads=3)
    with pytest.raises(ValueError, match="the batch lacks 'valid'"):
        trained.update({name: array for name, array in reach(np.random.default_rng(0)).items() if name != "valid"})
    with pytest.raises(ValueError, match=r"Observations have shape \(2, 5\); expected \(n, 3\)"):
        trained.embed(features(2))
