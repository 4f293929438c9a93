from __future__ import annotations

import copy
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.distributions import squashed_sample
from policies.multi_critic_sac import (
    AdvantageSpread,
    MultiCriticSAC,
    MultiCriticSACConfig,
    Transitions,
    combining_factors,
    train_sac,
)
from policies.replay import Replay


def make(**changes: Any) -> MultiCriticSAC:
    settings: dict[str, Any] = {
        "observation_size": 4,
        "action_size": 2,
        "reward_names": ("progress", "effort"),
        "hidden": (32, 32),
        "critic_hidden": (32, 32),
        "discounts": (0.9,),
        "learning_rate": 4e-3,
        "batch_size": 64,
        "replay_size": 20_000,
    }
    return MultiCriticSAC(MultiCriticSACConfig(**(settings | changes)))


def batch_for(policy: MultiCriticSAC, size: int = 32, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)
    heads = len(policy.config.reward_names)
    observations, following = torch.randn(2, size, 4, generator=generator)
    actions = torch.rand(size, 2, generator=generator) * 2 - 1
    rewards = torch.randn(size, heads, generator=generator)
    return Transitions(observations, actions, rewards, torch.arange(size) % 4 == 0, following)


def weights_of(policy: MultiCriticSAC) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.networks.state_dict().items()}


def changed(before: dict[str, torch.Tensor], policy: MultiCriticSAC) -> set[str]:
    after = weights_of(policy)
    return {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize(("critic", "terminate"), [("multi", False), ("multi", True), ("sum", False)])
def test_a_point_learns_to_reach(point_reach, reached, critic, terminate):
    policy = make(critic=critic, weights=(1.0, 0.2))
    before = reached(policy)
    result = train_sac(policy, point_reach(terminate=terminate), 3800, seed=0, updates_per_step=0.1)
    assert before < 0.3
    assert reached(policy) > 0.9
    first, last = result.metrics[0], result.metrics[-1]
    assert result.steps == last["steps"] == policy.steps == 3840
    assert last["reward/progress"] > first["reward/progress"]
    assert last["success"] > 0.5 and last["updates"] == 128 and last["episodes"] >= 64
    for name in policy.critic_names:
        assert 0 < last[f"advantage_std/{name}"] < last[f"return_std/{name}"] and last[f"critic_loss/{name}"] < 0.5


def test_bfloat16_products_leave_learning_unharmed(point_reach, reached):
    policy = make(precision="bfloat16", weights=(1.0, 0.2))
    train_sac(policy, point_reach(), 3800, seed=0, updates_per_step=0.1)
    assert reached(policy) > 0.9
    assert all(parameter.dtype == torch.float32 for parameter in policy.networks.parameters())


@pytest.mark.parametrize("critic", ["multi", "sum"])
def test_rescaled_rewards_change_the_sum_and_nothing_else(point_reach, critic):
    """The whole of learning, not only the objective: critics, spreads, gradients and temperature."""
    outcome = []
    for scale in (np.ones(2), np.array([0.1, 10.0]), np.array([10.0, 0.1])):
        env, policy = point_reach(), make(critic=critic)
        env.scale = scale
        train_sac(policy, env, 1280, seed=0, updates_per_step=0.1, random_steps=640)
        outcome.append(torch.nn.utils.parameters_to_vector(policy.networks.actor.parameters()).detach())
    distance = max(float((outcome[0] - other).norm() / outcome[0].norm()) for other in outcome[1:])
    assert (distance < 1e-3) if critic == "multi" else (distance > 1e-2)


def test_factors_weigh_spreads_and_one_alone_is_one():
    weights, spread = torch.tensor([3.0, 1.0]), torch.tensor([0.5, 0.02])
    share = combining_factors(weights, spread, 1e-3) * spread
    assert (share[0] / share[1]).item() == pytest.approx(3.0)
    assert torch.allclose(combining_factors(7 * weights, spread, 1e-3) * spread, share)
    for scale in (0.1, 10.0):  # of the second Q: what it adds to the objective, relative to the first, stays
        rescaled = spread * torch.tensor([1.0, scale])
        again = combining_factors(weights, rescaled, 1e-6) * rescaled
        assert (again[0] / again[1]).item() == pytest.approx(3.0, rel=1e-5)
    assert combining_factors(torch.tensor([0.3]), torch.tensor([0.2]), 1e-3).item() == pytest.approx(1.0)
    floored = combining_factors(torch.ones(2), torch.tensor([0.1, 0.0]), 1e-2)
    assert torch.isfinite(floored).all() and (floored[1] / floored[0]).item() == pytest.approx(10.0)


def test_one_reward_learns_alike_by_either_critic(point_reach, monkeypatch):
    trained = []
    for critic in ("multi", "sum"):
        policy = make(reward_names=("progress",), critic=critic)
        env = point_reach()
        monkeypatch.setattr(env, "step", lambda actions, step=env.step: one_reward(step(actions)))
        train_sac(policy, env, 1280, seed=0, updates_per_step=0.05, random_steps=640)
        trained.append(policy.predict(env.observation, deterministic=True)[0])
    np.testing.assert_allclose(*trained, atol=1e-5)


def one_reward(step: Any) -> Any:
    step[-1]["reward_terms"] = step[-1]["reward_terms"][:, :1]
    return step


def test_the_spread_of_advantages_ignores_what_actions_share_and_averages_with_decay():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 4, 5000, generator=generator) * torch.tensor([1.0, 3.0])[:, None, None]
    offsets = 100 * torch.randn(2, 1, 5000, generator=generator)
    tracker = AdvantageSpread(2, decay=0.5)
    tracker.observe(values + offsets)
    assert tracker.spread.tolist() == pytest.approx([1.0, 3.0], rel=0.03)
    tracker.observe(0 * values)  # two so far: their mean
    assert tracker.spread.square().tolist() == pytest.approx([0.5, 4.5], rel=0.06)
    tracker.observe(0 * values)  # from here on the decay
    assert tracker.spread.square().tolist() == pytest.approx([0.25, 2.25], rel=0.06)


