"""``embodied train`` from recorded episodes: load them, learn, and sit the exam of what they are of.

Everything is in the training's folder: what `embodied.training.offline` keeps, and ``exam.json`` (with ``exam.jsonl``,
a line a question). The same command goes on after a kill, and says so where all is there already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from embodied.cli.learners import TrainConfig
from embodied.cli.offline_learners import MultiContextLearnerConfig
from embodied.data.batches import Batches, Concatenated, Recorded
from embodied.data.durable import replace_file
from embodied.data.labels import described
from embodied.data.recorded import load_recorded
from embodied.data.recording import ENV
from embodied.evaluation import exams
from embodied.evaluation.environments import write as write_episodes
from embodied.evaluation.goals_protocol import evaluate_goals
from embodied.progress import Progress
from embodied.training.learners import TrainingError
from embodied.training.offline import SUMMARY, OfflineSettings, load_goal_policy, make_learner, train_offline
from envs.scenes.scene import load
from policies.offline import OfflinePolicy

__all__ = ["EXAM", "EXAM_SEED", "RecordedResult", "folder_of", "train"]

EXAM, LABELS = "exam.json", "labels.jsonl"
EXAM_SEED = 1_000  # that of `embodied eval` where none is given, so that its rows are of the same exam


@dataclass(frozen=True)
class RecordedResult:
    """Where a training is, what its exam found (None: there was none), and whether all was there already."""

    directory: Path
    exam: Mapping[str, Any] | None
    finished_before: bool = False


def folder_of(config: TrainConfig) -> Path:
    """Where a training is kept: ``out``, or a folder named after data, learner and seed."""
    kind, _, rest = config.data.rpartition(":")
    data = f"play-{rest}" if kind == "play" else Path(rest).stem
    learner = config.policy.name + (f"-{config.encoder}" if config.encoder != "state" else "")
    name = re.sub(r"[^-\w.]+", "-", f"{config.env or data}-{learner}-seed{config.seed}")
    return Path(config.out) if config.out else Path("runs", "train", name)


def train(config: TrainConfig, console: Console | None = None) -> RecordedResult:
    """Learns for ``config.updates`` updates from ``config.data``, or goes on with what is in the folder; then the exam.

    Raises ConfigError where the folder holds another training, TrainingError for settings, data and exam that do not
    fit each other or a loss that is not finite, DatasetError for data that cannot be learnt from.
    """
    console = console or Console()
    if config.threads:
        torch.set_num_threads(config.threads)
    out = folder_of(config)
    data = load_recorded(
        config.data, seed=config.seed, threads=config.threads, allow_mixed_physics=config.allow_mixed_physics,
        console=console, encoder=config.encoder,
    )  # fmt: skip
    env = _exam_env(config, data)
    if isinstance(config.policy, MultiContextLearnerConfig):
        data = _described(config.policy, data, out, config.seed)
    policy = _learner(config, data)
    learnt, kept = (out / SUMMARY).is_file(), _kept(out / EXAM)
    of = {"env": env, "questions": config.questions, "world": dict(config.world), "data": data.about["sha256"]}
    exam = kept if kept and kept["of"] == of else None
    finished = learnt and (not env or exam is not None)
    settings = OfflineSettings(config.updates, config.batch, config.seed, config.horizon)
    try:
        train_offline(policy, data, settings, out, Console(quiet=True) if finished else console)
    except FloatingPointError as error:
        raise TrainingError(str(error)) from error
    if not env and config.questions:
        known = data.about["env"] or "an unknown environment"
        console.print(Text(f"no exam: there is none of {known}"), soft_wrap=True)
    if env and exam is None:
        exam = _examine(config, env, out, of, console)
    if exam:
        exams.show(exam, console)
    if finished:
        console.print(Text(f"finished already, in {out}"), soft_wrap=True)
    return RecordedResult(out, exam, finished)


def _described(policy: MultiContextLearnerConfig, data: Recorded, out: Path, seed: int) -> Recorded:
    """The data with some of its windows in words; TrainingError where they are of no scene that has words."""
    if "scene" not in data.about:
        raise TrainingError(f"{policy.name} is told in a scene's words, and these are no facts of a scene of ours")
    return described(data, load(str(data.about["scene"])), out / LABELS, share=policy.labels, seed=seed)[0]


def _learner(config: TrainConfig, data: Recorded) -> OfflinePolicy:
    """The untrained learner; TrainingError where its settings, or windows of the data, cannot be."""
    settings = config.policy.settings() | {"seed": config.seed, "gradient_steps": config.updates}
    try:
        policy = make_learner(config.policy.algorithm, data, **settings)
        Batches(data, policy.spec, 1, config.seed, horizon=config.horizon)
    except ValueError as error:
        raise TrainingError(f"{config.policy.name} cannot learn from {config.data}: {error}") from error
    return policy


def _exam_env(config: TrainConfig, data: Recorded) -> str:
    """Where the exam is: our playroom, ogbench/TASK, or "" for none. TrainingError where it cannot be."""
    env = config.env or str(data.about["env"])
    if not config.questions:
        return ""
    if env in (ENV, "playroom"):
        if not isinstance(data.encoder, Concatenated):
            if config.world:
                raise TrainingError("the playroom's exam takes no world. arguments; its scene is the data's")
            return ENV
        if config.env:
            raise TrainingError(
                f"{config.data} has no facts of a playroom's scene to be examined in; questions=0 learns"
            )
        return ""
    if env.startswith("ogbench/") and "singletask" not in env:
        from envs.suites import library

        library("ogbench")  # that it is missing is said before learning and not after
        return env
    if config.env:
        raise TrainingError(f"env={env} has no exam of goals given as states; valid: playroom, ogbench/TASK")
    return ""


def _kept(path: Path) -> dict[str, Any] | None:
    """What an earlier call kept; None where it is not there, or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _examine(config: TrainConfig, env: str, out: Path, of: dict[str, Any], console: Console) -> dict[str, Any]:
    """Sits the exam and keeps what was found."""
    seed = EXAM_SEED + (config.seed == EXAM_SEED)
    with Progress(0, console=console) as progress:
        progress.stage(f"exam: {config.questions} questions a {'task' if env == ENV else 'goal'}")
        if env == ENV:
            found = exams.examine(
                out, questions=config.questions, seed=seed, threads=config.threads, tick=progress.advance
            )
            exams.write(found, out / EXAM, of=of)
            return found.summary()
        policy, encoder = load_goal_policy(out)
        policy.seed(seed)
        goals = evaluate_goals(
            env, policy, config.questions, seed, features=encoder.features, on_steps=progress.advance, **config.world
        )
    write_episodes(goals.all, out / EXAM)
    summary = goals.summary() | {"policy": str(out)}
    replace_file(out / EXAM, (json.dumps(summary | {"of": of}, indent=1, sort_keys=True) + "\n").encode())
    return summary
