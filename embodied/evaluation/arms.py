"""What the claims about learning share: one recording of play, arms trained on it once, tables of what is finished.

An arm is a learner of the registry with its configuration. Its policy is trained once below ``context.out``, whichever
claim asks first. What was measured of an arm under a seed is a row of a table (arm → seed → row) in ``docs/results``;
it counts again while the versions, and what its ``about`` says it was measured with, are the same, so that a table can
be filled in parts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied.data.batches import Recorded
from embodied.data.durable import replace_file
from embodied.data.recording import Recording, record
from embodied.data.store import EpisodeStore
from embodied.evaluation.claims import ClaimError, Context, versions
from embodied.evaluation.goal_exam import Exam, set_exam
from embodied.skills.statistics import wilson
from embodied.training.offline import OfflineResult, OfflineSettings, make_learner, train_offline
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import load

__all__ = [
    "ARMS", "BEST", "EACH", "FLOW", "SCENE", "TEST_SEED", "Arm", "Table", "about_of", "exam_of", "fill", "keep", "kept",
    "matching", "play_data", "pooled", "table_path", "trained",
]  # fmt: skip

SCENE = "playroom"
HOURS = {"14 h": 1_008_000, "3 h": 216_000}  # control steps at 20 Hz
QUICK_STEPS, QUICK_UPDATES = 30_000, 1_500
TEST_SEED = 20_261_121  # of the exam, which no training and no choice of settings has seen
EACH = 50  # questions a task
Table = dict[str, dict[str, dict[str, Any]]]
"""Arm → seed → row."""


# ---- arms


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
            updates=QUICK_UPDATES if quick else self.updates, batch=512, seed=seed, horizon=self.horizon,
            preference=0.95,
        )  # fmt: skip


CHUNKS: dict[str, Any] = {"execute": 8, "precision": "bfloat16", "hidden": (384, 384, 384)}
FLOW = CHUNKS | {"temperature": 0.5}
ARMS: dict[str, Arm] = {
    "flow": Arm("flow-bc", FLOW),
    "latent plans": Arm("latent-plans", FLOW | {"decoder": "flow", "beta": 0.1, "plan_size": 32}),
    "gcbc": Arm("gcbc", CHUNKS),
    # its levels of noise are what it was taught: less noise is off them; as learnt it heeds the goal too little
    "beso": Arm("beso", CHUNKS | {"guidance": 5.0}),
    "latent plans, logistic": Arm(
        "latent-plans", CHUNKS | {"decoder": "logistic", "beta": 0.03, "learning_rate": 2e-3}, updates=6_000
    ),
    "flow, 3 h": Arm("flow-bc", FLOW, hours="3 h"),
}
"""Name → arm of the claims about the playroom."""
BEST = "latent plans"  # the arm that play.a found best: the play policy of the other claims


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
    return Recording(steps=QUICK_STEPS if context.quick else HOURS[hours], seed=0, scene=SCENE)


def exam_of(context: Context) -> Exam:
    """The exam of the claims: every task of the playroom; a quick one has 3 questions a task."""
    return set_exam(list(load(SCENE).tasks), 3 if context.quick else EACH, TEST_SEED, scene=SCENE)


def trained(context: Context, name: str, arm: Arm, seed: int, data: Recorded) -> OfflineResult:
    """The policy of an arm under a seed, trained now or found finished below ``context.out``."""
    settings = arm.settings(seed, context.quick)
    policy = make_learner(arm.policy, data, seed=seed, gradient_steps=settings.updates, **arm.config)
    about = [name, asdict(arm), asdict(settings), versions(), data.steps]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:8]
    folder = context.out / "play" / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}-{digest}"
    return train_offline(policy, data, settings, folder, Console())


# ---- tables of what is finished


def about_of(context: Context, arm: Arm, **more: Any) -> dict[str, Any]:
    """What a row of an arm is measured with, ready for JSON."""
    about = {"arm": asdict(arm), "quick": context.quick, "each": EACH, "play": asdict(_recording(context, arm.hours))}
    return json.loads(json.dumps(about | more))


def table_path(context: Context, name: str) -> Path:
    """Where a table is kept; a quick measurement has one of its own."""
    return context.results / (name.replace(".arms", ".quick.arms") if context.quick else name)


def kept(path: Path) -> Table:
    """The rows kept so far: none where versions differ. ClaimError for a damaged file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["arms"] if content["versions"] == versions() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ClaimError(f"{path} is damaged ({error}); delete it and measure anew") from error


def keep(path: Path, table: Mapping[str, Any], **stamp: Any) -> None:
    """Write a table with the versions, and ``stamp`` beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"versions": versions(), **stamp, "arms": table}
    replace_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def fill(
    path: Path,
    wanted: Mapping[tuple[str, int], Any],
    measure: Callable[[str, int], dict[str, Any]],
    budget: float,
    say: Callable[[str], None],
) -> list[str]:
    """Measures rows that a table lacks; what is missing after ``budget`` seconds, when no further row is begun.

    ``wanted``: (arm, seed) → about, in the order to measure them. The table is read again before each row is written:
    others may add rows meanwhile.
    """
    began, missing = time.monotonic(), []
    for (name, seed), about in wanted.items():
        if kept(path).get(name, {}).get(str(seed), {}).get("about") == about:
            continue
        if time.monotonic() - began > budget:
            missing.append(f"{name}, seed {seed}")
            continue
        say(f"{name}, seed {seed}")
        row = {"about": about} | measure(name, seed)
        table = kept(path)
        table.setdefault(name, {})[str(seed)] = row
        keep(path, table)
    return missing


def matching(table: Table, abouts: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """The rows measured with what ``abouts`` (arm → about) says, and the names of the others, which do not count."""
    found: Table = {}
    left_out = []
    for name, rows in table.items():
        for seed, row in rows.items():
            if name in abouts and row.get("about") == abouts[name]:
                found.setdefault(name, {})[seed] = row
            else:
                left_out.append(f"{name}, seed {seed}")
    return found, left_out


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summaries of answers to one exam: their average, Wilson's interval of all questions together, tasks' averages."""
    n = sum(row["n"] for row in rows)
    solved = sum(row.get("solved", round(row["rate"] * row["n"])) for row in rows)  # earlier rows have the rate alone
    lower, upper = wilson(solved, n)
    tasks = {task: float(np.mean([row["by_task"][task] for row in rows])) for task in rows[0]["by_task"]}
    return {
        "rate": float(np.mean([row["rate"] for row in rows])), "lower": float(lower), "upper": float(upper), "n": n,
        "by_seed": [row["rate"] for row in rows], "by_task": tasks,
    }  # fmt: skip
