"""Judging from facts alone: truth tables of literals, and whether instructions have been carried out.

An environment judges the goal it runs; these judge any goal on any facts, for relabelling what happened and for
instructions that take several skills.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.goals import Goal, Literal
from envs.predicates import MAX_LITERALS, encode, evaluate

__all__ = ["STATE_LITERALS", "InstructionMonitor", "truth_table"]

STATE_LITERALS: tuple[Literal, ...] = tuple(
    Literal.parse(text)
    for text in (
        "open(drawer)", "closed(drawer)", "lit(lamp)", "holding(red)", "holding(blue)", "lifted(red)", "lifted(blue)",
        "clear(red)", "clear(blue)", "inside(red, drawer)", "inside(blue, drawer)", "on(red, blue)", "on(blue, red)",
        "on(red, cabinet)", "on(blue, cabinet)", "left_of(red, blue)", "left_of(blue, red)", "in_front_of(red, blue)",
        "in_front_of(blue, red)", "next_to(blue, red)",
    )
)  # fmt: skip
"""The literals of the symbolic state: what the planner's operators speak of (positions apart)."""


def truth_table(facts: np.ndarray, literals: Sequence[Literal] = STATE_LITERALS) -> np.ndarray:
    """bool[n, L]: which literals hold on facts float[n, NX]. The place ``anywhere`` is any spot on the table here."""
    facts = np.ascontiguousarray(facts, np.float64)
    table = np.zeros((len(facts), len(literals)), np.bool_)
    for at in range(0, len(literals), MAX_LITERALS):
        chunk = literals[at : at + MAX_LITERALS]
        codes = encode([tuple(chunk)])
        count = np.repeat(codes.count, len(facts))
        distance = np.zeros((len(facts), MAX_LITERALS))
        evaluate(facts, count, np.repeat(codes.codes, len(facts), 0), np.repeat(codes.place, len(facts), 0), distance)
        table[:, at : at + len(chunk)] = distance[:, : len(chunk)] > 0
    return table


class InstructionMonitor:
    """Follows one goal a slot over time; `success` bool[n] latches when the last stage has held for ``hold`` looks.

    A ``placed`` literal counts as held where the block is ``at`` its place and the literal has been true at some
    moment since the instruction was given, since carrying happens once and staying goes on.
    """

    def __init__(self, goals: Sequence[Goal], hold: int = 5):
        self.goals, self.hold = list(goals), hold
        n = len(self.goals)
        self.stage = np.zeros(n, np.int64)
        self.success = np.zeros(n, np.bool_)
        self._held = np.zeros(n, np.int64)
        self._literals = sorted({literal for goal in self.goals for literal in goal.literals})
        self._column = {literal: k for k, literal in enumerate(self._literals)}
        self._carried = np.zeros((n, len(self._literals)), np.bool_)
        self._placed = [k for k, lit in enumerate(self._literals) if lit.predicate == "placed" and lit.positive]
        self._resting = [Literal("at", self._literals[k].args) for k in self._placed]

    def truth(self, facts: np.ndarray) -> np.ndarray:
        """bool[n, L] over the literals of all goals, with what was carried remembered."""
        table = truth_table(facts, self._literals)
        if self._placed:
            self._carried[:, self._placed] |= table[:, self._placed]
            table[:, self._placed] = self._carried[:, self._placed] & truth_table(facts, self._resting)
        return table

    def update(self, facts: np.ndarray) -> np.ndarray:
        """One look at facts float[n, NX]; `success` after it."""
        table = self.truth(facts)
        for slot, goal in enumerate(self.goals):
            if self.success[slot]:
                continue
            stage = goal.stages[self.stage[slot]]
            if all(table[slot, self._column[literal]] for literal in stage):
                self._held[slot] += 1
            else:
                self._held[slot] = 0
            if self._held[slot] >= self.hold:
                self._held[slot] = 0
                if self.stage[slot] == len(goal.stages) - 1:
                    self.success[slot] = True
                else:
                    self.stage[slot] += 1
        return self.success

    def holds(self, facts: np.ndarray, slot: int) -> dict[str, bool]:
        """Text of each literal of a slot's goal → whether it holds now."""
        row = self.truth(facts)[slot]
        return {str(literal): bool(row[self._column[literal]]) for literal in self.goals[slot].literals}
