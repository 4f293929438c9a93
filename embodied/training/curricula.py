"""What a practice round does besides, where the run's settings ask for it: ``starts``, ``cloning``, ``proposer=soar``.

Everything that is measured on the way is spent from the run's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied.curriculum.gain import EPISODES, HardGoals
from embodied.data.store import EpisodeStore
from embodied.training.disagreement import probed_starts
from embodied.training.practice import refine
from embodied.training.relabelling import demonstrations
from embodied.training.rollouts import Trial, measure_all
from embodied.training.successes import own_successes
from policies.multi_critic_ppo import MultiCriticPPO

if TYPE_CHECKING:
    from embodied.training.rounds import Worker

__all__ = ["lessons", "pay", "prepare"]

LEAST = 8  # stretches below which nothing is cloned


def lessons(store: EpisodeStore, goals: Sequence[str], cloning: str) -> tuple[np.ndarray, np.ndarray, int, str]:
    """(features float32[m, F], actions float32[m, A], number of stretches, what they are) to clone for ``goals``."""
    told = own_successes(store, goals) if cloning == "filtered" else store
    data = [demonstrations(told.observations, told.actions, told.episode_ends, goal) for goal in goals]
    features, actions = (np.concatenate([getattr(d, name) for d in data]) for name in ("features", "actions"))
    name = "own successes" if cloning == "filtered" else "relabelled stretches"
    return features, actions, sum(d.count for d in data), name


def prepare(
    worker: Worker, policy: MultiCriticPPO, kin: dict[str, list[str]], asked: str, *, again: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """The kept states that practice of ``kin[asked]`` begins in, as ``starts`` says; None where there are none.

    With ``cloning=filtered`` a policy that was practised before (``again``) first learns from its successes.
    """
    config, kept = worker.config, worker.kept.arrays()
    if config.cloning == "filtered" and again:
        goals = [goal for found in kin.values() for goal in found]
        features, actions, count, _ = lessons(worker.journal.store, goals, config.cloning)
        if count >= LEAST:
            _, spent = refine(policy, features, actions, kin[asked], worker.seed(7), worker.practice_config)
            worker.spend(spent)
    if config.starts == "disagreement" and kept is not None:
        steps, seed = config.practice_steps, worker.seed(8)
        kept, spent = probed_starts(policy, kept, kin[asked], steps, seed, threads=config.threads)
        worker.spend(spent)
    return kept


def pay(worker: Worker, goals: Sequence[str], practised: str, policy: Any) -> None:
    """Pays practice of a goal what it added to hard ones among ``goals``, on the same episodes each time."""
    state = worker.journal.state
    last = {goal: state.history.get(goal, [[0, 1]])[-1] for goal in goals}
    mastered = {entry.goal for entry in worker.journal.library.mastered()}
    hard = HardGoals.of(state.hard, {goal: s / max(1, n) for goal, (s, n) in last.items()}, mastered)
    seed = 100_003 * worker.config.seed + 50_021  # the episodes are frozen with the goals
    trials = [Trial(goal, EPISODES, seed + k) for k, goal in enumerate(hard.best)]
    runs = measure_all(policy, trials, threads=worker.config.threads, on_steps=worker.spend)
    gain = hard.pay(practised, {run.report.goal: run.report.rate for run in runs})
    worker.journal.scalar("practice/gain", gain)
    state.hard = hard.to_dict()
