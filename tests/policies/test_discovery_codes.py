"""The codes that skills are told by, and configurations there cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.discovery import METHODS, PROJECTING, Discovery, DiscoveryConfig


def make(method: str = "lsd", **changes: Any) -> Discovery:
    return Discovery(DiscoveryConfig(method, hidden=(16, 16), **changes))


@given(
    st.sampled_from([m for m in METHODS if m != "dusdi"]),
    st.integers(1, 3),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_codes_are_on_the_unit_sphere_or_one_hot(method, objects, size, discrete, seed):
    if method == "position":
        size, discrete = 0, False
    if discrete and size == 1:
        size = 2
    discovery = make(method, objects=objects, code_size=size, discrete=discrete)
    z = discovery.codes(12, seed)
    assert z.shape == (12, discovery.config.code) and z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(12))
    if discovery.config.is_discrete and method not in PROJECTING:
        assert set(z.unique().tolist()) <= {0.0, 1.0}
    elif discovery.config.is_discrete:
        torch.testing.assert_close(z.sum(dim=1), torch.zeros(12), atol=1e-5, rtol=0)
        distances = torch.cdist(z, z)[torch.cdist(z, z) > 1e-3]  # of any two that differ
        torch.testing.assert_close(distances, torch.full_like(distances, math.sqrt(2 * z.shape[1] / (z.shape[1] - 1))))


def test_dusdi_has_a_one_hot_code_an_object():
    z = make("dusdi", objects=3).codes(40)
    assert z.shape == (40, 15) and set(z.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(z.reshape(40, 3, 5).sum(-1), torch.ones(40, 3))
    assert len(z.reshape(40, 3, 5).argmax(-1).unique(dim=0)) > 20  # drawn apart from one another


def test_codes_of_a_seed_leave_the_stream_of_learning_alone():
    a, b = make(), make()
    torch.testing.assert_close(a.codes(5, seed=3), b.codes(5, seed=3), atol=0, rtol=0)
    assert torch.equal(a.codes(5), b.codes(5)) and not torch.equal(a.codes(5, seed=3), a.codes(5, seed=4))


def test_continuous_codes_point_everywhere():
    z = make("position").codes(2000, 0)
    assert z.mean(dim=0).abs().max() < 0.05
    assert ((z.T @ z) / 2000 - torch.eye(2) / 2).abs().max() < 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dreams"}, "Unknown discovery method 'dreams'; valid: position, lsd, metra, csd, diayn"),
        ({"objects": 0}, "objects = 0: there must be at least one"),
        ({"code_size": -1}, "code_size = -1 must be at least 1, or 0"),
        ({"code_size": 1, "discrete": True}, "code_size = 1 must be at least 2"),
        ({"method": "position", "code_size": 3}, "`position` takes a continuous code with a number for each of its 2"),
        ({"method": "position", "discrete": True}, "`position` takes a continuous code"),
        ({"buffer": 0}, "at least 1"),
        ({"hidden": (16, 0)}, "at least 1"),
        ({"updates": -1}, "updates at least 0"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be a finite number greater than 0"),
        ({"multiplier": -1.0}, "multiplier = -1.0 must be"),
        ({"multiplier_rate": math.nan}, "multiplier_rate = nan must be"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DiscoveryConfig(**changes)
