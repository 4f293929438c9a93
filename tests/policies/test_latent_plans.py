from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.distributions import slot_noise
from policies.latent_plans import DECODERS, LatentPlans, LatentPlansConfig
from policies.plan_spaces import PLAN_SPACES, CategoricalPlans, GaussianPlans


def make(**changes: Any) -> LatentPlans:
    settings: dict[str, Any] = {
        "feature_size": 3,
        "action_size": 2,
        "state_size": 2,
        "chunk": 4,
        "execute": 4,
        "plan_size": 3,
        "plan_classes": 4,
        "hidden": (64,),
        "recurrent": 32,
        "components": 3,
        "learning_rate": 4e-3,
        "warmup": 20,
        "gradient_steps": 300,
    }
    return LatentPlans(LatentPlansConfig(**(settings | changes)))


def play(rng: np.random.Generator, size: int = 128) -> dict[str, np.ndarray]:
    """Left with the gripper shut or right with it open; neither the first state nor the goal says which."""
    side = rng.choice([-1.0, 1.0], (size, 1, 1))
    actions = np.broadcast_to(side, (size, 4, 2)) * [0.6, 1.0]
    actions[..., 0] += rng.normal(0, 0.1, (size, 4))
    window = np.repeat(rng.normal(size=(size, 1, 3)), 4, axis=1)
    window[..., 0] += 0.3 * side[..., 0] * np.arange(4)
    return {"window": window.astype(np.float32), "actions": actions.astype(np.float32)}


def follow(policy: LatentPlans, window: np.ndarray, state: Any = None, **options: Any) -> tuple[np.ndarray, Any]:
    """Four steps along the windows: actions float32[n, 4, A] and the state."""
    actions = []
    for t in range(4):
        action, state = policy.predict(window[:, t], state, **options)
        actions.append(action)
    return np.stack(actions, axis=1), state


@pytest.fixture(scope="module", params=[("logistic", "gaussian"), ("chunk", "categorical"), ("flow", "gaussian")])
def trained(request: pytest.FixtureRequest) -> LatentPlans:
    decoder, plan = request.param
    policy, rng = make(decoder=decoder, plan=plan), np.random.default_rng(0)
    metrics = [policy.update(play(rng)) for _ in range(300)]
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.2
    assert metrics[-1]["kl"] > 0.5  # which way to go, at least most of ln 2
    return policy


def test_the_plan_says_which_way(trained):
    batch = play(np.random.default_rng(1), 200)
    plan = trained.plan_of(batch["window"], batch["actions"])
    assert plan.dtype == np.float32 and plan.shape == (200, trained.space.size)
    side = np.sign(batch["actions"][:, 0, 0])
    actions, state = follow(trained, batch["window"], trained.give(plan))
    assert (np.sign(actions[..., 0].sum(1)) == side).mean() > 0.9 and (
        np.sign(actions[..., 1].sum(1)) == side
    ).mean() > 0.9
    np.testing.assert_array_equal(state["chunk"], actions)
    other, _ = follow(trained, batch["window"], trained.give(plan[::-1]))
    assert (np.sign(other[..., 0].sum(1)) == side[::-1]).mean() > 0.9
    own, shuffled = trained.reconstruct(batch, plan), trained.reconstruct(batch, np.roll(plan, 1, axis=0))
    assert own.shape == (200,) and own.mean() < shuffled.mean() - 0.2
    np.testing.assert_array_equal(own, trained.reconstruct(batch, plan))


def test_proposed_plans_go_either_way(trained):
    window = play(np.random.default_rng(2), 300)["window"]
    trained.seed(0)
    actions, state = follow(trained, window)
    right = actions[..., 0].sum(1) > 0
    assert 0.3 < right.mean() < 0.7
    assert (right == (actions[..., 1].sum(1) > 0)).mean() > 0.75
    assert not state["given"].any() and np.abs(actions).max() <= 1 and actions.dtype == np.float32


def test_a_given_plan_stays_until_it_is_taken_away(trained):
    window = play(np.random.default_rng(3), 3)["window"]
    plan = trained.propose(window[:, 0])
    state = trained.give(plan)
    _, state = follow(trained, window, state)
    _, state = follow(trained, window, state, episode_start=np.array([True, False, False]))
    np.testing.assert_array_equal(state["plan"], plan)
    state["given"][1] = False
    _, state = follow(trained, window, state)
    np.testing.assert_array_equal(state["plan"][[0, 2]], plan[[0, 2]])
    state = trained.give(plan[::-1], state)
    _, after = trained.predict(window[:, 0], state)
    np.testing.assert_array_equal(after["plan"], plan[::-1])
    with pytest.raises(ValueError, match="3 slots, the plans 2"):
        trained.give(plan[:2], state)


