"""Ways of adding rewards up: which of them scale and unit matter to, and multipliers of costs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.multi_critic import RULES, Multipliers, combine_advantages
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig, train_ppo

COSTLY = {"critic": "lagrangian", "costs": ("effort",)}


def make(**changes: Any) -> MultiCriticPPO:
    settings: dict[str, Any] = {
        "observation_size": 4,
        "action_size": 2,
        "reward_names": ("progress", "effort"),
        "hidden": (32, 32),
        "critic_hidden": (32, 32),
        "minibatch": 320,
    }
    return MultiCriticPPO(MultiCriticPPOConfig(**(settings | changes)))


def of(rule: str, **changes: Any) -> MultiCriticPPO:
    return make(**({"critic": rule} | (COSTLY if rule == "lagrangian" else {}) | changes))


def advantages_of(point_reach, scale: np.ndarray, rule: str = "multi", **changes: Any) -> torch.Tensor:
    """The first rollout's combined advantage float32[T n], of rewards times ``scale``."""
    env, policy = point_reach(), of(rule, **changes)
    env.scale = scale
    found: list[torch.Tensor] = []
    evaluate = policy._evaluate

    def listen(rollout):
        out = evaluate(rollout)
        found.append(out[1])
        return out

    policy._evaluate = listen  # type: ignore[method-assign]
    train_ppo(policy, env, 40 * 32, seed=0)
    return found[0]


# -- scales --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-4, 1e4), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.integers(0, 999),
)
@settings(max_examples=50, derandomize=True, deadline=None)
def test_a_floor_in_each_reward_s_unit_knows_no_units(scales, weights, seed):
    advantages = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    units, w = torch.tensor(scales).double(), torch.tensor(weights).double()
    floor = torch.tensor([0.5, 2.0, 0.1]).double()
    base, _ = combine_advantages(advantages, w, floor)
    scaled, _ = combine_advantages(advantages * units, w, floor * units)
    torch.testing.assert_close(base, scaled, atol=1e-5, rtol=1e-5)


def test_a_floor_each_holds_back_only_its_own():
    advantages = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    combined, _ = combine_advantages(advantages, torch.ones(2), torch.tensor([1e-9, 100.0]))
    alone, _ = combine_advantages(advantages[:, :1], torch.ones(1), 1e-9)
    torch.testing.assert_close(combined, alone, atol=0.05, rtol=0)
    never, _ = combine_advantages(advantages, torch.ones(2), torch.tensor([1e-9, torch.inf]))
    torch.testing.assert_close(never, alone)


@pytest.mark.parametrize("factor", [0.1, 10.0, 1e-3])
def test_rescaling_a_reward_leaves_the_combined_advantage_as_it_is(point_reach, factor):
    one, other = np.ones(2), np.array([1.0, factor])
    settings: dict[str, Any] = {"advantage_floor": 0.0, "relative_floor": 0.5}
    base = advantages_of(point_reach, one, **settings)
    torch.testing.assert_close(base, advantages_of(point_reach, other, **settings), atol=2e-4, rtol=0)
    summed = [advantages_of(point_reach, scale, "sum", **settings) for scale in (one, other)]
    if factor > 1:
        assert (summed[0] - summed[1]).abs().max() > 0.1


def test_rescaling_leaves_normalised_rewards_as_they_are(point_reach):
    base, scaled = (
        advantages_of(point_reach, s, "normalized_sum") for s in (np.ones(2), np.array([0.1, 10.0]))
    )  # fmt: skip
    torch.testing.assert_close(base, scaled, atol=1e-3, rtol=0)


def test_an_absolute_floor_does_know_units(point_reach):
    floors: dict[str, Any] = {"advantage_floor": 0.1, "relative_floor": 0.0}
    base, scaled = (advantages_of(point_reach, s, **floors) for s in (np.ones(2), np.array([1.0, 100.0])))
    assert (base - scaled).abs().max() > 0.1


@pytest.mark.parametrize("rule", ["multi", "normalized_sum"])
def test_whole_practice_with_rescaled_rewards_stays_the_same(point_reach, rule):
    outcome = []
    for scale in (np.ones(2), np.array([0.1, 10.0])):
        env, policy = point_reach(), of(rule, advantage_floor=0.0, relative_floor=0.5)
        env.scale = scale
        train_ppo(policy, env, 2560, seed=0)
        outcome.append(torch.nn.utils.parameters_to_vector(policy.networks.actor.parameters()).detach())
    assert (outcome[0] - outcome[1]).norm() < 2e-3 * outcome[0].norm()


