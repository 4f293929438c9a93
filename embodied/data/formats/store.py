"""Our own format: an ``EpisodeStore``, and ``dataset.json`` beside it, which says what its episodes are of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from embodied.core import Episode
from embodied.data.dataset import CONTROL_HZ, Dataset, DatasetError, staged, told
from embodied.data.durable import replace_file
from embodied.data.store import EpisodeStore

LAYOUT = "an episode store has layout.json, index.jsonl and one .bin file a column"
ABOUT = "dataset.json"
PICTURES = "pictures.bin"  # beside a store of play that was recorded with them: `embodied.data.pictures`
BATCH = 64  # episodes stored together


def read(path: Path) -> Dataset:
    """The data set in a store's directory, or a run's. StoreError or DatasetError where it is damaged."""
    path = path / "episodes" if (path / "episodes" / "index.jsonl").is_file() else path
    with EpisodeStore.open(path, readonly=True, verify=False) as store:
        count, columns = len(store), store.columns
        told_apart = (path / ABOUT).is_file()
        env = store.get(0).env if count and not told_apart else ""

    def load() -> Iterator[Episode]:
        with EpisodeStore.open(path, readonly=True, verify=False) as store:
            for number in range(count):
                yield store.get(number)

    about: dict[str, Any] = {"env": env, "columns": columns, "fps": CONTROL_HZ}
    if told_apart:
        try:
            said = json.loads((path / ABOUT).read_bytes())
            about |= told(said["about"])
            expected = int(said["episodes"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path / ABOUT} is damaged ({error}); delete it to read the episodes alone") from error
        if count < expected:
            raise DatasetError(f"{path} holds {count} of the {expected} episodes written; restore its index.jsonl")
    if (path / PICTURES).is_file():
        about["notes"] = (f"its pictures ({PICTURES}) are learnt from where they lie, and go into no other format",)
    return Dataset(f"store:{path}", count, load, **about)


def write(dataset: Dataset, path: Path, episodes: Iterable[Episode] | None = None) -> None:
    """A new store with the data set's episodes, or with those given, whole or not at all."""
    with staged(path) as place:
        with EpisodeStore.open(place, columns=dataset.columns) as store:
            batch: list[Episode] = []
            for episode in dataset.load() if episodes is None else episodes:
                batch.append(episode)
                if len(batch) == BATCH:
                    store.extend(batch)
                    batch.clear()
            store.extend(batch)
            store.commit()
            said = {"about": dataset.about(), "episodes": len(store)}
        replace_file(place / ABOUT, json.dumps(said, indent=1).encode())
