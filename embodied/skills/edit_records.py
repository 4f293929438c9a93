"""What goes into the gate of edits and comes out of it: answers, sizes and levels, counts of pairs, decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embodied.core import ADMISSION_THRESHOLD
from embodied.skills.edit_checks import Edit, Fork
from embodied.skills.gate import GateError
from embodied.skills.probes import Probe, Task, probability_of_gain

__all__ = ["STAGES", "Answer", "EditDecision", "EditGateConfig", "Evaluate", "Pairs"]

STAGES = ("static", "audit", "smoke", "probe", "regression", "confirm", "use", "admitted")


@dataclass(frozen=True)
class Answer:
    """What came of n episodes under a fork: success bool[n]; which versions acted in each; which were invalid.

    ``used``: version → bool[n]. An invalid episode (a skill that broke off, gave no number, left its bounds) failed.
    """

    success: np.ndarray
    used: Mapping[str, np.ndarray] = field(default_factory=dict)
    invalid: np.ndarray | None = None
    kind: str = "simulator"


Evaluate = Callable[[Fork, Sequence[Task]], Answer]
"""evaluate(fork, tasks): the episodes of all that ask at a stage at once, to be run in parallel, in order."""


@dataclass(frozen=True)
class EditGateConfig:
    """Sizes and levels. The defaults are `sample_sizes()`: a gain or loss of ten points, rates as in docs/gate.md."""

    candidates: int = 4
    audit: int = 40  # recorded episodes that the base repeats
    audit_allowed: int = 2  # of them that may come out otherwise
    smoke: int = 8
    hopeless: float = 0.02  # P(Δ > 0) below which a candidate ends at the smoke test
    probe: int = 246
    penalty: float = 1.0  # of an invalid episode, in successes
    look: int = 34  # pairs of every mastered instruction
    regression: int = 1012  # pairs more, at most, of one that showed a regression
    false_alarm: float = 0.01  # chance to reject an edit that costs no mastered instruction anything
    confirm: int = 995  # pairs at most
    confirm_least: int = 100
    level: float = 0.995  # that P(Δ > 0) must reach
    gain: float = 0.10  # worth having: what the sizes are for
    loss: float = 0.10  # not to be borne
    power: float = 0.97
    mastered: float = ADMISSION_THRESHOLD  # the base's recorded rate from which an instruction counts as mastered
    mastered_n: int = 20  # and the episodes that takes
    capacity: int = 10  # skills a family

    def __post_init__(self) -> None:
        counts = (self.candidates, self.smoke, self.probe, self.look, self.regression, self.confirm, self.capacity)
        if min(counts) < 1 or min(self.audit, self.audit_allowed) < 0:
            raise GateError(f"the gate of edits needs at least one candidate and episode a stage, not {self}")
        if not 0.9 <= self.level < 1.0 or not 0.0 < self.false_alarm < 0.5:
            raise GateError(f"the gate of edits needs a level in 0.9 … 1 and a false alarm in 0 … 0.5, not {self}")


@dataclass(frozen=True)
class Pairs:
    """Fresh pairs of one stage: n, fixes and regressions; ``goal`` "" where they are of several."""

    stage: str
    goal: str
    n: int
    fixes: int
    regressions: int

    @property
    def p(self) -> float:
        """P(Δ > 0)."""
        return probability_of_gain(self.fixes, self.regressions)

    def text(self) -> str:
        about = f" of '{self.goal}'" if self.goal else ""
        return f"{self.fixes} fixes and {self.regressions} regressions in {self.n} pairs{about}"


@dataclass(frozen=True)
class EditDecision:
    """What was decided about an update's candidates, at which stage, and all that was measured, in numbers."""

    accepted: bool
    stage: str
    reason: str
    winner: int  # position among the candidates; -1 where none was chosen
    edit: Edit | None
    faults: tuple[str, ...]  # a candidate: why it was out before the probe, or ""
    probes: tuple[Probe | None, ...]
    gains: tuple[float, ...]  # a candidate: its gain in the probe, nan where it was not probed
    pairs: tuple[Pairs, ...]  # fresh pairs of the winner, and of the smoke test of all
    episodes: int

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: numbers, texts and the winner's version."""
        skill = self.edit.skill if self.edit else None
        return {
            "accepted": self.accepted, "stage": self.stage, "reason": self.reason, "winner": self.winner,
            "kind": self.edit.kind if self.edit else "", "slot": self.edit.slot if self.edit else "",
            "version": skill.version if skill else "", "faults": list(self.faults),
            "gains": [None if np.isnan(gain) else round(gain, 6) for gain in self.gains],
            "probes": [None if probe is None else asdict(probe) for probe in self.probes],
            "pairs": [asdict(pairs) | {"p": pairs.p} for pairs in self.pairs], "episodes": self.episodes,
        }  # fmt: skip
