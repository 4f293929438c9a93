"""The gate: fresh seeds, fixed sizes, and no reward for luck."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom

from embodied.core import EvalReport
from embodied.skills.gate import Gate, GateConfig, GateError, Question, seed_for
from embodied.skills.statistics import wilson

GOAL = "open(drawer)"


class Bandit:
    """Evaluates a candidate, which is its success rate on every goal, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str, int, int]] = []

    def __call__(self, rate: float, questions: Sequence[Question]) -> list[EvalReport]:
        return [self.one(rate, *question) for question in questions]

    def one(self, rate: float, goal: str, n: int, seed: int) -> EvalReport:
        self.asked.append((rate, goal, n, seed))
        noise = np.random.default_rng([seed, int(rate * 1e9)]).random(n)
        return EvalReport(goal, f"{rate}", seed, noise < rate)


def test_a_good_candidate_is_admitted_after_screen_gate_regression_and_confirmation() -> None:
    bandit = Bandit()
    decision = Gate(bandit, run_seed=0).decide(
        GOAL, [0.3, 0.95, 0.5], round=4, earlier_goals=["lit(lamp)", GOAL, "lit(lamp)"]
    )
    assert decision.admitted and decision.winner == 1 and decision.reason.startswith("admitted: gate 1")
    assert [(m.purpose, m.candidate, m.report.n) for m in decision.reports] == [
        ("screen", 0, 40), ("screen", 1, 40), ("screen", 2, 40),
        ("gate", 1, 200), ("regression", 1, 100), ("confirm", 1, 200),
    ]  # fmt: skip
    assert [m.purpose for m in decision.winner_reports] == ["screen", "gate", "regression", "confirm"]
    assert [m.report.goal for m in decision.reports].count("lit(lamp)") == 1
    seeds = {m.purpose: m.report.seed for m in decision.reports}
    assert len(set(seeds.values())) == 4  # nothing is looked at twice
    assert len({m.report.seed for m in decision.reports[:3]}) == 1  # the screen is paired
    assert decision.episodes == sum(n for _, _, n, _ in bandit.asked) == 620


@pytest.mark.parametrize("rates, reason", [([0.4], "at the screen"), ([0.75], "at the gate")])
def test_rejections_say_where_and_spend_no_more(rates: list[float], reason: str) -> None:
    decision = Gate(Bandit(), run_seed=0).decide(GOAL, rates, round=0)
    assert not decision.admitted and reason in decision.reason
    assert f"of {decision.reports[-1].report.n} episodes" in decision.reason
    assert "confirm" not in [m.purpose for m in decision.reports]


def test_forgetting_what_the_earlier_version_could_do_is_no_admission() -> None:
    def evaluate(candidate: float, questions: Sequence[Question]) -> list[EvalReport]:
        return [Bandit().one(0.5 if question[0] == "lit(lamp)" else candidate, *question) for question in questions]

    decision = Gate(evaluate, run_seed=0).decide(GOAL, [0.97], round=0, earlier_goals=["closed(drawer)", "lit(lamp)"])
    assert not decision.admitted and "forgetting 'lit(lamp)'" in decision.reason
    assert [m.purpose for m in decision.reports] == ["screen", "gate", "regression", "regression"]


def test_goals_decided_together_are_decided_as_alone() -> None:
    """What they ask at the same stage comes in one call, and some end earlier than others."""
    calls: list[list[Question]] = []

    def evaluate(candidate: float, questions: Sequence[Question]) -> list[EvalReport]:
        calls.append(list(questions))
        rates = {GOAL: candidate, "lit(lamp)": 0.3, "closed(drawer)": 0.76}
        return [Bandit().one(rates[question[0]], *question) for question in questions]

    goals = [GOAL, "lit(lamp)", "closed(drawer)"]
    together = Gate(evaluate, 0).decide_all(goals, [0.97], round=2)
    assert [[goal for goal, _, _ in call] for call in calls] == [goals, [GOAL, "closed(drawer)"], [GOAL]]
    assert [decision.admitted for decision in together] == [True, False, False]
    for goal, decision in zip(goals, together, strict=True):
        alone = Gate(evaluate, 0).decide(goal, [0.97], round=2)
        assert (alone.reason, len(alone.reports)) == (decision.reason, len(decision.reports))
    assert Gate(evaluate, 0).decide_all([], [0.97], round=2) == []


