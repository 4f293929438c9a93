"""What is claimed, and how it is measured: on fresh episodes, beside baselines, with intervals and versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from embodied.cli.schema import EvalConfig
    from embodied.evaluation.fresh import Evaluation as Evaluation

__all__ = ["Evaluation", "evaluate"]


def evaluate(run_dir: Path, config: EvalConfig, console: Console, baselines: bool = True) -> Evaluation:
    """Measures a run's goals, or the held-out instructions, on fresh episodes; prints a table and keeps the episodes.

    ``baselines`` adds the rows to read the result beside: play policy, random and oracle.
    """
    from embodied.evaluation import fresh

    measured = fresh.instructions if config.what == "instructions" else fresh.skills
    return measured(run_dir, config, console, baselines)
