"""A symbolic simulator: ground operators applied to whole batches of imagined states; the fast verifier of plans.

A state is bool[A] over the world's atoms, a skill one of K ground operators. A step succeeds where the operator's
precondition holds and no lesson speaks against it; a skill whose goal holds already changes nothing. A plan reaches a
goal when its every step succeeds and the goal's stages were met in order, the last one at the end. With a generator,
each step also fails with its operator's probability of failing, and then changes nothing.

`tabletop` gives the true operators of the table-top, from the vocabulary, for what is learnt before any run exists:
what is carried must be clear and not behind a closed drawer, a place is for one block, what stands on the other block,
in the drawer or on the cabinet is beside nothing. Operators learnt in a run are taken as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied.planning.operators import GroundOperator, Lesson, Model, Operator
from embodied.planning.search import Plan, by_definition, plan
from envs.goals import Goal, all_ground_goals, ground, impossible_reason, schema_of
from envs.monitor import STATE_LITERALS
from envs.vocabulary import BLOCKS, PLACE_NAMES, PLACES

__all__ = ["SymbolicWorld", "Verdict", "random_start", "tabletop"]

_RELATIONS = ("left_of(?a, ?b)", "left_of(?b, ?a)", "in_front_of(?a, ?b)", "in_front_of(?b, ?a)", "next_to(?a, ?b)")
_SHUT_IN = "inside({}, drawer)", "not open(drawer)"
_TRIALS = (98, 98)  # successes and executions that a given operator counts for


@dataclass(frozen=True)
class Verdict:
    """What became of n plans: ``success`` bool[n], ``states`` bool[n, A] at their ends, ``broke`` int[n], the step
    that failed (-1: none did), ``met`` int[n], after how many steps the goal was first met (-1: never), and ``stage``
    int[n], the goal's stage that they had come to."""

    success: np.ndarray
    states: np.ndarray
    broke: np.ndarray
    met: np.ndarray
    stage: np.ndarray