def test_the_density_of_a_squashed_sample_is_that_of_a_change_of_variables():
    parameters = torch.tensor([[0.3, -0.5, 0.1, -0.2]])
    noise = torch.tensor([[0.7, -1.1]])
    action, log_prob = squashed_sample(parameters, noise)
    mean, log_std = parameters.chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    transformed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    assert log_prob.item() == pytest.approx(transformed.log_prob(action).sum().item(), abs=1e-5)
    _, far = squashed_sample(torch.tensor([[40.0, -40.0, 0.0, 0.0]]), noise)
    assert torch.isfinite(far).all()


def test_targets_follow_their_closed_form():
    """Per head r / s + g (1 - terminated) min of the two targets: no entropy, no mixing of heads."""
    policy = make(discounts=(0.9, 0.5))
    net = policy.networks
    for member, value in enumerate((2.0, 7.0, 3.0, 5.0)):  # of heads 0, 1 the first critics, then the second
        for parameters in (net.targets.weights, net.targets.biases):
            for parameter in parameters:
                parameter.data[member] = 0.0
        net.targets.biases[-1].data[member] = value
    rewards = torch.tensor([[1.0, 1.0], [10.0, 10.0]])  # [K, b]
    terminated = torch.tensor([False, True])
    alive = net.scale.discounts[:, None] * ~terminated
    found = policy._targets(rewards, alive, torch.zeros(2, 4), torch.zeros(2, 2))
    assert found.tolist() == [[pytest.approx(1 + 0.9 * 2), 1.0], [pytest.approx(10 + 0.5 * 5), 10.0]]


@pytest.mark.parametrize("truncate", [True, False])
def test_a_time_limit_bootstraps_and_a_termination_does_not(truncate):
    """Reward 1 a step, g .6, episodes of 4 steps: Q is 1/(1-g) throughout, or what is left to collect."""
    policy = make(reward_names=("one",), discounts=(0.6,), target_rate=0.1, batch_size=40)
    final = np.eye(4, dtype=np.float32)[[3] * 8]
    for step in range(40):
        phase = step % 4
        now, following = (np.eye(4, dtype=np.float32)[[p % 4] * 8] for p in (phase, phase + 1))
        no, ends = np.zeros(8, bool), np.full(8, phase == 3)
        terminated, truncated = (no, ends) if truncate else (ends, no)
        action = policy.act(now, random=True)
        policy.remember(now, action, np.ones((8, 1)), terminated, truncated, following, final)
    for _ in range(250):
        policy.update()
    values = policy.values(np.eye(4, dtype=np.float32), np.zeros((4, 2), np.float32))[:, 0]
    expected = [2.5] * 4 if truncate else [(1 - 0.6**left) / 0.4 for left in (4, 3, 2, 1)]
    assert values.tolist() == pytest.approx(expected, rel=0.1)