def test_one_slot_begins_anew_and_its_neighbours_do_not_notice(trained):
    observation = np.random.default_rng(4).normal(size=(3, 3)).astype(np.float32)
    trained.seed(4)
    _, state = trained.predict(observation)
    before = {name: array.copy() for name, array in state.items()}
    action, plain = trained.predict(observation, state)
    other, restarted = trained.predict(observation, state, episode_start=np.array([False, True, False]))
    np.testing.assert_allclose(action[[0, 2]], other[[0, 2]], atol=1e-5)
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])
        np.testing.assert_allclose(plain[name][[0, 2]], restarted[name][[0, 2]], atol=1e-5)
    assert restarted["position"].tolist() == [2, 1, 2]
    assert not np.array_equal(plain["plan"][1], restarted["plan"][1]) or trained.config.plan == "categorical"


def test_deterministic_episodes_repeat_and_chance_is_a_slots_own(trained):
    window = np.zeros((2, 4, 3), np.float32)
    first, state = follow(trained, window, None, deterministic=True)
    begin = np.ones(2, bool)
    action, state = trained.predict(window[:, 0], state, begin, deterministic=True)
    np.testing.assert_array_equal(action, first[:, 0])
    np.testing.assert_allclose(first[0], first[1], atol=1e-5)
    actions = []
    for restarts in (False, True):
        trained.seed(9)
        _, state = trained.predict(window[:, 0])
        for _ in range(9):
            action, state = trained.predict(window[:, 0], state, np.array([False, restarts]))
        actions.append(action[0])
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-5)


def test_steps_of_the_logistic_decoder_make_up_its_chunk():
    policy = make()
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    _, state = follow(policy, np.repeat(features[:, None], 4, axis=1), deterministic=True)
    keys = np.zeros(5, np.uint64)
    chunk = policy.sample(features, slot_noise(keys, np.zeros(5, np.int64), policy.noise_size))
    np.testing.assert_allclose(state["chunk"], chunk, atol=1e-5)


@pytest.mark.parametrize("recognise_actions", [True, False])
def test_recognition_sees_no_goal_and_actions_only_if_asked(recognise_actions):
    policy, batch = make(recognise_actions=recognise_actions), play(np.random.default_rng(0), 6)
    plan = policy.plan_of(batch["window"], batch["actions"])
    goal = batch["window"].copy()
    goal[..., 2] += 1
    np.testing.assert_array_equal(policy.plan_of(goal, batch["actions"]), plan)
    changed = np.array_equal(policy.plan_of(batch["window"], -batch["actions"]), plan)
    assert changed != recognise_actions
    assert policy.spec.window == policy.spec.chunk == 4


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_resumes_bit_for_bit_and_a_saved_policy_acts_alike(tmp_path, decoder):
    batches = [play(np.random.default_rng(i), 16) for i in range(30)]
    policy = make(decoder=decoder, plan="categorical", hidden=(16,))
    for batch in batches[:15]:
        policy.update(batch)
    policy.save_training(tmp_path / "training")
    resumed = LatentPlans.load_training(tmp_path / "training")
    for batch in batches[15:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])
    policy.save_pretrained(tmp_path / "policy")
    reloaded = load_policy(tmp_path / "policy")
    window = batches[0]["window"]
    expected, _ = follow(policy, window, deterministic=True)
    assert isinstance(reloaded, LatentPlans)
    np.testing.assert_array_equal(follow(reloaded, window, deterministic=True)[0], expected)


@pytest.mark.parametrize(
    ("decoder", "plan"), [("logistic", "categorical"), ("chunk", "gaussian"), ("flow", "gaussian")]
)
def test_half_precision_learns_alike_and_cold_policies_do_the_likeliest(decoder, plan):
    losses = {}
    for precision in ("float32", "bfloat16"):
        policy, rng = make(decoder=decoder, plan=plan, precision=precision, temperature=0.0), np.random.default_rng(0)
        losses[precision] = np.mean([policy.update(play(rng))["loss"] for _ in range(60)][-10:])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.1 * abs(losses["float32"]) + 0.02)
    window = play(np.random.default_rng(1), 8)["window"]
    _, state = policy.predict(window[:, 0])
    np.testing.assert_allclose(state["plan"], policy.propose(window[:, 0]), atol=1e-6)


