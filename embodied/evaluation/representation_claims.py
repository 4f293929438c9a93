"""How the claim about learnt representations is measured (play.d): ACT-JEPA beside ACT of equal parameters.

Finished trainings stand in ``docs/results/play.d.arms.json`` (`embodied.evaluation.arms`): it can be filled in parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from embodied.evaluation.arms import (
    SCENE,
    Arm,
    about_of,
    exam_of,
    fill,
    kept,
    matching,
    play_data,
    table_path,
    trained,
)
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.goal_exam import acting, sit_exam
from embodied.evaluation.probing import linear_probe
from embodied.skills.statistics import bootstrap_interval
from envs.scenes.facts import BLOCK_STRIDE, BLOCKS
from envs.scenes.scene import load
from policies.act import ACT
from policies.collapse import effective_rank

__all__ = ["representations"]

LATENT_WEIGHT = 0.03  # of ACT-JEPA's second loss beside the first
JEPA = f"act-jepa, ema, {LATENT_WEIGHT}"
UNGUIDED = ("none", "sigreg", "vicreg")  # targets that follow no moving average
BUDGET = 3_600.0  # seconds after which no further training begins; what is missing is said


def representations(context: Context) -> Measurement:
    """play.d: how much better ACT-JEPA succeeds than ACT of equal parameters, on the same starts; what it encodes.

    The weight of its second loss was chosen on another exam. At the full weight it is shown once with each way to keep
    its encoder from collapse, and with none.
    """
    seeds = context.seeds_or(1 if context.quick else 5)
    path = table_path(context, "play.d.arms.json")
    base: dict[str, Any] = {"execute": 8, "precision": "bfloat16", "latent_size": 0}
    arms = {
        "act": Arm("act", base, updates=2_000),
        JEPA: Arm("act-jepa", base | {"collapse": "ema", "latent_weight": LATENT_WEIGHT}, updates=2_000),
    }
    whole = {
        f"act-jepa, {kind}": Arm("act-jepa", base | {"collapse": kind}, updates=2_000) for kind in ("ema", *UNGUIDED)
    }
    wanted = [(who, seed) for seed in seeds for who in arms]
    wanted += [] if context.quick else [(who, seeds[0]) for who in whole]
    arms |= whole
    abouts = {who: about_of(context, arm) for who, arm in arms.items()}
    columns = [BLOCKS + BLOCK_STRIDE * b + k for b in range(len(load(SCENE).blocks)) for k in (0, 1, 2, 5, 6, 7)]

    def measure(who: str, seed: int) -> dict[str, Any]:
        data = play_data(context)
        result = trained(context, who, arms[who], seed, data)
        policy = result.policy
        assert isinstance(policy, ACT)
        rows = np.random.default_rng(seed).choice(len(data.observations) - 40, 6_000, replace=False)
        codes = policy.embed(data.encoder.states(data.observations[rows]))
        later = data.observations[rows + 20][:, columns]  # a second ahead: the present is in the states themselves
        probe = linear_probe(codes, data.observations[rows][:, columns], seed=seed)
        ahead = linear_probe(codes, later, seed=seed)
        answers = sit_exam(acting(policy, data.encoder), exam_of(context))
        rank = effective_rank(torch.from_numpy(codes))
        context.say(f"{answers.rate:.3f}, R² {probe.mean:.3f}, a second ahead {ahead.mean:.3f}, rank {rank:.1f}")
        return answers.summary() | {
            "r2": probe.mean, "r2_ahead": ahead.mean, "rank": rank, "metrics": result.metrics,
            "seconds": result.seconds,
        }  # fmt: skip

    missing = fill(path, {(who, seed): abouts[who] for who, seed in wanted}, measure, BUDGET, context.say)
    table, left_out = matching(kept(path), abouts)
    ours, theirs = table.get(JEPA, {}), table.get("act", {})
    paired = [seed for seed in map(str, seeds) if seed in ours and seed in theirs]
    gaps = np.array([ours[seed]["rate"] - theirs[seed]["rate"] for seed in paired])
    known = [ours[seed]["r2"] - theirs[seed]["r2"] for seed in paired]
    interval = bootstrap_interval(gaps, np.mean) if len(gaps) > 1 else None
    ranks = {who: float(np.mean([row["rank"] for row in rows.values()])) for who, rows in table.items()}
    conditions = {
        "R² of pose and velocity higher": bool(known) and float(np.mean(known)) > 0,
        "the interval lies above the margin": interval is not None and interval[0] >= -0.03,
        "a collapse is shown and prevented": "act-jepa, none" in ranks
        and ranks["act-jepa, none"] < ranks.get("act-jepa, ema", 0.0) / 2,
        "5 seeds": len(gaps) >= 5,
    }
    details = {"arms": table, "ranks": ranks, "left out": left_out, "missing": missing}
    figure = float(gaps.mean()) if len(gaps) else float("nan")
    n = sum(ours[seed]["n"] for seed in paired)
    return Measurement(figure, interval, tuple(map(int, paired)), n, conditions, details)
