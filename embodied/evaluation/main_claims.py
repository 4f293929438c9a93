"""How the claims ``main.a`` … ``main.g`` are measured. Each function gives a ``Measurement``.

Runs are made in processes of their own, exactly as a person would make them, below ``context.out``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from embodied import runs
from embodied.data.durable import replace_file
from embodied.evaluation import checkout, mastery
from embodied.evaluation.claims import ClaimError, Context, Measurement, recorded, versions
from embodied.skills.statistics import wilson

ARMS = {
    "full": (),
    "uniform": ("proposer=uniform",),
    "no_play": ("use_play=false",),
    "no_gate": ("use_gate=false",),
}
ABLATIONS = "main.d.arms.json"
AGENT = "agent"  # the row of the held-out results that is the robot itself
FRESH = 900_001  # the episodes on which ablations are judged: no run draws from this seed


def fresh_install(context: Context) -> Measurement:
    """main.a: both README commands in fresh environments; the figure is the main job's own minutes."""
    line = checkout.readme_command("run")
    install, _, job = line.rpartition("&&")
    offline = checkout.without_network()
    conditions, details = {}, {"offline": bool(offline), "command": line}
    with tempfile.TemporaryDirectory() as work:
        here = Path(work, "run")
        checkout.copy(here)
        begin = time.monotonic()
        conditions["the installation passes"] = _shell(install, here) == 0
        details["install_minutes"] = (time.monotonic() - begin) / 60
        begin = time.monotonic()
        conditions["the main job ends"] = _shell(job, here, offline) == 0
        minutes = (time.monotonic() - begin) / 60
        conditions["a report is left"] = any(here.glob(f"runs/*/{runs.REPORT}"))
        context.out.mkdir(parents=True, exist_ok=True)
        for run in here.glob("runs/*"):  # kept: other claims can be measured on it
            kept = context.out / f"fresh-{run.name}-{time.strftime('%Y%m%d-%H%M%S')}"
            shutil.copytree(run, kept)
            details["run"] = kept.name
        if not context.quick:
            there = Path(work, "test")
            checkout.copy(there)
            conditions["command 2 passes"] = _shell(checkout.readme_command("test"), there) == 0
    return Measurement(minutes, seeds=(0,), n=1, conditions=conditions, details=details)


def mastered_goals(context: Context) -> Measurement:
    """main.b: distinct mastered goals of a run from an empty library; the median over the seeds."""
    preset = "quick" if context.quick else "default"
    seeds, finished = runs_of(context, preset)
    counts, conditions, details = [], {}, {}
    for run in finished:
        distinct, everything = runs.mastered(run)
        counts.append(len(distinct))
        missing = mastery.missing(everything)
        details[run.name] = {"mastered": distinct, "missing": missing}
        if not context.quick:
            conditions |= {name: conditions.get(name, True) and name not in missing for name in mastery.REQUIRED}
    interval = (float(min(counts)), float(max(counts))) if len(counts) > 1 else None
    return Measurement(statistics.median(counts), interval, seeds, len(counts), conditions, details)


def heldout_instructions(context: Context) -> Measurement:
    """main.c: the agent's success over all held-out episodes of the runs, with the rows to read it beside."""
    seeds, finished = runs_of(context, "quick" if context.quick else "default")
    totals: dict[str, np.ndarray] = {}  # "agent", or "agent, 2 steps" -> successes and n
    for run in finished:
        for row in runs.heldout(run):
            for key in (row["method"], f"{row['method']}, {row['depth']} steps"):
                totals[key] = totals.get(key, np.zeros(2, int)) + np.array([row["successes"], row["n"]])
    rows = {key: _rate(int(successes), int(n)) for key, (successes, n) in totals.items()}
    if AGENT not in rows:
        raise ClaimError(f"the held-out results have no row '{AGENT}', only: {', '.join(rows) or 'none'}")
    quick = recorded(context.results, "main.c", quick=True)
    details = {"rows": rows, "quick": None if quick is None else quick.measurement.figure}
    own = rows[AGENT]
    return Measurement(own["rate"], (own["lower"], own["upper"]), seeds, int(own["n"]), {}, details)


