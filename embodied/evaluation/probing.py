"""Linear probes: how much of what is true of the world a representation tells, to something that can only weigh.

With Z the representations and Y the targets of the training rows, both to mean 0 and Z's columns to deviation 1, the
probe is ridge regression, and its score on held-out rows, for each target, is R²:

    W = (ZᵀZ / n + λI)⁻¹ ZᵀY / n      R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)², ȳ the held-out rows' mean
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Probe", "linear_probe"]


@dataclass(frozen=True, eq=False)
class Probe:
    """What a linear probe found on held-out rows.

    Attributes: ``r2`` float64[T], one a target, nan for a target that does not vary there; ``mean``, their mean
    without these (nan where none varies); ``rows``, how many rows were held out.
    """

    r2: np.ndarray
    mean: float
    rows: int


def linear_probe(
    representations: np.ndarray,
    targets: np.ndarray,
    *,
    ridge: float = 1e-4,
    held_out: float = 0.25,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Probe:
    """R² of targets [n, T] from representations [n, D].

    Args:
        ridge: λ.
        held_out: the share of rows, or of groups, that is kept for scoring, chosen at random by ``seed``.
        groups: [n], for instance each row's episode; a group is held out as a whole. Neighbouring moments of one
            episode hardly differ, so rows alone would flatter every representation.

    Raises ValueError for arrays that do not fit each other, are not finite, or leave one side of the split without
    two rows.
    """
    z, y = np.asarray(representations, np.float64), np.asarray(targets, np.float64)
    if z.ndim != 2 or y.ndim != 2 or len(z) != len(y):
        raise ValueError(f"representations {z.shape} and targets {y.shape} must be (n, D) and (n, T) with the same n")
    if not (np.isfinite(z).all() and np.isfinite(y).all()):
        raise ValueError("representations and targets must be finite")
    if not 0 < held_out < 1 or ridge < 0:
        raise ValueError(f"held_out = {held_out} must lie in (0, 1) and ridge = {ridge} be at least 0")
    tested = _held_out(len(z), held_out, seed, groups)
    if min(tested.sum(), (~tested).sum()) < 2:
        raise ValueError(f"{len(z)} rows leave {tested.sum()} held out of them; both sides need at least 2")
    train, centre = z[~tested], y[~tested].mean(0)
    mean, std = train.mean(0), train.std(0)
    scale = np.where(std > 1e-12 * (1.0 + np.abs(mean)), std, np.inf)  # a column that does not vary tells nothing
    train = (train - mean) / scale
    covariance = train.T @ train / len(train) + ridge * np.eye(z.shape[1])
    moments = train.T @ (y[~tested] - centre) / len(train)
    weights = np.linalg.lstsq(covariance, moments, rcond=None)[0]
    predicted = (z[tested] - mean) / scale @ weights + centre
    actual = y[tested]
    total = np.square(actual - actual.mean(0)).sum(0)
    varies = actual.std(0) > 1e-12 * (1.0 + np.abs(actual).max(0))
    r2 = np.full(y.shape[1], np.nan)
    r2[varies] = 1.0 - np.square(actual - predicted).sum(0)[varies] / total[varies]
    return Probe(r2, float(r2[varies].mean()) if varies.any() else float("nan"), int(tested.sum()))


def _held_out(n: int, share: float, seed: int, groups: np.ndarray | None) -> np.ndarray:
    """bool[n], True for rows that are held out."""
    labels = np.arange(n) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}; expected ({n},), one a row")
    names, member = np.unique(labels, return_inverse=True)
    chosen = np.random.default_rng(seed).permutation(len(names))[: round(share * len(names))]
    return np.isin(member, chosen)
