r"""Agent0: goals of which nobody can say whether they will succeed, less those too like the latest (arXiv 2511.16043).

.. math:: 1 - 2\,\bigl|\hat p - \tfrac12\bigr| \;-\; \frac1B \sum_{r \in \text{recent}} \mathrm{sim}(g, r)

with :math:`\hat p` the rate of the goal's last evaluation under a uniform prior (one half for a goal never tried, as
uncertain as can be) and the repetition penalty of the last B proposals. The paper takes the share of a batch in
the goal's cluster by BLEU; goals are terms here, so likeness is exact: the share of predicates and objects (Jaccard)
that two goals have in common, 1 for the same goal. Nothing malformed can be proposed, so the paper's check of form and
its reward for tool use have no counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence

from embodied.curriculum.progress import progress
from embodied.curriculum.records import Choice, Situation
from envs.goals import Goal

__all__ = ["likeness", "score"]

REPETITION = 1.0


def likeness(one: Goal, other: Goal) -> float:
    """The share of predicates (a negated one is another) and objects that two goals have in common, 0 … 1."""
    mine, others = _symbols(one), _symbols(other)
    return len(mine & others) / len(mine | others)


def _symbols(goal: Goal) -> set[str]:
    predicates = {f"{'' if literal.positive else 'not '}{literal.predicate}" for literal in goal.literals}
    return predicates | {arg for literal in goal.literals for arg in literal.args}


def score(goals: Sequence[Goal], situation: Situation) -> list[Choice]:
    """Each goal by the uncertainty of its outcome less repetition, as a Choice."""
    latest = [Goal.parse(text) for text in situation.recent]
    return [_score(goal, latest, situation) for goal in goals]


def _score(goal: Goal, latest: Sequence[Goal], situation: Situation) -> Choice:
    history = situation.record(goal).history
    rate = progress(history[-1:]).rate
    repetition = sum(likeness(goal, other) for other in latest) / max(1, len(latest))
    if history:
        why = f"it works in about {round(100 * rate)} % of attempts, so the outcome is open"
    else:
        why = "I have never tried it"
    text = f"I propose to {goal.text()}: {why}, and {round(100 * repetition)} % of it is as in what I tried lately."
    return Choice(goal, 1.0 - 2.0 * abs(rate - 0.5) - REPETITION * repetition, text)
