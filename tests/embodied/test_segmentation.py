"""Boundaries: where errors jump, baselines, and how cuts are scored."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.data import segmentation as s

CUTS = st.lists(st.integers(1, 60), max_size=6, unique=True)


def noisy(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, steps)


def test_a_jump_in_the_errors_is_a_cut_and_its_aftermath_is_not() -> None:
    errors = noisy(90)
    errors[30:33] += 20.0
    errors[60] += 20.0
    np.testing.assert_array_equal(s.surprise_cuts(errors, 6.0, least=6, settle=3), [30, 60])


def test_the_score_is_relative_to_what_was_since_the_last_cut() -> None:
    errors = np.concatenate([noisy(40), 100.0 * noisy(40, 1), [0.0]])
    wild = s.surprise_cuts(errors, 20.0, settle=0)
    assert len(wild) == 1 and 40 <= wild[0] < 45  # what is wild stays wild: one cut where it begins


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 50.0), st.floats(-5.0, 5.0), st.integers(1, 20), st.integers(0, 8))
def test_cuts_are_ascending_apart_and_do_not_depend_on_the_unit(seed, scale, offset, least, settle) -> None:
    errors = np.random.default_rng(seed).standard_t(2, 120)
    cuts = s.surprise_cuts(errors, 3.0, least=least, settle=settle, floor=1e-6)
    assert (np.diff(np.concatenate([[0], cuts])) >= least).all() and (cuts < 120).all()
    again = s.surprise_cuts(scale * errors + offset, 3.0, least=least, settle=settle, floor=1e-6 * scale)
    np.testing.assert_array_equal(cuts, again)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_a_cut_depends_on_nothing_after_it(seed: int) -> None:
    errors = np.random.default_rng(seed).standard_t(2, 100)
    whole, half = s.surprise_cuts(errors, 3.0), s.surprise_cuts(errors[:50], 3.0)
    np.testing.assert_array_equal(whole[whole < 50], half)


def test_baselines_cut_where_they_say() -> None:
    np.testing.assert_array_equal(s.fixed_cuts(50, 10.0), [5, 15, 25, 35, 45])
    np.testing.assert_array_equal(s.gripper_cuts([1, 1, -1, 1, 1, 1, -1], 0.5), [2, 3, 6])
    np.testing.assert_array_equal(s.gripper_cuts([1, 1, -1, 1, 1, 1, -1], 0.5, least=2), [2, 6])
    cuts = s.random_cuts(100_000, 0.02, np.random.default_rng(0))
    assert 1900 < len(cuts) < 2100 and cuts.min() >= 1 and cuts.max() < 100_000
    labels = np.array([[0, 1], [0, 1], [0, 2], [3, 2], [3, 2]])
    np.testing.assert_array_equal(s.label_cuts(labels), [2, 3])


@pytest.mark.parametrize(
    ("found", "true", "f1"),
    [
        ([10, 30], [10, 30], 1.0),
        ([15, 24], [10, 30], 0.5),  # five off counts, six does not
        ([8, 9, 10, 11], [10], 2 / 5),  # one to one: the others are too many
        ([], [10], 0.0),
        ([], [], 1.0),
    ],
)
def test_f1_in_closed_form(found: list[int], true: list[int], f1: float) -> None:
    assert s.boundary_f1(found, true) == pytest.approx(f1)


@settings(max_examples=80, deadline=None)
@given(CUTS, CUTS, st.integers(0, 6))
def test_matching_is_the_largest_there_is(found: list[int], true: list[int], tolerance: int) -> None:
    short, long = sorted((found, true), key=len)
    best = max(
        sum(abs(a - b) <= tolerance for a, b in zip(short, order, strict=True))
        for order in permutations(long, len(short))
    )
    matched, m, n = s.boundary_counts(found, true, tolerance)
    assert (matched, m, n) == (best, len(found), len(true))
    assert s.boundary_f1(found, true, tolerance) == s.boundary_f1(true, found, tolerance)


@pytest.mark.parametrize(
    "call",
    [
        lambda: s.surprise_cuts([[1.0]], 3.0),
        lambda: s.surprise_cuts([1.0, np.nan], 3.0),
        lambda: s.surprise_cuts([1.0], 3.0, least=0),
        lambda: s.fixed_cuts(10, 0.5),
        lambda: s.random_cuts(10, 1.5, np.random.default_rng(0)),
    ],
)
def test_what_cannot_be_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"must be|at least|cannot be"):
        call()
