"""Intervals, against scipy and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, trim_mean

from embodied.skills.statistics import bootstrap_interval, interquartile_mean, quantile, wilson

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    for side, alternative in {"two": "two-sided", "lower": "greater", "upper": "less"}.items():
        expected = binomtest(k, n, alternative=alternative).proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose(wilson(k, n, confidence, side), tuple(expected), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_wilson_is_ordered_symmetric_and_monotonic(count: tuple[int, int]) -> None:
    k, n = count
    lower, upper = wilson(k, n)
    assert 0 <= lower <= k / n <= upper <= 1
    np.testing.assert_allclose(wilson(n - k, n), (1 - upper, 1 - lower), atol=1e-12)
    assert wilson(k, n, side="lower")[0] >= lower and wilson(k, n, 0.99)[0] <= lower
    assert wilson(min(k + 1, n), n)[0] >= lower and wilson(2 * k, 2 * n)[0] >= lower


def test_wilson_takes_arrays_and_no_episodes() -> None:
    lower, upper = wilson([[0], [200]], [200, 400])
    assert lower.shape == upper.shape == (2, 2)
    assert lower[0].tolist() == [0, 0] and upper[1, 0] == 1 and lower[1, 1] < 0.5 < upper[1, 1]
    assert [float(x) for x in wilson(0, 0)] == [0.0, 1.0]
    for k, n in ((3, 2), (-1, 2), (np.nan, 2)):
        with pytest.raises(ValueError, match="between 0 and n"):
            wilson(k, n)
    with pytest.raises(ValueError, match="two, lower, upper"):
        wilson(1, 2, side="both")


def test_what_the_interval_promises_holds() -> None:
    n = 200
    for p in (0.5, 0.8, 0.95):
        k = np.arange(n + 1)
        lower, upper = wilson(k, n)
        covered = binom.pmf(k, n, p)[(lower <= p) & (p <= upper)].sum()
        assert 0.93 < covered < 0.97  # Wilson holds its level on average, not at every rate
    assert quantile() == pytest.approx(1.959964, abs=1e-6)
    assert quantile(side="lower") == pytest.approx(1.644854, abs=1e-6)


def test_interquartile_mean_is_the_trimmed_mean() -> None:
    values = np.random.default_rng(0).normal(size=(6, 11))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=1))
    np.testing.assert_allclose(interquartile_mean(values, axis=0), trim_mean(values, 0.25, axis=0))
    assert interquartile_mean([0.0, 1.0, 1.0, 100.0]) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(size=30), np.mean, resamples=400, seed=trial)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_is_seeded_stratified_and_refuses_nonsense() -> None:
    table = np.random.default_rng(1).normal(size=(5, 3)) * 0.01 + [0.0, 5.0, 10.0]
    low, high = bootstrap_interval(table, np.mean, seed=3)
    assert (low, high) == bootstrap_interval(table, np.mean, seed=3)
    assert low < table.mean() < high and high - low < 0.05  # the tasks' differences are no noise
    for bad in ([], [np.nan, 1.0], np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="finite values of shape"):
            bootstrap_interval(bad)