def test_the_gate_set_is_never_cut_short() -> None:
    bandit = Bandit()
    config = GateConfig(screen=5, n=300, confirm=250, regression=7)
    Gate(bandit, run_seed=0, config=config).decide(GOAL, [0.99], round=0, earlier_goals=["lit(lamp)"])
    Gate(bandit, run_seed=0, config=config).decide(GOAL, [0.75], round=1)  # close to hopeless early on
    assert [n for _, _, n, _ in bandit.asked] == [5, 300, 7, 250, 5, 300]


def test_seeds_are_bound_to_run_purpose_round_attempt_and_goal() -> None:
    seeds = {
        seed_for(run, purpose, round, attempt, goal)
        for run in range(4)
        for purpose in ("screen", "gate", "confirm", "regression")
        for round in range(20)
        for attempt in range(5)
        for goal in (GOAL, "lit(lamp)")
    }
    assert len(seeds) == 4 * 4 * 20 * 5 * 2 and all(0 <= seed < 1 << 48 for seed in seeds)
    assert seed_for(0, "gate", 0, 0, GOAL) == seed_for(0, "gate", 0, 0, GOAL)
    with pytest.raises(GateError, match="screen, gate, confirm, regression"):
        seed_for(0, "test", 0, 0, GOAL)


def best_of_ten(rate: float, trials: int) -> tuple[int, int]:
    """How often the best of ten equal candidates is admitted, and how often its screen alone would have
    admitted it.
    """
    config = GateConfig()
    admitted = lucky = 0
    for trial in range(trials):
        decision = Gate(Bandit(), trial, config).decide(GOAL, [rate - 1e-7 * i for i in range(10)], round=0)
        admitted += decision.admitted
        screen = next(m.report for m in decision.winner_reports if m.purpose == "screen")
        lucky += bool(wilson(screen.successes, screen.n)[0] >= config.threshold)
    return admitted, lucky


def pass_rate(rate: float, n: int = 200) -> float:
    """The chance that a set of n fresh episodes proves a candidate of this rate."""
    k = np.arange(n + 1)
    return float(binom.pmf(k, n, rate)[wilson(k, n)[0] >= 0.8].sum())


def test_the_best_of_ten_noisy_looks_is_admitted_no_more_often_than_its_rate_allows() -> None:
    trials = 400
    assert best_of_ten(0.7, trials)[0] == 0 and pass_rate(0.7) ** 2 < 1e-9
    admitted, lucky = best_of_ten(0.8, trials)  # exactly at the threshold
    assert lucky > 0.2 * trials  # the screen alone would be fooled by the winner's luck
    assert admitted <= binom.ppf(0.999, trials, pass_rate(0.8) ** 2)
    admitted, _ = best_of_ten(0.88, trials)
    expected = pass_rate(0.88) ** 2
    low, high = binom.ppf([0.001, 0.999], trials, expected)
    assert 0.5 < expected < 0.9 and low <= admitted <= high  # two independent looks at the winner's true rate


def test_an_evaluation_other_than_the_one_asked_for_is_refused() -> None:
    def short(candidate: object, questions: Sequence[Question]) -> list[EvalReport]:
        return [EvalReport(goal, "", seed, np.ones(n - 1, bool)) for goal, n, seed in questions]

    def judged(candidate: object, questions: Sequence[Question]) -> list[EvalReport]:
        return [EvalReport(goal, "", seed, np.ones(n, bool), kind="language") for goal, n, seed in questions]

    for evaluate in (short, judged):
        with pytest.raises(GateError, match="must be"):
            Gate(evaluate, 0).decide(GOAL, [1], round=0)
    with pytest.raises(GateError, match="no candidate"):
        Gate(short, 0).decide(GOAL, [], round=0)
    with pytest.raises(GateError, match="at least one episode"):
        GateConfig(n=0)


def test_a_recheck_is_a_regression_set_of_its_own_seed() -> None:
    gate = Gate(Bandit(), 0)
    measured = gate.recheck(0.4, GOAL, round=7)
    assert measured.purpose == "regression" and measured.report.n == 100 and gate.disproved(measured.report)
    assert measured.report.seed != gate.recheck(0.4, GOAL, round=8).report.seed
