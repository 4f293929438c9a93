"""How the claim about the open-ended run (library.a) is measured; what is claimed: `embodied.evaluation.claims`.

An arm is a whole run, in a process of its own, of the preset ``ablation`` with some settings changed; what each setting
means stands in docs/open-ended.md. Every arm is judged alike on episodes and instructions that no run has seen:

* every goal that a skill is admitted for, by the version that *acts* for it: 200 fresh episodes, mastered where the
  Wilson lower bound is 0.8; of those the distinct ones count (`embodied.evaluation.mastery`);
* the exam of `embodied.evaluation.openended_exam`: physical success by depth, plans made, what is refused.

The figure is what the full loop masters beyond the best of the arms that lack a part, in the mean over common seeds.
Finished rows stand in ``docs/results/library.a.arms.json`` and count again while the versions and what they were
measured with are the same; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.evaluation import mastery
from embodied.evaluation.arms import Table, fill, kept, matching, table_path
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.main_claims import FRESH, end
from embodied.evaluation.openended_exam import OpenExam, examine, frozen
from embodied.skills.statistics import wilson

__all__ = ["AGAINST", "ARMS", "FULL", "KEPT", "VARIANTS", "open_ended"]

KEPT = "library.a.arms.json"
PRESET = "ablation"
FULL: tuple[str, ...] = ()  # settings of the full loop beyond the preset's; the other arms have them too
MODEL = "{task_lm}"  # in an arm's settings: the folder of the task model that library.d trained under the same seed
AGAINST: dict[str, tuple[str, ...]] = {
    "uniform proposer": ("proposer=uniform",),
    "no gate": ("use_gate=false",),
    "no regression budget": ("without=[regression]",),
    "no operators": ("without=[operators]",),
    "no relabeler": ("without=[relabeler]",),
    "flat": ("without=[skills,operators]", "proposer=uniform"),
    "ungated library": ("without=[proof,operators,regression]",),
}
"""Arms that lack a part: name → settings beyond the full loop's. An arm that is added here is measured and compared."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "two candidates": ("candidates=2",),  # K = 1 is the loop's own
    "task_lm": ("language=task_lm", f"language.model={MODEL}"),
}
"""Arms that have another part, and lack none: listed, and not among what the full loop is compared with."""
ARMS = {"full": (), **AGAINST, **VARIANTS}
SEEDS, HEADLINE = 3, 5
EPISODES = 3  # starts of every instruction of the exam
GOAL_EPISODES = 200
BUDGET = 6 * 3600.0  # seconds after which no further row is begun
QUICK_ARMS = ("full", "no gate")
RECOGNISED = 0.95
REFUSED = {
    "impossible": "impossible refused",
    "alike": "possible refused",
    "able": "impossible refused, of those whose possible like was not",
}


def open_ended(context: Context) -> Measurement:
    """library.a: distinct goals the full loop masters beyond the best arm that lacks a part; the exam beside it.

    ``seeds`` above 3 are of the full loop alone. The interval is the range of the difference over the common seeds.
    """
    seeds = context.seeds_or(1 if context.quick else HEADLINE)
    questions = frozen().shortened(2) if context.quick else frozen()
    path = table_path(context, KEPT)
    wanted, left = _wanted(context, seeds, questions)

    def measure(name: str, seed: int) -> dict[str, Any]:
        return _measure(context, name, seed, questions)

    missing = fill(path, wanted, measure, BUDGET, context.say)
    table, left_out = matching(kept(path), {name: _about(context, name, questions) for name in ARMS})
    return _measurement(table, [*missing, *left], left_out, context.quick)


def _wanted(
    context: Context, seeds: Sequence[int], questions: OpenExam
) -> tuple[dict[tuple[str, int], Any], list[str]]:
    """(arm, seed) → about, seed after seed; and what cannot be measured now."""
    found: dict[tuple[str, int], Any] = {}
    left: list[str] = []
    for number, seed in enumerate(seeds):
        for name in QUICK_ARMS if context.quick else ARMS:
            if name != "full" and number >= SEEDS:
                continue
            if MODEL in "".join(ARMS[name]) and not _model(context, seed).is_dir():
                left.append(f"{name}, seed {seed}: there is no model of library.d in task-lm/seed{seed} below out")
                continue
            found[name, seed] = _about(context, name, questions)
    return found, left


