r"""SOAR: practice is paid by what it gains on hard goals that were frozen before (arXiv 2601.18778).

Of each schema the least successful goal that is not mastered is set apart, with the episodes to measure it on. After
each practice they are measured with the policy that was practised, and the schema practised is paid

.. math:: g = \sum_{h \in H} \max\Bigl(0,\; p_h - \max_{\text{before}} p_h\Bigr),

what it added to the best that was measured on each of them before. The choice is a bandit's
(`embodied.curriculum.bandit`) on that pay: :math:`Q \leftarrow \alpha g + (1-\alpha) Q`, drawn by
:math:`\exp(Q/\tau)`. So practice that other goals gain by too is worth more than practice that serves its own alone,
and what is merely noise about a rate reached before earns nothing. Once half of the goals are mastered, others are
frozen.

The paper trains a language model as the teacher, by policy gradient on that reward; kinds of goals are few, so a
moving average will do here. Measuring costs environment steps (``EPISODES`` a goal), which count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embodied.curriculum.bandit import SCALE, value
from embodied.curriculum.records import Choice, Situation
from envs.goals import Goal, schema_of

__all__ = ["EPISODES", "HARD", "HardGoals", "score"]

HARD = 12  # goals that are frozen together, at most
EPISODES = 16  # that each is measured on after a practice, the same every time


@dataclass
class HardGoals:
    """The frozen goals with the best rate measured on each, and what practice of each schema was paid so far."""

    best: dict[str, float] = field(default_factory=dict)
    paid: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: Mapping[str, Any], rates: Mapping[str, float], mastered: Collection[str]) -> HardGoals:
        """What was kept (`to_dict`), frozen anew from ``rates`` (goal → last success rate) where most are mastered."""
        found = cls(dict(kept.get("best", {})), {name: list(p) for name, p in kept.get("paid", {}).items()})
        if 2 * sum(goal not in mastered for goal in found.best) <= len(found.best):
            least: dict[str, str] = {}
            for goal in sorted(rates, key=lambda goal: (rates[goal], goal)):
                if goal not in mastered:
                    least.setdefault(schema_of(Goal.parse(goal)), goal)
            found.best = {goal: rates[goal] for goal in list(least.values())[:HARD]}
        return found

    def pay(self, practised: str, rates: Mapping[str, float]) -> float:
        """Pays the schema of a goal that was practised, from the rates measured after it; the pay."""
        gains = [max(0.0, rates[goal] - best) for goal, best in self.best.items()]
        self.best = {goal: max(best, rates[goal]) for goal, best in self.best.items()}
        self.paid.setdefault(schema_of(Goal.parse(practised)), []).append(sum(gains))
        return sum(gains)

    def to_dict(self) -> dict[str, Any]:
        return {"best": self.best, "paid": self.paid}


def score(goals: Sequence[Goal], situation: Situation) -> list[Choice]:
    """Each goal by what practice of its schema was paid, as a Choice."""
    return [_score(goal, situation.gains.get(schema_of(goal), ())) for goal in goals]


def _score(goal: Goal, paid: Sequence[float]) -> Choice:
    if paid:
        why = f"practice of this kind last added {round(100 * paid[-1])} points to goals that are hard for me"
    else:
        why = "I have not practised its kind since I measure what that gives to hard goals"
    return Choice(goal, SCALE * value(paid), f"I propose to {goal.text()}: {why}.")
