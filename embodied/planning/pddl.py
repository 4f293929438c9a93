"""Learnt operators as PDDL, and Fast Downward as another planner behind the same call.

A domain has the types of the vocabulary, negative preconditions (lessons about several facts become disjunctions) and
action costs. Every schema gives one action for each place and sign of a switched fact it can be bound to, with blocks
as parameters; what a skill is not admitted for, its groundings' static ``can-…`` facts lack. The cost of a grounding is
a number in the problem, 1000 · -log(success probability) rounded, plus one: the embedded planner's cost in thousandths.
Ordered stages become a chain of ``stage-i`` facts with an action of no cost from each to the next.

What stays with the embedded planner: prices for facts that a skill loses now and then, and that what failed here before
weighs on the first step alone (here it weighs on every step with that goal).

The backend needs the extra ``[planning]``: unified-planning and its Fast Downward, a program of its own that is run in
a process of its own. Reading and writing PDDL needs nothing.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from embodied.errors import UsageError
from embodied.planning.operators import SHRINKAGE, GroundOperator, Operator, renaming
from embodied.planning.search import STEP_COST, Facts, Plan, Step, ground_all, relevant
from envs.constraints import impossible_reason
from envs.goals import Goal
from envs.vocabulary import BLOCKS, OBJECTS, PLACE_NAMES, PREDICATES

__all__ = ["Rendered", "fast_downward", "render"]

_SCALE = 1000  # cost units for one nat
_ATOM = re.compile(r"(\w+)\(([^()]*)\)")
_UNIONS = sorted({kind for types in PREDICATES.values() for kind in types if "|" in kind})
_KEPT_BACK = {"at", "all", "and", "end", "exists", "forall", "not", "or", "over", "start", *OBJECTS, *PLACE_NAMES}
_KINDS = (*_UNIONS, "place", *sorted(set(OBJECTS.values())))


@dataclass(frozen=True)
class Rendered:
    """A planning problem as text, and what its actions mean: (action name, argument names) → step."""

    domain: str
    problem: str
    steps: Mapping[tuple[str, tuple[str, ...]], Step]


def render(
    goal: Goal,
    facts: Facts,
    operators: Mapping[str, Operator] | Iterable[Operator],
    *,
    allowed: Callable[[Goal], bool] | None = None,
    failed: Mapping[str, int] | None = None,
) -> Rendered:
    """Domain and problem of a goal from the facts of now; arguments as for `embodied.planning.search.plan`."""
    true = {k for k, v in facts.items() if v} if isinstance(facts, Mapping) else set(facts)
    pool = operators.values() if isinstance(operators, Mapping) else operators
    grounds = relevant(goal, ground_all(sorted(pool, key=lambda o: o.schema), goal, true, allowed))[1]
    actions: dict[str, str] = {}
    values: list[str] = []
    steps: dict[tuple[str, tuple[str, ...]], Step] = {}
    for operator in grounds:
        name, blocks = _name(operator.goal), _blocks(operator)
        variables = {block: f"?{'ab'[k]}" for k, block in enumerate(blocks)}
        text = _action(name, operator, variables)
        if actions.setdefault(name, text) != text:  # groundings that differ by more than names are actions of their own
            name = "-".join((name, *blocks))
            actions[name] = _action(name, operator, variables)
        doubt = SHRINKAGE / (SHRINKAGE + (failed or {}).get(str(operator.goal), 0))
        cost = round(_SCALE * (STEP_COST - math.log(operator.probability * doubt)))
        values += [
            f"(= ({' '.join((f'cost-{name}', *blocks))}) {max(1, cost)})",
            f"({' '.join((f'can-{name}', *blocks))})",
        ]
        steps[name, blocks] = Step(operator.schema, str(operator.goal), operator.probability)
    atoms = true.union(*(o.add | o.delete | o.needs | o.forbids for o in grounds), (x.atom for x in goal.literals))
    atoms = atoms.union(*(part for o in grounds for lesson in o.lessons for part in lesson))
    return Rendered(_domain(goal, atoms, actions, steps), _problem(goal, true, values), steps)


def fast_downward(
    goal: Goal,
    facts: Facts,
    operators: Mapping[str, Operator] | Iterable[Operator],
    *,
    allowed: Callable[[Goal], bool] | None = None,
    failed: Mapping[str, int] | None = None,
    seconds: float = 20.0,
) -> Plan:
    """The cheapest plan, found by Fast Downward (A*, landmark cuts): called and answering as the embedded `plan`.

    Raises UsageError where the extra is not installed.
    """
    reason = impossible_reason(goal)
    if reason:
        return Plan((), 0.0, f"impossible because {reason}")
    rendered = render(goal, facts, operators, allowed=allowed, failed=failed)
    if not rendered.steps:
        return Plan((), 0.0, "I have no skill for any part of it")
    reader, planner = _unified_planning()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        problem = reader.PDDLReader().parse_problem_string(rendered.domain, rendered.problem)
        with planner(name="fast-downward-opt") as engine:
            found = engine.solve(problem, timeout=seconds).plan
    if found is None:
        return Plan((), 0.0, "I have no plan: Fast Downward found none")
    by_name = {(name.lower(), blocks): step for (name, blocks), step in rendered.steps.items()}
    steps = []
    for action in found.actions:
        key = action.action.name.lower(), tuple(str(x) for x in action.actual_parameters)
        if key in by_name:  # what is not there passes from one stage to the next
            steps.append(by_name[key])
    return Plan(tuple(steps), math.prod(step.probability for step in steps))


def _unified_planning() -> tuple[Any, Any]:
    try:
        import unified_planning.io as reader  # pyright: ignore[reportMissingImports]
        import up_fast_downward  # noqa: F401 # pyright: ignore[reportMissingImports] - the engine
        from unified_planning.shortcuts import (  # pyright: ignore[reportMissingImports]
            OneshotPlanner,
            get_environment,
        )
    except ImportError as error:
        raise UsageError(
            f'Fast Downward is not installed ({error.name}): pip install "embodied-repertoire[planning]"'
        ) from error
    get_environment().credits_stream = None
    return reader, OneshotPlanner


# ---- text


def _name(goal: Goal) -> str:
    """An action's name: the goal's literals without their blocks, ``achieve-placed-left``, ``achieve-not-lit``."""
    parts = ["achieve"]
    for literal in goal.literals:
        places = [arg for arg in literal.args if arg in PLACE_NAMES or arg == "cabinet"]
        parts.append(("" if literal.positive else "not-") + literal.predicate.replace("_", "-"))
        parts += places
    return "-".join(parts)


def _blocks(operator: GroundOperator) -> tuple[str, ...]:
    """The blocks an operator speaks of, in the order of its schema's variables."""
    return tuple(name for name, _ in renaming(operator.goal) if name in BLOCKS)