def ablations(context: Context) -> Measurement:
    """main.d: the full loop against each part left out, at the same budget (preset ``ablation``).

    The figure is the full loop's mean of mastered goals less that of the best other arm, the interval the
    range of that difference over the seeds. Each arm is judged alike, on episodes no run has seen. Seeds
    add up in ``main.d.arms.json`` while the versions stay the same: it can be measured in parts.
    """
    path = context.results / ABLATIONS
    table: dict[str, dict[str, list[str]]] = {arm: {} for arm in ARMS}
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        table = kept["mastered"] if kept["versions"] == versions() else table
    for seed in context.seeds_or(1 if context.quick else 3):
        for arm, overrides in ARMS.items():
            if str(seed) not in table[arm]:
                context.say(f"seed {seed}, {arm}")
                table[arm][str(seed)] = _judged(_live(context, "ablation", seed, *overrides, label=arm))
                kept = {"versions": versions(), "mastered": table}
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
    shared = sorted(set.intersection(*(set(row) for row in table.values())), key=int)
    count = {arm: np.array([len(row[seed]) for seed in shared]) for arm, row in table.items()}
    best = max((arm for arm in ARMS if arm != "full"), key=lambda arm: float(count[arm].mean()))
    difference = count["full"] - count[best]
    details = {"means": {arm: float(c.mean()) for arm, c in count.items()}, "best_other": best}
    interval = (float(difference.min()), float(difference.max()))
    conditions = {} if context.quick else {"three seeds of every arm are measured": len(shared) >= 3}
    return Measurement(float(difference.mean()), interval, tuple(map(int, shared)), len(shared), conditions, details)


def simulation_speed(context: Context) -> Measurement:
    """main.e: the median ratio of ``embodied bench sim``."""
    from envs.bench import simulation

    found = simulation(seconds=1.0, repeats=3) if context.quick else simulation()
    interval = tuple(found["ratio_interval"]) if "ratio_interval" in found else None
    return Measurement(found["ratio"], interval, n=int(found.get("repeats", 0)), details=dict(found))


def kill_and_resume(context: Context) -> Measurement:
    """main.f: kill −9 at random moments; each resumed run must equal one that was never killed."""
    kills = 2 if context.quick else 5
    generator = np.random.default_rng(context.seed)
    begin = time.monotonic()
    reference = _live(context, "smoke", context.seed, label="whole")
    whole, expected = time.monotonic() - begin, runs.digests(reference)
    equal, opened, moments = 0, 0, []
    for number in range(kills):
        command, log, run = _command(context, "smoke", context.seed, label=f"killed{number}")
        moment = _kill(command, log, generator.uniform(0.05, 0.95) * whole)
        moments.append(moment)
        context.say(f"killed after {moment:.1f} s of {whole:.1f} s")
        opened += _intact(run)
        end(command, log)
        equal += runs.digests(run) == expected
    conditions = {"after every kill the library and the store open": opened == kills}
    details = {"moments_s": moments, "whole_s": whole, "digests": expected}
    return Measurement(equal, None, (context.seed,), kills, conditions, details)


def same_seed_twice(context: Context) -> Measurement:
    """main.g: two runs of a seed; the share of digests (episodes, library) that are identical."""
    preset = "smoke" if context.quick else "quick"
    if context.runs:
        seeds, pairs = _twins(context.runs)
    else:
        seeds = context.seeds_or(1)
        pairs = [tuple(_live(context, preset, seed, label=label) for label in ("first", "second")) for seed in seeds]
    same = []
    for pair in pairs:
        one, other = map(runs.digests, pair)
        same += [one[key] == other[key] for key in one]
    return Measurement(sum(same) / len(same), None, seeds, len(same), {}, {"preset": preset})


