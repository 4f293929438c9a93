"""A run directory: where it is, and what is read from it without running anything.

``runs/NAME/`` holds ``config.yaml``, ``library.sqlite`` with ``artifacts/``, ``episodes/``, ``ledger.jsonl``,
``scalars/``, ``heldout.json``, ``report.html`` and ``videos/``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.errors import MissingRunError

if TYPE_CHECKING:
    from embodied.cli.schema import RunConfig
    from embodied.skills.library import SkillLibrary

CONFIG = "config.yaml"
ENCODER = "encoder.json"  # of a training from recorded episodes (`embodied.training.offline`)
DISCOVERY = "state.json"  # of skills discovered without a task (`embodied.training.discovery`)
LIBRARY = "library.sqlite"
EPISODES = "episodes"
LEDGER = "ledger.jsonl"
HELDOUT = "heldout.json"
REPORT = "report.html"
VIDEOS = "videos"


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / CONFIG).is_file() or (path / LIBRARY).is_file()


def is_discovery(path: Path) -> bool:
    """Whether a folder holds skills that were discovered without a task."""
    try:
        return "codes" in json.loads((path / DISCOVERY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def is_training(path: Path) -> bool:
    """Whether a folder holds a training from recorded episodes."""
    return (path / ENCODER).is_file()


def existing(out: Path) -> list[Path]:
    """The runs below ``out``, newest first."""
    if not out.is_dir():
        return []
    return sorted((p for p in out.iterdir() if is_run(p)), key=_age, reverse=True)


def find(run: str | Path = "", out: str | Path = "runs") -> Path:
    """The run directory meant by ``run``: a path, a name below ``out``, or "" for the newest below ``out``.

    Raises MissingRunError naming the runs there are.
    """
    there = existing(Path(out))
    if not str(run):
        if there:
            return there[0]
        raise MissingRunError(f"there is no run in {out} yet; make one: embodied run preset=quick")
    for path in (Path(run), Path(out) / run):
        if is_run(path) or is_discovery(path) or is_training(path):
            return path
    known = f"runs there: {', '.join(map(str, there))}" if there else "make one: embodied run preset=quick"
    raise MissingRunError(f"there is no run at {run}; {known}")


def config(run: Path) -> RunConfig:
    """The configuration the run was made with. Raises ConfigError where the file is damaged."""
    from embodied.cli.config import load
    from embodied.cli.schema import RunConfig

    if not (run / CONFIG).is_file():
        raise MissingRunError(f"{run} has no {CONFIG}: it is not a run directory, or was made by another version")
    return load(RunConfig, run / CONFIG)


def library(run: Path) -> SkillLibrary:
    """The run's skill library, read-only. Raises LibraryError where it is missing or damaged."""
    from embodied.skills.library import SkillLibrary

    return SkillLibrary.open(run / LIBRARY, readonly=True)


def mastered(run: Path) -> tuple[list[str], list[str]]:
    """The run's mastered goals: the distinct ones that count, and all of them."""
    from embodied.evaluation.mastery import distinct

    with library(run) as kept:
        everything = [entry.goal for entry in kept.mastered()]
    return (everything if is_discovery(run) or is_training(run) else distinct(everything)), everything


def digests(run: Path) -> dict[str, str]:
    """What must be equal in two runs of one seed: the episodes in order, and the library's content.

    Everything is read and compared with its checksums: LibraryError or StoreError where something is damaged.
    """
    from embodied.data.store import EpisodeStore

    episodes = hashlib.sha256()
    with EpisodeStore.open(run / EPISODES, readonly=True) as store:
        for episode in store.iterate():
            episodes.update(episode.hash().encode())
    with library(run) as kept:
        kept.verify()
        return {"episodes": episodes.hexdigest(), "library": kept.digest()}


def heldout(run: Path) -> list[dict[str, Any]]:
    """The held-out results that a finished run wrote, a row a method and depth: method, depth, successes, n.

    Raises MissingRunError where there are none.
    """
    from embodied.evaluation.heldout import ExamError, kept_rows

    try:
        return kept_rows(run / HELDOUT)
    except FileNotFoundError:
        raise MissingRunError(
            f"{run} has no {HELDOUT}: let the run end (its command continues it), heldout_episodes above 0"
        ) from None
    except ExamError as error:
        raise MissingRunError(str(error)) from error


def _age(path: Path) -> float:
    return max(p.stat().st_mtime for p in (path / CONFIG, path / LIBRARY, path / LEDGER) if p.exists())
