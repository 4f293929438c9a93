"""How the claim is measured that stable-baselines3's learners, unmodified, learn on our worlds through the adapter.

An arm is a world and a learner with a budget. PPO explores by chance alone and a reward of -1 until the goal is met
tells it nothing, so its arms use the worlds' shaped reward (``reward="dense"``); hindsight uses the sparse one. What
counts is the same for both: ``info["success"]`` at the end of fresh episodes, by the final policy, not the best.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from rich.console import Console

from embodied.cli.learners import PPOConfig, SACHerConfig, TrainConfig
from embodied.evaluation.arms import keep, kept
from embodied.evaluation.claims import Context, Measurement, versions
from embodied.skills.statistics import wilson
from embodied.training.baselines import described, train

__all__ = ["ARMS", "KEPT", "QUICK", "sb3_learns"]

KEPT = "world.f.arms.json"
LEARNT = 0.8  # success of the final policy from which an arm counts
EPISODES = 100
DENSE = {"reward": "dense"}
FETCH = {"goal_range": 0.15, "tolerance": 0.05}  # how far a push goes, and how exactly: as in gymnasium-robotics' Fetch


def _ppo(env: str, steps: int, world: dict[str, float] | None = None) -> TrainConfig:
    return TrainConfig(
        env=env, world=DENSE | (world or {}), policy=PPOConfig(n_steps=64, batch_size=512), steps=steps, num_envs=64,
        eval_every=max(1, steps // 10),
    )  # fmt: skip


def _sac_her(
    env: str, steps: int, world: dict[str, float] | None = None, slots: int = 16, eval_every: int = 0
) -> TrainConfig:
    return TrainConfig(
        env=env, world=dict(world or {}), policy=SACHerConfig(), steps=steps, num_envs=slots,
        eval_every=eval_every or max(1, steps // 10),
    )  # fmt: skip


ARMS: dict[str, TrainConfig] = {
    "reach/ppo": _ppo("reach", 300_000),
    "reach/sac_her": _sac_her("reach", 30_000),
    "push/ppo": _ppo("push", 1_500_000, FETCH),
    "push/sac_her": _sac_her("push", 600_000, FETCH, slots=64, eval_every=30_000),
}
"""World/learner → the training, less its seed, folder and final episodes."""

QUICK: dict[str, TrainConfig] = {
    "reach/ppo": _ppo("reach", 120_000),
    "reach/sac_her": _sac_her("reach", 12_000),
}


def sb3_learns(context: Context) -> Measurement:
    """The number of arms whose final policies succeed on at least 0.8 of 100 fresh episodes (all seeds together).

    Finished arms stand in ``world.f.arms.json`` with their curves, and count again while versions and settings are the
    same: it can be measured in parts, and a training that was stopped goes on. Quick: Reach alone, small budgets.
    """
    arms, prefix = (QUICK, "quick ") if context.quick else (ARMS, "")
    seeds = context.seeds_or(1)
    path = context.results / KEPT
    table = kept(path)
    for seed in seeds:
        for arm, base in arms.items():
            config = _seeded(context, arm, base, seed)
            about = described(config) | {"out": ""}
            row = table.get(f"{prefix}{arm}", {})
            if row.get(str(seed), {}).get("training") != about:
                context.say(f"seed {seed}, {arm}, {config.steps:,} steps")
                result = train(config, Console())
                table.setdefault(f"{prefix}{arm}", {})[str(seed)] = {
                    "training": about, "steps": result.steps, "successes": result.final.successes,
                    "n": result.final.n, "curve": [asdict(point) for point in result.curve],
                }  # fmt: skip
                keep(path, table)
    found = {arm: _pooled([table[f"{prefix}{arm}"][str(seed)] for seed in seeds]) for arm in arms}
    learnt = sum(row["rate"] >= LEARNT for row in found.values())
    details = {
        "arms": {arm: row | {"reward": arms[arm].world.get("reward", "sparse")} for arm, row in found.items()},
        "rewards": "PPO learns from the worlds' shaped reward (reward=dense), SAC with hindsight from the sparse one",
        "curves": KEPT,
    }
    return Measurement(float(learnt), None, seeds, sum(row["n"] for row in found.values()), {}, details)


def _seeded(context: Context, arm: str, base: TrainConfig, seed: int) -> TrainConfig:
    """An arm's training under a seed, in a folder that belongs to its settings and versions alone."""
    settings = described(base) | {"seed": seed, "versions": versions()}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    out = context.out / "baselines" / f"{arm.replace('/', '-')}-seed{seed}-{digest}"
    values = {key: value for key, value in vars(base).items() if key not in ("seed", "out", "final_episodes")}
    return TrainConfig(**values, seed=seed, out=str(out), final_episodes=EPISODES)


def _pooled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Success over all seeds' final episodes, with Wilson's interval, and each seed's steps."""
    successes, n = sum(row["successes"] for row in rows), sum(row["n"] for row in rows)
    lower, upper = wilson(successes, n)
    rate = {"rate": successes / n, "lower": float(lower), "upper": float(upper)}
    return {"successes": successes, "n": n, "steps": [row["steps"] for row in rows]} | rate