def test_a_reward_that_has_never_varied_says_nothing(point_reach):
    """Else the noise of its critic, in a unit as small as the smallest, would count in full."""
    floors: dict[str, Any] = {"advantage_floor": 0.0, "relative_floor": 0.5}
    both = advantages_of(point_reach, np.array([1.0, 0.0]), **floors)
    alone = advantages_of(point_reach, np.array([1.0, 0.0]), weights=(1.0, 0.0), **floors)
    torch.testing.assert_close(both, alone)
    nothing = advantages_of(point_reach, np.zeros(2), **floors)
    assert torch.equal(nothing, torch.zeros_like(nothing))


# -- multipliers ---------------------------------------------------------------------------------------------------


def rewards(cost: float) -> torch.Tensor:
    """Of a rollout in which a step costs as much: [4, 3, 2]."""
    return torch.tensor([1.0, -cost]).expand(4, 3, 2)


def test_multipliers_rise_above_the_limit_and_fall_below_it_to_zero():
    multipliers = Multipliers((False, True), limit=0.1, rate=0.5)
    assert multipliers.value.tolist() == [0.0, 1.0]
    multipliers.observe(rewards(0.5))
    assert multipliers.value.tolist() == pytest.approx([0.0, 1.2])
    multipliers.observe(rewards(0.1))
    assert multipliers.value.tolist() == pytest.approx([0.0, 1.2])
    multipliers.observe(rewards(0.0))
    assert multipliers.value.tolist() == pytest.approx([0.0, 1.15])
    for _ in range(50):
        multipliers.observe(rewards(0.0))
    assert multipliers.value.tolist() == [0.0, 0.0]


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 10))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_multipliers_are_never_negative(costs, limit, rate):
    multipliers = Multipliers((False, True), limit, rate)
    for cost in costs:
        before = multipliers.value[1].item()
        multipliers.observe(rewards(cost))
        after = multipliers.value[1].item()
        assert after >= 0 and multipliers.value[0] == 0
        assert after >= before - 1e-6 if cost >= limit else after <= before + 1e-6


def test_multipliers_weigh_what_is_no_cost_by_its_weight():
    advantages = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    multipliers = Multipliers((False, True), 0.0, 1.0)
    multipliers.value.copy_(torch.tensor([0.0, 3.0]))
    raw = 2 * advantages[:, 0] + 3 * advantages[:, 1]
    found = multipliers.combine(advantages, torch.tensor([2.0, 99.0]))
    torch.testing.assert_close(found, (raw - raw.mean()) / raw.std(correction=0))


def test_a_policy_s_multiplier_follows_its_cost(point_reach):
    for limit, grows in ((0.0, True), (10.0, False)):
        policy = make(**COSTLY, cost_limit=limit)
        train_ppo(policy, point_reach(), 1280, seed=0)
        progress, effort = policy.networks.multipliers.value.tolist()
        assert progress == 0 and (effort > 1) == grows
        assert policy.critic_names == ("progress", "effort")


# -- all rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["normalized_sum", "lagrangian"])
def test_a_point_learns_to_reach(point_reach, reached, rule):
    changes = {"cost_limit": 0.1} if rule == "lagrangian" else {"weights": (1.0, 0.1)}
    policy = of(rule, **changes)
    train_ppo(policy, point_reach(), 30_000, seed=0)
    assert reached(policy) > 0.9


@pytest.mark.parametrize("rule", ["normalized_sum", "lagrangian", "multi"])
def test_practice_interrupted_and_reloaded_is_bit_identical(point_reach, tmp_path, rule):
    env, policy = point_reach(), of(rule, relative_floor=0.5)
    first = train_ppo(policy, env, 1500, seed=3)
    policy.save_training(tmp_path / "checkpoint")
    env_then = copy.deepcopy(env)
    straight = train_ppo(policy, env, 1500, observation=first.observation)
    resumed = MultiCriticPPO.load_training(tmp_path / "checkpoint")
    again = train_ppo(resumed, env_then, 1500, observation=first.observation)
    assert straight.metrics == again.metrics
    for arrays in ("arrays", "training_arrays"):
        one, other = getattr(policy, arrays)(), getattr(resumed, arrays)()
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
    assert ("spread_returns" in policy.training_arrays()) == (rule == "normalized_sum")


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_works_with_one_reward(rule):
    only = {"costs": ("only",)} if rule == "lagrangian" else {}
    policy = make(reward_names=("only",), critic=rule, **only)
    rollout = policy.new_rollout(3, 4)
    now, no = np.zeros((4, 4), np.float32), np.zeros(4, bool)
    while not rollout.full:
        rollout.add(now, *policy.act(now)[:3], -np.arange(4.0)[:, None], no, no, now)
    assert all(np.isfinite(value) for value in policy.update(rollout).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": "mean"}, "valid: multi, sum, normalized_sum, lagrangian"),
        ({"critic": "lagrangian"}, "costs of a lagrangian are some of progress, effort; which it needs"),
        ({"costs": ("effort",)}, "nothing else has"),
        ({"critic": "lagrangian", "costs": ("pain",)}, "'pain' is none of them"),
    ],
)
def test_an_impossible_rule_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
