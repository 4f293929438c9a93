"""Goals: terms of the closed vocabulary, as typed literals in ordered stages, with their text form.

The text form is ``open(drawer) & lit(lamp) ; closed(drawer)``: ``&`` joins what must hold together, ``;``
separates stages reached one after the other, ``not`` negates a literal. ``Goal.parse(str(goal)) == goal``.
English goes both ways through `envs.instructions`. A goal is *practised* when the proposer may choose it
(`all_ground_goals`); its *schema* replaces blocks and places by typed variables, so that what is learnt on
the red block is shared with the blue one: ``on(red, blue)`` -> ``on(?a:block, ?b:block)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from typing import TYPE_CHECKING

from envs.constraints import conflict, entailed, impossible_reason
from envs.vocabulary import (
    ANYWHERE,
    BLOCKS,
    OBJECTS,
    PLACE_NAMES,
    PREDICATES,
    SWITCHED,
    SYMMETRIC,
    names_of,
    type_of,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Goal",
    "GoalError",
    "Literal",
    "UnknownWordError",
    "all_ground_goals",
    "bind",
    "binding",
    "ground",
    "impossible_reason",
    "parse_instruction",
    "schema_of",
]

_LITERAL = re.compile(r"(?P<no>not\s+)?(?P<name>\w+)\s*\(\s*(?P<args>[^()]*?)\s*\)", re.IGNORECASE)
_VARIABLE = re.compile(r"\?\w+:\w+")
_VARIABLE_NAMES = {"block": "ab", "place": "pqrstu"}  # one letter for every block and place there is


class GoalError(ValueError):
    """A goal or instruction outside the closed grammar; one sentence with the valid choices."""


class UnknownWordError(GoalError):
    """An instruction uses words outside the vocabulary; ``words`` holds them in order."""

    def __init__(self, message: str, words: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.words = words


@dataclass(frozen=True, order=True)
class Literal:
    """One typed fact or its negation; construction raises GoalError unless it fits the vocabulary."""

    predicate: str
    args: tuple[str, ...]
    positive: bool = True

    def __post_init__(self) -> None:
        types = PREDICATES.get(self.predicate)
        if types is None:
            raise GoalError(f"unknown predicate {self.predicate!r}; valid are {', '.join(PREDICATES)}")
        args = tuple(self.args)
        if len(args) != len(types):
            raise GoalError(f"{self.predicate} takes {len(types)} argument(s) {types}, not {len(args)}: {args}")
        for arg, kind in zip(args, types, strict=True):
            if arg not in names_of(kind):
                known = "is unknown" if arg not in OBJECTS and arg not in PLACE_NAMES else "does not fit"
                raise GoalError(f"{arg!r} {known} in {self.predicate}({', '.join(args)}); valid are "
                                f"{', '.join(names_of(kind))}")  # fmt: skip
        if self.predicate in SYMMETRIC:
            args = tuple(sorted(args, key=list(OBJECTS).index))
        object.__setattr__(self, "args", args)

    @classmethod
    def parse(cls, text: str) -> Literal:
        """``"not on(red, blue)"`` -> Literal; raises GoalError."""
        match = _LITERAL.fullmatch(text.strip())
        if match is None:
            raise GoalError(f"{text.strip()!r} is not a literal such as 'on(red, blue)' or 'not lit(lamp)'")
        args = tuple(arg.strip().lower() for arg in match["args"].split(","))
        return cls(match["name"].lower(), args, match["no"] is None)

    def __str__(self) -> str:
        return f"{'' if self.positive else 'not '}{self.predicate}({', '.join(self.args)})"

    @property
    def negated(self) -> Literal:
        """The opposite literal."""
        return replace(self, positive=not self.positive)

    @property
    def atom(self) -> str:
        """Text of the fact without its sign: the key under which its truth is kept."""
        return str(self if self.positive else self.negated)

    def holds(self, facts: Mapping[str, bool]) -> bool:
        """Truth of the literal given the truth of its atom; a missing atom is false (closed world)."""
        return bool(facts.get(self.atom, False)) == self.positive


@dataclass(frozen=True)
class Goal:
    """Ordered stages, each a conjunction kept sorted and free of duplicates; equal goals compare equal."""

    stages: tuple[tuple[Literal, ...], ...]

    def __post_init__(self) -> None:
        stages = tuple(tuple(sorted(set(stage))) for stage in self.stages)
        if not stages or not all(stages):
            raise GoalError("a goal needs at least one stage and every stage at least one literal")
        for stage in stages:
            both = [literal for literal in stage if literal.positive and literal.negated in stage]
            if both:
                raise GoalError(f"a stage asks for both '{both[0]}' and '{both[0].negated}'; keep one of them")
        object.__setattr__(self, "stages", stages)

    @classmethod
    def of(cls, *literals: Literal | str) -> Goal:
        """A conjunction from literals or their texts."""
        return cls((tuple(Literal.parse(x) if isinstance(x, str) else x for x in literals),))

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Text form -> Goal; raises GoalError naming what is wrong and what would be valid."""
        return cls(tuple(tuple(Literal.parse(part) for part in stage.split("&")) for stage in text.split(";")))

    def __str__(self) -> str:
        return " ; ".join(" & ".join(map(str, stage)) for stage in self.stages)

    @property
    def literals(self) -> tuple[Literal, ...]:
        """Every literal of every stage, in order, without repeats."""
        return tuple(dict.fromkeys(literal for stage in self.stages for literal in stage))

    @property
    def final(self) -> tuple[Literal, ...]:
        """What must hold at the end."""
        return self.stages[-1]

    @property
    def is_conjunction(self) -> bool:
        """True for a single stage."""
        return len(self.stages) == 1

    def implies(self, other: Goal) -> bool:
        """Whether reaching this goal surely reaches ``other``.

        Stages of ``other`` must be implied, in order, by distinct stages of this goal, its last by this
        goal's last; within a stage, literals follow by themselves or by the vocabulary's definitions.
        """
        position, last = 0, len(self.stages) - 1
        for stage in other.stages[:-1]:
            while position < last and not _stage_implies(self.stages[position], stage):
                position += 1
            if position >= last:
                return False
            position += 1
        return _stage_implies(self.final, other.final)

    def text(self, rng: np.random.Generator | None = None) -> str:
        """English instruction: the canonical one, or a paraphrase drawn with ``rng``."""
        from envs.instructions import describe

        return describe(self, rng)


