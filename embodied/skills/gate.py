"""The gate: what a candidate has to show on fresh episodes before it counts as a skill.

1. *screen*: every candidate on the same few episodes; the best goes on. Choosing the best of noisy looks
   favours luck, so the screen admits nothing.
2. *gate*: the winner on n fresh episodes; its Wilson lower bound (two-sided 95 %) must reach the threshold.
3. *regression*: the winner on the goals that the earlier version of its schema had mastered; none may be
   shown to lie below the threshold (Wilson upper bound).
4. *confirm*: the winner on a second fresh set, judged as the gate is.

Set sizes are fixed beforehand: nothing is stopped early for looking good or bad. Seeds come from streams that
are disjoint by (run seed, purpose, round, attempt, goal), so that no set is ever looked at twice. This is
pure logic around a callable; recording the evidence is the library's part, and the library's word on what is
admitted is the one that counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.core import ADMISSION_THRESHOLD, PURPOSES, EvalReport
from embodied.skills.statistics import wilson

Evaluate = Callable[[Any, str, int, int], EvalReport]
"""evaluate(candidate, goal text, n, seed): resets 0 … n-1 under the seed, judged by the simulator."""


class GateError(RuntimeError):
    """The gate was called wrongly, or an evaluation is not the one that was asked for."""


@dataclass(frozen=True)
class GateConfig:
    """Episodes of each set, and the success rate that lower bounds must reach."""

    threshold: float = ADMISSION_THRESHOLD
    screen: int = 40
    n: int = 200
    confirm: int = 200
    regression: int = 100

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0 or min(self.screen, self.n, self.confirm, self.regression) < 1:
            raise GateError(f"the gate needs at least one episode a set and a threshold in 0 … 1, not {self}")


@dataclass(frozen=True)
class Measured:
    """One set: its purpose, which candidate (by position), and the report."""

    purpose: str
    candidate: int
    report: EvalReport


@dataclass(frozen=True)
class GateDecision:
    """What the gate concluded about a goal's candidates, why, and all it measured, in order."""

    goal: str
    admitted: bool
    reason: str
    winner: int
    reports: tuple[Measured, ...]

    @property
    def winner_reports(self) -> tuple[Measured, ...]:
        """What was measured of the winner: the evidence to record for its version."""
        return tuple(measured for measured in self.reports if measured.candidate == self.winner)

    @property
    def episodes(self) -> int:
        """Episodes spent."""
        return sum(measured.report.n for measured in self.reports)


def seed_for(run_seed: int, purpose: str, round: int, attempt: int, goal: str) -> int:
    """The seed (48 bits) of one set; different in every argument, the same in every run of a seed."""
    if purpose not in PURPOSES:
        raise GateError(f"unknown purpose '{purpose}' of a set; the purposes are {', '.join(PURPOSES)}")
    words = np.frombuffer(hashlib.sha256(goal.encode()).digest(), "<u4")
    key = (PURPOSES.index(purpose), round, attempt, *words.tolist())
    return int(np.random.SeedSequence(run_seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(16))


class Gate:
    """Decides about candidates with a given way to evaluate them."""

    def __init__(self, evaluate: Evaluate, run_seed: int, config: GateConfig | None = None) -> None:
        self.evaluate = evaluate
        self.run_seed = run_seed
        self.config = config or GateConfig()

    def decide(
        self,
        goal: str,
        candidates: Sequence[Any],
        *,
        round: int,
        attempt: int = 0,
        earlier_goals: Sequence[str] = (),
    ) -> GateDecision:
        """Screen the candidates (policies, skills, artifacts: whatever `evaluate` takes) and gate the best
        one.

        `attempt` counts the decisions about this goal within the round; `earlier_goals` are those that the
        earlier version of the same schema has mastered. GateError without candidates.
        """
        if not candidates:
            raise GateError(f"there is no candidate for '{goal}'; practise one before asking the gate")
        config, reports = self.config, []

        def measure(purpose: str, position: int, n: int, text: str = goal) -> EvalReport:
            report = self._measure(candidates[position], text, purpose, n, round, attempt)
            reports.append(Measured(purpose, position, report))
            return report

        screens = [measure("screen", i, config.screen) for i in range(len(candidates))]
        winner = int(np.argmax([report.successes for report in screens]))

        def decision(admitted: bool, reason: str) -> GateDecision:
            return GateDecision(goal, admitted, reason, winner, tuple(reports))

        if self.disproved(screens[winner]):
            return decision(False, f"rejected at the screen: {self._describe(screens[winner])}")
        gate = measure("gate", winner, config.n)
        if not self.proved(gate):
            return decision(False, f"rejected at the gate: {self._describe(gate)}")
        for text in dict.fromkeys(earlier_goals):
            if text != goal and self.disproved(report := measure("regression", winner, config.regression, text)):
                return decision(False, f"rejected for forgetting '{text}': {self._describe(report)}")
        confirm = measure("confirm", winner, config.confirm)
        if not self.proved(confirm):
            return decision(False, f"rejected at the confirmation: {self._describe(confirm)}")
        return decision(True, f"admitted: gate {self._describe(gate)}; confirmation {self._describe(confirm)}")

    def recheck(self, candidate: Any, goal: str, *, round: int, attempt: int = 0) -> Measured:
        """A regression set for a skill admitted earlier: once recorded, it retires what it disproves."""
        return Measured(
            "regression",
            0,
            self._measure(candidate, goal, "regression", self.config.regression, round, attempt),
        )

    def proved(self, report: EvalReport) -> bool:
        """Whether a set's lower bound reaches the threshold."""
        return bool(wilson(report.successes, report.n)[0] >= self.config.threshold)

    def disproved(self, report: EvalReport) -> bool:
        """Whether a set's upper bound lies below the threshold."""
        return bool(wilson(report.successes, report.n)[1] < self.config.threshold)

    def _measure(self, candidate: Any, goal: str, purpose: str, n: int, round: int, attempt: int) -> EvalReport:
        seed = seed_for(self.run_seed, purpose, round, attempt, goal)
        report = self.evaluate(candidate, goal, n, seed)
        asked, given = (goal, n, seed, "simulator"), (report.goal, report.n, report.seed, report.kind)
        if asked != given:
            raise GateError(f"the evaluation of '{goal}' must be (goal, n, seed, kind) = {asked}, but it was {given}")
        return report

    def _describe(self, report: EvalReport) -> str:
        lower, upper = report.interval
        return (
            f"{report.successes} of {report.n} episodes, 95 % interval {lower:.3f} … {upper:.3f}, "
            f"threshold {self.config.threshold:.2f}"
        )
