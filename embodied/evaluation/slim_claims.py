"""How the claims about skill discovery (slim.a, b, c) are measured; what is claimed: `embodied.evaluation.claims`.

An arm is a discovery with its settings. Every arm takes equal environment steps and sits the same exam: 50 codes from
each of 4 starts that no training has seen, at a third, two thirds and the end of its steps. Finished arms stand in
``docs/results/slim.arms.json`` by seed, and count again while versions and settings are the same, so the table can be
filled in parts: a measurement begins no further training after an hour, and says what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from embodied.evaluation.arms import Table, fill, kept, table_path
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.skill_exam import sit
from embodied.skills.statistics import bootstrap_interval, interquartile_mean
from embodied.training.discovery import DiscoverySettings, Skills, discover, settings_of
from policies.coded import SAFETY, SKILL

__all__ = ["ARMS", "coverage", "scale_test", "two_blocks"]

KEPT = "slim.arms.json"
STEPS = 480_000
TWICE = 960_000  # where there are two blocks
EXAM_SEEDS = (20_261_131, 20_261_132, 20_261_133, 20_261_134)  # starts of the exam
TUNING_SEED = 1_000  # the sum's weights are chosen by a run of its own, which counts nowhere
BUDGET = 3_600.0  # seconds after which no further training begins
FIGURES = ("coverage05", "coverage10", "interaction", "interior", "lift", "fell", "alignment")
TERMS = ("reach", SKILL, SAFETY)
_ONES = {SAFETY: 1.0}


def _slim(steps: int = STEPS, **settings: Any) -> DiscoverySettings:
    return settings_of("slim", steps=steps, **settings)


def _scaled(combine: str, weights: Mapping[str, float]) -> dict[str, DiscoverySettings]:
    """An arm for every reward and factor; the first is the unscaled one."""
    found = {"x1": _slim(combine=combine, weights=dict(weights))}
    for name in TERMS:
        for factor in (0.1, 10.0):
            found[f"{name} x{factor:g}"] = _slim(combine=combine, weights=dict(weights), scales={name: factor})
    return found


SLIM = "slim"
SUMS = {
    f"sum, reach {reach:g}, safety {safety:g}": _slim(combine="weighted_sum", weights={"reach": reach, SAFETY: safety})
    for reach in (0.3, 1.0, 3.0)
    for safety in (0.1, 0.3, 1.0)
}
SCALED = {
    "slim": {
        "slim" if k == "x1" else f"slim, {k}": v for k, v in _scaled("normalized_advantages", {SAFETY: 0.3}).items()
    },
    "sum": {"sum" if k == "x1" else f"sum, {k}": v for k, v in _scaled("sum", _ONES).items()},
}
OTHERS = {
    "one critic, normalised rewards": _slim(combine="normalized_rewards"),
    "lagrangian": _slim(combine="lagrangian", weights=dict(_ONES)),
    **{name: settings_of(name, steps=STEPS) for name in ("metra", "lsd", "csd", "diayn")},
    "random": settings_of("random"),
}
VARIANTS = {"slim, floor 0.1": _slim(floor=0.1)}  # a reward that is satisfied goes on being heard
TWO = {"slim, two blocks": _slim(TWICE, blocks=2)}
ARMS: dict[str, DiscoverySettings] = SCALED["slim"] | SCALED["sum"] | OTHERS | SUMS | VARIANTS | TWO
"""Name → settings, less the seed."""


def scale_test(context: Context) -> Measurement:
    """slim.a: how far rescaling any one reward by 0.1 or 10 moves coverage, interaction or violation, at worst.

    Relative to the unscaled arm's means over seeds; for the summed critic it is reported in the same way.
    """
    seeds = context.seeds_or(1 if context.quick else 5)
    wanted = [(name, seed) for seed in seeds for group in SCALED.values() for name in group]
    wanted += [(name, seeds[0]) for name in VARIANTS]
    table, left_out = _filled(context, wanted)
    moved = {rule: _moved(table, group) for rule, group in SCALED.items()}
    complete = _complete(table, SCALED["slim"], seeds)
    worst = max((abs(x) for row in moved["slim"].values() for x in row.values()), default=float("nan"))
    arms = _summaries(table, [*SCALED["slim"], *SCALED["sum"], *VARIANTS])
    details = {"relative change": moved, "arms": arms, "missing": left_out, "kept": KEPT, "steps": STEPS}
    return Measurement(worst, None, seeds, _runs(table), {"all seeds of every scale": complete}, details)


def coverage(context: Context) -> Measurement:
    """slim.b: bins of 0.05 m covered by SLIM's skills less those of the best other arm, interquartile means over seeds.

    The sum is tuned: nine weightings, the best by a run under a seed of its own.
    """
    seeds = context.seeds_or(1 if context.quick else 5)
    tuning = [(name, TUNING_SEED) for name in SUMS]
    first = [(name, seed) for seed in seeds for name in (SLIM, *OTHERS, "sum")]
    table, _ = _filled(context, first + tuning)
    tried = {
        name: table[name][str(TUNING_SEED)]["final"]["coverage05"] for name in SUMS if _has(table, name, TUNING_SEED)
    }
    tuned = max(tried, key=lambda name: tried[name]) if len(tried) == len(SUMS) else ""
    table, left_out = _filled(context, first + [(tuned, seed) for seed in seeds if tuned])
    rows = _summaries(table, [SLIM, *OTHERS, "sum", *SUMS])  # any weighting that has been run counts against SLIM
    others = {name: row for name, row in rows.items() if name != SLIM}
    if SLIM not in rows or not others:
        return Measurement(float("nan"), None, seeds, _runs(table), {}, {"missing": left_out})
    best = max(others, key=lambda name: others[name]["coverage05"]["iqm"])
    own, other = rows[SLIM]["coverage05"], others[best]["coverage05"]
    interacting = [row["violation"]["iqm"] for row in others.values() if row["interaction"]["iqm"] >= 0.5]
    conditions = {
        "intervals apart": own["lower"] > other["upper"],
        "no more violations than the safest that interacts": not interacting
        or rows[SLIM]["violation"]["iqm"] <= min(interacting),
        "the sum tuned, all arms, all seeds": not left_out and bool(tuned),
    }
    details = {
        "arms": rows, "best other": best, "tuned sum": tuned, "tuning": tried, "missing": left_out, "kept": KEPT,
        "curves": _curves(table, list(rows)),
    }  # fmt: skip
    return Measurement(own["iqm"] - other["iqm"], None, seeds, _runs(table), conditions, details)


def two_blocks(context: Context) -> Measurement:
    """slim.c: share of seeds in which each of two blocks is moved by some skill."""
    seeds = context.seeds_or(1 if context.quick else 5)
    (name,) = TWO
    table, left_out = _filled(context, [(name, seed) for seed in seeds])
    rows = table.get(name, {})
    moved = {seed: row["final"]["moved"] for seed, row in rows.items()}
    both = [min(row) > 0.0 for row in moved.values()]
    details = {"share of codes that move each": moved, "arms": _summaries(table, [name]), "missing": left_out}
    conditions = {"all seeds": len(rows) == len(seeds)}
    return Measurement(float(np.mean(both)) if both else float("nan"), None, seeds, len(both), conditions, details)


# ---- arms


def _filled(context: Context, wanted: Sequence[tuple[str, int]]) -> tuple[Table, list[str]]:
    """All rows of the present settings with what was wanted, as far as the time reaches, and what is missing."""
    path = table_path(context, KEPT)
    settings = {(name, seed): _settings(context, ARMS[name], seed) for name, seed in wanted}
    abouts = {key: _about(own) for key, own in settings.items()}
    missing = fill(path, abouts, lambda name, seed: run(settings[name, seed], context.say), BUDGET, context.say)
    found: Table = {}
    for name, rows in kept(path).items():
        for seed, row in rows.items():
            if name in ARMS and row["about"] == _about(_settings(context, ARMS[name], int(seed))):
                found.setdefault(name, {})[seed] = row
    return found, missing


def run(settings: DiscoverySettings, say: Callable[[str], None] = print) -> dict[str, Any]:
    """A row: the exam's figures along the way and at the end, seconds, and mean violations of training."""
    began = time.monotonic()
    rollouts = -(-settings.steps // (settings.rollout * settings.num_envs))
    marks = {-(-rollouts * k // 3) for k in (1, 2)}
    curve: list[dict[str, Any]] = []

    def look(skills: Skills) -> None:
        if len(skills.curve) in marks:
            curve.append({"steps": skills.curve[-1]["steps"]} | exam(skills))

    skills = discover(settings, on_iteration=look)
    final = exam(skills)
    seconds = time.monotonic() - began
    words = (
        f"{final['coverage05']:.0f} bins, {final['interaction']:.2f} interact, {final['violation']['any']:.3f} violate"
    )
    say(f"   {words} after {seconds:.0f} s")
    last = skills.curve[-20:]
    training = {
        k: float(np.mean([row[k] for row in last])) for k in (last[0] if last else {}) if k.startswith("reward/")
    }
    steps = skills.curve[-1]["steps"] if skills.curve else 0
    curve.append({"steps": steps} | final)
    return {"final": final, "curve": curve, "training": training, "seconds": seconds}


def exam(skills: Skills) -> dict[str, Any]:
    """The exam's figures, averaged over its starts."""
    return _mean([sit(skills, seed).summary() for seed in EXAM_SEEDS])


def _mean(rows: Sequence[Any]) -> Any:
    """The mean of equal structures of numbers."""
    if isinstance(rows[0], Mapping):
        return {key: _mean([row[key] for row in rows]) for key in rows[0]}
    if isinstance(rows[0], list):
        return [_mean(list(column)) for column in zip(*rows, strict=True)]
    return None if rows[0] is None else float(np.mean(rows))


def _settings(context: Context, base: DiscoverySettings, seed: int) -> DiscoverySettings:
    values = {k: v for k, v in vars(base).items() if k not in ("seed", "steps")}
    steps = min(base.steps, 40_000) if context.quick else base.steps
    return DiscoverySettings(**values, seed=seed, steps=steps)


def _about(settings: DiscoverySettings) -> dict[str, Any]:
    return json.loads(json.dumps({"settings": asdict(settings), "exam": EXAM_SEEDS}))


# ---- figures


def _has(table: Table, name: str, seed: int) -> bool:
    return str(seed) in table.get(name, {})


def _complete(table: Table, names: Mapping[str, Any], seeds: Sequence[int]) -> bool:
    return all(_has(table, name, seed) for name in names for seed in seeds)


def _runs(table: Table) -> int:
    return sum(len(rows) for rows in table.values())


def _values(table: Table, name: str, figure: str) -> list[float]:
    """A figure of an arm, a number a seed; ``violation``: the share of steps with any."""
    rows = {seed: row["final"] for seed, row in table.get(name, {}).items() if int(seed) < TUNING_SEED}
    if figure == "violation":
        return [row["violation"]["any"] for row in rows.values()]
    return [row[figure] for row in rows.values() if row[figure] is not None]


def _summaries(table: Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Interquartile means with bootstrap intervals of every figure, for arms that have a row."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        row: dict[str, Any] = {}
        for figure in (*FIGURES, "violation"):
            values = _values(table, name, figure)
            if values:
                lower, upper = bootstrap_interval(values)
                row[figure] = {
                    "iqm": float(interquartile_mean(values)),
                    "lower": lower,
                    "upper": upper,
                    "by_seed": values,
                }
        if row:
            found[name] = row
    return found


def _moved(table: Table, group: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Relative change of figures against the group's first arm, over the seeds that both have."""
    first, *others = group
    found = {}
    for name in others:
        seeds = [seed for seed in table.get(first, {}) if seed in table.get(name, {})]
        if seeds:
            both = {arm: {s: table[arm][s] for s in seeds} for arm in (first, name)}
            found[name] = {
                figure: float(
                    np.mean(_values(both, name, figure)) / max(1e-9, np.mean(_values(both, first, figure))) - 1
                )
                for figure in ("coverage05", "interaction", "violation")
            }
    return found


def _curves(table: Table, names: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Coverage at each budget, mean over seeds."""
    found = {}
    for name in names:
        curves = [row["curve"] for seed, row in table[name].items() if int(seed) < TUNING_SEED]
        found[name] = [
            {figure: float(np.mean([point[figure] for point in points])) for figure in ("steps", "coverage05")}
            for points in zip(*curves, strict=False)
        ]
    return found
