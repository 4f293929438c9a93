"""Predicates on facts made by hand: each true and false at its thresholds, and signs that a negation flips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.goals import Goal, Literal
from envs.monitor import truth_table
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import COLUMNS, MAX_LITERALS, encode, evaluate
from envs.vocabulary import PLACES, PREDICATES

CX, CY = (float(v) for v in CABINET)
LEFT_X, LEFT_Y = PLACES["left"]
REST = BLOCK_HALF
BLUE = (0.50, 0.10, REST)


def distances(row: np.ndarray, *texts: str) -> np.ndarray:
    """float64[len(texts)]: signed distances on one row of facts."""
    found = []
    for text in texts:
        codes = encode([(Literal.parse(text),)])
        out = np.zeros((1, MAX_LITERALS))
        evaluate(np.atleast_2d(row), codes.count, codes.codes, codes.place, out)
        found.append(out[0, 0])
    return np.array(found)


def holds(row: np.ndarray, text: str) -> bool:
    return bool(distances(row, text)[0] > 0)


HELD = {"width": 0.04, "grip_command": -1.0}
# literal, facts that make it hold, and changes of them each of which alone makes it false
CASES = [
    ("open(drawer)", {"drawer": 0.121}, [{"drawer": 0.119}]),
    ("closed(drawer)", {"drawer": 0.019}, [{"drawer": 0.021}, {"drawer": 0.15}]),
    ("lit(lamp)", {"lamp": 1.0}, [{"lamp": 0.0}]),
    ("touching(red)", {"tool": (0.45, 0.05, 0.055)}, [{"tool": (0.45, 0.05, 0.065)}]),
    (
        "holding(red)",
        {"tool": (0.45, 0.05, 0.03), **HELD},
        [{"tool": (0.45, 0.08, 0.02)}, {"width": 0.06}, {"width": 0.02}, {"grip_command": 1.0}],
    ),
    (
        "lifted(red)",
        {"red": (0.45, 0.05, REST + 0.081), "tool": (0.45, 0.05, REST + 0.081), **HELD},
        [{"red": (0.45, 0.05, REST + 0.079), "tool": (0.45, 0.05, REST + 0.079)}, {"grip_command": 1.0}],
    ),
    ("clear(red)", {}, [{"blue": (0.45, 0.05, 0.06)}, {"blue": (0.47, 0.05, 0.06)}]),
    (
        "at(red, left)",
        {"red": (LEFT_X + 0.029, LEFT_Y, REST)},
        [
            {"red": (LEFT_X + 0.031, LEFT_Y, REST)},
            {"red": (LEFT_X, LEFT_Y, REST + 0.011)},
            {"red_vx": 0.06},
            {"tool": (LEFT_X + 0.029, LEFT_Y, REST), "width": 0.04},
        ],
    ),
    (
        "placed(red, left)",
        {"red": (LEFT_X, LEFT_Y, REST), "red_peak": 0.041},
        [{"red_peak": 0.039}, {"red": (LEFT_X, LEFT_Y + 0.04, REST)}, {"red_vy": 0.06}],
    ),
    (
        "inside(red, drawer)",
        {"drawer": 0.15, "red": (CX, CY + 0.15, DRAWER_FLOOR + REST)},
        [
            {"drawer": 0.0},
            {"red": (CX + 0.09, CY + 0.15, DRAWER_FLOOR + REST)},
            {"red": (CX, CY + 0.15, 0.1)},
            {"red": (CX, CY + 0.15, 0.02)},
            {"red_vz": -0.2},
        ],
    ),
    (
        "on(red, cabinet)",
        {"red": (CX, CY, CABINET_TOP + REST)},
        [{"red": (CX + 0.11, CY, CABINET_TOP + REST)}, {"red": (CX, CY, CABINET_TOP)}, {"red_vx": 0.1}],
    ),
    (
        "on(red, blue)",
        {"blue": BLUE, "red": (0.52, 0.10, 3 * REST)},
        [
            {"red": (0.523, 0.10, 3 * REST)},
            {"red": (0.52, 0.10, 3 * REST + 0.011)},
            {"red_vx": 0.1},
            {"tool": (0.52, 0.10, 3 * REST), **HELD},
        ],
    ),
    (
        "left_of(red, blue)",
        {"blue": BLUE, "red": (0.50, 0.19, REST)},
        [
            {"red": (0.50, 0.01, REST)},
            {"red": (0.50, 0.14, REST)},
            {"red": (0.50, 0.25, REST)},
            {"red": (0.54, 0.19, REST)},
        ],
    ),
    (
        "in_front_of(red, blue)",
        {"blue": BLUE, "red": (0.41, 0.10, REST)},
        [
            {"red": (0.59, 0.10, REST)},
            {"red": (0.46, 0.10, REST)},
            {"red": (0.35, 0.10, REST)},
            {"red": (0.41, 0.14, REST)},
        ],
    ),
    (
        "next_to(red, blue)",
        {"blue": BLUE, "red": (0.50, 0.16, REST)},
        [{"red": (0.50, 0.17, REST)}, {"red_vx": 0.1}, {"red": (0.50, 0.16, 0.1)}],
    ),
]


@pytest.mark.parametrize(("text", "true", "breakers"), CASES, ids=[case[0] for case in CASES])
def test_a_predicate_holds_where_it_should_and_fails_past_each_threshold(make_facts, text, true, breakers):
    assert holds(make_facts(**true), text)
    for breaker in breakers:
        assert not holds(make_facts(**(true | breaker)), text), breaker
        assert holds(make_facts(**(true | breaker)), f"not {text}"), breaker


def test_every_predicate_has_a_case():
    assert {text.split("(")[0] for text, *_ in CASES} == set(PREDICATES)


def test_distance_crosses_zero_once_as_a_block_is_carried_past(make_facts):
    ys = np.linspace(LEFT_Y - 0.1, LEFT_Y + 0.1, 81)
    d = np.array([distances(make_facts(red=(LEFT_X, y, REST)), "at(red, left)")[0] for y in ys])
    inside = np.abs(ys - LEFT_Y) < 0.0299
    np.testing.assert_array_equal(d > 0, inside)
    away = ys < LEFT_Y - 0.03
    assert (np.diff(d[away]) > 0).all()  # nearer is better, all the way
    opening = [distances(make_facts(drawer=x), "open(drawer)")[0] for x in np.linspace(0, 0.16, 20)]
    assert (np.diff(opening) > 0).all()


def test_the_side_predicates_are_asymmetric_and_the_blocks_are_treated_alike(make_facts):
    one = make_facts(red=(0.50, 0.19, REST), blue=BLUE)
    other = make_facts(blue=(0.50, 0.19, REST), red=BLUE)
    assert holds(one, "left_of(red, blue)")
    assert not holds(one, "left_of(blue, red)")
    np.testing.assert_allclose(distances(one, "left_of(red, blue)"), distances(other, "left_of(blue, red)"))


LITERALS = [text for text, *_ in CASES]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, len(COLUMNS), elements=st.floats(-0.6, 0.6)), st.sampled_from(LITERALS))
def test_negation_flips_the_sign(row, text):
    positive, negative = distances(row, text, f"not {text}")
    assert negative == -positive
    assert np.isfinite(positive)


def test_conjunctions_keep_their_literals_apart(make_facts):
    codes = encode([Goal.parse("open(drawer) & not lit(lamp)").final, Goal.parse("at(red, anywhere)").final])
    out = np.zeros((2, MAX_LITERALS))
    evaluate(np.stack([make_facts(drawer=0.15)] * 2), codes.count, codes.codes, codes.place, out)
    np.testing.assert_allclose(out[0], [0.5, 0.03, np.inf, np.inf])  # sorted: lamp, drawer
    assert np.isnan(codes.place[1, 0]).all()  # to be drawn at reset


def test_too_many_literals_are_refused():
    texts = ("open(drawer)", "lit(lamp)", "clear(red)", "clear(blue)", "touching(red)")
    with pytest.raises(ValueError, match="5 literals; at most 4"):
        encode([tuple(Literal.parse(text) for text in texts)])


def test_a_truth_table_says_what_the_distances_say(make_facts):
    rows = np.stack([make_facts(**true) for _, true, _ in CASES])
    table = truth_table(rows, [Literal.parse(text) for text in LITERALS])
    assert table.shape == (len(CASES), len(CASES))
    assert table.diagonal().all()
    np.testing.assert_array_equal(table, [[holds(row, text) for text in LITERALS] for row in rows])
