"""OGBench's protocol: five goals of a task, fifty episodes of each, the average of the goals' success rates.

A policy sees features of (state, goal), the goal being the observation that OGBench gives at each reset. An episode
ends, with success, as soon as all that its goal names is done, or without when the task's steps are used up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embodied.evaluation.environments import EnvironmentReport, PolicyError, evaluate_policy
from embodied.skills.statistics import wilson
from embodied.training.rollouts import Actor
from envs.suites.ogbench import GOALS
from policies import load_policy

__all__ = ["GoalsReport", "evaluate_goals"]

Features = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""States float32[n, O] and goals float32[n, O] -> features float32[n, F]."""


@dataclass(frozen=True)
class GoalsReport:
    """Successes int64[5] and episodes int64[5] of each goal, and the report of all episodes together."""

    successes: np.ndarray
    episodes: np.ndarray
    all: EnvironmentReport

    @property
    def rate(self) -> float:
        """The average of the goals' success rates."""
        return float(np.mean(self.successes / self.episodes))

    def summary(self) -> dict[str, Any]:
        """The average, each goal's rate with Wilson's interval, and what `EnvironmentReport.summary` has (whose
        ``lower`` and ``upper`` are of all episodes together); ready for JSON.
        """
        lower, upper = wilson(self.successes, self.episodes)
        goals = [
            {
                "goal": i + 1,
                "successes": int(k),
                "n": int(n),
                "rate": float(k / n),
                "lower": float(a),
                "upper": float(b),
            }
            for i, (k, n, a, b) in enumerate(zip(self.successes, self.episodes, lower, upper, strict=True))
        ]
        return self.all.summary() | {"rate": self.rate, "goals": goals}


def evaluate_goals(
    env_name: str,
    policy: str | Path | Actor,
    episodes: int = 50,
    seed: int = 0,
    *,
    features: Features | None = None,
    num_envs: int = 10,
    on_steps: Callable[[int], None] | None = None,
    **arguments: Any,
) -> GoalsReport:
    """Plays ``episodes`` of each goal of ``ogbench/TASK``.

    Args:
        policy: as in `evaluate_policy`: ``random``, ``expert``, a directory, or anything that acts on features.
        features: what the policy sees; state and goal side by side where it is not given.
        num_envs: simulations stepped together, rounded up to a multiple of five.
        arguments: the environment's own (``max_steps=100``).

    Raises PolicyError for another suite's environment, a task without goals, or a policy that does not fit.
    """
    if not env_name.startswith("ogbench/") or "singletask" in env_name:
        raise PolicyError(f"{env_name} has no five goals; OGBench's tasks have: ogbench/cube-single, ogbench/scene …")
    if episodes < 1:
        raise PolicyError(f"{episodes} episodes of a goal measure nothing; at least 1 is needed")
    name = str(policy) if isinstance(policy, str | Path) else type(policy).__name__
    if isinstance(policy, str | Path) and Path(policy).is_dir():
        policy = load_policy(policy)
        policy.seed(seed)
    acts = policy if isinstance(policy, str | Path) else _OnFeatures(policy, features)
    slots = GOALS * min(-(-num_envs // GOALS), episodes)
    found = evaluate_policy(
        env_name,
        acts,
        GOALS * episodes,
        seed,
        num_envs=slots,
        on_steps=on_steps,
        goals=range(1, GOALS + 1),
        **arguments,
    )
    found = replace(found, policy=name, report=replace(found.report, policy=name))
    goal = np.array([line.slot for line in found.episodes]) % GOALS
    success = np.array([line.success for line in found.episodes])
    successes, counts = np.bincount(goal[success], minlength=GOALS), np.bincount(goal, minlength=GOALS)
    return GoalsReport(successes, counts, found)


class _OnFeatures:
    """A policy on features, given a suite's flat observations: the goal first, then the state."""

    def __init__(self, policy: Actor, features: Features | None) -> None:
        self.policy, self.features = policy, features or (lambda state, goal: np.concatenate([state, goal], axis=1))

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        goal, now = np.split(observation, 2, axis=1)
        features = self.features(now, goal)
        size = getattr(self.policy, "observation_size", None)
        if size not in (None, features.shape[1]):
            raise PolicyError(f"the policy takes {size} numbers, but state and goal make {features.shape[1]} features")
        return self.policy.predict(features, state, episode_start, deterministic=deterministic)