def _action(name: str, operator: GroundOperator, variables: Mapping[str, str]) -> str:
    def atom(text: str) -> str:
        return _atom(text, variables)

    before = [atom(x) for x in sorted(operator.needs)] + [f"(not {atom(x)})" for x in sorted(operator.forbids)]
    before += [
        f"(or {' '.join([*(f'(not {atom(x)})' for x in sorted(yes)), *(atom(x) for x in sorted(no))])})"
        for yes, no in sorted(operator.lessons, key=lambda lesson: (sorted(lesson[0]), sorted(lesson[1])))
    ]
    arguments = " ".join(variables.values())
    before.append(f"(can-{name}{' ' * bool(arguments)}{arguments})")
    after = [atom(x) for x in sorted(operator.add)] + [f"(not {atom(x)})" for x in sorted(operator.delete)]
    after.append(f"(increase (total-cost) (cost-{name}{' ' * bool(arguments)}{arguments}))")
    typed = " ".join(f"{variable} - {_kind('block')}" for variable in variables.values())
    return (
        f"(:action {name}\n  :parameters ({typed})\n  :precondition (and {' '.join(before)})\n"
        f"  :effect (and {' '.join(after)}))"
    )


def _atom(text: str, variables: Mapping[str, str] | None = None) -> str:
    match = _ATOM.fullmatch(text)
    assert match is not None, text
    args = [(variables or {}).get(arg.strip(), arg.strip()) for arg in match[2].split(",") if arg.strip()]
    return f"({' '.join((_predicate(match[1]), *args))})"


