"""robomimic: one HDF5 file, ``data/demo_i`` a group an episode.

A group has obs/KEY and next_obs/KEY [T, …], actions [T, A], rewards and dones [T], states [T, D] and the attribute
num_samples; ``data`` has the attributes total and env_args; ``mask/train`` and ``mask/valid`` name a split's demos.
Our observations are the key ``flat``, as in robomimic's gym environments. robomimic knows one reward (the sum of ours)
and a state a step; states kept less often, terminations, truncations and reward terms lie in the group ``embodied``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from embodied.core import Episode
from embodied.data.dataset import KEY, Dataset, DatasetError, episode_of, noted, reading, record, staged, told
from embodied.data.formats.hdf5 import array, flat, store_simulation, stored_simulation

LAYOUT = "a robomimic file has data/demo_0, demo_1 … with obs, actions, rewards and dones"
OBS = "flat"
GYM = 2  # robomimic's number for environments of gym
NO_NEXT = "there is no next_obs: the last action of each episode is left out"


def read(path: Path) -> Dataset:
    """The robomimic data set in a file."""
    with reading(path, LAYOUT), h5py.File(path, "r") as file:
        if "data" not in file:
            raise KeyError("data")
        data: Any = file["data"]
        found = sorted((name for name in data if name.startswith("demo_")), key=lambda name: int(name[5:]))
        about = told(data.attrs.get(KEY))
        made = json.loads(data.attrs.get("env_args", "{}"))
        mask: Any = file.get("mask", {})
        valid = {name.decode() for name in mask["valid"][()]} if "valid" in mask else set()
        columns, left = flat(_obs(data[found[0]]))[1:] if found else ((), ())
        bare = bool(found) and "next_obs" not in data[found[0]]
    known = {"env": made.get("env_name", ""), "kwargs": made.get("env_kwargs", {}), "columns": columns}
    known["valid"] = tuple(i for i, name in enumerate(found) if name in valid)

    def load() -> Iterator[Episode]:
        with reading(path, LAYOUT), h5py.File(path, "r") as file:
            for name in found:
                yield _episode(file[f"data/{name}"], str(known["env"]))  # type: ignore[arg-type]

    dataset = Dataset(f"robomimic:{path}", len(found), load, **(about or known))
    if about:
        return dataset
    pictures = f"texts and pictures are left out: {', '.join(left)}" if left else ""
    return noted(
        dataset,
        pictures,
        NO_NEXT if bare else "",
        "no seed, no physics version and no control rate (20 Hz is taken) are told",
    )


def _obs(group: h5py.Group, name: str = "obs") -> Any:
    if name not in group:
        raise KeyError(f"{group.name}/{name}".lstrip("/"))
    return group[name]


def _episode(group: h5py.Group, env: str) -> Episode:
    before = flat(_obs(group))[0]
    actions, rewards, dones = (array(group, name) for name in ("actions", "rewards", "dones"))
    if "next_obs" in group:
        after = flat(group["next_obs"])[0]
        if after.shape != before.shape or not np.array_equal(after[:-1], before[1:]):
            raise DatasetError(f"the next_obs of {group.name} are not its obs one step on")
        observations = np.concatenate([before, after[-1:]])
    else:
        observations, actions, rewards, dones = before, actions[:-1], rewards[:-1], dones[:-1]
    if KEY in group:
        ours: Any = group[KEY]
        states, state_steps, rewards = stored_simulation(ours, rewards)
        ends = array(ours, "terminations"), array(ours, "truncations")
        return episode_of(observations, actions, rewards, *ends, group.attrs[KEY], states, state_steps)  # type: ignore[arg-type]
    states = array(group, "states") if "states" in group else np.zeros((0, 0))
    states = states if states.ndim == 2 and len(states) >= len(actions) else np.zeros((0, 0))
    state_steps = np.arange(len(states)) if len(states) else None
    ends = dones.astype(np.bool_), np.zeros(len(dones), np.bool_)
    kept = states if len(states) else None
    return episode_of(observations, actions, rewards, *ends, None, kept, state_steps, env=env)


def write(dataset: Dataset, path: Path, episodes: Iterable[Episode] | None = None, validation: float = 0.1) -> None:
    """The data set, or the episodes given in its stead, as a new robomimic file."""
    count = total = 0
    with staged(path) as place, h5py.File(place, "w", track_order=True) as file:
        data = file.create_group("data", track_order=True)
        for episode in dataset.load() if episodes is None else episodes:
            group = data.create_group(f"demo_{count}")
            group.attrs.update({"num_samples": len(episode), KEY: record(episode)})
            group.create_dataset(f"obs/{OBS}", data=episode.observations[:-1])
            group.create_dataset(f"next_obs/{OBS}", data=episode.observations[1:])
            group.create_dataset("actions", data=episode.actions)
            group.create_dataset("rewards", data=episode.rewards.sum(axis=1))
            group.create_dataset("dones", data=(episode.terminations | episode.truncations).astype(np.int64))
            every = np.array_equal(episode.state_steps[: len(episode)], np.arange(len(episode)))
            group.create_dataset(
                "states", data=episode.states[: len(episode)] if every else np.zeros((len(episode), 0))
            )
            ours = group.create_group(KEY)
            store_simulation(ours, episode)
            for name in ("terminations", "truncations"):
                ours.create_dataset(name, data=getattr(episode, name))
            count, total = count + 1, total + len(episode)
        made = {"env_name": dataset.env, "type": GYM, "env_type": GYM, "env_kwargs": dict(dataset.kwargs)}
        data.attrs.update({"total": total, "env_args": json.dumps(made), KEY: json.dumps(dataset.about())})
        valid = set(dataset.validation(validation))
        for name, chosen in (("train", set(range(count)) - valid), ("valid", valid)):
            if chosen:
                file[f"mask/{name}"] = np.array([f"demo_{i}" for i in sorted(chosen)], "S")
