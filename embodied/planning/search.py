"""Plans: the most probable sequence of skills that takes the facts of now through a goal's stages.

A symbolic state is the set of true facts; what is not listed is false. Learnt operators are bound to every
goal of their schema, and A* minimises the sum of -log(success probability), plus -log(1 - risk) for each
literal of the current stage that already holds and that the skill is known to lose sometimes: what was
achieved is kept where it can be. Only facts that matter to the goal, directly or through an operator's
precondition, are kept in the state. An added fact removes those it excludes by definition
(`envs.constraints`), so imagined states stay consistent where counts are few.

What was tried before in exactly the state of now, or failed a moment ago, weighs on the first step, so a
replanner does not insist on it. States never repeat, ties are broken by order of discovery, and expansions are
limited: the search always ends, with a plan or with one sentence on what is missing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from embodied.planning.operators import SHRINKAGE, GroundOperator, Operator
from envs.constraints import conflict, entailed, impossible_reason
from envs.goals import Goal, Literal, binding, ground
from envs.vocabulary import ANYWHERE, PLACE_NAMES, PREDICATES

STEP_COST = 1e-3  # between plans of equal probability the shorter one wins
STAGE_COST = 1e-6  # between plans equal in that too, the one that finishes early stages early
LIMIT = 4000  # expanded states

Facts = Mapping[str, bool] | Iterable[str]
"""Truth of atoms such as ``"on(red, blue)"``, or just the true ones."""


@dataclass(frozen=True)
class Step:
    """One skill of a plan: its schema, the goal it is bound to (text form) and its expected success rate."""

    schema: str
    goal: str
    probability: float


@dataclass(frozen=True)
class Plan:
    """Steps in order with the probability that all succeed, or an explanation why there is no plan.

    No steps and no explanation: the goal already holds.
    """

    steps: tuple[Step, ...]
    probability: float
    explanation: str = ""

    @property
    def found(self) -> bool:
        """Whether carrying the steps out is expected to reach the goal."""
        return not self.explanation


@dataclass(frozen=True)
class _Action:
    """A ground operator as bit masks over the relevant facts."""

    step: Step
    needs: int
    forbids: int
    add: int
    delete: int
    goal: tuple[int, int]
    lessons: tuple[tuple[int, int], ...]
    risks: tuple[tuple[int, float], ...]
    cost: float

    def applies(self, state: int) -> bool:
        """Whether the precondition holds, the goal does not yet, and no lesson speaks against it."""
        if state & self.needs != self.needs or state & self.forbids:
            return False
        if state & self.goal[0] == self.goal[0] and not state & self.goal[1]:
            return False
        return not any(state & yes == yes and not state & no for yes, no in self.lessons)


def plan(
    goal: Goal,
    facts: Facts,
    operators: Mapping[str, Operator] | Iterable[Operator],
    *,
    allowed: Callable[[Goal], bool] | None = None,
    failed: Mapping[str, int] | None = None,
    limit: int = LIMIT,
    grounded: list[GroundOperator] | None = None,
) -> Plan:
    """The most probable plan for a goal from the facts of now.

    ``operators`` are those of admitted skills; ``allowed`` may withhold single groundings. ``failed`` says which
    skills' goals have just failed, how often: as first steps they count for less, so that a detour is taken (lift
    the block, then place it) where insisting looks worse. ``limit`` bounds the expanded states. Without a plan,
    ``explanation`` says why: the goal is impossible, a skill is missing, or the limit was met.
    ``grounded``: the operators bound already, by `ground_all`, for those who plan often; then ``operators`` and
    ``allowed`` are not looked at.
    """
    reason = impossible_reason(goal)
    if reason:
        return Plan((), 0.0, f"impossible because {reason}")
    true = {k for k, v in facts.items() if v} if isinstance(facts, Mapping) else set(facts)
    pool = operators.values() if isinstance(operators, Mapping) else operators
    if grounded is None:
        grounded = ground_all(sorted(pool, key=lambda o: o.schema), goal, true, allowed)
    return solve(goal, true, grounded, failed=failed, limit=limit)


def solve(
    goal: Goal,
    true: set[str],
    ground_operators: list[GroundOperator],
    *,
    failed: Mapping[str, int] | None = None,
    limit: int = LIMIT,
) -> Plan:
    """The most probable plan with operators that are bound already, whatever world their facts are of; see `plan`.

    ``goal`` may be any that has stages and literals as a `Goal` has, ``true`` the atoms that hold now.
    """
    missing = _missing(goal, true, ground_operators)
    if missing:
        return Plan((), 0.0, missing)
    bits, useful = relevant(goal, ground_operators)
    actions = [_compile(operator, bits, operator.probability) for operator in useful]
    doubt = {goal: SHRINKAGE / (SHRINKAGE + times) for goal, times in (failed or {}).items()}
    first = [_compile(operator, bits, operator.here * doubt.get(str(operator.goal), 1.0)) for operator in useful]
    stages = [_masks(((x.atom, x.positive) for x in stage), bits) for stage in goal.stages]
    start = sum(bit for atom, bit in bits.items() if atom in true)
    return _search(start, stages, first, actions, limit)


def _search(
    start: int, stages: list[tuple[int, int]], first: list[_Action], actions: list[_Action], limit: int
) -> Plan:
    def advance(state: int, stage: int) -> int:
        while stage < len(stages) and state & stages[stage][0] == stages[stage][0] and not state & stages[stage][1]:
            stage += 1
        return stage

    cheapest: dict[tuple[int, bool], float] = {}  # (bit, sign) -> least cost of an action that achieves it
    for action in (*first, *actions):
        for mask, sign in ((action.add, True), (action.delete, False)):
            for bit in _each(mask):
                cheapest[bit, sign] = min(action.cost, cheapest.get((bit, sign), math.inf))

    def remaining(state: int, stage: int) -> float:
        """A lower bound: the hardest open literal of the current stage needs one action."""
        if stage == len(stages):
            return 0.0
        yes, no = stages[stage]
        costs = [cheapest.get((bit, True), math.inf) for bit in _each(yes & ~state)]
        costs += [cheapest.get((bit, False), math.inf) for bit in _each(no & state)]
        return max(costs, default=0.0)

    root = (start, advance(start, 0))
    best = {root: 0.0}
    parents: dict[tuple[int, int], tuple[tuple[int, int], _Action]] = {}
    queue: list[tuple[float, int, tuple[int, int]]] = [(remaining(*root), 0, root)]
    closed: set[tuple[int, int]] = set()
    counter = 0
    while queue:
        _, _, node = heapq.heappop(queue)
        if node in closed:
            continue
        state, stage = node
        if stage == len(stages):
            return _read_off(node, parents, best[node])
        if len(closed) >= limit:
            return Plan((), 0.0, f"I found no plan within {limit} steps of thought")
        closed.add(node)
        for action in first if node == root else actions:
            if not action.applies(state):
                continue
            after = state & ~action.delete | action.add
            if after == state:
                continue
            following = (after, advance(after, stage))
            held = state & stages[stage][0] & ~action.delete
            cost = best[node] + action.cost + sum(price for bit, price in action.risks if bit & held)
            cost += STAGE_COST * (len(stages) - stage)
            if following in closed or cost >= best.get(following, math.inf):
                continue
            best[following], parents[following] = cost, (node, action)
            bound = cost + remaining(*following)
            if bound < math.inf:
                counter += 1
                heapq.heappush(queue, (bound, counter, following))
    return Plan((), 0.0, "I have skills for every part, but no order of them reaches all of it")


def _read_off(
    node: tuple[int, int], parents: dict[tuple[int, int], tuple[tuple[int, int], _Action]], cost: float
) -> Plan:
    steps: list[Step] = []
    while node in parents:
        node, action = parents[node]
        steps.append(action.step)
    return Plan(tuple(reversed(steps)), min(1.0, math.exp(STEP_COST * len(steps) - cost)))


def ground_all(
    operators: Iterable[Operator], goal: Goal, true: set[str], allowed: Callable[[Goal], bool] | None
) -> list[GroundOperator]:
    """Every operator bound to every possible goal of its schema about the goal's places or ``anywhere``."""
    places = {arg for literal in goal.literals for arg in literal.args if arg in PLACE_NAMES} | {ANYWHERE}
    found = []
    for operator in operators:
        for instance in ground(operator.schema):
            used = {name for name in binding(instance).values() if name in PLACE_NAMES}
            if used <= places and impossible_reason(instance) is None and (allowed is None or allowed(instance)):
                found.append(operator.ground(instance, dict.fromkeys(true, True)))
    atoms = set(true).union(*(o.add | o.delete | o.needs for o in found), (x.atom for x in goal.literals))
    return [by_definition(operator, atoms) for operator in found]


