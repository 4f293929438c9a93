"""``embodied claims``: what this project claims, what was measured, and measuring it anew."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import ClaimsConfig
from embodied.errors import UsageError

if TYPE_CHECKING:
    from embodied.evaluation.claims import Claim, Record

NOT_MEASURED = "not measured"


def run(arguments: Arguments) -> int:
    """List the claims, or measure one. The exit code of a measurement is 1 where it falls short."""
    from embodied.cli.config import compose
    from embodied.evaluation import claims

    config = compose(ClaimsConfig, arguments.overrides)
    results = results_dir(config.results)
    words = arguments.words or ("list",)
    COMMAND.one_of(words[0], ("list", "run"), "word")
    if words[0] == "list":
        if len(words) > 1 or "quick" in arguments.flags:
            raise UsageError("embodied claims list takes no further word and no --quick")
        rows = listing(results)
        print(json.dumps(rows, indent=1) if "json" in arguments.flags else as_text(rows))
        return 0
    if len(words) != 2:
        raise UsageError(f"which claim? embodied claims run ID, with one of: {', '.join(sorted(claims.REGISTRY))}")
    COMMAND.one_of(words[1], sorted(claims.REGISTRY), "claim")
    context = claims.Context(
        quick="quick" in arguments.flags,
        results=results,
        out=Path(config.out),
        runs=tuple(map(Path, config.runs)),
        seed=config.seed,
        seeds=config.seeds,
    )
    record = claims.measure(words[1], context)
    print(json.dumps(asdict(record), indent=1) if "json" in arguments.flags else verdict(claims.get(words[1]), record))
    return 0 if record.met else 1


def results_dir(configured: str) -> Path:
    """Where the records are: as configured from here, else that folder of this code's own checkout."""
    here = Path(configured)
    beside = Path(__file__).resolve().parents[2] / configured
    return beside if not here.is_dir() and beside.is_dir() else here


def listing(results: Path) -> list[dict[str, Any]]:
    """One row a claim, and one more for its quick measurement where there is one."""
    from embodied.evaluation import claims

    rows = []
    for claim in sorted(claims.REGISTRY.values(), key=lambda c: c.id):
        rows.append(_row(claim, claims.recorded(results, claim.id), quick=False))
        quick = claims.recorded(results, claim.id, quick=True)
        if quick is not None:
            rows.append(_row(claim, quick, quick=True))
    return rows


def _row(claim: Claim, record: Record | None, quick: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": claim.id,
        "quick": quick,
        "statement": claim.statement,
        "target": f"{claim.comparison} {claim.target_of(quick):g} {claim.unit}",
        "command": claim.command(quick),
        "status": NOT_MEASURED,
    }
    if record is not None:
        found = record.measurement
        row |= {
            "status": "met" if claim.met(found, quick) else "not met",
            "figure": found.figure,
            "interval": found.interval,
            "seeds": found.seeds,
            "n": found.n,
            "conditions": found.conditions,
            "date": record.date,
            "versions": record.versions,
            "machine": record.machine,
        }
    return row


def as_text(rows: list[dict[str, Any]]) -> str:
    """The rows as a person reads them, three or four lines a claim."""
    lines = []
    for row in rows:
        mark = {"met": "✓", "not met": "✗"}.get(row["status"], "·")
        name = row["id"] + (" (quick)" if row["quick"] else "")
        lines += [f"{mark} {name}: {row['status']}. {row['statement']}"]
        if row["status"] != NOT_MEASURED:
            seeds = ", ".join(map(str, row["seeds"])) or "none"
            found = f"figure {_figure(row)}, target {row['target']}"
            lines.append(f"    {found}; seeds {seeds}; n {row['n']}; {row['date']}")
            failed = [name for name, holds in row["conditions"].items() if not holds]
            if failed:
                lines.append(f"    does not hold: {'; '.join(failed)}")
            versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
            lines.append(f"    {row['machine']}; {versions}")
        else:
            lines.append(f"    target {row['target']}")
        lines.append(f"    {row['command']}")
    count = sum(not row["quick"] and row["status"] == "met" for row in rows)
    lines.append(f"{count} of {sum(not row['quick'] for row in rows)} claims met")
    return "\n".join(lines)


def verdict(claim: Claim, record: Record) -> str:
    """What a measurement found, the figure last."""
    found = record.measurement
    lines = [f"{'holds' if holds else 'does not hold'}: {name}" for name, holds in found.conditions.items()]
    row = _row(claim, record, record.quick)
    name = claim.id + (" (quick)" if record.quick else "")
    return "\n".join([*lines, f"{name} {row['status']}, target {row['target']}: {_figure(row)}"])


def _figure(row: dict[str, Any]) -> str:
    low_high = row["interval"]
    return f"{row['figure']:.4g}" + (f" [{low_high[0]:.4g}, {low_high[1]:.4g}]" if low_high else "")


COMMAND = Command(
    name="claims",
    usage="embodied claims [list | run ID] [--quick] [--json] [key=value ...]",
    about="""
Lists every claim of this project with its target and what was measured last: figure, interval, seeds, date,
versions and the command. What fell short is listed as not met. 'run' measures one anew, keeps the record in
docs/results/, prints the figure last, and exits with 1 where it falls short.
""",
    run=run,
    schema=ClaimsConfig,
    words={"list": "every claim (the default)", "run ID": "measure that claim, e.g. main.b"},
    flags={"quick": "a smaller measurement, kept beside the full one", "json": "JSON instead of text"},
    examples=(
        ("embodied claims", "what is claimed and what was found"),
        ("embodied claims run main.e", "simulation speed, a minute"),
        ("embodied claims run main.b --quick", "a new quick run and its mastered goals"),
        ("embodied claims run main.b 'runs=[runs/default]'", "the same from a run that is there"),
    ),
)
