"""Which mastered goals count, and which must be among them: the counting rule of every figure about mastery.

A goal counts where no other counted goal implies it; target positions count once; reaching and touching do
not count (``embodied.skills.distinct``).
"""

from __future__ import annotations

from collections.abc import Sequence

from embodied.skills.distinct import distinct_goals
from envs.goals import Goal
from envs.vocabulary import ANYWHERE, PLACES

REQUIRED = {  # what the repertoire must contain: any of the goals named, or one that implies it
    "drawer open": ("open(drawer)",),
    "drawer closed": ("closed(drawer)",),
    "lamp lit": ("lit(lamp)",),
    "red block lifted": ("lifted(red)",),
    "blue block lifted": ("lifted(blue)",),
    "red block placed at a given place": tuple(f"placed(red, {place})" for place in (*PLACES, ANYWHERE)),
    "blue block placed at a given place": tuple(f"placed(blue, {place})" for place in (*PLACES, ANYWHERE)),
    "red block put in the drawer": ("inside(red, drawer)",),
    "blue block put in the drawer": ("inside(blue, drawer)",),
    "stacked": ("on(red, blue)", "on(blue, red)"),
}


def implies(goal: str, other: str) -> bool:
    """Whether reaching the one goal surely reaches the other; both as texts."""
    return Goal.parse(goal).implies(Goal.parse(other))


def distinct(goals: Sequence[str]) -> list[str]:
    """The goals that count, in the order given; the required ones, where present, are among them."""
    wanted = [goal for named in REQUIRED.values() for goal in named]
    return distinct_goals(goals, implies, wanted)


def missing(goals: Sequence[str]) -> list[str]:
    """What of REQUIRED no mastered goal implies."""
    return [name for name, named in REQUIRED.items() if not any(implies(goal, one) for goal in goals for one in named)]
