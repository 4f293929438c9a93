"""Adapters on a frozen flow: they begin as the base, leave it as it was, and compose as the formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from policies import load_policy
from policies.adapters import MODES, FlowAdapters, Mixture, adapt, compose, policy_hash
from policies.checkpoint import CheckpointError, content_hash
from policies.flow_bc import FlowBC, FlowBCConfig
from policies.networks import MLP
from policies.random import RandomPolicy

FEATURES = np.random.default_rng(5).normal(size=(64, 3)).astype(np.float32)
Learnt = tuple[FlowBC, FlowAdapters, FlowAdapters]


def batch(rng: np.random.Generator, first: float, second: float, size: int = 64) -> dict[str, np.ndarray]:
    """Demonstrations of a constant motion along either axis, the gripper half open."""
    actions = np.broadcast_to(np.array([first, second, 0.2]), (size, 2, 3)) + 0.02 * rng.normal(size=(size, 2, 3))
    return {"features": rng.normal(size=(size, 3)).astype(np.float32), "actions": actions.astype(np.float32)}


def taught(policy: FlowBC, updates: int, first: float, second: float) -> float:
    rng = np.random.default_rng(0)
    policy.start_training(updates)
    return [policy.update(batch(rng, first, second))["loss"] for _ in range(updates)][-1]


def motion(policy: Any) -> np.ndarray:
    """Mean action of the first step."""
    return policy.predict(FEATURES, deterministic=True)[0].mean(0)


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    """A base that stays where it is, and an adapter for a motion along either axis."""
    settings: dict[str, Any] = {"chunk": 2, "execute": 2, "hidden": (48, 48), "learning_rate": 3e-3, "warmup": 20}
    base = FlowBC(FlowBCConfig(feature_size=3, action_size=3, **settings))
    taught(base, 150, 0.0, 0.0)
    adapters = [FlowAdapters.over(base, rank=4, learning_rate=1e-2, seed=seed) for seed in (1, 2)]
    taught(adapters[0], 150, 0.6, 0.0)
    taught(adapters[1], 150, 0.0, 0.6)
    return base, adapters[0], adapters[1]


def test_an_adapter_begins_as_its_base_bit_for_bit(learnt: Learnt) -> None:
    base = learnt[0]
    fresh = FlowAdapters.over(base, rank=3)
    noise = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    assert fresh.sample(FEATURES, noise).tobytes() == base.sample(FEATURES, noise).tobytes()
    network: nn.Module = MLP((3, 8, 2), generator=torch.Generator().manual_seed(0))  # any network of linear layers
    before = network(torch.from_numpy(FEATURES))
    mixture = adapt(network, 3, 2, 4.0, torch.Generator().manual_seed(1))
    mixture.weights = torch.randn(64, 3)
    assert torch.equal(network(torch.from_numpy(FEATURES)), before)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {"0.down", "0.up", "2.down", "2.up"}


def test_the_base_is_the_same_before_and_after_all_learning(learnt: Learnt, tmp_path: Path) -> None:
    base, first, second = learnt
    base.save_pretrained(tmp_path / "base")
    name = content_hash(tmp_path / "base")
    assert policy_hash(base) == name == first.config.base == second.config.base
    for mode in MODES:
        both = FlowAdapters.composition(base, [first, second], mode=mode)
        before = both.arrays()
        taught(both, 10, 0.6, 0.6)
        both.check_base()
        changed = {k for k, a in both.arrays().items() if not np.array_equal(a, before[k])}
        assert changed and all(k.startswith("composer.") for k in changed)  # the adapters stay as they are too
    assert policy_hash(base) == name
    with torch.no_grad():
        next(p for k, p in both.average.named_parameters() if ".linear." in k).view(-1)[0] += 1e-6
    with pytest.raises(CheckpointError, match="are not the base's"):
        both.save_pretrained(tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_parameters_compose_to_the_explicit_sum_of_weights(learnt: Learnt) -> None:
    base, first, second = learnt
    both = FlowAdapters.composition(base, [first, second])
    c = torch.tensor([0.3, -0.8])
    rows = c.expand(64, 2)
    both.average.weights = lambda features: rows[: len(features)]  # type: ignore[method-assign]
    found: Any = both.average.body
    explicit = FlowBC(base.config)
    explicit.load_arrays(base.arrays())
    plain: Any = explicit.average.body
    with torch.no_grad():
        for k in (0, 2, 4):
            layer = found[k]
            total = sum(c[i] * layer.scale * layer.up[i] @ layer.down[i] for i in range(2))
            plain[k].weight += total
    noise = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    np.testing.assert_allclose(both.sample(FEATURES, noise), explicit.sample(FEATURES, noise), atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_one_hot_weights_are_one_adapter_and_none_are_the_base(mode: str, learnt: Learnt) -> None:
    base, first, second = learnt
    noise = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    for c, alone in (((1.0, 0.0), first), ((0.0, 1.0), second), ((0.0, 0.0), base)):
        both = FlowAdapters.composition(base, [first, second], mode=mode)
        both.average.weights = lambda features, c=c: torch.tensor([c]).repeat(len(features), 1)  # type: ignore
        np.testing.assert_allclose(both.sample(FEATURES, noise), alone.sample(FEATURES, noise), atol=2e-5)
    fresh = FlowAdapters.composition(base, [first, second], mode=mode)
    assert np.array_equal(fresh.weights(FEATURES), np.full((64, 2), 0.5, np.float32))  # the mean at first


def test_rows_compose_each_by_their_own_weights() -> None:
    each, c = torch.arange(12.0).reshape(3, 2, 2), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert torch.equal(compose(each, c), torch.stack([each[1, 0], (each[1, 1] + each[2, 1]) / 2]))


@pytest.mark.parametrize("mode", MODES)
def test_a_combination_is_learnt_from_its_demonstrations(mode: str, learnt: Learnt) -> None:
    base, first, second = learnt
    assert np.abs(motion(base)[:2]).max() < 0.15
    np.testing.assert_allclose(motion(first)[:2], [0.6, 0.0], atol=0.12)
    np.testing.assert_allclose(motion(second)[:2], [0.0, 0.6], atol=0.12)
    both = FlowAdapters.composition(base, [first, second], mode=mode, composer=(16,))
    before = np.abs(motion(both)[:2] - 0.6).max()
    taught(both, 120, 0.6, 0.6)
    after = np.abs(motion(both)[:2] - 0.6).max()
    assert after < 0.15 and after < 0.6 * before


def test_what_is_saved_comes_back_on_its_own_base_alone(learnt: Learnt, tmp_path: Path) -> None:
    base, first, second = learnt
    both = FlowAdapters.composition(base, [first, second], mode="score", start=1.0)
    assert both.config.adapters == (policy_hash(first), policy_hash(second))
    taught(both, 3, 0.6, 0.6)
    both.save_pretrained(tmp_path / "both")
    assert content_hash(tmp_path / "both") == policy_hash(both)
    again = FlowAdapters.load(tmp_path / "both", base)
    before, after = (policy.predict(FEATURES, deterministic=True)[0] for policy in (both, again))
    np.testing.assert_array_equal(before, after)
    homeless = load_policy(tmp_path / "both")
    with pytest.raises(CheckpointError, match=r"have no base yet: give them the policy .* by attach"):
        homeless.predict(FEATURES)
    other = FlowBC(base.config)
    with pytest.raises(CheckpointError, match=r"were learnt on the base .* not on"):
        FlowAdapters.load(tmp_path / "both", other)
    assert not any(".linear." in name for name in both.arrays())  # the base is not in it


def test_learning_goes_on_as_if_never_interrupted(learnt: Learnt, tmp_path: Path) -> None:
    for policy in (
        FlowAdapters.over(learnt[0], rank=2),
        FlowAdapters.composition(learnt[0], learnt[1:], mode="action"),
    ):
        rng = np.random.default_rng(3)
        batches = [batch(rng, 0.3, 0.3, 16) for _ in range(24)]
        policy.start_training(24)
        for one in batches[:12]:
            policy.update(one)
        policy.save_training(tmp_path / "half")
        again = FlowAdapters.load_training(tmp_path / "half")
        for one in batches[12:]:
            policy.update(one)
            again.update(one)
        for name, array in policy.arrays().items():
            assert np.array_equal(array, again.arrays()[name]), name
        assert policy.config == again.config or policy_hash(policy) == policy_hash(again)


def test_refusals(learnt: Learnt, tmp_path: Path) -> None:
    base, first, second = learnt
    with pytest.raises(ValueError, match=r"Unknown mode 'weights'; valid: parameter, score, action"):
        FlowAdapters.composition(base, [first], mode="weights")
    with pytest.raises(ValueError, match="at least one adapter"):
        FlowAdapters.composition(base, [])
    with pytest.raises(ValueError, match=r"Adapter 1 has base .* rank 2"):
        FlowAdapters.composition(base, [first, FlowAdapters.over(base, rank=2)])
    with pytest.raises(ValueError, match="Adapter 0 is itself a composition"):
        FlowAdapters.composition(base, [FlowAdapters.composition(base, [first, second])])
    with pytest.raises(ValueError, match=r"put on a 'flow-bc' policy; found 'flow-adapters'"):
        FlowAdapters.over(first)
    with pytest.raises(ValueError, match=r"found 'random'"):
        FlowAdapters.over(RandomPolicy(3, 3))
    with pytest.raises(ValueError, match=r"Unknown entry 'ranks' for an adapter; valid entries: .*rank"):
        FlowAdapters.over(base, ranks=3)
    with pytest.raises(ValueError, match="rank = 0 must be at least 1"):
        FlowAdapters.over(base, rank=0)
    with pytest.raises(ValueError, match="it holds 0"):
        adapt(nn.Sequential(nn.Tanh()), 1, 2, 4.0, torch.Generator())
    assert isinstance(Mixture(), Mixture)
    other = FlowBC(base.config)
    with pytest.raises(CheckpointError, match="were learnt on"):
        FlowAdapters.composition(other, [first, second])
