"""Judging recorded episodes by predicates alone: which goals they reached, and whether one was reached.

Everything here reads truth tables bool[T+1, L] (row 0 is the start); nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from envs.goals import Goal, Literal, all_ground_goals, impossible_reason, schema_of
from envs.vocabulary import SWITCHED


def reached_goals(literals: Sequence[Literal], truth: np.ndarray, pairs: bool = False) -> list[tuple[Goal, int]]:
    """Goals false at the start and true at the end, with the step since which they hold; earliest first.

    Only goals of practised schemas count; with ``pairs``, also conjunctions of two of them that are possible
    and of which neither implies the other.
    """
    practised = {schema_of(goal) for goal in all_ground_goals()}
    found: list[tuple[Goal, int]] = []
    for column, recorded in enumerate(literals):
        both_ways = (True, False) if recorded.predicate in SWITCHED else (True,)
        for same in both_ways:
            goal = Goal.of(recorded if same else recorded.negated)
            holds = truth[:, column] == same
            if not holds[0] and holds[-1] and schema_of(goal) in practised:
                found.append((goal, int(np.flatnonzero(~holds)[-1]) + 1))
    found = sorted(dict(found).items(), key=lambda x: (x[1], str(x[0])))
    both = []
    for (one, first), (other, second) in combinations(found, 2) if pairs else ():
        pair = Goal.of(*one.final, *other.final)
        if impossible_reason(pair) is None and not one.implies(other) and not other.implies(one):
            both.append((pair, max(first, second)))
    return sorted(found + both, key=lambda x: (x[1], len(x[0].literals), str(x[0])))


def reached_at(goal: Goal, literals: Sequence[Literal], truth: np.ndarray, hold: int = 1) -> int | None:
    """Step at which the goal's last stage had held for ``hold`` steps in a row, after each earlier one had.

    None where that never happened; KeyError for a literal of the goal without a column. Stages are looked at
    from step 1 on, one after the other, as the monitor of a running instruction does.
    """
    column = {literal.atom: (i, literal.positive) for i, literal in enumerate(literals)}
    stage = held = 0
    for step in range(1, len(truth)):
        facts = {atom: bool(truth[step, i]) == sign for atom, (i, sign) in column.items()}
        met = True
        for literal in goal.stages[stage]:
            if literal.atom not in facts:
                raise KeyError(literal.atom)
            met = met and literal.holds(facts)
        held = held + 1 if met else 0
        if held >= hold:
            stage, held = stage + 1, 0
            if stage == len(goal.stages):
                return step
    return None
