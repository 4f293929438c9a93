"""BabyAI's words and facts, on pictures made by hand: no environment is needed."""

import numpy as np
import pytest

from envs.suites.babyai_facts import FAR, FORWARD, Tracker, encode, feature_size
from envs.suites.babyai_missions import Fact, MissionError, Thing, fact, key_of, parse_mission, thing

SLOT = np.zeros(1, np.int64)
CODES = {".": (1, 0, 0), "#": (2, 5, 0), "b": (6, 0, 0), "k": (5, 4, 0), "L": (4, 4, 2), "O": (4, 4, 0), " ": (0, 0, 0)}


def picture(*rows: str, carried: str = ".") -> np.ndarray:
    """uint8[1, 7, 7, 3] of what is seen, the robot at the bottom in the middle, looking up; rows from the far end."""
    image = np.zeros((1, 7, 7, 3), np.uint8)
    for y, row in enumerate((*[" " * 7] * (7 - len(rows)), *rows)):
        for x, letter in enumerate(row):
            image[0, x, y] = CODES[letter]
    image[0, 3, 6] = CODES[carried]
    return image


def tracked(*rows: str, carried: str = ".", heading: int = 0) -> Tracker:
    tracker = Tracker(1)
    tracker.begin(SLOT, picture(*rows, carried=carried), np.array([heading]))
    return tracker


def holds(tracker: Tracker, text: str) -> bool:
    return bool(tracker.judge([fact(text)], SLOT)[0])


@pytest.mark.parametrize(
    ("mission", "goal"),
    [
        ("go to the red ball", "facing(red ball)"),
        ("pick up a key in front of you", "carrying(key front)"),
        ("pick up the purple object", "carrying(purple object)"),
        ("open a door on your left", "open(door left)"),
        ("put the blue key next to the grey box", "beside(blue key, grey box)"),
        ("go to a box, then open the red door", "facing(box); open(red door)"),
        ("go to a box after you pick up the grey key", "carrying(grey key); facing(box)"),
        ("open the red door and go to the yellow ball", "open(red door); facing(yellow ball)"),
    ],
)
def test_a_mission_is_a_goal_in_stages(mission: str, goal: str):
    assert str(parse_mission(mission)) == goal
    for literal in parse_mission(mission).literals:
        assert fact(str(literal)) == literal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sing a song", "the mission 'sing a song' is not BabyAI's"),
        ("go to the pink ball", "'the pink ball' is no thing of BabyAI's: a colour"),
        ("pick up the red door", "carrying is said of what can be carried"),
        ("open the red ball", "open is said of a door"),
    ],
)
def test_other_words_are_refused_in_one_sentence(text: str, said: str):
    with pytest.raises(MissionError, match=said):
        parse_mission(text)


@pytest.mark.parametrize(("text", "said"), [("near(red ball)", "the facts are facing"), ("beside(key)", "of 2 things")])
def test_other_facts_are_refused(text: str, said: str):
    with pytest.raises(MissionError, match=said):
        fact(text)


def test_facts_of_one_picture():
    tracker = tracked("...b...", ".......", ".......", carried="k")
    assert not holds(tracker, "facing(red ball)") and not holds(tracker, "empty_handed()")
    assert holds(tracker, "carrying(yellow key)") and holds(tracker, "carrying(key)") and holds(tracker, "seen(object)")
    assert not holds(tracker, "carrying(red key)") and not holds(tracker, "seen(door)")
    assert holds(tracker, "not carrying(red key)")
    near = tracked("...b...", ".......")
    assert holds(near, "facing(red ball)") and holds(near, "facing(object)") and holds(near, "empty_handed()")


def test_doors():
    assert holds(tracked("...L...", "......."), "locked(yellow door)")
    assert holds(tracked("...L...", "......."), "barred()")
    door = tracked("...O...", ".......")
    assert holds(door, "open(door)") and not holds(door, "barred()") and not holds(door, "open(red door)")
    assert door.known(0) == [Thing("door", "yellow")] and key_of(thing("yellow door")) == Thing("key", "yellow")


def test_side_by_side_counts_corners_do_not():
    assert holds(tracked("..bk...", "......."), "beside(red ball, yellow key)")
    assert not holds(tracked("..b....", "...k...", "......."), "beside(red ball, yellow key)")


def test_places_are_seen_from_where_the_episode_began():
    tracker = tracked(".b.....", ".......", ".......")
    assert holds(tracker, "seen(red ball left)") and holds(tracker, "seen(red ball front)")
    assert not holds(tracker, "seen(red ball right)") and not holds(tracker, "seen(red ball behind)")


@pytest.mark.parametrize("heading", range(4))
def test_what_was_seen_is_remembered_where_it_lies(heading: int):
    """A step ahead, then a turn to the left: the ball that was ahead is to the right, a step nearer."""
    tracker = tracked("...b...", ".......", ".......", heading=heading)
    tracker.step(np.array([FORWARD]), picture("...b...", "......."), np.array([heading]))
    assert holds(tracker, "facing(red ball)")
    tracker.step(np.array([0]), picture("   .   "), np.array([(heading - 1) % 4]))
    assert not holds(tracker, "facing(red ball)") and holds(tracker, "seen(red ball)")
    view = tracker.features(SLOT, encode([thing("red ball")]), encode([None]))[0, : 4 * 121].reshape(4, 11, 11)
    assert np.argwhere(view[2]).tolist() == [[5, 6]] and not view[3].any()
    assert tracker.distance("facing", SLOT, [encode([thing("red ball")])])[0] == 1.0
    assert tracker.distance("facing", SLOT, [encode([thing("door")])])[0] == FAR


def test_a_step_into_a_wall_is_none():
    tracker = tracked("...#...", ".......")
    before = tracker.place.copy()
    tracker.step(np.array([FORWARD]), picture("...#...", "......."), np.zeros(1, np.int64))
    np.testing.assert_array_equal(tracker.place, before)


def test_a_view_tells_of_things_only_what_is_named():
    """Two worlds that differ in the colours of things that are not named look the same."""
    one, other = tracked("..bk...", "......."), tracked("..bk...", ".......")
    other.map[other.map[..., 0] == 6] = (7, 3, 0)
    key = encode([thing("yellow key")])
    first, second = (t.features(SLOT, key, encode([None])) for t in (one, other))
    np.testing.assert_array_equal(first, second)
    assert one.features(SLOT, key, key, named=False).shape == (1, feature_size(named=False))


def test_a_negated_fact_has_the_atom_of_the_other():
    assert Fact("seen", (thing("box"),), False).atom == "seen(box)"
