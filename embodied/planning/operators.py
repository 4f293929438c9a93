"""Operators: what a skill needs and does, learnt by counting its executions.

An execution is the truth of every fact at its start and at its end, and whether the skill's goal was reached.
Facts are lifted before they are counted: the goal's blocks and places become its schema's variables (and the
other block, where one block is bound, the next free variable), so executions on red and on blue teach one
operator, and grounding it binds the names back. Where a schema's goal is a switched fact (``not lit(lamp)``),
its truth is counted as "is as wanted".

- *Precondition*: the smallest conjunction of at most three literals that separates success from failure
  (`embodied.planning.separation`). The goal's own literals are no candidates, and an execution that began
  with the goal already reached is set aside: it says nothing.
- *Effects*, counted on successes only, where they could change: a fact false at the start that became true
  (add), true that became false (delete). An effect is believed at a smoothed rate (k+1)/(n+2) of at least
  0.6: more likely than not, with a margin that one contrary observation among a few does not cross; every
  step of a plan is verified by the simulator, so what is rarer is left to replanning. Facts lost in *any*
  execution are counted too, as risks.
- *Lessons*: contexts in which the skill fails although its precondition holds, mined from the counts or
  forbidden by hand. A planner must not use the operator there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from embodied.core import OperatorCount
from embodied.planning.invented import Invented
from embodied.planning.separation import Signed, failing_contexts, precondition, satisfied
from envs.goals import Goal, binding, schema_of
from envs.vocabulary import BLOCKS, PREDICATES, SWITCHED, SYMMETRIC

BELIEVED = 0.6  # smoothed rate from which an effect is expected
SHRINKAGE = 4.0  # executions that the pooled success rate counts for in a grounding's own
_FACT = re.compile(r"(\w+)\((.*)\)")


class OperatorError(ValueError):
    """An execution or a stored operator does not fit; one sentence naming the schema or the key."""


@dataclass(frozen=True)
class Lesson:
    """A context (lifted literals such as ``"not open(drawer)"``) in which an operator must not be used."""

    literals: tuple[str, ...]
    failures: int
    trials: int
    reason: str = ""


@dataclass(frozen=True)
class Model:
    """What the counts of an operator amount to. Literals are lifted; rates are in 0 … 1."""

    precondition: tuple[str, ...]
    add: Mapping[str, float]
    delete: Mapping[str, float]
    risk: Mapping[str, float]  # fact -> how often it is lost where it held, success or not
    lessons: tuple[Lesson, ...]
    usable: Mapping[str, tuple[int, int]]  # blocks -> (successes, n) where the operator may be used
    elsewhere: tuple[int, int]  # (successes, n) where it may not

    @property
    def rate(self) -> float:
        """Smoothed success rate where the operator may be used; one half without evidence."""
        successes, trials = (sum(counts[i] for counts in self.usable.values()) for i in (0, 1))
        return (successes + 1.0) / (trials + 2.0)

    def rate_of(self, blocks: str) -> float:
        """The rate with these blocks, drawn towards the common one: red may be harder than blue."""
        successes, trials = self.usable.get(blocks, (0, 0))
        return (successes + SHRINKAGE * self.rate) / (trials + SHRINKAGE)


@dataclass(frozen=True)
class GroundOperator:
    """An operator bound to one goal; facts are atoms such as ``"on(red, blue)"``."""

    schema: str
    goal: Goal
    needs: frozenset[str]
    forbids: frozenset[str]
    add: frozenset[str]
    delete: frozenset[str]
    risk: Mapping[str, float]
    lessons: tuple[tuple[frozenset[str], frozenset[str]], ...]  # each (all of these true, all of these false)
    probability: float
    here: float  # the same in the state it was bound in, lower where it failed there before

    def applies(self, facts: Mapping[str, bool]) -> bool:
        """Whether the precondition holds and no lesson speaks against it; absent facts are false."""
        true = {atom for atom, value in facts.items() if value}
        if not self.needs <= true or self.forbids & true:
            return False
        return not any(yes <= true and not no & true for yes, no in self.lessons)


@dataclass
class Operator:
    """The counts of one skill schema's executions, and the model they amount to."""

    schema: str
    starts: dict[tuple[str, frozenset[str]], list[int]] = field(default_factory=dict)
    """(blocks it was done with, true lifted facts) -> [successes, failures]."""
    changes: dict[str, list[int]] = field(default_factory=dict)
    """Lifted fact -> [could appear, appeared, could vanish, vanished] on successes, [held, lost] on all."""
    trivial: int = 0
    forbidden: list[Lesson] = field(default_factory=list)
    invented: list[Invented] = field(default_factory=list)
    """Predicates of the operator's own, whose facts stand in its counts beside the vocabulary's."""
    _model: Model | None = field(default=None, repr=False, compare=False)

    def observe(self, goal: Goal, start: Mapping[str, bool], end: Mapping[str, bool], success: bool) -> None:
        """Count one execution of ``goal``: ground facts (atom -> truth; absent is false) before and after."""
        start, end = self._own(start), self._own(end)
        before, after = self.lift(goal, start), self.lift(goal, end)
        if all(literal.holds(start) for literal in goal.final):
            self.trivial += 1
            return
        counts = self.starts.setdefault((_blocks(goal), before), [0, 0])
        counts[0 if success else 1] += 1
        names = renaming(goal)
        for fact in {_rename(atom, names) for atom in (*start, *end)} | before | after:
            change = self.changes.setdefault(fact, [0, 0, 0, 0, 0, 0])
            was, now = fact in before, fact in after
            if success:
                change[2 * was] += 1
                change[2 * was + 1] += was != now
            change[4] += was
            change[5] += was and not now
        self._model = None

    def forbid(self, goal: Goal, literals: Iterable[str], reason: str) -> None:
        """Add a lesson by hand: never attempt ``goal``, however renamed, where all these literals hold."""
        names = renaming(goal)
        lifted = tuple(_rename(literal, names) for literal in literals)
        self.forbidden.append(Lesson(lifted, 0, 0, reason))
        self._model = None

    def learn_lesson(self, literals: Iterable[str], reason: str) -> None:
        """Add a lesson in lifted literals, as the library keeps them; one that is known is left alone."""
        lesson = Lesson(tuple(literals), 0, 0, reason)
        for literal in lesson.literals:
            _rename(literal, ())
        if lesson not in self.forbidden:
            self.forbidden.append(lesson)
            self._model = None

    @property
    def model(self) -> Model:
        """Precondition, effects, risks and lessons; computed once after each change of the counts."""
        if self._model is None:
            self._model = self._learn()
        return self._model

    def ground(self, goal: Goal, facts: Mapping[str, bool] | None = None) -> GroundOperator:
        """The operator bound to a goal of its schema, and to the state of now where ``facts`` are given."""
        self._check(goal)
        model, names = self.model, {variable: name for name, variable in renaming(goal)}
        flipped = _flipped(goal)

        def split(literals: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
            signed = [_split(literal) for literal in literals]
            atoms = [(_rename(atom, tuple(names.items())), sign) for atom, sign in signed]
            atoms = [(atom, sign != (atom in flipped)) for atom, sign in atoms]
            return frozenset(a for a, sign in atoms if sign), frozenset(a for a, sign in atoms if not sign)

        needs, forbids = split(model.precondition)
        reached = [str(literal) for literal in goal.final]
        add, delete = split((*model.add, *(f"not {fact}" for fact in model.delete)))
        wanted = {_split(literal) for literal in reached}
        add = (add - {a for a, sign in wanted if not sign}) | {a for a, sign in wanted if sign}
        delete = (delete - add) | {a for a, sign in wanted if not sign}
        rate = model.rate_of(_blocks(goal))
        now = (_blocks(goal), self.lift(goal, self._own(facts))) if facts is not None else None
        successes, failures = self.starts.get(now, (0, 0)) if now is not None else (0, 0)
        return GroundOperator(
            schema=self.schema,
            goal=goal,
            needs=needs,
            forbids=forbids,
            add=add,
            delete=delete,
            risk={_rename(f, tuple(names.items())): rate for f, rate in model.risk.items() if f not in flipped},
            lessons=tuple(split(lesson.literals) for lesson in model.lessons),
            probability=rate,
            here=min(rate, (successes + SHRINKAGE * rate) / (successes + failures + SHRINKAGE)),
        )

    def predict(self, goal: Goal, facts: Mapping[str, bool]) -> float:
        """How probable success is from these facts, also where a planner would not use the operator."""
        bound = self.ground(goal, facts)
        if bound.applies(facts):
            return bound.here
        successes, trials = self.model.elsewhere
        return (successes + 1.0) / (trials + 2.0)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON values; the same counts give the same text."""
        literals = sorted(self.changes)
        index = {literal: i for i, literal in enumerate(literals)}
        rows = [
            [blocks, sorted(index[fact] for fact in facts), *counts] for (blocks, facts), counts in self.starts.items()
        ]
        return {
            "schema": self.schema,
            "literals": literals,
            "starts": sorted(rows),
            "changes": [self.changes[literal] for literal in literals],
            "trivial": self.trivial,
            "forbidden": [[list(lesson.literals), lesson.reason] for lesson in self.forbidden],
        } | ({"invented": [str(predicate) for predicate in self.invented]} if self.invented else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Operator:
        """Inverse of `to_dict`; OperatorError names what is missing or malformed."""
        try:
            literals = list(data["literals"])
            starts = {
                (str(blocks), frozenset(literals[i] for i in facts)): [int(s), int(f)]
                for blocks, facts, s, f in data["starts"]
            }
            changes = {
                literal: [int(x) for x in counts] for literal, counts in zip(literals, data["changes"], strict=True)
            }
            forbidden = [Lesson(tuple(context), 0, 0, reason) for context, reason in data["forbidden"]]
            invented = [Invented.parse(text) for text in data.get("invented", ())]
            return cls(str(data["schema"]), starts, changes, int(data["trivial"]), forbidden, invented)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise OperatorError(f"a stored operator cannot be read: {type(error).__name__} {error}") from None

    def counts(self) -> list[OperatorCount]:
        """Per-literal counts, as the library's table keeps them."""
        rows = []
        for fact in sorted(self.changes):
            begun = [c for (_, facts), c in self.starts.items() if fact in facts]
            hits, trials = sum(c[0] for c in begun), sum(sum(c) for c in begun)
            if trials:
                rows.append(OperatorCount(self.schema, fact, "precondition", trials, hits))
            could, did, may, gone = self.changes[fact][:4]
            if could:
                rows.append(OperatorCount(self.schema, fact, "effect", could, did))
            if may:
                rows.append(OperatorCount(self.schema, f"not {fact}", "effect", may, gone))
        return rows

    # learning ----------------------------------------------------------------------------------------

    def _learn(self) -> Model:
        facts = sorted(self.changes)
        starts = np.array([[fact in true for fact in facts] for _, true in self.starts], bool)
        starts = starts.reshape(len(self.starts), len(facts))
        counts = np.array(list(self.starts.values()), np.int64).reshape(-1, 2)
        order = self._preference(facts)
        chosen = precondition(starts, counts[:, 0], counts[:, 1], order)
        rows = satisfied(starts, chosen)
        contexts = failing_contexts(starts[rows], counts[rows, 0], counts[rows, 1], order)
        lessons = [
            Lesson(tuple(_text(facts, literal) for literal in literals), failures, trials,
                   f"it failed {failures} of {trials} times there")
            for literals, failures, trials in contexts
        ]  # fmt: skip
        for literals, _, _ in contexts:
            rows &= ~satisfied(starts, literals)
        usable: dict[str, tuple[int, int]] = {}
        elsewhere = (int(counts[~rows, 0].sum()), int(counts[~rows].sum()))
        for (blocks, _), (hits, misses), row in zip(self.starts, counts.tolist(), rows, strict=True):
            if row:
                s, n = usable.get(blocks, (0, 0))
                usable[blocks] = s + hits, n + hits + misses
        rates = {literal: _rate(hits, n) for literal, (n, hits) in effects(self.changes).items()}
        return Model(
            precondition=tuple(_text(facts, literal) for literal in chosen),
            add={f: rate for f, rate in rates.items() if not f.startswith("not ") and rate >= BELIEVED},
            delete={f[4:]: rate for f, rate in rates.items() if f.startswith("not ") and rate >= BELIEVED},
            risk={f: c[5] / (c[4] + 1.0) for f, c in self.changes.items() if c[5]},
            lessons=(*self.forbidden, *lessons),
            usable=usable,
            elsewhere=elsewhere,
        )

    def _preference(self, facts: list[str]) -> list[Signed]:
        """Candidates for preconditions, natural ones first: positive, about the operator's own arguments."""
        goal = {fact for part in re.split(r"[&;]", self.schema) for fact in (_split(_untyped(part.strip()))[0],)}
        own = set(re.findall(r"\?\w+|\bdrawer\b|\bcabinet\b|\blamp\b", self.schema))
        candidates = [(i, sign) for i, fact in enumerate(facts) if fact not in goal for sign in (True, False)]
        return sorted(candidates, key=lambda x: (not x[1], not own & set(re.findall(r"\??\w+", facts[x[0]])), x))

    def _check(self, goal: Goal) -> None:
        if schema_of(goal) != self.schema:
            raise OperatorError(f"'{goal}' is no goal of the schema '{self.schema}' but of '{schema_of(goal)}'")

    def _own(self, facts: Mapping[str, bool]) -> Mapping[str, bool]:
        """The facts without those of predicates that were invented for another operator: here they were not counted."""
        own = {predicate.name for predicate in self.invented}
        return {
            atom: value
            for atom, value in facts.items()
            if (name := atom.partition("(")[0]) in PREDICATES or name in own
        }

    def lift(self, goal: Goal, facts: Mapping[str, bool]) -> frozenset[str]:
        """The facts that hold, lifted by a goal of the schema; a switched fact holds where it is as wanted."""
        self._check(goal)
        names, flipped = renaming(goal), _flipped(goal)
        true = {_rename(atom, names) for atom, value in facts.items() if value and atom not in flipped}
        return frozenset(true | {_rename(atom, names) for atom in flipped if not facts.get(atom, False)})


def effects(changes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """From `Operator.changes`: literal → (successes in which it could come true, those in which it did)."""
    found = {fact: (counts[0], counts[1]) for fact, counts in changes.items()}
    return found | {f"not {fact}": (counts[2], counts[3]) for fact, counts in changes.items()}


def _rate(hits: int, trials: int) -> float:
    return (hits + 1.0) / (trials + 2.0) if trials else 0.0


def _text(facts: list[str], literal: Signed) -> str:
    return facts[literal[0]] if literal[1] else f"not {facts[literal[0]]}"


def _split(literal: str) -> tuple[str, bool]:
    return (literal[4:], False) if literal.startswith("not ") else (literal, True)


def _untyped(schema: str) -> str:
    return re.sub(r"(\?\w+):\w+", r"\1", schema)


def _blocks(goal: Goal) -> str:
    return ",".join(name for name in binding(goal).values() if name in BLOCKS) + "-" * bool(_flipped(goal))


@lru_cache(maxsize=1024)
def _flipped(goal: Goal) -> frozenset[str]:
    return frozenset(x.atom for x in goal.final if not x.positive and x.predicate in SWITCHED)


@lru_cache(maxsize=1024)
def renaming(goal: Goal) -> tuple[tuple[str, str], ...]:
    """(name, variable) for the goal's bindings and, where it binds a block, for the other blocks."""
    names = {name: variable for variable, name in binding(goal).items()}
    if any(block in names for block in BLOCKS):
        free = iter(v for v in ("?a", "?b", "?c", "?d") if v not in names.values())
        names |= {block: next(free) for block in BLOCKS if block not in names}
    return tuple(names.items())


@lru_cache(maxsize=8192)
def _rename(literal: str, names: tuple[tuple[str, str], ...]) -> str:
    atom, sign = _split(literal)
    match = _FACT.fullmatch(atom)
    if match is None:
        raise OperatorError(f"{literal!r} is not a fact such as 'on(red, blue)'")
    table = dict(names)
    args = [table.get(arg.strip(), arg.strip()) for arg in match[2].split(",")]
    if match[1] in SYMMETRIC:  # red before blue, ?a before ?b, as literals have it
        args.sort(key=lambda a: (BLOCKS.index(a) if a in BLOCKS else len(BLOCKS), a))
    return f"{'' if sign else 'not '}{match[1]}({', '.join(args)})"