def test_beta_and_free_nats_decide_how_much_a_plan_says():
    def kl(**changes: Any) -> float:
        policy, rng = make(decoder="chunk", gradient_steps=150, **changes), np.random.default_rng(0)
        return [policy.update(play(rng))["kl"] for _ in range(150)][-1]

    assert kl(beta=10.0) < 0.05  # collapsed
    assert kl(beta=10.0, free_nats=1.0, balance=0.0) > 0.5
    assert kl(beta=0.001) > 1.0


def test_balance_and_free_nats_in_the_loss():
    batch = play(np.random.default_rng(0), 32)
    for changes, factor in (({"balance": 0.3}, 0.0), ({"balance": 0.3, "free_nats": 50.0}, 0.7 * 50.0)):
        metrics = make(beta=0.5, decoder="chunk", **changes).update(batch)
        expected = 0.5 * (0.3 * metrics["kl"] + factor if factor else metrics["kl"])
        assert metrics["loss"] - metrics["reconstruction"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", PLAN_SPACES)
def test_divergence_is_zero_from_itself_and_the_mean_of_log_ratios(kind):
    space = PLAN_SPACES[kind](2, 3)
    generator = torch.Generator().manual_seed(0)
    own, other = torch.randn(2, 1, space.parameters, generator=generator)
    torch.testing.assert_close(space.kl(own, own), torch.zeros(1, 2), atol=1e-6, rtol=0)
    draws = space.sample(own.expand(100_000, -1), torch.randn(100_000, space.noise_size, generator=generator))
    if isinstance(space, CategoricalPlans):
        logarithms = [x.unflatten(-1, (2, 3)).log_softmax(-1) for x in (own, other)]
        ratio = ((logarithms[0] - logarithms[1]) * draws.unflatten(-1, (2, 3))).sum(-1)
    else:
        normals = [torch.distributions.Normal(*space._split(x)) for x in (own, other)]
        ratio = normals[0].log_prob(draws) - normals[1].log_prob(draws)
    torch.testing.assert_close(ratio.mean(0, keepdim=True), space.kl(own, other), rtol=0.03, atol=0.01)


def test_categorical_plans_are_one_hot_drawn_as_likely_and_pass_gradients():
    space = CategoricalPlans(2, 3)
    outputs = torch.tensor([[0.0, 1.0, 2.0, 3.0, 0.0, -9.0]]).log_softmax(-1).requires_grad_()
    noise = torch.randn(50_000, 6, generator=torch.Generator().manual_seed(0))
    drawn = space.sample(outputs.expand(50_000, -1), noise)
    probabilities = outputs.detach().unflatten(-1, (2, 3)).softmax(-1).flatten()
    torch.testing.assert_close(drawn.detach().mean(0), probabilities, atol=0.01, rtol=0)
    assert set(drawn.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    (drawn[0] * torch.arange(6.0)).sum().backward()
    assert outputs.grad is not None and outputs.grad.abs().sum() > 0
    assert space.mode(outputs).tolist() == [[0, 0, 1, 1, 0, 0]]


def test_how_much_of_a_space_is_used():
    gaussian, outputs = GaussianPlans(4, 0), torch.zeros(8, 8)
    outputs[:, 0] = torch.linspace(-1, 1, 8)
    assert gaussian.use(outputs, gaussian.kl(outputs, torch.zeros(8, 8))) == {"active_units": 1.0}
    categorical, outputs = CategoricalPlans(2, 4), torch.zeros(4, 2, 4)
    outputs[:, 0] = 50 * torch.eye(4)  # all four classes, each in a row of its own
    outputs[:, 1, 0] = 50  # always the same
    used = categorical.use(outputs.flatten(1), torch.zeros(4, 2))
    assert used == {"perplexity": pytest.approx((4 + 1) / 2)} and math.isfinite(used["perplexity"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": "vq"}, "Unknown plan 'vq'; valid: gaussian, categorical"),
        ({"decoder": "mlp"}, "Unknown decoder 'mlp'; valid: logistic, chunk, flow"),
        ({"state_size": 0}, "state_size must be at least 1"),
        ({"balance": 1.5}, r"balance = 1.5 lie in \[0, 1\]"),
    ],
)
def test_misuse_is_refused_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_batch_without_windows_is_refused():
    with pytest.raises(ValueError, match="the batch lacks 'window'; it has actions"):
        make().update({"actions": np.zeros((2, 4, 2), np.float32)})
