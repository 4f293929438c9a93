"""Append-only episodes in a directory: one binary file a column, one line of JSON an episode, nothing to
repair.

``layout.json`` names the widths; ``observations.bin`` … hold the arrays of all episodes end to end;
``index.jsonl`` says how long each is, what it was for, and a checksum of every column. An episode exists once
its index line is complete, and columns are written before the line, so a killed process leaves only a tail
that the next `open` cuts off. `commit` makes everything durable and returns byte offsets; `open` with those
offsets forgets what came after.

Flat views are memory-mapped and row-aligned: row r of `observations`, `actions`, `rewards`, `terminations`
and `truncations` is the same moment; the last row of an episode, its final observation, has zeros for the
other four.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embodied.core import EPISODE_ARRAYS, SOURCES, Episode
from embodied.data import columns as layout
from embodied.data import index
from embodied.data.columns import BrokenEpisodeError, StoreError
from embodied.data.durable import sync_directory, write_at

try:
    import fcntl
except ImportError:  # pragma: no cover - no advisory locks outside of POSIX
    fcntl = None

__all__ = ["BrokenEpisodeError", "EpisodeStore", "StoreError"]


class EpisodeStore:
    """The episodes of a run; made by `EpisodeStore.open`. One process writes, any number read."""

    def __init__(self, directory: Path, columns: Sequence[str], readonly: bool) -> None:
        self.directory = directory
        self.readonly = readonly
        self.columns = tuple(columns)
        self._widths: dict[str, int] = {}
        self._records: list[dict[str, Any]] = []
        self._bytes = dict.fromkeys((*EPISODE_ARRAYS, "index"), 0)
        self._row_ends = np.zeros(0, np.int64)
        self._state_ends = np.zeros(0, np.int64)
        self._views: dict[str, np.ndarray] = {}
        self._files: dict[str, BinaryIO] = {}

    @classmethod
    def open(
        cls,
        directory: str | Path,
        offsets: Mapping[str, int] | None = None,
        *,
        columns: Sequence[str] = (),
        readonly: bool = False,
        verify: bool = True,
    ) -> EpisodeStore:
        """Open or create a store; a writer cuts off all that lies past `offsets` (or past the last whole
        episode).

        Empty offsets ({}) stand for a run that never committed: everything is cut off. `columns` names the
        observation columns (for messages, and compared with the names stored). `verify` reads everything once
        and compares checksums. StoreError where the store is damaged, foreign or in use.
        """
        store = cls(Path(directory), columns, readonly)
        try:
            store._open_files()
            store._load(dict.fromkeys(store.offsets(), 0) if offsets == {} else offsets)
            if verify:
                store.verify()
        except OSError as error:
            store.close()
            raise StoreError(f"the episode store {directory} cannot be opened: {error}") from error
        except BaseException:
            store.close()
            raise
        return store

    # ------------------------------------------------------------------ opening
    def _path(self, name: str) -> Path:
        return self.directory / ("index.jsonl" if name == "index" else f"{name}.bin")

    def _open_files(self) -> None:
        if self.readonly:
            if not self._path("index").is_file():
                raise StoreError(f"there is no episode store at {self.directory}; `embodied run` collects into one")
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in self._bytes:
            descriptor = os.open(self._path(name), os.O_RDWR | os.O_CREAT, 0o644)
            self._files[name] = os.fdopen(descriptor, "r+b", buffering=0)
        if fcntl is not None:
            try:
                fcntl.flock(self._files["index"], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(
                    f"another process is writing the episode store {self.directory}; stop it or open read-only"
                ) from error

    def _load(self, offsets: Mapping[str, int] | None) -> None:
        """Read the index up to the offsets, check the columns against it, and cut off the rest."""
        text = self._path("index").read_bytes()
        if offsets is not None:
            if set(offsets) != set(self.offsets()):
                raise StoreError(
                    f"offsets for {self.directory} must be what commit() returned; their keys are "
                    f"{', '.join(self.offsets())}, not {', '.join(offsets) or 'none'}"
                )
            self._check_size("index", len(text), offsets["index"])
            text = text[: offsets["index"]]
        text = text[: text.rfind(b"\n") + 1]
        if text:
            self._widths, self.columns = layout.read_layout(self.directory, self.columns)
        records = []
        for number, line in enumerate(text.splitlines()):
            record = index.decode(line)
            if record is None:
                raise StoreError(
                    f"line {number + 1} of {self._path('index')} is damaged; restore the file from a copy, "
                    f"or reopen the store with the offsets of a commit before episode {number}"
                )
            records.append(record)
        self._count(records, len(text))
        for name, expected in {} if offsets is None else offsets.items():
            if expected != self.offsets()[name]:
                raise StoreError(
                    f"the offsets passed for {self.directory} say {expected} of {name} where its index says "
                    f"{self.offsets()[name]}; they belong to another store"
                )
        for name, expected in self._bytes.items():
            size = self._path(name).stat().st_size if self._path(name).exists() else 0
            self._check_size(name, size, expected)
            if size > expected and not self.readonly:
                self._files[name].truncate(expected)

    def _check_size(self, name: str, size: int, expected: int) -> None:
        if size < expected:
            raise StoreError(
                f"{self._path(name)} holds {size} bytes where {expected} were stored: it was cut short; "
                f"restore it from a copy, or delete {self.directory} and collect again"
            )

    def _count(self, records: list[dict[str, Any]], index_bytes: int) -> None:
        """Take in records whose bytes are in the files."""
        rows, states = ([record[key] for record in records] for key in ("rows", "states"))
        self._row_ends = np.append(self._row_ends, self._length("observations") + np.cumsum(rows, dtype=np.int64))
        self._state_ends = np.append(self._state_ends, self._length("states") + np.cumsum(states, dtype=np.int64))
        self._records.extend(records)
        for name, (dtype, _, _) in EPISODE_ARRAYS.items():
            self._bytes[name] = self._length(name) * np.dtype(dtype).itemsize * self._widths.get(name, 1)
        self._bytes["index"] += index_bytes

    def _ends(self, name: str) -> np.ndarray:
        return self._row_ends if name in layout.ROWS else self._state_ends

    def _length(self, name: str) -> int:
        ends = self._ends(name)
        return int(ends[-1]) if len(ends) else 0

    # ------------------------------------------------------------------ writing
    def append(self, episode: Episode) -> int:
        """Store one episode and return its number."""
        return self.extend([episode])[0]

    def extend(self, episodes: Iterable[Episode]) -> range:
        """Store a batch of episodes, all or none, and return their numbers.

        BrokenEpisodeError where one holds NaN or infinity; StoreError where widths differ from the store's or
        the disk refuses. The batch survives the death of the process; `commit` makes it survive that of the
        machine.
        """
        batch, first = list(episodes), len(self)
        if self.readonly:
            raise StoreError(f"the episode store {self.directory} is open read-only; open it anew to append")
        if not batch:
            return range(first, first)
        widths = self._widths if first else layout.widths_of(batch)
        layout.check_widths(batch, widths, first, self.columns)
        blocks: dict[str, np.ndarray] = {}
        checks: list[list[int]] = []
        for name in EPISODE_ARRAYS:
            bounds = layout.bounds_of(name, batch)
            block = blocks[name] = layout.block_of(name, batch, bounds)
            layout.check_finite(name, block, bounds, batch, first, self.columns)
            checks.append([zlib.crc32(block[a:b].data) for a, b in pairwise(bounds)])
        records = [index.record_of(e, list(c)) for e, c in zip(batch, zip(*checks, strict=True), strict=True)]
        text = b"".join(map(index.encode, records))
        try:
            if not first:
                layout.write_layout(self.directory, widths, self.columns)
                self._widths = widths
            for name, block in blocks.items():
                write_at(self._files[name], self._bytes[name], block.reshape(-1).view(np.uint8).data)
            write_at(self._files["index"], self._bytes["index"], text)
        except OSError as error:
            with suppress(OSError):
                self._files["index"].truncate(self._bytes["index"])
            raise StoreError(f"{self.directory} took none of {len(batch)} new episodes: {error}") from error
        self._count(records, len(text))
        return range(first, len(self))

    def commit(self) -> dict[str, int]:
        """Make all that was appended durable; returns byte offsets for `open`, and the episode count."""
        try:
            for file in self._files.values():
                os.fsync(file.fileno())
            sync_directory(self.directory)
        except OSError as error:
            raise StoreError(f"{self.directory} could not be made durable: {error}; resume the run") from error
        return self.offsets()

    def offsets(self) -> dict[str, int]:
        """The byte offset of the present end of every file, and the number of episodes."""
        return {**self._bytes, "episodes": len(self)}

    # ------------------------------------------------------------------ reading
    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._records)

    @property
    def steps(self) -> int:
        """Number of control steps (actions) stored."""
        return self._length("actions") - len(self)

    def view(self, name: str) -> np.ndarray:
        """Read-only memory-mapped flat view of a column, [rows, width] or [rows], of the episodes stored by
        now.
        """
        if name not in EPISODE_ARRAYS:
            raise StoreError(f"unknown column '{name}'; the columns are {', '.join(EPISODE_ARRAYS)}")
        rows = self._length(name)
        cached = self._views.get(name)
        if cached is None or len(cached) != rows:
            dtype, _, ndim = EPISODE_ARRAYS[name]
            shape = (rows, self._widths.get(name, 0)) if ndim == 2 else (rows,)
            if 0 in shape:  # an empty file cannot be mapped
                cached = np.zeros(shape, dtype)
            else:
                cached = np.asarray(np.memmap(self._path(name), dtype, "r", shape=shape))
            self._views[name] = cached
        return cached

    @property
    def observations(self) -> np.ndarray:
        """float32[rows, NX], T+1 rows an episode."""
        return self.view("observations")

    @property
    def actions(self) -> np.ndarray:
        """float32[rows, A], aligned with `observations`; zeros in an episode's last row."""
        return self.view("actions")

    @property
    def episode_ends(self) -> np.ndarray:
        """int64[episodes]: the row after each episode's last; episode i begins where i-1 ends."""
        return self._row_ends

    def get(self, i: int) -> Episode:
        """Episode i (negative counts from the end), checked against its checksums; arrays are read-only
        views.
        """
        number = i + len(self) if i < 0 else i
        if not 0 <= number < len(self):
            raise StoreError(f"there is no episode {i} in {self.directory}; it holds {len(self)}")
        self.verify([number])
        arrays = {name: self._slice(name, number, layout.padding(name)) for name in EPISODE_ARRAYS}
        return Episode(**arrays, **index.metadata_of(self._records[number]))

    def _slice(self, name: str, number: int, cut: int = 0) -> np.ndarray:
        ends = self._ends(name)
        return self.view(name)[ends[number - 1] if number else 0 : ends[number] - cut]

    def indices(self, source: str | None = None) -> np.ndarray:
        """int64 numbers of the episodes of a source ("scripted-play", "practice", …), or of all."""
        if source is not None and source not in SOURCES:
            raise StoreError(f"unknown episode source '{source}'; the sources are {', '.join(SOURCES)}")
        return np.array([i for i, r in enumerate(self._records) if source in (None, r["source"])], np.int64)

    def iterate(self, source: str | None = None) -> Iterator[Episode]:
        """The episodes of a source, or all, in order."""
        for i in self.indices(source):
            yield self.get(int(i))

    def verify(self, numbers: Iterable[int] | None = None) -> None:
        """Compare episodes (all by default) with their checksums; StoreError names the first that differs."""
        for number in range(len(self)) if numbers is None else numbers:
            for name, expected in zip(EPISODE_ARRAYS, self._records[number]["crc"], strict=True):
                if zlib.crc32(self._slice(name, number).data) != expected:
                    raise StoreError(
                        f"the {name} of episode {number} in {self._path(name)} do not match their checksum: "
                        "the file is damaged; restore it from a copy, or reopen with the offsets of a "
                        "commit before it"
                    )

    def close(self) -> None:
        """Close the files and let another process write; views stay readable."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self.readonly = True

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