def _stage_implies(stage: Iterable[Literal], wanted: Iterable[Literal]) -> bool:
    known = set(stage)
    known |= {fact for literal in stage for fact in entailed(literal)}
    positive = [literal for literal in known if literal.positive]
    return all(
        literal in known or (not literal.positive and any(conflict(fact, literal.negated) for fact in positive))
        for literal in wanted
    )


def parse_instruction(text: str) -> Goal:
    """English (or the text form) -> Goal; raises UnknownWordError or GoalError with one clear sentence."""
    from envs import instructions

    return instructions.parse_instruction(text)


def all_ground_goals() -> list[Goal]:
    """The single-literal goals the proposer may practise, simplest first."""
    pairs = [(a, b) for a in BLOCKS for b in BLOCKS if a != b]
    texts = ["open(drawer)", "closed(drawer)", "lit(lamp)", "not lit(lamp)"]
    texts += [f"lifted({a})" for a in BLOCKS] + [f"placed({a}, {ANYWHERE})" for a in BLOCKS]
    texts += [f"inside({a}, drawer)" for a in BLOCKS] + [f"on({a}, {b})" for a, b in pairs]
    texts += [f"on({a}, cabinet)" for a in BLOCKS]
    texts += [f"{name}({a}, {b})" for name in ("left_of", "in_front_of", "next_to") for a, b in pairs]
    return list(dict.fromkeys(Goal.parse(text) for text in texts))


def schema_of(goal: Goal) -> str:
    """Lifted schema with typed variables; the same for every renaming of blocks and places.

    The sign of a switched fact is part of the grounding: ``lit(lamp)`` and ``not lit(lamp)`` share a schema.
    """
    return _lift(goal)[0]


def binding(goal: Goal) -> dict[str, str]:
    """Which block or place each variable of `schema_of` stands for, e.g. ``{"?a": "red", "?b": "blue"}``."""
    return dict(_lift(goal)[1])


@lru_cache(maxsize=4096)
def _lift(goal: Goal) -> tuple[str, tuple[tuple[str, str], ...]]:
    names = dict.fromkeys(arg for literal in goal.literals for arg in literal.args)
    used = {kind: [n for n in names if type_of(n) == kind] for kind in _VARIABLE_NAMES}
    best: tuple[str, tuple[tuple[str, str], ...]] | None = None
    for orders in product(*(permutations(used[kind]) for kind in used)):
        pairs = [(f"?{_VARIABLE_NAMES[kind][i]}", name) for kind, order in zip(used, orders, strict=True)
                 for i, name in enumerate(order)]  # fmt: skip
        variable = {name: f"{var}:{type_of(name)}" for var, name in pairs}
        text = " ; ".join(" & ".join(sorted({_lifted_literal(x, variable) for x in stage})) for stage in goal.stages)
        if best is None or (text, tuple(pairs)) < best:
            best = (text, tuple(pairs))
    assert best is not None  # permutations of nothing still yield one empty order
    return best


def _lifted_literal(literal: Literal, variable: Mapping[str, str]) -> str:
    args = [variable.get(arg, arg) for arg in literal.args]
    if literal.predicate in SYMMETRIC:
        args.sort()
    sign = "" if literal.positive or literal.predicate in SWITCHED else "not "
    return f"{sign}{literal.predicate}({', '.join(args)})"


def bind(schema: str, values: Mapping[str, str]) -> Goal:
    """Ground a schema (switched facts stay positive); raises GoalError for a missing variable."""

    def value(match: re.Match[str]) -> str:
        name = match[0].split(":")[0]
        if name not in values:
            raise GoalError(f"schema {schema!r} needs a value for {name}; given are {sorted(values)}")
        return values[name]

    return Goal.parse(_VARIABLE.sub(value, schema))


def ground(schema: str) -> list[Goal]:
    """Every goal of a schema: variables of a type take different values, switched facts both signs."""
    variables = list(dict.fromkeys(_VARIABLE.findall(schema)))
    goals: dict[Goal, None] = {}
    for values in product(*(names_of(variable.split(":")[1]) for variable in variables)):
        if len(set(values)) < len(values):
            continue
        goal = bind(schema, {v.split(":")[0]: value for v, value in zip(variables, values, strict=True)})
        places = [(i, j) for i, stage in enumerate(goal.stages) for j, x in enumerate(stage)
                  if x.predicate in SWITCHED]  # fmt: skip
        for signs in product((True, False), repeat=len(places)):
            stages = [list(stage) for stage in goal.stages]
            for (i, j), keep in zip(places, signs, strict=True):
                stages[i][j] = stages[i][j] if keep else stages[i][j].negated
            goals[Goal(tuple(map(tuple, stages)))] = None
    return list(goals)
