from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.distributions import slot_noise
from policies.flow_bc import FlowBC, FlowBCConfig


def make(**changes: Any) -> FlowBC:
    settings: dict[str, Any] = {
        "feature_size": 3,
        "action_size": 2,
        "chunk": 4,
        "execute": 4,
        "hidden": (128, 128),
        "learning_rate": 2e-3,
        "warmup": 20,
        "gradient_steps": 1000,
    }
    return FlowBC(FlowBCConfig(**(settings | changes)))


def fork(rng: np.random.Generator, size: int = 256) -> dict[str, np.ndarray]:
    """Half of the demonstrations go all the way left with the gripper shut, half right with it open."""
    side = rng.choice([-1.0, 1.0], (size, 1, 1))
    actions = np.broadcast_to(side, (size, 4, 2)) * [0.8, 1.0]
    return {
        "features": rng.normal(size=(size, 3)).astype(np.float32),
        "actions": actions.astype(np.float32),
    }


@pytest.fixture(scope="module")
def trained() -> FlowBC:
    policy, rng = make(), np.random.default_rng(0)
    losses = [policy.update(fork(rng))["loss"] for _ in range(1000)]
    assert losses[-1] < 0.5 * losses[0]
    return policy


@pytest.mark.parametrize(("sampling_steps", "share"), [(5, 0.8), (20, 0.97)])
def test_both_ways_are_taken_and_their_mean_is_not(trained, sampling_steps, share):
    policy = make(sampling_steps=sampling_steps)
    policy.load_arrays(trained.arrays())
    action, state = policy.predict(np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32))
    moved = state["chunk"][..., 0].sum(1) / 3.2
    assert 0.35 < (moved > 0).mean() < 0.65
    assert (np.abs(np.abs(moved) - 1) < 0.25).mean() > share
    gripper = state["chunk"][..., 1]  # beyond half way it is taken all the way, a half-open one stays half open
    assert ((np.abs(gripper) == 1.0) | (np.abs(gripper) <= 0.5)).all() and (np.abs(gripper) == 1.0).mean() > share
    assert (np.sign(moved)[:, None] == np.sign(gripper)).mean() > share
    assert action.dtype == np.float32 and np.abs(action).max() <= 1


def test_decode_undoes_encode():
    policy = make(action_size=4)
    actions = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    actions[..., -1] = torch.where(actions[..., -1] > 0, 1.0, -1.0)
    torch.testing.assert_close(policy.decode(policy.encode(actions)), actions)


def test_a_chunk_is_carried_out_in_order_before_the_next_is_drawn(trained):
    observation = np.zeros((2, 3), np.float32)
    action, state = trained.predict(observation)
    chunk = state["chunk"].copy()
    np.testing.assert_array_equal(action, chunk[:, 0])
    for position in range(1, 4):
        action, state = trained.predict(observation + position, state)
        np.testing.assert_array_equal(action, chunk[:, position])
    action, state = trained.predict(observation, state)
    assert (state["draw"] == 2).all() and (state["position"] == 1).all()


def test_one_slot_begins_anew_and_its_neighbours_do_not_notice(trained):
    observation = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    trained.seed(4)
    _, state = trained.predict(observation)
    before = {name: array.copy() for name, array in state.items()}
    _, plain = trained.predict(observation, state)
    _, restarted = trained.predict(observation, state, episode_start=np.array([False, True, False]))
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])  # the arguments stay as they were
        np.testing.assert_array_equal(plain[name][[0, 2]], restarted[name][[0, 2]])
    assert restarted["position"].tolist() == [2, 1, 2]
    assert not np.array_equal(plain["chunk"][1], restarted["chunk"][1])


def test_noise_is_a_slots_own(trained):
    """What a slot does later does not depend on how often its neighbour began anew."""
    observation = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
    actions = []
    for restarts in (False, True):
        trained.seed(9)
        _, state = trained.predict(observation)
        for _ in range(9):
            action, state = trained.predict(observation, state, np.array([False, restarts]))
        actions.append(action[0])
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-5)


def test_deterministic_episodes_repeat_and_others_differ(trained):
    observation = np.zeros((2, 3), np.float32)

    def episode(state: Any, deterministic: bool) -> tuple[np.ndarray, Any]:
        actions = []
        for t in range(12):
            action, state = trained.predict(observation, state, np.full(2, t == 0), deterministic)
            actions.append(action)
        return np.stack(actions), state

    first, state = episode(None, True)
    second, _ = episode(state, True)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[:, 0], first[:, 1], atol=1e-5)
    chance, state = episode(None, False)
    other, _ = episode(state, False)
    assert not np.array_equal(chance, other) and not np.array_equal(chance[:, 0], chance[:, 1])


def test_slot_noise_is_standard_normal_and_independent():
    keys = np.arange(2000, dtype=np.uint64)
    noise = np.concatenate([slot_noise(keys, np.full(2000, draw), 33) for draw in range(3)], axis=1)
    assert noise.dtype == np.float32 and noise.shape == (2000, 99)
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    correlation = np.corrcoef(noise.T) - np.eye(99)
    assert np.abs(correlation).max() < 0.12
    assert np.abs(np.corrcoef(noise[:100]) - np.eye(100)).max() < 0.5


def test_training_resumes_bit_for_bit_and_only_the_average_is_the_policy(tmp_path):
    batches = [fork(np.random.default_rng(i), 32) for i in range(60)]
    policy = make(hidden=(16,))
    for batch in batches[:35]:
        policy.update(batch)
    policy.save_training(tmp_path / "training")
    policy.save_pretrained(tmp_path / "policy")
    resumed = FlowBC.load_training(tmp_path / "training")
    for batch in batches[35:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])
    observation = np.zeros((3, 3), np.float32)
    reloaded = load_policy(tmp_path / "policy")
    expected = FlowBC.load_training(tmp_path / "training").predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(reloaded.predict(observation, deterministic=True)[0], expected)
    assert set(reloaded.arrays()) == set(policy.average.state_dict())


def test_a_later_round_of_training_starts_its_own_schedule():
    policy, rng = make(hidden=(16,), gradient_steps=30, warmup=5), np.random.default_rng(0)
    rates = [policy.update(fork(rng, 16))["learning_rate"] for _ in range(35)]
    assert rates[0] < rates[4] and max(rates) <= 2.001e-3 and rates[-1] == pytest.approx(1e-6)
    policy.start_training(100)
    assert [policy.update(fork(rng, 16))["learning_rate"] for _ in range(6)][-1] > 1.8e-3


def test_misuse_is_refused_in_one_sentence(trained):
    with pytest.raises(ValueError, match=r"execute must lie in 1\.\.4"):
        make(execute=5)
    with pytest.raises(ValueError, match=r"'actions' has shape .2, 5, 2.; expected .b, 4, 2."):
        trained.update({"features": np.zeros((2, 3), np.float32), "actions": np.zeros((2, 5, 2), np.float32)})
    _, state = trained.predict(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="2 slots, the observations 3"):
        trained.predict(np.zeros((3, 3), np.float32), state)
