"""The skills of a library's head in memory, a column a property, to be searched in milliseconds.

A row is a version; rows are only added, and marked as gone. `SkillIndex.follow` brings the columns up to the current
head, evidence, usage, decisions and revocations: what it costs depends on what is new, not on what there is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.skills.library import SkillLibrary
from embodied.skills.manifest import literal_of
from embodied.skills.schema import STATUSES
from embodied.skills.wording import Encoder, embed, words

CHUNK = 500  # versions asked for in one statement
TYPES = 63  # kinds of parameters with a bit of their own; later ones share the last
_PARAMETER = re.compile(r"(\?\w+):([\w|]+)")
_NUMBERS = (  # what grows when something happened that is not a change of the head
    ("evidence", "SELECT DISTINCT version FROM evidence WHERE id > ?", "SELECT COALESCE(MAX(id), 0) FROM evidence"),
    ("usage", "SELECT DISTINCT version FROM usage WHERE id > ?", "SELECT COALESCE(MAX(id), 0) FROM usage"),
    ("decided", "SELECT DISTINCT candidate FROM decided WHERE decision > ?",
     "SELECT COALESCE(MAX(id), 0) FROM gate_decisions"),
    ("revoked", "SELECT version FROM revocations WHERE ? >= 0", "SELECT COUNT(*) FROM revocations"),
)  # fmt: skip

Pattern = tuple[str, bool, tuple[str, ...]]
"""A fact that a skill brings about: predicate, sign, arguments with their types ("?a:block", "drawer")."""


class Rows:
    """Row numbers that grow; as an array when they are read."""

    def __init__(self) -> None:
        self._new: list[int] = []
        self._array = np.zeros(0, np.int64)

    def append(self, row: int) -> None:
        self._new.append(row)

    @property
    def array(self) -> np.ndarray:
        """int64[k], in the order they came."""
        if self._new:
            self._array = np.concatenate([self._array, np.array(self._new, np.int64)])
            self._new = []
        return self._array


@dataclass
class _Effect:
    """The rows that bring about a pattern, and the preconditions that any of them has."""

    rows: Rows = field(default_factory=Rows)
    needs: set[int] = field(default_factory=set)


class SkillIndex:
    """Columns over the versions of a library's head. Literals are numbered; number 0 is always true.

    alive bool[n], status uint8[n] (position in `STATUSES`), kinds uint64[n] (bits of parameter types), beta
    float64[n, 2] (success), needs: columns int32[n] (preconditions, filled up with 0), vectors float32[n, D].
    """

    def __init__(self, library: SkillLibrary, encoder: Encoder = embed) -> None:
        self.library, self.encoder = library, encoder
        self.head = 0
        self.versions: list[str] = []
        self.schemas: list[str] = []
        self.row_of: dict[str, int] = {}
        self.literals: list[tuple[str, tuple[str, ...], bool]] = [("", (), True)]
        self.effects: dict[tuple[str, bool, int], dict[Pattern, _Effect]] = {}
        self.families: dict[str, Rows] = {}
        self.kinds_known: dict[str, int] = {}
        self._literal_ids: dict[str, int] = {}
        self._words: dict[str, Rows] = {}
        self._seen = {name: 0 for name, _, _ in _NUMBERS}
        self._room = 0
        self.alive = np.zeros(0, np.bool_)
        self.status = np.zeros(0, np.uint8)
        self.kinds = np.zeros(0, np.uint64)
        self.beta = np.zeros((0, 2))
        self.needs = [np.zeros(0, np.int32)]
        self._size = 0
        self.vectors = np.zeros((0, encoder([""]).shape[1]), np.float32)
        self.follow()

    def __len__(self) -> int:
        """Versions in the head."""
        return self._size

    def follow(self) -> int:
        """Take in what was committed since the last call; the number of versions looked at."""
        query = self.library._query
        newest = query("SELECT COALESCE(MAX(id), 0) FROM heads")[0][0]
        touched: dict[str, None] = {}
        changes: dict[str, bool] = {}
        if newest > self.head:
            sql = "SELECT version, change FROM members WHERE head > ? AND head <= ? ORDER BY head"
            changes = {version: change == "add" for version, change in query(sql, [self.head, newest])}
            touched |= dict.fromkeys(changes)
        for name, sql, last in _NUMBERS:
            number = query(last)[0][0]
            if number > self._seen[name]:
                if self.versions:  # the first time all are read anyway
                    touched |= {row[0]: None for row in query(sql, [self._seen[name]]) if row[0] in self.row_of}
                self._seen[name] = number
        wanted = list(touched)
        for first in range(0, len(wanted), CHUNK):
            part = wanted[first : first + CHUNK]
            self._add([version for version in part if version not in self.row_of and changes.get(version)])
            self._measure([version for version in part if version in self.row_of])
        for version, inside in changes.items():
            if version in self.row_of:
                self.alive[self.row_of[version]] = inside
        self.head = newest
        self._size = int(self.alive.sum()) if changes else self._size
        return len(wanted)

    def rows_with(self, word: str) -> np.ndarray:
        """int64[k]: the rows whose text has a word; each once."""
        found = self._words.get(word)
        return found.array if found is not None else np.zeros(0, np.int64)

    # ------------------------------------------------------------------ filling the columns
    def _add(self, versions: Sequence[str]) -> None:
        if not versions:
            return
        marks = ", ".join("?" * len(versions))
        sql = f"SELECT version, schema, signature, provenance, facets FROM skills WHERE version IN ({marks})"
        rows = self.library._query(sql, versions)
        first = len(self.versions)
        self._reserve(first + len(rows))
        texts = []
        for row, (version, schema, signature, provenance, facets) in enumerate(rows, first):
            content, told = json.loads(facets), json.loads(provenance)
            self.row_of[version] = row
            self.versions.append(version)
            self.schemas.append(schema)
            self.families.setdefault(schema, Rows()).append(row)
            operator, handbook = content.get("operator") or {}, content.get("handbook") or {}
            types = dict(operator.get("parameters") or _PARAMETER.findall(schema))
            types |= {k: v for k, v in json.loads(signature).items() if k.startswith("?") and isinstance(v, str)}
            self.kinds[row] = np.bitwise_or.reduce(
                np.array([1 << self._kind(kind) for kind in types.values()] or [0], np.uint64)
            )
            needs = sorted({self._literal(literal) for literal, *_ in operator.get("pre") or ()})
            self._need(row, needs)
            for pattern in _patterns([literal for literal, *_ in operator.get("add") or ()], schema, types):
                by_shape = self.effects.setdefault((pattern[0], pattern[1], len(pattern[2])), {})
                effect = by_shape.setdefault(pattern, _Effect())
                effect.rows.append(row)
                effect.needs.update(needs)
            self.beta[row] = operator.get("success") or (1.0, 1.0)
            text = " ".join(map(str, (schema, told.get("name", ""), handbook.get("when", ""), handbook.get("do", ""))))
            texts.append(text)
            for word in set(words(text)):
                self._words.setdefault(word, Rows()).append(row)
        self.vectors[first : first + len(rows)] = self.encoder(texts)

    def _measure(self, versions: Sequence[str]) -> None:
        """Status and success of versions that have a row."""
        if not versions:
            return
        for standing in self.library.standing(versions):
            self.status[self.row_of[standing.version]] = STATUSES.index(standing.status)
        marks = ", ".join("?" * len(versions))
        measured = f"""SELECT version, SUM(successes), SUM(n - successes) FROM evidence WHERE version IN ({marks})
          AND kind = 'simulator' AND origin = 'local' AND purpose <> 'screen' GROUP BY version"""
        used = f"SELECT version, SUM(success), SUM(1 - success) FROM usage WHERE version IN ({marks}) GROUP BY version"
        counts: dict[str, np.ndarray] = {}
        for sql in (measured, used):
            for version, hits, misses in self.library._query(sql, versions):
                counts[version] = counts.get(version, np.ones(2)) + np.array([hits, misses])
        for version, count in counts.items():
            self.beta[self.row_of[version]] = count

    def _reserve(self, n: int) -> None:
        if n <= self._room:
            return
        self._room = max(n, 2 * self._room, 1024)

        def grown(old: np.ndarray) -> np.ndarray:
            return np.concatenate([old, np.zeros((self._room - len(old), *old.shape[1:]), old.dtype)])

        for name in ("alive", "status", "kinds", "beta", "vectors"):
            setattr(self, name, grown(getattr(self, name)))
        self.needs = [grown(column) for column in self.needs]

    def _need(self, row: int, needs: Sequence[int]) -> None:
        while len(needs) > len(self.needs):
            self.needs.append(np.zeros(self._room, np.int32))
        for column, number in zip(self.needs, needs, strict=False):
            column[row] = number

    def _literal(self, text: str) -> int:
        if text not in self._literal_ids:
            self._literal_ids[text] = len(self.literals)
            self.literals.append(literal_of(text))
        return self._literal_ids[text]

    def _kind(self, kind: str) -> int:
        return min(self.kinds_known.setdefault(kind, len(self.kinds_known)), TYPES)


def _patterns(added: Iterable[str], schema: str, types: Mapping[str, str]) -> list[Pattern]:
    """What a skill brings about: its operator's added facts, or else the literals of its schema's last stage."""
    texts = list(added) or [_PARAMETER.sub(r"\1", part.strip()) for part in schema.split(";")[-1].split("&")]
    found: dict[Pattern, Any] = {}
    for text in texts:
        try:
            name, arguments, sign = literal_of(text)
        except ValueError:  # a schema may be any text: then nothing is known of its effect
            continue
        found[name, sign, tuple(f"{a}:{types[a]}" if a in types else a for a in arguments)] = None
    return list(found)
