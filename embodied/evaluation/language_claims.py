"""How much of play a policy can be told to do, when hardly any of the play was described.

One policy a seed learns from goals everywhere and from language in at most 1 % of the windows (`embodied.data.labels`;
the describer is the simulator's predicates in hindsight, not a person). The same starts are then asked four times: by
goal, by a sentence as in the labels, by a held-out paraphrase, and, as a control, by another task's sentence.
Finished seeds stand in ``docs/results/play.h.seeds.json`` and count again while versions and settings are the same; a
training that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied.data.batches import Labelled, Recorded
from embodied.data.durable import replace_file
from embodied.data.labels import Labels, label_play, phrasings, read_labels, write_labels
from embodied.data.recording import Recording, record
from embodied.data.store import EpisodeStore
from embodied.evaluation.claims import ClaimError, Context, Measurement, versions
from embodied.evaluation.goal_exam import Exam, acting, set_exam, sit_exam
from embodied.evaluation.instruction_exam import WAYS, instructions, told
from embodied.skills.statistics import bootstrap_interval, wilson
from embodied.training.offline import OfflineSettings, make_learner, train_offline
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import load
from policies.multi_context import MultiContext
from policies.text import HashedWords

__all__ = ["described_play", "instructed"]

SCENE = "playroom"
KEPT = "play.h.seeds.json"
STEPS, QUICK_STEPS = 1_008_000, 30_000  # control steps of play
TEST_SEED, EACH = 20_261_121, 50  # of the exam, and its questions a task
UPDATES, QUICK_UPDATES = 24_000, 1_500
CONFIG: dict[str, Any] = {
    "execute": 8, "temperature": 0.5, "precision": "bfloat16", "hidden": (384, 384, 384),
}  # fmt: skip


def instructed(context: Context) -> Measurement:
    """play.h: success when told in English as the labels say it, averaged over the 18 tasks and the seeds.

    The interval is the bootstrap's over seeds and tasks. Conditions: at most 1 % of the windows were looked at, and
    telling beats telling something else. Held-out paraphrases, goals and each task are in the details.
    """
    seeds = context.seeds_or(1 if context.quick else 3)
    table = _kept(context)
    data: Recorded | None = None
    exam: Exam | None = None
    for seed in seeds:
        about = _about(context, seed)
        if table.get(str(seed), {}).get("about") == about:
            continue
        if data is None:
            data = _play(context)
            exam = set_exam(list(load(SCENE).tasks), 3 if context.quick else EACH, TEST_SEED, scene=SCENE)
        assert exam is not None
        table[str(seed)] = {"about": about} | _measure(context, seed, data, exam)
        _keep(context, table)
        told_, by_goal = (table[str(seed)]["answers"][way]["rate"] for way in (WAYS[0], "goal"))
        context.say(f"seed {seed}: told {told_:.3f}, by goal {by_goal:.3f}")
    rows = [table[str(seed)] for seed in seeds]
    ways = {way: _pooled([row["answers"][way] for row in rows]) for way in ("goal", *WAYS)}
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
    data, labels = described_play(play, _folder(context) / f"labels-{play.steps}-seed{seed}.jsonl", seed)
    settings = _settings(context, seed)
    policy = make_learner("multi-context", data, seed=seed, gradient_steps=settings.updates, **CONFIG)
    digest = hashlib.sha256(json.dumps([_about(context, seed), versions()], sort_keys=True).encode()).hexdigest()[:8]
    result = train_offline(policy, data, settings, _folder(context) / f"language-seed{seed}-{digest}", Console())
    policy = result.policy
    assert isinstance(policy, MultiContext)
    words, sentences = HashedWords(), phrasings(load(SCENE))
    acts = {"goal": acting(policy, data.encoder)}
    for way in WAYS:
        acts[way] = told(policy, data.encoder, instructions(exam, sentences, way, seed), words)
    answers = {}
    for way, act in acts.items():
        found = sit_exam(act, exam)
        answers[way] = found.summary() | {"solved": int(found.success.sum())}
    count = {
        "windows": labels.windows, "of": data.steps, "labels": len(labels),
        "steps covered": labels.covered() / data.steps,
    }  # fmt: skip
    return {"answers": answers, "labels": count, "metrics": result.metrics, "seconds": result.seconds}


def described_play(play: Recorded, path: Path, seed: int) -> tuple[Recorded, Labels]:
    """Play with 1 % of its windows described, the labels kept at ``path`` and read from there where they are."""
    scene = load(SCENE)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, label_play(play.observations, play.episode_ends, scene, seed=seed), play.episode_ends)
    labels = read_labels(path, play.episode_ends)
    labelled = Labelled(labels.start, labels.end, HashedWords().encode(labels.texts))
    about = play.about | {"labels": hashlib.sha256(path.read_bytes()).hexdigest()}
    return replace(play, labelled=labelled, about=about), labels


def _play(context: Context) -> Recorded:
    """The recorded play, made once below ``context.out``."""
    recording = Recording(steps=QUICK_STEPS if context.quick else STEPS, seed=0, scene=SCENE)
    folder = _folder(context) / f"data-{recording.steps}"
    record(folder, recording)
    store = EpisodeStore.open(folder, readonly=True, verify=False)
    arrays = np.asarray(store.observations), np.asarray(store.actions), store.episode_ends
    return Recorded(*arrays, GoalStates(load(SCENE)), about={"play": asdict(recording), "scene": SCENE})


def _settings(context: Context, seed: int) -> OfflineSettings:
    return OfflineSettings(updates=QUICK_UPDATES if context.quick else UPDATES, batch=512, seed=seed, horizon=100)


def _about(context: Context, seed: int) -> dict[str, Any]:
    """What a kept seed was measured with, ready for JSON."""
    play = QUICK_STEPS if context.quick else STEPS
    about = {"config": CONFIG, "settings": asdict(_settings(context, seed)), "play": play, "quick": context.quick}
    return json.loads(json.dumps(about | {"each": EACH}))


def _pooled(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The average over seeds, Wilson's interval of all questions together, tasks' averages."""
    n = sum(row["n"] for row in answers)
    lower, upper = wilson(sum(row["solved"] for row in answers), n)
    tasks = {task: float(np.mean([row["by_task"][task] for row in answers])) for task in answers[0]["by_task"]}
    return {
        "rate": float(np.mean([row["rate"] for row in answers])), "lower": float(lower), "upper": float(upper),
        "n": n, "by_seed": [row["rate"] for row in answers], "by_task": tasks,
    }  # fmt: skip


def _folder(context: Context) -> Path:
    return context.out / "play"


def _path(context: Context) -> Path:
    return context.results / (KEPT.replace(".seeds", ".quick.seeds") if context.quick else KEPT)


def _kept(context: Context) -> dict[str, dict[str, Any]]:
    """Seeds kept so far; none where versions differ. ClaimError for a damaged file."""
    path = _path(context)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["seeds"] if content["versions"] == versions() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ClaimError(f"{path} is damaged ({error}); delete it and measure anew") from error


def _keep(context: Context, table: dict[str, dict[str, Any]]) -> None:
    path = _path(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"versions": versions(), "quick": context.quick, "seeds": table}
    replace_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
