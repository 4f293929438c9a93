"""A run measured on fresh episodes: every goal of its library, or the held-out instructions, beside the baselines.

Each measurement leaves ``evaluations/WHAT-seedN.jsonl``, one line an episode, and ``WHAT-seedN.json``, the summary with
Wilson intervals, seeds and versions. Every row of a goal is measured on the same starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied import runs
from embodied.cli.schema import EvalConfig
from embodied.core import ADMISSION_THRESHOLD, EvalReport
from embodied.data.durable import replace_file
from embodied.evaluation import heldout, mastery
from embodied.progress import Progress
from embodied.repertoire import Repertoire
from embodied.skills.library import SkillLibrary, Status
from embodied.training.rollouts import MAX_STEPS, Actor, measure, versions
from envs.observations import FEATURES
from envs.playroom.oracle import ScriptedOracle
from envs.vector import ACTIONS, TabletopVectorEnv
from policies import load_policy
from policies.random import RandomPolicy

__all__ = ["EVALUATIONS", "Evaluation", "instructions", "skills"]

EVALUATIONS = "evaluations"  # folder of a run directory
INSTRUCTIONS = 40  # episodes of all instructions to one of a goal


@dataclass(frozen=True)
class Evaluation:
    """What was found: ``rows`` as the summary keeps them, and for goals the distinct ones whose lower bound is 0.8."""

    what: str
    rows: tuple[dict[str, Any], ...]
    summary: Path
    episodes: Path
    mastered: tuple[str, ...] = field(default=())


def skills(run_dir: Path, config: EvalConfig, console: Console, baselines: bool = True) -> Evaluation:
    """Every goal the library has evidence of: by its admitted version, else by the youngest.

    A goal counts as mastered here by these episodes alone, whatever the run's own gate said.
    """
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    policies: dict[str, Actor] = {}  # by artifact: one often serves several goals
    with runs.library(run_dir) as library:
        chosen = _chosen(library)
        others = _baselines(run_dir, library, config) if baselines else {}
        methods = ["agent", *others]
        with Progress(len(chosen) * len(methods), unit="measurements", console=console) as progress:
            for goal, row in chosen.items():
                artifact = library.skill(row.version).artifact
                if artifact not in policies:
                    policies[artifact] = load_policy(library.artifact(artifact))
                judges = {"agent": _judge(policies[artifact], config, row.version), **others}
                for method in methods:
                    progress.stage(f"{goal}, {method}")
                    reports = [judges[method](goal, n, seed) for n, seed in _sets(config)]
                    rows.append(_summary(goal, method, row, reports))
                    lines += [{"method": method, **line} for report in reports for line in report.lines()]
                    progress.advance(1)
    reached = [r["goal"] for r in rows if r["method"] == "agent" and r["lower"] >= ADMISSION_THRESHOLD]
    mastered = mastery.distinct(reached)
    content = _stamp(run_dir, config) | {"rows": rows, "threshold": ADMISSION_THRESHOLD, "mastered": mastered}
    _show(console, methods, chosen, rows)
    count = f"{len(reached)} of {len(chosen)} goals reach a lower bound of {ADMISSION_THRESHOLD:.0%} on these episodes"
    console.print(Text(f"{count}, {len(mastered)} of them distinct"), soft_wrap=True)
    summary, episodes = _keep(run_dir, config, content, lines, console)
    return Evaluation("skills", tuple(rows), summary, episodes, tuple(mastered))


def instructions(run_dir: Path, config: EvalConfig, console: Console, baselines: bool = True) -> Evaluation:
    """The exam on the held-out instructions, a fortieth of the episodes each (at least one)."""
    with runs.library(run_dir) as library:
        state = _state(library)
        repertoire = Repertoire.load(library, state.get("operators", {}))
        play = load_policy(run_dir / state["play"]) if state.get("play") else None
    count = max(1, round(config.episodes / INSTRUCTIONS))
    with Progress(0, unit="control steps", console=console) as progress:
        progress.stage(f"{len(heldout.instructions())} held-out instructions")
        found = heldout.exam(
            repertoire, play, config.seed, count, threads=config.threads,
            rows=heldout.ROWS if baselines else ("loop",), tick=lambda: progress.advance(1),
        )  # fmt: skip
    rows, lines = [], []
    for row, entry in found["rows"].items():
        parts = {"all": entry, **entry["by_steps"]}
        rows += [
            {"method": heldout.METHODS[row], "depth": depth} | {k: part[k] for k in heldout.RATE_KEYS}
            for depth, part in parts.items()
        ]
    for item in found["instructions"]:
        about = {"instruction": item["instruction"], "goal": item["goal"], "steps": item["steps"], "seed": config.seed}
        for row, successes in item["episodes"].items():
            method = heldout.METHODS[row]
            lines += [about | {"method": method, "episode": i, "success": s} for i, s in enumerate(successes)]
    table = Table(box=None, pad_edge=False)
    for name in ("", "all", "2 steps", "3 steps"):
        table.add_column(name, no_wrap=True, justify="left" if not name else "right")
    for entry_row, entry in found["rows"].items():
        parts = (entry, *entry["by_steps"].values())
        table.add_row(heldout.METHODS[entry_row], *map(_cell, parts))
    console.print(table)
    summary, episodes = _keep(run_dir, config, _stamp(run_dir, config) | found, lines, console)
    _mend(run_dir / runs.HELDOUT, found)
    return Evaluation("instructions", tuple(rows), summary, episodes)


def _mend(path: Path, found: Mapping[str, Any]) -> None:
    """Puts this exam in place of the run's own result where that is damaged."""
    try:
        heldout.kept_rows(path)
    except FileNotFoundError:
        return  # the run has not ended yet: its end brings its own
    except heldout.ExamError:
        replace_file(path, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


Judge = Callable[[str, int, int], EvalReport]
"""(goal, n, seed) → n episodes, resets 0 … n-1 under the seed."""


def _judge(actor: Actor, config: EvalConfig, artifact: str = "") -> Judge:
    def judged(goal: str, n: int, seed: int) -> EvalReport:
        return measure(actor, goal, n, seed, artifact=artifact, threads=config.threads).report

    return judged


def _baselines(run_dir: Path, library: SkillLibrary, config: EvalConfig) -> dict[str, Judge]:
    """The rows beside the agent's, by method."""
    found: dict[str, Judge] = {}
    play = _state(library).get("play")
    if play:
        found["play policy"] = _judge(load_policy(run_dir / play), config, play)
    found["random"] = _judge(RandomPolicy(FEATURES, ACTIONS["tool"], config.seed), config)

    def oracle(goal: str, n: int, seed: int) -> EvalReport:
        env = TabletopVectorEnv(
            n, [goal], max_steps=MAX_STEPS, autoreset_mode=AutoresetMode.DISABLED, threads=config.threads
        )
        env.reset(seed=seed)
        expert = ScriptedOracle(env)
        success, alive = np.zeros(n, np.bool_), np.ones(n, np.bool_)
        while alive.any():
            _, _, terminated, truncated, info = env.step(expert.act())
            ended = alive & (terminated | truncated)
            success |= ended & info["success"]
            alive &= ~ended
        env.close()
        return EvalReport(goal, "", seed, success, versions=versions())

    return found | {"oracle": oracle}


def _chosen(library: SkillLibrary) -> dict[str, Status]:
    """Goal → what is measured of it: the best admitted version, else the youngest there is."""
    admitted = {entry.goal: entry.skill.version for entry in library.mastered()}
    found: dict[str, Status] = {}
    for row in library.status():
        best = found.get(row.goal)
        if row.goal in admitted:
            if row.version == admitted[row.goal]:
                found[row.goal] = row
        elif best is None or (row.created_round, row.version) > (best.created_round, best.version):
            found[row.goal] = row
    return found


def _sets(config: EvalConfig) -> list[tuple[int, int]]:
    """(n, seed) of the sets that make up the episodes of a goal: as many at once as simulations are wanted."""
    counts = [min(config.num_envs, config.episodes - at) for at in range(0, config.episodes, config.num_envs)]
    words = [np.random.SeedSequence(config.seed, spawn_key=(k,)) for k in range(len(counts))]
    more = [int(word.generate_state(1, np.uint64)[0] >> np.uint64(16)) for word in words]
    return list(zip(counts, [config.seed, *more[1:]], strict=True))


def _summary(goal: str, method: str, row: Status, reports: Iterable[EvalReport]) -> dict[str, Any]:
    every = list(reports)
    about = {"goal": goal, "method": method, "seeds": [report.seed for report in every]}
    if method == "agent":
        about |= {"schema": row.schema, "version": row.version, "status": row.status}
    return about | heldout.rate(sum(report.successes for report in every), sum(report.n for report in every))


def _state(library: SkillLibrary) -> Mapping[str, Any]:
    last = library.last_round
    return last.state if last else {}


def _stamp(run_dir: Path, config: EvalConfig) -> dict[str, Any]:
    return {"run": str(run_dir), "what": config.what, "seed": config.seed, "versions": versions()}


def _show(console: Console, methods: list[str], chosen: Mapping[str, Status], rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("goal", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for method in methods:
        table.add_column(method, justify="right", no_wrap=True)
    cells = {(row["goal"], row["method"]): _cell(row) for row in rows}
    for goal, row in chosen.items():
        table.add_row(Text(goal), row.status, *(cells[goal, method] for method in methods))
    console.print(table)


def _cell(row: Mapping[str, Any]) -> Text:
    """Rate and interval, as "98 % [95, 99]"."""
    return Text(f"{row['rate']:.0%} [{100 * row['lower']:.0f}, {100 * row['upper']:.0f}]")


def _keep(
    run_dir: Path, config: EvalConfig, content: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], console: Console
) -> tuple[Path, Path]:
    """Writes summary and episodes, and says where; their paths."""
    folder = run_dir / EVALUATIONS
    folder.mkdir(parents=True, exist_ok=True)
    summary = folder / f"{config.what}-seed{config.seed}.json"
    episodes = summary.with_suffix(".jsonl")
    replace_file(episodes, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode())
    replace_file(summary, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    console.print(Text(f"kept in {summary} and {episodes.name}"), soft_wrap=True)
    return summary, episodes
