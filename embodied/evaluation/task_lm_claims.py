"""How the claim about the task model (library.d) is measured; what is claimed: `embodied.evaluation.claims`.

A model a seed is trained on the table-top's true operators: demonstrations of depth 1 and 2, then GRPO. Depth is the
number of steps of the embedded planner's plan. The exam's tasks and chains are drawn once, from seeds of their own, and
no training sees one of them (equal goal and start); the likeliest plan alone counts, and the symbolic world judges it.
Chains of two are asked twice from the same starts, with and without what solved the first as a macro, and steps said
are compared where both plans reach the goal.

Finished seeds stand in ``docs/results/library.d.arms.json`` and count again while versions and settings are the same; a
training that was stopped goes on where it was. With ``runs=FOLDER`` the first seed's model also plans frozen
instructions over that run's learnt operators, carried out in MuJoCo; this stands in the details only.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.evaluation.arms import fill, kept, matching, table_path
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.heldout import instructions
from embodied.language.symbolic_world import SymbolicWorld, tabletop
from embodied.language.task_plans import Task, answer, flat, kept_as_macro, success_by_depth
from embodied.language.task_tokens import MACROS
from embodied.skills.statistics import bootstrap_interval, wilson
from embodied.training.symbolic_tasks import Chain, Tasks, heldout_chains, heldout_tasks
from embodied.training.task_lm import BEFORE, MODEL, TaskLMSettings, train_task_lm
from envs.goals import parse_instruction
from policies.task_lm import TaskLM

__all__ = ["KEPT", "planner_model"]

KEPT = "library.d.arms.json"
NAME = "task_lm"
TEST_SEED, START_SEED = 20_261_151, 20_261_152
TAUGHT, DEEP = (1, 2), (3, 4)
EACH, CHAINS = 150, 100
BUDGET = 4 * 3600.0  # seconds after which no further training begins
QUICK = TaskLMSettings(
    demonstrations=60, supervised=20, batch=16, steps=4, tasks=4, group=4, going_on=2, gate_every=2, gate_tasks=5
)


def planner_model(context: Context) -> Measurement:
    """library.d: success at depths 3 and 4 after GRPO, averaged over both and the seeds, by the likeliest plan.

    Conditions: depths 1 and 2 lose at most a point on average against the supervised model; a training takes at most
    20 minutes of one core; with the library fewer steps are said than without. The interval is over seeds and tasks.
    """
    seeds = context.seeds_or(1 if context.quick else 3)
    each, n_chains = (5, 3) if context.quick else (EACH, CHAINS)
    world = SymbolicWorld(tabletop())
    draw = Tasks(world, (), frozenset(item.goal for item in instructions()))
    exam = heldout_tasks(draw, (*TAUGHT, *DEEP), each, TEST_SEED)
    chains = heldout_chains(draw, n_chains, TEST_SEED)
    settings = QUICK if context.quick else TaskLMSettings()
    about = {"settings": asdict(replace(settings, seed=0)), "exam": [TEST_SEED, each, n_chains]}
    path = table_path(context, KEPT)

    def measure(_: str, seed: int) -> dict[str, Any]:
        return _measure(context, world, replace(settings, seed=seed), exam, chains)

    missing = fill(path, {(NAME, seed): about for seed in seeds}, measure, BUDGET, context.say)
    table, left_out = matching(kept(path), {NAME: about})
    found = {seed: table[NAME][str(seed)] for seed in seeds if str(seed) in table.get(NAME, {})}
    rows = list(found.values())
    details = _details(found) | {"missing": missing, "left out": left_out, "kept": KEPT}
    if context.runs and rows:
        model = TaskLM.from_pretrained(_folder(context, seeds[0]) / MODEL)
        details["in MuJoCo"] = {run.name: _in_run(model, run) for run in context.runs if runs.is_run(run)}
    deep = np.array([[row["after"][str(d)] for d in DEEP] for row in rows])
    figure = float(deep.mean()) if rows else 0.0
    conditions = _conditions(rows) if not context.quick else {}
    n = len(rows) * each * len(DEEP)
    low, high = bootstrap_interval(deep, np.mean) if len(rows) > 1 else wilson(round(figure * n), n)
    return Measurement(figure, (float(low), float(high)), tuple(found), n, conditions, details)


def _folder(context: Context, seed: int) -> Path:
    return context.out / "task-lm" / f"{'quick-' if context.quick else ''}seed{seed}"


def _measure(
    context: Context, world: SymbolicWorld, settings: TaskLMSettings, exam: dict[int, list[Task]], chains: list[Chain]
) -> dict[str, Any]:
    """One seed's model: trained, and examined before GRPO and after."""
    folder = _folder(context, settings.seed)
    avoid = [task for rows in exam.values() for task in rows] + [task for c in chains for task in (c.first, c.second)]
    training = train_task_lm(world, settings, folder, avoid, context.say)
    before, after = TaskLM.from_pretrained(folder / BEFORE), training.model
    row = {
        "before": _texts(success_by_depth(before, world, exam)),
        "after": _texts(success_by_depth(after, world, exam)),
        "after, best of 8": _texts(success_by_depth(after, world, exam, 8)),
        "by literals": _by_literals(after, world, exam),
        "library": _library(after, world, chains),
        "instructions": _instructions(after, world),
        "parameters": after.size,
        "cpu seconds": training.progress.cpu,
        "seconds": training.progress.seconds,
        "undone updates": training.progress.undone,
    }
    context.say(f"seed {settings.seed}: before {row['before']}, after {row['after']}, {row['library']}")
    return row


