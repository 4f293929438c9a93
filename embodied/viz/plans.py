"""Latent plans to look at: a point a plan, on the two axes along which plans differ most, coloured by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embodied.viz.canvas import CARD, FAINT, LINE, Canvas, hue_colour

__all__ = ["plan_map", "principal"]

_SIDE, _GAP, _HEAD, _KEY = 420, 18, 34, 16  # pixels: of a map, between maps, above them, a line of the key
_DOT = 3.0


def principal(plans: np.ndarray) -> tuple[np.ndarray, float]:
    """Plans float[n, P] on their first two principal axes, float64[n, 2], and the share of all variance there.

    ValueError for fewer than two plans, or numbers that are not finite.
    """
    plans = np.asarray(plans, np.float64)
    if plans.ndim != 2 or len(plans) < 2 or not np.isfinite(plans).all():
        raise ValueError(f"two finite plans [n, P] at least are needed, not {plans.shape}")
    centred = plans - plans.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = np.vstack([axes, np.zeros((max(0, 2 - len(axes)), plans.shape[1]))])[:2]
    return centred @ axes.T, float((sizes[:2] ** 2).sum() / max(1e-12, (sizes**2).sum()))


def plan_map(plans: Mapping[str, np.ndarray], which: np.ndarray, tasks: Sequence[str]) -> NDArray[np.uint8]:
    """A picture uint8[H, W, 3]: a map for each kind of plans float[n, P], their tasks' colours by ``which`` int[n].

    Each map has axes of its own. ValueError as `principal`.
    """
    rows = -(-len(tasks) // 3)
    width = _GAP + len(plans) * (_SIDE + _GAP)
    canvas = Canvas(width, _HEAD + _SIDE + _GAP + rows * _KEY + _GAP)
    for number, (name, found) in enumerate(plans.items()):
        spots, share = principal(found)
        left = _GAP + number * (_SIDE + _GAP)
        canvas.text((left, 10), f"{name}: {share:.0%} of their variance is seen", 13)
        canvas.box((left, _HEAD), (left + _SIDE, _HEAD + _SIDE), CARD, LINE)
        low, high = spots.min(0), spots.max(0)
        scaled = (spots - low) / np.maximum(1e-9, high - low)
        for (x, y), task in zip(scaled, which, strict=True):
            at = left + 12 + x * (_SIDE - 24), _HEAD + 12 + (1.0 - y) * (_SIDE - 24)
            canvas.dot(at, _DOT, hue_colour(task / len(tasks)))
    for k, task in enumerate(tasks):
        column, row = divmod(k, rows)
        x, y = _GAP + column * (width - 2 * _GAP) / 3, _HEAD + _SIDE + _GAP + row * _KEY
        canvas.dot((x + 5, y + 7), 4, hue_colour(k / len(tasks)))
        canvas.text((x + 14, y), task.replace("_", " "), 11, FAINT)
    return canvas.image()
