"""What the library answers with: measured sets, statuses, mastered goals, committed rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embodied.core import Skill


@dataclass(frozen=True)
class Evidence:
    """One measured set: n episodes of a goal, resets 0 … n-1 under `seed`, judged by `kind`; `origin` "local"
    or "foreign" (from a pack; never admits).
    """

    goal: str
    version: str
    kind: str
    purpose: str
    seed: int
    n: int
    successes: int
    round: int
    origin: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Status:
    """What the evidence makes of a version on a goal: "candidate", "admitted" or "retired"."""

    goal: str
    version: str
    schema: str
    status: str
    gate_n: int
    gate_successes: int
    confirm_n: int
    confirm_successes: int
    created_round: int


@dataclass(frozen=True)
class Mastered:
    """A goal and the admitted version with the best lower bound on its confirmation episodes."""

    goal: str
    skill: Skill
    n: int
    successes: int
    lower: float


@dataclass(frozen=True)
class RoundRecord:
    """A committed round: where the ledger and the episode store ended, and the loop's own state."""

    index: int
    ledger_offset: int
    store_offsets: dict[str, int]
    state: dict[str, Any]
