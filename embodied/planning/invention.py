"""Predicates invented: what tells apart executions that began in equal abstract states and came out differently.

What can be invented: `embodied.planning.invented`. Executions are compared within strata of equal lifted facts alone.
With y the outcome and m of a stratum's N executions satisfying a separator, the score is Mantel's and Haenszel's

    z = Σ_strata (Σ_satisfying y - m ȳ) / √(Σ_strata m (N - m) / (N - 1) · ȳ (1 - ȳ)).

The greatest abs(z) among all single comparisons, and among all pairs, is searched for on one half of the executions. A
single one stands if the other half agrees: significantly, with a difference in success of at least `GAP`. A pair
is taken instead only if it errs significantly less there than the single one: the smallest separator that will do. The
winner is chosen among thousands, and both halves have a part in its threshold; so it counts for nothing until *fresh*
executions, made after it was chosen, confirm it by the same test.

A language model may rank what has been confirmed and name it (`Naming`); it can neither add a separator nor change one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest

from embodied.planning.invented import DIGITS, QUANTITIES, Comparison, Invented
from embodied.planning.operators import Operator, renaming
from envs.goals import Goal
from envs.vocabulary import BLOCKS, PREDICATES

__all__ = ["Executions", "Naming", "NamingRequest", "executions", "invent"]


GAP = 0.25  # least difference in success, as for preconditions
LEVEL = 0.01  # of every test
THRESHOLDS = 12  # a term is cut at so many quantiles first, and then exactly
CHOICES = 3  # confirmed separators that a language model may choose among
_NAME = re.compile(r"[a-z][a-z_]{2,29}")


# ---- executions


@dataclass(frozen=True)
class Executions:
    """n executions: what their states are equal in (any hashable), the terms' values float64[n, Q], outcome bool[n]."""

    states: tuple[object, ...]
    terms: tuple[Comparison, ...]  # of which the thresholds mean nothing
    values: np.ndarray
    outcome: np.ndarray

    def strata(self) -> np.ndarray:
        """int64[n]: which executions began in equal abstract states."""
        order: dict[object, int] = {}
        return np.array([order.setdefault(state, len(order)) for state in self.states], np.int64)

    def part(self, rows: np.ndarray) -> Executions:
        """The executions of these rows (int64 or bool)."""
        kept = np.arange(len(self.outcome))[rows]
        return replace(
            self, states=tuple(self.states[i] for i in kept), values=self.values[kept], outcome=self.outcome[kept]
        )

    def satisfied(self, comparisons: Iterable[Comparison]) -> np.ndarray:
        """bool[n]: which satisfy all comparisons."""
        column = {(t.quantity, t.args): k for k, t in enumerate(self.terms)}
        return np.all([c.satisfied(self.values[:, column[c.quantity, c.args]]) for c in comparisons], axis=0)

    def __add__(self, other: Executions) -> Executions:
        return replace(
            self,
            states=self.states + other.states,
            values=np.concatenate([self.values, other.values]),
            outcome=np.concatenate([self.outcome, other.outcome]),
        )


def executions(
    operator: Operator, goal: Goal, states: Sequence[Mapping[str, bool]], facts: np.ndarray, outcome: np.ndarray
) -> Executions:
    """Executions of a goal, lifted, from symbolic states and facts float[n, NX] at their start; outcome bool[n].

    The outcome is whatever is to be told apart: success, or an effect. Those whose goal held already are left out.
    """
    names = {variable: name for name, variable in renaming(goal) if name in BLOCKS} or {
        block: block for block in BLOCKS
    }
    terms = tuple(_terms(sorted(names)))
    values = np.stack([term.values(facts, names) for term in terms], axis=1)
    open_ = np.array([not all(literal.holds(state) for literal in goal.final) for state in states], bool)
    lifted = tuple(operator.lift(goal, state) for state in states)
    return Executions(lifted, terms, values, np.asarray(outcome, bool)).part(open_)


def _terms(blocks: Sequence[str]) -> Iterable[Comparison]:
    for name, quantity in QUANTITIES.items():
        if quantity.types == ("drawer",):
            yield Comparison(name, ("drawer",), True, 0.0)
            continue
        pool = list(permutations(blocks, len(quantity.types)))
        for args in pool[:1] if len(quantity.types) == 2 else pool:  # of a pair of blocks one order says all
            yield Comparison(name, args, True, 0.0)