def test_what_an_update_changes():
    policy = make(target_rate=0.25)
    before = weights_of(policy)
    policy.update(batch_for(policy))
    assert changed(before, policy) == {"actor", "critics", "targets", "log_temperature", "advantage"}
    after = weights_of(policy)
    for name in before:  # the targets moved by their rate alone: no gradient flows into them
        if name.startswith("targets"):
            expected = before[name].lerp(after[name.replace("targets", "critics")], 0.25)
            torch.testing.assert_close(after[name], expected)
    assert all(parameter.grad is None for parameter in policy.networks.parameters())
    assert not any(parameter.requires_grad for parameter in policy.networks.targets.parameters())


def test_critics_of_other_rewards_do_not_notice(point_reach):
    """Head 0 learns bit for bit the same whatever reward 1 is, as long as the actor is the same."""
    found = []
    for factor in (1.0, -3.0):
        policy = make(weights=(1.0, 0.0))
        batch = batch_for(policy)
        rewards = batch.rewards * torch.tensor([1.0, factor])
        policy.update(batch._replace(rewards=rewards))
        found.append([parameter.detach().clone() for parameter in policy.networks.critics.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.equal(found[0][-1][1], found[1][-1][1])


def test_the_temperature_follows_the_wanted_entropy():
    for entropy, rises in ((3.0, True), (-9.0, False)):
        policy = make(entropy=entropy)
        for _ in range(3):
            metrics = policy.update(batch_for(policy))
        assert (metrics["temperature"] > 0.1) == rises


def test_a_compiled_update_equals_an_eager_one(monkeypatch):
    """Traced as one graph, without the code generation that takes tens of seconds."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    eager, compiled = make(), make(compile=True)
    for seed in range(2):
        one, other = (policy.update(batch_for(policy, seed=seed)) for policy in (eager, compiled))
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name, tensor in weights_of(eager).items():
        torch.testing.assert_close(tensor, weights_of(compiled)[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_learning_reaches(point_reach, reached, precision):
    policy = make(compile=True, precision=precision, weights=(1.0, 0.2))
    train_sac(policy, point_reach(), 3800, seed=0, updates_per_step=0.1)
    assert reached(policy) > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_does_not(point_reach):
    trained = []
    for seed in (0, 0, 1):
        torch.rand(seed + 1)  # nothing may depend on the global stream
        policy = make(seed=seed)
        train_sac(policy, point_reach(), 1280, seed=7, updates_per_step=0.02, random_steps=300)
        policy.predict(np.zeros((3, 4), np.float32))
        trained.append(weights_of(policy))
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
    assert not all(torch.equal(tensor, trained[2][name]) for name, tensor in trained[0].items())


def test_practice_interrupted_and_reloaded_is_bit_identical(point_reach, tmp_path):
    env, policy = point_reach(), make(replay_size=1500)
    settings = {"iteration_length": 10, "updates_per_step": 0.03, "random_steps": 640}
    first = train_sac(policy, env, 1600, seed=3, **settings)
    policy.save_training(tmp_path / "checkpoint")
    env_then = copy.deepcopy(env)
    straight = train_sac(policy, env, 960, observation=first.observation, **settings)
    resumed = MultiCriticSAC.load_training(tmp_path / "checkpoint")
    assert len(resumed.replay) == 1500 and resumed.steps == 1600
    again = train_sac(resumed, env_then, 960, observation=first.observation, **settings)
    assert straight.metrics == again.metrics
    assert not changed(weights_of(policy), resumed)
    for name, array in policy.training_arrays().items():
        np.testing.assert_array_equal(array, resumed.training_arrays()[name])


def test_a_saved_policy_predicts_the_same(point_reach, tmp_path):
    policy = make(discounts=(0.97, 0.8), weights=(1.0, 0.3))
    result = train_sac(policy, point_reach(), 1280, seed=0, updates_per_step=0.02, random_steps=300)
    policy.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, MultiCriticSAC) and loaded.config == policy.config
    for deterministic in (True, False):
        policy.seed(5)
        loaded.seed(5)
        a, _ = policy.predict(result.observation, deterministic=deterministic)
        b, _ = loaded.predict(result.observation, deterministic=deterministic)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32 and np.abs(a).max() <= 1
    assert torch.equal(policy.values(result.observation, a), loaded.values(result.observation, b))


def test_practice_stops_when_told_and_learns_nothing_before_its_random_steps(point_reach):
    policy = make()
    before = weights_of(policy)
    result = train_sac(policy, point_reach(), 10_000, lambda m: m["iteration"] == 1, 10, seed=0)
    assert len(result.metrics) == 2 and result.steps == 2 * 10 * 32
    assert result.metrics[-1]["updates"] == 0 and changed(before, policy) == {"norm", "scale"}


def test_a_replay_forgets_the_oldest_and_keeps_true_last_observations():
    replay = Replay(5, 1, 1, 2)
    no, yes, zeros = np.zeros(2, bool), np.ones(2, bool), np.zeros((2, 1), np.float32)
    for step in range(4):
        here = np.full((2, 1), step, np.float32)
        last = np.array([None, np.array([90.0 + step])], dtype=object)
        replay.add(here, zeros, np.full((2, 2), step), no, yes & [False, step == 3], here + 1, last)
    assert len(replay) == 5 and sorted(replay.table[:, 0].tolist()) == [1, 2, 2, 3, 3]
    drawn = replay.sample(1000, torch.Generator().manual_seed(0))
    assert set(drawn.observations.flatten().tolist()) == {1.0, 2.0, 3.0}
    assert set(drawn.next_observations.flatten().tolist()) == {2.0, 3.0, 4.0, 93.0} and not drawn.terminated.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "mean"}, "valid: multi, sum"),
        ({"precision": "float16"}, "valid: float32, bfloat16"),
        ({"reward_names": ()}, "reward_names is empty"),
        ({"reward_names": ("a", "a")}, "must differ"),
        ({"weights": (1.0, 2.0, 3.0)}, "weights has 3 entries; expected 1 or 2"),
        ({"weights": (0.0, 0.0)}, "not all 0"),
        ({"weights": (1.0, -1.0)}, "at least 0"),
        ({"weights": (1.0, math.nan)}, "finite"),
        ({"discounts": (0.9, 1.0)}, r"\[0, 1\)"),
        ({"discounts": (-0.1,)}, r"\[0, 1\)"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"target_rate": 2.0}, "target_rate must lie"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_misuse_is_refused_in_one_sentence(point_reach):
    policy = make()
    with pytest.raises(ValueError, match=r"expected \(n, 4\)"):
        policy.predict(np.zeros((2, 5), np.float32))
    with pytest.raises(ValueError, match="replay is empty"):
        policy.update()
    now, no, yes = np.zeros((1, 4), np.float32), np.zeros(1, bool), np.ones(1, bool)
    action = policy.act(now)
    with pytest.raises(ValueError, match=r"shape \(1, 3\); expected \(1, 2\)"):
        policy.remember(now, action, np.zeros((1, 3)), no, no, now)
    with pytest.raises(ValueError, match="final_obs"):
        policy.remember(now, action, np.zeros((1, 2)), no, yes, now)
    with pytest.raises(ValueError, match="not finite"):
        policy.remember(now, action, np.array([[0.0, np.nan]]), no, no, now)
    batch = batch_for(policy)
    with pytest.raises(ValueError, match="not finite"):
        policy.update(batch._replace(rewards=batch.rewards * math.nan))
    assert len(policy.replay) == policy.steps == 0
    with pytest.raises(ValueError, match="does not fit"):
        train_sac(make(replay_size=4), point_reach(), 100, seed=0)
    with pytest.raises(ValueError, match="updates_per_step"):
        train_sac(policy, point_reach(), 100, updates_per_step=-1.0, seed=0)
    policy.weights = (0.5, 2.0)
    assert policy.config.weights == (0.5, 2.0)
    with pytest.raises(ValueError, match="weights has 3"):
        policy.weights = (1.0, 1.0, 1.0)
