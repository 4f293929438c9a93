"""Reward terms on facts made by hand: success pays most, stages are ordered, safety only ever costs."""

from __future__ import annotations

import numpy as np
import pytest

from envs.goals import Goal, all_ground_goals
from envs.playroom.robot import JOINT_HIGH
from envs.playroom.scene import BLOCK_HALF, BUTTON, CABINET, CABINET_TOP, HANDLE
from envs.predicates import COLUMNS, MAX_LITERALS, encode, evaluate
from envs.rewards import COSTS, REWARD_TERMS, reward_terms
from envs.vector import TabletopVectorEnv
from envs.vocabulary import PLACES

REST = BLOCK_HALF
LEFT = PLACES["left"]


def rewards(goal: str, rows: np.ndarray, action: np.ndarray | None = None, lost: bool = False):
    """(terms [n, 3], costs [n, 6], success bool[n]) of facts rows under one goal."""
    rows = np.atleast_2d(rows)
    n = len(rows)
    codes = encode([Goal.parse(goal).final] * n)
    distance, terms, costs = np.zeros((n, MAX_LITERALS)), np.zeros((n, len(REWARD_TERMS))), np.zeros((n, len(COSTS)))
    evaluate(rows, codes.count, codes.codes, codes.place, distance)
    action = np.zeros((n, 5)) if action is None else np.atleast_2d(action)
    reward_terms(rows, action, codes.count, codes.codes, codes.place, distance, np.full(n, lost), terms, costs)
    return terms, costs, distance.min(axis=1) > 0


def stages_of_placing(
    make_facts, make_held, goal: str, target: tuple[float, float, float], **world: float
) -> np.ndarray:
    """Facts along the way: far, at the block, held, raised, above the target, down on it, fingers opening, let go."""
    x, y, z = target
    start = (0.60, 0.03, REST)
    return np.stack(
        [
            make_facts(red=start, tool=(0.45, 0.20, 0.25), **world),
            make_facts(red=start, tool=start, **world),
            make_held(start, **world),
            make_held((0.60, 0.03, REST + 0.06), red_peak=0.06, **world),
            make_held((x, y, z + 0.07), red_peak=0.08, **world),
            make_held((x, y, z + 0.005), red_peak=0.08, **world),
            make_facts(red=target, tool=target, width=0.047, red_peak=0.08, **world),
            make_facts(red=target, tool=(x, y, z + 0.08), red_peak=0.08, **world),
        ]
    )


@pytest.mark.parametrize(
    ("goal", "target", "world"),
    [
        ("placed(red, left)", (*LEFT, REST), {}),
        ("on(red, blue)", (0.45, 0.15, 3 * REST), {"blue": (0.45, 0.15, REST)}),
        ("on(red, cabinet)", (float(CABINET[0]) - 0.04, float(CABINET[1]), CABINET_TOP + REST), {}),
    ],
)
def test_every_stage_of_carrying_pays_more_than_the_one_before(make_facts, make_held, goal, target, world):
    rows = stages_of_placing(make_facts, make_held, goal, target, **world)
    terms, _, success = rewards(goal, rows)
    task = terms[:, REWARD_TERMS.index("task")]
    assert (np.diff(task[1:]) > 0).all(), task
    assert task[0] <= task[1]
    np.testing.assert_array_equal(success, [False] * 7 + [True])
    assert task[-1] == 1.0
    assert task[:-1].max() < 1.0
    reach = terms[:, REWARD_TERMS.index("reach")]
    assert reach[0] < reach[1] < reach[2] == reach[-1] == 1.0


@pytest.mark.parametrize(("goal", "drawer"), [("on(red, cabinet)", 0.0), ("inside(red, drawer)", 0.15)])
def test_carrying_nearer_pays_from_wherever_blocks_lie(make_held, goal, drawer):
    end = np.array([CABINET[0] - 0.04, CABINET[1] + drawer, 0.17])
    for corner in ((0.63, 0.21), (0.385, 0.21), (0.63, 0.0)):
        path = np.linspace(np.array([*corner, 0.17]), end, 12)[:8]
        task = rewards(goal, np.stack([make_held(tuple(spot), red_peak=0.15, drawer=drawer) for spot in path]))[0][:, 0]
        assert (np.diff(task) > 0.002).all(), (corner, task)


