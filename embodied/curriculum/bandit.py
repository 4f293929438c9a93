r"""SEC: a bandit over kinds of goals, paid in measured learning (Self-Evolving Curriculum, arXiv 2505.14970).

Arms are the schemas of goals. A practice of arm c is paid :math:`r_c`, and

.. math:: Q_c \leftarrow \alpha\, r_c + (1-\alpha)\, Q_c, \qquad \Pr(c) \propto \exp(Q_c / \tau),

the paper's update and draw. There the reward is the mean absolute advantage of the policy gradient, a stand-in for
what is learnt; here what is learnt is measured: the change of a goal's success rate from one evaluation to the next,
beyond one standard deviation of its noise (`embodied.curriculum.progress`), up or down, since what is being forgotten
wants practice too. Nothing is known before the first evaluation, which is compared with no success in as many
attempts. An arm's value is the mean over its goals.

An arm begins at ``UNTRIED`` and not at the paper's 0: a kind of goal that was never tried comes before one that three
practices left as it was, and after one that rises. The sum of the exponents runs over goals that may be proposed, so
an arm of two such goals is drawn twice as often as an arm of one with the same value.
"""

from __future__ import annotations

from collections.abc import Sequence

from embodied.curriculum.progress import History, progress
from embodied.curriculum.records import Choice, Situation
from envs.goals import Goal, schema_of

__all__ = ["score", "score_of", "value"]

RATE = 0.5  # α
UNTRIED = 0.1  # success rate that an arm never tried is taken to gain
SCALE = 2.0  # of Q in a score: with the draw's temperature of 0.1, τ = 0.05


def value(rewards: Sequence[float]) -> float:
    """Q after rewards, oldest first."""
    q = UNTRIED
    for reward in rewards:
        q = RATE * reward + (1.0 - RATE) * q
    return q


def measured(history: History) -> list[float]:
    """The reward of each evaluation of a goal: how far its rate moved since the one before, beyond the noise."""
    if not history:
        return []
    whole = [(0, history[0][1]), *history]
    return [progress(whole[k : k + 2], window=1).learning for k in range(len(history))]


def score(goals: Sequence[Goal], situation: Situation) -> list[Choice]:
    """Each goal by its arm's value, as a Choice."""
    rewards: dict[str, list[float]] = {}
    for goal, record in situation.records.items():
        rewards.setdefault(schema_of(goal), []).append(value(measured(record.history)))
    return [score_of(goal, rewards.get(schema_of(goal), [UNTRIED]), situation) for goal in goals]


def score_of(goal: Goal, values: Sequence[float], situation: Situation) -> Choice:
    """One goal by the mean of the values of its arm."""
    q = sum(values) / len(values)
    if situation.record(goal).history:
        why = f"practice of this kind lately moved success by about {round(100 * q)} points"
    else:
        why = "I have never tried it"
    return Choice(goal, SCALE * q, f"I propose to {goal.text()}: {why}.")
