"""A policy behind a view: what it sees, what it is told, and that it is kept whole."""

from __future__ import annotations

import numpy as np
import pytest

from policies import load_policy
from policies.base import State
from policies.flow_bc import FlowBC, FlowBCConfig
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig
from policies.viewed import Viewed


def small(features: int) -> MultiCriticPPO:
    config = MultiCriticPPOConfig(
        features, 2, ("task",), weights=(1.0,), discounts=(0.9,), hidden=(8,), critic_hidden=(8,)
    )
    return MultiCriticPPO(config)


def test_it_acts_on_the_columns_in_their_order_with_the_code_beside_them():
    inner, rows = small(4), np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    told = Viewed(inner, 6, (4, 0), (0.6, -0.8))
    seen = np.concatenate([rows[:, [4, 0]], np.tile(np.array([0.6, -0.8], np.float32), (5, 1))], axis=1)
    np.testing.assert_array_equal(told.predict(rows, deterministic=True)[0], inner.predict(seen, deterministic=True)[0])


def test_a_code_that_points_is_the_direction_of_its_columns():
    inner, rows = small(4), np.zeros((3, 6), np.float32)
    rows[0, [1, 2]] = (3.0, 4.0)
    rows[1, [1, 2]] = (30.0, 40.0)
    points = Viewed(inner, 6, (0, 5), towards=(1, -1))
    seen = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(
        points.predict(rows, deterministic=True)[0], inner.predict(seen, deterministic=True)[0], atol=1e-6
    )


def test_it_is_kept_whole_and_carries_the_state_of_what_it_holds(tmp_path):
    inner = FlowBC(FlowBCConfig(3, 2, chunk=4, execute=2, hidden=(8,)))
    view = Viewed(inner, 5, (4, 2, 0))
    view.save_pretrained(tmp_path / "view")
    again = load_policy(tmp_path / "view")
    rng = np.random.default_rng(1)
    state: State | None = None
    other: State | None = None
    for _ in range(5):
        rows = rng.normal(size=(3, 5)).astype(np.float32)
        action, state = view.predict(rows, state, deterministic=True)
        same, other = again.predict(rows, other, deterministic=True)
        np.testing.assert_array_equal(action, same)
    assert state is not None and "position" in state
    assert (again.observation_size, again.action_size) == (5, 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"columns": (0, 1)}, "do not make the 4 features"),
        ({"columns": (0, 1, 2, 6)}, r"columns must lie in 0 … 5"),
        ({"columns": (0, 1), "code": (1.0, 0.0), "towards": (2, 3)}, "not both"),
        ({"columns": (0, 1), "towards": (2, -2)}, r"towards must lie in -1 … 5"),
        ({"columns": (0, 1), "code": (1.0, np.nan)}, "finite"),
    ],
)
def test_what_does_not_fit_is_said(given, words):
    with pytest.raises(ValueError, match=words):
        Viewed(small(4), 6, **given)
    with pytest.raises(ValueError, match="must name its policy"):
        Viewed.build({"columns": [0]})
