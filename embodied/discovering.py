"""``embodied discover``: skills learnt without a task, put to the exam, and shown.

The folder holds ``discover.yaml`` (what was asked for), what learning goes on from (`training.discovery.Skills`),
``skills.json`` (the exam, with versions), pictures and ``report.html``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied import runs
from embodied.cli.config import difference, load, save
from embodied.cli.schema import DiscoverConfig, RenderConfig, SkillConfig
from embodied.data.durable import replace_file
from embodied.errors import ConfigError, UsageError
from embodied.evaluation.skill_exam import BINS, SkillExam, sit
from embodied.progress import Progress
from embodied.training.discovered import keep_discovered
from embodied.training.discovery import METHODS, STATE, DiscoverySettings, Skills, discover, make_skills, settings_of
from embodied.training.episodes import seed_of
from embodied.training.rollouts import versions
from embodied.viz import discovery as pictures
from envs.scenes.scene import Scene
from envs.scenes.scene import load as load_scene

__all__ = ["ASKED", "SUMMARY", "folder_of", "learn", "refresh", "settings_for"]

ASKED, SUMMARY = "discover.yaml", "skills.json"
FREE = (
    "threads",
    "library",
    "video",
    "render.backend",
    "render.width",
    "render.height",
    "out",
)  # what may differ, going on
EXAM = 1  # what the seed of the exam is for


def folder_of(config: DiscoverConfig) -> Path:
    """Where skills are kept: ``out``, or a folder named after scene, method, blocks and seed."""
    name = f"{Path(config.env).stem}-{config.method}-{config.blocks}-seed{config.seed}"
    return Path(config.out) if config.out else Path("runs", "discover", name)


def settings_for(config: DiscoverConfig) -> DiscoverySettings:
    """What decides the discovery. Raises UsageError for what the method does not have."""
    defaults = SkillConfig()
    skill = {item.name: value for item in fields(defaults)
             if (value := getattr(config.skill, item.name)) != getattr(defaults, item.name)}  # fmt: skip
    if "hidden" in skill:
        skill["hidden"] = tuple(skill["hidden"])
    given: dict[str, Any] = {"rewards": tuple(config.rewards)} if config.rewards is not None else {}
    if "steps" not in METHODS[config.method]:
        given["steps"] = config.steps
    elif config.steps != DiscoverConfig.steps:
        raise UsageError(f"steps={config.steps} is no key of method={config.method}, which learns nothing")
    weights = DiscoverySettings().weights | config.weights  # type: ignore[operator]
    return settings_of(
        config.method, blocks=config.blocks, combine=config.combine, weights=weights, scales=config.scales,
        skill=skill, num_envs=config.num_envs, seed=config.seed, **given,
    )  # fmt: skip


def learn(config: DiscoverConfig, console: Console | None = None) -> Path:
    """Discovers skills, puts them to the exam and writes the page that shows them; its path.

    Goes on with what is in the folder already. Raises UsageError for settings that cannot be, ConfigError where the
    folder holds skills of other settings, SceneError for a scene that cannot be, RenderError for a backend.
    """
    console = console or Console()
    settings, out = settings_for(config), folder_of(config)
    make_skills(settings, 1, 1)  # what cannot be is said before anything is written
    scene = load_scene(config.env, config.blocks)
    if not scene.blocks:
        raise UsageError(f"env={config.env} has no block to discover anything about; valid: discovery, cubes, playroom")
    kept = _kept(out, config)
    if config.threads:
        torch.set_num_threads(config.threads)
    size = settings.rollout * settings.num_envs
    if kept is not None and len(kept.curve) >= math.ceil(settings.steps / size) and (out / runs.REPORT).is_file():
        _show(json.loads((out / SUMMARY).read_text(encoding="utf-8")), console)
        console.print(Text(f"finished already: {out / runs.REPORT}"), soft_wrap=True)
        return out / runs.REPORT
    out.mkdir(parents=True, exist_ok=True)
    save(config, out / ASKED)
    start = len(kept.curve) * size if kept is not None else 0
    with Progress(math.ceil(settings.steps / size) * size, start=start, console=console) as progress:
        progress.stage(f"{config.method} in {config.env}, {config.blocks} block{'s' if config.blocks > 1 else ''}")
        skills = discover(settings, out, config.threads, lambda s: progress.at(len(s.curve) * size), _world(config))
        progress.stage("the exam, and pictures")
        page, summary = _finish(out, config, skills, scene)
        kept_goals: list[str] | None = None
        if config.library and settings.steps:
            progress.stage("effects, and the gate")
            kept_goals = keep_discovered(out, skills, world=_world(config), threads=config.threads)
    _show(summary, console)
    if kept_goals is not None:
        names = "; ".join(map(scene.vocabulary.describe, kept_goals)) or "none"
        console.print(Text(f"skills that passed the gate: {names}"), soft_wrap=True)
        if kept_goals:
            told = scene.vocabulary.describe(kept_goals[0])
            console.print(Text(f'try: embodied ask "{told}" run={out}'), soft_wrap=True)
    console.print(Text(f"kept in {out}: {page}"), soft_wrap=True)
    return page


def refresh(folder: Path, render: RenderConfig | None = None) -> Path:
    """Examines what a folder holds now and writes its pictures and page anew; the page's path."""
    config = load(DiscoverConfig, folder / ASKED)
    if render is not None:
        config.render, config.video = render, True
    skills = Skills.load(folder)
    return _finish(folder, config, skills, load_scene(config.env, config.blocks))[0]


