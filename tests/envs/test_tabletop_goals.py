"""The table's goals in hindsight: the world's own features, in an order that tells the moment from the goal."""

from __future__ import annotations

import numpy as np
import pytest

from envs.observations import FEATURES, hindsight_features
from envs.tabletop_discovery import TabletopDiscovery
from envs.tabletop_goals import GOAL_COLUMNS, STATE_COLUMNS, TabletopGoals
from envs.vector import TabletopVectorEnv


@pytest.fixture(scope="module")
def wandering() -> np.ndarray:
    """Facts of 40 steps of chance on 8 tables, float64[320, NX]."""
    env = TabletopVectorEnv(8, free_starts=True, threads=1)
    env.reset(seed=1)
    rng, rows = np.random.default_rng(1), []
    for _ in range(40):
        env.step(rng.uniform(-1, 1, (8, 5)))
        rows.append(env.facts.copy())
    env.close()
    return np.concatenate(rows)


def test_hindsight_gives_the_features_that_the_flow_learns_from(wandering):
    encoder, rng = TabletopGoals(), np.random.default_rng(0)
    start, goal = rng.integers(0, len(wandering), (2, 200))
    wanted = encoder.hindsight(wandering, start, goal)
    found = encoder.features(wandering[start], wanted)
    expected = hindsight_features(wandering[start], wandering[goal])
    np.testing.assert_array_equal(found, expected[:, encoder.columns])
    assert sorted(encoder.columns) == list(range(FEATURES))
    assert len(STATE_COLUMNS) + len(GOAL_COLUMNS) == FEATURES
    assert set(wanted[:, -1]) == {0.0, 1.0}


def test_the_state_says_nothing_of_the_goal_but_which_block_comes_first(wandering):
    encoder, rng = TabletopGoals(), np.random.default_rng(0)
    start, goal = rng.integers(0, len(wandering), (2, 100))
    wanted = encoder.hindsight(wandering, start, goal)
    found = encoder.features(wandering[start], wanted)
    np.testing.assert_array_equal(found[:, : encoder.state_size], encoder.states(wandering[start], wanted))
    first = wanted[:, -1] == 0
    np.testing.assert_array_equal(found[first, : encoder.state_size], encoder.states(wandering[start][first]))
    still = encoder.features(wandering[start], encoder.hindsight(wandering, start, start))
    assert not still[:, encoder.state_size :].any()
    twice = encoder.states(np.repeat(wandering[start], 3, axis=0), wanted)
    np.testing.assert_array_equal(twice[::3], encoder.states(wandering[start], wanted))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_table_without_a_goal_says_where_things_are_and_how_near_the_tool_came(blocks):
    env = TabletopDiscovery(4, blocks=blocks, max_steps=6, threads=1)
    observation, _ = env.reset(seed=3)
    assert observation.shape == (4, len(STATE_COLUMNS)) and env.single_observation_space.shape == (len(STATE_COLUMNS),)
    assert env.objects.shape == (4, blocks, 3)
    rng = np.random.default_rng(0)
    for step in range(1, 13):
        tool, things = env.facts[:, :3].copy(), env.objects
        near = np.linalg.norm(things - tool[:, None], axis=2).min(axis=1)
        observation, _, terminated, truncated, info = env.step(rng.uniform(-1, 1, (4, 5)))
        assert info["reward_terms"].shape == (4, 3) and info["costs"].shape == (4, 5)
        assert ((info["costs"] >= 0) & (info["costs"] <= 1)).all()
        over = terminated | truncated
        if not over.any():
            now = np.linalg.norm(env.objects - env.facts[:, None, :3], axis=2).min(axis=1)
            np.testing.assert_allclose(info["reward_terms"][:, 0], (near - now) / 0.03)
            np.testing.assert_array_equal(info["objects"], env.objects)
        elif step == 6:
            assert over.all() and info["final_obs"].shape == observation.shape
            assert np.abs(info["objects"] - things).max() < 0.1 < np.abs(env.objects - things).max()
    env.close()
    with pytest.raises(ValueError, match=r"blocks = 4 must lie in 1 … 3: red, blue, drawer"):
        TabletopDiscovery(1, blocks=4)
