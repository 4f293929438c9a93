"""The report: a run as one HTML file that needs nothing else, useful from the first minute on.

`write_report` takes plain data and writes the page: no script, nothing loaded from anywhere (the page itself
forbids it), light and dark. What there is no data for yet says so. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied.data.durable import replace_file
from embodied.skills.schema import STATUSES
from embodied.viz.markup import (
    chip,
    count_text,
    data_uri,
    escaped,
    folding_table,
    heading,
    measured_cells,
    nothing_yet,
    page,
    rate_of,
    section,
    short_hash,
    table_head,
    tiles,
    time_text,
)
from embodied.viz.plots import learning_curve, step_curve, ticks

__all__ = ["ReportData", "render_report", "write_report"]

METHODS = ("agent", "play policy", "random", "oracle")
VERDICTS: dict[bool | None, str] = {
    True: "<span class='verdict good'>✓ success</span>",
    False: "<span class='verdict bad'>✗ failure</span>",
}
STATES = ("running", "finished", "stopped")
FIRST_GOALS, FIRST_DECISIONS, MOST_PICTURES = 20, 12, 12


@dataclass
class ReportData:
    """What the report shows. Every list may be empty; a key that is not marked (needed) may be missing.

    name, preset, seed: of the run. state: "running", "finished" or "stopped".
    started, written: times as text. versions: package -> version. renderer: `Renderer.describe()`.
    physics: the simulator's version and settings.
    environment_steps: control steps so far, step_budget: those the run will take (0: not known).
    wall_seconds: seconds of work so far, episodes: finished ones.
    gate: the lower bound a success rate must reach (0 to 1), drawn as a thin line; 0 for none.
    mastered: {"steps": int, "seconds": float, "count": int (needed)}, ascending, one for every change.
    curves: {"skill": str (needed), "points": [{"steps": int, "successes": int, "n": int}]}, one a skill.
    goals: {"goal": str (needed), "text": English, "successes": int, "n": int, "status": one of
        `embodied.skills.schema.STATUSES`, "evidence": "simulator", "judge" or "language", "steps": when mastered}.
    heldout: {"method": "agent", "play policy", "random" or "oracle", "depth": 1, 2, 3 …, "successes", "n"}.
    library: {"schema": str (needed), "version": hash, "parent": hash, "warm_start": hash or text, "status",
        "successes", "n"}.
    decisions: {"round": int, "goal": str, "why": str, "result": str, "outcome": one word,
        "details": {name: value}}, oldest first.
    pictures: {"instruction": str, "success": bool or None, "note": str, "animation": bytes, "kind": its media
        type, "strip": PNG bytes}, as `embodied.viz.video.picture` makes them; the first 12 are shown.
    """

    name: str
    preset: str = ""
    seed: int | None = None
    state: str = "running"
    started: str = ""
    written: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    renderer: str = ""
    physics: str = ""
    environment_steps: int = 0
    step_budget: int = 0
    wall_seconds: float = 0.0
    episodes: int = 0
    gate: float = 0.0
    mastered: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)
    heldout: list[dict[str, Any]] = field(default_factory=list)
    library: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)


def write_report(path: Path | str, data: ReportData) -> Path:
    """Writes the page to ``path`` in one step: a reader sees the old or the new one. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_report(data).encode())
    return path


def render_report(data: ReportData) -> str:
    """The page's HTML. Raises ValueError for a state that is none of `STATES`."""
    if data.state not in STATES:
        raise ValueError(f"unknown state {data.state!r} of a run; the states are: {', '.join(STATES)}")
    sections = (
        _header,
        _tiles,
        _gallery,
        _progress,
        _curves,
        _goals,
        _heldout,
        _library,
        _decisions,
        _footer,
    )
    return page(data.name, [section(data) for section in sections])


def _header(data: ReportData) -> str:
    mastered = data.mastered[-1]["count"] if data.mastered else 0
    known = f" of {len(data.goals)}" if len(data.goals) > mastered else ""
    if data.environment_steps == 0:
        sentence = "The robot has not moved yet: nothing is measured."
    else:
        goals = f"{mastered}{known} goals" if mastered != 1 or known else "1 goal"
        sentence = (
            f"The robot has taught itself {goals} so far"
            if data.state == "running"
            else f"The robot taught itself {goals}"
        )
        sentence += f", in {count_text(data.environment_steps)} steps and {time_text(data.wall_seconds)}."
    share = ""
    if data.state == "running" and data.step_budget > 0:
        share = f" · {100 * min(1.0, data.environment_steps / data.step_budget):.0f} %"
    facts = [
        ("preset", data.preset),
        ("seed", "" if data.seed is None else str(data.seed)),
        ("started", data.started),
    ]
    facts += [("physics", data.physics), ("renderer", data.renderer)]
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in sorted(data.versions.items())))]
    return heading(data.name, sentence, data.state, share, facts)


