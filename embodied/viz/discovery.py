"""Discovered skills to look at: where blocks went, how they got there, how learning went, and a film of many at once.

Maps are seen as the film sees the table: the robot stands beyond the upper edge, y goes to the right, x downwards.
Colours tell skills apart: the angle of a block's part of the code, or the number of a discrete one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied import runs
from embodied.data.durable import replace_file
from embodied.evaluation.skill_exam import BINS, SkillExam
from embodied.training.discovery import Skills
from embodied.viz import video
from embodied.viz.canvas import ACCENT, CARD, FAINT, LINE, Canvas, Colour, hue_colour
from embodied.viz.film import EVERY, FPS, write_gif
from embodied.viz.markup import (
    count_text,
    data_uri,
    escaped,
    folding_table,
    heading,
    nothing_yet,
    page,
    percent_text,
    section,
    table_head,
    tiles,
)
from envs.rendering import make_renderer
from envs.scenes.discovery import COSTS
from envs.scenes.scene import Scene
from policies.discovery import DiscoveryConfig

__all__ = ["COVERAGE", "CURVES", "GALLERY", "PATHS", "Film", "coverage", "curves", "film", "paths", "tell", "write"]

COVERAGE, PATHS, CURVES, GALLERY = "coverage.png", "paths.png", "curves.png", "gallery"
Picture = NDArray[np.uint8]
SHOWN, COLUMNS = 12, 4  # skills side by side, and in a row
STRIPS, SHOTS = 6, 6  # skills of the strip, and moments
SWATCH = 5  # pixels of a skill's colour above its picture
ANIMATION = 1_500_000  # bytes of the film in the page
_WIDE = 1.5  # m: a table beyond is no table, but everywhere
_PIXELS = 460.0  # a metre on a map
_HEAD, _GAP = 26, 14
_LOW, _HIGH = (36, 88, 84), (120, 236, 222)  # of a map: one code, all of them


# ---- which skill is which


def hues(codes: np.ndarray, config: DiscoveryConfig) -> np.ndarray:
    """Each block's colour under each code, float64[n, blocks] in 0 … 1.

    Blocks have colours of their own where they have a part of the code of their own (`position` and `dusdi`).
    """
    n, blocks = len(codes), config.objects
    parts = codes.reshape(n, blocks if config.method in ("position", "dusdi") else 1, -1)
    if config.is_discrete:
        found = parts.argmax(axis=-1) / parts.shape[-1]
    else:
        found = np.arctan2(parts[..., min(1, parts.shape[-1] - 1)], parts[..., 0]) / (2 * math.pi) % 1.0
    return np.broadcast_to(found, (n, blocks))


def tell(codes: np.ndarray, config: DiscoveryConfig) -> list[str]:
    """What each code is called: by angles, by numbers of discrete skills, or of more numbers, by its place."""
    found = hues(codes, config)[:, : config.objects if config.method in ("position", "dusdi") else 1]
    if config.is_discrete:
        kinds = 5 if config.method == "dusdi" else config.code
        return ["skill " + " ".join(f"{kinds * hue:.0f}" for hue in row) for row in found]
    if config.method != "position" and config.code > 2:
        return [f"code {k + 1}" for k in range(len(codes))]
    return [" ".join(f"{360 * hue:.0f}\N{DEGREE SIGN}" for hue in row) for row in found]


def choose(found: np.ndarray, many: int) -> np.ndarray:
    """So many codes (or all) that are spread over the colours float64[n, blocks] of the first block, in their order."""
    order = np.argsort(found[:, 0], kind="stable")
    first = np.unique(found[order, 0].round(6), return_index=True)[1]  # one of each colour, where there are few colours
    order = order[first] if len(first) >= min(many, 4) else order
    return order[np.unique(np.linspace(0, len(order) - 1, min(many, len(order))).round().astype(int))]


# ---- maps


@dataclass(frozen=True)
class _Map:
    """A table's place on a canvas."""

    canvas: Canvas
    left: float
    top: float
    area: tuple[float, float, float, float]  # low x, low y, high x, high y, m

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + (y - self.area[1]) * _PIXELS, self.top + (x - self.area[0]) * _PIXELS


