"""Features: roles instead of names, goals that only speak of things, and hindsight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.goals import Goal
from envs.observations import FEATURES, GOAL_DIM, GROUPS, LIMIT, features, goal_targets, hindsight_features
from envs.predicates import BLOCK, BLOCK_STRIDE, COLUMNS, encode
from envs.vector import TabletopVectorEnv

TWINS = [
    ("lifted(red)", "lifted(blue)"),
    ("placed(red, left)", "placed(blue, left)"),
    ("on(red, blue)", "on(blue, red)"),
    ("left_of(red, blue) & lit(lamp)", "left_of(blue, red) & lit(lamp)"),
    ("in_front_of(red, blue)", "in_front_of(blue, red)"),
]


def look(goal: str, rows: np.ndarray) -> np.ndarray:
    """Features float32[n, FEATURES] of facts rows under a goal."""
    rows = np.atleast_2d(rows)
    n = len(rows)
    codes = encode([Goal.parse(goal).final] * n)
    targets, mask, role = np.zeros((n, GOAL_DIM)), np.zeros((n, GROUPS)), np.zeros(n, np.int64)
    goal_targets(rows, codes.count, codes.codes, codes.place, targets, mask, role)
    out = np.zeros((n, FEATURES), np.float32)
    features(rows, targets, mask, role, out)
    return out


def swapped(rows: np.ndarray) -> np.ndarray:
    """The same facts with the two blocks' names exchanged."""
    out = rows.copy()
    red, blue = slice(BLOCK, BLOCK + BLOCK_STRIDE), slice(BLOCK + BLOCK_STRIDE, BLOCK + 2 * BLOCK_STRIDE)
    out[..., red], out[..., blue] = rows[..., blue], rows[..., red]
    return out


@pytest.fixture(scope="module")
def wandering() -> np.ndarray:
    """Facts of 60 steps of chance on 8 tables, float64[480, NX]."""
    env = TabletopVectorEnv(8, free_starts=True, threads=1)
    env.reset(seed=1)
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(60):
        env.step(rng.uniform(-1, 1, (8, 5)))
        rows.append(env.facts.copy())
    return np.concatenate(rows)


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_swapping_the_blocks_and_the_goal_changes_nothing(wandering, one, other):
    np.testing.assert_array_equal(look(one, wandering), look(other, swapped(wandering)))


def test_the_goal_is_seen_and_says_nothing_of_the_robot(wandering):
    seen = {goal: look(goal, wandering) for goal in ("lifted(red)", "open(drawer)", "lit(lamp)", "placed(red, left)")}
    assert all(np.isfinite(f).all() and np.abs(f).max() <= LIMIT for f in seen.values())
    for goal, found in seen.items():
        for other, there in seen.items():
            assert goal == other or not np.array_equal(found, there)
    robot = slice(0, 14)
    for found in seen.values():
        np.testing.assert_array_equal(found[:, robot], seen["lifted(red)"][:, robot])


def test_what_a_goal_does_not_mention_leaves_no_trace_of_a_target(make_facts):
    row = make_facts()
    codes = encode([Goal.parse("open(drawer)").final])
    targets, mask, role = np.zeros((1, GOAL_DIM)), np.zeros((1, GROUPS)), np.zeros(1, np.int64)
    goal_targets(row[None], codes.count, codes.codes, codes.place, targets, mask, role)
    np.testing.assert_array_equal(mask[0], [0, 0, 1, 0])
    np.testing.assert_allclose(targets[0, :6], [0.45, 0.05, 0.02, 0.55, 0.15, 0.02])
    out = np.zeros((2, FEATURES), np.float32)
    elsewhere = targets[0] + np.array([1, 1, 1, 1, 1, 1, 0, 1])  # all but the drawer's
    features(np.stack([row] * 2), np.stack([targets[0], elsewhere]), mask[[0, 0]], role[[0, 0]], out)
    np.testing.assert_array_equal(out[0], out[1])


def test_hindsight_speaks_of_what_changed_alone(make_facts):
    before = make_facts()
    moved = make_facts(blue=(0.60, 0.15, 0.02), tool=(0.3, 0.3, 0.1))
    np.testing.assert_array_equal(  # where a block went, from where it was: the goal of putting it there
        hindsight_features(before[None], moved[None])[0, :14], look("lifted(red)", before)[0, :14]
    )
    nothing = hindsight_features(before[None], make_facts(tool=(0.3, 0.3, 0.1))[None])
    np.testing.assert_array_equal(nothing, hindsight_features(before[None], before[None]))
    assert not np.array_equal(nothing, hindsight_features(before[None], moved[None]))
    lit = hindsight_features(before[None], make_facts(lamp=1.0)[None])
    np.testing.assert_array_equal(lit, look("lit(lamp)", before))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 479), st.integers(0, 479))
def test_hindsight_does_not_know_names(wandering, a, b):
    x, later = wandering[a : a + 1], wandering[b : b + 1]
    red, blue = (np.linalg.norm(later[:, c : c + 3] - x[:, c : c + 3]) for c in (BLOCK, BLOCK + BLOCK_STRIDE))
    found, twin = hindsight_features(x, later), hindsight_features(swapped(x), swapped(later))
    if red != blue:  # which one moved more is told apart
        np.testing.assert_array_equal(found, twin)
    assert found.shape == (1, FEATURES)
    assert np.isfinite(found).all()


def test_features_do_not_depend_on_the_batch(wandering):
    whole = look("on(red, blue)", wandering)
    for k in (0, 100, 479):
        np.testing.assert_array_equal(look("on(red, blue)", wandering[k])[0], whole[k])
    assert wandering.shape[1] == len(COLUMNS)
