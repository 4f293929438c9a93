"""How much of play a policy can be told to do, when hardly any of the play was described.

One policy a seed learns from goals everywhere and from language in at most 1 % of the windows (`embodied.data.labels`;
the describer is the simulator's predicates in hindsight, not a person). The same starts are then asked four times: by
goal, by a sentence as in the labels, by a held-out paraphrase, and, as a control, by another task's sentence.
Finished seeds stand in ``docs/results/play.h.arms.json`` (`embodied.evaluation.arms`); a training that was stopped goes
on where it was.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from embodied.data.batches import Recorded
from embodied.data.labels import described, phrasings
from embodied.evaluation.arms import (
    FLOW,
    SCENE,
    Arm,
    about_of,
    exam_of,
    keep,
    kept,
    play_data,
    pooled,
    table_path,
    trained,
)
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.goal_exam import Exam, acting, sit_exam
from embodied.evaluation.instruction_exam import WAYS, instructions, told
from embodied.skills.statistics import bootstrap_interval
from envs.scenes.scene import load
from policies.multi_context import MultiContext
from policies.text import HashedWords

__all__ = ["instructed"]

KEPT = "play.h.arms.json"
NAME, ARM = "language", Arm("multi-context", FLOW)


def instructed(context: Context) -> Measurement:
    """play.h: success when told in English as the labels say it, averaged over the 18 tasks and the seeds.

    The interval is the bootstrap's over seeds and tasks. Conditions: at most 1 % of the windows were looked at, and
    telling beats telling something else. Held-out paraphrases, goals and each task are in the details.
    """
    seeds = context.seeds_or(1 if context.quick else 3)
    path, about = table_path(context, KEPT), about_of(context, ARM)
    table = kept(path)
    data: Recorded | None = None
    exam: Exam | None = None
    for seed in seeds:
        if table.get(NAME, {}).get(str(seed), {}).get("about") == about:
            continue
        if data is None:
            data, exam = play_data(context), exam_of(context)
        assert exam is not None
        row = {"about": about} | _measure(context, seed, data, exam)
        table.setdefault(NAME, {})[str(seed)] = row
        keep(path, table, quick=context.quick)
        told_, by_goal = (row["answers"][way]["rate"] for way in (WAYS[0], "goal"))
        context.say(f"seed {seed}: told {told_:.3f}, by goal {by_goal:.3f}")
    rows = [table[NAME][str(seed)] for seed in seeds]
    ways = {way: pooled([row["answers"][way] for row in rows]) for way in ("goal", *WAYS)}
    tasks = np.array([list(row["answers"][WAYS[0]]["by_task"].values()) for row in rows])
    share = max(row["labels"]["windows"] / row["labels"]["of"] for row in rows)
    conditions = {
        "at most 1 % of the windows were looked at": share <= 0.01,
        "telling beats telling something else": ways[WAYS[0]]["lower"] > ways[WAYS[2]]["upper"],
    }
    details = {
        "ways": ways,
        "labels": [row["labels"] for row in rows],
        "sentences": {task: asdict(p) for task, p in phrasings(load(SCENE)).items()},
        "seconds": [row["seconds"] for row in rows],
        "annotator": "the simulator's predicates in hindsight, said in the scene's words; no person",
        "kept": KEPT,
    }
    interval = bootstrap_interval(tasks, np.mean)
    return Measurement(ways[WAYS[0]]["rate"], interval, tuple(seeds), ways[WAYS[0]]["n"], conditions, details)


def _measure(context: Context, seed: int, play: Recorded, exam: Exam) -> dict[str, Any]:
    """What one seed's policy reaches by goal and in every way of telling, and what it learnt from."""
    context.say(f"language, seed {seed}")
    path = context.out / "play" / f"labels-{play.steps}-seed{seed}.jsonl"
    data, labels = described(play, load(SCENE), path, seed=seed)
    result = trained(context, NAME, ARM, seed, data)
    policy = result.policy
    assert isinstance(policy, MultiContext)
    words, sentences = HashedWords(), phrasings(load(SCENE))
    acts = {"goal": acting(policy, data.encoder)}
    for way in WAYS:
        acts[way] = told(policy, data.encoder, instructions(exam, sentences, way, seed), words)
    answers = {way: sit_exam(act, exam).summary() for way, act in acts.items()}
    count = {
        "windows": labels.windows, "of": data.steps, "labels": len(labels),
        "steps covered": labels.covered() / data.steps,
    }  # fmt: skip
    return {"answers": answers, "labels": count, "metrics": result.metrics, "seconds": result.seconds}
