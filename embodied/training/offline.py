"""Learning from recorded episodes: one trainer for every learner of `policies.offline`.

Updates go in stretches of ``save_every``; after each, all that learning goes on from is kept in ``learner/``. Batch i
depends on (seed, i) alone, so a training that was killed and called again ends with the same policy, bit for bit.

    learner/      the policy with its training state          encoder.json   what turns (present, goal) into features
    policy/       the final policy                            log.jsonl      metrics, averaged over 100 updates a line
    summary.json  settings, final metrics, versions
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from embodied.data.batches import Batches, Concatenated, Encoder, Recorded
from embodied.data.durable import replace_file
from embodied.data.pictures import Pixels
from embodied.errors import ConfigError
from embodied.progress import Progress
from embodied.training.rollouts import versions
from envs.scenes.scene import load
from envs.tabletop_goals import TabletopGoals
from policies import REGISTRY, load_policy, policy_class
from policies.checkpoint import CheckpointError, content_hash
from policies.chunks import SightConfig
from policies.offline import OfflinePolicy

__all__ = ["OfflineResult", "OfflineSettings", "load_goal_policy", "make_encoder", "make_learner", "train_offline"]

LEARNER, POLICY, ENCODER, LOG, SUMMARY = "learner", "policy", "encoder.json", "log.jsonl", "summary.json"
EVERY = 100  # updates a line of the log averages


@dataclass(frozen=True)
class OfflineSettings:
    """How batches are drawn and how long is learnt; see `embodied.data.batches.Batches`."""

    updates: int = 20_000
    batch: int = 512
    seed: int = 0
    horizon: int = 90
    preference: float = 0.95
    save_every: int = 2_000

    def __post_init__(self) -> None:
        if min(self.updates, self.batch, self.horizon, self.save_every) < 1 or self.seed < 0:
            raise ConfigError(f"updates, batch, horizon and save_every must be at least 1, seed at least 0: {self}")


@dataclass(frozen=True)
class OfflineResult:
    """Where a training is kept, its policy, and the last metrics."""

    directory: Path
    policy: OfflinePolicy
    metrics: dict[str, float]
    seconds: float


def train_offline(
    policy: OfflinePolicy, data: Recorded, settings: OfflineSettings, out: Path, console: Console | None = None
) -> OfflineResult:
    """Trains ``policy`` on ``data`` for ``settings.updates`` updates, or goes on with what is in ``out``.

    Raises ConfigError where the folder holds another training, FloatingPointError (with the update) where the loss is
    not finite; what was kept before stays.
    """
    console = console or Console(quiet=True)
    torch.set_float32_matmul_precision("medium")
    about = {"policy": policy.registry_key, "config": policy.config_dict(), "data": dict(data.about)}
    about |= {"settings": {k: v for k, v in vars(settings).items() if k != "save_every"}}
    about = json.loads(json.dumps(about))
    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.json"
    seconds, lines = 0.0, b""
    sums: dict[str, float] = {}
    if state.exists() and (out / LEARNER).exists():
        kept = json.loads(state.read_text(encoding="utf-8"))
        if kept["training"] != about:
            words = ", ".join(_changed(kept["training"], about))
            raise ConfigError(
                f"{out} holds a training with other settings: {words}; choose another out, or restore them"
            )
        policy = type(policy).load_training(out / LEARNER)
        seconds, sums, lines = kept["seconds"], kept["sums"], (out / LOG).read_bytes()[: kept["log"]]
    else:
        policy.start_training(settings.updates)
    replace_file(out / ENCODER, (json.dumps(_encoder_spec(data), sort_keys=True) + "\n").encode())
    batches = Batches(
        data, policy.spec, settings.batch, settings.seed, horizon=settings.horizon, preference=settings.preference
    )
    began, metrics = time.monotonic() - seconds, json.loads(lines.splitlines()[-1]) if lines else {}
    metrics.pop("update", None)
    with Progress(settings.updates, start=policy.steps, unit="updates", console=console) as progress:
        progress.stage(f"{policy.registry_key} from {data.steps:,} steps")
        while policy.steps < settings.updates:
            found = policy.update(batches.batch(policy.steps))
            if not np.isfinite(found["loss"]):
                raise FloatingPointError(
                    f"the loss of {policy.registry_key} became {found['loss']} at update {policy.steps}; "
                    f"{out} still holds the last good state: lower learning_rate, or look for outliers in the data"
                )
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
            step = policy.steps
            if step % EVERY == 0 or step == settings.updates:
                count = (step - 1) % EVERY + 1
                metrics = {name: total / count for name, total in sums.items()}
                sums = {}
                lines += (json.dumps({"update": step} | metrics) + "\n").encode()
                progress.at(step)
            if step % settings.save_every == 0 or step == settings.updates:
                seconds = time.monotonic() - began
                replace_file(out / LOG, lines)
                policy.save_training(out / LEARNER)
                kept = {"training": about, "seconds": seconds, "log": len(lines), "sums": sums}
                replace_file(state, json.dumps(kept).encode())
    policy.save_pretrained(out / POLICY)
    summary = {"training": about, "metrics": metrics, "seconds": seconds, "policy": content_hash(out / POLICY)}
    stamp = versions() | {"torch": version("torch"), "python": platform.python_version()}
    replace_file(out / SUMMARY, (json.dumps(summary | {"versions": stamp}, indent=1, sort_keys=True) + "\n").encode())
    console.print(Text(f"kept in {out}"), soft_wrap=True)
    return OfflineResult(out, policy, metrics, seconds)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two trainings, in words."""
    if old["policy"] != new["policy"]:
        return [f"policy (was {old['policy']}, is {new['policy']})"]
    parts = [
        (part, key) for part in ("config", "settings", "data") for key in sorted(old[part].keys() | new[part].keys())
    ]
    pairs = [(key, old[part].get(key), new[part].get(key)) for part, key in parts]
    return list(dict.fromkeys(f"{key} (was {was}, is {now})" for key, was, now in pairs if was != now))


