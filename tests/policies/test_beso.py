from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.beso import BESO, SAMPLERS, SIGMA_DATA, BESOConfig, log_logistic, preconditioning


def make(**changes: Any) -> BESO:
    settings: dict[str, Any] = {
        "feature_size": 3,
        "action_size": 2,
        "state_size": 2,
        "chunk": 4,
        "execute": 4,
        "hidden": (128, 128),
        "learning_rate": 2e-3,
        "warmup": 20,
        "gradient_steps": 1000,
        "ema_decay": 0.98,
    }
    return BESO(BESOConfig(**(settings | changes)))


def fork(rng: np.random.Generator, size: int = 256) -> dict[str, np.ndarray]:
    """All the way left with the gripper shut, or right with it open: the goal (third feature) says so, or is 0."""
    side = rng.choice([-1.0, 1.0], size)
    features = rng.normal(size=(size, 3))
    features[:, 2] = side * (rng.random(size) < 0.5)
    actions = np.broadcast_to(side[:, None, None], (size, 4, 2)) * [0.8, 1.0]
    return {"features": features.astype(np.float32), "actions": actions.astype(np.float32)}


@pytest.fixture(scope="module")
def trained() -> BESO:
    policy, rng = make(), np.random.default_rng(0)
    losses = [policy.update(fork(rng))["loss"] for _ in range(1000)]
    assert losses[-1] < 0.5 * losses[0]
    return policy


def copy_of(policy: BESO, **changes: Any) -> BESO:
    copied = make(**changes)
    copied.load_arrays(policy.arrays())
    return copied


def moved(policy: BESO, goal: float, slots: int = 400) -> np.ndarray:
    """How far slots go, as a share of the demonstrations' way."""
    features = np.random.default_rng(1).normal(size=(slots, 3)).astype(np.float32)
    features[:, 2] = goal
    _, state = policy.predict(features)
    return state["chunk"][..., 0].sum(1) / 3.2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("steps", "share"), [(3, 0.8), (10, 0.95)])
def test_both_ways_are_taken_and_their_mean_is_not(trained, sampler, steps, share):
    policy = copy_of(trained, sampler=sampler, sampling_steps=steps)
    way = moved(policy, 0.0)
    assert 0.35 < (way > 0).mean() < 0.65
    assert (np.abs(np.abs(way) - 1) < 0.25).mean() > share


def test_guidance_goes_from_ignoring_the_goal_to_following_it(trained):
    policy = copy_of(trained)
    for guidance, low, high in ((0.0, 0.3, 0.7), (1.0, 0.95, 1.0), (1.5, 0.95, 1.0)):
        policy.guidance = guidance
        assert low <= (moved(policy, 1.0) > 0).mean() <= high, guidance
        assert low <= (moved(policy, -1.0) < 0).mean() <= high, guidance


def test_hidden_goals_are_not_seen(trained):
    features = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    other = features.clone()
    other[:, 2] += 1
    x, level, none = torch.zeros(5, 8), torch.full((5, 1), 0.5), torch.zeros(5, 1)
    torch.testing.assert_close(trained.average(features, x, level, none)[0], trained.average(other, x, level, none)[0])
    shown = [trained.average(f, x, level, none + 1)[0] for f in (features, other)]
    assert (shown[0] - shown[1]).abs().max() > 0.01


def test_preconditioning_keeps_inputs_and_targets_at_unit_variance():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(200_000, generator=generator) * SIGMA_DATA
    noise = torch.randn(200_000, generator=generator)
    for level in (0.01, 0.5, 3.0, 80.0):
        skip, out, scale = preconditioning(torch.tensor(level))
        noisy = clean + level * noise
        assert (scale * noisy).std().item() == pytest.approx(1, abs=0.01)
        assert ((clean - skip * noisy) / out).std().item() == pytest.approx(1, abs=0.01)


