"""Learning progress and the choice of goals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.curriculum.progress import progress
from embodied.curriculum.proposer import MODES, Record, candidates, choose, readiness
from envs.goals import Goal, GoalError, all_ground_goals, impossible_reason

SINGLES = [str(goal) for goal in all_ground_goals()]
evaluations = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
histories = st.lists(evaluations, max_size=14).map(tuple)
records = st.lists(
    st.builds(
        Record,
        st.sampled_from(SINGLES),
        histories,
        st.sampled_from(["open", "mastered", "frozen"]),
        st.floats(0, 200),
    ),
    max_size=19,
    unique_by=lambda record: record.goal,
)


@given(histories)
@settings(deadline=None)
def test_progress_is_bounded_and_antisymmetric(history: tuple[tuple[int, int], ...]) -> None:
    seen = progress(history)
    assert 0 < seen.rate < 1 and 0 < seen.uncertainty < 0.29 and -1 < seen.change < 1
    assert 0 <= seen.learning <= abs(seen.change)
    opposite = progress([(n - s, n) for s, n in history])
    assert opposite.change == pytest.approx(-seen.change, abs=0.02 if history else 0)
    if len(history) % 2 == 0 and len(history) <= 10:
        assert progress(history[::-1]).change == pytest.approx(-seen.change)


def test_progress_sees_change_and_not_the_size_of_a_window() -> None:
    rising = [(2, 20), (3, 20), (8, 20), (12, 20)]
    assert progress(rising).change == pytest.approx(0.37, abs=0.03) and progress(rising).learning > 0.2
    assert progress(rising[::-1]).change < -0.3 and progress(rising[::-1]).learning > 0.2
    assert abs(progress([(0, 5), (0, 200)]).change) < 0.01
    assert progress([(10, 20)]).change == 0.0 and progress([]).uncertainty == pytest.approx(0.2887, abs=1e-3)
    assert progress([(0, 20)] * 5 + [(10, 20)] * 5 + [(10, 20)] * 5).change == pytest.approx(0, abs=0.01)
    rng = np.random.default_rng(0)
    steady = [progress([(int(rng.binomial(20, 0.5)), 20) for _ in range(10)]).learning for _ in range(200)]
    assert np.mean(steady) < 0.02
    with pytest.raises(ValueError, match="5 successes of 3"):
        progress([(5, 3)])


@given(records, st.integers(0, 1000), st.sampled_from(MODES))
@settings(max_examples=60, deadline=None)
def test_only_permitted_goals_are_proposed_and_a_seed_fixes_them(rows: list[Record], seed: int, mode: str) -> None:
    excluded = ["open the drawer", "on(red, cabinet)", "lift the red block and turn on the lamp"]
    chosen = choose(rows, excluded=excluded, count=5, seed=seed, mode=mode)
    assert chosen == choose(rows, excluded=excluded, count=5, seed=seed, mode=mode)
    goals = [choice.goal for choice in chosen]
    assert len(goals) == len(set(goals)) == min(5, len(candidates(rows, excluded)))
    status = {Goal.parse(row.goal): row.status for row in rows}
    singles = set(all_ground_goals())
    for choice in chosen:
        assert status.get(choice.goal, "open") == "open" and impossible_reason(choice.goal) is None
        assert str(choice.goal) not in ("open(drawer)", "on(red, cabinet)", "lifted(red) & lit(lamp)")
        parts = [Goal.of(literal) for literal in choice.goal.literals]
        assert choice.goal in singles or all(status.get(part) == "mastered" for part in parts)
        assert choice.reason.endswith(".") and "\n" not in choice.reason


def test_pairs_come_once_singles_are_exhausted() -> None:
    rows = [Record(goal, ((19, 20),), "mastered") for goal in SINGLES]
    assert candidates([*rows[:-1], Record(SINGLES[-1])]) == [Goal.parse(SINGLES[-1])]
    pairs = candidates(rows, ["put the red block in the drawer and close it"])
    assert len(pairs) > 80 and all(len(pair.literals) == 2 for pair in pairs)
    assert Goal.parse("closed(drawer) & inside(red, drawer)") not in pairs
    assert Goal.parse("closed(drawer) & inside(blue, drawer)") in pairs
    done = [Record(str(pair), ((9, 10),), "mastered") for pair in pairs]
    assert choose([*rows, *done], excluded=["put the red block in the drawer and close it"]) == []
    assert "each alone" in choose(rows)[0].reason


def _draws(rows: list[Record], n: int = 200, **options: object) -> Counter[str]:
    return Counter(str(choose(rows, seed=seed, **options)[0].goal) for seed in range(n))  # type: ignore[arg-type]


def test_preferences() -> None:
    flat, rising = ((10, 20),) * 8, ((1, 20), (2, 20), (10, 20), (14, 20))
    frozen = [Record(goal, (), "frozen") for goal in SINGLES[6:]]
    still = [Record(goal, flat) for goal in SINGLES[:5]]
    assert _draws([*frozen, *still, Record(SINGLES[5], rising)]).most_common(1)[0] == (SINGLES[5], 200)
    unknown = _draws([*frozen, *still, Record(SINGLES[5])])
    assert unknown[SINGLES[5]] > 150
    repeated = _draws([*frozen, *still, Record(SINGLES[5])], recent=[SINGLES[5]] * 10)
    assert repeated[SINGLES[5]] < 60
    slow = _draws(
        [
            *frozen,
            *(Record(g, flat, steps=200) for g in SINGLES[:3]),
            *(Record(g, flat, steps=20) for g in SINGLES[3:6]),
        ]
    )
    assert sum(slow[goal] for goal in SINGLES[:3]) < sum(slow[goal] for goal in SINGLES[3:6])
    uniform = _draws([*frozen, *still, Record(SINGLES[5], rising)], n=600, mode="uniform")
    assert min(uniform.values()) > 60 and len(uniform) == 6


def test_the_first_goals_are_simple_and_neighbours_of_the_known_come_next() -> None:
    first = _draws([])
    assert sum(n for goal, n in first.items() if len(Goal.parse(goal).final[0].args) == 1) > 100
    known = [Goal.parse("open(drawer)"), Goal.parse("lifted(red)")]
    assert readiness(Goal.parse("inside(red, drawer)"), known) > readiness(Goal.parse("inside(blue, drawer)"), known)
    assert readiness(Goal.parse("lifted(blue)"), known) > readiness(Goal.parse("lit(lamp)"), known) == 0.0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown mode 'greedy'.*progress, uniform"):
        choose([], mode="greedy")
    with pytest.raises(ValueError, match="unknown status 'done'"):
        Record("lit(lamp)", (), "done")
    with pytest.raises(GoalError, match="unknown predicate"):
        Record("fly(red)")
    with pytest.raises(GoalError, match="'moon'"):
        choose([], excluded=["put the red block on the moon"])
