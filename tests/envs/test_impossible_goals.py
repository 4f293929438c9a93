"""Goals that no world can satisfy are told from those that one can, against worlds built piece by piece.

What is possible is found without the rules under test: every way to put two blocks, the drawer and the lamp is built
as facts (nothing interpenetrates, one gripper, things rest on something), and the predicates say what holds there.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from envs.goals import Goal, Literal, impossible_reason
from envs.monitor import truth_table
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import B_PEAK, BLOCK, BLOCK_STRIDE, COLUMNS, DRAWER, GRIP, LAMP, TOOL, WIDTH
from envs.vocabulary import BLOCKS, PLACES, PREDICATES, names_of

DRAWS = 6  # of every arrangement, within the tolerances
DEPENDENT = ("other", "left_of", "in_front_of", "next_to")  # on or beside the other block
GRIPS = (("", 0), ("touch", 0), ("touch", 1), ("hold", 0), ("hold", 1))
NAMED = [name for name in PREDICATES if name not in ("placed",)]  # ``placed`` needs a past; see below


def literals() -> list[Literal]:
    """Every positive ground literal with named places; of one thing to itself none can be built."""
    found = []
    for name in NAMED:
        for args in product(*(names_of(kind) for kind in PREDICATES[name])):
            if "anywhere" not in args:
                found.append(Literal(name, args))
    return sorted(set(found))


@cache
def worlds() -> np.ndarray:
    """Facts float[n, NX] of arrangements of two blocks, drawer, lamp and gripper."""
    rng, rows = np.random.default_rng(0), []
    spots = ["table", *PLACES, "cabinet", "drawer", "air", *DEPENDENT]
    for first, second, travel, lit, grip in product(spots, spots, (0.0, 0.07, 0.15), (0.0, 1.0), GRIPS):
        if first in DEPENDENT and second in DEPENDENT:
            continue
        for _ in range(DRAWS):
            row = _world(rng, (first, second), travel, lit, grip)
            if row is not None:
                rows.append(row)
    return np.array(rows)


def _world(
    rng: np.random.Generator, spots: tuple[str, str], travel: float, lit: float, grip: tuple
) -> np.ndarray | None:
    how, gripped = grip
    if any(spot == "air" and (how, gripped) != ("hold", block) for block, spot in enumerate(spots)):
        return None  # nothing floats
    x = np.zeros(len(COLUMNS))
    x[TOOL : TOOL + 3], x[GRIP], x[WIDTH], x[DRAWER], x[LAMP] = (0.5, 0.0, 0.4), 1.0, 0.08, travel, lit
    at: dict[int, np.ndarray] = {}
    for block in (0, 1) if spots[1] in DEPENDENT else (1, 0):
        xyz = _put(rng, spots[block], at.get(1 - block), travel)
        if 1 - block in at and np.all(np.abs(xyz - at[1 - block]) < 0.0398):
            return None  # two blocks in one place
        at[block] = xyz
        x[BLOCK + BLOCK_STRIDE * block :][:3] = xyz
        x[BLOCK + BLOCK_STRIDE * block + B_PEAK] = 0.1
    if how:  # the fingers are at a block, off its centre towards the other one or above it
        towards = at[1 - gripped] - at[gripped]
        off = towards / np.linalg.norm(towards) if rng.random() < 0.5 else np.array([0.0, 0.0, 1.0])
        x[TOOL : TOOL + 3] = at[gripped] + (0.014 if how == "hold" else 0.022) * rng.random() * off
        x[GRIP], x[WIDTH] = (-1.0, 0.04) if how == "hold" else (1.0, 0.08)
    return x


def _put(rng: np.random.Generator, spot: str, other: np.ndarray | None, travel: float) -> np.ndarray:
    """The position of a block, float64[3]."""
    turn, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
    off = far * np.array([np.cos(turn), np.sin(turn)])
    if spot in PLACES:
        return np.array([*(np.array(PLACES[spot]) + 0.0299 * off), BLOCK_HALF])
    if spot == "cabinet":
        return np.array([*(CABINET + 0.07 * off), CABINET_TOP + BLOCK_HALF])
    if spot == "drawer":
        return np.array([*(CABINET + (0.0, travel) + 0.06 * off), DRAWER_FLOOR + BLOCK_HALF])
    if other is not None and spot in DEPENDENT:
        step = {
            "other": (*(0.012 * off), 2 * BLOCK_HALF),
            "left_of": (rng.uniform(-0.034, 0.034), rng.uniform(0.051, 0.139), 0.0),
            "in_front_of": (rng.uniform(-0.139, -0.051), rng.uniform(-0.034, 0.034), 0.0),
            "next_to": (0.055 * np.cos(turn), 0.055 * np.sin(turn), 0.0),
        }[spot]
        return other + np.array(step)
    if spot == "air" and other is not None and rng.random() < 0.5:
        return other + (*(0.02 * off), rng.uniform(0.042, 0.1))  # noqa: RUF005 - a sum of vectors
    return np.array(
        [rng.uniform(0.33, 0.65), rng.uniform(-0.05, 0.28), rng.uniform(0.02, 0.25) if spot == "air" else 0.02]
    )


@cache
def truth() -> tuple[list[Literal], np.ndarray]:
    """The literals, and in which worlds each holds: bool[n, L]."""
    known = literals()
    table = truth_table(worlds(), known)
    for k, literal in enumerate(known):  # of a thing and itself the distances mean nothing
        if literal.args[0] == literal.args[-1] and len(literal.args) == 2:
            table[:, k] = False
    return known, table


def possible(goal: Goal) -> bool:
    """Whether some world satisfies the (single) stage."""
    known, table = truth()
    column = {literal: k for k, literal in enumerate(known)}
    held = np.ones(len(table), bool)
    for literal in goal.final:
        held &= table[:, column[literal if literal.positive else literal.negated]] == literal.positive
    return bool(held.any())


@cache
def goals(count: int = 1200) -> tuple[tuple[Goal, bool], ...]:
    """Distinct conjunctions of two or three literals, some negated, drawn; and whether a world satisfies each."""
    rng, known = np.random.default_rng(20_261_122), truth()[0]
    found: dict[Goal, bool] = {}
    while len(found) < count:
        drawn = [known[int(i)] for i in rng.choice(len(known), size=int(rng.integers(2, 4)), replace=False)]
        signs = rng.random(len(drawn)) < 0.8
        goal = Goal.of(*(x if sign else x.negated for x, sign in zip(drawn, signs, strict=True)))
        found.setdefault(goal, possible(goal))
    return tuple(found.items())


def test_every_single_literal_that_the_rules_allow_can_be_built() -> None:
    known, table = truth()
    for literal, holds in zip(known, np.atleast_1d(table.any(0)), strict=True):
        assert (impossible_reason(Goal.of(literal)) is None) == holds, literal


def test_impossible_goals_are_recognised_and_possible_ones_are_not_refused() -> None:
    verdicts = [(goal, can, impossible_reason(goal) is not None) for goal, can in goals()]
    impossible = [goal for goal, can, _ in verdicts if not can]
    missed = [str(goal) for goal, can, refused in verdicts if not can and not refused]
    wronged = [str(goal) for goal, can, refused in verdicts if can and refused]
    assert len(impossible) >= 300 and len(verdicts) - len(impossible) >= 300
    assert wronged == []
    assert len(missed) <= 0.05 * len(impossible), missed


def test_a_placed_block_rests_where_it_was_placed() -> None:
    """``placed`` is ``at`` with a past: whatever excludes the one excludes the other."""
    for goal, _ in goals()[:300]:
        texts = [str(x).replace("at(", "placed(") for x in goal.final if x.positive]
        at = [x for x in goal.final if x.positive]
        if texts and at and any(x.predicate == "at" for x in at):
            assert (impossible_reason(Goal.of(*texts)) is None) == (impossible_reason(Goal.of(*at)) is None)


def test_a_stage_that_is_impossible_makes_the_goal_so() -> None:
    for goal, can in goals()[:200]:
        text = f"open(drawer) ; {goal} ; lit(lamp)"
        assert not (can and impossible_reason(Goal.parse(text)))
        if impossible_reason(goal):
            assert impossible_reason(Goal.parse(text)) == impossible_reason(goal)
    assert len(BLOCKS) == 2  # the worlds above are built for two
