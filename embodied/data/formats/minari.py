"""Minari: ``data/main_data.hdf5`` with a group an episode, and ``data/metadata.json``, as the library reads them.

A group ``episode_i`` has observations [T+1, …], actions [T, …], rewards, terminations and truncations [T], ``infos``,
and the attributes id, seed and total_steps. Minari knows one reward: the sum of ours. Our states, their steps and the
reward terms lie in ``infos``, what is not an array in the attribute ``embodied`` of the group and of metadata.json.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embodied.core import Episode
from embodied.data.dataset import KEY, Dataset, DatasetError, episode_of, noted, reading, record, staged, told
from embodied.data.formats.hdf5 import array, flat, store_simulation, stored_simulation

LAYOUT = "a Minari data set has data/metadata.json and data/main_data.hdf5 with groups episode_0, episode_1 …"
VERSION = "0.5.0"  # of Minari, whose layout this is; later ones read it
_ID = re.compile(r"[-_/\w]+-v\d+")


def read(path: Path) -> Dataset:
    """The Minari data set in a directory."""
    folder = path / "data" if (path / "data" / "metadata.json").is_file() else path
    file = folder / "main_data.hdf5"
    with reading(path, LAYOUT):
        metadata = json.loads((folder / "metadata.json").read_bytes())
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise DatasetError(f"its data is kept as {metadata['data_format']}; only Minari's hdf5 is read here")
        about = told(metadata.get(KEY))
        spec = json.loads(metadata.get("env_spec") or "{}")
        with h5py.File(file, "r") as data:
            found = sorted((str(name) for name in data if str(name).startswith("episode_")), key=_number)
            expected = int(metadata.get("total_episodes", len(found)))
            if len(found) != expected:
                raise DatasetError(f"metadata.json says {expected} episodes, but main_data.hdf5 holds {len(found)}")
            columns, left = flat(data[f"{found[0]}/observations"])[1:] if found else ((), ())
    known = {
        "env": spec.get("id", ""),
        "kwargs": spec.get("kwargs", {}),
        "columns": columns if columns != ("",) else (),
    }

    def load() -> Iterator[Episode]:
        with reading(path, LAYOUT), h5py.File(file, "r") as data:
            for name in found:
                yield _episode(data[name], str(known["env"]))  # type: ignore[arg-type]

    dataset = Dataset(f"minari:{path}", len(found), load, **(about or known))
    return (
        dataset
        if about
        else noted(
            dataset,
            _left(left),
            "no simulator states, no physics version and no control rate (20 Hz is taken) are told",
        )
    )


def _number(name: str) -> int:
    """An episode's number from its group's name."""
    return int(name.removeprefix("episode_"))


def _left(names: Iterable[str]) -> str:
    """A note on observations that were left out."""
    listed = ", ".join(names)
    return f"texts and pictures are left out: {listed}" if listed else ""


def _episode(group: h5py.Group, env: str) -> Episode:
    text: Any = group.attrs.get(KEY)
    steps = (array(group, name) for name in ("rewards", "terminations", "truncations"))
    rewards, terminations, truncations = steps
    for name in ("observations", "actions"):
        if name not in group:
            raise KeyError(f"{group.name}/{name}".lstrip("/"))
    numbers = flat(group["observations"])[0], flat(group["actions"])[0]
    if text is None:
        seed = group.attrs.get("seed", -1)
        return episode_of(*numbers, rewards, terminations, truncations, env=env, seed=int(seed))  # type: ignore[arg-type]
    states, state_steps, rewards = stored_simulation(group["infos"], rewards)  # type: ignore[arg-type]
    return episode_of(*numbers, rewards, terminations, truncations, text, states, state_steps)


def write(dataset: Dataset, path: Path, episodes: Iterable[Episode] | None = None) -> None:
    """The data set, or the episodes given in its stead, as a Minari data set in a new directory."""
    count = steps = 0
    widths = (0, 0)
    inside = True
    with staged(path) as place:
        folder = place / "data"
        folder.mkdir(parents=True)
        with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as data:
            for episode in dataset.load() if episodes is None else episodes:
                group = data.create_group(f"episode_{count}")
                group.attrs.update({"id": count, "total_steps": len(episode), KEY: record(episode)})
                if episode.seed >= 0:
                    group.attrs["seed"] = episode.seed
                for name in ("observations", "actions", "terminations", "truncations"):
                    group.create_dataset(name, data=getattr(episode, name))
                group.create_dataset("rewards", data=episode.rewards.sum(axis=1))
                store_simulation(group.create_group("infos"), episode)
                widths = episode.observations.shape[1], episode.actions.shape[1]
                inside &= bool((np.abs(episode.actions) <= 1).all())
                count, steps = count + 1, steps + len(episode)
        size = (folder / "main_data.hdf5").stat().st_size / 1e6
        metadata = {
            "total_episodes": count, "total_steps": steps, "data_format": "hdf5",
            "observation_space": _box(widths[0], np.inf), "action_space": _box(widths[1], 1.0 if inside else np.inf),
            "dataset_id": _id(path), "minari_version": VERSION,
            "dataset_size": round(size, 1), "algorithm_name": dataset.first().source, KEY: dataset.about(),
        }  # fmt: skip
        spec = _env_spec(dataset)
        metadata |= {"env_spec": spec} if spec else {}
        (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")


def _id(path: Path) -> str:
    """The data set's id: its place below Minari's own folder of data sets, else its folder's name with a version."""
    path = path.resolve()
    root = Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets")).resolve()
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return name if _ID.fullmatch(name) else (re.sub(r"[^-_/\w]+", "-", name).strip("-/") or "dataset") + "-v0"


def _box(width: int, bound: float) -> str:
    """gymnasium's Box of float32[width], as Minari writes it."""
    low, high = [-bound] * width, [bound] * width
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [width], "low": low, "high": high})


def _env_spec(dataset: Dataset) -> str:
    """gymnasium's specification of the environment as JSON; "" where gymnasium does not know it."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    import envs  # noqa: F401 - registers our own

    known = gymnasium.registry.get(dataset.env)
    if known is None:
        return ""
    entry = known.entry_point if isinstance(known.entry_point, str) else None
    return EnvSpec(dataset.env, entry_point=entry, kwargs=dict(dataset.kwargs)).to_json()
