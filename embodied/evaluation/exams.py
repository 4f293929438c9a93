"""Exams as commands give them: who is examined, the table of tasks with intervals, and what is kept of it.

An exam is set and sat in parts of `PART` questions a task, each under a seed of its own, so that a longer one begins
with the whole parts of a shorter one. Whoever sits it gets the same questions: beside a policy's table belong those of
``random`` and ``expert``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied.data.durable import replace_file
from embodied.data.labels import phrasings
from embodied.data.pictures import Pixels
from embodied.evaluation.environments import BUILT_IN, PolicyError
from embodied.evaluation.goal_exam import Act, Answers, Exam, Seeing, acting, chains, set_exam, sit_exam
from embodied.evaluation.instruction_exam import WAYS, instructions
from embodied.evaluation.instruction_exam import told as told_in_words
from embodied.skills.statistics import wilson
from embodied.training.episodes import seed_of
from embodied.training.offline import load_goal_policy
from embodied.training.rollouts import versions
from envs.scenes.scene import load
from policies.chunks import ChunkPolicy
from policies.latent_plans import LatentPlans
from policies.multi_context import MultiContext
from policies.text import HashedWords

__all__ = ["ExamReport", "examine", "plan_picture", "recognise", "recognised", "show", "shuffled", "write"]

PART = 25  # questions a task that are asked at once
TOLD: dict[str, str] = dict(zip(("heard", "held_out", "another"), WAYS, strict=True))  # as commands have it
ACTIONS = 5  # numbers of an action of the tool


@dataclass(frozen=True)
class ExamReport:
    """An exam's parts, answered, and under which conditions."""

    policy: str
    scene: str
    seed: int
    depth: int
    disturb: str
    plan: str
    told: str
    parts: tuple[Answers, ...]

    def tasks(self) -> dict[str, tuple[int, int]]:
        """Task (or goal of several) -> successes and questions."""
        found: dict[str, tuple[int, int]] = {}
        for part in self.parts:
            for k, task in enumerate(part.exam.tasks):
                of = part.exam.which == k
                successes, n = found.get(task, (0, 0))
                found[task] = successes + int(part.success[of].sum()), n + int(of.sum())
        return found

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: the rate averaged over tasks, all questions' and each task's with Wilson's interval, the seed
        and versions.
        """
        rows = {task: _rate(*found) for task, found in self.tasks().items()}
        successes, n = (sum(row[key] for row in rows.values()) for key in ("successes", "n"))
        whole = _rate(successes, n) | {
            "rate": float(np.mean([row["rate"] for row in rows.values() if row["n"]] or [0]))
        }
        taken = np.concatenate([part.steps[part.success] for part in self.parts])
        return whole | {
            "policy": self.policy, "scene": self.scene, "seed": self.seed, "depth": self.depth,
            "disturb": self.disturb, "plan": self.plan, "told": self.told, "by_task": rows,
            "mean_steps": float(taken.mean()) if len(taken) else None, "versions": versions(),
        }  # fmt: skip


def _rate(successes: int, n: int) -> dict[str, Any]:
    lower, upper = wilson(successes, n)
    return {
        "successes": successes, "n": n, "rate": successes / max(n, 1), "lower": float(lower), "upper": float(upper)
    }  # fmt: skip


def examine(
    policy: str | Path,
    scene: str = "playroom",
    *,
    questions: int = 50,
    seed: int = 1_000,
    depth: int = 1,
    disturb: str = "none",
    plan: str = "prior",
    told: str = "",
    threads: int = 0,
    tick: Callable[[int], None] = lambda steps: None,
) -> ExamReport:
    """Puts ``questions`` of each task of a scene (as far as its expert solves them) to a policy.

    Args:
        policy: ``random``, ``expert``, or the folder of a training from recorded episodes.
        scene: of random and expert; a training knows its own.
        depth: above 1, goals of so many tasks at once.
        plan: ``shuffled`` lets a policy of latent plans follow those that were proposed to others, ``posterior`` those
            recognised in the expert's way at the same moment.
        told: gives a policy a sentence and no goal: one of `TOLD`.
        tick: hears of the environment steps as they are taken.

    Raises PolicyError for a policy that cannot sit it, CheckpointError for a damaged one.
    """
    begin, scene = _examined(str(policy), scene, seed, plan, told, threads)
    built = load(scene)
    tasks = tuple(built.tasks) if depth == 1 else chains(built, depth)
    if not tasks:
        raise PolicyError(f"the scene {scene} has no {'tasks' if depth == 1 else f'goals of {depth} tasks'} to examine")
    parts = []
    for number, first in enumerate(range(0, questions, PART)):
        each = min(PART, questions - first)
        drawn = seed_of(seed, number)
        exam = set_exam(tasks, each, drawn, scene=scene, depth=depth, threads=threads, ways=plan == "posterior")
        if not len(exam):
            raise PolicyError(f"the expert of the scene {scene} solves none of its tasks: there is nothing to ask")

        def watch(env: Any, t: int, n: int = len(exam)) -> None:
            tick(n)

        disturbed = None if disturb == "none" else disturb
        parts.append(sit_exam(begin(number, exam), exam, disturb=disturbed, watch=watch, threads=threads))
    return ExamReport(str(policy), scene, seed, depth, disturb, plan, told, tuple(parts))


def _examined(
    policy: str, scene: str, seed: int, plan: str, way: str, threads: int
) -> tuple[Callable[[int, Exam], Act | None], str]:
    """What acts in each part, and in which scene."""
    if plan != "prior" and policy in BUILT_IN:
        raise PolicyError(f"plan={plan} is about policies of latent plans; {policy} has none")
    if way and policy in BUILT_IN:
        raise PolicyError(f"told={way} is about policies of multi_context; {policy} understands no sentence")
    if policy == "expert":
        return lambda part, exam: None, scene
    if policy == "random":
        return lambda part, exam: _random(seed_of(seed, part, 1)), scene
    if not Path(policy).is_dir():
        raise PolicyError(
            f"there is no policy '{policy}': give {', '.join(BUILT_IN)} or the folder of a training from recorded "
            "episodes"
        )
    learnt, encoder = load_goal_policy(policy)
    own = json.loads((Path(policy) / "encoder.json").read_text(encoding="utf-8")).get("scene")
    if own is None:
        raise PolicyError(
            f"{policy} did not learn from facts of a scene of ours: it cannot sit the exam of the {scene}"
        )
    if plan != "prior" and not isinstance(learnt, LatentPlans):
        raise PolicyError(f"plan={plan} is about policies of latent plans; {policy} holds a '{learnt.registry_key}'")

    if way and not isinstance(learnt, MultiContext):
        raise PolicyError(f"told={way} is about policies of multi_context; {policy} holds a '{learnt.registry_key}'")

    def begin(part: int, exam: Exam) -> Act:
        learnt.seed(seed_of(seed, part, 2))
        if isinstance(learnt, LatentPlans) and plan == "shuffled":
            return shuffled(learnt, encoder, seed_of(seed, part, 3))
        if isinstance(learnt, LatentPlans) and plan == "posterior":
            return recognised(learnt, encoder, exam)
        if isinstance(learnt, MultiContext) and way:
            if exam.depth > 1:
                raise PolicyError(f"told={way} is of one task at a time; leave depth={exam.depth} out")
            sentences = instructions(exam, phrasings(load(own)), TOLD[way], seed)
            return told_in_words(learnt, encoder, sentences, HashedWords())
        if isinstance(encoder, Pixels) and isinstance(learnt, ChunkPolicy):
            return Seeing(learnt, encoder, threads)
        return acting(learnt, encoder)

    return begin, own


def _random(seed: int) -> Act:
    rng = np.random.default_rng(seed)
    return lambda facts, goals: rng.uniform(-1.0, 1.0, (len(facts), ACTIONS))


def shuffled(policy: LatentPlans, encoder: Any, seed: int) -> Act:
    """A policy of latent plans in which everyone follows the plan that was proposed to another.

    Plans are drawn as `LatentPlans.predict` draws them, all slots' at once, then handed on at random along one ring.
    """
    rng = np.random.default_rng(seed)
    state: Any = None
    at = 0

    def act(facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        nonlocal state, at
        features = encoder.features(facts, goals)
        if at % policy.config.execute == 0:
            noise = rng.standard_normal((len(features), policy.space.noise_size), np.float32)
            plans = policy.propose(features, noise * np.float32(policy.config.temperature))
            ring = rng.permutation(len(plans))
            handed = np.empty_like(plans)
            handed[ring] = plans[np.roll(ring, 1)]
            state = policy.give(handed, state)
        at += 1
        actions, state = policy.predict(features, state)
        return actions

    return act


def recognised(policy: LatentPlans, encoder: Any, exam: Exam) -> Act:
    """A policy of latent plans that follows what is recognised in the expert's way, as far as that goes on.

    What the expert would have had to be watched for: a bound on what better proposals could bring.
    """
    state: Any = None
    at = 0

    def act(facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        nonlocal state, at
        if at % policy.config.execute == 0:
            state = policy.give(recognise(policy, encoder, exam, at), state)
        at += 1
        actions, state = policy.predict(encoder.features(facts, goals), state)
        return actions

    return act


def plan_picture(policy: str | Path, found: ExamReport) -> np.ndarray | None:
    """Plans of an exam's questions as they begin, coloured by task: those proposed by start and goal, and, where the
    expert's ways were kept, those recognised in them. None for a policy without plans.
    """
    from embodied.viz.plans import plan_map

    if not Path(policy).is_dir():
        return None
    learnt, encoder = load_goal_policy(policy)
    if not isinstance(learnt, LatentPlans):
        return None
    exams = [part.exam for part in found.parts]
    proposed = [learnt.propose(encoder.features(exam.starts, exam.goals)) for exam in exams]
    plans = {"proposed by start and goal": np.concatenate(proposed)}
    if all(exam.ways is not None for exam in exams):
        plans["recognised in the expert's way"] = np.concatenate([recognise(learnt, encoder, e, 0) for e in exams])
    return plan_map(plans, np.concatenate([exam.which for exam in exams]), exams[0].tasks)


def recognise(policy: LatentPlans, encoder: Any, exam: Exam, at: int) -> np.ndarray:
    """Plans float32[n, P] recognised in the expert's ways from step ``at`` on; ValueError for an exam without them."""
    if exam.ways is None:
        raise ValueError("the exam was set without the expert's ways; set it with ways=True")
    facts, actions = exam.ways
    rows = np.minimum(np.arange(at, at + policy.config.chunk), actions.shape[1] - 1)
    window = np.zeros((len(exam), len(rows), policy.observation_size), np.float32)
    for k, row in enumerate(rows):
        window[:, k, : encoder.state_size] = encoder.states(facts[:, row])
    return policy.plan_of(window, np.clip(actions[:, rows], -1.0, 1.0))


