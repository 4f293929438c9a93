"""OGBench: ``NAME.npz`` and ``NAME-val.npz`` with observations, actions and terminals, episodes end to end.

A terminal of 1 marks an episode's *last row*, which has an observation but whose action means nothing: an episode of T
steps takes T+1 rows, and next_observations are the observations one row on, never across a terminal. There are no
rewards. qpos, qvel and button_states, where they are, are the simulator's state at every row. What OGBench has no key
for lies in further keys, which its reader passes over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core import Episode
from embodied.data.dataset import KEY, Dataset, DatasetError, episode_of, noted, reading, record, staged, told

LAYOUT = "an OGBench file has observations, actions and terminals of equal length"
PARTS = ("qpos", "qvel", "button_states")


def beside(path: Path) -> Path:
    """The file of the validation episodes."""
    return path.with_name(path.name.removesuffix(".npz") + "-val.npz")


def read(path: Path) -> Dataset:
    """The OGBench data set in a file, its validation episodes last (or in the order they had here)."""
    files = [_load(path), *([_load(beside(path))] if beside(path).is_file() else [])]
    with reading(path, LAYOUT):
        about = told(files[0][KEY].tobytes() if KEY in files[0] else None)
        ends = [_ends(file) for file in files]
        counts = [len(found) for found in ends]
        order = [(file, i) for file, count in enumerate(counts) for i in range(count)]
        if about:
            numbers = np.concatenate([file["numbers"] for file in files])
            order = [order[i] for i in np.argsort(numbers)]
    parts = {name: (files[0][name].shape[1], str(files[0][name].dtype)) for name in PARTS if name in files[0]}
    env = _env_of(path)
    known = {"env": env, "parts": parts, "valid": tuple(range(counts[0], sum(counts)))}

    def load() -> Iterator[Episode]:
        with reading(path, LAYOUT):
            for file, i in order:
                yield _episode(files[file], ends[file], i, env, bool(about))

    dataset = Dataset(f"ogbench:{path}", len(order), load, **(about or known))
    return (
        dataset
        if about
        else noted(dataset, "no rewards, no seeds, no physics version and no control rate (20 Hz is taken) are told")
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    with reading(path, LAYOUT), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
        for name in ("observations", "actions", "terminals"):
            if name not in arrays:
                raise KeyError(name)
        lengths = {
            name: len(arrays[name]) for name in ("observations", "actions", "terminals", *PARTS) if name in arrays
        }
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{n} of {name}" for name, n in lengths.items())
            raise DatasetError(f"its arrays have different lengths: {listed}")
        return arrays


def _ends(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """int64[episodes]: the row after each episode's last."""
    terminals = arrays["terminals"] > 0
    if len(terminals) and not terminals[-1]:
        raise DatasetError("its last row is no terminal: the end of the last episode is missing")
    ends = np.flatnonzero(terminals) + 1
    if len(ends) and np.diff(ends, prepend=0).min() < 2:
        raise DatasetError("it has an episode of a single row, which has no step")
    return ends


def _episode(arrays: dict[str, np.ndarray], ends: np.ndarray, i: int, env: str, ours: bool) -> Episode:
    begin, end = int(ends[i - 1]) if i else 0, int(ends[i])
    observations, actions = arrays["observations"][begin:end], arrays["actions"][begin : end - 1]
    none = np.zeros(len(actions), np.bool_)
    if not ours:
        last = none.copy()
        last[-1] = True
        parts = [np.asarray(arrays[name][begin:end], np.float64) for name in PARTS if name in arrays]
        states = np.concatenate(parts, axis=1) if parts else None
        steps = np.arange(end - begin) if parts else None
        return episode_of(observations, actions, np.zeros((len(actions), 0)), none, last, None, states, steps, env=env)
    kept = arrays["state_counts"]
    a, b = int(kept[:i].sum()), int(kept[: i + 1].sum())
    rewards, terminations, truncations = (
        arrays[name][begin : end - 1] for name in ("reward_terms", "terminations", "truncations")
    )
    text = json.loads(arrays["records"].tobytes())[i]
    states = arrays["states"][a:b], arrays["state_steps"][a:b]
    return episode_of(observations, actions, rewards, terminations, truncations, text, *states)


def _env_of(path: Path) -> str:
    """The environment's id from a file's name: ``cube-single-play-v0`` was collected in ``cube-single-v0``."""
    words = path.name.removesuffix(".npz").split("-")
    return "-".join([*words[:-2], words[-1]]) if len(words) > 2 else path.name.removesuffix(".npz")


def write(dataset: Dataset, path: Path, episodes: Iterable[Episode] | None = None, validation: float = 0.1) -> None:
    """The data set, or the episodes given in its stead, as two new OGBench files, or one where one episode is all."""
    if path.suffix != ".npz":
        raise DatasetError(f"{path} must end in .npz for OGBench's sake")
    every = list(dataset.load() if episodes is None else episodes)
    valid = set(dataset.validation(validation))
    about = json.dumps(dataset.about()).encode()
    train = [i for i in range(len(every)) if i not in valid]
    with staged(beside(path)) as second, staged(path) as first:
        for place, numbers in ((second, sorted(valid)), (first, train)):
            arrays = _arrays([every[i] for i in numbers], dataset) if numbers else {}
            arrays |= {"numbers": np.array(numbers, np.int64), KEY: np.frombuffer(about, np.uint8)}
            with place.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    if not valid:
        beside(path).unlink()


def _arrays(episodes: Sequence[Episode], dataset: Dataset) -> dict[str, np.ndarray]:
    """The keys of a file."""

    def padded(name: str) -> np.ndarray:
        """A column with a row of zeros after each episode."""
        blocks: list[Any] = []
        for episode in episodes:
            block = getattr(episode, name)
            blocks += [block, np.zeros((1, *block.shape[1:]), block.dtype)]
        return np.concatenate(blocks)

    ends = np.cumsum([len(episode) + 1 for episode in episodes])
    terminals = np.zeros(ends[-1], np.float32)
    terminals[ends - 1] = 1.0
    found = {
        "observations": np.concatenate([episode.observations for episode in episodes]),
        "actions": padded("actions"),
        "terminals": terminals,
        "reward_terms": padded("rewards"),
        "terminations": padded("terminations"),
        "truncations": padded("truncations"),
        "states": np.concatenate([episode.states for episode in episodes]),
        "state_steps": np.concatenate([episode.state_steps for episode in episodes]),
        "state_counts": np.array([len(episode.states) for episode in episodes], np.int64),
        "records": np.frombuffer(json.dumps([record(episode) for episode in episodes]).encode(), np.uint8),
    }
    complete = all(np.array_equal(e.state_steps, np.arange(len(e) + 1)) for e in episodes)
    if dataset.parts and complete:
        at = 0
        for name, (width, dtype) in dataset.parts.items():
            found[name] = found["states"][:, at : at + width].astype(dtype)
            at += width
    return found
