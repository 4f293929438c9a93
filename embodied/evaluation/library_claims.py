"""How the claim about the skill library's size is measured (library.g); what is claimed: `evaluation.claims`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from embodied.evaluation import library_world
from embodied.evaluation.claims import ClaimError, Context, Measurement
from embodied.skills.index import SkillIndex
from embodied.skills.library import SkillLibrary
from embodied.skills.retrieval import CapabilityGap, retrieve

SKILLS, QUERIES, COMMITS, KILLS = 100_000, 400, 100, 1_000  # queries a window, commits a writer and window
QUICK = (2_000, 60, 10, 40)
WINDOWS = 5  # each figure is the median of so many windows' 99th percentiles: neighbours on the machine come and go
WRITERS, KILLED = 8, 4  # processes that commit at once, and that are killed
PAUSE = 10  # ms between two commits of a writer, in the mean
RETRIEVAL, COMMIT = 10.0, 50.0  # ms, the targets


def scale(context: Context) -> Measurement:
    """library.g: the worse of two ratios to their targets, on a made-up library: a retrieval's 99th percentile, the
    index following the library included, over 10 ms; a head commit's, of 8 processes at once, over 50 ms.

    A retrieval is counted in the time that it takes on its core, for it waits for nothing: on a machine with more work
    than cores its wall time is how long others are let in, and stands beside it. A commit is counted in wall time.

    Conditions: after 1,000 random kills of writers nothing that was committed is lost, and nothing is damaged.
    """
    size, queries, commits, kills = QUICK if context.quick else (SKILLS, QUERIES, COMMITS, KILLS)
    folder = context.out / f"library-{size}"
    filled = _filled(folder / "filled" / "library.sqlite", size, context)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        shutil.copyfile(filled, work / "library.sqlite")
        context.say("retrieving")
        found = _retrievals(work / "library.sqlite", queries, context.seed)
        context.say(f"{WRITERS} processes commit")
        numbers = (WRITERS, commits * WINDOWS, WINDOWS)
        moved = _run("commits", work / "library.sqlite", *numbers, PAUSE, context.seed)
        hurried = _run("commits", work / "library.sqlite", *numbers, 0, context.seed + 1)
        context.say(f"{kills} kills")
        killed = _run("kills", work / "killed" / "library.sqlite", KILLED, kills, context.seed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    cores = found["p99 on the core"]
    search, commit = float(np.median(cores)), float(np.median(moved["p99"]))
    windows = [max(a / RETRIEVAL, b / COMMIT) for a, b in zip(cores, moved["p99"], strict=True)]
    conditions = {
        f"{kills:,} kills lose nothing committed and damage nothing": not killed["damage"],
        "every write went through, in order": killed["heads"] >= killed["committed"] >= kills // 4,
    }
    details = {
        "skills": size, "retrieval p99 on its core (ms)": search, "head commit p99 (ms)": commit,
        "retrieval p99 by the clock (ms)": float(np.median(found["p99"])), "retrieval": found,
        "commits": moved, "commits without pauses": hurried, "kills": killed, "load": os.getloadavg()[0],
    }  # fmt: skip
    figure = max(search / RETRIEVAL, commit / COMMIT)
    n = len(found["p99"]) * queries + moved["commits"]
    return Measurement(figure, (min(windows), max(windows)), (context.seed,), n, conditions, details)


def _filled(path: Path, size: int, context: Context) -> Path:
    """A made-up library of so many skills; one that was made before is taken again."""
    if path.exists():
        with SkillLibrary.open(path, readonly=True) as library:
            if len(library.at()) == size:
                return path
        shutil.rmtree(path.parent)
    begun = time.monotonic()

    def tell(done: int) -> None:
        context.say(f"making up skills: {done:,} of {size:,} in {time.monotonic() - begun:.0f} s")

    with SkillLibrary.open(path) as library:
        library_world.fill(library, size, context.seed, tell)
    return path


def _retrievals(path: Path, queries: int, seed: int) -> dict[str, Any]:
    """Wall time and time on the core of retrievals, ms: 99th percentiles of the windows."""
    begun = time.monotonic()
    with SkillLibrary.open(path, readonly=True) as library:
        index = SkillIndex(library)
        build = time.monotonic() - begun
        wall, core, gaps = [], [], 0
        for i, query in enumerate(library_world.queries(queries * WINDOWS, seed + 1)):
            start, own = time.perf_counter(), time.thread_time()
            index.follow()
            answer = retrieve(index, query, rng=i)
            wall.append(1000 * (time.perf_counter() - start))
            core.append(1000 * (time.thread_time() - own))
            gaps += isinstance(answer, CapabilityGap)
    tables = [np.reshape(values, (WINDOWS, queries)) for values in (wall, core)]
    return {
        "p99": np.quantile(tables[0], 0.99, axis=1).tolist(),
        "p99 on the core": np.quantile(tables[1], 0.99, axis=1).tolist(), "median on the core": float(np.median(core)),
        "median": float(np.median(wall)), "gaps": gaps, "index": len(index), "index built in (s)": build,
    }  # fmt: skip


def _run(*words: object) -> dict[str, Any]:
    """What `embodied.evaluation.library_writer` says; ClaimError where it ends badly."""
    command = [sys.executable, "-m", "embodied.evaluation.library_writer", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClaimError(f"the writers ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)
