"""Operators of a world whose facts are about described things (BabyAI's): counted, learnt and planned with.

An execution is counted over variables: the fact's own things are ``?a`` and ``?b``, the key that fits ``?a`` is ``?k``.
What an operator needs, adds and takes away is learnt from the counts by `embodied.planning.operators`; what its
fact excludes by definition (the robot faces one cell, and carries one thing) is added when it is bound to things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any, cast

from embodied.planning.operators import GroundOperator, Operator
from embodied.planning.search import Plan, solve
from envs.suites.babyai_missions import ACHIEVABLE, PREDICATES, Fact, MissionGoal, Thing, key_of

__all__ = ["LiftedOperator", "atoms_of", "instances", "plan_mission", "schema_of", "universe"]


def schema_of(predicate: str) -> str:
    """A skill's schema: its fact with typed variables, ``beside(?a:object, ?b:object)``."""
    kinds = PREDICATES[predicate]
    return f"{predicate}({', '.join(f'?{v}:{k}' for v, k in zip('ab', kinds, strict=False))})"


def bound(own: Fact) -> dict[str, Thing]:
    """Variable -> thing."""
    names: dict[str, Thing] = dict(zip(("?a", "?b"), own.args, strict=False))
    if own.args and own.args[0].kind == "door":
        names["?k"] = key_of(own.args[0])
    return names


@lru_cache(maxsize=65536)
def instances(own: Fact) -> tuple[tuple[str, Fact], ...]:
    """The literals an execution is counted by: lifted text and the fact itself."""
    names, found = bound(own), []
    for predicate, kinds in PREDICATES.items():
        for variables in permutations(names, len(kinds)):
            things = tuple(names[v] for v in variables)
            if all(_fits(kind, thing) for kind, thing in zip(kinds, things, strict=True)):
                found.append((f"{predicate}({', '.join(variables)})", Fact(predicate, things)))
    return tuple(found)


def _fits(kind: str, thing: Thing) -> bool:
    return kind == "thing" or (thing.kind == "door") == (kind == "door")


@dataclass
class LiftedOperator(Operator):
    """An operator whose executions come lifted. ``schema`` is `schema_of` its predicate."""

    @property
    def predicate(self) -> str:
        """What it brings about."""
        return self.schema.partition("(")[0]

    def record(self, before: frozenset[str], after: frozenset[str], success: bool) -> None:
        """Counts an execution: the lifted literals that held before and after it."""
        counts = self.starts.setdefault(("", before), [0, 0])
        counts[0 if success else 1] += 1
        for text in sorted(before | after):
            change = self.changes.get(text)
            if change is None:  # what was never seen was false in all that went before
                wins, losses = (sum(c[i] for c in self.starts.values()) for i in (0, 1))
                wins, losses = (wins - success, losses - (not success))
                change = self.changes[text] = [wins, 0, 0, 0, 0, 0]
        for text, change in self.changes.items():
            was, now = text in before, text in after
            if success:
                change[2 * was] += 1
                change[2 * was + 1] += was != now
            change[4] += was
            change[5] += was and not now
        self._model = None

    def _preference(self, facts: list[str]) -> list[tuple[int, bool]]:
        return [
            (i, sign) for sign in (True, False) for i, text in enumerate(facts) if not text.startswith(self.predicate)
        ]

    def bind(self, own: Fact, things: Sequence[Thing]) -> GroundOperator:
        """The operator for a fact, in a world of these things."""
        names, model = bound(own), self.model

        def split(texts: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
            signed = [(t.removeprefix("not "), not t.startswith("not ")) for t in texts]
            atoms = [(_rename(t, names), sign) for t, sign in signed]
            return frozenset(a for a, sign in atoms if sign), frozenset(a for a, sign in atoms if not sign)

        needs, forbids = split(model.precondition)
        add, delete = split((*model.add, *(f"not {text}" for text in model.delete)))
        excluded = {f.atom for f in _excluded(own, things)}
        add = (add - excluded) | {own.atom}
        return GroundOperator(
            schema=self.schema, goal=cast(Any, MissionGoal(((own,),))), needs=needs, forbids=forbids, add=add,
            delete=(delete | excluded) - add, risk={}, lessons=tuple(split(x.literals) for x in model.lessons),
            probability=model.rate, here=model.rate,
        )  # fmt: skip


def _rename(text: str, names: Mapping[str, Thing]) -> str:
    """The atom of a lifted literal; where a variable stands for nothing (no key fits a ball) it never holds."""
    name, _, rest = text.partition("(")
    args = [str(names.get(v.strip(), v.strip())) for v in rest.rstrip(")").split(",") if v.strip()]
    return f"{name}({', '.join(args)})"


def _excluded(own: Fact, things: Sequence[Thing]) -> list[Fact]:
    """Facts that cannot hold with this one: the robot faces one cell and carries one thing."""
    if own.predicate in ("facing", "carrying"):
        found = [Fact(own.predicate, (t,)) for t in things if t != own.args[0]]
        return found + ([Fact("empty_handed")] if own.predicate == "carrying" else [])
    if own.predicate == "empty_handed":
        return [Fact("carrying", (t,)) for t in things]
    return [Fact("locked", own.args)] if own.predicate == "open" else []


def universe(goal: MissionGoal, doors: Sequence[Thing] = ()) -> tuple[Thing, ...]:
    """What a plan may be about: what the goal names, doors known to be locked, and the keys that fit."""
    things = [*goal.things, *doors]
    things += [key_of(t) for t in things if t.kind == "door"]
    return tuple(dict.fromkeys(things))


@lru_cache(maxsize=4096)
def atoms_of(things: tuple[Thing, ...]) -> tuple[Fact, ...]:
    """Every fact about these things."""
    found = []
    for predicate, kinds in PREDICATES.items():
        for args in permutations(things, len(kinds)):
            if all(_fits(kind, thing) for kind, thing in zip(kinds, args, strict=True)):
                found.append(Fact(predicate, args))
    return tuple(found)


def plan_mission(
    goal: MissionGoal, true: set[str], things: tuple[Thing, ...], operators: Mapping[str, LiftedOperator],
    failed: Mapping[str, int] | None = None,
) -> Plan:  # fmt: skip
    """`embodied.planning.search`'s plan for a goal, with operators (by predicate) of admitted skills.

    ``true``: the atoms of `atoms_of` (things) that hold now.
    """
    found = []
    for own in atoms_of(things):
        if own.predicate in ACHIEVABLE and own.predicate in operators:
            found.append(operators[own.predicate].bind(own, things))
    return solve(cast(Any, goal), set(true), found, failed=failed)
