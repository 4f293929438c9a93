"""Following instructions on facts alone: holding, order of stages, what was carried, slots apart."""

from __future__ import annotations

import numpy as np
import pytest

from envs.goals import Goal, Literal
from envs.monitor import STATE_LITERALS, InstructionMonitor, truth_table
from envs.playroom.oracle import ScriptedOracle
from envs.playroom.scene import CABINET, CABINET_TOP
from envs.vector import TabletopVectorEnv
from envs.vocabulary import PLACES


def follow(monitor: InstructionMonitor, *looks: np.ndarray) -> list[bool]:
    """Success of slot 0 after each look."""
    return [bool(monitor.update(np.atleast_2d(look))[0]) for look in looks]


def test_success_latches_once_the_goal_has_held_for_long_enough(make_facts):
    shut, drawn = make_facts(), make_facts(drawer=0.15)
    monitor = InstructionMonitor([Goal.parse("open(drawer)")], hold=3)
    assert follow(monitor, drawn, drawn, shut, drawn, drawn, drawn, shut) == [False] * 5 + [True] * 2


def test_a_literal_must_hold_without_a_gap_and_all_of_a_stage_together(make_facts):
    goal = Goal.parse("open(drawer) & lit(lamp)")
    one, other, both = make_facts(drawer=0.15), make_facts(lamp=1.0), make_facts(drawer=0.15, lamp=1.0)
    monitor = InstructionMonitor([goal], hold=2)
    assert follow(monitor, one, other, one, both, one, both, both) == [False] * 6 + [True]


def test_stages_come_in_order_each_held(make_facts):
    goal = Goal.parse("open(drawer) ; closed(drawer)")
    shut, drawn = make_facts(), make_facts(drawer=0.15)
    monitor = InstructionMonitor([goal], hold=2)
    assert follow(monitor, shut, shut, shut) == [False] * 3  # it is closed, but was never opened
    assert monitor.stage[0] == 0
    assert follow(monitor, drawn, drawn) == [False] * 2
    assert monitor.stage[0] == 1
    assert follow(monitor, shut, shut) == [False, True]


def test_what_was_placed_stays_placed_while_it_lies_there(make_facts):
    x, y = PLACES["left"]
    goal = Goal.parse("placed(red, left) & lit(lamp)")
    lying = {"red": (x, y, 0.02)}
    carried, later = make_facts(**lying, red_peak=0.08), make_facts(**lying, lamp=1.0)  # a new goal forgets the peak
    monitor = InstructionMonitor([goal], hold=2)
    assert follow(monitor, carried, later, later) == [False, False, True]
    pushed = InstructionMonitor([goal], hold=2)
    assert follow(pushed, later, later, later) == [False] * 3  # it was never carried
    away = InstructionMonitor([goal], hold=2)
    gone = make_facts(red=(x + 0.1, y, 0.02), lamp=1.0)
    assert follow(away, carried, gone, gone, later, later) == [False] * 4 + [True]


def test_slots_follow_their_own_goals(make_facts):
    goals = [Goal.parse(text) for text in ("open(drawer)", "not lit(lamp)", "open(drawer) ; lit(lamp)")]
    monitor = InstructionMonitor(goals, hold=1)
    looks = np.stack([make_facts(drawer=0.15)] * 3)
    np.testing.assert_array_equal(monitor.update(looks), [True, True, False])
    looks = np.stack([make_facts(lamp=1.0)] * 3)
    np.testing.assert_array_equal(monitor.update(looks), [True, True, True])
    assert monitor.holds(looks, 1) == {"not lit(lamp)": False}
    assert monitor.holds(looks, 2) == {"lit(lamp)": True, "open(drawer)": False}


def test_the_truth_table_has_the_symbolic_state(make_facts):
    table = truth_table(np.stack([make_facts(), make_facts(drawer=0.15, lamp=1.0)]))
    assert table.shape == (2, len(STATE_LITERALS))
    said = [{str(literal) for literal, true in zip(STATE_LITERALS, row, strict=True) if true} for row in table]
    assert said[0] == {"closed(drawer)", "clear(red)", "clear(blue)"}
    assert said[1] == {"open(drawer)", "lit(lamp)", "clear(red)", "clear(blue)"}


def test_anywhere_is_any_spot_on_the_table(make_facts):
    literals = [Literal.parse(text) for text in ("placed(red, anywhere)", "at(red, anywhere)")]
    rows = np.stack(
        [
            make_facts(red_peak=0.1),
            make_facts(),
            make_facts(red_peak=0.1, red_vx=0.2),
            make_facts(red_peak=0.1, red=(float(CABINET[0]), float(CABINET[1]), CABINET_TOP + 0.02)),
        ]
    )
    np.testing.assert_array_equal(truth_table(rows, literals), [[1, 1], [0, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize("goal", ["open(drawer)", "lifted(red)"])
def test_the_monitor_agrees_with_the_environment(goal):
    env = TabletopVectorEnv(8, goal, max_steps=110, terminate_on_success=False, autoreset_mode="Disabled", threads=1)
    env.reset(seed=4)
    oracle, monitor = ScriptedOracle(env), InstructionMonitor(env.goals * 8, hold=5)
    for _ in range(100):
        info = env.step(oracle.act())[4]
        np.testing.assert_array_equal(monitor.update(env.facts), info["success"])
    assert monitor.success.mean() > 0.5
