"""The pieces of HTML that the report is put together from.

Parameters called ``body``, ``head`` and ``rows`` are markup; all other text is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from embodied.skills.statistics import wilson
from embodied.viz.plots import interval_bar
from embodied.viz.style import CSS

Row = Mapping[str, Any]
EMBEDDED = ("image/webp", "image/gif", "image/png")
MARKED = ("admitted", "deprecated", "revoked", "mastered", "failed", "rejected")  # words whose chip has a colour

GLYPH = """<svg class="glyph" viewBox="0 0 68 68" aria-hidden="true"><g fill="none" stroke="currentColor"
stroke-linecap="round" stroke-linejoin="round"><path stroke-width="7" d="M16 56V38L34 16L50 28"/><path
stroke-width="3.5" d="M44 37L47.5 29M57 36L52 29.5"/><path stroke-width="3" d="M6 61H62"/></g><rect
x="43.5" y="41" width="13" height="13" rx="2.5" fill="var(--lamp)"/><circle cx="34" cy="16" r="2.6"
fill="var(--paper)"/></svg>"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of ``parts``, markup one below the other; nothing in it can load or run anything."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escaped(title)} – embodied repertoire</title>'
        f"<style>{CSS}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def heading(title: str, sentence: str, state: str, share: str, facts: Sequence[tuple[str, str]]) -> str:
    """The top of a page: title, a sentence, a pill with the ``state`` and how much of it, and the facts there are."""
    meta = "".join(f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in facts if v)
    return (
        f"<header>{GLYPH}<div><h1>{escaped(title)}</h1><p class='sentence'>{escaped(sentence)}</p></div>"
        f"<span class='pill {state}'>{state}{share}</span></header>" + (f"<dl class='meta'>{meta}</dl>" if meta else "")
    )


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Large numbers side by side: (number, what it is, a note), the first in colour."""
    return "<div class='tiles'>" + "".join(
        f"<div class='tile{' first' if i == 0 else ''}'><b>{escaped(value)}</b><span>{escaped(name)}</span>"
        f"<small>{escaped(note)}</small></div>"
        for i, (value, name, note) in enumerate(entries)
    ) + "</div>"  # fmt: skip


def section(title: str, lead: str, body: str) -> str:
    """A part of the page with its heading and, where there is one, a sentence that introduces it."""
    words = f"<p class='lead'>{escaped(lead)}</p>" if lead else ""
    return f"<section><h2>{escaped(title)}</h2>{words}{body}</section>"


def nothing_yet(words: str) -> str:
    """What stands where there is no data yet."""
    return f"<p class='empty'>{escaped(words)}</p>"


def folding_table(head: str, rows: Sequence[str], first: int, noun: str, empty: str) -> str:
    """A table that shows the ``first`` rows and unfolds the others, or the sentence ``empty`` without any."""
    if not rows:
        return nothing_yet(empty)
    rest = rows[first:]
    more = ""
    if rest:
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rest)}</tbody></table>"
        more = f"<details class='more'><summary>{len(rest)} more {noun}</summary>{table}</details>"
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows[:first])}</tbody>"
    return f"<div class='scroll'><table>{body}</table>{more}</div>"


def table_head(*names: str) -> str:
    """The cells of a table's head; a name that ends in " >" stands above numbers."""
    kinds = ("<th class='num'>" if name.endswith(" >") else "<th>" for name in names)
    words = (escaped(name.removesuffix(" >")) for name in names)
    return "".join(f"{kind}{word}</th>" for kind, word in zip(kinds, words, strict=True))


def measured_cells(row: Row, gate: float, other: bool = False) -> str:
    """Two cells: the interval bar, and the numbers behind it."""
    n = int(row.get("n") or 0)
    if n == 0:
        return "<td class='faint'>not measured</td><td class='num faint'>–</td>"
    rate, low, high = rate_of(row)
    span = f"{100 * low:.0f} to {100 * high:.0f} · n {n}"
    return (
        f"<td>{interval_bar(rate, low, high, gate, other)}</td>"
        f"<td class='num'>{percent_text(rate)}<small>{span}</small></td>"
    )


def rate_of(row: Row) -> tuple[float, float, float]:
    """Rate and Wilson interval of {"successes", "n"}; (0, 0, 1) without episodes."""
    n, successes = int(row.get("n") or 0), int(row.get("successes") or 0)
    low, high = wilson(successes, n)
    return successes / max(n, 1), float(low), float(high)


def percent_text(rate: float) -> str:
    """0.94 -> "94 %", 0.995 -> "99.5 %": never 100 or 0 for what is only nearly so."""
    if 0 < rate < 0.01 or 0.99 < rate < 1:
        return f"{min(max(100 * rate, 0.1), 99.9):.1f} %"
    return f"{100 * rate:.0f} %"


def chip(word: Any) -> str:
    """A word in a rounded frame, coloured where its meaning is good or bad."""
    text = str(word or "")
    kind = text if text in MARKED else ""
    return f"<span class='chip {kind}'>{escaped(text)}</span>" if text else "<span></span>"


def data_uri(data: bytes | None, kind: str) -> str:
    """A picture as the address of itself, "" without one. ValueError for a media type of something else."""
    if not data:
        return ""
    if kind not in EMBEDDED:
        raise ValueError(f"a picture of kind {kind!r} can't stand in the page; the kinds are: {', '.join(EMBEDDED)}")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def short_hash(digest: Any) -> str:
    """The first 10 characters of a hash; other words stay as they are."""
    text = str(digest or "–")
    return escaped(text[:10] if len(text) >= 32 and " " not in text else text)


def escaped(value: Any) -> str:
    """Any value as text that is safe between tags and in quoted attributes."""
    return escape(str(value), quote=True)


def count_text(value: float) -> str:
    """1234 -> "1,234", 45600 -> "45.6 k", 2512000 -> "2.51 M"."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            scaled = value / (1e3 if letter == " k" else size)
            return f"{scaled:.3g}{letter}" if scaled < 1000 else f"{scaled:.0f}{letter}"
    return f"{value:,.0f}"


def time_text(seconds: float) -> str:
    """Seconds as "142 s", "13 min", "2 h 05"."""
    if seconds < 180:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d}"
