"""How the claim about far goals (play.c) is measured; see `embodied.evaluation.claims` for what is claimed.

Policies learnt from play are asked for goals two and three tasks away: as they are, with the goal asked for one thing
at a time (`embodied.planning.stitching`), and with a value learnt from the same play saying which thing is next. All
sit the same questions, which no training and no choice of settings has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.batches import Encoder, Recorded
from embodied.data.recording import Recording, record
from embodied.data.store import EpisodeStore
from embodied.evaluation.claims import ClaimError, Context, Measurement
from embodied.evaluation.goal_exam import Act, acting, chains, set_exam, sit_exam
from embodied.planning.stitching import Stitched
from embodied.skills.statistics import wilson
from embodied.training.offline import OfflineSettings, load_goal_policy, make_learner, train_offline
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import load
from envs.scenes.subgoals import Subgoals
from policies.goal_values import GoalValuePolicy
from policies.offline import OfflinePolicy

__all__ = ["far_goals"]

SCENE = "playroom"
TEST_SEED = 20_261_123
EACH = 14  # questions a chain of tasks; the expert solves most chains, not all
DEPTHS = (2, 3)
STEPS, QUICK_STEPS = 1_008_000, 30_000  # of play, at 20 Hz
POLICY: dict[str, Any] = {"execute": 8, "precision": "bfloat16", "hidden": (384, 384, 384), "temperature": 0.5}
VALUE: dict[str, Any] = {"hidden": (256, 256, 256), "learning_rate": 1e-3, "target_rate": 0.02, "discount": 0.98}
PLAIN, STITCHED, VALUED, CHANCE = "without", "stitched, nearest first", "stitched, by value", "random actions"


def far_goals(context: Context) -> Measurement:
    """play.c: success two tasks away, stitched, nearest first; without, by a value and three tasks away beside it.

    The policies are those of ``context.runs`` (folders of `embodied train` or of play.a), else trained here. Raises
    ClaimError where one was not learnt on the playroom's goal states.
    """
    if context.runs:
        learnt = {run.name: _loaded(run) for run in context.runs}
        seeds: tuple[int, ...] = tuple(range(len(learnt)))
    else:
        seeds = context.seeds_or(1 if context.quick else 3)
        learnt = {f"seed {seed}": _trained(context, "flow-bc", seed, POLICY, 24_000, 100) for seed in seeds}
    value, _ = _trained(context, "gcivl", 0, VALUE, 10_000, 100)
    if not isinstance(value, GoalValuePolicy):
        raise ClaimError(f"{value.registry_key} has no value of goals")
    table = {str(depth): _at(context, depth, learnt, value) for depth in DEPTHS}
    figure = table["2"][STITCHED]
    details = {"tasks away": table, "policies": list(learnt), "value": VALUE}
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


def _trained(
    context: Context, name: str, seed: int, config: dict[str, Any], updates: int, horizon: int
) -> tuple[OfflinePolicy, Encoder]:
    """A learner of the registry, trained on the claims' play now, or found finished below ``context.out``."""
    data = _play(context)
    updates = 1_000 if context.quick else updates
    folder = context.out / "far" / f"{name}-seed{seed}-{updates}"
    policy = make_learner(name, data, seed=seed, gradient_steps=updates, **config)
    settings = OfflineSettings(updates=updates, batch=512, seed=seed, horizon=horizon)
    return train_offline(policy, data, settings, folder).policy, data.encoder


def _play(context: Context) -> Recorded:
    """The recorded play, made once below ``context.out``, where the other claims about play have it too."""
    recording = Recording(steps=QUICK_STEPS if context.quick else STEPS, seed=0, scene=SCENE)
    folder = context.out / "play" / f"data-{recording.steps}"
    record(folder, recording)
    store = EpisodeStore.open(folder, readonly=True, verify=False)
    return Recorded(
        np.asarray(store.observations), np.asarray(store.actions), store.episode_ends, GoalStates(load(SCENE)),
        about={"play": asdict(recording), "scene": SCENE},
    )  # fmt: skip
