"""A data set, wherever it lies: its episodes one after the other, and what is said of them all.

Formats (``embodied.data.formats``) read into a `Dataset` and write one. What a format has no place for (environment,
seeds, versions, goal, column names …) goes with it as JSON: `about` once, `record` for each episode. So an episode that
goes from one format to another and back is the same to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from embodied.core import Episode, EpisodeError, canonical_json
from embodied.data.columns import WIDE, StoreError, bounds_of, check_finite

FORMAT = 1
KEY = "embodied"  # under which our JSON lies in the metadata of a format
UNKNOWN = -1  # the seed of an episode whose data set does not tell it
CONTROL_HZ = 20.0  # of our own worlds, and taken for those whose data set does not tell theirs
_FIELDS = ("success", "goal", "instruction", "source", "policy", "env", "seed", "versions")


class DatasetError(ValueError):
    """A data set cannot be read, written or mixed; the sentence says where, what is wrong, what would be right."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes of one environment. `load` gives them in order, anew at each call; `count` of them.

    env and kwargs make the environment (`envs.registry.make_vector`); columns name the observation columns (or none);
    fps control steps a second. parts: what a simulator state consists of, name -> (width, dtype), where it is known.
    valid: numbers of the episodes kept for validation. notes: what the format could not tell or does not hold.
    """

    source: str
    count: int
    load: Callable[[], Iterator[Episode]]
    env: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    fps: float = CONTROL_HZ
    parts: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    valid: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DatasetError(f"{self.source} holds no episode; there is nothing to read")

    def first(self) -> Episode:
        """The first episode."""
        return next(self.load())

    def about(self) -> dict[str, Any]:
        """What is said of all episodes, ready for JSON; `told` reads it."""
        return {
            "format": FORMAT, "env": self.env, "kwargs": dict(self.kwargs), "columns": list(self.columns),
            "fps": self.fps, "parts": {name: list(part) for name, part in self.parts.items()},
            "valid": list(self.valid), "versions": dict(sorted(self.first().versions.items())),
        }  # fmt: skip

    def validation(self, share: float) -> tuple[int, ...]:
        """Numbers of the episodes for validation: those the data set names, else the last ``share`` (one at least)."""
        if self.valid or self.count < 2 or share <= 0:
            return self.valid
        return tuple(range(self.count - min(self.count - 1, max(1, round(share * self.count))), self.count))


def told(text: str | bytes | Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of `Dataset` that `Dataset.about` told, from its JSON; none from nothing."""
    found = json.loads(text) if isinstance(text, str | bytes) else text
    if not found:
        return {}
    if found["format"] != FORMAT:
        raise DatasetError(f"its description is of format {found['format']}; this version reads format {FORMAT}")
    return {
        "env": str(found["env"]), "kwargs": dict(found["kwargs"]), "columns": tuple(found["columns"]),
        "fps": float(found["fps"]), "parts": {name: (int(w), str(d)) for name, (w, d) in found["parts"].items()},
        "valid": tuple(found["valid"]),
    }  # fmt: skip


def record(episode: Episode) -> str:
    """All of an episode that is not an array, as JSON; `episode_of` reads it."""
    values = {name: getattr(episode, name) for name in _FIELDS}
    return canonical_json(values | {"success": bool(episode.success), "seed": int(episode.seed),
                                    "versions": dict(episode.versions)})  # fmt: skip


