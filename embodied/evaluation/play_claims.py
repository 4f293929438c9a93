"""How the claim about learning from play is measured; see `embodied.evaluation.claims` for what is claimed.

One data set serves all: 14 h of scripted play at 20 Hz in the playroom, recorded once. Every arm is trained on it by
the one trainer and put to the same exam, whose questions no training and no choice of settings has seen (those were
made on other seeds of the exam). Finished arms stand in ``docs/results/play.a.arms.json`` (`embodied.evaluation.arms`).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from embodied.evaluation.arms import (
    ARMS,
    EACH,
    SCENE,
    about_of,
    exam_of,
    keep,
    kept,
    matching,
    play_data,
    pooled,
    table_path,
    trained,
)
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.goal_exam import Act, Exam, acting, sit_exam
from embodied.evaluation.play_more_claims import EXPERTS, expert_rows
from embodied.skills.statistics import bootstrap_interval
from envs.scenes.play import undirected
from envs.scenes.scene import load

__all__ = ["KEPT", "headline"]

KEPT = "play.a.arms.json"
LEADING = ("flow", "latent plans")  # the arms that every seed is spent on
BUDGET = 3_600.0  # seconds after which a measurement begins no further training; what is missing is said


def headline(context: Context) -> Measurement:
    """play.a: average success over the 18 tasks of the best arm with all its seeds, other arms and rows beside it."""
    seeds = context.seeds_or(1 if context.quick else 5)
    path = table_path(context, KEPT)
    table, untrained = kept(path), _untrained()
    abouts = {name: about_of(context, arm) for name, arm in ARMS.items()}
    abouts |= {name: {"policy": name, "quick": context.quick, "each": EACH} for name in untrained}
    exam: Exam | None = None
    began = time.monotonic()
    for name, arm in ARMS.items():
        for seed in seeds if name in LEADING else seeds[:1]:
            if table.get(name, {}).get(str(seed), {}).get("about") == abouts[name]:
                continue
            if (context.quick and name not in ("flow", "gcbc")) or time.monotonic() - began > BUDGET:
                continue
            context.say(f"{name}, seed {seed}")
            data = play_data(context, arm.hours)
            result = trained(context, name, arm, seed, data)
            exam = exam or exam_of(context)
            answers = sit_exam(acting(result.policy, data.encoder), exam)
            row = {"about": abouts[name], "seconds": result.seconds, "metrics": result.metrics} | answers.summary()
            table.setdefault(name, {})[str(seed)] = row
            keep(path, table, quick=context.quick)
            context.say(f"{name}, seed {seed}: {answers.rate:.3f} after {result.seconds / 60:.1f} min")
    for name, act in untrained.items():
        if table.get(name, {}).get("0", {}).get("about") != abouts[name]:
            exam = exam or exam_of(context)
            table.setdefault(name, {})["0"] = {"about": abouts[name]} | sit_exam(act, exam).summary()
            keep(path, table, quick=context.quick)
    table, left_out = matching(table, abouts)
    table |= expert_rows(context)
    found = {name: _pooled(list(by_seed.values())) for name, by_seed in table.items()}
    best = max((name for name in found if name in ARMS), key=lambda name: (found[name]["seeds"], found[name]["rate"]))
    interval = bootstrap_interval(found[best]["by_seed"], np.mean, resamples=10_000)
    conditions = {
        "latent plans >= 0.70": found.get("latent plans", {}).get("rate", 0.0) >= 0.70,
        "5 seeds": found[best]["seeds"] >= 5,
        "training within 60 minutes a seed": max(row["seconds"] for row in table[best].values()) <= 3600,
    }
    missing = [name for name in (*ARMS, EXPERTS) if name not in found]
    details = {
        "arms": found, "best": best, "missing": missing, "left out": left_out, "kept": KEPT,
        "questions": EACH,
        "reduced": "a rebuilt room, scripted play, states instead of pixels; goals from a scripted expert's end state",
    }  # fmt: skip
    seeds = tuple(sorted(map(int, table[best])))
    return Measurement(found[best]["rate"], interval, seeds, found[best]["n"], conditions, details)


def _untrained() -> dict[str, Act]:
    """What needs no training: undirected play, which reaches a goal by chance, and uniformly random actions."""
    draws = np.random.default_rng(0)
    return {
        "undirected play": undirected(load(SCENE), 0),
        "random actions": lambda facts, goals: draws.uniform(-1, 1, (len(facts), 5)),
    }


def _pooled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return pooled(rows) | {"seeds": len(rows), "seconds": [row.get("seconds") for row in rows]}