def show(row: Mapping[str, Any], console: Console) -> None:
    """The summary of an exam, or of OGBench's goals, as a table of tasks with the conditions below it."""
    if "goals" in row:
        _table("goal", {str(goal["goal"]): goal for goal in row["goals"]} | {"all": row}, console)
        told = row["env"]
    else:
        _table("task", {**row["by_task"], "all": row}, console)
        told = f"scene {row['scene']}"
        told += "" if row["disturb"] == "none" else f", disturbed ({row['disturb']})"
        told += "" if row["plan"] == "prior" else f", {row['plan']} plans"
        told += f", told in words ({row['told']})" if row.get("told") else ""
    stamp = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    console.print(Text(f"policy {row['policy']}, {told}, seed {row['seed']}; {stamp}"), soft_wrap=True)


def _table(what: str, rows: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(what)
    for name in ("success", "95 %", "of"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows.items():
        interval = Text(f"[{row['lower']:.0%}, {row['upper']:.0%}]")
        table.add_row(Text(name), f"{row['rate']:.0%}", interval, str(row["n"]))
    console.print(table)


def write(found: ExamReport, path: Path, **more: Any) -> tuple[Path, Path]:
    """Writes one JSON line a question to ``path`` (.jsonl) and the summary, with ``more``, beside it (.json); both."""
    lines = []
    for number, part in enumerate(found.parts):
        for i, k in enumerate(part.exam.which):
            line = {"part": number, "seed": part.exam.seed, "question": i, "task": part.exam.tasks[k]}
            lines.append(line | {"success": bool(part.success[i]), "steps": int(part.steps[i])})
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    path = path.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    summary = found.summary() | more
    replace_file(path.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
    return path, path.with_suffix(".json")
