"""What a data set is and holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from embodied.data.columns import WIDE, StoreError
from embodied.data.dataset import Dataset, DatasetError, checked, physics

__all__ = ["inspect", "statistics"]


def inspect(dataset: Dataset) -> dict[str, Any]:
    """Environment, versions, sizes, columns, sources, notes and problems of a data set, ready for JSON.

    Every episode is read; what stops that is a problem, and the sizes are of what could be read.
    """
    problems: list[str] = []
    sources: Counter[str] = Counter()
    made_with: Counter[str] = Counter()
    goals: set[str] = set()
    seeds: set[int] = set()
    widths: dict[str, int] = {}
    versions: dict[str, str] = {}
    episodes = steps = states = successes = 0
    try:
        for episode in checked(dataset, allow_mixed_physics=True):
            episodes, steps, states = episodes + 1, steps + len(episode), states + len(episode.states)
            successes += bool(episode.success)
            sources[episode.source] += 1
            made_with[physics(episode)] += 1
            seeds.add(episode.seed)
            goals |= {episode.goal} - {""}
            widths = widths or {name: getattr(episode, name).shape[1] for name in WIDE}
            versions = versions or dict(episode.versions)
    except (DatasetError, StoreError) as error:
        problems.append(str(error))
    if len(made_with) > 1:
        listed = ", ".join(f"{count} episodes with mujoco {name}" for name, count in made_with.items())
        problems.append(f"it mixes physics: {listed}")
    return {
        "data set": dataset.source, "environment": dataset.env, "arguments": dict(dataset.kwargs),
        "versions": versions, "physics": dict(made_with), "episodes": episodes, "steps": steps, "states": states,
        "steps a second": dataset.fps, "widths": widths, "columns": list(dataset.columns), "sources": dict(sources),
        "seeds": len(seeds - {-1}), "goals": len(goals), "successes": successes, "for validation": len(dataset.valid),
        "notes": list(dataset.notes), "problems": problems,
    }  # fmt: skip


def statistics(dataset: Dataset) -> dict[str, Any]:
    """Lengths of the episodes, and mean, std, min and max float64 of every column over all rows, ready for JSON."""
    sums: dict[str, list[np.ndarray]] = {}
    lengths = []
    for episode in checked(dataset, allow_mixed_physics=True):
        lengths.append(len(episode))
        for name in ("observations", "actions", "rewards"):
            block = getattr(episode, name).astype(np.float64)
            n, mean = len(block), block.mean(axis=0)
            new = [np.array(n), mean, ((block - mean) ** 2).sum(axis=0), block.min(axis=0), block.max(axis=0)]
            sums[name] = _merged(sums[name], new) if name in sums else new
    columns = {}
    for name, (n, mean, squares, low, high) in sums.items():
        labels = list(dataset.columns) if name == "observations" and dataset.columns else []
        for i in range(len(mean)):
            label = labels[i] if labels else f"{name}[{i}]"
            found = {"mean": mean[i], "std": np.sqrt(squares[i] / n), "min": low[i], "max": high[i]}
            columns[label] = {key: float(value) for key, value in found.items()}
    of = np.array(lengths)
    length = {"mean": float(of.mean()), "std": float(of.std()), "min": int(of.min()), "max": int(of.max())}
    return {
        "data set": dataset.source,
        "episodes": len(of),
        "steps": int(of.sum()),
        "length": length,
        "columns": columns,
    }


def _merged(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """Count, mean, sum of squared deviations, minimum and maximum of two sets of rows together."""
    n = a[0] + b[0]
    gap = b[1] - a[1]
    squares = a[2] + b[2] + gap**2 * (a[0] * b[0] / n)
    return [n, a[1] + gap * (b[0] / n), squares, np.minimum(a[3], b[3]), np.maximum(a[4], b[4])]
