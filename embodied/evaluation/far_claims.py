"""How the claim about far goals (play.c) is measured; see `embodied.evaluation.claims` for what is claimed.

Policies learnt from play are asked for goals two and three tasks away: as they are, with the goal asked for one thing
at a time (`embodied.planning.stitching`), and with a value learnt from the same play saying which thing is next. All
sit the same questions, which no training and no choice of settings has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.batches import Encoder
from embodied.evaluation.arms import ARMS, BEST, SCENE, Arm, play_data, trained
from embodied.evaluation.claims import ClaimError, Context, Measurement
from embodied.evaluation.goal_exam import Act, acting, chains, set_exam, sit_exam
from embodied.planning.stitching import Stitched
from embodied.skills.statistics import wilson
from embodied.training.offline import load_goal_policy
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import load
from envs.scenes.subgoals import Subgoals
from policies.goal_values import GoalValuePolicy
from policies.offline import OfflinePolicy

__all__ = ["far_goals"]

TEST_SEED = 20_261_123
EACH = 14  # questions a chain of tasks; the expert solves most chains, not all
DEPTHS = (2, 3)
VALUE = Arm(
    "gcivl", {"hidden": (256, 256, 256), "learning_rate": 1e-3, "target_rate": 0.02, "discount": 0.98}, updates=10_000
)
PLAIN, STITCHED, VALUED, CHANCE = "without", "stitched, nearest first", "stitched, by value", "random actions"


def far_goals(context: Context) -> Measurement:
    """play.c: success two tasks away, stitched, nearest first; without, by a value and three tasks away beside it.

    The policies are those of ``context.runs`` (folders of `embodied train`), else the latent plans of play.a. Raises
    ClaimError where one was not learnt on the playroom's goal states.
    """
    if context.runs:
        learnt = {run.name: _loaded(run) for run in context.runs}
        seeds: tuple[int, ...] = tuple(range(len(learnt)))
    else:
        seeds = context.seeds_or(1 if context.quick else 3)
        learnt = {f"seed {seed}": _best(context, seed) for seed in seeds}
    value = trained(context, "value", VALUE, 0, play_data(context)).policy
    if not isinstance(value, GoalValuePolicy):
        raise ClaimError(f"{value.registry_key} has no value of goals")
    table = {str(depth): _at(context, depth, learnt, value) for depth in DEPTHS}
    figure = table["2"][STITCHED]
    details = {"tasks away": table, "policies": list(learnt), "value": dict(VALUE.config)}
    conditions = {} if context.quick else {"200 questions": figure["questions"] >= 200, "3 policies": len(learnt) >= 3}
    return Measurement(figure["rate"], (figure["lower"], figure["upper"]), seeds, figure["n"], conditions, details)


def _at(
    context: Context, depth: int, learnt: dict[str, tuple[OfflinePolicy, Encoder]], value: GoalValuePolicy
) -> dict[str, dict[str, Any]]:
    """What was found at a depth: arm -> rate over all policies and questions, with Wilson's interval and its parts."""
    scene = load(SCENE)
    exam = set_exam(chains(scene, depth), 1 if context.quick else EACH, TEST_SEED, scene=SCENE, depth=depth)
    subgoals, draws = Subgoals(scene), np.random.default_rng(0)
    arms: dict[str, Callable[[OfflinePolicy, Encoder], Act]] = {
        PLAIN: acting,
        STITCHED: lambda policy, encoder: Stitched(policy, encoder, subgoals),
        VALUED: lambda policy, encoder: Stitched(policy, encoder, subgoals, value),
        CHANCE: lambda policy, encoder: lambda facts, goals: draws.uniform(-1, 1, (len(facts), policy.action_size)),
    }
    found = {}
    for arm, make in arms.items():
        rates, solved = {}, np.zeros((0, len(exam)), np.bool_)
        for name, (policy, encoder) in learnt.items():
            if arm == CHANCE and rates:
                continue
            policy.seed(TEST_SEED)
            answers = sit_exam(make(policy, encoder), exam)
            solved = np.vstack([solved, answers.success])
            rates[name] = float(answers.success.mean())
            context.say(f"{depth} tasks away, {arm}, {name}: {rates[name]:.3f}")
        lower, upper = wilson(int(solved.sum()), solved.size)
        tasks = {t: float(solved[:, exam.which == k].mean()) for k, t in enumerate(exam.tasks) if k in exam.which}
        found[arm] = {
            "rate": float(solved.mean()), "lower": float(lower), "upper": float(upper), "n": solved.size,
            "questions": len(exam), "by_policy": rates, "by_task": tasks,
        }  # fmt: skip
    return found


def _loaded(run: Path) -> tuple[OfflinePolicy, Encoder]:
    policy, encoder = load_goal_policy(run)
    if not isinstance(encoder, GoalStates) or encoder.feature_size != GoalStates(load(SCENE)).feature_size:
        raise ClaimError(f"{run} was not learnt on the goal states of the {SCENE}")
    return policy, encoder


def _best(context: Context, seed: int) -> tuple[OfflinePolicy, Encoder]:
    """The best arm of play.a, trained now or found finished."""
    data = play_data(context)
    return trained(context, BEST, ARMS[BEST], seed, data).policy, data.encoder
