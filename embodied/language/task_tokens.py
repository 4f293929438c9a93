"""The task model's language: the closed grammar's symbols as tokens, prompts and plans in them, and what may follow.

A prompt is what is known and wanted, a plan the goals of skills in order; a plan kept as a library skill (a `Macro`) is
one word in later plans:

    <facts> closed at red left <lack> lifted <macro> m1 open inside red <goal> inside red ; lit <plan> m1 lit <end>

A literal is its predicate and its arguments. An argument that can be only one thing is not said: ``open`` is
``open(drawer)``, ``left_of red`` with two blocks ``left_of(red, blue)``. Facts that follow from others (``clear``,
``touching``, ``placed`` from ``at``) are not said either. English is read by `envs.instructions` before.

An `Automaton` holds the sequences that are sentences, and a `Follower` walks it for the rows of a batch: whatever a
model samples under its masks parses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from envs.goals import Goal, GoalError, Literal
from envs.vocabulary import OBJECTS, PLACE_NAMES, PREDICATES, SYMMETRIC, names_of

__all__ = [
    "END", "GOAL", "MACROS", "PAD", "PLAN", "TOKENS", "Automaton", "Follower", "Macro", "goal_tokens", "left_padded",
    "literal_tokens", "plan_automaton", "plan_tokens", "prompt_tokens", "read_plan", "right_padded", "text_of", "token",
]  # fmt: skip

MACROS = ("m1", "m2", "m3", "m4")
"""Names under which kept plans stand in a prompt."""
_MARKS = ("<pad>", "<end>", "<facts>", "<lack>", "<macro>", "<goal>", "<plan>", ";", "not")
TOKENS: tuple[str, ...] = (*_MARKS, *PREDICATES, *OBJECTS, *PLACE_NAMES, *MACROS)
_NUMBER = {word: i for i, word in enumerate(TOKENS)}
PAD, END, FACTS, LACK, MACRO, GOAL, PLAN, THEN, NOT = range(len(_MARKS))
UNSAID = frozenset({"clear", "touching", "placed"})  # facts of now that follow from others


@dataclass(frozen=True)
class Macro:
    """A plan kept as a skill: the ground goals of its steps, in order, under one of `MACROS`."""

    name: str
    steps: tuple[Goal, ...]


def token(word: str) -> int:
    """A word's number; KeyError for one outside the vocabulary."""
    return _NUMBER[word]


def text_of(tokens: Iterable[int]) -> str:
    """Words with spaces, padding left out."""
    return " ".join(TOKENS[t] for t in tokens if t != PAD)


@lru_cache(maxsize=64)
def _arguments(predicate: str) -> tuple[tuple[str, ...], ...]:
    """Every way to fill a predicate, things in their order where it is symmetric."""
    ways = [w for w in product(*map(names_of, PREDICATES[predicate])) if len(set(w)) == len(w)]
    if predicate in SYMMETRIC:
        ways = [w for w in ways if list(w) == sorted(w, key=list(OBJECTS).index)]
    return tuple(ways)


@lru_cache(maxsize=4096)
def literal_tokens(literal: Literal) -> tuple[int, ...]:
    """A literal's tokens; GoalError for one that names a thing twice."""
    ways = _arguments(literal.predicate)
    if literal.args not in ways:
        raise GoalError(f"'{literal}' names a thing twice; the task model has no words for it")
    said = [token(literal.predicate)]
    for i, arg in enumerate(literal.args):
        ways = tuple(w for w in ways if w[:i] == literal.args[:i])
        if len({w[i] for w in ways}) > 1:
            said.append(token(arg))
    return (*([] if literal.positive else [NOT]), *said)


def goal_tokens(goal: Goal) -> list[int]:
    """A goal's literals in order, ``;`` between stages."""
    found: list[int] = []
    for i, stage in enumerate(goal.stages):
        found += [THEN] if i else []
        for literal in stage:
            found += literal_tokens(literal)
    return found


@lru_cache(maxsize=4096)
def _skill_tokens(goal: Goal) -> tuple[int, ...]:
    return tuple(goal_tokens(goal))


def plan_tokens(steps: Iterable[Goal | str]) -> list[int]:
    """A plan's steps (goals of skills, or macros' names), and the end."""
    found: list[int] = []
    for step in steps:
        found += [token(step)] if isinstance(step, str) else _skill_tokens(step)
    return [*found, END]


@lru_cache(maxsize=65536)
def _fact_tokens(facts: frozenset[str]) -> tuple[int, ...]:
    literals = [Literal.parse(fact) for fact in facts if fact.split("(")[0] in PREDICATES]
    said = [x for x in literals if x.predicate not in UNSAID]
    lifted = {x.args for x in said if x.predicate == "lifted"}
    said = [x for x in said if not (x.predicate == "holding" and x.args in lifted)]
    order = list(PREDICATES)
    return tuple(t for x in sorted(said, key=lambda x: (order.index(x.predicate), x)) for t in literal_tokens(x))