def _world(config: DiscoverConfig) -> dict[str, Any]:
    return {"scene": config.env}


def _kept(out: Path, config: DiscoverConfig) -> Skills | None:
    """What an earlier call left; ConfigError where it was asked for something else."""
    if (out / ASKED).is_file():
        changed = difference(load(DiscoverConfig, out / ASKED), config)
        words = ", ".join(f"{k} (was {was}, is {now})" for k, (was, now) in changed.items() if k not in FREE)
        if words:
            raise ConfigError(f"{out} holds skills of other settings: {words}; choose another out or restore them")
    return Skills.load(out) if (out / STATE).is_file() else None


def _finish(out: Path, config: DiscoverConfig, skills: Skills, scene: Scene) -> tuple[Path, dict[str, Any]]:
    """The exam, then ``skills.json``, pictures and page; the page's path and the summary."""
    settings, seed = skills.settings, seed_of(config.seed, EXAM)
    exam = sit(skills, seed, threads=config.threads, world=_world(config))
    summary = _summary(config, skills, exam, seed)
    replace_file(out / SUMMARY, (json.dumps(summary, indent=1, sort_keys=True) + "\n").encode())
    names = [entry.text("says", entry.name) for entry in scene.document.objects[: settings.blocks]]
    render, drawn = config.render, None
    if config.video:
        drawn = pictures.film(exam, scene, skills.discovery.config, render.width, render.height, render.backend)
    return pictures.write(out, skills, exam, summary, names, drawn), summary


def _summary(config: DiscoverConfig, skills: Skills, exam: SkillExam, seed: int) -> dict[str, Any]:
    settings, code = skills.settings, skills.discovery.config
    steps = int(skills.curve[-1]["steps"]) if skills.curve else 0
    return {
        "method": config.method, "env": config.env, "settings": asdict(settings), "steps": steps,
        "share": min(1.0, steps / settings.steps) if settings.steps else 1.0,
        "code": f"{code.code} numbers, {'discrete' if code.is_discrete else 'continuous'}", "by": code.method,
        "codes": len(exam.codes), "seed": seed, "exam": exam.summary(),
        "versions": versions() | {"torch": str(torch.__version__)},
    }  # fmt: skip


def _show(summary: dict[str, Any], console: Console) -> None:
    """The exam's main figures as a table."""
    found = summary["exam"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = [(f"bins of {100 * w:.0f} cm, all blocks", str(found[f"coverage{100 * w:02.0f}"])) for w in BINS]
    rows += [
        ("codes that move a block", f"{found['interaction']:.0%}"),
        ("codes that leave one moved, off the edges", f"{found['interior']:.0%}"),
        ("codes that lift one", f"{found['lift']:.0%}"),
        ("steps with any cost", f"{found['violation']['any']:.1%}"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
