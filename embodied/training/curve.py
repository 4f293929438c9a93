"""A learning curve: what was measured after how many environment steps, kept as JSON lines, CSV and scalars."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from stable_baselines3.common.logger import KVWriter, Logger

from embodied.data.durable import replace_file
from embodied.skills.statistics import wilson
from embodied.training.episodes import Outcome

__all__ = ["Point", "Scalars", "as_table", "write_curve"]


@dataclass(frozen=True)
class Point:
    """A measurement: success of n fresh episodes with Wilson's 95 % interval, mean return and length, the seed drawn
    from, and the seconds of work up to it.
    """

    steps: int
    n: int
    successes: int
    rate: float
    lower: float
    upper: float
    mean_return: float
    mean_length: float
    seed: int
    seconds: float

    @classmethod
    def of(cls, steps: int, outcome: Outcome, seed: int, seconds: float) -> Point:
        """From episodes."""
        n, successes = len(outcome.success), int(outcome.success.sum())
        lower, upper = wilson(successes, n)
        means = float(np.mean(outcome.returns)), float(np.mean(outcome.lengths))
        return cls(steps, n, successes, successes / n, float(lower), float(upper), *means, seed, seconds)


def write_curve(folder: Path, points: Sequence[Point]) -> None:
    """Write ``curve.jsonl`` and ``curve.csv``, whole, in place of older ones."""
    rows = [asdict(point) for point in points]
    replace_file(folder / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(Point)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(folder / "curve.csv", text.getvalue().encode())


def as_table(points: Sequence[Point]) -> Table:
    """The curve as a person reads it."""
    table = Table(box=None, pad_edge=False)
    for name in ("env steps", "success", "95 %", "episodes", "return", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    for p in points:
        interval = f"[{p.lower:.0%}, {p.upper:.0%}]".replace("[", r"\[")  # brackets are markup in a table
        row = (f"{p.steps:,}", f"{p.rate:.0%}", interval, str(p.n), f"{p.mean_return:.1f}", f"{p.mean_length:.0f}")
        table.add_row(*row)
    return table


class Scalars(KVWriter):
    """What a learner logs, held back until the stretch it belongs to is kept, then written for TensorBoard.

    A learner that is killed logs the same stretch again: written at once, each would stand there twice.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, float, int]] = []

    def logger(self) -> Logger:
        """A stable-baselines3 logger that writes here and nowhere else."""
        return Logger(None, [self])

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        for key, value in key_values.items():
            if isinstance(value, int | float | np.number) and "tensorboard" not in (key_excluded.get(key) or ()):
                self._rows.append((key, float(value), step))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Scalars of our own."""
        self._rows += [(key, float(value), step) for key, value in values.items()]

    def publish(self, folder: Path) -> None:
        """Write and forget."""
        from torch.utils.tensorboard.writer import SummaryWriter

        writer = SummaryWriter(str(folder), max_queue=1000)
        for key, value, step in self._rows:
            writer.add_scalar(key, value, step)
        writer.close()
        self._rows = []

    def close(self) -> None:
        """Nothing stays open between two publications."""
