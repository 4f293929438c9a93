"""Paired looks at an edit: how much they say, and how many of them are needed.

Base and fork are run on the same starts, so an episode is a pair, and a pair is one of four: both succeed, both fail, a
*fix* (the base fails, the fork succeeds), a *regression* (the other way round). With fix rate a and regression rate b,

    gain Δ = a - b,    discordance d = a + b,    share of fixes among discordant pairs q = a / d,

and Δ > 0 exactly when q > ½. A Dirichlet(1, 1, 1, 1) prior over the four cells gives q | data ~ Beta(1 + fixes,
1 + regressions), whatever the concordant cells hold, so "Dirichlet or Beta" is no choice: both are the same number,

    P(Δ > 0 | data) = P(Bin(fixes + regressions + 1, ½) <= fixes)
                    = 1 - [P(X > fixes) + ½ P(X = fixes)],   X ~ Bin(fixes + regressions, ½),

that is, one less the mid-p value of the exact McNemar test. Hence a threshold 1 - α on the posterior is also a test of
about size α for every d. A threshold of 0.9 alone would let one null edit in ten through.

*Pairs needed* for a gain Δ at level 1 - α and power 1 - β, normal approximation to that test:

    n = ((z_α √d + z_β √(d - Δ²)) / Δ)²,

largest where base and fork are independent at a rate about ½: d = (1 + Δ²)/2 = 0.505 for Δ = 0.1. Nothing is
approximate in `accept_probability`, which sums the two binomials; it is what the documented rates come from.

*The probe* takes half of its episodes from those the base is recorded to fail, half from those it passes. The share of
each among fresh episodes is not a half, so counting fixes less regressions is biased: with a base that succeeds with
0.8, an independent but equal fork shows +0.6 N/2 in expectation, and with 0.3 a fork better by ten points shows a loss.
`Probe.gain` weights both halves by the recorded rate s,

    Δ̂ = (1 - s) · fixes / failing - s · regressions / passing,

which is unbiased, and freed of the base's own variance: for independent forks N Var(Δ̂) = 2 s'(1 - s')(s² + (1 - s)²).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr
from scipy.stats import binom

from embodied.skills.gate import GateError
from embodied.skills.statistics import wilson

__all__ = [
    "Probe", "Recorded", "Sizes", "Task", "accept_probability", "balanced", "fixes_needed", "flipped_rates",
    "pairs_needed", "probability_of_gain", "sample_sizes", "spread",
]  # fmt: skip


class Task(NamedTuple):
    """One episode of an instruction: reset number ``episode`` under ``seed``, the same start for whoever acts."""

    goal: str
    seed: int
    episode: int


@dataclass(frozen=True)
class Recorded:
    """What the base is known to have done in an episode; ``mode`` names how it failed, where that is known."""

    task: Task
    success: bool
    mode: str = ""


def probability_of_gain(fixes: int, regressions: int) -> float:
    """P(Δ > 0 | discordant pairs), exact; ½ where there are none. GateError for negative counts."""
    if fixes < 0 or regressions < 0:
        raise GateError(f"{fixes} fixes and {regressions} regressions cannot be: counts are 0 or more")
    return float(bdtr(fixes, fixes + regressions + 1, 0.5))


@lru_cache(maxsize=64)
def _table(most: int, level: float) -> np.ndarray:
    """int64[most + 1]: `fixes_needed` of every number of discordant pairs up to ``most``."""
    pairs = np.arange(most + 1)
    # P(gain) >= level is Bin(m + 1, ½) <= f with at least that probability: the binomial's own quantile
    return binom.ppf(level, pairs + 1, 0.5).astype(np.int64)


def fixes_needed(discordant: int, level: float) -> int:
    """The fewest fixes among so many discordant pairs with P(Δ > 0) >= level; more than there are where none do."""
    return int(_table(discordant, level)[discordant])


def accept_probability(n: int, gain: float, discordance: float, level: float) -> float:
    """Chance that n pairs of an edit with this true gain and discordance give P(Δ > 0) >= level; exact.

    GateError unless |gain| <= discordance <= 1.
    """
    if not abs(gain) <= discordance <= 1.0:
        raise GateError(f"a gain of {gain} with a discordance of {discordance} cannot be: |gain| <= discordance <= 1")
    if discordance == 0.0:
        return 0.0
    q = min(1.0, max(0.0, 0.5 * (1.0 + gain / discordance)))
    m = np.arange(n + 1)
    return float(binom.pmf(m, n, discordance) @ binom.sf(_table(n, level) - 1, m, q))


def pairs_needed(gain: float, discordance: float, level: float, power: float) -> int:
    """Pairs for P(Δ > 0) >= level with this power, by the formula above; at least the discordance that gain implies."""
    if not 0.0 < gain <= 1.0 or not 0.5 < level < 1.0 or not 0.5 <= power < 1.0:
        raise GateError(
            f"sizes need a gain in 0 … 1, a level in ½ … 1 and a power in ½ … 1, not {gain}, {level}, {power}"
        )
    d = min(1.0, max(discordance, gain))
    z_level, z_power = NormalDist().inv_cdf(level), NormalDist().inv_cdf(power)
    return math.ceil(((z_level * math.sqrt(d) + z_power * math.sqrt(d - gain * gain)) / gain) ** 2)


def independent_discordance(base: float, gain: float) -> float:
    """d of a fork that shares nothing with its base but the starts: the worst that pairing can do."""
    fork = base + gain
    return base * (1.0 - fork) + fork * (1.0 - base)


@dataclass(frozen=True)
class Sizes:
    """Episodes of each stage, and what they are good for in the worst case that they were chosen for."""

    probe: int  # episodes a candidate, half failing and half passing
    confirm: int  # fresh pairs of the winner, at most
    look: int  # fresh pairs of every mastered instruction
    regression: int  # fresh pairs more of each that showed a regression, at most
    false_accept: float  # of an edit without gain, at most
    false_reject: float  # of an edit with exactly the gain asked for, at most
    missed_loss: float  # of a mastered instruction that loses so much, at most


def sample_sizes(
    gain: float = 0.10,
    loss: float = 0.10,
    *,
    level: float = 0.995,
    power: float = 0.97,
    candidates: int = 4,
    mastered: int = 20,
    threshold: float = 0.8,
    false_alarm: float = 0.01,
    selection: float = 0.04,
) -> Sizes:
    """Episodes of each stage for a gain worth having and a loss not to be borne, in the worst case.

    Worst case: base and fork independent, the base at a rate of ½ - gain/2 where it is to gain, at ``threshold`` where
    it must not lose. ``level`` is the confirmation's, ``power`` that of confirmation and regression each;
    ``selection`` is the chance that one of the other ``candidates``, all equal to the base, looks better in the probe;
    ``false_alarm`` is shared out over ``mastered`` instructions.
    """
    base = 0.5 - gain / 2
    d = independent_discordance(base, gain)
    confirm = pairs_needed(gain, d, level, power)
    # difference of two forks on the same balanced episodes, each with N Var = 2 s'(1 - s')(s² + (1 - s)²)
    variance = 2 * (base**2 + (1 - base) ** 2) * (base * (1 - base) + (base + gain) * (1 - base - gain))
    rivals = max(1, candidates - 1)
    probe = 2 * math.ceil((NormalDist().inv_cdf(1 - selection / rivals) / gain) ** 2 * variance / 2)
    alarm = 1 - false_alarm / (mastered + 1)
    d_loss = independent_discordance(threshold, -loss)
    regression = pairs_needed(loss, d_loss, alarm, power)
    look = math.ceil(math.log(1 - power) / math.log(1 - loss))  # a loss breaks at least so many pairs
    accept = max(accept_probability(confirm, 0.0, x, level) for x in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5))
    miss = 1 - accept_probability(regression, loss, d_loss, alarm) + (1 - loss) ** look
    reject = selection + false_alarm + 1 - accept_probability(confirm, gain, d, level)
    return Sizes(probe, confirm, look, regression, accept, reject, miss)


@dataclass(frozen=True)
class Probe:
    """A balanced look at one candidate: counts over episodes that the base failed and passed, and its own rate s."""

    failing: int
    passing: int
    fixes: int
    regressions: int
    invalid: int
    rate: float

    def gain(self, penalty: float = 1.0) -> float:
        """Fixes less regressions, weighted to the base's rate, less the penalty for each invalid episode's share."""
        fixed = (1 - self.rate) * self.fixes / self.failing if self.failing else 0.0
        broken = self.rate * self.regressions / self.passing if self.passing else 0.0
        return fixed - broken - penalty * self.invalid / max(1, self.failing + self.passing)


def balanced(recorded: Sequence[Recorded], n: int, seed: int) -> list[Recorded]:
    """n recorded episodes, half failing and half passing, drawn by the seed; of a half that is short, all there are."""
    order = np.random.default_rng(seed).permutation(len(recorded))
    failing = [recorded[i] for i in order if not recorded[i].success][: n // 2]
    passing = [recorded[i] for i in order if recorded[i].success][: n // 2]
    return failing + passing


def spread(goals: Sequence[str], n: int, seed_of: dict[str, int]) -> list[Task]:
    """n fresh episodes spread evenly over the goals (the first take what is left), numbered from 0 under each seed."""
    share, more = divmod(n, len(goals))
    return [Task(goal, seed_of[goal], i) for k, goal in enumerate(goals) for i in range(share + (k < more))]


def discordance_bound(discordant: int, n: int, confidence: float = 0.9) -> float:
    """An upper bound of the discordance, to size the next look with."""
    return float(wilson(discordant, n, confidence, "upper")[1])


def flipped_rates(gain: float, discordance: float, flips: float) -> tuple[float, float]:
    """(gain, discordance) that are seen where each outcome is flipped with probability ``flips``, independently.

    A gain shrinks by (1 - 2 flips); a pair is seen discordant where it is and none or both were flipped, or is not and
    one was. So a null stays a null, but a loss elsewhere is harder to prove: which is why the gate audits.
    """
    once = 2 * flips * (1 - flips)
    return gain * (1 - 2 * flips), discordance * (1 - once) + (1 - discordance) * once
