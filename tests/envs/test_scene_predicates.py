"""Predicates of a scene on facts made by hand: each true and false at its thresholds; and facts out of states."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.scenes import predicates
from envs.scenes.facts import columns, names, remember
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.predicates import distances, encode
from envs.scenes.scene import load
from envs.scenes.words import PREDICATES

SCENE = load("playroom")
WORDS, LAYOUT = SCENE.vocabulary, SCENE.layout.arrays
GROUPS = [[thing.name for thing in group] for group in (SCENE.blocks, SCENE.slides, SCENE.lamps)]
COLUMNS = names(*GROUPS)
HALF = {block.name: block.half for block in SCENE.blocks}
DRAWER, SHELF = SCENE.containers
PLACE = {"spot": (0.45, 0.10)}
HOME = {"upright": (0.38, 0.05), "flat": (0.50, 0.05), "cube": (0.40, 0.15), "dice": (0.48, 0.18)}


def facts(**changes: float | tuple[float, ...]) -> np.ndarray:
    """A room at rest, all blocks standing where they began, open gripper aloft; ``cube=(x, y, z)`` places at once."""
    values: dict[str, float] = {"width": 0.08, "grip_command": 1.0, "tool_x": 0.3, "tool_y": -0.2, "tool_z": 0.25}
    for name, (x, y) in HOME.items():
        z = HALF[name][2]
        values |= {f"{name}_x": x, f"{name}_y": y, f"{name}_z": z, f"{name}_upright": 1.0, f"{name}_upright0": 1.0}
        values |= {f"{name}_x0": x, f"{name}_y0": y, f"{name}_z0": z}
    for name, value in changes.items():
        if not isinstance(value, tuple):
            values[name] = value
            continue
        end = "0" if name.endswith("0") else ""
        values |= {f"{name.removesuffix('0')}_{axis}{end}": v for axis, v in zip("xyz", value, strict=True)}
        if name in HALF:
            values[f"{name}_bottom"] = value[2] - HALF[name][2]
            values.setdefault(f"{name}_peak", values[f"{name}_bottom"])
    row = np.zeros(len(COLUMNS))
    for name, value in values.items():
        row[COLUMNS.index(name)] = value
    return row


def distance(row: np.ndarray, text: str) -> float:
    codes = encode([WORDS.parse(text.replace("spot", "anywhere"))], WORDS)
    if "spot" in text:
        codes.place[0, 0] = PLACE["spot"]
    out = np.zeros(4)
    distances(row, codes.count[0], codes.codes[0], codes.place[0], LAYOUT, out)
    return float(out[0])


def on_cube(x: float, y: float, z: float = 0.0) -> dict[str, tuple[float, ...]]:
    """Where the dice is, relative to lying on the cube."""
    return {"dice": (HOME["cube"][0] + x, HOME["cube"][1] + y, 0.04 + HALF["dice"][2] + z)}


def in_drawer(x: float, y: float, opened: float, z: float = 0.0) -> dict[str, tuple[float, ...] | float]:
    cx, cy, floor = DRAWER.centre
    return {"cube": (cx + x, cy + y + opened, floor + HALF["cube"][2] + z), "drawer_value": opened}


def on_shelf(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> tuple[float, float, float]:
    return SHELF.centre[0] + x, SHELF.centre[1] + y, SHELF.centre[2] + HALF["cube"][2] + z


def slid(dx: float, dy: float, **more: float) -> dict[str, tuple[float, ...] | float]:
    return {"cube": (HOME["cube"][0] + dx, HOME["cube"][1] + dy, HALF["cube"][2]), **more}


HELD = {"width": 0.04, "grip_command": -1.0}
CUBE = (*HOME["cube"], HALF["cube"][2])
UP = (*HOME["cube"], HALF["cube"][2] + 0.081)
LOWER = (*HOME["cube"], HALF["cube"][2] + 0.079)
SPOT = (*PLACE["spot"], HALF["cube"][2])
BEHIND = {"tool": (CUBE[0], CUBE[1], CUBE[2] + 0.005)}  # the hand is where the cube is
BEGAN = {"cube0": on_shelf()}
# a fact, what makes it hold, and changes of that each of which alone makes it false
CASES = [
    ("open(drawer)", {"drawer_value": 0.121}, [{"drawer_value": 0.119}, {"drawer_value": 0.0, "door_value": 0.16}]),
    ("closed(drawer)", {"drawer_value": 0.0199}, [{"drawer_value": 0.0201}]),
    ("open(door)", {"door_value": 0.121}, [{"door_value": 0.119}, {"door_value": 0.0, "drawer_value": 0.16}]),
    ("closed(door)", {"door_value": 0.0}, [{"door_value": 0.03}]),
    ("lit(green_lamp)", {"green_lamp_lit": 1.0}, [{"green_lamp_lit": 0.0, "red_lamp_lit": 1.0}]),
    ("toggled(red_lamp)", {"red_lamp_lit": 1.0}, [{"red_lamp_lit0": 1.0}, {"red_lamp_lit": 0.0}]),
    ("toggled(blue_lamp)", {"blue_lamp_lit0": 1.0}, [{"blue_lamp_lit": 1.0}, {"blue_lamp_lit0": 0.0}]),
    ("touching(cube)", {"tool": (CUBE[0], CUBE[1], CUBE[2] + 0.039)}, [{"tool": (CUBE[0], CUBE[1], CUBE[2] + 0.041)}]),
    (
        "holding(cube)",
        {"tool": (CUBE[0] + 0.025, CUBE[1], CUBE[2]), **HELD},
        [
            {"tool": (CUBE[0] + 0.027, CUBE[1], CUBE[2])},
            {"tool": (CUBE[0], CUBE[1] - 0.027, CUBE[2])},
            {"tool": (CUBE[0], CUBE[1], CUBE[2] + 0.031)},
            {"width": 0.053},
            {"width": 0.027},
            {"grip_command": 0.1},
        ],
    ),
    (
        "holding(flat)",
        {"tool": (HOME["flat"][0] + 0.055, HOME["flat"][1], 0.02), "width": 0.036, "grip_command": -1.0},
        [
            {"tool": (HOME["flat"][0] + 0.057, HOME["flat"][1], 0.02)},
            {"tool": (HOME["flat"][0], HOME["flat"][1] + 0.025, 0.02)},
            {"flat_yaw": math.pi / 2},  # then it reaches along y
        ],
    ),
    (
        "lifted(cube)",
        {"cube": UP, "tool": UP, **HELD},
        [{"cube": LOWER, "tool": LOWER}, {"grip_command": 1.0}, {"width": 0.08}, {"tool": CUBE}],
    ),
    (
        "at(cube, spot)",
        {"cube": (SPOT[0] + 0.029, SPOT[1], SPOT[2])},
        [
            {"cube": (SPOT[0] + 0.031, SPOT[1], SPOT[2])},
            {"cube": (SPOT[0], SPOT[1], SPOT[2] + 0.013)},
            {"cube_vx": 0.051},
            {"tool": (SPOT[0] + 0.029, SPOT[1], SPOT[2]), **HELD},
        ],
    ),
    ("at(cube, anywhere)", {}, [{"cube": (0.4, 0.15, 0.05)}, {"cube_vz": 0.06}]),
    (
        "placed(cube, spot)",
        {"cube": SPOT, "cube_peak": 0.021},
        [{"cube_peak": 0.019}, {"cube": CUBE}, {"cube_vy": -0.06}],
    ),
    (
        "on(dice, cube)",
        on_cube(0.021, 0.0),
        [on_cube(0.023, 0.0), on_cube(0.0, 0.0, 0.011), on_cube(0.0, 0.0, -0.011), {"dice_vz": 0.06}],
    ),
    ("on(cube, dice)", {"cube": (*HOME["dice"], 0.056)}, [{"cube": CUBE}]),
    (
        "inside(cube, drawer)",
        in_drawer(0.084, 0.0, 0.15),
        [
            in_drawer(0.086, 0.0, 0.15),
            {"drawer_value": 0.0},  # the drawer went back without it
            in_drawer(0.0, 0.086, 0.15),
            in_drawer(0.0, -0.086, 0.15),
            in_drawer(0.0, 0.0, 0.15, -0.009),
            in_drawer(0.0, 0.0, 0.15, 0.051),
            {"cube_vx": 0.06},
        ],
    ),
    ("inside(cube, drawer)", in_drawer(0.0, 0.03, 0.0), [{"drawer_value": 0.16}]),  # shut in
    (
        "inside(cube, shelf)",
        {"cube": on_shelf(0.049, 0.159)},
        [{"cube": on_shelf(0.051)}, {"cube": on_shelf(0.0, 0.161)}, {"cube": on_shelf(z=-0.01)}, {"cube": CUBE}],
    ),
    (
        "taken_out(cube, shelf)",
        {"cube": CUBE, **BEGAN},
        [{"cube0": CUBE}, {"cube": on_shelf(0.01)}, {"cube": (0.4, 0.15, 0.05)}, {"cube_vx": 0.06}],
    ),
    (
        "taken_out(cube, drawer)",
        {"cube": CUBE, "cube0": in_drawer(0.0, 0.03, 0.15)["cube"], "drawer_value0": 0.15},
        [{"drawer_value0": 0.0}, {"cube0": CUBE}],
    ),
    (
        "swept(cube)",
        slid(0.0, -0.081),
        [
            slid(0.0, -0.079),
            {"cube_peak": 0.021},  # was carried
            {"cube_vy": 0.06},
            {"tool": (CUBE[0], CUBE[1] - 0.081, CUBE[2]), **HELD},
            {"cube": (CUBE[0], CUBE[1] - 0.081, CUBE[2] + 0.013)},
        ],
    ),
    ("swept(cube)", slid(0.06, 0.06), [slid(0.05, 0.05)]),
    ("swept_left(cube)", slid(0.0, 0.081), [slid(0.0, 0.079), slid(0.2, 0.0), slid(0.0, -0.2), {"cube_peak": 0.021}]),
    ("swept_right(cube)", slid(0.0, -0.081), [slid(0.0, -0.079), slid(0.0, 0.2), {"cube_peak": 0.021}]),
    (
        "turned_left(flat)",
        {"flat_turn": math.radians(61)},
        [
            {"flat_turn": math.radians(59)},
            {"flat_turn": math.radians(-61)},
            {"flat": (HOME["flat"][0] + 0.101, HOME["flat"][1], 0.015)},
            {"flat": (*HOME["flat"], 0.03)},
            {"flat_vx": 0.06},
        ],
    ),
    ("turned_right(flat)", {"flat_turn": math.radians(-61)}, [{"flat_turn": math.radians(61)}, {"flat_turn": -1.0}]),
    (
        "toppled(upright)",
        {"upright_upright": 0.29},
        [{"upright_upright": 0.31}, {"upright_upright0": 0.89}, {"upright_vz": -0.06}],
    ),
    ("moved_left(cube)", slid(0.0, 0.081), [slid(0.0, 0.079), slid(0.2, 0.0), {"cube": (CUBE[0], CUBE[1] + 0.1, 0.0)}]),
    ("moved_right(cube)", slid(0.1, -0.081, cube_vy=-0.3), [slid(0.0, -0.079), slid(0.0, 0.2)]),  # still on its way
    ("moved_away(cube)", {"cube": (CUBE[0] + 0.081, *UP[1:]), "cube_peak": 0.1}, [slid(0.079, 0.0), slid(-0.2, 0.2)]),
    ("moved_near(cube)", slid(-0.081, 0.0), [slid(-0.079, 0.0), slid(0.0, 0.1)]),
]


@pytest.mark.parametrize(("text", "holding", "breaking"), CASES, ids=[f"{i} {case[0]}" for i, case in enumerate(CASES)])
def test_a_fact_holds_up_to_its_thresholds_and_not_beyond(text, holding, breaking):
    row = facts(**holding)
    assert distance(row, text) > 0
    assert distance(row, f"not {text}") == -distance(row, text)
    for change in breaking:
        assert distance(facts(**(holding | change)), text) < 0, change


def test_every_predicate_has_a_case():
    assert {text.split("(")[0] for text, _, _ in CASES} == set(PREDICATES)


@pytest.mark.parametrize("shape", ["lying", "standing"])
def test_a_lying_block_is_held_by_any_of_its_edges(shape):
    up = 1.0 if shape == "standing" else 0.0
    at = (*HOME["upright"], 0.018 if shape == "lying" else 0.045)
    row = facts(upright=at, upright_upright=up, upright_bottom=0.0, tool=at, width=0.036, grip_command=-1.0)
    assert distance(row, "holding(upright)") > 0
    far = (at[0], at[1] + (0.052 if shape == "lying" else 0.025), at[2])
    row = facts(upright=at, upright_upright=up, upright_bottom=0.0, tool=far, width=0.036, grip_command=-1.0)
    assert distance(row, "holding(upright)") < 0


def test_what_is_not_asked_is_infinitely_true():
    codes = encode([WORDS.parse("lit(red_lamp) & not open(door)"), ()], WORDS)
    out = np.zeros((2, 4))
    for i in range(2):
        distances(facts(door_value=0.16), codes.count[i], codes.codes[i], codes.place[i], LAYOUT, out[i])
    assert np.isposinf(out[0, 2:]).all()
    assert (out[0, :2] < 0).all()
    assert np.isposinf(out[1]).all()


@given(
    st.sampled_from(WORDS.terms()),
    st.lists(st.floats(-2, 2, width=32), min_size=len(COLUMNS), max_size=len(COLUMNS)),
)
@settings(max_examples=60, deadline=None)
def test_every_fact_of_any_row_is_a_number_that_a_negation_turns(term, row):
    there = distance(np.array(row), str(term))
    assert math.isfinite(there)
    assert distance(np.array(row), f"not {term}") == -there


def test_codes_number_things_as_the_layout_does():
    codes = encode([WORDS.parse("inside(dice, shelf) & open(door) & lit(blue_lamp) & placed(cube, anywhere)")], WORDS)
    found = {row[0]: row[1:].tolist() for row in codes.codes[0]}
    assert found == {
        predicates.INSIDE: [3, 1, 1],
        predicates.OPEN: [1, -1, 1],
        predicates.LIT: [2, -1, 1],
        predicates.PLACED: [2, -1, 1],
    }
    assert np.isnan(codes.place).all()


# -- facts out of states -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room() -> Callable[..., PlayroomVectorEnv]:
    env = PlayroomVectorEnv(1, "lifted(cube)", SCENE, threads=1)

    def begin(**poses: tuple[float, ...]) -> PlayroomVectorEnv:
        env.reset(seed=0)
        put(env, **poses)
        remember(env.latches[0], env.facts[0], LAYOUT)
        return env

    return begin


def put(env: PlayroomVectorEnv, **poses: tuple[float, ...] | float) -> None:
    """Writes x y z (yaw, roll) of blocks or values of slides into slot 0, and has its facts extracted."""
    for name, pose in poses.items():
        if not isinstance(pose, tuple):
            env.simulation.qpos[0, LAYOUT[1][0][GROUPS[1].index(name)]] = pose
            continue
        at = LAYOUT[0][0][GROUPS[0].index(name)]
        yaw, roll = (*pose[3:], 0.0, 0.0)[:2]
        w = math.cos(yaw / 2) * math.cos(roll / 2), math.cos(yaw / 2) * math.sin(roll / 2)
        z = math.sin(yaw / 2) * math.sin(roll / 2), math.sin(yaw / 2) * math.cos(roll / 2)
        env.simulation.qpos[0, at : at + 7] = *pose[:3], *w, *z
    env.simulation.qvel[0] = 0.0
    env._extract(env._all)


def fact(env: PlayroomVectorEnv, name: str) -> float:
    return float(env.facts[0, env.columns.index(name)])


def test_columns_are_named_in_the_order_of_the_facts(room):
    env = room()
    assert env.columns == COLUMNS
    assert len(COLUMNS) == env.facts.shape[1] == columns(*map(len, GROUPS))
    assert len(set(COLUMNS)) == len(COLUMNS)


@pytest.mark.parametrize("way", [1, -1], ids=["left", "right"])
def test_a_turn_adds_up_beyond_half_a_circle(room, way):
    env = room(flat=(0.45, 0.1, 0.015, 0.3))
    for degrees in range(10, 360, 10):
        put(env, flat=(0.45, 0.1, 0.015, 0.3 + way * math.radians(degrees)))
    assert fact(env, "flat_turn") == pytest.approx(way * math.radians(350))
    turned, other = ("turned_left(flat)", "turned_right(flat)")[::way]
    assert distance(env.facts[0], turned) > 0
    assert distance(env.facts[0], other) < 0
    put(env, flat=(0.45, 0.1, 0.015, 0.3 + way * math.radians(361)))
    assert fact(env, "flat_turn") == pytest.approx(way * math.radians(361))


def test_the_highest_point_of_the_way_is_kept(room):
    env = room(cube=(0.45, 0.1, 0.02))
    put(env, cube=(0.45, 0.15, 0.05))
    put(env, cube=(0.45, 0.2, 0.02))
    assert fact(env, "cube_peak") == pytest.approx(0.03)
    assert fact(env, "cube_bottom") == pytest.approx(0.0, abs=1e-12)
    assert distance(env.facts[0], "swept_left(cube)") < 0
    assert distance(env.facts[0], "placed(cube, anywhere)") > 0


def test_a_block_pushed_over_lies_lower_and_is_toppled(room):
    env = room(upright=(0.45, 0.1, 0.045, 0.4))
    assert fact(env, "upright_upright0") == pytest.approx(1.0)
    put(env, upright=(0.45, 0.1, 0.018, 0.4, math.pi / 2))
    assert fact(env, "upright_upright") == pytest.approx(0.0, abs=1e-9)
    assert fact(env, "upright_bottom") == pytest.approx(0.0, abs=1e-9)
    assert distance(env.facts[0], "toppled(upright)") > 0


def test_what_lies_in_the_drawer_goes_with_it(room):
    env = room(drawer=0.15, cube=(DRAWER.centre[0], DRAWER.centre[1] + 0.18, 0.036))
    assert distance(env.facts[0], "inside(cube, drawer)") > 0
    put(env, drawer=0.0, cube=(DRAWER.centre[0], DRAWER.centre[1] + 0.03, 0.036))
    assert distance(env.facts[0], "inside(cube, drawer) & closed(drawer)") > 0
    put(env, cube=(0.45, 0.1, 0.02))
    assert distance(env.facts[0], "taken_out(cube, drawer)") > 0


def test_a_button_switches_once_a_press(room):
    env = room()
    at = LAYOUT[2][0][0]
    lit = fact(env, "red_lamp_lit")
    seen = []
    for depth in (0.011, 0.013, 0.02, 0.008, 0.013, 0.005, 0.013):
        env.simulation.qpos[0, at] = -depth
        env._extract(env._all)
        seen.append(fact(env, "red_lamp_lit") != lit)
        assert seen[-1] == (distance(env.facts[0], "toggled(red_lamp)") > 0)
    assert seen == [False, True, True, True, True, True, False]  # again only once it came up in between
    assert fact(env, "red_lamp_depth") == pytest.approx(0.013)