class SymbolicWorld:
    """Ground operators as arrays. ``allowed`` withholds single groundings; schemas are taken in sorted order."""

    def __init__(
        self, operators: Mapping[str, Operator] | Iterable[Operator], allowed: Callable[[Goal], bool] | None = None
    ) -> None:
        pool = operators.values() if isinstance(operators, Mapping) else operators
        self.operators = {operator.schema: operator for operator in sorted(pool, key=lambda o: o.schema)}
        found: list[GroundOperator] = []
        for operator in self.operators.values():
            for goal in ground(operator.schema):
                if impossible_reason(goal) is None and (allowed is None or allowed(goal)):
                    found.append(operator.ground(goal))
        atoms = {str(literal) for literal in STATE_LITERALS}
        atoms |= {f"{name}({block}, {place})" for name in ("at", "placed") for block in BLOCKS for place in PLACE_NAMES}
        atoms = atoms.union(*(o.add | o.delete | o.needs | o.forbids for o in found))
        self.grounded = [by_definition(operator, atoms) for operator in found]
        self.atoms = tuple(sorted(atoms.union(*(o.add for o in self.grounded))))
        self.goals = tuple(operator.goal for operator in self.grounded)
        self.schemas = tuple(operator.schema for operator in self.grounded)
        self.probabilities = np.array([operator.probability for operator in self.grounded])
        self._column = {atom: i for i, atom in enumerate(self.atoms)}
        self._skill = {goal: k for k, goal in enumerate(self.goals)}
        none = np.zeros((0, len(self.atoms)), np.bool_)
        self.needs, self.forbids, self.add, self.delete = (
            np.stack([self._mask(part) for part in parts]) if parts else none
            for parts in zip(*((o.needs, o.forbids, o.add, o.delete) for o in self.grounded), strict=True)
        ) if self.grounded else (none,) * 4  # fmt: skip
        self._reached = [self.literals(goal.final) for goal in self.goals]
        self._done_yes = np.stack([yes for yes, _ in self._reached]) if self._reached else none
        self._done_no = np.stack([no for _, no in self._reached]) if self._reached else none
        self._lessons = self._lesson_masks()

    def __len__(self) -> int:
        return len(self.goals)

    def skill(self, goal: Goal | str) -> int:
        """Number of the skill with that ground goal; KeyError where there is none."""
        return self._skill[Goal.parse(goal) if isinstance(goal, str) else goal]

    def state(self, facts: Mapping[str, bool] | Iterable[str]) -> np.ndarray:
        """bool[A] from facts; those the world does not speak of are dropped."""
        true = (atom for atom, holds in facts.items() if holds) if isinstance(facts, Mapping) else facts
        return self._mask(true)

    def facts(self, state: np.ndarray) -> frozenset[str]:
        """The true atoms of a state."""
        return frozenset(self.atoms[i] for i in np.flatnonzero(state))

    def literals(self, stage: Iterable[object]) -> tuple[np.ndarray, np.ndarray]:
        """A stage's literals as masks bool[A]: which must be true, and which false."""
        signed = [(literal.atom, literal.positive) for literal in stage]  # type: ignore[attr-defined]
        yes, no = ([atom for atom, sign in signed if sign is wanted] for wanted in (True, False))
        if any(atom not in self._column for atom in yes):
            return np.ones(len(self.atoms), np.bool_), np.ones(len(self.atoms), np.bool_)  # never
        return self._mask(yes), self._mask(no)

    def applicable(self, states: np.ndarray) -> np.ndarray:
        """bool[n, K]: which skills would succeed in states bool[n, A], those whose goal holds already set aside."""
        free = ~(self.needs[None] & ~states[:, None]).any(-1) & ~(self.forbids[None] & states[:, None]).any(-1)
        free &= ~self._warned(states[:, None], slice(None))
        done = ~(self._done_yes[None] & ~states[:, None]).any(-1) & ~(self._done_no[None] & states[:, None]).any(-1)
        return free & ~done

    def step(self, states: np.ndarray, skills: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(states bool[n, A] after skills int[n], whether each may be used bool[n]); -1 stands for doing nothing."""
        k = np.maximum(skills, 0)
        done = ~(self._done_yes[k] & ~states).any(-1) & ~(self._done_no[k] & states).any(-1) | (skills < 0)
        free = ~(self.needs[k] & ~states).any(-1) & ~(self.forbids[k] & states).any(-1)
        free &= ~self._warned(states, k)
        after = np.where((free & ~done)[:, None], states & ~self.delete[k] | self.add[k], states)
        return after, free | done

    def run(
        self,
        states: np.ndarray,
        goals: Sequence[Goal],
        plans: Sequence[Sequence[int]],
        rng: np.random.Generator | None = None,
    ) -> Verdict:
        """Carries out a plan (numbers of skills) for each of n goals from states bool[n, A]."""
        n, longest = len(goals), max((len(p) for p in plans), default=0)
        skills = np.full((n, longest), -1, np.int64)
        for i, steps in enumerate(plans):
            skills[i, : len(steps)] = steps
        yes, no, last = self._stages(goals)
        rows, stage = np.arange(n), np.zeros(n, np.int64)
        states, broke = states.copy(), np.full(n, -1, np.int64)

        def advance() -> np.ndarray:
            """Moves on through stages that are met; whether the last one is."""
            for _ in range(yes.shape[1]):
                holds = ~(yes[rows, stage] & ~states).any(-1) & ~(no[rows, stage] & states).any(-1)
                stage[:] = np.where(holds & (stage < last) & (broke < 0), stage + 1, stage)
            holds = ~(yes[rows, stage] & ~states).any(-1) & ~(no[rows, stage] & states).any(-1)
            return holds & (stage == last) & (broke < 0)

        done = advance()
        met = np.where(done, 0, -1)
        for t in range(longest):
            after, fine = self.step(states, skills[:, t])
            going = (broke < 0) & (skills[:, t] >= 0)
            if rng is not None:
                going &= rng.random(n) < self.probabilities[np.maximum(skills[:, t], 0)]
            broke[(broke < 0) & ~fine] = t
            states = np.where((going & fine)[:, None], after, states)
            done = advance()
            met = np.where(done & (met < 0), t + 1, met)
        return Verdict(done, states, broke, met, stage)

    def plan(self, goal: Goal, state: np.ndarray) -> Plan:
        """The embedded planner's plan from a state bool[A]."""
        return plan(goal, self.facts(state), self.operators, grounded=self.grounded)

    def _stages(self, goals: Sequence[Goal]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        last = np.array([len(goal.stages) - 1 for goal in goals], np.int64)
        width = int(last.max(initial=0)) + 1
        yes = np.zeros((len(goals), width, len(self.atoms)), np.bool_)
        no = np.zeros_like(yes)
        known: dict[Goal, list[tuple[np.ndarray, np.ndarray]]] = {}
        for i, goal in enumerate(goals):
            if goal not in known:
                known[goal] = [self.literals(stage) for stage in goal.stages]
            for s, (wanted, unwanted) in enumerate(known[goal]):
                yes[i, s], no[i, s] = wanted, unwanted
        return yes, no, last

    def _lesson_masks(self) -> tuple[np.ndarray, np.ndarray]:
        """What must be true and false for a lesson to hold, bool[K, M, A]; unused rows can never hold."""
        most = max((len(operator.lessons) for operator in self.grounded), default=0)
        yes = np.ones((len(self.grounded), most, len(self.atoms)), np.bool_)
        no = np.ones_like(yes)
        for k, operator in enumerate(self.grounded):
            for m, (these, those) in enumerate(operator.lessons):
                if all(atom in self._column for atom in these):
                    yes[k, m], no[k, m] = self._mask(these), self._mask(those)
        return yes, no

    def _warned(self, states: np.ndarray, skills: np.ndarray | slice) -> np.ndarray:
        """bool[n, ...]: whether a lesson speaks against skills in states bool[n, ..., A]."""
        yes, no = (part[skills] for part in self._lessons)
        here = states[..., None, :]
        return np.any(~(yes & ~here).any(-1) & ~(no & here).any(-1), axis=-1)

    def _mask(self, atoms: Iterable[str]) -> np.ndarray:
        mask = np.zeros(len(self.atoms), np.bool_)
        mask[[self._column[atom] for atom in atoms if atom in self._column]] = True
        return mask


# the table-top as it is ------------------------------------------------------------------------------------


def tabletop() -> dict[str, Operator]:
    """The true operators of the table-top, a schema each; what goals entail and exclude is left to the planner."""
    schemas = dict.fromkeys(schema_of(goal) for goal in all_ground_goals())
    return {schema: Operator(schema, _model=_true_model(schema)) for schema in schemas}


def _true_model(schema: str) -> Model:
    name = schema.split("(")[0]
    moved, other = ("?b", "?a") if name == "next_to" else ("?a", "?b")  # of two side by side the canonical first moves
    gone = {f"{held}({block})" for held in ("holding", "lifted", "touching") for block in BLOCKS}
    if "?a" not in schema:
        return _model((), (), gone)
    needs = [f"clear({moved})"]
    gone = {f"{held}({block})" for held in ("holding", "lifted", "touching") for block in ("?a", "?b")}
    gone |= {*_RELATIONS, *(f"{at}({moved}, {p})" for at in ("at", "placed") for p in PLACE_NAMES)}
    gone |= {f"on({moved}, {other})", f"on({moved}, cabinet)", f"inside({moved}, drawer)"}
    freed = {f"clear({other})", f"clear({moved})"}
    if name == "placed":
        needs.append("not at(?b, ?p)")
    elif name == "inside":
        needs.append("open(drawer)")
    elif name == "on" and "cabinet" not in schema:
        needs += ["clear(?b)", "not on(?b, cabinet)", "not inside(?b, drawer)", "not holding(?b)"]
        freed, gone = {"clear(?a)"}, gone | {"clear(?b)"}
    elif name in ("left_of", "in_front_of", "next_to"):
        needs += [f"not on({other}, cabinet)", f"not inside({other}, drawer)", f"not holding({other})"]
    lesson = Lesson((_SHUT_IN[0].format(moved), _SHUT_IN[1]), 0, 0, "the drawer is shut over it")
    return _model(needs, freed, gone, lesson)


def _model(needs: Iterable[str], add: Iterable[str], delete: Iterable[str], *lessons: Lesson) -> Model:
    added, gone = (dict.fromkeys(sorted(facts), 1.0) for facts in (add, delete))
    return Model(tuple(needs), added, gone, {}, lessons, {"": _TRIALS}, (0, 0))


def random_start(rng: np.random.Generator) -> frozenset[str]:
    """True facts of a start drawn at random: drawer, lamp, and where each block rests; nothing is held."""
    facts = {("open(drawer)", "closed(drawer)", "")[rng.choice(3, p=(0.45, 0.45, 0.1))]}
    facts |= {"lit(lamp)"} if rng.random() < 0.5 else set()
    spots: dict[str, str] = {}
    for block in rng.permutation(BLOCKS).tolist():
        others = [name for name in spots if spots[name] not in ("drawer", "cabinet") and name not in spots.values()]
        kinds = ["table", "place", "place", "drawer", "cabinet", *(["block"] if others else [])]
        kind = kinds[rng.integers(len(kinds))]
        free = [p for p in PLACES if p not in spots.values()]
        spots[block] = {"table": "", "place": free[rng.integers(len(free))], "block": others[0] if others else ""}.get(
            kind, kind
        )
    for block, spot in spots.items():
        if spot in PLACES:
            facts |= {f"at({block}, {spot})", f"placed({block}, {spot})"}
        elif spot == "drawer":
            facts |= {f"inside({block}, drawer)"}
        elif spot in ("cabinet", *BLOCKS):
            facts |= {f"on({block}, {spot})"}
        if block not in spots.values():
            facts |= {f"clear({block})"}
    if all(spot in PLACES or not spot for spot in spots.values()) and rng.random() < 0.5:
        one, two = rng.permutation(BLOCKS).tolist()[:2]
        facts |= {f"{('left_of', 'in_front_of')[rng.integers(2)]}({one}, {two})"}
        facts |= {f"next_to({BLOCKS[0]}, {BLOCKS[1]})"} if rng.random() < 0.3 else set()
    return frozenset(facts - {""})
