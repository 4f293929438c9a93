"""Intervals: Wilson's for a success rate, the bootstrap and the interquartile mean across runs.

Wilson's interval inverts the score test: it holds the rates p with n(p̂ - p)² ≤ z² p(1 - p), that is

[p̂ + z²/2n ± z √(p̂(1 - p̂)/n + z²/4n²)] / (1 + z²/n).

Hence ``lower >= p`` exactly when p̂ ≥ p and n(p̂ - p)² ≥ z² p(1 - p), which needs no square root and is what
the library's SQL uses.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


def quantile(confidence: float = CONFIDENCE, side: str = "two") -> float:
    """The normal quantile z of a confidence level: 1.96 for two sides at 0.95, 1.645 for one."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
    if side not in ("two", "lower", "upper"):
        raise ValueError(f"unknown side '{side}' of an interval; the sides are two, lower, upper")
    return NormalDist().inv_cdf((1 + confidence) / 2 if side == "two" else confidence)


def wilson(
    successes: ArrayLike, n: ArrayLike, confidence: float = CONFIDENCE, side: str = "two"
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval (lower, upper) of a success rate, broadcast over both arguments; (0, 1) where n is 0.

    `side` "two" bounds both ends at the confidence together; "lower" and "upper" put all of it on one end and
    return 0 or 1 for the other. ValueError where successes are not between 0 and n.
    """
    k, count = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    if np.any(~((k >= 0) & (k <= count))):
        raise ValueError(f"successes must lie between 0 and n; got {successes} of {n}")
    z2 = quantile(confidence, side) ** 2
    trials = np.maximum(count, 1.0)
    rate = k / trials
    centre = rate + z2 / (2 * trials)
    spread = np.sqrt(z2 * (rate * (1 - rate) / trials + z2 / (4 * trials**2)))
    scale = 1 + z2 / trials
    lower = np.where((k == 0) | (side == "upper"), 0.0, (centre - spread) / scale)
    upper = np.where((k == count) | (side == "lower"), 1.0, (centre + spread) / scale)
    return lower, upper


def interquartile_mean(values: ArrayLike, axis: int = -1) -> np.ndarray:
    """Mean of the middle half along an axis: floor(n/4) of the values cut off at either end."""
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    n = ordered.shape[axis]
    if n == 0:
        raise ValueError("the interquartile mean of no values is undefined; pass at least one")
    cut = n // 4
    return np.take(ordered, np.arange(cut, n - cut), axis=axis).mean(axis=axis)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., np.ndarray] = interquartile_mean,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of a statistic of runs.

    values float[runs] or float[runs, tasks]; with tasks, the runs of each task are drawn anew on their own
    (stratified) and the statistic is taken over all of them. `statistic(array, axis=-1)` reduces the last
    axis.
    """
    table = np.asarray(values, np.float64)
    if table.ndim not in (1, 2) or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"the bootstrap needs finite values of shape [runs] or [runs, tasks], not {table.shape}")
    table = table.reshape(table.shape[0], -1)
    runs, tasks = table.shape
    rows = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
    drawn = np.take_along_axis(table[None], rows, axis=1).reshape(resamples, runs * tasks)
    low, high = np.quantile(statistic(drawn, axis=-1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
