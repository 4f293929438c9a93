"""What is happening, how fast, and for how long still: a live line on a terminal, plain lines elsewhere.

The rate is that of the last minute; the remaining time comes from the mean since the start, which also
counts the time spent learning and judging between the steps. Nothing here is ever part of a result.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

WINDOW = 60.0  # seconds that the shown rate looks back
BAR = 30  # characters


class Progress:
    """Progress through a budget of environment steps; use it as a context manager.

    ``total`` may be 0 (no budget known: no bar and no remaining time). ``start`` is where a resumed run
    already stands. On a terminal the line is redrawn at most ten times a second; elsewhere a line is
    printed every ``every`` seconds, and at once when what is happening changes.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        unit: str = "env steps",
        console: Console | None = None,
        every: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit, self.every, self.clock = total, unit, every, clock
        self.console = console or Console()
        self.done = self._first = start
        self.doing = ""
        self._began = self._printed = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._began, start)])
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, doing: str) -> None:
        """Say what is happening now, e.g. "round 7: practising on(red, blue)"."""
        changed, self.doing = doing != self.doing, doing
        if changed and self._live is None:
            self._print()

    def advance(self, steps: int) -> None:
        """Count steps that were just taken."""
        self.at(self.done + steps)

    def at(self, done: int) -> None:
        """Set the number of steps taken so far."""
        now = self.clock()
        self.done = done
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        if self._live is None and now - self._printed >= self.every:
            self._print()

    def tick(self) -> None:
        """Call now and then during work without steps (learning, judging): a log does not fall silent."""
        self.at(self.done)

    def note(self, line: str) -> None:
        """A line that stays, above the moving one."""
        self.console.print(Text(line), soft_wrap=True)

    def rate(self) -> float:
        """Steps a second over the last minute."""
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def remaining(self) -> float | None:
        """Seconds still to go at the mean rate so far; None while that cannot be said."""
        elapsed, taken = self.clock() - self._began, self.done - self._first
        if self.total <= 0 or taken <= 0:
            return None
        return max(0, self.total - self.done) * elapsed / taken

    def line(self) -> str:
        """The progress as one plain line."""
        parts = [self.doing] if self.doing else []
        if self.total > 0:
            share = min(1.0, self.done / self.total)
            parts.append(f"{share:4.0%} of {self.total:,} {self.unit}")
        else:
            parts.append(f"{self.done:,} {self.unit}")
        parts.append(f"{self.rate():,.0f}/s")
        left = self.remaining()
        parts.append(f"{duration(self.clock() - self._began)} so far")
        if left is not None:
            parts.append(f"about {duration(left)} to go")
        return " · ".join(parts)

    def _render(self) -> Text:
        if self.total <= 0:
            return Text(self.line(), no_wrap=True, overflow="ellipsis")
        full = int(BAR * min(1.0, self.done / self.total))
        bar = Text("━" * full, style="green") + Text("━" * (BAR - full), style="dim")
        return Text.assemble(bar, " ", self.line(), no_wrap=True, overflow="ellipsis")

    def _print(self) -> None:
        self._printed = self.clock()
        self.console.print(Text(self.line()), soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person would say them: "42 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
