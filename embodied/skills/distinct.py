"""How many different things were mastered: goals counted so that none is counted twice under another name.

* A goal implied by another counted goal does not count beside it.
* Goals that differ only in the place of ``placed(block, place)`` count once.
* A goal of nothing but ``holding``, ``touching`` and ``at``, which are ways to other goals, does not count.

Goals thus become classes (implying each other, or differing in the place only), ordered by implication
between any of their members. The count is the size of a largest antichain of that order: by Dilworth and
König what a minimum vertex cover of the bipartite graph of strict implications leaves over on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching

UNCOUNTED = ("holding", "touching", "at")
_PREDICATE = re.compile(r"(\w+)\s*\(")
_PLACED = re.compile(r"\bplaced\(\s*([^,()]+?)\s*,[^()]*\)")


def distinct_goals(
    goals: Sequence[str], implies: Callable[[str, str], bool], required: Sequence[str] = ()
) -> list[str]:
    """A largest set of goals of which none implies another, in the order given; it contains the required ones
    present.

    `implies(a, b)` says whether reaching a surely reaches b. Of a class the required goal stands for it, else
    the first given. ValueError where two required goals imply one another: then no such set exists.
    """
    counted = [g for g in dict.fromkeys(goals) if not set(_PREDICATE.findall(g)) <= set(UNCOUNTED)]
    if not counted:
        return []
    wanted = set(required)
    label, above = _classes(counted, implies)
    members: list[list[str]] = [[] for _ in range(len(above))]
    for goal, k in zip(counted, label, strict=True):
        members[k].append(goal)
    chosen = [min(group, key=lambda g: (g not in wanted, counted.index(g))) for group in members]
    fixed = np.array([goal in wanted for goal in chosen])
    clash = np.argwhere(above & fixed[:, None] & fixed[None, :])
    if len(clash):
        a, b = (chosen[k] for k in clash[0])
        raise ValueError(f"'{a}' and '{b}' are both required, but the first implies the second; require one of them")
    free = np.flatnonzero(~fixed & ~(above | above.T)[:, fixed].any(axis=1))
    kept = {*np.flatnonzero(fixed).tolist(), *free[_largest_antichain(above[np.ix_(free, free)])].tolist()}
    return sorted((chosen[k] for k in kept), key=counted.index)


def _classes(goals: list[str], implies: Callable[[str, str], bool]) -> tuple[np.ndarray, np.ndarray]:
    """Class of each goal int[n], and whether a class lies strictly above another, bool[classes, classes]."""
    keys = [_PLACED.sub(r"placed(\1, *)", goal) for goal in goals]
    edges = np.array([[a == b or implies(g, h) for h, b in zip(goals, keys, strict=True)]
                      for g, a in zip(goals, keys, strict=True)])  # fmt: skip
    count, label = connected_components(csr_array(edges), directed=True, connection="strong")
    above = np.zeros((count, count), bool)
    i, j = np.nonzero(edges)
    above[label[i], label[j]] = True
    np.fill_diagonal(above, False)
    for k in range(count):  # transitive closure
        above |= above[:, k, None] & above[None, k]
    return label, above


def _largest_antichain(above: np.ndarray) -> np.ndarray:
    """Positions (int) of a largest antichain of a strict order bool[n, n] that is transitively closed."""
    n = len(above)
    if n == 0:
        return np.zeros(0, np.int64)
    partner = maximum_bipartite_matching(csr_array(above), perm_type="row")  # of each right vertex: its left one
    left, right = np.ones(n, bool), np.zeros(n, bool)
    left[partner[partner >= 0]] = False  # reached by alternating paths from the unmatched left vertices
    frontier = np.flatnonzero(left)
    while len(frontier):
        fresh = above[frontier].any(axis=0) & ~right
        right |= fresh
        partners = partner[fresh]
        frontier = np.unique(partners[(partners >= 0)])
        frontier = frontier[~left[frontier]]
        left[frontier] = True
    return np.flatnonzero(left & ~right)
