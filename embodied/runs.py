"""A run directory: where it is, and what is read from it without running anything.

``runs/NAME/`` holds ``config.yaml``, ``library.sqlite`` with ``artifacts/``, ``episodes/``, ``ledger.jsonl``,
``scalars/``, ``heldout.json``, ``report.html`` and ``videos/``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embodied.errors import MissingRunError

CONFIG = "config.yaml"
LIBRARY = "library.sqlite"
EPISODES = "episodes"
LEDGER = "ledger.jsonl"
HELDOUT = "heldout.json"
REPORT = "report.html"
VIDEOS = "videos"


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / CONFIG).is_file() or (path / LIBRARY).is_file()


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
        if is_run(path):
            return path
    known = f"runs there: {', '.join(map(str, there))}" if there else "make one: embodied run preset=quick"
    raise MissingRunError(f"there is no run at {run}; {known}")


def heldout(run: Path) -> dict[str, Any]:
    """The held-out results that a finished run wrote. Raises MissingRunError where there are none."""
    path = run / HELDOUT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingRunError(
            f"{run} has no {HELDOUT}: let the run end (its command continues it), heldout_episodes above 0"
        ) from None
    except ValueError as error:
        raise MissingRunError(
            f"{path} is damaged ({error}); measure anew: embodied eval what=instructions"
        ) from error


def _age(path: Path) -> float:
    return max(p.stat().st_mtime for p in (path / CONFIG, path / LIBRARY, path / LEDGER) if p.exists())