def by_definition(operator: GroundOperator, atoms: set[str]) -> GroundOperator:
    """The operator with what its goal entails added, and what its goal excludes among ``atoms`` deleted.

    A skill moves what its goal speaks of first. What the goal excludes of another thing's whereabouts (the other block
    in the drawer, where both should lie side by side) it cannot be expected to change: that has to be false before.
    """
    wanted = [literal for literal in operator.goal.final if literal.positive]
    certain = {str(fact) for literal in wanted for fact in (literal, *entailed(literal))}
    known = {a for a in atoms - certain if a.partition("(")[0] in PREDICATES}  # of what was invented nothing is certain
    excluded = {a for a in known if any(_excludes(str(literal), a) for literal in wanted)}
    moved = {literal.args[0] for literal in wanted}
    elsewhere = {a for a in excluded - operator.delete if _whereabouts(a) and not moved & {*Literal.parse(a).args}}
    return replace(
        operator,
        add=(operator.add - excluded) | certain,
        delete=(operator.delete | excluded) - certain - elsewhere,
        forbids=operator.forbids | elsewhere,
    )


def _whereabouts(atom: str) -> bool:
    return Literal.parse(atom).predicate in ("on", "inside")


def relevant(goal: Goal, operators: list[GroundOperator]) -> tuple[dict[str, int], list[GroundOperator]]:
    """Facts that matter, as bits, and the operators that change one of them."""
    facts = dict.fromkeys(literal.atom for literal in goal.literals)
    chosen: dict[int, GroundOperator] = {}
    growing = True
    while growing:
        growing = False
        for i, operator in enumerate(operators):
            if i not in chosen and (operator.add | operator.delete) & facts.keys():
                chosen[i] = operator
                contexts = [part for lesson in operator.lessons for part in lesson]
                own = {literal.atom for literal in operator.goal.final}
                for part in (operator.needs, operator.forbids, own, *contexts):
                    facts |= dict.fromkeys(sorted(part))
                growing = True
    return {fact: 1 << i for i, fact in enumerate(facts)}, [chosen[i] for i in sorted(chosen)]