# ---- the search


@dataclass(frozen=True)
class NamingRequest:
    """What a language model is shown: the skill's schema and the confirmed separators, as text."""

    schema: str
    candidates: tuple[str, ...]


Naming = Callable[[NamingRequest], tuple[int, str]]
"""Which of the candidates, and its name. What does not fit is passed over, and the search's own choice stands."""


def invent(
    schema: str,
    found: Executions,
    fresh: Callable[[], Executions],
    *,
    taken: Iterable[str] = (),
    naming: Naming | None = None,
    seed: int = 0,
) -> Invented | None:
    """The smallest confirmed predicate that separates equal abstract states by outcome, or None.

    ``fresh`` makes further executions, of the same terms, once, when there is something to confirm. ``taken`` names are
    not given again. The same executions and seed give the same predicate.
    """
    mixed = _mixed(found)
    if len(mixed.outcome) < 16:
        return None
    order = np.random.default_rng(seed).permutation(len(mixed.outcome))
    one, other = mixed.part(np.sort(order[::2])), mixed.part(np.sort(order[1::2]))
    singles = [(c,) for c in _best_singles(one) if _confirmed((c,), one, other)]
    pair = _best_pair(one)
    chosen = singles[:CHOICES]
    if pair and _confirmed(pair, one, other) and (not chosen or _errs_less(pair, chosen[0], one, other)):
        chosen = [pair]
    if not chosen:
        return None
    exact = [_exact(comparisons, mixed) for comparisons in chosen]
    again = fresh()
    exact = [comparisons for comparisons in exact if _confirmed(comparisons, mixed, again)]
    return _named(schema, exact, set(taken), naming) if exact else None


def _mixed(found: Executions) -> Executions:
    """The executions in whose abstract state both outcomes came about."""
    strata = found.strata()
    if not len(strata):
        return found
    n, hits = np.bincount(strata), np.bincount(strata, found.outcome)
    return found.part(((hits > 0) & (hits < n))[strata])