def _tiles(data: ReportData) -> str:
    steps, seconds = data.environment_steps, data.wall_seconds
    mastered = data.mastered[-1]["count"] if data.mastered else 0
    robot = f"{time_text(steps / 20)} of the robot's time" if steps else "at 20 a second"
    speed = f"{count_text(steps / seconds)} steps a second" if steps and seconds > 0 else "not started"
    rate = f"{count_text(steps / data.episodes)} steps each" if data.episodes else "none finished yet"
    goals = f"of {len(data.goals)} measured" if data.goals else "none measured yet"
    return tiles([
        (str(mastered), "mastered goals", goals),
        (count_text(steps), "environment steps", robot),
        (time_text(seconds), "wall time", speed),
        (count_text(data.episodes), "episodes", rate),
    ])  # fmt: skip


def _gallery(data: ReportData) -> str:
    cards = []
    for picture in data.pictures[:MOST_PICTURES]:
        moving, strip = (
            data_uri(picture.get("animation"), picture.get("kind", "")),
            data_uri(picture.get("strip"), "image/png"),
        )
        words = str(picture.get("instruction", ""))
        alt = escaped(f"the robot: {words}")
        images = f'<img class="moving" src="{moving}" alt="{alt}">' if moving else ""
        if strip:
            images += f'<img class="filmstrip" src="{strip}" alt="{alt}, frame by frame">'
        judged = VERDICTS.get(picture.get("success"), "")
        note = f" <span class='faint'>{escaped(picture['note'])}</span>" if picture.get("note") else ""
        cards.append(f"<figure>{images}<figcaption><q>{escaped(words)}</q>{judged}{note}</figcaption></figure>")
    body = f"<div class='gallery'>{''.join(cards)}</div>" if cards else nothing_yet("No episode has been drawn yet.")
    return section("What it does", "The robot at work, as it is: successes and failures.", body)


def _progress(data: ReportData) -> str:
    if not data.mastered:
        return section(
            "Mastered goals",
            "",
            nothing_yet("No goal is mastered yet; the first point of this plot is the first one that is."),
        )
    steps = [(float(p.get("steps", 0)), float(p["count"])) for p in data.mastered]
    seconds = [(float(p.get("seconds", 0.0)), float(p["count"])) for p in data.mastered]
    end_steps, end_seconds = max(data.environment_steps, steps[-1][0]), max(data.wall_seconds, seconds[-1][0])
    unit = 3600.0 if end_seconds >= 3 * 3600 else 60.0 if end_seconds >= 180 else 1.0
    marks = [unit * t for t in ticks(end_seconds / unit, 5, whole=unit == 60.0)]
    by_steps = step_curve(steps, count_text, end_steps, "mastered goals over environment steps", ticks(end_steps, 5))
    by_time = step_curve(
        seconds, lambda s: time_text(s) if s else "0", end_seconds, "mastered goals over wall time", marks
    )
    body = f"<div class='card'><h3>over environment steps</h3>{by_steps}</div>"
    body += f"<div class='card'><h3>over wall time</h3>{by_time}</div>"
    lead = "Goals whose success was confirmed on fresh episodes that nothing was chosen by."
    return section("Mastered goals", lead, f"<div class='pair'>{body}</div>")


def _curves(data: ReportData) -> str:
    end = max(
        [float(data.environment_steps)] + [float(p.get("steps", 0)) for c in data.curves for p in c.get("points", ())]
    )
    cards = []
    for curve in data.curves:
        points = []
        for point in curve.get("points", ()):
            rate, low, high = rate_of(point)
            points.append((float(point.get("steps", 0)), rate, low, high))
        name = escaped(curve["skill"])
        plot = learning_curve(points, count_text, end, data.gate, f"success of {curve['skill']} over steps")
        note = "" if points else "<p class='faint'>not practised yet</p>"
        cards.append(f"<div class='card'><h3 class='mono' title='{name}'>{name}</h3>{plot}{note}</div>")
    body = (
        f"<div class='multiples'>{''.join(cards)}</div>" if cards else nothing_yet("No skill has been practised yet.")
    )
    lead = "Success of each skill during practice; the band is the interval"
    lead += f", the dotted line the bound to pass ({100 * data.gate:.0f} %)." if data.gate > 0 else "."
    return section("Learning curves", lead, body)


