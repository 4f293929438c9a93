r"""Has a learning curve converged? A slope test for the trend, Wilson's interval for the level.

A curve is evaluations :math:`(s_i, n_i)`, oldest first; the last ``WINDOW`` are judged. The trend is tested
by Cochran and Armitage's test for proportions with scores :math:`t_i = i`,

.. math:: z = \frac{\sum_i t_i (s_i - n_i \bar p)}{\sqrt{\bar p (1-\bar p)\, S}}, \qquad
          S = \sum_i n_i t_i^2 - \frac{(\sum_i n_i t_i)^2}{\sum_i n_i}, \qquad
          \bar p = \frac{\sum s_i}{\sum n_i},

whose numerator over S is the least-squares slope in success rate an evaluation. That no slope is seen is no
proof that there is none, so "converged" also asks for enough evidence: at least ``LEAST`` evaluations and an
interval of the pooled rate no wider than ``WIDTH``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from embodied.curriculum.progress import History
from embodied.skills.statistics import wilson

WINDOW = 8  # evaluations judged
LEAST = 4  # evaluations below which nothing has converged
LEVEL = 0.1  # one-sided level of the slope test
WIDTH = 0.25  # widest Wilson interval of a converged curve


@dataclass(frozen=True)
class Verdict:
    """What a curve shows: rates in 0 … 1, the slope in rate an evaluation, one-sided p-values of its sign."""

    state: str  # "mastered", "improving", "declining", "converged" or "undecided"
    rate: float
    low: float
    high: float
    slope: float
    p_rise: float
    p_fall: float

    @property
    def converged(self) -> bool:
        """No further gain is to be expected from practising as before."""
        return self.state in ("mastered", "converged")


def judge_curve(curve: History, threshold: float = 0.8) -> Verdict:
    """The verdict on a curve; "mastered" where the lower 95 % bound reaches ``threshold``.

    The level is that of the whole window where it is flat, else of the last evaluation.
    """
    window = [(s, n) for s, n in curve if n > 0][-WINDOW:]
    slope, z = _trend(window)
    p_rise, p_fall = NormalDist().cdf(-z), NormalDist().cdf(z)
    moving = len(window) >= LEAST and min(p_rise, p_fall) < LEVEL
    level = window[-1:] if moving else window
    successes, n = sum(s for s, _ in level), sum(n for _, n in level)
    low, high = (float(bound) for bound in wilson(successes, n))
    if n and low >= threshold:
        state = "mastered"
    elif moving:
        state = "improving" if p_rise < p_fall else "declining"
    elif len(window) >= LEAST and high - low <= WIDTH:
        state = "converged"
    else:
        state = "undecided"
    return Verdict(state, successes / n if n else 0.0, low, high, slope, p_rise, p_fall)


def _trend(window: History) -> tuple[float, float]:
    """(slope, z) of Cochran and Armitage's test; zeros where nothing varies."""
    total = sum(n for _, n in window)
    if total == 0:
        return 0.0, 0.0
    rate = sum(s for s, _ in window) / total
    first = sum(n * t for t, (_, n) in enumerate(window))
    spread = sum(n * t * t for t, (_, n) in enumerate(window)) - first**2 / total
    covariance = sum(t * (s - n * rate) for t, (s, n) in enumerate(window))
    variance = rate * (1.0 - rate) * spread
    if spread <= 0 or variance <= 0:
        return 0.0, 0.0
    return covariance / spread, covariance / math.sqrt(variance)
