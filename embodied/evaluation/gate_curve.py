"""The gate of edits on Bernoulli skills, by counts alone: its operating characteristic, and what flips do to it.

Tens of thousands of edits a point, with the gate's own sizes and tests; episodes and forks are left out, since all that
the gate looks at are counts of pairs. What is left out besides: the smoke test and rival candidates.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from embodied.skills.edits import EditGate, EditGateConfig
from embodied.skills.probes import Probe, independent_discordance, probability_of_gain

__all__ = ["admitted_share", "flips", "operating_curve"]

RATE = 0.45  # of the base, where sizes are largest
GAINS = (-0.1, -0.05, 0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.15, 0.2)
FLIPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
FORKS = {"good": (0.2, 0.0), "no gain": (0.0, 0.0), "harm elsewhere": (0.2, 0.3)}  # (gain, loss of what is mastered)


def operating_curve(seed: int, edits: int, config: EditGateConfig | None = None) -> list[dict[str, float]]:
    """Share admitted against the true gain, base at RATE, the fork independent of it or sharing all it can.

    A lone candidate through probe, confirmation and the regression of one mastered instruction that it leaves alone.
    """
    rows = []
    for gain in GAINS:
        shared = max(abs(gain), 0.02)
        for d in (independent_discordance(RATE, gain), shared):
            share = admitted_share(seed, edits, RATE, gain, d, config=config)
            rows.append({"gain": gain, "discordance": d} | share)
    return rows


def flips(seed: int, edits: int) -> list[dict[str, float]]:
    """Shares admitted of good and bad edits where evaluations are flipped, with the audit and without it."""
    rows = []
    for rate in FLIPS:
        row: dict[str, float] = {"flips": rate}
        for name, (gain, loss) in FORKS.items():
            d = independent_discordance(RATE, gain)
            for audit in (True, False):
                found = admitted_share(seed, edits, RATE, gain, d, loss=loss, flipped=rate, audit=audit)
                row[f"{name}{', audited' if audit else ''}"] = found["admitted"]
        rows.append(row)
    return rows


def admitted_share(
    seed: int, edits: int, base: float, gain: float, discordance: float, *,
    loss: float = 0.0, flipped: float = 0.0, audit: bool = True, config: EditGateConfig | None = None,
) -> dict[str, float]:  # fmt: skip
    """Monte Carlo of the gate's arithmetic on Bernoulli edits, by counts; a mastered instruction at 0.9 loses ``loss``.

    ``flipped``: every outcome, the recorded ones too, is flipped with this chance, independently at every look.
    """
    config = config or EditGateConfig()
    draw = np.random.default_rng([seed, round(1e4 * (gain + 1)), round(1e4 * discordance), round(1e4 * flipped)])
    cells = _cells(base, gain, discordance, flipped)
    keep = np.ones(edits, np.bool_)
    if audit:
        differ = draw.binomial(config.audit, 2 * flipped * (1 - flipped), edits)
        keep &= differ <= config.audit_allowed
    audited = keep.mean()
    rate = cells[1] + cells[3]  # recorded successes: the base's regressed and kept pairs
    half = config.probe // 2
    fixes = draw.binomial(half, cells[0] / (1 - rate), edits)
    broken = draw.binomial(half, cells[1] / rate, edits)
    keep &= (1 - rate) * fixes - rate * broken > 0
    probed = keep.mean()
    if loss or flipped:
        keep &= ~_lost(draw, edits, _cells(0.9, -loss, independent_discordance(0.9, -loss) if loss else 0.0, flipped),
                       config)  # fmt: skip
    regressed = keep.mean()
    sizes = np.array(
        [_confirmed(int(f), int(b), half, float(rate), config) for f, b in zip(fixes, broken, strict=True)]
    )
    won, lost = _discordant(draw, sizes, cells)
    keep &= np.array([_p(int(f), int(r)) >= config.level for f, r in zip(won, lost, strict=True)])
    return {
        "admitted": float(keep.mean()), "past the audit": float(audited), "past the probe": float(probed),
        "past the regression": float(regressed), "pairs": float(sizes.mean()),
    }  # fmt: skip


def _cells(base: float, gain: float, discordance: float, flipped: float) -> np.ndarray:
    """Chances of (fix, regression, both fail, both succeed), as they are seen through flips."""
    fix, lost = (discordance + gain) / 2, (discordance - gain) / 2
    table = np.array([[1 - base - fix, fix], [lost, base - lost]])  # [base][fork]
    seen = np.array([[1 - flipped, flipped], [flipped, 1 - flipped]])
    table = seen.T @ table @ seen
    return np.array([table[0, 1], table[1, 0], table[0, 0], table[1, 1]])


def _discordant(draw: np.random.Generator, sizes: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    won = draw.binomial(sizes, cells[0])
    return won, draw.binomial(sizes - won, min(1.0, cells[1] / (1 - cells[0])))


def _lost(draw: np.random.Generator, edits: int, cells: np.ndarray, config: EditGateConfig) -> np.ndarray:
    """bool[edits]: whether the loss of one mastered instruction is proved, by the gate's two looks at it."""
    alarm = 1 - config.false_alarm / 2
    won, lost = _discordant(draw, np.full(edits, config.look), cells)
    gate = EditGate(lambda fork, tasks: None, 0, config)  # type: ignore[arg-type, return-value]
    sizes = np.array([gate.second_look(int(w + r), config.look, alarm) for w, r in zip(won, lost, strict=True)])
    at_once = np.array([_p(int(r), int(w)) >= alarm for w, r in zip(won, lost, strict=True)])
    more_won, more_lost = _discordant(draw, sizes, cells)
    proved = np.array([_p(int(r), int(w)) >= alarm for w, r in zip(more_won, more_lost, strict=True)])
    return at_once | (proved & (lost > 0))


@lru_cache(maxsize=1 << 18)
def _p(fixes: int, regressions: int) -> float:
    return probability_of_gain(fixes, regressions)


@lru_cache(maxsize=1 << 16)
def _confirmed(fixes: int, broken: int, half: int, rate: float, config: EditGateConfig) -> int:
    gate = EditGate(lambda fork, tasks: None, 0, config)  # type: ignore[arg-type, return-value]
    return gate.confirmation(Probe(half, half, fixes, broken, 0, rate))
