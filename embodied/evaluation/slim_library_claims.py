"""How the claim is measured that discovered skills make a library (slim.f); what is claimed: `evaluation.claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied import runs
from embodied.evaluation.claims import Context, Measurement

EPISODES = 200  # fresh rollouts a skill
RATE = 0.8  # of them in which a skill's named effect has to hold
ASKED = 3  # instructions at most, tried until one is solved
FRESH_SEED = 20_261_201  # apart from all that training and gate have seen


def skill_library(context: Context) -> Measurement:
    """slim.f: discovered skills admitted by the gate whose goal holds in `RATE` of fresh rollouts; of the worst seed.

    Takes the folders of discovered skills among the context's runs, else default ones of its own.
    """
    given = [path for path in context.runs if runs.is_discovery(path)]
    seeds = context.seeds_or(1)
    folders = given or [_discovered(context, seed) for seed in seeds]
    rows = [_judged(context, folder) for folder in folders]
    details = {folder.name: row for folder, row in zip(folders, rows, strict=True)}
    figure = min(row["held"] for row in rows)
    solved = all(row["solved"] for row in rows)
    conditions = {} if context.quick else {"an instruction was solved with a discovered skill": solved}
    n = sum(len(row["skills"]) * EPISODES for row in rows)
    return Measurement(float(figure), None, () if given else seeds, n, conditions, details)


def _discovered(context: Context, seed: int) -> Path:
    """A folder of skills discovered with the default settings."""
    from embodied.training.discovery import discover, settings_of

    steps = {"steps": 40_000} if context.quick else {}
    folder = context.out / f"slim-library{'-quick' if context.quick else ''}-seed{seed}"
    context.say(f"discovering skills in {folder}")
    discover(settings_of("slim", seed=seed, **steps), folder)
    return folder


def _judged(context: Context, folder: Path) -> dict[str, Any]:
    """What a folder's skills do in fresh rollouts, by goal, and whether one of their own instructions was solved."""
    from embodied.planning.discovered import Options
    from embodied.training.discovered import acting, keep_discovered, measure_codes
    from policies.base import load_policy

    keep_discovered(folder, say=context.say)
    options, found = Options.load(folder), {}
    with runs.library(folder) as library:
        entries = [(entry, acting(load_policy(library.artifact(entry.skill)))) for entry in library.mastered()]
    for k, (entry, act) in enumerate(entries):
        asked = [((entry.goal, EPISODES, FRESH_SEED + k), np.asarray(entry.skill.conditioning["code"], np.float32))]
        report, ran_on = (
            measure_codes(act, asked, options.world, entry.skill.artifact, stops=stops)[0][0] for stops in (True, False)
        )
        found[entry.goal] = {
            "name": entry.skill.provenance["name"], "gate": entry.successes / entry.n, "fresh": report.rate,
            "interval": report.interval, "without stopping": ran_on.rate, "code": asked[0][1].tolist(),
        }  # fmt: skip
        context.say(f"{entry.skill.provenance['name']}: {report.rate:.3f} of {EPISODES} fresh rollouts")
    held = [row for row in found.values() if row["fresh"] >= RATE]
    asked = _asked(folder, [row["name"] for row in sorted(held, key=lambda row: -row["fresh"])[:ASKED]])
    return {"skills": found, "held": len(held), "asked": asked, "solved": any(row["success"] for row in asked)}


def _asked(folder: Path, instructions: list[str]) -> list[dict[str, Any]]:
    """Instructions given to ``embodied ask``, until one is solved."""
    from embodied.asking import ask
    from embodied.cli.schema import AskConfig

    rows = []
    for instruction in instructions:
        answer = ask(instruction, folder, AskConfig(run=str(folder), video="none"), Console(quiet=True))
        rows.append({"instruction": instruction, "success": answer.success, "answer": answer.text})
        if answer.success:
            break
    return rows
