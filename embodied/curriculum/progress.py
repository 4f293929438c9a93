r"""Learning progress of a goal: how much its success rate moved between an older and a recent window.

A goal's history is a sequence of evaluations ``(successes, n)``, oldest first. The last ``window``
evaluations are the recent half, the ones before them the older half (shorter histories are cut in the
middle). Each half's rate has the posterior

.. math:: \mathrm{Beta}(s + \kappa m,\; n - s + \kappa(1-m)), \qquad m = \frac{S + 1/2}{N + 1},

whose prior is centred on the rate m of both halves together, with the weight of :math:`\kappa = 2` trials. A
prior at one half would see progress wherever the two halves merely differ in size; this one sees none.
Progress is the difference of the two means (negative when a skill is being forgotten), with a standard
deviation from both posteriors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 5  # evaluations a half
STRENGTH = 2.0  # trials the shared prior is worth

History = Sequence[tuple[int, int]]
"""Evaluations (successes, n) of one goal, oldest first."""


@dataclass(frozen=True)
class Progress:
    """A goal's recent rate, its change, and how sure both are; all in success rates (0 … 1).

    ``uncertainty`` is the standard deviation of the recent rate under a uniform prior: 0.289 for a goal that
    was never tried. ``deviation`` is that of ``change``.
    """

    rate: float
    uncertainty: float
    change: float
    deviation: float

    @property
    def learning(self) -> float:
        """Absolute progress beyond one standard deviation: noise about a constant rate counts as none."""
        return max(0.0, abs(self.change) - self.deviation)


def progress(history: History, window: int = WINDOW) -> Progress:
    """The Progress of a history; ValueError where an evaluation is not 0 <= successes <= n."""
    for successes, n in history:
        if not 0 <= successes <= n:
            raise ValueError(f"{successes} successes of {n} cannot be: 0 <= successes <= n")
    width = min(window, (len(history) + 1) // 2)
    recent = _total(history[len(history) - width :])
    older = _total(history[max(0, len(history) - 2 * width) : len(history) - width])
    rate, uncertainty = _beta(recent[0] + 1.0, recent[1] - recent[0] + 1.0)
    if older[1] == 0 or recent[1] == 0:
        return Progress(rate, uncertainty, 0.0, 0.0)
    shared = (older[0] + recent[0] + 0.5) / (older[1] + recent[1] + 1.0)
    (before, spread), (after, width_after) = (_posterior(*half, shared) for half in (older, recent))
    return Progress(rate, uncertainty, after - before, math.hypot(spread, width_after))


def _total(evaluations: History) -> tuple[int, int]:
    return sum(s for s, _ in evaluations), sum(n for _, n in evaluations)


def _posterior(successes: int, n: int, prior: float) -> tuple[float, float]:
    return _beta(successes + STRENGTH * prior, n - successes + STRENGTH * (1.0 - prior))


def _beta(a: float, b: float) -> tuple[float, float]:
    """Mean and standard deviation of Beta(a, b)."""
    return a / (a + b), math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1.0)))