def _moments(holds: np.ndarray, found: Executions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of separators bool[n, C]: excess successes, their variance, and the excess that a perfect one would have: [C]."""
    strata = found.strata()
    y = found.outcome.astype(np.float64)
    holds = holds.astype(np.float64)
    excess, variance, scale = (np.zeros(holds.shape[1]) for _ in range(3))
    for s in range(strata.max(initial=-1) + 1):
        rows = strata == s
        size, rate = int(rows.sum()), float(y[rows].mean())
        if size < 2:
            continue
        m = holds[rows].sum(0)
        excess += (y[rows] - rate) @ holds[rows]
        variance += m * (size - m) / (size - 1) * rate * (1 - rate)
        scale += m * (size - m) / size
    return excess, variance, scale


def _z(excess: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.where(variance > 1e-9, excess / np.sqrt(np.maximum(variance, 1e-9)), 0.0)


def _cuts(found: Executions) -> list[Comparison]:
    """Every term's comparisons at its quantiles, both ways."""
    cuts = []
    for k, term in enumerate(found.terms):
        levels = np.unique(
            np.round(np.quantile(found.values[:, k], np.arange(1, THRESHOLDS + 1) / (THRESHOLDS + 1)), 9)
        )
        cuts += [replace(term, less=less, threshold=float(level)) for level in levels for less in (True, False)]
    return cuts


def _table(cuts: Sequence[Comparison], found: Executions) -> np.ndarray:
    """bool[n, C]."""
    return np.stack([found.satisfied((cut,)) for cut in cuts], axis=1)


def _best_singles(found: Executions) -> list[Comparison]:
    """The best exact cut of every term, best first; what holds where success is more frequent."""
    cuts = _cuts(found)
    if not cuts:
        return []
    z = _z(*_moments(_table(cuts, found), found)[:2])
    best = []
    for term in found.terms:
        own = [k for k, cut in enumerate(cuts) if (cut.quantity, cut.args) == (term.quantity, term.args) and z[k] > 0]
        if own:
            (exact,) = _exact((cuts[max(own, key=lambda k: z[k])],), found)
            best.append((float(_z(*_moments(_table([exact], found), found)[:2])[0]), exact))
    return [cut for _, cut in sorted(best, key=lambda x: -x[0])]


def _best_pair(found: Executions) -> tuple[Comparison, ...]:
    """The best two comparisons together: what holds where success is more frequent, or where it is less."""
    cuts = _cuts(found)
    if not cuts:
        return ()
    holds, strata, y = _table(cuts, found).astype(np.float64), found.strata(), found.outcome.astype(np.float64)
    excess, variance = np.zeros((len(cuts), len(cuts))), np.zeros((len(cuts), len(cuts)))
    for s in range(strata.max(initial=-1) + 1):
        rows = strata == s
        size, rate = int(rows.sum()), float(y[rows].mean())
        if size < 2:
            continue
        both = holds[rows].T @ holds[rows]
        excess += (holds[rows] * (y[rows] - rate)[:, None]).T @ holds[rows]
        variance += both * (size - both) / (size - 1) * rate * (1 - rate)
    names = [(cut.quantity, cut.args) for cut in cuts]
    same = np.array([[a == b for b in names] for a in names])
    z = np.where(same, 0.0, np.abs(_z(excess, variance)))
    i, j = np.unravel_index(int(z.argmax()), z.shape)
    return _exact((cuts[i], cuts[j]), found) if z[i, j] > 0 else ()


def _exact(comparisons: tuple[Comparison, ...], found: Executions) -> tuple[Comparison, ...]:
    """The same comparisons with the thresholds that separate best, one after the other, midway between executions."""
    column = {(t.quantity, t.args): k for k, t in enumerate(found.terms)}
    for k, one in enumerate(comparisons):
        values = np.unique(found.values[:, column[one.quantity, one.args]])
        middle = np.round((values[1:] + values[:-1]) / 2, DIGITS)
        tried = [one] + [replace(one, threshold=float(level)) for level in np.unique(middle)]
        rest = [c for i, c in enumerate(comparisons) if i != k]
        given = found.satisfied(rest) if rest else np.ones(len(found.outcome), bool)
        z = np.abs(_z(*_moments(_table(tried, found) & given[:, None], found)[:2]))
        best = np.flatnonzero(z >= z.max() - 1e-9)  # of a run of equals the middle one
        comparisons = (*comparisons[:k], tried[int(best[len(best) // 2])], *comparisons[k + 1 :])
    return comparisons


def _confirmed(comparisons: tuple[Comparison, ...], before: Executions, after: Executions) -> bool:
    """Whether executions ``after`` agree with those ``before``: the same sign, significant, and a difference of GAP."""
    sign = np.sign(_moments(before.satisfied(comparisons)[:, None], before)[0][0])
    excess, variance, scale = (float(x[0]) for x in _moments(after.satisfied(comparisons)[:, None], after))
    if variance <= 1e-9 or scale <= 0:
        return False
    return bool(sign * excess / math.sqrt(variance) > NormalDist().inv_cdf(1 - LEVEL) and sign * excess / scale >= GAP)


def _errs_less(
    pair: tuple[Comparison, ...], single: tuple[Comparison, ...], before: Executions, after: Executions
) -> bool:
    right = []
    for comparisons in (pair, single):
        sign = _moments(before.satisfied(comparisons)[:, None], before)[0][0] > 0
        right.append((after.satisfied(comparisons) == sign) == after.outcome)
    better, worse = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return better + worse > 0 and bool(binomtest(better, better + worse, alternative="greater").pvalue < LEVEL)


def _named(
    schema: str, candidates: Sequence[tuple[Comparison, ...]], taken: set[str], naming: Naming | None
) -> Invented:
    which, name = 0, ""
    if naming is not None:
        texts = tuple(" & ".join(map(str, comparisons)) for comparisons in candidates)
        asked = naming(NamingRequest(schema, texts))
        if _fits(asked, len(candidates), taken):
            which, name = asked
    if not name:
        words = [QUANTITIES[c.quantity].less if c.less else QUANTITIES[c.quantity].more for c in candidates[which]]
        name = "_and_".join(words)
        number = 2
        while name in taken or name in PREDICATES:
            name, number = f"{'_and_'.join(words)}_{number}", number + 1
    return Invented(name, candidates[which])


def _fits(asked: object, count: int, taken: set[str]) -> bool:
    """Whether a model's answer is an index among ``count`` and a new name."""
    if not (isinstance(asked, tuple) and len(asked) == 2):
        return False
    which, name = asked
    if type(which) is not int or not 0 <= which < count or not isinstance(name, str):
        return False
    return bool(_NAME.fullmatch(name)) and name not in taken and name not in PREDICATES