def runs_of(context: Context, preset: str) -> tuple[tuple[int, ...], list[Path]]:
    """Seeds and finished runs: those that were given, else new ones."""
    if context.runs:
        found = [runs.find(run) for run in context.runs]
        return tuple(runs.config(run).seed for run in found), found
    seeds = context.seeds_or(1)
    return seeds, [_live(context, preset, seed) for seed in seeds]


def _twins(given: tuple[Path, ...]) -> tuple[tuple[int, ...], list[tuple[Path, ...]]]:
    """Seed and runs of two finished lives. Raises ClaimError where they are not two of the same settings."""
    found = [runs.find(run) for run in given]
    settings = [replace(runs.config(run), name="twin", out="") for run in found]
    if len(found) != 2 or settings[0] != settings[1] or found[0] == found[1]:
        names = ", ".join(map(str, found))
        raise ClaimError(f"give two different runs of the same settings and seed to compare, not: {names}")
    return (settings[0].seed,), [tuple(found)]


def _live(context: Context, preset: str, seed: int, *overrides: str, label: str = "run") -> Path:
    """Make a run of its own and wait for its end."""
    command, log, run = _command(context, preset, seed, *overrides, label=label)
    end(command, log)
    return run


def _command(context: Context, preset: str, seed: int, *overrides: str, label: str) -> tuple[list[str], Path, Path]:
    """The command line of a new run, its log file and its directory."""
    name = f"{preset}-{label}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    context.out.mkdir(parents=True, exist_ok=True)
    settings = [f"preset={preset}", f"seed={seed}", *overrides, f"name={name}", f"out={context.out}"]
    command = [sys.executable, "-m", "embodied", "run", *settings]
    context.say(shlex.join(["embodied", *command[3:]]))
    return command, context.out / f"{name}.log", context.out / name


def end(command: list[str], log: Path) -> None:
    """Run a command to its end. Raises ClaimError where it fails."""
    with log.open("ab") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode
    if code != 0:
        raise ClaimError(f"the run ended with exit code {code}; its output is in {log}")


def _kill(command: list[str], log: Path, after: float) -> float:
    """Start a command and kill −9 it after so many seconds, unless it ends before; gives the moment."""
    begin = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return time.monotonic() - begin


def _intact(run: Path) -> bool:
    """Whether what a killed run left opens and agrees with its checksums."""
    from embodied.data.store import EpisodeStore, StoreError
    from embodied.skills.library import LibraryError

    try:
        if (run / runs.EPISODES / "index.jsonl").exists():
            EpisodeStore.open(run / runs.EPISODES, readonly=True).close()
        if (run / runs.LIBRARY).exists():
            with runs.library(run) as kept:
                kept.verify()
    except (LibraryError, StoreError) as error:
        print(f"{run} does not open after the kill: {error}", file=sys.stderr)
        return False
    return True


def _shell(line: str, folder: Path, prefix: list[str] | None = None) -> int:
    """A README command in a shell, with nothing of this process's environment that could help it."""
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "DISPLAY")
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | {"MUJOCO_GL": "disabled"}
    return subprocess.run(
        [*(prefix or []), "bash", "-euo", "pipefail", "-c", line], cwd=folder, env=environment
    ).returncode


def _rate(successes: int, n: int) -> dict[str, float]:
    lower, upper = wilson(successes, n)
    return {
        "successes": successes,
        "n": n,
        "rate": successes / n,
        "lower": float(lower),
        "upper": float(upper),
    }


def _judged(run: Path) -> list[str]:
    """The distinct goals that a run's skills master on fresh episodes, whatever its own gate said."""
    from rich.console import Console

    from embodied.cli.schema import EvalConfig
    from embodied.evaluation import evaluate

    config = EvalConfig(run=str(run), seed=FRESH)
    return list(evaluate(run, config, Console(quiet=True), baselines=False).mastered)
