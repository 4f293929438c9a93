"""Goals: the closed grammar, its text form, what is impossible, and schemas."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.constraints import conflict
from envs.goals import (
    Goal,
    GoalError,
    Literal,
    all_ground_goals,
    bind,
    binding,
    ground,
    impossible_reason,
    schema_of,
)
from envs.vocabulary import PLACES, PREDICATES, SYMMETRIC, names_of

EVERY = sorted({Literal(name, args) for name, types in PREDICATES.items() for args in product(*map(names_of, types))})
literals = st.builds(lambda x, sign: x if sign else x.negated, st.sampled_from(EVERY), st.booleans())


def _consistent(stage: list[Literal]) -> bool:
    return not any(literal.negated in stage for literal in stage)


stages = st.lists(literals, min_size=1, max_size=4).filter(_consistent)
goals = st.lists(stages, min_size=1, max_size=3).map(lambda x: Goal(tuple(map(tuple, x))))


@given(goals)
@settings(max_examples=150, deadline=None)
def test_text_form_and_order_do_not_change_a_goal(goal: Goal) -> None:
    assert Goal.parse(str(goal)) == goal
    assert Goal.parse(str(goal).upper().replace(" & ", "&").replace("(", " ( ")) == goal
    shuffled = Goal(tuple(tuple(reversed(stage)) + stage for stage in goal.stages))
    assert shuffled == goal and hash(shuffled) == hash(goal)
    assert goal.implies(goal)
    assert set(goal.final) <= set(goal.literals)


@pytest.mark.parametrize(
    ("text", "naming"),
    [
        ("fly(red)", "unknown predicate 'fly'; valid are open, closed"),
        ("open(red)", "valid are drawer"),
        ("on(red, lamp)", "valid are red, blue, cabinet"),
        ("at(red, moon)", "valid are left, right, centre, near, far, anywhere"),
        ("on(red)", "takes 2 argument"),
        ("open(drawer) & not open(drawer)", "asks for both"),
        ("open drawer", "is not a literal"),
        ("open(drawer) ; ", "is not a literal"),
        ("", "is not a literal"),
    ],
)
def test_what_is_outside_the_grammar_is_refused_in_one_sentence(text: str, naming: str) -> None:
    with pytest.raises(GoalError, match=r"^[^\n]+$") as error:
        Goal.parse(text)
    assert naming in str(error.value)


def test_symmetric_facts_have_one_form() -> None:
    assert Goal.parse("next_to(blue, red)") == Goal.parse("next_to(red, blue)")
    assert Goal.parse("on(blue, red)") != Goal.parse("on(red, blue)")


@pytest.mark.parametrize(
    "text",
    [
        "on(red, red)",
        "on(red, blue) & on(blue, red)",
        "open(drawer) & closed(drawer)",
        "lifted(red) & on(red, blue)",
        "inside(red, drawer) & on(red, cabinet)",
        "lifted(red) & lifted(blue)",
        "clear(blue) & on(red, blue)",
        "placed(red, left) & at(red, right)",
        "lifted(red) & not holding(red)",
        "left_of(red, blue) & left_of(blue, red)",
        "placed(red, right) & placed(blue, left) & left_of(red, blue)",
        "next_to(red, blue) & inside(blue, drawer)",
        "open(drawer) ; open(drawer) & closed(drawer)",
    ],
)
def test_impossible_goals_have_a_reason(text: str) -> None:
    reason = impossible_reason(Goal.parse(text))
    assert reason and "\n" not in reason


@pytest.mark.parametrize(
    "text",
    [
        "open(drawer) ; closed(drawer)",
        "on(red, blue) ; on(blue, red)",
        "inside(red, drawer) & closed(drawer)",
        "inside(red, drawer) & inside(blue, drawer)",
        "on(red, blue) & on(blue, cabinet)",
        "placed(red, left) & placed(blue, right) & left_of(red, blue)",
        "not open(drawer) & not closed(drawer)",
        "placed(red, left) & at(red, left) & clear(red)",
    ],
)
def test_possible_goals_are_not_refused(text: str) -> None:
    assert impossible_reason(Goal.parse(text)) is None


def test_every_practised_goal_is_possible_alone_and_single() -> None:
    practised = all_ground_goals()
    assert len(practised) == len(set(practised)) == 19
    assert all(len(goal.literals) == 1 and impossible_reason(goal) is None for goal in practised)


def test_implication() -> None:
    def implies(one: str, other: str) -> bool:
        return Goal.parse(one).implies(Goal.parse(other))

    assert implies("open(drawer) & lit(lamp)", "lit(lamp)")
    assert not implies("lit(lamp)", "open(drawer) & lit(lamp)")
    assert implies("placed(red, left)", "at(red, left)") and not implies("at(red, left)", "placed(red, left)")
    assert implies("lifted(red)", "touching(red)")
    assert implies("closed(drawer)", "not open(drawer)") and not implies("not open(drawer)", "closed(drawer)")
    assert implies("open(drawer) ; lit(lamp) ; closed(drawer)", "open(drawer) ; closed(drawer)")
    assert not implies("open(drawer) ; closed(drawer)", "open(drawer)")  # true on the way is not true at the end
    assert not implies("closed(drawer) ; open(drawer)", "open(drawer) ; closed(drawer)")


def test_schemas_forget_names_and_the_sign_of_a_switch() -> None:
    def schema(text: str) -> str:
        return schema_of(Goal.parse(text))

    assert schema("on(red, blue)") == schema("on(blue, red)") == "on(?a:block, ?b:block)"
    assert schema("on(blue, cabinet)") == "on(?a:block, cabinet)"
    assert schema("lit(lamp)") == schema("not lit(lamp)") == "lit(lamp)"
    assert schema("placed(red, left)") == "placed(?a:block, ?p:place)"
    assert schema("not on(red, blue)") == "not on(?a:block, ?b:block)"
    assert schema("on(red, blue) & inside(blue, drawer)") == schema("on(blue, red) & inside(red, drawer)")
    assert schema("on(red, blue) & clear(red)") != schema("on(red, blue) & clear(blue)")
    assert binding(Goal.parse("on(blue, red)")) == {"?a": "blue", "?b": "red"}
    assert set(map(str, ground("lit(lamp)"))) == {"lit(lamp)", "not lit(lamp)"}
    assert list(map(str, ground("next_to(?a:block, ?b:block)"))) == ["next_to(red, blue)"]


@given(goals)
@settings(max_examples=60, deadline=None)
def test_grounding_gives_the_goals_of_a_schema_and_no_others(goal: Goal) -> None:
    schema = schema_of(goal)
    if sum(":" in part for part in schema.split("?")) > 4:
        return  # six places in one goal: the product is large and nothing new
    instances = ground(schema)
    assert goal in instances
    assert {schema_of(instance) for instance in instances} == {schema}
    unsigned = Goal.parse(str(goal).replace("not lit", "lit"))
    assert bind(schema, binding(goal)) == unsigned


def test_claimed_conflicts_never_hold_together() -> None:
    """The rules against the predicates themselves, on facts drawn around every interesting configuration."""
    predicates = pytest.importorskip("envs.predicates")
    rng = np.random.default_rng(0)
    column = {name: i for i, name in enumerate(predicates.COLUMNS)}
    n = 20_000
    x = np.zeros((n, len(column)))
    x[:, column["drawer"]] = rng.uniform(0, 0.2, n)
    x[:, column["lamp"]] = rng.integers(0, 2, n)
    from envs.playroom.scene import CABINET

    for block in ("red", "blue"):
        near_cabinet = rng.random(n) < 0.4
        x[:, column[f"{block}_x"]] = np.where(near_cabinet, CABINET[0], 0.42) + rng.normal(0, 0.05, n)
        x[:, column[f"{block}_y"]] = np.where(near_cabinet, CABINET[1], 0.05) + rng.normal(0, 0.08, n)
        spots = np.array(list(PLACES.values()))[rng.integers(len(PLACES), size=n)]
        for axis, index in (("x", 0), ("y", 1)):
            at_spot = slice(n // 2, None)
            x[at_spot, column[f"{block}_{axis}"]] = (spots[:, index] + rng.normal(0, 0.015, n))[at_spot]
        heights = rng.choice([0.02, 0.02, 0.02, 0.036, 0.06, 0.105, 0.145, 0.2], n)
        aside = x[:, column[f"{block}_y"]] > CABINET[1] + 0.3
        above = aside | (heights > 0.1)  # on the cabinet's side a block is on its top, or on the drawer's floor
        x[:, column[f"{block}_z"]] = np.where(above, heights, 0.036)
        x[:, column[f"{block}_peak"]] = rng.choice([0.0, 0.1], n)
    for top, base, stacked in (("red", "blue", slice(0, n // 10)), ("blue", "red", slice(n // 10, n // 5))):
        for axis, rise in (("x", 0.0), ("y", 0.0), ("z", 0.04)):
            x[stacked, column[f"{top}_{axis}"]] = x[stacked, column[f"{base}_{axis}"]] + rise
    red, blue = (x[:, [column[f"{block}_{axis}"] for axis in "xyz"]] for block in ("red", "blue"))
    x = x[np.linalg.norm(red - blue, axis=1) > 0.039]  # blocks are solid
    n = len(x)
    held = rng.choice(["red", "blue", ""], n)
    for block in ("red", "blue"):
        for axis in "xyz":
            x[held == block, column[f"tool_{axis}"]] = x[held == block, column[f"{block}_{axis}"]]
    x[:, column["width"]] = np.where(held == "", 0.08, 0.04)
    x[:, column["grip_command"]] = np.where(held == "", 1.0, -1.0)
    chosen = [lit for lit in EVERY if "anywhere" not in lit.args and len(set(lit.args)) == len(lit.args)]
    codes = predicates.encode([(literal,) for literal in chosen])
    truth = np.zeros((n, len(chosen)), bool)
    out = np.zeros((n, predicates.MAX_LITERALS))
    for j in range(len(chosen)):
        rows = np.zeros(n, np.int64) + j
        predicates.evaluate(x, codes.count[rows], codes.codes[rows], codes.place[rows], out)
        truth[:, j] = out[:, 0] > 0
    assert truth.any(0).all()  # every fact was exercised
    for i, j in combinations(range(len(chosen)), 2):
        if conflict(chosen[i], chosen[j]) and chosen[i].predicate not in SYMMETRIC:
            assert not (truth[:, i] & truth[:, j]).any(), (str(chosen[i]), str(chosen[j]))