def _about(context: Context, name: str, questions: OpenExam) -> dict[str, Any]:
    """What a row is measured with, ready for JSON."""
    settings = [f"preset={'smoke' if context.quick else PRESET}", *FULL, *ARMS[name]]
    return {"settings": settings, "exam": questions.digest, "episodes": [_goal_episodes(context), _episodes(context)]}


def _goal_episodes(context: Context) -> int:
    return 20 if context.quick else GOAL_EPISODES


def _episodes(context: Context) -> int:
    return 1 if context.quick else EPISODES


def _model(context: Context, seed: int) -> Path:
    """Where library.d keeps the task model of a seed."""
    from embodied.training.task_lm import MODEL as NAME

    return context.out / "task-lm" / f"seed{seed}" / NAME


# ---- a row


def _measure(context: Context, name: str, seed: int, questions: OpenExam) -> dict[str, Any]:
    began = time.monotonic()
    run = _live(context, name, seed)
    lived = time.monotonic()
    row = _judge(run, context, seed, questions)
    exam, n = row["exam"]["success"], len(row["mastered"])
    context.say(f"{name}, seed {seed}: {n} mastered; by depth { ({d: x['successes'] for d, x in exam.items()}) }")
    return row | {"seconds": {"run": lived - began, "judged": time.monotonic() - lived}}


def _live(context: Context, name: str, seed: int) -> Path:
    """The arm's run, lived to its end or found so. Raises ClaimError where it fails."""
    preset = "smoke" if context.quick else PRESET
    settings = [f"preset={preset}", f"seed={seed}", "heldout_episodes=0", *FULL, *ARMS[name]]
    settings = [text.replace(MODEL, str(_model(context, seed))) for text in settings]
    digest = hashlib.sha256(" ".join((*FULL, *ARMS[name])).encode()).hexdigest()[:6]
    run = context.out / f"open-{preset}-{name.replace(' ', '-').replace('_', '-')}-{digest}-seed{seed}"
    command = [sys.executable, "-m", "embodied", "run", *settings, f"name={run.name}", f"out={context.out}"]
    context.out.mkdir(parents=True, exist_ok=True)
    context.say(shlex.join(["embodied", *command[3:]]))
    end(command, run.with_suffix(".log"))
    return run


def _judge(run: Path, context: Context, seed: int, questions: OpenExam) -> dict[str, Any]:
    """What a run's skills master on fresh episodes, and how they do in the exam."""
    from embodied.language.skill_plans import planner_of
    from embodied.training.families import repertoire_of, schemas

    config = runs.config(run)
    with runs.library(run) as library:
        last = library.last_round
        state: Mapping[str, Any] = last.state if last else {}
        repertoire = repertoire_of(config, library, state.get("operators", {}))
        own = [entry.goal for entry in library.mastered()]
    acts = {goal: repertoire.actors[name] for goal, name in repertoire.acts.items()}
    alone = None
    if "skills" in config.without:  # one policy is all there is: it is asked for everything
        alone = next(iter(acts.values())) if acts else _untried(run, state)
        acts = {goal: alone for goals in schemas().values() for goal in goals}
    mastered = _mastered(acts, _goal_episodes(context), config.threads)
    exam = examine(
        repertoire, FRESH + seed, questions, planner=planner_of(config.language, repertoire), alone=alone,
        episodes=_episodes(context), threads=config.threads,
    )  # fmt: skip
    curve = {row["steps"]: [row["steps"], row["seconds"], row["count"]] for row in state.get("mastered", ())}
    return {
        "mastered": mastery.distinct(mastered), "every": mastered, "own": len(mastery.distinct(own)),
        "curve": list(curve.values()), "steps": state.get("steps", 0), "exam": exam,
    }  # fmt: skip


def _untried(run: Path, state: Mapping[str, Any]) -> Any:
    """What the one policy of a run without skills came to, where nothing of it was admitted."""
    from embodied.training.families import EVERYTHING
    from policies.multi_critic_ppo import MultiCriticPPO

    return MultiCriticPPO.load_training(run / state["practice"][EVERYTHING]["directory"])