def _texts(found: dict[int, float]) -> dict[str, float]:
    return {str(depth): rate for depth, rate in found.items()}


def _by_literals(model: TaskLM, world: SymbolicWorld, exam: dict[int, list[Task]]) -> dict[str, list[int]]:
    """ "depth: literals asked for" → [solved, tasks], of the deep tasks."""
    found: dict[str, list[int]] = {}
    for depth in DEEP:
        for task, success in zip(exam[depth], answer(model, world, exam[depth]).success, strict=True):
            counts = found.setdefault(f"{depth}: {len(task.goal.literals)}", [0, 0])
            counts[0] += int(success)
            counts[1] += 1
    return dict(sorted(found.items()))


def _library(model: TaskLM, world: SymbolicWorld, chains: list[Chain]) -> dict[str, Any]:
    """The second tasks of chains with and without the library that their first tasks made."""
    first = answer(model, world, [chain.first for chain in chains])
    asked, plain = [], []
    for chain, plan, success in zip(chains, first.plans, first.success, strict=True):
        steps = flat(plan, chain.first)
        if success and len(steps) > 1:
            asked.append(kept_as_macro(chain.second, steps, MACROS[len(asked) % len(MACROS)]))
            plain.append(chain.second)
    if not asked:
        return {"chains": 0, "both": 0, "steps with": 0.0, "steps without": 0.0}
    having, lacking = answer(model, world, asked), answer(model, world, plain)
    both = having.success & lacking.success
    run = np.array([len(flat(plan, task)) for plan, task in zip(having.plans, asked, strict=True)])

    def mean(values: np.ndarray) -> float:
        return float(values[both].mean()) if both.any() else 0.0

    return {
        "chains": len(asked),
        "success with": float(having.success.mean()),
        "success without": float(lacking.success.mean()),
        "used": float((having.success & having.used_macro()).mean()),
        "both": int(both.sum()),
        "steps with": mean(having.decisions),
        "steps without": mean(lacking.decisions),
        "skills run with": mean(run),
        "tokens with": mean((having.sampled.tokens > 0).sum(1)),
        "tokens without": mean((lacking.sampled.tokens > 0).sum(1)),
    }


def _instructions(model: TaskLM, world: SymbolicWorld) -> dict[str, list[int]]:
    """The frozen English instructions from five drawn starts each: number of steps asked for → [solved, n]."""
    draw, rng = Tasks(world), np.random.default_rng(START_SEED)
    found: dict[str, list[int]] = {}
    for item in instructions():
        goal = parse_instruction(item.text)
        tasks = [Task(world.facts(draw.start(rng)), goal) for _ in range(5)]
        counts = found.setdefault(str(item.steps), [0, 0])
        counts[0] += int(answer(model, world, tasks).success.sum())
        counts[1] += len(tasks)
    return found


def _conditions(rows: list[dict[str, Any]]) -> dict[str, bool]:
    if not rows:
        return {"a seed was measured": False}
    lost = [np.mean([row["before"][str(d)] - row["after"][str(d)] for d in TAUGHT]) for row in rows]
    return {
        "depths 1 and 2 lost at most a point": float(np.mean(lost)) <= 0.01,
        "a training took at most 20 minutes of one core": max(row["cpu seconds"] for row in rows) <= 1200,
        "fewer steps with the library than without": all(
            row["library"]["both"] > 0 and row["library"]["steps with"] < row["library"]["steps without"]
            for row in rows
        ),
    }


def _details(found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The seeds' means, and every seed's row."""
    means: dict[str, Any] = {}
    for key in ("before", "after", "after, best of 8"):
        rows = [row[key] for row in found.values()]
        means[key] = {str(d): float(np.mean([row[str(d)] for row in rows])) for d in (*TAUGHT, *DEEP) if rows}
    return means | {"seeds": {str(s): {k: v for k, v in row.items() if k != "about"} for s, row in found.items()}}


def _in_run(model: TaskLM, run: Path) -> dict[str, Any]:
    """Frozen instructions carried out with a run's skills, from equal starts: planned by the model or the planner."""
    from embodied.language.skill_plans import asked
    from embodied.language.task_lm import TaskLanguageModel
    from embodied.planning.execute import PlanFunction, carry_out
    from embodied.repertoire import Repertoire

    with runs.library(run) as library:
        last = library.last_round
        repertoire = Repertoire.load(library, last.state["operators"] if last else {})
    degraded: list[str] = []
    agent = TaskLanguageModel(model, repertoire.operators)
    goals = [item.goal for item in instructions()]
    found: dict[str, Any] = {}
    plans: dict[str, PlanFunction] = {
        NAME: asked(agent, repertoire, degraded.append), "planner": repertoire.planner()
    }  # fmt: skip
    for name, plan in plans.items():
        outcomes, _ = carry_out(goals, repertoire.actors, plan, START_SEED)
        found[name] = [sum(outcome.success for outcome in outcomes), len(outcomes)]
    return found | {"plans of the planner in place of the model's": [sum(map(bool, degraded)), len(degraded)]}
