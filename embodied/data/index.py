"""The episode store's index: one line of JSON an episode, which carries its own checksum.

A line is ``{"crc": CRC-32 of the record's bytes, "record": {...}}``; the record holds the episode's row and
state counts, a CRC-32 of each column in the order of ``EPISODE_ARRAYS``, and all that is not an array.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from embodied.core import EPISODE_ARRAYS, Episode, canonical_json

_PREFIX = '{"crc":%10d,"record":'  # fixed width, so that the record's own bytes can be checked
_HEAD = len(_PREFIX % 0)


def record_of(episode: Episode, checks: list[int]) -> dict[str, Any]:
    """The record of an episode whose columns have these CRC-32s."""
    return {
        "rows": len(episode) + 1, "states": len(episode.states), "crc": checks,
        "success": bool(episode.success), "goal": episode.goal, "instruction": episode.instruction,
        "source": episode.source, "policy": episode.policy, "env": episode.env, "seed": int(episode.seed),
        "versions": dict(episode.versions),
    }  # fmt: skip


def metadata_of(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record goes into ``Episode(...)`` beside the arrays."""
    return {name: value for name, value in record.items() if name not in ("rows", "states", "crc")}


def encode(record: dict[str, Any]) -> bytes:
    """One index line, with its newline."""
    body = canonical_json(record).encode()
    return (_PREFIX % zlib.crc32(body)).encode() + body + b"}\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its newline; None where the line is damaged."""
    body = line[_HEAD:-1]
    if line[:_HEAD] != (_PREFIX % zlib.crc32(body)).encode() or line[-1:] != b"}":
        return None
    record = json.loads(body)
    return record if len(record["crc"]) == len(EPISODE_ARRAYS) else None
