"""What the library answers with: measured sets, statuses, mastered goals, committed rounds, decisions, lessons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embodied.core import Skill


@dataclass(frozen=True)
class Evidence:
    """One measured set: n episodes of a goal, resets 0 … n-1 under `seed`, judged by `kind`; `origin` "local"
    or "foreign" (from a pack; never admits). `probe` names the set of starts where it is not the seed's own, `trace`
    says where the episodes are kept.
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
    probe: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class Status:
    """What the evidence makes of a version on a goal: one of `embodied.skills.schema.STATUSES`."""

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


@dataclass(frozen=True)
class Standing:
    """What becomes of a version as a whole: the best status that it has on any goal, unless its origin, the head or a
    revocation says otherwise.
    """

    version: str
    schema: str
    created_round: int
    principal: str
    tainted: bool
    status: str


@dataclass(frozen=True)
class Principal:
    """Who skills and lessons come from: the public key (hex) that signs for them, or None; "own", "trusted" or
    "untrusted".
    """

    name: str
    public_key: str | None
    trust: str


@dataclass(frozen=True)
class GateRow:
    """What a gate decided about candidates (version hashes, or descriptions of those not kept) on top of a head."""

    goal: str
    base_head: int
    candidates: tuple[str, ...]
    numbers: Mapping[str, Any]
    verdict: str
    reason: str
    round: int


@dataclass(frozen=True)
class Usage:
    """One use of a version for a goal, outside of any measured set."""

    version: str
    goal: str
    head: int
    success: bool
    steps: int


@dataclass(frozen=True)
class TaughtLesson:
    """Lifted literals under which a schema must not be used, why, who says so, and whether that one is tainted."""

    schema: str
    literals: tuple[str, ...]
    reason: str
    principal: str
    tainted: bool


@dataclass(frozen=True)
class Revocation:
    """A version that nobody may use any more, who says so and why."""

    version: str
    principal: str
    reason: str