def _goals(data: ReportData) -> str:
    order = {status: i for i, status in enumerate(STATUSES)}
    rows = sorted(data.goals, key=lambda g: (order.get(str(g.get("status")), 3), -rate_of(g)[1], str(g["goal"])))
    cells = []
    for goal in rows:
        small = f"<small>{escaped(goal['text'])}</small>" if goal.get("text") else ""
        when = count_text(goal["steps"]) if goal.get("steps") is not None else "–"
        cells.append(
            f"<tr><td><code>{escaped(goal['goal'])}</code>{small}</td>{measured_cells(goal, data.gate)}"
            f"<td>{chip(goal.get('status'))}</td><td class='soft'>{escaped(goal.get('evidence', '–'))}</td>"
            f"<td class='num'>{when}</td></tr>"
        )
    head = table_head("goal", "success", "rate >", "status", "judged by", "mastered at >")
    lead = "Measured on fresh episodes. The mark is the rate, the bar its 95 % interval"
    lead += ", the thin line the bound that admits a skill." if data.gate > 0 else "."
    return section("Goals", lead, folding_table(head, cells, FIRST_GOALS, "goals", "No goal has been measured yet."))


def _heldout(data: ReportData) -> str:
    depths = sorted({int(r.get("depth", 1)) for r in data.heldout})
    present = [str(r.get("method")) for r in data.heldout]
    methods = [m for m in METHODS if m in present] + sorted(set(present) - set(METHODS))
    cells = []
    for method in methods:
        row = f"<td>{escaped(method)}</td>"
        for depth in depths:
            found = [r for r in data.heldout if r.get("method") == method and int(r.get("depth", 1)) == depth]
            row += (
                measured_cells(found[0], 0.0, method != "agent")
                if found
                else "<td class='faint' colspan='2'>not measured</td>"
            )
        cells.append(f"<tr{' class=best' if method == 'agent' else ''}>{row}</tr>")
    head = "<th></th>" + "".join(f"<th colspan='2'>{d} step{'s' if d > 1 else ''}</th>" for d in depths)
    lead = "Instructions that were never practised, by the number of steps they ask for. "
    lead += "Random shows what chance does, the oracle what the world allows."
    empty = "Not measured yet: held-out instructions are tried when the run ends."
    return section("Held-out instructions", lead, folding_table(head, cells, len(cells), "rows", empty))


def _library(data: ReportData) -> str:
    cells = []
    for skill in data.library:
        hashes = "".join(
            f"<td><code>{short_hash(skill.get(key))}</code></td>" for key in ("version", "parent", "warm_start")
        )
        cells.append(
            f"<tr><td><code>{escaped(skill['schema'])}</code></td>{hashes}{measured_cells(skill, data.gate)}"
            f"<td>{chip(skill.get('status'))}</td></tr>"
        )
    head = table_head("schema", "version", "parent", "warm start", "evidence", "rate >", "status")
    lead = "Each version is immutable and named by its hash; its status follows from the evidence alone."
    return section(
        "Skill library",
        lead,
        folding_table(head, cells, FIRST_GOALS, "versions", "The library is empty so far."),
    )


def _decisions(data: ReportData) -> str:
    entries = []
    for entry in reversed(data.decisions):
        pairs = [
            ("why", entry.get("why")),
            ("what happened", entry.get("result")),
            *dict(entry.get("details") or {}).items(),
        ]
        details = "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in pairs if v not in (None, ""))
        entries.append(
            f"<details><summary><span class='faint num'>round {escaped(entry.get('round', '–'))}</span>"
            f"<code>{escaped(entry.get('goal', ''))}</code>{chip(entry.get('outcome'))}</summary>"
            f"<dl>{details}</dl></details>"
        )
    body = nothing_yet("No decision has been made yet.")
    if entries:
        rest = entries[FIRST_DECISIONS:]
        more = (
            f"<details class='more'><summary>{len(rest)} earlier decisions</summary>{''.join(rest)}</details>"
            if rest
            else ""
        )
        body = f"<div class='ledger'>{''.join(entries[:FIRST_DECISIONS])}{more}</div>"
    return section("Decisions", "What was tried next, why, and what came of it; newest first.", body)


def _footer(data: ReportData) -> str:
    written = f"Written {escaped(data.written)}. " if data.written else ""
    return (
        "<footer><p>Intervals are Wilson's at 95 %. A goal counts as mastered only when the simulator itself "
        "found it reached, on episodes drawn for that purpose. Rates under different versions of the physics "
        "do not compare.</p>"
        f"<p>{written}This page is one file and loads nothing.</p></footer>"
    )
