"""Starts where probes disagree (ExIt, DemoStart): practice begins where success is neither certain nor out of reach.

Of the states that experience left, some are drawn, and the policy as it is tries a goal ``PROBES`` times from each,
with the noise that it practises with. Where k of K probes succeed, k (K - k) pairs of a success and a failure can be
made of them; a state is taken that often. So states from which nothing or everything succeeds, where a policy gradient
has next to nothing to learn from, are left out, and those in the middle count most. Probes cost environment steps,
which count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embodied.training.rollouts import MAX_STEPS, Begun, Trial, draw, measure_all
from envs.vector import TabletopVectorEnv

if TYPE_CHECKING:
    from policies.multi_critic_ppo import MultiCriticPPO

__all__ = ["PROBES", "disagreement", "probed_starts"]

PROBES = 4
SHARE = 0.08  # of the steps of practice that probing may cost, at most
LEAST = 8  # states probed, however short the practice


def disagreement(success: np.ndarray) -> np.ndarray:
    """int64[m]: pairs of a state's probes, one that succeeded and one that did not; success bool[m, K]."""
    k = np.asarray(success, np.int64).sum(axis=1)
    return k * (np.asarray(success).shape[1] - k)


def probed_starts(
    policy: MultiCriticPPO,
    kept: tuple[np.ndarray, np.ndarray],
    goals: Sequence[str],
    steps: int,
    seed: int,
    *,
    threads: int = 0,
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """((states float64[k, S], facts float64[k, NX]) to begin a practice of ``steps`` steps in, steps spent).

    ``kept`` are what is drawn from; they come back as they are where probes disagree nowhere. States are shared out
    over ``goals``; where none of a few drawn for a goal will do, an ordinary start is probed, and may be taken.
    """
    each = max(LEAST, int(SHARE * steps) // (PROBES * MAX_STEPS)) // len(goals) + 1
    env = TabletopVectorEnv(each, list(goals), autoreset_mode="Disabled", threads=threads, kept=kept, kept_share=1.0)
    drawn = [draw(env, Trial(goal, each, seed + k), k) for k, goal in enumerate(goals)]
    env.close()
    begun = [Begun(*(np.repeat(x, PROBES, axis=0) for x in (d.states, d.places, d.facts))) for d in drawn]
    trials = [Trial(goal, each * PROBES, seed + k) for k, goal in enumerate(goals)]
    policy.seed(seed % (1 << 31))
    runs = measure_all(policy, trials, begun=begun, threads=threads, deterministic=False)
    times = np.concatenate([disagreement(run.report.success.reshape(each, PROBES)) for run in runs])
    spent = sum(run.steps for run in runs)
    if not times.any():
        return kept, spent
    states, facts = (np.concatenate([getattr(d, name) for d in drawn]) for name in ("states", "facts"))
    return (np.repeat(states, times, axis=0), np.repeat(facts, times, axis=0)), spent
