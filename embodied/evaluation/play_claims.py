"""How the claims about learning from play are measured; see `embodied.evaluation.claims` for what is claimed.

One data set serves all: 14 h of scripted play at 20 Hz in the playroom, recorded once. Every arm is trained on it by
the one trainer and put to the same exam, whose questions no training and no choice of settings has seen (those were
made on other seeds of the exam). Finished arms stand in ``docs/results/play.a.arms.json`` and count again while
versions and settings are the same, so the table can be filled in parts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied.data.batches import Recorded
from embodied.data.durable import replace_file
from embodied.data.recording import Recording, record
from embodied.data.store import EpisodeStore
from embodied.evaluation.claims import ClaimError, Context, Measurement, versions
from embodied.evaluation.goal_exam import Act, Exam, acting, set_exam, sit_exam
from embodied.skills.statistics import wilson
from embodied.training.offline import OfflineResult, OfflineSettings, make_learner, train_offline
from envs.scenes.goal_states import GoalStates
from envs.scenes.play import undirected
from envs.scenes.scene import load

__all__ = ["ARMS", "KEPT", "Arm", "exam_of", "headline", "play_data", "trained"]

SCENE = "playroom"
HOURS = {"14 h": 1_008_000, "3 h": 216_000}  # control steps at 20 Hz
TEST_SEED, DEVELOPMENT_SEED = 20_261_121, 1_234
EACH = 50  # questions a task
KEPT = "play.a.arms.json"
BUDGET = 3_600.0  # seconds after which a measurement begins no further training; what is missing is said


@dataclass(frozen=True)
class Arm:
    """A learner of the registry with its configuration and how it is trained."""

    policy: str
    config: Mapping[str, Any] = field(default_factory=dict)
    updates: int = 24_000
    horizon: int = 100
    hours: str = "14 h"

    def settings(self, seed: int, quick: bool = False) -> OfflineSettings:
        return OfflineSettings(
            updates=1_500 if quick else self.updates, batch=512, seed=seed, horizon=self.horizon, preference=0.95
        )


_CHUNKS: dict[str, Any] = {"execute": 8, "precision": "bfloat16", "hidden": (384, 384, 384)}
_FLOW = _CHUNKS | {"temperature": 0.5}
ARMS: dict[str, Arm] = {
    "flow": Arm("flow-bc", _FLOW),
    "latent plans": Arm("latent-plans", _FLOW | {"decoder": "flow", "beta": 0.1, "plan_size": 32}),
    "gcbc": Arm("gcbc", _CHUNKS),
    "beso": Arm("beso", _FLOW),
    "latent plans, logistic": Arm(
        "latent-plans", _CHUNKS | {"decoder": "logistic", "beta": 0.03, "learning_rate": 2e-3}, updates=6_000
    ),
    "flow, 3 h": Arm("flow-bc", _FLOW, hours="3 h"),
}
"""Name → arm; the first is the headline's."""


def play_data(context: Context, hours: str = "14 h") -> Recorded:
    """The recorded play of the claims, made once below ``context.out``; a quick measurement has 30,000 steps."""
    recording = _recording(context, hours)
    folder = context.out / "play" / f"data-{recording.steps}"
    record(folder, recording)
    store = EpisodeStore.open(folder, readonly=True, verify=False)
    about = {"play": asdict(recording), "scene": SCENE}
    return Recorded(
        np.asarray(store.observations),
        np.asarray(store.actions),
        store.episode_ends,
        GoalStates(load(SCENE)),
        about=about,
    )


def _recording(context: Context, hours: str) -> Recording:
    return Recording(steps=30_000 if context.quick else HOURS[hours], seed=0, scene=SCENE)


def exam_of(context: Context, depth: int = 1) -> Exam:
    """The exam of the claims: every task of the playroom; a quick one has 3 questions a task."""
    return set_exam(list(load(SCENE).tasks), 3 if context.quick else EACH, TEST_SEED, scene=SCENE, depth=depth)


def trained(context: Context, name: str, arm: Arm, seed: int, data: Recorded) -> OfflineResult:
    """The policy of an arm under a seed, trained now or found finished below ``context.out``."""
    policy = make_learner(
        arm.policy, data, seed=seed, gradient_steps=arm.settings(seed, context.quick).updates, **arm.config
    )
    settings = arm.settings(seed, context.quick)
    about = [name, asdict(arm), asdict(settings), versions(), data.steps]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = context.out / "play" / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}-{digest}"
    return train_offline(policy, data, settings, folder, Console())


