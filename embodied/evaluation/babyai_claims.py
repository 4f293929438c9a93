"""How the claim about BabyAI is measured; see `embodied.evaluation.claims` for what is claimed.

An arm is a way to learn and a seed. "skills" runs the loop of subgoals; "flat" learns the same levels by the same
learner with as many environment steps as the skills of its seed took, trying and proving included. Both are put to the
same fresh missions, of seeds that no learning used. Finished rows stand in ``docs/results/library.h.arms.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from embodied.evaluation.arms import keep, kept, matching, table_path
from embodied.evaluation.claims import Context, Measurement
from embodied.skills.statistics import wilson
from embodied.training.babyai_world import Levels
from embodied.training.episodes import seed_of
from embodied.training.flat import flat_success, learn_flat
from embodied.training.induction import Case, Collector, gather
from embodied.training.missions import MissionRunner, carry_out
from embodied.training.subgoals import SubgoalLoop, SubgoalSettings, load_skills
from envs.suites.babyai_missions import Thing

__all__ = ["KEPT", "babyai"]

KEPT = "library.h.arms.json"
EPISODES = 200  # of each level
_EXAM, _HELD_OUT = 101, 102  # what the seeds of exams are for


def babyai(context: Context) -> Measurement:
    """library.h: levels on which skills and planner beat flat learning at equal steps, intervals apart."""
    seeds = context.seeds_or(1)
    path = table_path(context, KEPT)
    table = kept(path)
    abouts = {(arm, seed): _about(context, arm, seed) for seed in seeds for arm in ("skills", "flat")}
    for (arm, seed), about in abouts.items():
        if table.get(arm, {}).get(str(seed), {}).get("about") == about:
            continue
        began = time.monotonic()
        flat = arm == "flat"
        row = _flat(context, seed, table["skills"][str(seed)]["steps"]) if flat else _skills(context, seed)
        table.setdefault(arm, {})[str(seed)] = {"about": about, "seconds": time.monotonic() - began, **row}
        keep(path, table, quick=context.quick)
    table, left_out = matching(table, {arm: _about(context, arm, 0) for arm in ("skills", "flat")})
    found = {arm: _pooled(rows) for arm, rows in table.items()}
    levels = list(found["skills"])
    apart = {x: found["skills"][x]["lower"] > found["flat"][x]["upper"] for x in levels}
    differences = [found["skills"][x]["rate"] - found["flat"][x]["rate"] for x in levels]
    steps = {arm: [row["steps"] for row in rows.values()] for arm, rows in table.items()}
    conditions = {
        "4 levels or more": len(levels) >= 4,
        "200 missions a level": min(v["n"] for arm in found.values() for v in arm.values()) >= _episodes(context),
        "flat learning had as many steps": all(f >= s for f, s in zip(steps["flat"], steps["skills"], strict=True)),
    }
    details = {
        "by level": found, "apart": apart, "mean difference": float(np.mean(differences)), "steps": steps,
        "skills": {seed: row["kept"] for seed, row in table["skills"].items()}, "left out": left_out, "kept": KEPT,
        "held-out things": {seed: row["held out"] for seed, row in table["skills"].items()},
    }  # fmt: skip
    n = sum(int(v["n"]) for arm in found.values() for v in arm.values())
    return Measurement(float(sum(apart.values())), None, tuple(map(int, table["skills"])), n, conditions, details)


def _settings(context: Context, seed: int) -> SubgoalSettings:
    if context.quick:
        return SubgoalSettings(levels=("go-to-local-s5-n2", "pickup-loc"), seed=seed, steps=20_000, rounds=1, slots=32)
    return SubgoalSettings(seed=seed)


def _episodes(context: Context) -> int:
    return 20 if context.quick else EPISODES


def _about(context: Context, arm: str, seed: int) -> dict[str, Any]:
    """What a row is measured with; the seed is the row's name."""
    settings = asdict(_settings(context, 0)) | {"seed": 0}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    return {"arm": arm, "settings": settings, "episodes": _episodes(context)}


def _skills(context: Context, seed: int) -> dict[str, Any]:
    settings = _settings(context, seed)
    folder = context.out / "babyai" / f"{'quick-' * context.quick}seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    loop = SubgoalLoop(folder, settings, say=lambda line: context.say(f"skills, seed {seed}: {line}")).run()
    policies, operators = load_skills(folder)

    def plan_and_act(levels: Levels) -> np.ndarray:
        rng = np.random.default_rng(seed_of(seed, _EXAM))
        runner = MissionRunner(levels, policies, operators, rng, lift=False)
        return carry_out(runner, 1)[0][levels.levels[0]]

    solved = _exam(context, settings, plan_and_act)
    held_out = _held_out(context, settings, policies) if "facing" in policies else {}
    row = {"levels": solved, "steps": sum(loop.steps.values()), "kept": sorted(policies)}
    return row | {"spent": dict(loop.steps), "history": loop.history, "held out": held_out}


def _flat(context: Context, seed: int, steps: int) -> dict[str, Any]:
    settings = _settings(context, seed)
    policy = learn_flat(settings.levels, seed_of(seed, 9), steps, settings.slots, context.say)
    solved = _exam(context, settings, lambda levels: flat_success(policy, levels, 1)[levels.levels[0]])
    return {"levels": solved, "steps": steps}


def _exam(
    context: Context, settings: SubgoalSettings, act: Callable[[Levels], np.ndarray]
) -> dict[str, dict[str, int]]:
    """Missions and how many were solved, by level: the first of each of so many slots."""
    found = {}
    for name in settings.levels:
        levels = Levels([name], _episodes(context), seed_of(settings.seed, _EXAM))
        outcomes = act(levels)
        levels.close()
        found[name] = {"n": outcomes.size, "solved": int(outcomes.sum())}
    return found


def _held_out(context: Context, settings: SubgoalSettings, policies: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Success of going to things of kinds and colours that practice named, and of those that it never did."""
    names, found = settings.levels[:1], {}
    held_out = set(settings.held_out)
    for name, wanted in (("never named", True), ("named", False)):
        levels = Levels(names, 48, seed_of(settings.seed, _HELD_OUT, int(wanted)))
        runner = Collector(
            levels, policies, [Case(names[0], "facing", (), False)], np.random.default_rng(settings.seed),
            lambda c: c.predicate, 32, lift=False,
            allowed=lambda t, w=wanted: (str(Thing(t.kind, t.colour)) in held_out) == w,
        )  # fmt: skip
        outcomes = [o.success for o in gather(runner, steps=48 * (20 if context.quick else 200))]
        levels.close()
        lower, upper = wilson(sum(outcomes), len(outcomes))
        found[name] = {"n": len(outcomes), "solved": sum(outcomes), "lower": float(lower), "upper": float(upper)}
    return found


def _pooled(rows: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for level in next(iter(rows.values()))["levels"]:
        n = sum(row["levels"][level]["n"] for row in rows.values())
        solved = sum(row["levels"][level]["solved"] for row in rows.values())
        lower, upper = wilson(solved, n)
        found[level] = {"rate": solved / n, "n": n, "lower": float(lower), "upper": float(upper)}
    return found
