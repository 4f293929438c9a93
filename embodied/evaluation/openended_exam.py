"""The exam of an open-ended run: instructions of depth 1 to 6, impossible ones, and possible ones that look like those.

The sentences are frozen in ``openended.json``, as `draw` gives them (``python -m embodied.evaluation.openended_exam``).
*Depth* is the number of steps of the embedded planner's plan with the table-top's true operators, from a plain table.
None of the goals can be proposed for practice: they name places or have stages, where the proposer has single goals,
put down anywhere, and pairs of them. The scripted expert carries out each of the deep ones from some start. What is
impossible is one of three:

contradiction   the vocabulary's definitions exclude (the drawer open and closed at once)
stranger        speaks of things that are not there, or that cannot be handled so
unreachable     no definition excludes, but no order of skills reaches, nor the geometry of blocks, cabinet and gripper
                allows: a covered block on the table under one that is lifted, two blocks stacked in the closed drawer

To each there is a possible instruction much like it. One is *refused* where it cannot be read, or has no plan, when it
is given: before anything moves. A repertoire that can do little refuses much, so both rates are read together, and
pair by pair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from embodied.evaluation.heldout import Instruction, exam, instructions
from embodied.language.symbolic_world import SymbolicWorld, tabletop
from embodied.planning.execute import Outcome, PlanFunction, draw_starts, make_env, symbolic_state
from embodied.repertoire import Repertoire
from embodied.training.rollouts import Actor
from envs.goals import Goal, GoalError, Literal, all_ground_goals, impossible_reason, parse_instruction
from envs.monitor import InstructionMonitor
from envs.vocabulary import ANYWHERE, BLOCKS, PLACES

__all__ = ["DEPTHS", "KINDS", "Asked", "OpenExam", "draw", "examine", "frozen", "proposable", "refused"]

SEED = 20_261_161
DEPTHS, EACH = (1, 2, 3, 4, 5, 6), 10
KINDS, PAIRS = ("contradiction", "stranger", "unreachable"), 16
TRIES = 5_000
STRANGERS = {  # noun phrase → what there is not, and what there is but cannot be handled so
    "the red block": ("the green block", "the cup", "the lamp", "the cabinet", "the table"),
    "the blue block": ("the yellow block", "the ball", "the drawer", "the lamp"),
    "the drawer": ("the fridge", "the box", "the bag"),
    "the lamp": ("the radio", "the kettle", "the window"),
    "the cabinet": ("the shelf", "the chair", "the roof"),
}


@dataclass(frozen=True)
class Asked:
    """A sentence; its goal (none where it cannot be read), and its depth or kind."""

    text: str
    goal: Goal | None
    about: str


@dataclass(frozen=True)
class OpenExam:
    """The deep instructions (about: the depth), the impossible ones (the kind), and those that look like them."""

    deep: tuple[Asked, ...]
    impossible: tuple[Asked, ...]
    alike: tuple[Asked, ...]

    def to_json(self) -> str:
        """One line a sentence."""
        parts = []
        for name in ("deep", "impossible", "alike"):
            rows = [[asked.about, asked.text, asked.goal and str(asked.goal)] for asked in getattr(self, name)]
            parts.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]")
        return "{\n" + f'"seed": {SEED},\n' + ",\n".join(parts) + "\n}\n"

    @property
    def digest(self) -> str:
        """Eight digits that tell one exam from another."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]

    def shortened(self, each: int) -> OpenExam:
        """The first few of every depth and kind."""

        def some(rows: Sequence[Asked]) -> tuple[Asked, ...]:
            return tuple(r for i, r in enumerate(rows) if [x.about for x in rows[:i]].count(r.about) < each)

        return OpenExam(some(self.deep), some(self.impossible), some(self.alike))


@cache
def frozen() -> OpenExam:
    """The exam as it is frozen."""
    found = json.loads(files("embodied.evaluation").joinpath("openended.json").read_text(encoding="utf-8"))
    parts = (
        tuple(Asked(text, None if goal is None else Goal.parse(goal), about) for about, text, goal in found[name])
        for name in ("deep", "impossible", "alike")
    )
    return OpenExam(*parts)


# ---- sitting it


