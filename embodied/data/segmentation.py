"""Where one behaviour ends and the next begins, in episodes that say nothing of it.

A *cut* t is the first step of a new segment, 0 < t < T; cuts of an episode are int64[m], ascending. `surprise_cuts`
finds them from a model's errors at predicting actions: with e_c … e_{t-1} the errors since the last cut c,

    z_t = (e_t - median) / max(1.4826 MAD, floor)      cut where z_t > threshold and t - c >= least

A transition's own errors are no measure of what follows: the first ``settle`` steps after a cut are left out of the
median and the MAD. Baselines: `fixed_cuts`, `random_cuts`, `gripper_cuts`. Quality: `boundary_f1` against `label_cuts`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

__all__ = [
    "boundary_counts", "boundary_f1", "fixed_cuts", "gripper_cuts", "label_cuts", "pooled_f1", "random_cuts",
    "robust_spread", "surprise_cuts",
]  # fmt: skip

TOLERANCE = 5  # steps a cut may be off
NORMAL = 1.4826  # a normal distribution's standard deviation over its MAD
_LEAST = 3  # errors from which a median is taken at all


def robust_spread(values: ArrayLike) -> float:
    """1.4826 times the median absolute deviation; 0 of nothing."""
    array = np.asarray(values, np.float64)
    return float(NORMAL * np.median(np.abs(array - np.median(array)))) if array.size else 0.0


def surprise_cuts(
    errors: ArrayLike, threshold: float, *, least: int = 6, settle: int = 3, floor: float = 1e-9
) -> np.ndarray:
    """Cuts where errors float[T] rise above what they were since the last cut; see the module's docstring.

    Args:
        threshold: robust z-score to exceed.
        least: steps a segment has at least.
        settle: steps after a cut whose errors do not count for the median.
        floor: the smallest spread, in the errors' unit: where nothing varies, nothing small is a surprise.

    Raises ValueError for errors that are not a row of finite numbers, or a setting out of range.
    """
    array = np.ascontiguousarray(errors, np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"errors must be finite numbers in one dimension, not {array.dtype}{list(array.shape)}")
    if least < 1 or settle < 0 or floor <= 0:
        raise ValueError(f"least = {least}, settle = {settle}, floor = {floor}: at least 1, at least 0, above 0")
    return _surprise_cuts(array, float(threshold), least, settle, float(floor))


@njit(cache=True, nogil=True)
def _surprise_cuts(errors, threshold, least, settle, floor):
    found = np.empty(len(errors), np.int64)
    count = last = 0
    for t in range(1, len(errors)):
        if t - last < least or t - last - settle < _LEAST:
            continue
        since = errors[last + settle : t]
        middle = np.median(since)
        spread = max(NORMAL * np.median(np.abs(since - middle)), floor)
        if errors[t] - middle > threshold * spread:
            found[count] = last = t
            count += 1
    return found[:count].copy()


def fixed_cuts(steps: int, period: float) -> np.ndarray:
    """Cuts every ``period`` steps, the first after half of it. ValueError for a period below 1."""
    if period < 1:
        raise ValueError(f"a period of {period} steps cannot be; it is at least 1")
    return np.unique(np.arange(max(1.0, period / 2), steps, period).astype(np.int64))


def random_cuts(steps: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Cuts at every step alike with chance ``rate``. ValueError for a rate outside 0 … 1."""
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"a rate of {rate} cuts a step cannot be; it lies in 0 … 1")
    return 1 + np.flatnonzero(rng.random(max(0, steps - 1)) < rate)


def gripper_cuts(commands: ArrayLike, change: float, least: int = 1) -> np.ndarray:
    """Cuts where gripper commands float[T] differ from the step before by more than ``change``.

    Of changes less than ``least`` steps apart the first counts.
    """
    moments = 1 + np.flatnonzero(np.abs(np.diff(np.asarray(commands, np.float64))) > change)
    return _thinned(moments.astype(np.int64), least)


@njit(cache=True, nogil=True)
def _thinned(moments, least):
    found = np.empty(len(moments), np.int64)
    count = 0
    for t in moments:
        if count == 0 or t - found[count - 1] >= least:
            found[count] = t
            count += 1
    return found[:count].copy()


def label_cuts(labels: np.ndarray) -> np.ndarray:
    """Cuts where labels int[T, k] (or int[T]) change.

    The same behaviour drawn again for the same thing is a new one too, but does not show (about one in sixteen).
    """
    rows = np.asarray(labels).reshape(len(labels), -1)
    return 1 + np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1))


def boundary_counts(found: ArrayLike, true: ArrayLike, tolerance: int = TOLERANCE) -> tuple[int, int, int]:
    """(matched, found, true): how many cuts can be matched one to one, at most ``tolerance`` steps apart."""
    a, b = (np.sort(np.asarray(cuts, np.int64).ravel()) for cuts in (found, true))
    return int(_matched(a, b, tolerance)), len(a), len(b)


@njit(cache=True, nogil=True)
def _matched(a, b, tolerance):
    """The largest matching: on a line, and with one tolerance for all, taking the earliest pair is best."""
    i = j = count = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance:
            count, i, j = count + 1, i + 1, j + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return count


def boundary_f1(found: ArrayLike, true: ArrayLike, tolerance: int = TOLERANCE) -> float:
    """Harmonic mean of precision and recall of an episode's cuts; 1 where there are none and none were found."""
    return pooled_f1(np.array([boundary_counts(found, true, tolerance)]))


def pooled_f1(counts: np.ndarray) -> float:
    """F1 of several episodes together from their `boundary_counts` int[episodes, 3]."""
    matched, found, true = np.asarray(counts).sum(axis=0)
    return float(2.0 * matched / (found + true)) if found + true else 1.0
