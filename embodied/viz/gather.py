"""A run directory as the report's plain data: read from library, ledger, held-out results and films.

Nothing is written but the page itself. Only committed rounds count: what a round in progress has written
beyond them is not looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied import runs
from embodied.evaluation.heldout import ExamError, kept_rows
from embodied.repertoire import Repertoire
from embodied.skills.records import Evidence, Status
from embodied.skills.schema import STATUSES
from embodied.training.rollouts import versions
from embodied.viz.film import film, kept
from embodied.viz.report import ReportData, write_report
from envs.goals import Goal
from envs.playroom.scene import TIMESTEP
from envs.vector import CONTROL_HZ

if TYPE_CHECKING:
    from embodied.cli.schema import RenderConfig, RunConfig
    from embodied.skills.library import SkillLibrary

__all__ = ["film", "gather", "refresh", "write"]

SCENES = 700_000  # added to a run's seed: the scenes that are filmed
ACTIVE = 900.0  # seconds since the last write within which a run counts as going on
RANK = {status: i for i, status in enumerate(STATUSES)}
PURPOSES = ("confirm", "gate", "screen")  # the evidence that is shown, best first


def gather(run_dir: Path, state: str | None = None, pictures: bool = True) -> ReportData:
    """What is known of a run now. ``state`` is "running", "finished" or "stopped"; None finds out.

    Raises LibraryError where there is no library yet, ConfigError where the configuration is damaged.
    """
    config = runs.config(run_dir)
    with runs.library(run_dir) as library:
        last = library.last_round
        loop: Mapping[str, Any] = last.state if last else {}
        evidence, status = library.evidence(), library.status()
        data = ReportData(
            name=config.name, preset=_preset(config), seed=config.seed, state=state or _state(run_dir, loop),
            started=_clock((run_dir / runs.CONFIG).stat().st_mtime), written=_clock(time.time()),
            versions=dict(evidence[-1].versions) if evidence else versions(),
            physics=f"{1000 * TIMESTEP:g} ms steps, control at {CONTROL_HZ} Hz",
            environment_steps=int(loop.get("steps", 0)), step_budget=config.steps,
            wall_seconds=float(loop.get("seconds", 0.0)), episodes=int(loop.get("episodes", 0)),
            gate=library.threshold, mastered=list(loop.get("mastered", [])), curves=_curves(loop),
            goals=_goals(status, evidence), library=_versions(library, evidence),
            decisions=_decisions(run_dir / runs.LEDGER, last.ledger_offset if last else 0),
        )  # fmt: skip
    data.heldout = _heldout(run_dir)
    films = kept(run_dir)
    data.renderer = next((str(entry["renderer"]) for entry in films if entry.get("renderer")), "")
    data.pictures = films if pictures else []
    return data


def write(run_dir: Path, state: str | None = None, pictures: bool = True) -> Path:
    """Writes the run's report.html; its path."""
    return write_report(run_dir / runs.REPORT, gather(run_dir, state, pictures))


def refresh(run_dir: Path, render: RenderConfig) -> Path:
    """Writes the report; a run that is not going on is filmed first if it never was. The page's path."""
    with runs.library(run_dir) as library:
        last = library.last_round
        loop = last.state if last else {}
        quiet = _state(run_dir, loop) != "running"
        if quiet and not kept(run_dir):
            seed = runs.config(run_dir).seed + SCENES
            film(Repertoire.load(library, loop.get("operators", {})), run_dir, seed, render)
    return write(run_dir)


def _state(run_dir: Path, loop: Mapping[str, Any]) -> str:
    """Whether the run has ended, goes on, or stands still."""
    if loop.get("finished") or (run_dir / runs.HELDOUT).is_file():
        return "finished"
    files = (runs.CONFIG, runs.LIBRARY, runs.LEDGER)
    newest = max((path.stat().st_mtime for name in files if (path := run_dir / name).is_file()), default=0.0)
    return "running" if time.time() - newest < ACTIVE else "stopped"


def _preset(config: RunConfig) -> str:
    """The preset whose values the configuration has: the most particular one; "" where none fits."""
    import yaml

    from embodied.cli.config import choices, config_dir

    fitting = {}
    for name in choices("preset"):
        text = (config_dir() / "preset" / f"{name}.yaml").read_text(encoding="utf-8")
        wanted = {k: v for k, v in (yaml.safe_load(text) or {}).items() if k != "name"}
        if _fits(config, wanted):
            fitting[name] = len(wanted)
    return max(fitting, key=lambda name: fitting[name], default="")


def _fits(config: Any, wanted: Mapping[str, Any]) -> bool:
    return all(
        _fits(getattr(config, key), value) if isinstance(value, dict) else getattr(config, key) == value
        for key, value in wanted.items()
    )


def _curves(loop: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"skill": schema, "points": [{"steps": s, "successes": k, "n": n} for s, k, n in points]}
        for schema, points in sorted(loop.get("curves", {}).items())
    ]


def _goals(status: Sequence[Status], evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
    """One row a goal: its best version by status, then the youngest, with the best evidence of it."""
    best: dict[str, Status] = {}
    for row in status:
        rank = (-RANK[row.status], row.created_round)
        if row.goal not in best or rank > (-RANK[best[row.goal].status], best[row.goal].created_round):
            best[row.goal] = row
    return [
        {"goal": goal, "text": Goal.parse(goal).text(), "status": row.status, "evidence": "simulator"}
        | _measured([item for item in evidence if (item.goal, item.version) == (goal, row.version)])
        for goal, row in best.items()
    ]


def _measured(items: Sequence[Evidence]) -> dict[str, int]:
    """Successes and n of the best purpose there is among the simulator's measurements here; {} without any."""
    for purpose in PURPOSES:
        found = [x for x in items if x.purpose == purpose and x.kind == "simulator" and x.origin == "local"]
        if found:
            return {"successes": sum(x.successes for x in found), "n": sum(x.n for x in found)}
    return {}


def _versions(library: SkillLibrary, evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
    """One row a version, the youngest first; its status is the best that it has on any goal."""
    rows, whole = [], {row.version: row.status for row in library.standing()}
    for skill in reversed(library.skills()):
        own = [x for x in evidence if x.version == skill.version]
        rows.append({
            "schema": skill.schema, "version": skill.version, "parent": skill.parent or "",
            "warm_start": str(skill.provenance.get("from", "")),
            "status": whole.get(skill.version, "candidate"),
        } | _measured(own))  # fmt: skip
    return rows


def _decisions(ledger: Path, end: int) -> list[dict[str, Any]]:
    """The ledger's lines up to byte ``end``, where the last committed round ended; damaged lines are left out."""
    if not ledger.is_file():
        return []
    entries = []
    for line in ledger.read_bytes()[:end].splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entry["goal"] = entry.get("goal") or entry.get("kind", "")
            entry["details"] = {k: _plain(v) for k, v in dict(entry.get("details") or {}).items() if v}
            entries.append(entry)
    return entries


def _plain(value: Any) -> str:
    """A ledger's value as a person would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_plain(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _heldout(run_dir: Path) -> list[dict[str, Any]]:
    """The held-out results; none where there are none to read."""
    try:
        return kept_rows(run_dir / runs.HELDOUT)
    except (OSError, ExamError):
        return []


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