def test_levels_are_log_logistic_within_their_range():
    levels = log_logistic(torch.linspace(0, 1, 10_001), 0.5, 0.005, 80.0)
    assert levels[0].item() == pytest.approx(0.005) and levels[-1].item() == pytest.approx(80.0)
    assert levels[5000].item() == pytest.approx(0.5, rel=1e-3)  # the cuts lie symmetrically enough
    quarter = 0.5 * 3**-0.5  # ln s = ln .5 + .5 logit(1/4)
    assert levels[2500].item() == pytest.approx(quarter, rel=1e-2)
    assert (levels.diff() > 0).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4])
def test_a_sure_denoiser_is_followed_exactly(monkeypatch, sampler, steps):
    policy = make(sampler=sampler, sampling_steps=steps, state_size=0)
    target = torch.rand(1, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    monkeypatch.setattr(type(policy.average), "forward", lambda self, f, x, s, shown: (target.expand_as(x), x))
    noise = np.random.default_rng(0).normal(size=(3, policy.noise_size)).astype(np.float32)
    expected = policy.decode(policy.average.restore(target)).numpy()
    np.testing.assert_allclose(policy.sample(np.zeros((3, 3), np.float32), noise), expected.repeat(3, 0), atol=1e-5)


def test_chunks_are_learnt_standardised():
    policy, rng = make(), np.random.default_rng(0)
    actions = torch.from_numpy(rng.normal(0.3, 0.1, size=(500, 4, 2)).astype(np.float32))
    chunk = policy.encode(actions)
    policy.network.moments.update(chunk)
    x = policy.network.standardise(chunk)
    torch.testing.assert_close(policy.network.restore(x), chunk)
    assert x.view(-1, 2).mean(0).abs().max() < 1e-4
    torch.testing.assert_close(x.view(-1, 2).std(0), torch.full((2,), SIGMA_DATA), rtol=1e-3, atol=0)


def test_slots_keep_their_own_chance(trained):
    features = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
    actions = []
    for restarts in (False, True):
        trained.seed(9)
        _, state = trained.predict(features)
        for _ in range(9):
            action, state = trained.predict(features, state, np.array([False, restarts]))
        actions.append(action[0])
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-5)
    first, _ = trained.predict(features[:1], deterministic=True)
    second, _ = trained.predict(features, deterministic=True)
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)


def test_half_precision_learns_alike():
    losses = {}
    for precision in ("float32", "bfloat16"):
        policy, rng = make(precision=precision, hidden=(32,)), np.random.default_rng(0)
        losses[precision] = np.mean([policy.update(fork(rng))["loss"] for _ in range(60)][-10:])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_training_resumes_bit_for_bit(tmp_path):
    batches = [fork(np.random.default_rng(i), 32) for i in range(40)]
    policy = make(hidden=(16,))
    for batch in batches[:25]:
        policy.update(batch)
    policy.save_training(tmp_path)
    resumed = BESO.load_training(tmp_path)
    for batch in batches[25:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])


def test_how_chunks_are_drawn_can_be_changed_later_and_is_saved(trained, tmp_path):
    policy = copy_of(trained)
    features = np.zeros((4, 3), np.float32)
    before, _ = policy.predict(features, deterministic=True)
    policy.sampling_steps, policy.guidance = 7, 2.0
    after, _ = policy.predict(features, deterministic=True)
    assert not np.array_equal(before, after)
    policy.save_pretrained(tmp_path)
    reloaded = load_policy(tmp_path)
    assert isinstance(reloaded, BESO) and (reloaded.sampling_steps, reloaded.guidance) == (7, 2.0)
    np.testing.assert_array_equal(reloaded.predict(features, deterministic=True)[0], after)
    with pytest.raises(ValueError, match="sampling_steps must be at least 1"):
        policy.sampling_steps = 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "heun"}, "Unknown sampler 'heun'; valid: ddim, euler-ancestral"),
        ({"sampling_sigmas": (0.1, 0.2)}, r"sampling_sigmas = \(0.1, 0.2\) must fall"),
        ({"goal_drop": 1.0}, "goal_drop = 1.0 must lie"),
        ({"guidance": 2.0, "state_size": 0}, "guidance = 2.0 needs goal_drop and state_size above 0"),
    ],
)
def test_misuse_is_refused_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
