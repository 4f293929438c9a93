"""A scene's words: goals written and read, English said and understood, and what can't be said."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.scenes.scene import load
from envs.scenes.words import ANYWHERE, MAX_TERMS, PREDICATES, Term, Vocabulary, WordError

ROOM = load("playroom")
WORDS = Vocabulary(ROOM.vocabulary.kinds, {"left": (0.4, 0.2), "far_right": (0.5, 0.1)}, ROOM.vocabulary.says)
TERMS = WORDS.terms()
EVERY = [Term(term.predicate, term.args, positive) for term in TERMS for positive in (True, False)]


def words(kinds: Mapping[str, str], **says: str) -> Vocabulary:
    return Vocabulary(kinds, {}, says)


# -- goals ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from(EVERY))
def test_a_term_is_read_as_it_is_written(term):
    assert WORDS.parse(str(term)) == (term,)


@given(st.lists(st.sampled_from(TERMS), min_size=1, max_size=MAX_TERMS, unique=True), st.randoms())
def test_a_conjunction_is_read_in_any_order_and_reads_back(terms, random):
    try:
        read = WORDS.parse(" & ".join(map(str, terms)))
    except WordError as error:
        assert "exclude one another" in str(error)
        return
    shuffled = list(terms)
    random.shuffle(shuffled)
    assert WORDS.parse("  &".join(map(str, (*shuffled, shuffled[0])))) == read == tuple(sorted(terms))
    assert WORDS.parse(" & ".join(map(str, read))) == read


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("OPEN( drawer )", "open(drawer)"),
        ("not   Lit(red_lamp)", "not lit(red_lamp)"),
        ("inside(cube,drawer)&open(drawer)", "inside(cube, drawer) & open(drawer)"),
        ("lifted(cube) & lifted(cube)", "lifted(cube)"),
        ("placed(cube, anywhere)", "placed(cube, anywhere)"),
    ],
)
def test_spaces_case_and_repetitions_do_not_matter(text, same):
    assert " & ".join(map(str, WORDS.parse(text))) == same


@pytest.mark.parametrize(
    "text",
    [
        "open(drawer) & closed(drawer)",
        "closed(door) & lit(red_lamp) & open(door)",
        "lit(red_lamp) & not lit(red_lamp)",
        "swept_left(cube) & swept_right(cube)",
        "turned_left(flat) & turned_right(flat)",
        "moved_near(cube) & moved_away(cube)",
        "swept_left(cube) & moved_right(cube)",
        "on(cube, cube)",
    ],
)
def test_what_excludes_itself_is_impossible(text):
    with pytest.raises(WordError, match="impossible"):
        WORDS.parse(text)


@pytest.mark.parametrize(
    "text",
    ["not open(drawer) & not closed(drawer)", "open(drawer) & closed(door)", "swept_left(cube) & swept_right(dice)"],
)
def test_what_only_looks_like_it_is_possible(text):
    assert len(WORDS.parse(text)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("opened(drawer)", r"unknown predicate 'opened'; in this scene there are: open, closed, lit, .*toppled"),
        ("open(cube)", r"'cube' does not fit in open; valid: drawer, door"),
        ("inside(cube, door)", r"'door' does not fit in inside; valid: drawer, shelf"),
        ("at(cube, right)", r"'right' does not fit in at; valid: left, far_right, anywhere"),
        ("lit(Red_lamp)", r"'Red_lamp' does not fit in lit; valid: red_lamp, green_lamp, blue_lamp"),
        ("on(cube)", r"on takes 2 argument\(s\), not 1: cube"),
        ("open(drawer) &", r"'' is not a fact such as open\(drawer\)"),
        ("open drawer", r"'open drawer' is not a fact"),
        ("open(drawer) | lit(red_lamp)", r"is not a fact"),
        ("", r"'' is not a fact"),
        (
            "lit(red_lamp) & lit(green_lamp) & lit(blue_lamp) & open(door) & open(drawer)",
            r"has 5 terms; at most 4",
        ),
    ],
)
def test_a_goal_that_is_none_is_refused_with_what_is_possible(text, message):
    with pytest.raises(WordError, match=message) as found:
        WORDS.parse(text)
    assert isinstance(found.value, ValueError)
    assert "\n" not in str(found.value)


def test_a_predicate_needs_things_it_can_be_said_of():
    bare = words({"red": "block", "blue": "block"})
    assert set(bare.predicates()).isdisjoint({"open", "closed", "lit", "toggled", "inside", "taken_out"})
    assert "placed" in bare.predicates()  # anywhere is a place
    assert "on" not in [term.predicate for term in words({"red": "block"}).terms()]
    with pytest.raises(WordError, match=r"unknown predicate 'open'; in this scene there are: touching"):
        bare.parse("open(drawer)")


# -- English -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [WORDS, ROOM.vocabulary], ids=["with places", "as it is"])
def test_every_phrase_of_every_term_is_understood_as_that_term(vocabulary):
    for term in vocabulary.terms():
        for one in (term, Term(term.predicate, term.args, False)):
            for phrase in vocabulary._phrases(one):
                assert vocabulary.understand(phrase) == str(one), phrase
                assert vocabulary.understand(f"  Please, {phrase.upper()} now!") == str(one), phrase


@given(st.sets(st.sampled_from(EVERY), min_size=1, max_size=MAX_TERMS), st.integers(0, 1000))
@settings(max_examples=50)
def test_what_is_said_of_a_goal_is_understood_as_it(terms, seed):
    try:
        goal = " & ".join(map(str, WORDS.parse(" & ".join(map(str, terms)))))
    except WordError:
        return
    assert WORDS.understand(WORDS.describe(goal)) == goal
    assert WORDS.understand(WORDS.describe(goal, np.random.default_rng(seed))) == goal


def test_the_18_tasks_are_read_described_and_understood():
    tasks = ROOM.tasks
    assert len(tasks) == 18
    assert len({ROOM.vocabulary.describe(goal) for goal in tasks.values()}) == 18
    for goal in tasks.values():
        (term,) = ROOM.vocabulary.parse(goal)
        assert str(term) == goal
        assert ROOM.vocabulary.understand(ROOM.vocabulary.describe(goal)) == goal
    assert ROOM.vocabulary.describe(tasks["open_sliding"]) == "open the sliding door"
    assert ROOM.vocabulary.describe(tasks["rotate_left"]) == "turn the flat block to the left"


def test_paraphrases_are_drawn_by_the_generator_given():
    said = {WORDS.describe("lifted(cube)", np.random.default_rng(seed)) for seed in range(30)}
    assert said == {"lift the red cube", "pick up the red cube", "raise the red cube"}
    again = [WORDS.describe("lifted(cube)", np.random.default_rng(4)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("said", "goal"),
    [
        ("Open the drawer, then put the red cube into the drawer.", "inside(cube, drawer) & open(drawer)"),
        ("could you lift a red cube and turn off the green lamp please", "lifted(cube) & not lit(green_lamp)"),
        ("open(drawer) & lifted(cube)", "lifted(cube) & open(drawer)"),
        ("carry the red cube to far right", "placed(cube, far_right)"),
        ("move the red cube to the left and push the red cube away", "moved_away(cube) & moved_left(cube)"),
        (f"put the red cube at {ANYWHERE}", "placed(cube, anywhere)"),
    ],
)
def test_sentences_as_people_write_them(said, goal):
    assert WORDS.understand(said) == goal


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("make coffee", r"'make coffee' is not understood; I can: .*open the drawer.*press the button of the red lamp"),
        ("open the drawer and dance", r"'dance' is not understood"),
        ("open the drawer and close the drawer", r"impossible"),
        ("please", r"'please' asks for nothing; I can: "),
        ("", r"'' asks for nothing"),
    ],
)
def test_what_is_not_understood_is_answered_with_what_can_be_asked_for(said, message):
    with pytest.raises(WordError, match=message):
        WORDS.understand(said)


@pytest.mark.parametrize(
    "vocabulary",
    [
        words({"a": "block", "b": "block", "an": "block", "drawer": "drawer"}),
        words({"block1": "block", "block2": "block"}),
        words({"red": "block", "blue": "block"}, red="Red Bull", blue="Würfel no. 7"),
    ],
    ids=["articles", "digits", "capitals"],
)
def test_things_may_be_called_what_they_are_called(vocabulary):
    for term in vocabulary.terms():
        for phrase in vocabulary._phrases(term):
            assert vocabulary.understand(f"please {phrase}") == str(term)


# -- numbers -------------------------------------------------------------------------------------------------------


def test_things_are_numbered_as_the_scene_holds_them():
    for kind, group in (
        ("block", ROOM.blocks),
        ("slide", ROOM.slides),
        ("container", ROOM.containers),
        ("lamp", ROOM.lamps),
    ):
        assert [WORDS.index(kind, thing.name) for thing in group] == list(range(len(group)))


def test_every_predicate_can_be_said_in_english_and_in_the_playroom():
    assert WORDS.predicates() == tuple(PREDICATES)
    assert {term.predicate for term in TERMS} == set(PREDICATES)
