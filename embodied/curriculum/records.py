"""What choosers of goals are told, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embodied.curriculum.progress import progress
from envs.goals import Goal

__all__ = ["STATUSES", "Choice", "Record", "Situation"]

STATUSES = ("open", "mastered", "frozen")


@dataclass(frozen=True)
class Record:
    """What is known of practising one goal; raises GoalError or ValueError where it cannot be.

    ``goal`` is a text form; ``history`` holds evaluations (successes, n), oldest first; ``status`` is "open",
    "mastered" (admitted to the library) or "frozen" (given up, or held out); ``steps`` the mean control steps
    an attempt takes, 0 where unknown.
    """

    goal: str
    history: tuple[tuple[int, int], ...] = ()
    status: str = "open"
    steps: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "goal", str(Goal.parse(self.goal)))
        progress(self.history)
        if self.status not in STATUSES:
            raise ValueError(f"unknown status '{self.status}'; valid are {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Situation:
    """All that a goal is scored by: records by goal, the latest proposals, oldest first, and what practice was paid.

    ``gains`` are those of `embodied.curriculum.gain`: schema practised → what it added to the success rates of
    frozen hard goals, summed, one number a practice, oldest first.
    """

    records: Mapping[Goal, Record] = field(default_factory=dict)
    recent: tuple[str, ...] = ()
    gains: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def record(self, goal: Goal) -> Record:
        """A goal's record; an empty one where it was never tried."""
        return self.records.get(goal) or Record(str(goal))


@dataclass(frozen=True)
class Choice:
    """A proposed goal, its score and one sentence of reason."""

    goal: Goal
    score: float
    reason: str
