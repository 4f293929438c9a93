"""Data sets of other libraries, a file a format: each module has ``LAYOUT``, ``read(path)``, ``write(dataset, path)``.

A place is written ``FORMAT:PATH``; where only a path is given, what lies there tells the format.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from embodied.data.dataset import Dataset, DatasetError, checked

FORMATS = {
    "store": "our episode store, a directory (or a run's directory)",
    "minari": "a Minari data set's directory: data/main_data.hdf5 and data/metadata.json",
    "lerobot": "a LeRobot v3 data set's directory: meta/, data/ and videos/",
    "robomimic": "a robomimic HDF5 file",
    "ogbench": "an OGBench .npz file, and its …-val.npz beside it",
}


def place(text: str) -> tuple[str, Path]:
    """Format and path of ``FORMAT:PATH``. DatasetError naming the formats there are."""
    name, colon, path = text.partition(":")
    if not colon or not path:
        raise DatasetError(f"'{text}' is not FORMAT:PATH; the formats are {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise DatasetError(f"unknown format '{name}' in '{text}'; the formats are {', '.join(FORMATS)}")
    return name, Path(path).expanduser()


def found(text: str) -> tuple[str, Path]:
    """Format and path of ``FORMAT:PATH``, or of a plain path by what lies there."""
    if text.partition(":")[0] in FORMATS:
        return place(text)
    path = Path(text).expanduser()
    if not path.exists():
        if ":" in text:
            place(text)
        raise DatasetError(f"there is nothing at {path}")
    if any((folder / "index.jsonl").is_file() for folder in (path, path / "episodes")):
        return "store", path
    if any((folder / "main_data.hdf5").is_file() for folder in (path, path / "data")):
        return "minari", path
    if (path / "meta" / "info.json").is_file():
        return "lerobot", path
    if path.suffix == ".npz":
        return "ogbench", path
    if path.suffix in (".hdf5", ".h5"):
        return "robomimic", path
    raise DatasetError(f"what lies at {path} is of no format known here ({', '.join(FORMATS)}); write FORMAT:PATH")


def read(text: str) -> Dataset:
    """The data set at a place. DatasetError or StoreError where it cannot be read."""
    name, path = found(text)
    if not path.exists():
        raise DatasetError(f"there is nothing at {path}; '{name}' reads {FORMATS[name]}")
    return module(name).read(path)


def write(
    dataset: Dataset, text: str, *, allow_mixed_physics: bool = False, validation: float = 0.1, pictures: Any = None
) -> None:
    """Writes a data set, every episode of it looked through, to a new place: whole, or not at all.

    ``validation`` is the share of episodes for it, where the format names them and the data set does not; ``pictures``
    gives an episode's T pictures uint8[h, w, 3], for ``lerobot`` alone. DatasetError where something is wrong.
    """
    name, path = place(text)
    more: dict[str, Any] = {"validation": validation} if name in ("robomimic", "ogbench") else {}
    if pictures is not None:
        if name != "lerobot":
            raise DatasetError(f"pictures become videos for lerobot alone, not for {name}")
        more["pictures"] = pictures
    module(name).write(dataset, path, checked(dataset, allow_mixed_physics), **more)


def module(name: str) -> ModuleType:
    """A format's reader and writer. DatasetError where a library that it needs is not installed."""
    try:
        return importlib.import_module(f"embodied.data.formats.{name}")
    except ModuleNotFoundError as error:
        raise DatasetError(f"the format '{name}' needs {error.name}: pip install {error.name}") from error