def examine(
    repertoire: Repertoire,
    seed: int,
    questions: OpenExam,
    *,
    planner: PlanFunction | None = None,
    alone: Actor | None = None,
    episodes: int = 3,
    threads: int = 0,
    tick: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Success on physics and plans made by depth, and how much of what is impossible, and alike, is refused.

    ``planner`` is another than the repertoire's. ``alone`` is a policy that is given the goals themselves, stage by
    stage, and not planned for: it refuses nothing that can be read. ``able`` counts what is impossible only where the
    possible instruction like it was not refused. Ready for JSON.
    """
    plan = planner or repertoire.planner()
    asked = [Instruction(q.text, q.goal, int(q.about)) for q in questions.deep if q.goal is not None]
    row, outcomes = "loop" if alone is None else "play", dict[int, Outcome]()
    found = exam(
        repertoire, alone, seed, episodes, threads=threads, rows=(row,), questions=asked, tick=tick, planner=plan,
        outcomes=outcomes,
    )  # fmt: skip
    plans: dict[str, list[int]] = {}
    for slot, outcome in outcomes.items():
        plans.setdefault(str(asked[slot // episodes].steps), []).append(len(outcome.plans))
    how = plan if alone is None else None
    impossible = refused(questions.impossible, how, seed + 1, episodes, repertoire)
    alike = refused(questions.alike, how, seed + 2, episodes, repertoire)
    by_depth = found["rows"][row]["by_steps"]
    return {
        "success": {depth: {k: part[k] for k in ("successes", "n")} for depth, part in by_depth.items()},
        "plans": {depth: float(np.mean(counts)) for depth, counts in sorted(plans.items())},
        "refused": {
            "impossible": _rates(questions.impossible, impossible),
            "alike": _rates(questions.alike, alike),
            "able": _rates(questions.impossible, impossible, ~alike),
        },
    }


def refused(
    rows: Sequence[Asked], plan: PlanFunction | None, seed: int, starts: int, repertoire: Repertoire | None = None
) -> np.ndarray:
    """bool[rows, starts]: which sentences are refused when given, from so many drawn starts each.

    Without a planner only what cannot be read is. ``repertoire`` lends the predicates that its operators invented.
    """
    found, read = np.ones((len(rows), starts), np.bool_), dict[int, Goal]()
    for i, row in enumerate(rows):
        try:
            read[i] = parse_instruction(row.text)
        except GoalError:
            continue
    if not read:
        return found
    found[list(read)] = False
    if plan is None:
        return found
    slots = [(i, k) for i in read for k in range(starts)]
    goals = [read[i] for i, _ in slots]
    env = make_env((), len(slots), 1)
    draw_starts(env, goals, seed)
    judge = InstructionMonitor(goals)
    states = symbolic_state(env.facts, repertoire.inventions if repertoire is not None else ())
    for slot, (i, k) in enumerate(slots):
        carried = {text: x for text, x in judge.holds(env.facts, slot).items() if text.startswith("placed")}
        found[i, k] = isinstance(plan(states[slot] | carried, goals[slot], {}), str)
    env.close()
    return found


def _rates(rows: Sequence[Asked], refusals: np.ndarray, among: np.ndarray | None = None) -> dict[str, list[int]]:
    """Kind → [refused, asked], of those in ``among`` (bool like ``refusals``), or all."""
    found: dict[str, list[int]] = {}
    counted = np.ones_like(refusals) if among is None else among
    for row, of, these in zip(rows, refusals, counted, strict=True):
        counts = found.setdefault(row.about, [0, 0])
        counts[0] += int((of & these).sum())
        counts[1] += int(these.sum())
    return found


# ---- drawing it


def proposable(goal: Goal) -> bool:
    """Whether a proposer might choose the goal for practice: single goals, and pairs of them at once."""
    practised = {goal.final[0] for goal in all_ground_goals()}
    return goal.is_conjunction and len(goal.final) <= 2 and practised.issuperset(goal.final)


def draw(seed: int = SEED, reaches: Callable[[list[Goal]], np.ndarray] | None = None) -> OpenExam:
    """The exam; ``reaches`` says which of some deep goals the scripted expert carries out (none: no deep ones)."""
    world, taken = SymbolicWorld(tabletop()), {item.goal for item in instructions()}
    found = [
        pair for k, kind in enumerate(KINDS) for pair in _pairs(world, np.random.default_rng([seed, k]), kind, taken)
    ]
    rng = np.random.default_rng([seed, len(KINDS)])
    deep = [row for depth in DEPTHS for row in _deep(world, rng, depth, taken, reaches)] if reaches is not None else []
    impossible, alike = zip(*found, strict=True)
    return OpenExam(tuple(deep), impossible, alike)


def _deep(
    world: SymbolicWorld, rng: np.random.Generator, depth: int, taken: set[Goal],
    reaches: Callable[[list[Goal]], np.ndarray],
) -> list[Asked]:  # fmt: skip
    found: list[Asked] = []
    while len(found) < EACH:
        some: list[Goal] = []
        for _ in range(TRIES):
            goal = _composed(rng, max(1, depth - int(rng.integers(0, 2))))
            if goal and goal not in {*taken, *some} and not proposable(goal) and _depth(world, goal) == depth:
                some.append(goal)
            if len(some) == EACH - len(found):
                break
        if not some:
            raise ValueError(f"no further goal of depth {depth} can be drawn")
        kept = [goal for goal, fine in zip(some, reaches(some), strict=True) if fine]
        taken |= {*some}
        found += [Asked(goal.text(rng), goal, str(depth)) for goal in kept]
    return found


def _pairs(world: SymbolicWorld, rng: np.random.Generator, kind: str, taken: set[Goal]) -> list[tuple[Asked, Asked]]:
    """Impossible instructions of a kind, each with the possible one that looks like it."""
    found: list[tuple[Asked, Asked]] = []
    for _ in range(TRIES):
        if len(found) == PAIRS:
            break
        made = {"contradiction": _contradiction, "stranger": _stranger, "unreachable": _unreachable}[kind](rng)
        if made is None:
            continue
        text, goal, like = made
        if like in taken or proposable(like) or impossible_reason(like) or not 1 <= _depth(world, like) <= DEPTHS[-1]:
            continue
        if text in {other.text for other, _ in found} or (kind == "unreachable" and _depth(world, goal) >= 0):
            continue
        found.append((Asked(text, goal, kind), Asked(like.text(rng if kind != "stranger" else None), like, kind)))
        taken.add(like)
    return found


def _pool() -> dict[str, list[Literal]]:
    """Predicate → the literals of practised goals, with every named place where they have none."""
    found: dict[str, list[Literal]] = {}
    for goal in all_ground_goals():
        (literal,) = goal.final
        named = [(literal.args[0], place) for place in PLACES] if ANYWHERE in literal.args else [literal.args]
        found.setdefault(literal.predicate, []).extend(Literal(literal.predicate, a, literal.positive) for a in named)
    return found


def _one(rng: np.random.Generator) -> Literal:
    pool = _pool()
    rows = pool[list(pool)[rng.integers(len(pool))]]
    return rows[rng.integers(len(rows))]


def _composed(rng: np.random.Generator, literals: int) -> Goal | None:
    """So many literals in stages of up to three."""
    stages: list[list[Literal]] = [[_one(rng)]]
    for _ in range(literals - 1):
        if len(stages[-1]) < 3 and rng.random() < 0.5:
            stages[-1].append(_one(rng))
        else:
            stages.append([_one(rng)])
    try:
        goal = Goal(tuple(map(tuple, stages)))
    except GoalError:
        return None
    whole = sum(map(len, goal.stages)) == literals == len(set(goal.literals))
    return goal if whole and impossible_reason(goal) is None else None


def _depth(world: SymbolicWorld, goal: Goal) -> int:
    """Steps from a plain table: the drawer shut, both blocks apart on it, the lamp not as it shall be. -1: no plan."""
    lamp = [Literal.parse("lit(lamp)")] if Literal.parse("not lit(lamp)") in goal.final else []
    state = world.state(["closed(drawer)", "clear(red)", "clear(blue)", *map(str, lamp)])
    found = world.plan(goal, state)
    return len(found.steps) if found.found else -1


def _contradiction(rng: np.random.Generator) -> tuple[str, Goal, Goal] | None:
    """Two things that exclude one another at once; possible is the one after the other."""
    one, other = _one(rng), _one(rng)
    more = [Literal.parse(("lit(lamp)", "not lit(lamp)")[rng.integers(2)])] if rng.random() < 0.5 else []
    if one == other or "lit" in (one.predicate, other.predicate):
        return None
    goal = Goal.of(one, other, *more)
    if impossible_reason(goal) is None:
        return None
    return goal.text(rng), goal, Goal(((one,), (other, *more)))


def _stranger(rng: np.random.Generator) -> tuple[str, Goal | None, Goal] | None:
    """A sentence with one thing in place of another, such that it cannot be read."""
    like = _composed(rng, 2)
    if like is None:
        return None
    text = like.text()
    nouns = [noun for noun in STRANGERS if noun in text]
    noun = nouns[rng.integers(len(nouns))]
    text = text.replace(noun, STRANGERS[noun][rng.integers(len(STRANGERS[noun]))])
    try:
        parse_instruction(text)
    except GoalError:
        return text, None, like
    return None


def _unreachable(rng: np.random.Generator) -> tuple[str, Goal, Goal] | None:
    x, y = rng.permutation(BLOCKS).tolist()[:2]
    place = list(PLACES)[rng.integers(len(PLACES))]
    shut = f"inside({y}, drawer)", "closed(drawer)"
    goal, like = (
        ((f"placed({y}, {place})", f"not clear({y})", f"lifted({x})"), (f"placed({y}, {place})", f"lifted({x})")),
        ((f"on({x}, {y})", *shut), (f"on({x}, cabinet)", *shut)),
        ((f"not clear({y})", *shut), (f"placed({x}, {place})", *shut)),
    )[rng.integers(3)]
    more = ((), ("lit(lamp)",), ("not lit(lamp)",))[rng.integers(3)]
    made, possible = Goal.of(*goal, *more), Goal.of(*like, *more)
    return None if impossible_reason(made) else (made.text(rng), made, possible)


def _expert(goals: list[Goal]) -> np.ndarray:
    """bool[n]: which goals the scripted expert carries out from one of two starts at least."""
    asked = [Instruction("", goal, 1) for goal in goals]
    found = exam(Repertoire(), None, SEED + 1, 2, 0, 1, ("oracle",), questions=asked)
    return np.array([any(entry["episodes"]["oracle"]) for entry in found["instructions"]])


if __name__ == "__main__":
    print(draw(SEED, _expert).to_json(), end="")
