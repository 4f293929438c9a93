"""Counting what was mastered without counting anything twice."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.skills.distinct import distinct_goals
from envs.goals import Goal


def implies(a: str, b: str) -> bool:
    return Goal.parse(a).implies(Goal.parse(b))


def test_implied_goals_places_and_means_do_not_count() -> None:
    goals = [
        "holding(red)", "touching(blue)", "at(red, left)", "lit(lamp)", "not lit(lamp)",
        "placed(red, left)", "placed(red, right)", "placed(blue, left)", "open(drawer)",
        "lit(lamp) & open(drawer)",
    ]  # fmt: skip
    counted = distinct_goals(goals, implies)
    assert counted == [
        "lit(lamp)",
        "not lit(lamp)",
        "placed(red, left)",
        "placed(blue, left)",
        "open(drawer)",
    ]
    assert distinct_goals([], implies) == distinct_goals(["holding(red)"], implies) == []


def test_required_goals_are_kept_even_where_it_costs() -> None:
    goals = [
        "open(drawer)",
        "lit(lamp)",
        "lit(lamp) & open(drawer)",
        "placed(red, left)",
        "placed(red, right)",
    ]
    assert distinct_goals(goals, implies) == ["open(drawer)", "lit(lamp)", "placed(red, left)"]
    required = ["lit(lamp) & open(drawer)", "placed(red, right)", "closed(drawer)"]
    assert distinct_goals(goals, implies, required) == ["lit(lamp) & open(drawer)", "placed(red, right)"]
    with pytest.raises(ValueError, match="both required"):
        distinct_goals(goals, implies, ["lit(lamp)", "lit(lamp) & open(drawer)"])


@settings(max_examples=80, deadline=None)
@given(st.sets(st.frozensets(st.integers(0, 4), min_size=1), min_size=1, max_size=9), st.data())
def test_no_antichain_is_larger(sets: set[frozenset[int]], data: st.DataObject) -> None:
    """Goals as sets of facts, where a superset implies its subsets; against trying every combination."""
    names = {"".join(f"f{i}(x)" for i in sorted(s)): s for s in sorted(sets, key=sorted)}

    def above(a: str, b: str) -> bool:
        return names[a] >= names[b]

    def free(chosen: tuple[str, ...]) -> bool:
        return not any(above(a, b) or above(b, a) for a, b in combinations(chosen, 2))

    required = [data.draw(st.sampled_from(sorted(names)))]
    for needed in ([], required):
        found = distinct_goals(list(names), above, needed)
        antichains = [c for k in range(len(names) + 1) for c in combinations(names, k) if set(needed) <= set(c)]
        assert free(tuple(found)) and set(needed) <= set(found)
        assert len(found) == max(len(c) for c in antichains if free(c))
