"""The simulator's truth about operators: planted in closed form, and experiments that change one thing alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.evaluation import operator_claims
from embodied.evaluation.operator_claims import compared, summarise
from embodied.evaluation.operator_truth import Tried, canonical, done, lifted, needed
from embodied.planning.execute import symbolic_state
from embodied.planning.operators import Operator
from embodied.training.experiments import VARIANTS, bases, experiment, vary
from embodied.training.kept import KeptStates
from embodied.training.operator_learning import learn_operator
from embodied.training.rollouts import Trial
from envs.goals import Goal
from envs.vector import TabletopVectorEnv

FACTS = ("open(drawer)", "inside(?a, drawer)", "on(?b, ?a)", "at(?b, left)")


def tried(rate: Any, bases: int = 60, seed: int = 0) -> list[Tried]:
    """Every base in all 16 combinations of four facts; ``rate`` (true facts → success) decides the outcome."""
    rng, out = np.random.default_rng(seed), Tried()
    for bits in range(16):
        true = frozenset(fact for k, fact in enumerate(FACTS) if bits >> k & 1)
        out.facts.append([true] * bases)
        out.success.append(rng.random(bases) < rate(true))
        out.usable.append(np.ones(bases, bool))
    return [out]


def test_planted_needs_are_found_and_nothing_else() -> None:
    def rate(true: frozenset[str]) -> float:
        return 0.9 if "open(drawer)" in true and "on(?b, ?a)" not in true else 0.1

    for seed in range(5):
        found = {v.literal for v in needed(tried(rate, seed=seed)) if v.holds}
        assert found == {"open(drawer)", "not on(?b, ?a)"}
    few = needed(tried(rate, bases=1))
    assert all(v.holds is None for v in few)  # too few pairs decide nothing


def test_what_another_fact_makes_up_for_is_no_need() -> None:
    """In the drawer it fails only while that is closed."""
    verdicts = needed(tried(lambda true: 0.05 if "inside(?a, drawer)" in true and "open(drawer)" not in true else 0.95))
    assert not any(v.holds for v in verdicts)
    assert needed(tried(lambda true: 0.8 if "open(drawer)" in true else 0.75))[0].holds is False


def test_facts_that_cannot_differ_alone_are_one() -> None:
    assert canonical("not clear(?a)") == "on(?b, ?a)" and canonical("clear(red)") == "not on(blue, red)"
    assert canonical("not placed(?a, left)") == "not at(?a, left)" and canonical("lifted(?b)") == "holding(?b)"
    assert canonical("open(drawer)") == "open(drawer)"


def counted(successes: int, moved: int) -> Operator:
    operator = Operator("lifted(?a:block)")
    for i in range(successes):
        start, end = {"on(red, cabinet)": True}, {"lifted(red)": True, "on(red, cabinet)": i >= moved}
        operator.observe(Goal.parse("lifted(red)"), start, end, True)
    return operator


def test_effects_are_judged_by_their_rate_and_undecided_near_the_threshold() -> None:
    def verdict(operator: Operator) -> bool | None:
        return {v.literal: v for v in done(operator)}["not on(?a, cabinet)"].holds

    assert verdict(counted(40, 38)) is True and verdict(counted(40, 4)) is False
    assert verdict(counted(40, 26)) is None and verdict(counted(5, 5)) is None


def test_precision_and_recall_of_a_learnt_operator() -> None:
    learnt = counted(40, 38)
    needs = needed(tried(lambda true: 0.9 if "on(?b, ?a)" not in true else 0.1))
    row = compared(learnt, needs, done(counted(60, 3)))
    assert row["precondition"]["missed"] == ["not on(?b, ?a)"] and row["delete"]["wrong"] == ["not on(?a, cabinet)"]
    assert row["add"]["right"] == ["lifted(?a)"]
    brier = {"predicted": 0.1, "base rate": 0.2, "n": 10}
    schema = {"learnt": row, "of the run": row, "brier": brier, "executions": 400}
    found = summarise({"run": {"lifted(?a:block)": schema}}, 1.0)
    assert found.figure == 0.5 and found.details["all"]["precision"] == 0.5 and all(found.conditions.values())
    learnt.forbid(Goal.parse("lifted(red)"), ["on(blue, red)"], "it is below")  # a lesson of one fact is a need
    assert compared(learnt, needs, [])["precondition"]["right"] == ["not on(?b, ?a)"]
    assert np.isnan(summarise({}, 1.0).figure)


@pytest.fixture(scope="module")
def still() -> Any:
    class Still:
        """Keeps arm and gripper where they are."""

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
            return np.zeros((len(observation), 5), np.float32), None

    return Still()


def test_variants_change_what_they_say_and_mostly_nothing_else() -> None:
    base = bases("open(drawer)", 12, 3, None)
    env = TabletopVectorEnv(12, ["open(drawer)"], terminate_on_success=False, threads=1, autoreset_mode="Disabled")
    operator, goal = Operator("open(drawer)"), Goal.parse("open(drawer)")
    before = lifted(operator, goal, vary(env, base, ("as it is",), 0)[0].facts)
    wanted = {
        ("red", "drawer"): "inside(red, drawer)", ("blue", "cabinet"): "on(blue, cabinet)", ("lamp",): "lit(lamp)",
        ("red", "other"): "on(red, blue)", ("blue", "left"): "at(blue, left)",
        ("blue", "left_of"): "left_of(blue, red)",
    }  # fmt: skip
    for variant, fact in wanted.items():
        assert variant in VARIANTS
        varied, lost = vary(env, base, variant, 1)
        after = lifted(operator, goal, varied.facts)
        assert not lost.any()
        changed = [fact in one ^ two for one, two in zip(before, after, strict=True)]
        alone = [one ^ two == {fact} for one, two in zip(before, after, strict=True)]
        assert np.mean(changed) > 0.5 and np.mean(alone) > 0.25, variant
    shut = symbolic_state(vary(env, base, ("shut",), 2)[0].facts)
    assert all(state["closed(drawer)"] for state in shut)
    again = vary(env, base, ("red", "table"), 5)[0].states
    np.testing.assert_array_equal(again, vary(env, base, ("red", "table"), 5)[0].states)  # same seed, same bits
    env.close()


def test_an_operator_is_learnt_from_executions_and_experiments(still: Any, tmp_path: Path) -> None:
    steps: list[int] = []
    kept = KeptStates()
    operator, executed = learn_operator(
        still, "open(drawer)", [Trial("open(drawer)", 6, 1)], kept, threads=1, on_steps=steps.append
    )
    found = experiment(still, "open(drawer)", 8, 2, None, threads=1)
    assert executed == {"open(drawer)": [0, 6]} or executed["open(drawer)"][1] == 6
    assert sum(map(sum, operator.starts.values())) + operator.trivial == 18 and len(kept) == 6 and sum(steps) > 0
    assert len(found.start) == len(found.end) == 8
    assert operator.invented == []


def test_executions_of_the_claim_are_made_once(still: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_claims, "EXECUTIONS", 6)
    made = operator_claims.executed("open(drawer)", still, None, 1, 0.05)
    assert made["varied_start"].shape[:2] == made["varied_success"].shape == (len(VARIANTS), 4)
    row = operator_claims.judge("open(drawer)", Operator("open(drawer)"), {"open(drawer)": made})
    assert row["executions"] == made["fresh_success"].size + made["varied_success"].size
    assert 0 <= row["brier"]["predicted"] <= 1