def _area(exam: SkillExam) -> tuple[tuple[float, float, float, float], bool]:
    """What a map shows (m), and whether the table has edges."""
    low_x, low_y, high_x, high_y = exam.table
    edges = max(high_x - low_x, high_y - low_y) < _WIDE
    if not edges:
        spots = exam.path[..., :2].reshape(-1, 2)
        (low_x, low_y), (high_x, high_y) = np.minimum(spots.min(0), (0.35, -0.2)), np.maximum(spots.max(0), (0.65, 0.2))
    pad = 0.05
    return (low_x - pad, low_y - pad, high_x + pad, high_y + pad), edges


def _maps(exam: SkillExam, titles: Sequence[str], legend: int) -> tuple[Canvas, list[_Map]]:
    """A canvas with an empty table for every title, and ``legend`` pixels to the right of them."""
    area, edges = _area(exam)
    width, height = (area[3] - area[1]) * _PIXELS, (area[2] - area[0]) * _PIXELS
    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    canvas = Canvas(round(columns * (width + _GAP) + _GAP + legend), round(rows * (height + _HEAD + _GAP) + _GAP))
    found = []
    for i, title in enumerate(titles):
        left, top = _GAP + (i % columns) * (width + _GAP), _GAP + _HEAD + (i // columns) * (height + _HEAD + _GAP)
        place = _Map(canvas, left, top, area)
        canvas.text((left, top - _HEAD + 4), title, 14)
        low, high = exam.table[:2], exam.table[2:]
        corners = (place.at(*low), place.at(*high)) if edges else (place.at(*area[:2]), place.at(*area[2:]))
        canvas.box(*corners, CARD, LINE)
        found.append(place)
    return canvas, found


def _beside(places: Sequence[_Map]) -> tuple[float, float]:
    """Where the legend begins, right of all maps."""
    return max(place.at(0.0, place.area[3])[0] for place in places) + _GAP, places[0].top


def coverage(exam: SkillExam, names: Sequence[str]) -> Picture:
    """A map for each block: the bins it was in, brighter where more codes took it."""
    small, large = BINS
    titles = [f"{name}: {a} bins of {100 * small:.0f} cm, {b} of {100 * large:.0f} cm"
              for name, a, b in zip(names, exam.bins(small), exam.bins(large), strict=True)]  # fmt: skip
    canvas, places = _maps(exam, titles, 92)
    most = len(exam.codes)
    for block, place in enumerate(places):
        cells, counts = exam.visited(block, small)
        for (i, j), count in zip(cells, counts, strict=True):
            colour = _between(math.log(count) / max(math.log(most), 1e-9))
            canvas.box(place.at(i * small, j * small), place.at((i + 1) * small, (j + 1) * small), colour)
        for i, j in exam.visited(block, large)[0]:
            low, high = place.at(i * large, j * large), place.at((i + 1) * large, (j + 1) * large)
            canvas.box(low, high, None, FAINT)
        canvas.dot(place.at(*exam.path[0, 0, block, :2]), 4, None, (255, 255, 255))
    right, top = _beside(places)
    for k in range(60):
        canvas.box((right, top + 16 + k), (right + 12, top + 17 + k), _between(1 - k / 59))
    canvas.text((right, top), "codes", 11, FAINT)
    canvas.text((right + 18, top + 12), str(most), 11, FAINT)
    canvas.text((right + 18, top + 66), "1", 11, FAINT)
    canvas.dot((right + 6, top + 100), 4, None, (255, 255, 255))
    canvas.text((right + 18, top + 94), "start", 11, FAINT)
    return canvas.image()


def paths(exam: SkillExam, names: Sequence[str], config: DiscoveryConfig) -> Picture:
    """A map for each block: its way under each code, coloured by the code."""
    canvas, places = _maps(exam, list(names), 130)
    found = hues(exam.codes, config)
    for block, place in enumerate(places):
        for code in range(len(found)):
            colour = hue_colour(found[code, block])
            way = [place.at(x, y) for x, y in _within(exam.path[:, code, block, :2], place.area)]
            canvas.line(way, colour, 1.3)
            on = exam.path[-1, code, block, 2] > 0.0
            canvas.dot(way[-1], 3.2, colour if on else None, colour)
        canvas.dot(place.at(*exam.path[0, 0, block, :2]), 4, None, (255, 255, 255))
    right, top = _beside(places)
    if config.is_discrete:
        kinds = 5 if config.method == "dusdi" else config.code
        for k in range(kinds):
            x, y = right + 44 * (k // 10), top + 22 + 17 * (k % 10)
            canvas.dot((x + 6, y), 5, hue_colour(k / kinds))
            canvas.text((x + 17, y), str(k), 11, FAINT, "lm")
        below = top + 22 + 17 * min(kinds, 10)
    else:
        for k in range(72):
            angle = 2 * math.pi * k / 72
            spot = right + 46 + 30 * math.sin(angle), top + 58 + 30 * math.cos(angle)
            canvas.dot(spot, 6, hue_colour(k / 72))
        below = top + 104
    canvas.text((right, top), "code", 11, FAINT)
    for line, filled in (("on the table", True), ("fell off", False)):
        canvas.dot((right + 6, below + 7), 3.2, FAINT if filled else None, FAINT)
        canvas.text((right + 17, below + 7), line, 11, FAINT, "lm")
        below += 17
    return canvas.image()


def _within(way: np.ndarray, area: tuple[float, float, float, float]) -> np.ndarray:
    """The part of a way float64[T, 2] before it leaves the map: what fell goes on falling."""
    inside = (way >= area[:2]).all(axis=1) & (way <= area[2:]).all(axis=1)
    return way if inside.all() else way[: max(1, int(inside.argmin()))]


def _between(share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))  # type: ignore[return-value]


# ---- learning


def curves(rows: Sequence[dict[str, float]]) -> Picture:
    """Each reward's mean a step, and of each cost the share of steps with any (bright) and its mean (dim)."""
    rewards = [key for key in (rows[0] if rows else {}) if key.startswith("reward/")]
    plots: list[tuple[str, list[tuple[str, Colour]]]] = [(f"reward {key[7:]}", [(key, ACCENT)]) for key in rewards]
    plots += [(f"cost {name}", [(f"cost/{name}", FAINT), (f"violation/{name}", ACCENT)]) for name in COSTS]
    width, height, left, columns = 236, 116, 44, 4
    lines = -(-len(plots) // columns)
    canvas = Canvas(columns * (width + _GAP) + _GAP, 36 + lines * (height + _HEAD + 24) + 4)
    words = "means a step over environment steps; costs: share of steps with any of it (bright), mean (dim)"
    canvas.text((_GAP, _GAP), words, 12, FAINT)
    steps = np.array([row["steps"] for row in rows], float)
    for i, (title, series) in enumerate(plots):
        x0 = _GAP + (i % columns) * (width + _GAP) + left
        y0 = 36 + (i // columns) * (height + _HEAD + 24) + _HEAD
        across = width - left
        canvas.text((x0, y0 - _HEAD + 6), title, 13)
        canvas.box((x0, y0), (x0 + across, y0 + height), CARD)
        values = np.array([[row.get(key, 0.0) for key, _ in series] for row in rows]).reshape(len(rows), len(series))
        finite = values[np.isfinite(values)]
        low, high = min([0.0, *finite]), max([0.0, *finite])
        high = high if high > low else low + 1.0
        apart = min(high, -low) > 0.12 * (high - low)  # words must not touch
        for mark in sorted({low, 0.0, high}):
            y = y0 + height * (high - mark) / (high - low)
            canvas.line([(x0, y), (x0 + across, y)], LINE, 0.7)
            if apart or mark in (low, high):
                canvas.text((x0 - 5, y), f"{mark:.2g}", 10, FAINT, "rm")
        if not rows:
            continue
        canvas.text((x0 + across, y0 + height + 4), count_text(steps[-1]), 10, FAINT, "ra")
        for (_, colour), column in zip(series, values.T, strict=True):
            spots = [(x0 + across * s / steps[-1], y0 + height * (high - v) / (high - low))
                     for s, v in zip(steps, column, strict=True) if math.isfinite(v)]  # fmt: skip
            canvas.line(spots, colour, 1.3)
            if len(spots) == 1:
                canvas.dot(spots[0], 2.5, colour)
    return canvas.image()


# ---- the film


@dataclass(frozen=True)
class Film:
    """Skills side by side, frames uint8[T, H, W, 3]; a row of moments for some; how they were drawn."""

    frames: Picture
    strip: Picture
    renderer: str


def film(
    exam: SkillExam, scene: Scene, config: DiscoveryConfig, width: int = 160, height: int = 120, backend: str = "auto"
) -> Film:
    """Draws some of the exam's skills. Raises RenderError for a backend that does not work here."""
    found = hues(exam.codes, config)
    chosen = choose(found, SHOWN)
    names = tell(exam.codes[chosen], config)
    qpos = exam.states[::EVERY, chosen, : scene.model.nq]
    with make_renderer(scene.model, width, height, backend=backend) as renderer:
        drawn = renderer.render(qpos.reshape(-1, scene.model.nq))[:, 0].reshape(*qpos.shape[:2], height, width, 3)
        about = renderer.describe()
    for k, code in enumerate(chosen):
        edges = np.linspace(0, width, found.shape[1] + 1).round().astype(int)
        for hue, left, right in zip(found[code], edges, edges[1:], strict=False):
            drawn[:, k, :SWATCH, left:right] = hue_colour(hue)
    frames = np.stack([video.strip(now, COLUMNS, names) for now in drawn])
    some = np.unique(np.linspace(0, len(chosen) - 1, min(STRIPS, len(chosen))).round().astype(int))
    moments = np.unique(np.linspace(0, len(drawn) - 1, SHOTS).round().astype(int))
    captions = [f"{names[k]}  {t / FPS:.1f} s" for k in some for t in moments]
    rows = drawn[moments][:, some].swapaxes(0, 1).reshape(-1, height, width, 3)
    return Film(frames, video.strip(rows, len(moments), captions), about)


# ---- all of it


def write(
    folder: Path, skills: Skills, exam: SkillExam, summary: dict[str, Any], names: Sequence[str], drawn: Film | None
) -> Path:
    """Writes the pictures and the page that shows them; ``summary`` is what skills.json has. The page's path.

    Earlier ones are replaced; without a film there is none afterwards.
    """
    config = skills.discovery.config
    made = {COVERAGE: coverage(exam, names), PATHS: paths(exam, names, config), CURVES: curves(skills.curve)}
    for name, picture in made.items():
        video.write_png(folder / name, picture)
    for old in folder.glob(f"{GALLERY}.*"):
        old.unlink()
    if drawn is not None:
        video.write_png(folder / f"{GALLERY}.png", drawn.strip)
        if video.ffmpeg_works():
            video.write_mp4(folder / f"{GALLERY}.mp4", drawn.frames, FPS)
        else:
            write_gif(folder / f"{GALLERY}.gif", drawn.frames)
    path = folder / runs.REPORT
    text = page(folder.name, _parts(folder, summary, exam, {k: video.png(v) for k, v in made.items()}, drawn))
    replace_file(path, text.encode())
    return path


def _parts(
    folder: Path, summary: dict[str, Any], exam: SkillExam, pictures: dict[str, bytes], drawn: Film | None
) -> list[str]:
    result, settings, share = summary["exam"], summary["settings"], summary["share"]
    few, many = (f"{100 * width:.0f} cm" for width in BINS)
    covered, wide = (result[f"coverage{100 * width:02.0f}"] for width in BINS)
    sentence = f"Skills that nobody asked for, one policy: from one start, {len(exam.codes)} codes brought blocks "
    sentence += f"to {covered} bins of {few}, after {count_text(summary['steps'])} environment steps."
    weights = [f"{name} {settings['weights'].get(name, 1.0):g}" for name in settings["rewards"]]
    facts = [
        ("method", summary["method"]), ("scene", summary["env"]), ("blocks", str(settings["blocks"])),
        ("rewards and weights", ", ".join(weights)), ("combined by", settings["combine"]),
        ("code", f"{summary['code']}, by {summary['by']}"), ("seed", str(settings["seed"])),
        ("renderer", drawn.renderer if drawn else ""),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(summary["versions"].items()))),
    ]  # fmt: skip
    state = ("finished", "") if share >= 1.0 else ("unfinished", f" · {100 * share:.0f} %")
    parts = [heading(folder.name, sentence, *state, facts)]
    aligned = f"cosine of code and change {result['alignment']:.2f}" if summary["by"] == "position" else ""
    parts.append(tiles([
        (str(covered), f"bins of {few}", f"{wide} of {many}"),
        (percent_text(result["interaction"]), "of the codes move a block by 2 cm", aligned),
        (percent_text(result["interior"]), "leave it on the table, off the edges", f"fell: {result['fell']:.0%}"),
        (percent_text(result["violation"]["any"]), "of steps have some cost", f"lifted: {result['lift']:.0%}"),
    ]))  # fmt: skip
    shown = nothing_yet("Not filmed: video=false.")
    if drawn is not None:
        data, kind = video.animation(drawn.frames, FPS, ANIMATION)
        film = next(path.name for path in sorted(folder.glob(f"{GALLERY}.*")) if path.suffix != ".png")
        shown = f"<figure><img class='moving' src='{data_uri(data, kind)}' alt='skills side by side'>"
        shown += f"<figcaption>The bar above a picture has the colour of its code below. As a file: <a href='{film}'>"
        shown += f"{film}</a>, and moments of it: <a href='{GALLERY}.png'>{GALLERY}.png</a>.</figcaption></figure>"
    parts.append(section("What the skills do", "Several codes from one start, at once.", shown))
    said = "Its colour is that of the code" + (
        ": the way that it asks for, as on the ring." if summary["by"] == "position" else "."
    )
    where = _figure(pictures[COVERAGE], "Bins that each block was in, on the table, over all codes.")
    where += "<br>" + _figure(pictures[PATHS], f"The way of each block under each code. {said}")
    lead = "The table from above; the robot stands beyond the upper edge, as in the film."
    parts.append(section("Where blocks went", lead, where))
    parts.append(section("Learning", "", _figure(pictures[CURVES], "")))
    rows = [
        f"<tr><td><code>{escaped(name)}</code></td><td class='num'>{100 * result['violation'][name]:.2f} %</td>"
        f"<td class='num'>{result['cost'][name]:.4f}</td></tr>"
        for name in COSTS
    ]
    head = table_head("cost", "steps with any >", "mean a step >")
    parts.append(section("Costs in the exam", "", folding_table(head, rows, len(rows), "costs", "")))
    footer = (
        "Every code acts once, by the policy's means, from the same start, which training did not see. All figures "
    )
    footer += "are in skills.json; they compare only under the same versions of the physics."
    return [*parts, f"<footer><p>{escaped(footer)}</p></footer>"]


def _figure(picture: bytes, words: str) -> str:
    caption = f"<figcaption>{escaped(words)}</figcaption>" if words else ""
    return f"<figure><img src='{data_uri(picture, 'image/png')}' alt='{escaped(words)}'>{caption}</figure>"
