"""Policy directories kept under the hash of their content: ``artifacts/ab/ab12…/{config.json,
model.safetensors}``.

A directory is copied beside its place, synced, and renamed into it, so that it is there as a whole or not at
all. It is checked against its name whenever it is read. The name is ``policies.checkpoint.content_hash``.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from embodied.data.durable import sync_directory, write_durably
from policies.checkpoint import CONFIG, MODEL, CheckpointError, content_hash, read_arrays

FILES = (CONFIG, MODEL)


class LibraryError(RuntimeError):
    """The library or one of its artifacts is unusable or used wrongly; the sentence says where, what, what to
    do.
    """


def check_finite(directory: Path) -> None:
    """CheckpointError where a policy directory has a weight that is NaN or infinite, or weights that cannot be read."""
    for name, array in read_arrays(directory).items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise CheckpointError(f"its weights '{name[:80]}' are not all finite.")


class ArtifactStore:
    """Content-addressed policy directories below `root`, which is made when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _place(self, artifact: str) -> Path:
        return self.root / artifact[:2] / artifact

    def put(self, directory: str | Path) -> str:
        """Copy a policy directory in, durably, and return its hash; a damaged copy here is replaced. LibraryError
        where it is no sound policy or has weights that are not finite.
        """
        source = Path(directory)
        try:
            artifact = content_hash(source)
            place = self._place(artifact)
            if self._is_whole(artifact):
                return artifact
            check_finite(source)
            stage = self.root / f".new-{uuid.uuid4().hex}"
            stage.mkdir(parents=True)
            try:
                for name in FILES:
                    write_durably(stage / name, (source / name).read_bytes())
                sync_directory(stage)
                if content_hash(stage) != artifact:
                    raise LibraryError(f"{source} changed while it was copied; save the policy again, then add it")
                place.parent.mkdir(exist_ok=True)
                if place.exists():
                    place.rename(self.root / f".old-{uuid.uuid4().hex}")
                stage.rename(place)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
            sync_directory(place.parent)
            sync_directory(self.root)
        except CheckpointError as error:
            raise LibraryError(f"{source} cannot become a skill: {error}") from error
        except OSError as error:
            raise LibraryError(f"{source} cannot be copied to {self.root}: {error}") from error
        return artifact

    def path(self, artifact: str) -> Path:
        """The directory of an artifact, verified; LibraryError where it is missing or damaged."""
        place = self._place(artifact)
        try:
            found = content_hash(place)
        except (CheckpointError, OSError) as error:
            raise LibraryError(
                f"the artifact at {place} is damaged: {error} Restore it from a copy or a pack, or learn the skill anew"
            ) from error
        if found != artifact:
            raise LibraryError(
                f"the artifact at {place} is damaged: its content has the hash {found[:12]}…; restore it "
                "from a copy or a pack, or learn the skill anew"
            )
        return place

    def _is_whole(self, artifact: str) -> bool:
        try:
            return content_hash(self._place(artifact)) == artifact
        except (CheckpointError, OSError):
            return False

    def __iter__(self) -> Iterator[str]:
        """The hashes present, in order."""
        if self.root.is_dir():
            yield from sorted(p.name for p in self.root.glob("[0-9a-f][0-9a-f]/*") if p.is_dir())

    def sweep(self, keep: Collection[str]) -> list[str]:
        """Remove half-made copies and every artifact not in `keep`; returns the hashes removed."""
        removed = [artifact for artifact in self if artifact not in keep]
        for artifact in removed:
            shutil.rmtree(self._place(artifact))
        for leftover in (*self.root.glob(".new-*"), *self.root.glob(".old-*")):
            shutil.rmtree(leftover)
        for shelf in self.root.glob("[0-9a-f][0-9a-f]"):
            if not os.listdir(shelf):
                shelf.rmdir()
        return removed
