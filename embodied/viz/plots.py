"""Plots as inline SVG, written by hand: they take their colours from the page's style sheet.

Every function returns markup and escapes what it is given. Hovering over a point shows its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

__all__ = ["interval_bar", "learning_curve", "step_curve", "ticks"]

WIDTH, HEIGHT = 500, 250  # of a step curve, in the units of its view box
SMALL_WIDTH, SMALL_HEIGHT = 236, 128  # of a learning curve


def ticks(high: float, count: int = 4, whole: bool = False) -> list[float]:
    """Round positions from 0 to at least ``high``, about ``count`` steps of 1, 2, 2.5 or 5 times 10^k."""
    if not high > 0:
        return [0.0, 1.0]
    raw = high / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    return [i * step for i in range(math.ceil(high / step - 1e-9) + 1)]


def step_curve(
    points: Sequence[tuple[float, float]],
    x_text: Callable[[float], str],
    end: float,
    label: str,
    axis: Sequence[float],
) -> str:
    """A staircase of counts: ``points`` (x, count) ascending in x, drawn up to ``end``; ticks at ``axis``."""
    left, right, top, bottom = 34, 26, 14, 28
    rows = ticks(max([4.0, *(y for _, y in points)]), whole=True)
    reach = max(axis[-1], end, 1e-9)

    def x_at(x: float) -> float:
        return left + (WIDTH - left - right) * x / reach

    def y_at(y: float) -> float:
        return HEIGHT - bottom - (HEIGHT - top - bottom) * y / rows[-1]

    parts = [_horizontal(y_at(y), left, WIDTH - right, f"{y:.0f}", "axis" if y == 0 else "grid") for y in rows]
    parts += [_text(x_at(x), HEIGHT - 8, x_text(x), "middle") for x in axis]
    path, last = f"M{x_at(0):.1f} {y_at(0):.1f}", 0.0
    for x, y in points:
        path += f"H{x_at(x):.1f}V{y_at(y):.1f}"
        last = y
    path += f"H{x_at(end):.1f}"
    parts.append(f'<path class="area" d="{path}V{y_at(0):.1f}Z"/><path class="curve" d="{path}"/>')
    for x, y in points:
        title = f"<title>{escape(f'{y:.0f} after {x_text(x)}')}</title>"
        parts.append(f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="7" opacity="0">{title}</circle>')
    parts.append(f'<circle class="dot" cx="{x_at(end):.1f}" cy="{y_at(last):.1f}" r="4"/>')
    parts.append(_text(x_at(end), y_at(last) - 9, f"{last:.0f}", "middle", "value"))
    return _svg(WIDTH, HEIGHT, label, parts)


def learning_curve(
    points: Sequence[tuple[float, float, float, float]],
    x_text: Callable[[float], str],
    end: float,
    gate: float,
    label: str,
) -> str:
    """Success over steps: ``points`` (x, rate, low, high), the interval as a band, a line at ``gate``."""
    left, right, top, bottom = 38, 6, 8, 22

    def x_at(x: float) -> float:
        return left + (SMALL_WIDTH - left - right) * x / max(end, 1e-9)

    def y_at(y: float) -> float:
        return SMALL_HEIGHT - bottom - (SMALL_HEIGHT - top - bottom) * y

    parts = []
    for y in (0.0, 0.5, 1.0):
        parts.append(_horizontal(y_at(y), left, SMALL_WIDTH - right, f"{100 * y:.0f} %", "axis" if y == 0 else "grid"))
    if 0 < gate < 1:
        parts.append(f'<path class="gate" d="M{left} {y_at(gate):.1f}H{SMALL_WIDTH - right}"/>')
    parts.append(_text(left, SMALL_HEIGHT - 6, "0", "middle"))
    parts.append(_text(SMALL_WIDTH - right, SMALL_HEIGHT - 6, x_text(end), "end"))
    above = [f"{x_at(x):.1f} {y_at(high):.1f}" for x, _, _, high in points]
    below = [f"{x_at(x):.1f} {y_at(low):.1f}" for x, _, low, _ in reversed(points)]
    middle = [f"{x_at(x):.1f} {y_at(rate):.1f}" for x, rate, _, _ in points]
    if len(points) > 1:
        parts.append(f'<path class="band" d="M{"L".join(above + below)}Z"/>')
        parts.append(f'<path class="curve" d="M{"L".join(middle)}"/>')
    if len(points) == 1:
        x, _, low, high = points[0]
        parts.append(f'<path class="whisker" d="M{x_at(x):.1f} {y_at(low):.1f}V{y_at(high):.1f}"/>')
    for x, rate, low, high in points:
        numbers = f"{100 * rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}] after {x_text(x)} steps"
        title = f"<title>{escape(numbers)}</title>"
        radius = 3 if len(points) <= 14 else 2
        parts.append(f'<circle class="ring" cx="{x_at(x):.1f}" cy="{y_at(rate):.1f}" r="{radius}">{title}</circle>')
    return _svg(SMALL_WIDTH, SMALL_HEIGHT, label, parts)


def interval_bar(rate: float, low: float, high: float, gate: float = 0.0, other: bool = False) -> str:
    """A rate and its interval on a track from 0 to 1, with a thin line at ``gate`` (0: none); plain HTML."""
    label = escape(f"{100 * rate:.0f} percent, interval {100 * low:.0f} to {100 * high:.0f}")
    mark = f'<u style="left:{100 * gate:.1f}%"></u>' if gate > 0 else ""
    extent = f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    kind = "bar other" if other else "bar"
    marks = f'{extent}<b style="left:{100 * rate:.1f}%"></b>{mark}'
    return f'<span class="{kind}" role="img" aria-label="{label}">{marks}</span>'


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _horizontal(y: float, left: float, right: float, text: str, kind: str) -> str:
    return f'<path class="{kind}" d="M{left:.1f} {y:.1f}H{right:.1f}"/>' + _text(left - 7, y + 4, text, "end")
