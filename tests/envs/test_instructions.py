"""English <-> goals: every paraphrase is read back, and what is not understood is said clearly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.goals import Goal, GoalError, Literal, UnknownWordError, parse_instruction
from envs.instructions import state_text
from envs.phrases import COMMANDS
from envs.vocabulary import PREDICATES, names_of

EVERY = [Literal(name, args) for name, types in PREDICATES.items() for args in product(*map(names_of, types))]
literals = st.builds(lambda x, sign: x if sign else x.negated, st.sampled_from(EVERY), st.booleans())


def _consistent(stage: list[Literal]) -> bool:
    return not any(literal.negated in stage for literal in stage)


stages = st.lists(literals, min_size=1, max_size=3).filter(_consistent)
goals = st.lists(stages, min_size=1, max_size=3).map(lambda x: Goal(tuple(map(tuple, x))))


@given(goals, st.integers(0, 2**32 - 1))
@settings(max_examples=400, deadline=None)
def test_every_paraphrase_is_read_back(goal: Goal, seed: int) -> None:
    assert parse_instruction(goal.text()) == goal
    text = goal.text(np.random.default_rng(seed))
    assert parse_instruction(text) == goal
    assert parse_instruction(text.upper().replace(" the ", " ").replace(" THE ", " ")) == goal
    assert goal.text(np.random.default_rng(seed)) == text


@pytest.mark.parametrize("literal", [x for x in EVERY if len(set(x.args)) == len(x.args)], ids=str)
def test_each_literal_has_many_paraphrases_and_a_plain_statement(literal: Literal) -> None:
    rng = np.random.default_rng(0)
    for goal in (Goal.of(literal), Goal.of(literal.negated)):
        drawn = {goal.text(rng) for _ in range(40)}
        assert len(drawn) >= 4
        assert all(parse_instruction(text) == goal for text in drawn)
    assert parse_instruction(state_text(literal)) == Goal.of(literal)
    assert parse_instruction(state_text(literal.negated)) == Goal.of(literal.negated)


def test_every_predicate_has_four_templates() -> None:
    assert {name for name, sign in COMMANDS if sign} == set(PREDICATES)
    assert all(len(set(row)) >= 4 for row in COMMANDS.values())


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("put the red block in the drawer and close it", "inside(red, drawer) & closed(drawer)"),
        ("Open the drawer. Put the red cube in it.", "open(drawer) ; inside(red, drawer)"),
        ("lift the blue cube, then put it on the red one", "lifted(blue) ; on(blue, red)"),
        ("lift red then put blue on it", "lifted(red) ; on(blue, red)"),
        ("put the red block on the blue block and then lift it", "on(red, blue) ; lifted(red)"),
        ("light the lamp, then open the drawer, turn it off", "lit(lamp) ; open(drawer) & not lit(lamp)"),
        ("Please, could you put the red, block on the cabinet?", "on(red, cabinet)"),
        ("put the red block to the left of the blue block", "left_of(red, blue)"),
        ("put the red block to the left", "placed(red, left)"),
        ("put the red block to the right of the blue block", "left_of(blue, red)"),
        ("put the red block behind the blue one", "in_front_of(blue, red)"),
        ("put the red block near the blue one", "next_to(blue, red)"),
        ("put the red block on the table", "placed(red, anywhere)"),
        ("put both blocks in the drawer", "inside(red, drawer) & inside(blue, drawer)"),
        ("put the red and the blue block in the drawer", "inside(red, drawer) & inside(blue, drawer)"),
        ("put red on the cabinet and the blue one in the drawer", "on(red, cabinet) & inside(blue, drawer)"),
        ("put blue on red and blue in the drawer", "on(blue, red) & inside(blue, drawer)"),
        ("make sure the light isn\u2019t on", "not lit(lamp)"),
        ("the drawer is shut and the lamp is off", "closed(drawer) & not lit(lamp)"),
        ("on(red, blue) ; lit(lamp)", "on(red, blue) ; lit(lamp)"),
    ],
)  # fmt: skip
def test_sentences_a_person_would_say(text: str, goal: str) -> None:
    assert parse_instruction(text) == Goal.parse(goal)


def test_unknown_words_are_named_with_what_is_known() -> None:
    with pytest.raises(UnknownWordError, match=r"^[^\n]+$") as error:
        parse_instruction("put the cat on the moon")
    assert error.value.words == ("cat", "moon")
    for part in (
        "'cat' and 'moon'",
        "red block",
        "drawer",
        "lamp",
        "centre",
        "anywhere",
        "stack",
        "open and close",
    ):
        assert part in str(error.value)
    with pytest.raises(UnknownWordError, match="'juggle'"):
        parse_instruction("open the drawer and juggle the red block")


@pytest.mark.parametrize(
    ("text", "naming"),
    [
        ("lift the block", "red or blue"),
        ("lift it", "'it'"),
        ("put the drawer on the lamp", "'drawer' does not fit"),
        ("blue block drawer", "not what it asks"),
        ("please", "asks for nothing"),
        ("", "asks for nothing"),
        ("turn on the lamp and turn off the lamp", "asks for both"),
    ],
)
def test_known_words_without_a_checkable_meaning(text: str, naming: str) -> None:
    with pytest.raises(GoalError, match=r"^[^\n]+$") as error:
        parse_instruction(text)
    assert naming in str(error.value)
    assert not isinstance(error.value, UnknownWordError)