def test_lifting_is_staged(make_facts, make_held):
    rows = [
        make_facts(red=(0.45, 0.05, REST), tool=(0.45, 0.05, REST)),
        *(make_held((0.45, 0.05, REST + h)) for h in (0.0, 0.03, 0.06, 0.079, 0.09)),
    ]
    terms, _, success = rewards("lifted(red)", np.stack(rows))
    assert (np.diff(terms[:, 0]) > 0).all()
    np.testing.assert_array_equal(success, [False] * 5 + [True])


def test_drawer_and_lamp_pay_on_the_way_and_most_when_done(make_facts):
    handle = [float(CABINET[0] + HANDLE[0]), float(CABINET[1] + HANDLE[1]), float(HANDLE[2])]
    drawn = [make_facts(drawer=d, tool=(handle[0], handle[1] + d, handle[2])) for d in (0.0, 0.05, 0.1, 0.13)]
    assert (np.diff(rewards("open(drawer)", np.stack(drawn))[0][:, 0]) > 0).all()
    assert (np.diff(rewards("closed(drawer)", np.stack(drawn[:0:-1]))[0][:, 0]) > 0).all()
    far = make_facts(tool=(0.6, -0.1, 0.2))
    above = make_facts(tool=tuple(float(v) for v in BUTTON))
    pressed = make_facts(tool=tuple(float(v) for v in BUTTON), button=0.01)
    lit = make_facts(tool=(0.6, -0.1, 0.2), lamp=1.0)
    terms, _, _ = rewards("lit(lamp)", np.stack([far, above, pressed, lit]))
    assert terms[0, 1] < terms[1, 1]
    assert terms[0, 0] == terms[1, 0] < terms[2, 0] < terms[3, 0] == 1.0
    assert rewards("not lit(lamp)", lit)[0][0, 0] < rewards("not lit(lamp)", far)[0][0, 0] == 1.0


def test_a_conjunction_pays_for_each_part(make_facts):
    goal = "open(drawer) & lit(lamp)"
    none, one, both = (make_facts(**kw) for kw in ({}, {"lamp": 1.0}, {"lamp": 1.0, "drawer": 0.15}))
    task = rewards(goal, np.stack([none, one, both]))[0][:, 0]
    assert task[0] < task[1] < task[2] == 1.0
    assert task[1] >= 0.5


def test_safety_never_pays_and_each_cost_has_its_cause(make_facts):
    def costs(
        goal: str = "lifted(red)", action: np.ndarray | None = None, lost: bool = False, **changes
    ) -> dict[str, float]:
        terms, found, _ = rewards(goal, make_facts(**changes), action, lost)
        assert terms[0, 2] <= 0
        assert (terms[0, 2] == 0) == (found[0] == 0).all()
        return dict(zip(COSTS, found[0], strict=True))

    assert set(costs().values()) == {0.0}
    assert costs(joint1=float(JOINT_HIGH[0]) - 0.01)["joint_margin"] > 0.5
    assert costs(tool=(0.45, 0.1, 0.008))["table_press"] > 0
    assert costs(tool_vx=1.5)["overspeed"] > 0
    assert costs(blue_vx=0.5)["disturbance"] > 0 == costs(red_vx=0.5)["disturbance"]  # red is what is meant to move
    assert costs(drawer_rate=0.3)["disturbance"] > 0 == costs("open(drawer)", drawer_rate=0.3)["disturbance"]
    assert costs(button=0.01)["disturbance"] > 0 == costs("lit(lamp)", button=0.01)["disturbance"]
    assert costs(lost=True)["lost_block"] == 1.0
    assert 0 < costs(action=np.full(5, 0.5))["effort"] < costs(action=np.ones(5))["effort"] <= 1.0


def test_terms_stay_in_their_ranges_whatever_the_robot_does():
    goals = [str(goal) for goal in all_ground_goals()]
    env = TabletopVectorEnv(38, goals, max_steps=40, terminate_on_success=False, threads=1)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        info = env.step(rng.uniform(-1, 1, (38, 5)))[-1]
        task, reach, safety = info["reward_terms"].T
        assert ((task >= 0) & (task <= 1) & (reach >= 0) & (reach <= 1) & (safety <= 0)).all()
        assert np.isfinite(info["costs"]).all()
    assert env.facts.shape == (38, len(COLUMNS))