def headline(context: Context) -> Measurement:
    """play.a: average success over the 18 tasks of the best arm with all its seeds, other arms and rows beside it."""
    seeds = context.seeds_or(1 if context.quick else 5)
    table = kept(context)
    exam: Exam | None = None
    began = time.monotonic()
    stamp = {"versions": versions(), "quick": context.quick}
    for name, arm in ARMS.items():
        for seed in seeds if name == "flow" else seeds[:1]:
            play = asdict(_recording(context, arm.hours))
            about = json.loads(json.dumps({"arm": asdict(arm), "quick": context.quick, "each": EACH, "play": play}))
            if table.get(name, {}).get(str(seed), {}).get("about") == about:
                continue
            if (context.quick and name not in ("flow", "gcbc")) or time.monotonic() - began > BUDGET:
                continue
            context.say(f"{name}, seed {seed}")
            data = play_data(context, arm.hours)
            result = trained(context, name, arm, seed, data)
            exam = exam or exam_of(context)
            answers = sit_exam(acting(result.policy, data.encoder), exam)
            row = {"about": about, "seconds": result.seconds, "metrics": result.metrics} | answers.summary()
            table.setdefault(name, {})[str(seed)] = row
            keep(context, table, stamp)
            context.say(f"{name}, seed {seed}: {answers.rate:.3f} after {result.seconds / 60:.1f} min")
    for name, act in rows(context, exam).items():
        if name not in table:
            exam = exam or exam_of(context)
            table[name] = {"0": sit_exam(act, exam).summary()}
            keep(context, table, stamp)
    found = {name: _pooled(by_seed) for name, by_seed in table.items()}
    best = max((name for name in found if name in ARMS), key=lambda name: (found[name]["seeds"], found[name]["rate"]))
    rates = [row["rate"] for row in table[best].values()]
    conditions = {
        "latent plans >= 0.70": found.get("latent plans", {}).get("rate", 0.0) >= 0.70,
        "5 seeds": found[best]["seeds"] >= 5,
        "training within 60 minutes a seed": max(row["seconds"] for row in table[best].values()) <= 3600,
    }
    missing = [name for name in (*ARMS, "18 experts") if name not in found]
    details = {
        "arms": found, "best": best, "missing": missing, "kept": KEPT, "questions": EACH,
        "reduced": "a rebuilt room, scripted play, states instead of pixels; goals from a scripted expert's end state",
    }  # fmt: skip
    return Measurement(found[best]["rate"], bootstrap(rates), seeds, found[best]["n"], conditions, details)


def rows(context: Context, exam: Exam | None) -> dict[str, Act]:
    """What needs no training: undirected play, which reaches a goal by chance, and uniformly random actions."""
    draws = np.random.default_rng(0)
    return {
        "undirected play": undirected(load(SCENE), 0),
        "random actions": lambda facts, goals: draws.uniform(-1, 1, (len(facts), 5)),
    }


def bootstrap(rates: list[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean over seeds, by resampling them."""
    values = np.asarray(rates)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _pooled(by_seed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An arm's average over seeds, Wilson's interval of all its questions, and tasks' averages."""
    of_seeds = list(by_seed.values())
    n = sum(row["n"] for row in of_seeds)
    solved = round(sum(np.mean(list(row["by_task"].values())) * row["n"] for row in of_seeds))
    lower, upper = wilson(solved, n)
    tasks = {task: float(np.mean([row["by_task"][task] for row in of_seeds])) for task in of_seeds[0]["by_task"]}
    return {
        "rate": float(np.mean([row["rate"] for row in of_seeds])), "lower": float(lower), "upper": float(upper), "n": n,
        "seeds": len(of_seeds), "by_seed": [row["rate"] for row in of_seeds], "by_task": tasks,
        "seconds": [row.get("seconds") for row in of_seeds],
    }  # fmt: skip


def kept(context: Context, name: str = KEPT) -> dict[str, dict[str, Any]]:
    """The arms kept so far: arm → seed → result; none where versions differ. ClaimError for a damaged file."""
    path = _path(context, name)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["arms"] if content["versions"] == versions() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ClaimError(f"{path} is damaged ({error}); delete it and measure anew") from error


def keep(context: Context, table: Mapping[str, Any], stamp: Mapping[str, Any], name: str = KEPT) -> None:
    """Write the arms."""
    path = _path(context, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps({**stamp, "arms": table}, indent=1, sort_keys=True) + "\n").encode())


def _path(context: Context, name: str) -> Path:
    return context.results / (name.replace(".arms", ".quick.arms") if context.quick else name)
