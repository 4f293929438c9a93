r"""Choosers of goals compared on a simulated learner: a check of their formulas, no claim about the robot.

The learner is a graph of the world's own goals, in which a goal needs others (`needs`). It has a skill
:math:`x_g \in [0, 1]` for each; with :math:`q_g = \prod_{h \in \text{needs}(g)} \min(1, p_h / 0.8)`, how far what a
goal needs is there, an attempt succeeds with

.. math:: p_g = x_g\, q_g, \qquad x_g \leftarrow x_g + \eta\, q_g\, (1 - x_g)

where the second is what one practice of its schema does. So practice is wasted on a goal whose needs are missing, on
one that is learnt, and on nothing else. Goals are evaluated once at the start and, with their schema, after each of
its practices; a goal whose evaluation has a Wilson bound of 0.8 or more is mastered and stays so. Choosers see the
evaluations, never x, p or the graph. ``oracle`` does: of the goals whose needs are there it finishes the most
successful first.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from embodied.curriculum.gain import EPISODES, HardGoals
from embodied.curriculum.proposer import MODES, Record, choose
from embodied.skills.statistics import wilson
from envs.goals import Goal, all_ground_goals, schema_of

__all__ = ["ORACLE", "SimulatedLearner", "compare", "live", "needs"]

ORACLE = "oracle"
FIRST, RATE, SERVES = 0.1, 0.6, 0.8  # x at the start, η, and the success from which a need is met
EVALUATED = 24  # attempts of an evaluation


def needs(goal: Goal) -> list[Goal]:
    """What has to be known for a goal: lifting to put down, that to bring to a place, and an open drawer for inside."""
    (literal,) = goal.final
    block = literal.args[0]
    if literal.predicate == "placed":
        return [Goal.parse(f"lifted({block})")]
    if literal.predicate == "inside":
        return [Goal.parse(f"placed({block}, anywhere)"), Goal.parse("open(drawer)")]
    if literal.predicate == "next_to":
        return [Goal.parse(f"left_of({a}, {b})") for a, b in (literal.args, literal.args[::-1])]
    if literal.predicate in ("on", "left_of", "in_front_of"):
        return [Goal.parse(f"placed({block}, anywhere)")]
    return []


class SimulatedLearner:
    """Skills ``x`` by goal; `practise` changes them, `attempt` draws from them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = dict.fromkeys(all_ground_goals(), FIRST)

    def ready(self, goal: Goal) -> float:
        """How far what a goal needs is there, 0 … 1."""
        return float(np.prod([min(1.0, self.success(need) / SERVES) for need in needs(goal)]))

    def success(self, goal: Goal) -> float:
        """The probability that an attempt succeeds."""
        return self.x[goal] * self.ready(goal)

    def practise(self, schema: str) -> list[Goal]:
        """Practises a schema; its goals."""
        ready = {goal: self.ready(goal) for goal in self.x if schema_of(goal) == schema}
        for goal, share in ready.items():
            self.x[goal] += RATE * share * (1.0 - self.x[goal])
        return list(ready)

    def attempt(self, goal: Goal, n: int = EVALUATED) -> tuple[int, int]:
        """(successes, n) of attempts."""
        return int(self.rng.binomial(n, self.success(goal))), n


def live(mode: str, seed: int, rounds: int = 60) -> list[int]:
    """Mastered goals after each of ``rounds`` practices that ``mode`` chose, in one learner's life."""
    learner = SimulatedLearner(seed)
    history = {goal: [learner.attempt(goal)] for goal in learner.x}
    mastered: set[Goal] = {goal for goal, seen in history.items() if _proved(seen[-1])}
    hard, recent, counts = HardGoals(), list[str](), list[int]()
    for number in range(rounds):
        if len(mastered) == len(history):
            counts.append(len(mastered))
            continue
        rates = {str(goal): seen[-1][0] / seen[-1][1] for goal, seen in history.items()}
        hard = HardGoals.of(hard.to_dict(), rates, {str(goal) for goal in mastered})
        chosen = _choice(mode, learner, history, mastered, recent, hard, seed * 1_000 + number)
        recent.append(str(chosen))
        for goal in learner.practise(schema_of(chosen)):
            history[goal].append(learner.attempt(goal))
            if _proved(history[goal][-1]):
                mastered.add(goal)
        tried = {goal: learner.attempt(Goal.parse(goal), EPISODES) for goal in hard.best}
        hard.pay(str(chosen), {goal: s / n for goal, (s, n) in tried.items()})
        counts.append(len(mastered))
    return counts


def _choice(
    mode: str, learner: SimulatedLearner, history: dict[Goal, list[tuple[int, int]]], mastered: set[Goal],
    recent: Sequence[str], hard: HardGoals, seed: int,
) -> Goal:  # fmt: skip
    if mode == ORACLE:
        return max((g for g in history if g not in mastered), key=lambda g: (learner.ready(g), learner.x[g]))
    records = [
        Record(str(goal), tuple(seen), "mastered" if goal in mastered else "open") for goal, seen in history.items()
    ]
    return choose(records, recent=recent[-10:], gains=hard.paid, seed=seed, mode=mode)[0].goal


def _proved(evaluation: tuple[int, int]) -> bool:
    return bool(wilson(*evaluation)[0] >= SERVES)


def compare(seeds: Sequence[int], rounds: int = 60, modes: Sequence[str] = (*MODES, ORACLE)) -> dict[str, float]:
    """Mode → median over seeds of the mean number of mastered goals over ``rounds`` practices."""
    return {mode: median(float(np.mean(live(mode, seed, rounds))) for seed in seeds) for mode in modes}