def _encoder_spec(data: Recorded) -> dict[str, Any]:
    encoder = data.encoder
    if isinstance(encoder, Pixels):
        seen = {"image": list(encoder.image), "camera": encoder.camera, "blind": encoder.blind}
        return {"kind": "pixels", "scene": data.about["scene"]} | seen
    if isinstance(encoder, TabletopGoals):
        return {"kind": "tabletop"}
    if isinstance(encoder, Concatenated):
        return {"kind": "concatenated", "mean": encoder.mean.tolist(), "std": encoder.std.tolist()}
    return {"kind": "goal-states", "scene": data.about.get("scene", "playroom")}


def make_encoder(spec: Mapping[str, Any]) -> Encoder:
    """An encoder from what ``encoder.json`` says; CheckpointError for a kind there is not."""
    if spec.get("kind") == "concatenated":
        return Concatenated(np.array(spec["mean"]), np.array(spec["std"]))
    if spec.get("kind") == "goal-states":
        from envs.scenes.goal_states import GoalStates

        return GoalStates(load(spec["scene"]))
    if spec.get("kind") == "tabletop":
        return TabletopGoals()
    if spec.get("kind") == "pixels":
        return Pixels(load(spec["scene"]), spec["image"], spec["camera"], spec["blind"])
    raise CheckpointError(f"unknown encoder {spec.get('kind')!r}; valid: concatenated, goal-states, pixels, tabletop")


def load_goal_policy(directory: str | Path) -> tuple[OfflinePolicy, Encoder]:
    """The final policy of a training and its encoder; CheckpointError where either is missing or damaged."""
    directory = Path(directory)
    policy = load_policy(directory / POLICY)
    if not isinstance(policy, OfflinePolicy):
        raise CheckpointError(
            f"{directory / POLICY} holds a {policy.registry_key!r} policy, which takes no goal states"
        )
    try:
        spec = json.loads((directory / ENCODER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory / ENCODER} is missing or damaged: {error}") from None
    encoder = make_encoder(spec)
    if encoder.feature_size != policy.observation_size:
        raise CheckpointError(
            f"{directory}: the encoder gives {encoder.feature_size} features, not {policy.observation_size}"
        )
    return policy, encoder


def make_learner(name: str, data: Recorded, **config: Any) -> OfflinePolicy:
    """An untrained policy of a registry key for some data; ValueError for a key or an entry there is not."""
    sizes: dict[str, Any] = {"feature_size": data.encoder.feature_size, "state_size": data.encoder.state_size}
    if isinstance(data.encoder, Pixels):
        kinds = {key: policy_class(key) for key in sorted(REGISTRY)}
        sees = [key for key, kind in kinds.items() if issubclass(getattr(kind, "config_class", object), SightConfig)]
        if name not in sees:
            raise ValueError(f"{name!r} has no eyes; from pictures learn: {', '.join(sees)}")
        sizes |= {"encoder": "pixels", "image": list(data.encoder.image)}
    return policy_class(name).build(sizes | {"action_size": int(data.actions.shape[1])} | config)