def _masks(literals: Iterable[tuple[str, bool]], bits: Mapping[str, int]) -> tuple[int, int]:
    yes = no = 0
    for atom, sign in literals:
        bit = bits.get(atom, 0)
        yes, no = (yes | bit, no) if sign else (yes, no | bit)
    return yes, no


def _compile(operator: GroundOperator, bits: Mapping[str, int], probability: float) -> _Action:
    cost = STEP_COST - math.log(probability)
    risks = tuple((bits[atom], -math.log(1.0 - rate)) for atom, rate in sorted(operator.risk.items()) if atom in bits)
    return _Action(
        step=Step(operator.schema, str(operator.goal), probability),
        needs=_masks(((a, True) for a in operator.needs), bits)[0],
        forbids=_masks(((a, True) for a in operator.forbids), bits)[0],
        add=_masks(((a, True) for a in operator.add), bits)[0],
        delete=_masks(((a, True) for a in operator.delete), bits)[0],
        goal=_masks(((x.atom, x.positive) for x in operator.goal.final), bits),
        lessons=tuple(
            _masks([*((a, True) for a in yes), *((a, False) for a in no)], bits) for yes, no in operator.lessons
        ),
        risks=risks,
        cost=cost,
    )


@lru_cache(maxsize=16384)
def _excludes(one: str, other: str) -> bool:
    return conflict(Literal.parse(one), Literal.parse(other)) is not None


def _each(mask: int) -> Iterable[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


def _missing(goal: Goal, true: set[str], operators: list[GroundOperator]) -> str:
    """Why a literal of the goal cannot be reached even if nothing were ever undone; "" where all can be."""
    reachable = set(true)  # facts that can be true
    erasable: set[str] = set()  # facts of now that can be made false
    usable: set[int] = set()
    growing = True
    while growing:
        growing = False
        for i, operator in enumerate(operators):
            if i not in usable and operator.needs <= reachable and not operator.forbids & true - erasable:
                usable.add(i)
                reachable |= operator.add
                erasable |= operator.delete
                growing = True
    for literal in goal.literals:
        atom = literal.atom
        if atom in reachable if literal.positive else atom not in true or atom in erasable:
            continue
        for operator in operators:
            if atom in (operator.add if literal.positive else operator.delete):
                lacking = sorted(operator.needs - reachable)
                lacking += [f"not {fact}" for fact in sorted(operator.forbids & true - erasable)]
                return f"I can achieve {literal} only when {lacking[0]} holds, and no skill achieves that"
        return f"I have no skill that achieves {literal}"
    return ""
