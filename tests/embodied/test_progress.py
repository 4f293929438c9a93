"""Progress: what it says, how often, and that its numbers are right."""

from __future__ import annotations

import io

from rich.console import Console

from embodied.progress import Progress, duration


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_fifteen_seconds_and_one_at_each_change():
    clock, out = Clock(), io.StringIO()
    with Progress(10_000, console=Console(file=out, width=200), clock=clock) as progress:
        progress.stage("play")
        for _ in range(60):
            clock.now += 1.0
            progress.advance(100)
        progress.stage("practising open(drawer)")
        progress.stage("practising open(drawer)")
        progress.note("admitted open(drawer)")
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + 4 + 1 + 1
    assert lines[-1] == "admitted open(drawer)"
    assert lines[-2] == (
        "practising open(drawer) ·  60% of 10,000 env steps · 100/s · 1 min 00 s so far · about 40 s to go"
    )


def test_the_rate_is_recent_and_a_resumed_run_counts_only_its_own_steps():
    clock = Clock()
    progress = Progress(10_000, start=4_000, console=Console(file=io.StringIO()), clock=clock)
    for step in range(200):
        clock.now += 1.0
        progress.advance(20 if step >= 100 else 10)
    assert progress.done == 7_000
    assert progress.rate() == 20
    assert progress.remaining() == 3_000 * 200 / 3_000


def test_without_a_budget_or_a_step_nothing_is_promised():
    progress = Progress(0, console=Console(file=io.StringIO()), clock=Clock())
    assert progress.remaining() is None
    assert progress.line() == "0 env steps · 0/s · 0 s so far"


def test_on_a_terminal_one_line_moves_and_notes_stay():
    out = io.StringIO()
    with Progress(100, console=Console(file=out, force_terminal=True, width=120)) as progress:
        progress.stage("play")
        progress.note("kept [0.9, 1.0]")
        progress.advance(50)
    assert "kept [0.9, 1.0]" in out.getvalue()
    assert "50% of 100 env steps" in out.getvalue()


def test_durations_read_like_a_person_says_them():
    assert [duration(s) for s in (0.4, 59.4, 61, 3_900)] == ["0 s", "59 s", "1 min 01 s", "1 h 05 min"]
