"""Writing files so that a crash leaves the old content or the new, never half of either."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def write_at(file: BinaryIO, offset: int, data: memoryview | bytes) -> None:
    """Write all of the bytes at an offset of an unbuffered file, which may take them in parts. OSError on a
    full disk.
    """
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable (new files, renames); nothing to do outside of POSIX."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it; for a file that nobody reads yet."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in place of an older one in one step: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        write_durably(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
