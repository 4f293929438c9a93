"""Learning a skill's operator: executions wherever experience left the world, and experiments.

Both kinds are counted alike. Where executions that began in equal abstract states came out differently, a predicate
that tells them apart is looked for, and further executions are made to confirm it; if they do, the operator counts its
facts too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from embodied.planning.execute import symbolic_state
from embodied.planning.invention import Executions, Naming, executions, invent
from embodied.planning.operators import Operator
from embodied.training.episodes import seed_of
from embodied.training.experiments import experiment
from embodied.training.kept import KeptStates
from embodied.training.rollouts import Actor, Measured, Trial, measure_all
from envs.goals import Goal

__all__ = ["EXPERIMENTS", "count", "learn_operator"]

EXPERIMENTS = 2  # for every execution

Batch = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""Executions of a goal: its text, facts at start and end float64[n, NX], success bool[n]."""


def learn_operator(
    policy: Actor,
    schema: str,
    trials: Sequence[Trial],
    kept: KeptStates,
    *,
    threads: int = 0,
    taken: Iterable[str] = (),
    naming: Naming | None = None,
    on_steps: Callable[[int], None] | None = None,
    declared: bool = False,
) -> tuple[Operator, dict[str, list[int]]]:
    """The operator of a schema from executions of its goals, and goal → [successes, n] of those not experiments.

    To every execution that a trial asks for there are `EXPERIMENTS`. ``kept`` lends states to begin from and is
    given those that the executions end in. ``taken`` are predicates (as text) invented for other schemas, whose names
    mean those. ``declared``: the operator stays as its goal declares it, and no experiment is made.
    """

    def ordinary(asked: Sequence[Trial], keeping: KeptStates | None) -> list[Measured]:
        return measure_all(
            policy, asked, threads=threads, free_starts=True, kept=keeping, starts=kept.arrays(), on_steps=on_steps
        )

    def tested(asked: Sequence[Trial]) -> list[Batch]:
        how = {"threads": threads, "on_steps": on_steps}
        return [
            _batch(t.goal, experiment(policy, t.goal, EXPERIMENTS * t.n, seed_of(t.seed, 1), kept.arrays(), **how))
            for t in asked
        ]

    if declared:
        return Operator(schema), _rates(trials, ordinary(trials, kept))
    batches = tested(trials)
    first = ordinary(trials, kept)
    batches += [_batch(t.goal, one) for t, one in zip(trials, first, strict=True)]
    again: list[Batch] = []

    def fresh() -> Executions:
        anew = [Trial(t.goal, t.n, seed_of(t.seed, 2)) for t in trials]
        again.extend(tested(anew))
        again.extend(_batch(t.goal, one) for t, one in zip(anew, ordinary(anew, None), strict=True))
        return _lifted(schema, again)

    names = [text.partition("(")[0].strip() for text in taken]
    found = invent(schema, _lifted(schema, batches), fresh, taken=names, naming=naming)
    operator = Operator(schema, invented=[found] if found is not None else [])
    count(operator, [*batches, *again])
    return operator, _rates(trials, first)


def count(operator: Operator, batches: Sequence[Batch]) -> None:
    """Lets an operator observe executions, with the facts of what was invented for it."""
    for goal, start, end, success in batches:
        parsed = Goal.parse(goal)
        before, after = (symbolic_state(facts, operator.invented) for facts in (start, end))
        for one, other, reached in zip(before, after, success, strict=True):
            operator.observe(parsed, one, other, bool(reached))


def _rates(trials: Sequence[Trial], found: Sequence[Measured]) -> dict[str, list[int]]:
    return {t.goal: [one.report.successes, one.report.n] for t, one in zip(trials, found, strict=True)}


def _batch(goal: str, found: Measured) -> Batch:
    return goal, found.start, found.end, found.report.success


def _lifted(schema: str, batches: Sequence[Batch]) -> Executions:
    parts = [
        executions(Operator(schema), Goal.parse(goal), symbolic_state(start), start, success)
        for goal, start, _, success in batches
    ]
    return sum(parts[1:], parts[0])
