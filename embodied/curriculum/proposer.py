r"""Which goal to practise next, among the terms of the closed grammar.

Candidates are the practised single goals that are not mastered, frozen or excluded; once there are none left,
conjunctions of two mastered goals that are possible and where neither implies the other. Each candidate
scores

.. math:: 2\,L + \tfrac12\,U + 2\,P + \tfrac12\,R - C_r - 2\,C_c

with L the learning progress beyond its noise, U the uncertainty of the success rate relative to a goal never
tried, P the success rate, one half where nothing is known (easy first: what is nearly mastered costs least to
finish, and harder goals begin from the skills it leaves), R the readiness (what share of its objects, and
whether its predicate, is mastered elsewhere: goals next to what is known come first), :math:`C_r` its share of
the recent proposals and :math:`C_c` its cost (number of arguments, so that goals of one object come before those
of two, and steps an attempt takes relative to the longest). Goals are drawn without replacement with probability
proportional to exp(score / temperature), so equal goals take turns; the same seed gives the same choice. The
ablation's ``uniform`` mode draws from the same candidates with equal probability: only the
order differs. Other scores are drawn in the same way: ``sec`` (`embodied.curriculum.bandit`), ``soar``
(`embodied.curriculum.gain`) and ``uncertainty`` (`embodied.curriculum.uncertainty`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from embodied.curriculum import bandit, gain, uncertainty
from embodied.curriculum.progress import Progress, progress
from embodied.curriculum.records import Choice, Record, Situation
from envs.goals import Goal, all_ground_goals, impossible_reason, parse_instruction

__all__ = ["MODES", "Choice", "Record", "candidates", "choose", "readiness"]

LEARNING, UNCERTAINTY, PROMISE, READINESS, REPETITION, COST = 2.0, 0.5, 2.0, 0.5, 1.0, 2.0
UNTRIED = 0.288675  # standard deviation of a success rate nothing is known about
RECENT = 10  # proposals over which repetition is counted


def choose(
    records: Sequence[Record],
    *,
    excluded: Sequence[str] = (),
    recent: Sequence[str] = (),
    gains: Mapping[str, Sequence[float]] | None = None,
    count: int = 1,
    seed: int = 0,
    mode: str = "progress",
    temperature: float = 0.1,
) -> list[Choice]:
    """Up to ``count`` different goals, the first drawn first; [] where nothing is left to propose.

    ``excluded`` are goals or English instructions never to practise (GoalError where one cannot be read);
    ``recent`` the text forms of the latest proposals; ``gains`` what practice was paid, for the mode "soar"
    (`embodied.curriculum.gain`). ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode '{mode}' of the proposer; valid are {', '.join(MODES)}")
    known = {Goal.parse(record.goal): record for record in records}
    goals = candidates(records, excluded)
    if not goals or count < 1:
        return []
    rng = np.random.default_rng(seed)
    if mode == "uniform":
        picked = rng.permutation(len(goals))[:count]
        reason = f"drawn at random among the {len(goals)} goals I may practise"
        return [Choice(goals[i], 0.0, f"I propose to {goals[i].text()}: {reason}.") for i in picked]
    scored = SCORES[mode](goals, Situation(known, tuple(recent)[-RECENT:], gains or {}))
    noise = rng.gumbel(size=len(scored))  # the largest of score/temperature + Gumbel noise is a softmax draw
    keys = np.array([choice.score for choice in scored]) / temperature + noise
    return [scored[i] for i in np.argsort(-keys, kind="stable")[:count]]


def score(goals: Sequence[Goal], situation: Situation) -> list[Choice]:
    """Each goal by the module's formula, as a Choice."""
    records, latest = situation.records, situation.recent
    mastered = [goal for goal, record in records.items() if record.status == "mastered"]
    longest = max((record.steps for record in records.values()), default=0.0)
    scored = []
    for goal in goals:
        record = situation.record(goal)
        seen = progress(record.history)
        ready = readiness(goal, mastered)
        share = latest.count(str(goal)) / max(1, len(latest))
        cost = 0.5 * min(1.0, sum(len(x.args) for x in goal.literals) / 2.0)
        cost += 0.5 * (record.steps / longest if longest > 0 else 0.0)
        total = LEARNING * seen.learning + UNCERTAINTY * seen.uncertainty / UNTRIED + READINESS * ready
        total += PROMISE * seen.rate
        total -= REPETITION * share + COST * cost
        scored.append(Choice(goal, float(total), _reason(goal, record, seen, ready)))
    return scored


SCORES: dict[str, Callable[[Sequence[Goal], Situation], list[Choice]]] = {
    "progress": score,
    "sec": bandit.score,
    "soar": gain.score,
    "uncertainty": uncertainty.score,
}
MODES = ("progress", "uniform", "sec", "soar", "uncertainty")


def candidates(records: Sequence[Record], excluded: Sequence[str] = ()) -> list[Goal]:
    """The goals that may be proposed now, in a fixed order."""
    forbidden = [parse_instruction(text) for text in excluded]
    closed = [Goal.parse(record.goal) for record in records if record.status != "open"]
    mastered = {Goal.parse(record.goal) for record in records if record.status == "mastered"}

    def free(goal: Goal) -> bool:
        ruled_out = any(goal.implies(other) and other.implies(goal) for other in (*forbidden, *closed))
        return not ruled_out and impossible_reason(goal) is None

    singles = all_ground_goals()
    left = [goal for goal in singles if free(goal)]
    if left:
        return left
    pairs = []
    for one, other in combinations([goal for goal in singles if goal in mastered], 2):
        if one.final[0].negated == other.final[0] or one.implies(other) or other.implies(one):
            continue
        both = Goal.of(*one.final, *other.final)
        if free(both):
            pairs.append(both)
    return pairs


def readiness(goal: Goal, mastered: Sequence[Goal]) -> float:
    """How close a goal is to what is mastered, 0 … 1: half for its predicates, half for its objects."""
    literals = [literal for other in mastered for literal in other.literals]
    predicates = {literal.predicate for literal in literals}
    objects = {arg for literal in literals for arg in literal.args}
    mine = {literal.predicate for literal in goal.literals}
    things = {arg for literal in goal.literals for arg in literal.args}
    return 0.5 * len(mine & predicates) / len(mine) + 0.5 * len(things & objects) / len(things)


def _reason(goal: Goal, record: Record, seen: Progress, ready: float) -> str:
    rate, spread = round(100 * seen.rate), round(100 * seen.uncertainty)
    if len(goal.literals) > 1:
        why = "I can do each alone, and everything single is mastered"
    elif not record.history:
        why = "I have never tried it" + (", and I can do something close to it" if ready >= 0.5 else "")
    elif seen.learning > 0:
        way = "rose" if seen.change > 0 else "fell"
        why = f"its success rate {way} by {abs(round(100 * seen.change))} points lately, to {rate} %"
    else:
        why = f"it works in about {rate} % of attempts (give or take {spread}), and it is not mastered"
    return f"I propose to {goal.text()}: {why}."
