"""An admitted edit on trial: a random share of its first uses, and back at once when it is proved worse.

Each use in production is given to the edited set or to the one before it, by a draw that depends on (seed, use) alone.
The k-th outcome of the one is set against the k-th of the other. Under "the edit is no worse" a discordant couple goes
against it with probability at most ½; with w of them for it and l against it,

    e = ∫ (2q)^l (2(1 - q))^w · 2 dq over q in (½, 1) = 2^(l+w+1) B(l + 1, w + 1) P(Bin(l + w + 1, ½) <= l)

is a non-negative supermartingale that starts at 1, so P(e ever reaches 1/α) <= α (Ville). It may be looked at after
every use: an edit that is no worse is reverted with probability at most α, however long the trial. What is worse by
δ at discordance d is found after about (log 1/α + log √m) / (d · KL(q, ½)) couples, q = ½ + δ/2d.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from scipy.special import bdtr, betaln

from embodied.skills.edit_checks import Edit, Fork
from embodied.skills.gate import GateError

__all__ = ["Canary", "evidence_of_harm"]


def evidence_of_harm(wins: int, losses: int) -> float:
    """log e of discordant couples that went for the edit and against it; 0 where there are none."""
    tail = max(float(bdtr(losses, wins + losses + 1, 0.5)), 1e-300)
    return (wins + losses + 1) * math.log(2) + float(betaln(losses + 1, wins + 1)) + math.log(tail)


@dataclass
class Canary:
    """A trial of `edit` against `base`: ``uses`` in all, a ``share`` by the edit, wrong reverts at most ``alpha``.

    GateError for a share outside 0 … 1, no uses, or an alpha outside 0 … 1.
    """

    edit: Edit
    base: Fork
    seed: int
    uses: int = 400
    share: float = 0.5
    alpha: float = 0.01
    outcomes: tuple[list[bool], list[bool]] = field(default_factory=lambda: ([], []))  # before the edit, with it
    wins: int = 0  # discordant couples for the edit
    losses: int = 0  # and against it
    reverted: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0 or self.uses < 1 or not 0.0 < self.alpha < 1.0:
            raise GateError(
                f"a trial needs a share and an alpha in 0 … 1 and at least one use, not {self.share}, {self.alpha}, "
                f"{self.uses}"
            )

    @property
    def used(self) -> int:
        """Uses recorded so far."""
        return sum(map(len, self.outcomes))

    @property
    def state(self) -> str:
        """ "reverted", "kept" (all its uses are over) or "trial"."""
        return "reverted" if self.reverted else "kept" if self.used >= self.uses else "trial"

    def draws(self, use: int) -> bool:
        """Whether this use (its number, from 0) is on the edit: none once it is reverted, all once it is kept."""
        if self.state != "trial":
            return not self.reverted
        word = hashlib.sha256(f"canary {self.seed} {use}".encode()).digest()[:8]
        return int.from_bytes(word, "little") < self.share * 2**64

    def fork(self, use: int) -> dict[str, str]:
        """The set that this use runs."""
        return self.edit.fork(self.base) if self.draws(use) else dict(self.base)

    def record(self, edited: bool, success: bool) -> str:
        """Counts the outcome of a use; the state after it. Uses that end after the trial change nothing."""
        if self.state == "trial":
            self.outcomes[edited].append(bool(success))
            k, other = len(self.outcomes[edited]) - 1, self.outcomes[not edited]
            if k < len(other) and other[k] != success:
                self.wins, self.losses = self.wins + (success == edited), self.losses + (success != edited)
                self.reverted = self.log_evidence >= -math.log(self.alpha)
        return self.state

    @property
    def log_evidence(self) -> float:
        """log e so far."""
        return evidence_of_harm(self.wins, self.losses)

    def summary(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "state": self.state, "slot": self.edit.slot, "uses": self.used, "edited": len(self.outcomes[1]),
            "successes": [sum(rows) for rows in self.outcomes], "for": self.wins, "against": self.losses,
            "log evidence of harm": self.log_evidence,
        }  # fmt: skip