def _predicate(name: str) -> str:
    """A predicate's name; PDDL has words of its own, and readers take names of places and things but once."""
    return f"is-{name}" if name in _KEPT_BACK else name.replace("_", "-")


def _kind(kind: str) -> str:
    """A type's name: ``block-type``, and ``block-or-cabinet-type`` where a predicate takes either."""
    return f"{kind.replace('|', '-or-')}-type"


def _parent(kind: str) -> str:
    return next((_kind(union) for union in _UNIONS if kind != union and kind in union.split("|")), "object")


def _domain(
    goal: Goal, atoms: Iterable[str], actions: Mapping[str, str], steps: Mapping[tuple[str, tuple[str, ...]], Step]
) -> str:
    signatures: dict[str, str] = {}
    for text in sorted(atoms):
        match = _ATOM.fullmatch(text)
        assert match is not None, text
        types = PREDICATES.get(match[1])
        if types is None:  # invented: its arguments are blocks and the drawer
            types = tuple(OBJECTS[arg.strip()] for arg in match[2].split(",") if arg.strip())
        shown = [f"?x{k} - {_kind(kind)}" for k, kind in enumerate(types)]
        signatures[match[1]] = f"({' '.join((_predicate(match[1]), *shown))})"
    count = {name: len(blocks) for name, blocks in steps}
    typed = {name: "".join(f" ?{'ab'[k]} - {_kind('block')}" for k in range(n)) for name, n in count.items()}
    last = len(goal.stages) - 1
    parts = [f"    {x}" for x in signatures.values()]
    parts += [f"    (can-{name}{typed[name]})" for name in actions]
    parts += [f"    (stage-{k})" for k in range(last + 1)] if last else []
    costs = [f"    (cost-{name}{typed[name]}) - number" for name in actions]
    chain = [
        f"(:action reach-{k}\n  :parameters ()\n  :precondition (and (stage-{k}) {_literals(goal.stages[k])})\n"
        f"  :effect (and (not (stage-{k})) (stage-{k + 1})))"
        for k in range(last)
    ]
    lines = [
        "(define (domain table-top)",
        "  (:requirements :typing :negative-preconditions :disjunctive-preconditions :action-costs)",
        "  (:types " + " ".join(f"{_kind(kind)} - {_parent(kind)}" for kind in _KINDS) + ")",
        "  (:constants " + " ".join(f"{name} - {_kind(kind)}" for name, kind in OBJECTS.items()),
        "              " + " ".join(PLACE_NAMES) + f" - {_kind('place')})",
        "  (:predicates", *parts, "  )",
        "  (:functions (total-cost) - number", *costs, "  )",
        *actions.values(), *chain, ")",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _problem(goal: Goal, true: Iterable[str], values: Iterable[str]) -> str:
    staged = len(goal.stages) > 1
    init = (
        [_atom(x) for x in sorted(true)] + (["(stage-0)"] if staged else []) + sorted(values) + ["(= (total-cost) 0)"]
    )
    wanted = _literals(goal.final) + (f" (stage-{len(goal.stages) - 1})" if staged else "")
    lines = [
        "(define (problem now) (:domain table-top)",
        "  (:init", *(f"    {x}" for x in init), "  )",
        f"  (:goal (and {wanted}))",
        "  (:metric minimize (total-cost)))",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _literals(literals: Iterable[Any]) -> str:
    return " ".join(_atom(x.atom) if x.positive else f"(not {_atom(x.atom)})" for x in literals)
