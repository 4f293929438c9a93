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
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.core import ADMISSION_THRESHOLD, PURPOSES, EvalReport
from embodied.skills.statistics import wilson

Question = tuple[str, int, int]
"""(goal text, n, seed): resets 0 … n-1 under the seed, judged by the simulator."""

Evaluate = Callable[[Any, Sequence[Question]], Sequence[EvalReport]]
"""evaluate(candidate, questions): a report a question, in order. Many are asked at once, to be answered in parallel."""


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
        one. As `decide_all`; ``earlier_goals`` are this goal's.
        """
        earlier = {goal: earlier_goals}
        return self.decide_all([goal], candidates, round=round, attempt=attempt, earlier_goals=earlier)[0]

    def decide_all(
        self,
        goals: Sequence[str],
        candidates: Sequence[Any],
        *,
        round: int,
        attempt: int = 0,
        earlier_goals: Mapping[str, Sequence[str]] | None = None,
    ) -> list[GateDecision]:
        """A decision a goal, each as if made alone; what they ask at the same stage is evaluated together.

        `attempt` counts the decisions about a goal within the round; `earlier_goals` gives for a goal those that
        the earlier version of its schema has mastered. GateError without candidates.
        """
        if not candidates:
            raise GateError(f"there is no candidate for '{', '.join(goals)}'; practise one before asking the gate")
        earlier = earlier_goals or {}
        courses = [self._course(goal, len(candidates), tuple(earlier.get(goal, ()))) for goal in goals]
        open_questions = dict(enumerate(map(next, courses)))
        decided: dict[int, GateDecision] = {}
        while open_questions:
            answers: dict[int, list[EvalReport]] = {i: [] for i in open_questions}
            for position, candidate in enumerate(candidates):
                asked = [(i, q) for i, questions in open_questions.items() for q in questions if q[0] == position]
                reports = self._measure(candidate, [q[1:] for _, q in asked], round, attempt) if asked else []
                for (i, _), report in zip(asked, reports, strict=True):
                    answers[i].append(report)
            for i, reports in answers.items():
                try:
                    open_questions[i] = courses[i].send(reports)
                except StopIteration as end:
                    decided[i] = end.value
                    del open_questions[i]
        return [decided[i] for i in range(len(goals))]

    def _course(
        self, goal: str, candidates: int, earlier: Sequence[str]
    ) -> Generator[list[tuple[int, str, str, int]], list[EvalReport], GateDecision]:
        """A decision's course: yields what it asks, (candidate, purpose, goal, n) each, and is sent the reports."""
        config, reports = self.config, []

        def decision(admitted: bool, reason: str) -> GateDecision:
            return GateDecision(goal, admitted, reason, winner, tuple(reports))

        screens = yield [(i, "screen", goal, config.screen) for i in range(candidates)]
        reports += [Measured("screen", i, report) for i, report in enumerate(screens)]
        winner = int(np.argmax([report.successes for report in screens]))
        if self.disproved(screens[winner]):
            return decision(False, f"rejected at the screen: {self._describe(screens[winner])}")
        (gate,) = yield [(winner, "gate", goal, config.n)]
        reports.append(Measured("gate", winner, gate))
        if not self.proved(gate):
            return decision(False, f"rejected at the gate: {self._describe(gate)}")
        for text in dict.fromkeys(earlier):
            if text == goal:
                continue
            (report,) = yield [(winner, "regression", text, config.regression)]
            reports.append(Measured("regression", winner, report))
            if self.disproved(report):
                return decision(False, f"rejected for forgetting '{text}': {self._describe(report)}")
        (confirm,) = yield [(winner, "confirm", goal, config.confirm)]
        reports.append(Measured("confirm", winner, confirm))
        if not self.proved(confirm):
            return decision(False, f"rejected at the confirmation: {self._describe(confirm)}")
        return decision(True, f"admitted: gate {self._describe(gate)}; confirmation {self._describe(confirm)}")

    def recheck(self, candidate: Any, goal: str, *, round: int, attempt: int = 0) -> Measured:
        """A regression set for a skill admitted earlier: once recorded, it deprecates what it disproves."""
        return Measured(
            "regression",
            0,
            self._measure(candidate, [("regression", goal, self.config.regression)], round, attempt)[0],
        )

    def proved(self, report: EvalReport) -> bool:
        """Whether a set's lower bound reaches the threshold."""
        return bool(wilson(report.successes, report.n)[0] >= self.config.threshold)

    def disproved(self, report: EvalReport) -> bool:
        """Whether a set's upper bound lies below the threshold."""
        return bool(wilson(report.successes, report.n)[1] < self.config.threshold)

    def _measure(
        self, candidate: Any, asked: Sequence[tuple[str, str, int]], round: int, attempt: int
    ) -> Sequence[EvalReport]:
        """A report for each (purpose, goal, n)."""
        questions = [(goal, n, seed_for(self.run_seed, purpose, round, attempt, goal)) for purpose, goal, n in asked]
        reports = self.evaluate(candidate, questions)
        for question, report in zip(questions, reports, strict=True):
            wanted, given = (*question, "simulator"), (report.goal, report.n, report.seed, report.kind)
            if wanted != given:
                raise GateError(
                    f"the evaluation of '{question[0]}' must be (goal, n, seed, kind) = {wanted}, but it was {given}"
                )
        return reports

    def _describe(self, report: EvalReport) -> str:
        lower, upper = report.interval
        return (
            f"{report.successes} of {report.n} episodes, 95 % interval {lower:.3f} … {upper:.3f}, "
            f"threshold {self.config.threshold:.2f}"
        )
