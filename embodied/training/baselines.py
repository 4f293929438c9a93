"""Baselines: a learner of stable-baselines3, unmodified, on any world of the registry, measured as it learns.

Learning goes in stretches of ``eval_every`` environment steps. After each, the policy is measured on fresh episodes
that neither learning nor any other measurement has seen, and all that learning goes on from is kept in ``learner/``.
A stretch begins with new episodes and seeded streams (`policies.sb3_learners`), so a training that was killed and
called again ends with the same policy, bit for bit, as one that was not; only the unfinished stretch is learnt again.
The price is that the episodes running at a measurement are cut there. The replay buffer is kept whole; what is not
kept are the learner's running means (``rollout/…`` among the scalars), which begin anew with each stretch.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from rich.console import Console
from rich.text import Text
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from embodied.cli.learners import RECORDED, TrainConfig
from embodied.data.durable import replace_file
from embodied.errors import ConfigError
from embodied.progress import Progress
from embodied.training.curve import Point, Scalars, as_table, write_curve
from embodied.training.episodes import run_episodes, seed_of
from embodied.training.learners import TrainingError, make_learner_of, make_world
from embodied.training.rollouts import versions
from policies.checkpoint import content_hash, read_arrays, read_header, write_checkpoint
from policies.sb3 import SB3Policy
from policies.sb3_learners import begin_stretch, learner_arrays, load_learner

__all__ = ["TrainResult", "TrainingError", "folder_of", "train"]

LEARNER, POLICY, SCALARS, SUMMARY = "learner", "policy", "scalars", "summary.json"
KIND = "sb3-learner"
WIDTH = 50  # episodes measured side by side
TRAINING, MEASURING, FINAL = range(3)  # what a seed is for
FREE = ("steps", "final_episodes", "threads", "device", "out")  # what may differ when a training goes on


@dataclass(frozen=True)
class TrainResult:
    """Where a training is, its curve (the last point is the final measurement), and whether it was there already."""

    directory: Path
    policy: Path
    steps: int
    curve: tuple[Point, ...]
    finished_before: bool = False

    @property
    def final(self) -> Point:
        """The final measurement."""
        return self.curve[-1]


def folder_of(config: TrainConfig) -> Path:
    """Where a training is kept: ``out``, or a folder named after world, learner and seed."""
    name = f"{config.env}-{config.policy.name}-seed{config.seed}".replace("/", "-")
    return Path(config.out) if config.out else Path("runs", "train", name)


def train(config: TrainConfig, console: Console | None = None) -> TrainResult:
    """Trains for ``config.steps`` environment steps (a learner finishes its last rollout: it may take a few more).

    Continues what is in the folder already, or says that it is finished.

    Raises ConfigError where the folder holds another training, TrainingError for a learner and world that do not fit,
    UnknownEnvError for an unknown world, CheckpointError for damaged files.
    """
    console = console or Console()
    out = folder_of(config)
    kept = _kept(out, config)
    curve = [Point(**row) for row in kept["curve"]] if kept else []
    before = kept["counts"]["num_timesteps"] if kept else 0
    if kept and before >= config.steps:
        console.print(as_table(curve))
        console.print(Text(f"finished already, in {out}: give more steps than {before:,} to go on"), soft_wrap=True)
        return TrainResult(out, out / POLICY, before, tuple(curve), True)
    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    env = make_world(config, config.num_envs)
    exam = make_world(config, min(WIDTH, max(config.eval_episodes, config.final_episodes)))
    try:
        model = make_learner_of(config, env)
        if kept:
            load_learner(model, read_arrays(out / LEARNER), kept["counts"])
        session = _Session(config, out, console, model, exam, curve, kept["seconds"] if kept else 0.0)
        session.run()
    finally:
        env.close()
        exam.close()
    console.print(as_table(session.curve))
    console.print(Text(f"kept in {out}"), soft_wrap=True)
    return TrainResult(out, out / POLICY, model.num_timesteps, tuple(session.curve))


class _Session:
    """A training from where it stands to its end."""

    def __init__(
        self, config: TrainConfig, out: Path, console: Console, model: BaseAlgorithm, exam: VectorEnv,
        curve: list[Point], seconds: float,
    ) -> None:  # fmt: skip
        self.config, self.out, self.model, self.exam, self.curve = config, out, model, exam, curve
        self.scalars = Scalars()
        model.set_logger(self.scalars.logger())
        self.progress = Progress(config.steps, start=model.num_timesteps, console=console)
        self._began = time.monotonic() - seconds

    def run(self) -> None:
        config, model = self.config, self.model
        with self.progress:
            if not self.curve:
                self.measure()
            while model.num_timesteps < config.steps:
                done = model.num_timesteps
                mark = min(config.steps, (done // config.eval_every + 1) * config.eval_every)
                self.progress.stage(f"{config.policy.name} on {config.env}")
                begin_stretch(model, seed_of(config.seed, TRAINING, len(self.curve)))
                self._learn(mark - done)
                self.measure()

    def _learn(self, steps: int) -> None:
        try:
            self.model.learn(steps, callback=_Tell(self.progress), reset_num_timesteps=False)
        except RuntimeError as error:
            if "before the end of the first episode" not in str(error):
                raise
            starts = getattr(self.model, "learning_starts", 0)
            raise TrainingError(
                f"no episode of {self.config.env} ended within policy.learning_starts={starts} steps: raise it above "
                f"num_envs={self.config.num_envs} times the length of an episode"
            ) from None

    def measure(self) -> None:
        """Measure the present policy and keep everything; the point at the end of the budget is the final one."""
        config, steps = self.config, self.model.num_timesteps
        final = steps >= config.steps
        n = config.final_episodes if final else config.eval_episodes
        seed = seed_of(config.seed, FINAL if final else MEASURING, len(self.curve))
        self.progress.stage(f"measuring on {n} fresh episodes")
        policy = SB3Policy.from_algorithm(self.model)
        outcome = run_episodes(policy, self.exam, n, seed, tick=self.progress.tick)
        point = Point.of(steps, outcome, seed, round(time.monotonic() - self._began, 1))
        self.curve.append(point)
        names = {"success": point.rate, "success/lower": point.lower, "success/upper": point.upper}
        self.scalars.add({f"eval/{k}": v for k, v in names.items()} | {"eval/return": point.mean_return}, steps)
        write_curve(self.out, self.curve)
        if final:
            policy.save_pretrained(self.out / POLICY)
            summary = _summary(config, self.curve, content_hash(self.out / POLICY))
            replace_file(self.out / SUMMARY, (json.dumps(summary, indent=1, sort_keys=True) + "\n").encode())
        arrays, counts = learner_arrays(self.model)
        state = {
            "training": described(config), "curve": [asdict(p) for p in self.curve], "counts": counts,
            "seconds": point.seconds,
        }  # fmt: skip
        write_checkpoint(self.out / LEARNER, KIND, state, arrays)  # last: what it stands for is all there
        self.scalars.publish(self.out / SCALARS)


class _Tell(BaseCallback):
    """Passes the steps on to the progress line."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def _on_step(self) -> bool:
        self.progress.at(self.model.num_timesteps)
        return True


def described(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain JSON values, the learner's name among its own."""
    values = {key: value for key, value in asdict(config).items() if key not in RECORDED}
    return values | {"policy": {"learner": config.policy.name} | values["policy"]}


def _kept(out: Path, config: TrainConfig) -> Mapping[str, Any] | None:
    """What an earlier call left; ConfigError where that was another training."""
    if not (out / LEARNER).exists():
        return None
    kept = read_header(out / LEARNER).config
    old, new = _flat(kept["training"]), _flat(described(config))
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and key not in FREE]
    if changed:
        words = ", ".join(f"{key} (was {old.get(key)}, is {new.get(key)})" for key in changed)
        raise ConfigError(f"{out} holds a training with other settings: {words}; choose another out or restore them")
    return kept


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _summary(config: TrainConfig, curve: list[Point], policy: str) -> dict[str, Any]:
    stamp = versions() | {name: version(name) for name in ("torch", "stable-baselines3")}
    return {
        "training": described(config), "steps": curve[-1].steps, "final": asdict(curve[-1]), "policy": policy,
        "curve": [[point.steps, point.rate] for point in curve],
        "versions": stamp | {"python": platform.python_version()},
    }  # fmt: skip