def prompt_tokens(
    facts: Iterable[str] | Mapping[str, bool], goal: Goal | None, macros: Sequence[Macro] = (),
    lacking: Sequence[str] = (),
) -> list[int]:  # fmt: skip
    """What a plan is asked with: true facts, predicates ``lacking`` a skill, macros, goal.

    Without a goal the prompt ends where one would begin.
    """
    true = (atom for atom, holds in facts.items() if holds) if isinstance(facts, Mapping) else facts
    found = [FACTS, *_fact_tokens(frozenset(true))]
    if lacking:
        found += [LACK, *(token(name) for name in sorted(lacking))]
    for macro in macros:
        found += [MACRO, token(macro.name), *plan_tokens(macro.steps)[:-1]]
    found.append(GOAL)
    return found if goal is None else [*found, *goal_tokens(goal), PLAN]


def left_padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """int64[n, longest row], 0 before each row."""
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(out, rows, strict=True):
        line[len(line) - len(row) :] = row
    return out


def right_padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """int64[n, longest row], 0 after each row."""
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out


class Automaton:
    """Sequences of tokens as a table of states; the end follows a whole sequence, or, with ``repeat``, any number.

    ``following`` int32[states, vocabulary] is the next state, -1 where a token may not come. State 0 is the beginning.
    Sequences that may be repeated must not begin one another.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], repeat: bool, end: int = END) -> None:
        self.end, self.repeat = end, repeat
        table = [np.full(len(TOKENS), -1, np.int32)]

        def onward(state: int, t: int) -> int:
            if table[state][t] < 0:
                table[state][t] = len(table)
                table.append(np.full(len(TOKENS), -1, np.int32))
            return int(table[state][t])

        for sequence in sequences:
            state = 0
            for t in sequence[:-1]:
                state = onward(state, t)
            if repeat:
                table[state][sequence[-1]] = 0
            else:
                state = onward(state, sequence[-1])
                table[state][end] = state
        if repeat:
            table[0][end] = 0
        self.following = np.stack(table)


class Follower:
    """n rows on an automaton: a `policies.task_lm.Constraint`.

    ``first`` bool[n, vocabulary] narrows what may begin a step; a row ends after ``most`` steps, and not before
    ``least`` int[n] where that is given.
    """

    def __init__(
        self, automaton: Automaton, n: int, first: np.ndarray | None = None, most: int = 8,
        least: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.automaton, self.first, self.most, self.least = automaton, first, most, least
        self._state, self._steps, self._finished = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_)

    @property
    def finished(self) -> np.ndarray:
        """bool[n]: rows that have ended."""
        return self._finished

    def mask(self) -> np.ndarray:
        """bool[n, vocabulary]: what may come next."""
        allowed = self.automaton.following[self._state] >= 0
        beginning = (self._state == 0)[:, None]
        if self.first is not None:
            allowed &= self.first | ~beginning
        if self.automaton.repeat:
            only_end = np.zeros(len(TOKENS), np.bool_)
            only_end[self.automaton.end] = True
            allowed &= only_end | ~(beginning & (self._steps >= self.most)[:, None])
        if self.least is not None:
            allowed[:, self.automaton.end] &= self._steps >= self.least
        return allowed

    def take(self, tokens: np.ndarray) -> None:
        """Moves on by tokens int64[n]."""
        going = ~self._finished
        ended = going & (tokens == self.automaton.end)
        following = self.automaton.following[self._state, tokens]
        self._state = np.where(going & ~ended, following, self._state)
        self._steps += going & ~ended & (self._state == 0)
        self._finished = self._finished | ended


@lru_cache(maxsize=64)
def plan_automaton(goals: frozenset[Goal]) -> Automaton:
    """Plans of skills with these ground goals and of macros."""
    steps = [_skill_tokens(goal) for goal in sorted(goals, key=str)]
    return Automaton([*steps, *((token(name),) for name in MACROS)], repeat=True)


def read_plan(tokens: Iterable[int], goals: Mapping[tuple[int, ...], Goal]) -> list[Goal | str]:
    """Steps of a plan's tokens up to its end; ``goals``: tokens of a step → its goal. GoalError where it is no plan."""
    steps: list[Goal | str] = []
    held: list[int] = []
    for t in map(int, tokens):
        if t == END and not held:
            return steps
        held.append(t)
        if TOKENS[t] in MACROS and len(held) == 1:
            steps.append(TOKENS[t])
            held = []
        elif tuple(held) in goals:
            steps.append(goals[tuple(held)])
            held = []
    raise GoalError(f"'{text_of(tokens)}' is not a plan: it does not end after a whole step")
