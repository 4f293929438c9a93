"""Recorded answers, a JSON line each: what a real backend said to a request, to be said again.

A request is known by the hash of its role, message, reply schema and model. Recording keeps what the backend gave,
failures too, and does not ask again what it has an answer for, so that a run which was killed goes on as it began.
Replaying without a backend refuses what was never recorded. Lines are appended whole; one that a crash left
unfinished is dropped, any other that cannot be read is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from embodied.errors import UsageError
from embodied.language.base import LanguageModel, LMError, LMRequest, LMResult, T, Usage, parse_reply

__all__ = ["Cassette", "append_line", "canonical", "key_of", "read_lines"]


def canonical(message: BaseModel) -> str:
    """A message as text, the same for equal messages; pictures and gains count only where there are some."""
    without = {name for name in ("frames", "gains") if not getattr(message, name, ())}
    return json.dumps(message.model_dump(mode="json", exclude=without), sort_keys=True, separators=(",", ":"))


def key_of(request: LMRequest[Any], model: str) -> str:
    """Hash of role, message, reply schema and model."""
    schema = json.dumps(request.reply.model_json_schema(), sort_keys=True)
    parts = (request.role, canonical(request.message), schema, model)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Cassette:
    """Answers from ``path``, and with ``inner`` from there what is not recorded yet, recording it.

    Failures of a recording are asked anew; when replaying, a request's outcomes come in their order, the last again
    and again. Raises UsageError where the file is missing (when replaying) or is no cassette.
    """

    def __init__(self, path: Path, model: str, inner: LanguageModel | None = None) -> None:
        self.path, self.model, self.inner = path, model, inner
        if inner is None and not path.is_file():
            raise UsageError(
                f"there is no cassette {path}: record one with a real backend and language.cassette={path}"
            )
        self._kept: dict[str, list[dict[str, Any]]] = {}
        for row in read_lines(path):
            if not {"key", "role", "backend"} <= row.keys():
                raise UsageError(f"{path} is no cassette: a line without key, role and backend")
            self._kept.setdefault(row["key"], []).append(row)

    @property
    def name(self) -> str:
        return f"the cassette {self.path.name}" if self.inner is None else self.inner.name

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The recorded answer, or a new one, recorded. Raises LMError."""
        key = key_of(request, self.model)
        rows = self._kept.get(key, [])
        if self.inner is None:
            if not rows:
                raise LMError(f"{self.name} has no answer to this request to '{request.role}'")
            return self._again(request, rows.pop(0) if len(rows) > 1 else rows[0])
        if rows and "reply" in rows[-1]:
            return self._again(request, rows[-1])
        row: dict[str, Any] = {"key": key, "role": request.role, "model": self.model}
        try:
            result = self.inner.complete(request)
        except LMError as error:
            self._keep(row | {"backend": self.inner.name, "error": str(error)})
            raise
        self._keep(row | {"backend": result.backend, "reply": result.value.model_dump(mode="json")})
        return result

    def _again(self, request: LMRequest[T], row: dict[str, Any]) -> LMResult[T]:
        if "reply" not in row:
            raise LMError(str(row.get("error", f"a line of {self.path.name} has neither reply nor error")))
        return LMResult(parse_reply(row["reply"], request.reply, request.role), str(row["backend"]), usage=Usage())

    def _keep(self, row: dict[str, Any]) -> None:
        append_line(self.path, row)
        self._kept.setdefault(row["key"], []).append(row)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Adds one JSON line, whole, after mending the end that a crash may have left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, [] where there is none. Raises UsageError for a line that is no object."""
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line's end was never finished
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"line {number} of {path} is no JSON object: mend or delete it")
        rows.append(row)
    return rows
