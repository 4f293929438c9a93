"""What separates success from failure: small conjunctions of literals, found in counts, with confidence.

Executions arrive as distinct start states with counts: ``starts`` bool[R, L], ``successes`` and ``failures``
int[R]. A signed literal is ``(column, sign)``. Two searches, both deterministic:

- `precondition`: greedy. A literal is taken when the lower Wilson bound of the success rate with it exceeds
  the upper bound without it, the rates differ by at least ``GAP``, success without it is not the rule
  (upper bound at most ``HOPELESS``: what merely works less often there stays allowed, at its price), and no
  second literal makes up for its absence; among those the widest margin wins. The choice is repeated among
  the executions that satisfy what was taken, up to ``size`` literals; then every literal that no longer
  separates anything, given the others, is taken out again, so the conjunction is a smallest one.
- `failing_contexts`: sequential covering. Single literals, then pairs, under which success is, with
  confidence, less than half as frequent as overall. A precondition cannot say "in the drawer while it is
  closed"; this can, and it forbids no more: "in the drawer" alone is neither a missing precondition nor a
  context, since success there is not rare once the drawer is open.

About a hundred signed literals are compared at once. Two one-sided 99 % bounds that do not overlap reject at
a level of about 0.0005, which keeps the chance of a spurious literal per search near 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodied.skills.statistics import wilson

CONFIDENCE = 0.98  # two-sided: 99 % on each side
GAP = 0.25  # smaller differences of success rates are no precondition
HOPELESS = 0.6  # success without a precondition is confidently rarer than this
CONTEXTS = 6  # failing contexts kept

Signed = tuple[int, bool]


def precondition(
    starts: np.ndarray,
    successes: np.ndarray,
    failures: np.ndarray,
    order: Sequence[Signed],
    size: int = 3,
) -> list[Signed]:
    """Smallest conjunction of at most ``size`` literals that separates success from failure; may be empty.

    ``order`` lists the literals to choose from, the preferred ones first among equals.
    """
    chosen: list[Signed] = []
    rows = np.ones(len(starts), bool)
    while len(chosen) < size:
        best = _best(starts[rows], successes[rows], failures[rows], order)
        if best is None:
            break
        chosen.append(best)
        rows &= starts[:, best[0]] == best[1]
    for literal in list(chosen):
        others = [x for x in chosen if x != literal]
        rows = satisfied(starts, others)
        if _best(starts[rows], successes[rows], failures[rows], [literal]) is None:
            chosen = others
    return chosen


def satisfied(starts: np.ndarray, literals: Sequence[Signed]) -> np.ndarray:
    """bool[R]: the start states in which every literal holds."""
    rows = np.ones(len(starts), bool)
    for column, sign in literals:
        rows &= starts[:, column] == sign
    return rows


def _best(starts: np.ndarray, successes: np.ndarray, failures: np.ndarray, order: Sequence[Signed]) -> Signed | None:
    if not len(order) or not len(starts):
        return None
    columns = [column for column, _ in order]
    signs = np.array([sign for _, sign in order])
    holds = starts[:, columns] == signs  # bool[R, len(order)]
    trials = successes + failures
    hits, n = successes @ holds, trials @ holds
    misses, rest = successes.sum() - hits, trials.sum() - n
    lower, _ = wilson(hits, n, CONFIDENCE)
    _, upper = wilson(misses, rest, CONFIDENCE)
    rate = hits / np.maximum(n, 1)
    gap = rate - misses / np.maximum(rest, 1)
    margin = np.where((n > 0) & (rest > 0) & (gap >= GAP) & (upper <= HOPELESS), np.round(lower - upper, 9), -1.0)
    for best in np.argsort(-margin, kind="stable"):  # the first of equals first
        if margin[best] <= 0:
            return None
        without = ~holds[:, best]
        spared = _lower(holds[without], successes[without], failures[without])
        if spared.max(initial=0.0) < rate[best] / 2:
            return order[int(best)]
    return None


def _lower(holds: np.ndarray, successes: np.ndarray, failures: np.ndarray) -> np.ndarray:
    """Lower bound of the success rate under each literal, float64[len(order)]."""
    return wilson(successes @ holds, (successes + failures) @ holds, CONFIDENCE)[0]


def failing_contexts(
    starts: np.ndarray, successes: np.ndarray, failures: np.ndarray, order: Sequence[Signed]
) -> list[tuple[tuple[Signed, ...], int, int]]:
    """Contexts of one or two literals that make failure the rule: (literals, failures, trials)."""
    found: list[tuple[tuple[Signed, ...], int, int]] = []
    total = int((successes + failures).sum())
    if not total or not len(order):
        return found
    rate = float(successes.sum()) / total
    columns = [column for column, _ in order]
    holds = (starts[:, columns] == np.array([sign for _, sign in order])).astype(np.float64)
    left = np.ones(len(starts), bool)
    while len(found) < CONTEXTS:
        context = _widest(holds[left], successes[left], failures[left], rate)
        if context is None:
            break
        literals = tuple(order[i] for i in dict.fromkeys(context))
        rows = left & satisfied(starts, literals)
        found.append((literals, int(failures[rows].sum()), int((successes + failures)[rows].sum())))
        left &= ~rows
    return found


def _widest(holds: np.ndarray, successes: np.ndarray, failures: np.ndarray, rate: float) -> tuple[int, int] | None:
    hits = holds.T @ (successes[:, None] * holds)  # [i, j]: successes with both; the diagonal: with one
    trials = holds.T @ ((successes + failures)[:, None] * holds)
    lower, upper = wilson(hits, trials, CONFIDENCE)
    bad = (trials > 0) & (upper < rate / 2)
    diagonal = np.eye(len(bad), dtype=bool)
    bad[diagonal] &= lower.max(1, initial=0.0) < rate / 2
    for mask in (bad & diagonal, bad & ~diagonal):  # simplest first
        if mask.any():
            i, j = np.unravel_index(int(np.argmax(np.where(mask, trials - hits, -1.0))), bad.shape)
            return int(i), int(j)
    return None