def _mastered(acts: Mapping[str, Any], episodes: int, threads: int) -> list[str]:
    """The goals of which the Wilson lower bound on fresh episodes is 0.8."""
    from embodied.core import ADMISSION_THRESHOLD
    from embodied.training.rollouts import Trial, measure_all

    found = []
    for actor in dict.fromkeys(acts.values()):
        goals = [goal for goal, other in acts.items() if other is actor]
        for one in measure_all(actor, [Trial(goal, episodes, FRESH) for goal in goals], threads=threads):
            if wilson(one.report.successes, one.report.n)[0] >= ADMISSION_THRESHOLD:
                found.append(one.report.goal)
    return [goal for goal in acts if goal in found]


# ---- what the rows say


def _measurement(table: Table, missing: Sequence[str], left_out: Sequence[str], quick: bool) -> Measurement:
    """The figure, its conditions and details from a table of rows."""
    full = {int(seed): row for seed, row in table.get("full", {}).items()}
    differences = {
        name: {
            seed: len(full[seed]["mastered"]) - len(row["mastered"])
            for seed, row in _seeds(table, name)
            if seed in full
        }
        for name in AGAINST
    }
    means = {name: float(np.mean([*of.values()])) for name, of in differences.items() if of}
    best = min(means, key=lambda name: means[name], default="")
    ranges = [*differences[best].values()] if best else []
    kinds = _pooled(row["exam"]["refused"]["impossible"] for row in full.values())
    recognised = _rate([sum(counts) for counts in zip(*kinds.values(), strict=True)] or [0, 0])
    conditions = {
        f"{RECOGNISED:.0%} of what is impossible is recognised by the full loop": recognised["rate"] >= RECOGNISED
    }
    if not quick:
        few = [name for name in AGAINST if len(differences[name]) < SEEDS]
        conditions |= {
            f"{HEADLINE} seeds of the full loop are measured": len(full) >= HEADLINE,
            f"{SEEDS} seeds of every arm that lacks a part are measured": not few,
        }
    details = {
        "best_other": best, "more_than": means, "recognised": recognised, "arms": _details(table),
        "missing": list(missing), "left out": list(left_out), "kept": KEPT,
    }  # fmt: skip
    return Measurement(
        means[best] if best else float("nan"), (float(min(ranges)), float(max(ranges))) if ranges else None,
        tuple(sorted(full)), len(ranges), {} if quick else conditions, details,
    )  # fmt: skip


def _seeds(table: Table, name: str) -> list[tuple[int, dict[str, Any]]]:
    return [(int(seed), row) for seed, row in table.get(name, {}).items()]


def _details(table: Table) -> dict[str, Any]:
    """Every arm: goals mastered by seed and over steps and wall time, and the exam over its seeds together."""
    found: dict[str, Any] = {}
    for name in ARMS:
        rows = dict(sorted(_seeds(table, name)))
        if not rows:
            continue
        exams = [row["exam"] for row in rows.values()]
        success = _pooled({d: (x["successes"], x["n"]) for d, x in exam["success"].items()} for exam in exams)
        plans: dict[str, list[float]] = {}
        for exam in exams:
            for depth, mean in exam["plans"].items():
                plans.setdefault(depth, []).append(mean)
        found[name] = {
            "mastered": {str(seed): len(row["mastered"]) for seed, row in rows.items()},
            "mean": float(np.mean([len(row["mastered"]) for row in rows.values()])),
            "steps, seconds, mastered by its own gate": {str(seed): row["curve"] for seed, row in rows.items()},
            "success by depth": {depth: _rate(counts) for depth, counts in success.items()},
            "plans an instruction": {depth: float(np.mean(means)) for depth, means in sorted(plans.items())},
        }
        for key, called in REFUSED.items():
            kinds = _pooled(exam["refused"][key] for exam in exams)
            found[name][called] = {kind: _rate(counts) for kind, counts in kinds.items()}
    return found


def _pooled(rows: Any) -> dict[str, list[int]]:
    """Key → counts added up."""
    found: dict[str, list[int]] = {}
    for row in rows:
        for key, counts in row.items():
            found[key] = [a + b for a, b in zip(found.get(key, [0, 0]), counts, strict=True)]
    return dict(sorted(found.items()))


def _rate(counts: Sequence[int]) -> dict[str, float]:
    successes, n = int(counts[0]), int(counts[1])
    lower, upper = wilson(successes, n)
    rate = successes / n if n else 0.0
    return {"successes": successes, "n": n, "rate": rate, "lower": float(lower), "upper": float(upper)}