def episode_of(
    observations: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    terminations: np.ndarray,
    truncations: np.ndarray,
    text: str | bytes | None = None,
    states: np.ndarray | None = None,
    state_steps: np.ndarray | None = None,
    **known: Any,
) -> Episode:
    """An episode from a format's arrays, of any number type, one row a moment; EpisodeError where they do not fit.

    ``text`` is its `record`; an episode without one came from elsewhere: its source is ``external``, and ``known`` says
    what its format tells of it. Without states it has one that is empty.
    """
    fields = {"success": False, "goal": "", "instruction": "", "source": "external", "policy": "", "env": "",
              "seed": UNKNOWN, "versions": {}}  # fmt: skip
    fields |= json.loads(text) if text else known
    return Episode(
        observations=rows(observations), actions=rows(actions), rewards=rows(rewards),
        terminations=np.asarray(terminations).reshape(-1).astype(np.bool_),
        truncations=np.asarray(truncations).reshape(-1).astype(np.bool_),
        states=np.zeros((1, 0)) if states is None else np.ascontiguousarray(states, np.float64),
        state_steps=np.zeros(1, np.int64) if state_steps is None else np.asarray(state_steps, np.int64).reshape(-1),
        **fields,
    )  # fmt: skip


def rows(array: Any) -> np.ndarray:
    """float32[n, width] of numbers with one row a moment, whatever shape a row has. DatasetError where not numbers."""
    found = np.asarray(array)
    if found.dtype.kind not in "fiub":
        raise DatasetError(f"values of type {found.dtype} were found where numbers are needed")
    width = int(np.prod(found.shape[1:], dtype=np.int64))
    return np.ascontiguousarray(found.reshape(len(found), width), np.float32)


def physics(episode: Episode) -> str:
    """The version of the physics an episode was made with; "unknown" where it does not tell."""
    return episode.versions.get("mujoco", "unknown")


def checked(dataset: Dataset, allow_mixed_physics: bool = False) -> Iterator[Episode]:
    """The data set's episodes, each looked through first.

    DatasetError at the first that holds NaN or infinity, has other widths than those before, or was made with another
    version of the physics (unless allowed).
    """
    widths: dict[str, int] = {}
    made_with = ""
    for number, episode in enumerate(dataset.load()):
        made_with = made_with or physics(episode)
        if physics(episode) != made_with and not allow_mixed_physics:
            raise DatasetError(
                f"{dataset.source} mixes physics: episode {number} was made with mujoco {physics(episode)}, those "
                f"before with {made_with}; allow_mixed_physics=true takes them all the same"
            )
        found = {name: getattr(episode, name).shape[1] for name in WIDE}
        widths = widths or found
        if found != widths:
            name = next(name for name in WIDE if found[name] != widths[name])
            raise DatasetError(
                f"episode {number} of {dataset.source} has {found[name]} columns of {name}, those before have "
                f"{widths[name]}; a data set is of one environment"
            )
        if dataset.columns and len(dataset.columns) != widths["observations"]:
            raise DatasetError(
                f"{dataset.source} names {len(dataset.columns)} columns for {widths['observations']} of observations"
            )
        try:
            for name in WIDE:
                block = getattr(episode, name)
                check_finite(name, block, bounds_of(name, [episode]), [episode], number, dataset.columns)
        except StoreError as error:
            what = str(error).partition("; it was not stored")[0]
            raise DatasetError(f"{dataset.source}: {what}; nothing was written") from error
        yield episode


@contextmanager
def reading(what: object, layout: str) -> Iterator[None]:
    """Turns whatever a damaged or foreign file raises into a DatasetError that names it and the layout expected."""
    try:
        yield
    except DatasetError as error:
        if str(what) in str(error):
            raise
        raise DatasetError(f"{what}: {error}") from error
    except EpisodeError as error:
        raise DatasetError(f"{what}: {error}") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{what} lacks {error.filename or error}; {layout}") from error
    except KeyError as error:
        raise DatasetError(f"{what} lacks {error.args[0]!r}; {layout}") from error
    except (OSError, ValueError, TypeError, IndexError, EOFError, BadZipFile, ZlibError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{what} cannot be read ({reason}): it was cut short, is damaged, or {layout}") from error


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, put in its place once all is written; removed where that fails.

    DatasetError where there is something at ``path`` already: nothing is ever overwritten.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(f"{path} exists already and was left as it is; name another place, or delete it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def noted(dataset: Dataset, *notes: str) -> Dataset:
    """The data set with further notes."""
    return replace(dataset, notes=(*dataset.notes, *(note for note in notes if note)))
