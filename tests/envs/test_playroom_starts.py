"""Where episodes of the playroom begin, and what scripted experts make of it."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from envs.scenes.experts import ScriptedExpert
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load

SCENE = load("playroom")
TASKS = list(SCENE.tasks)


def make(n: int = 4, goals: Any = None, **arguments: Any) -> PlayroomVectorEnv:
    return PlayroomVectorEnv(n, goals, SCENE, **{"max_steps": 20, "threads": 1, **arguments})


def column(env: PlayroomVectorEnv, name: str) -> np.ndarray:
    return env.facts[:, env.columns.index(name)]


# -- starts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> PlayroomVectorEnv:
    """Every task in 20 slots."""
    return make(20 * len(TASKS), autoreset_mode="Disabled", max_steps=1000)


def every_task(env: PlayroomVectorEnv, seed: int) -> None:
    env.reset(seed=seed, options={"which": np.arange(env.num_envs) % len(TASKS)})


def test_no_goal_holds_at_its_start(crowd):
    for seed in range(12):
        every_task(crowd, seed)
        held = crowd.distance.min(axis=1) > 0
        assert not held.any(), [crowd.goal_text(slot) for slot in np.flatnonzero(held)]


@pytest.mark.parametrize(
    "goal",
    [
        "not open(drawer)",
        "not closed(door)",
        "not lit(red_lamp)",
        "at(flat, anywhere)",
        "placed(upright, anywhere)",
        "inside(dice, drawer)",
        "not inside(cube, shelf)",
        "on(cube, flat)",
        "open(drawer) & lit(red_lamp) & inside(cube, shelf) & closed(door)",
    ],
)
def test_no_goal_of_ones_own_holds_at_its_start(crowd, goal):
    try:
        crowd.reset(seed=0, options={"goals": goal})
        assert not (crowd.distance.min(axis=1) > 0).any()
        (term, *_) = crowd.scene.vocabulary.parse(goal)
        if "anywhere" in term.args:  # a place was drawn, away from the block
            at = crowd.columns.index(f"{term.args[0]}_x")
            assert np.linalg.norm(crowd.codes.place[:, 0] - crowd.facts[:, at : at + 2], axis=1).min() > 0.079
    finally:
        crowd.set_goals(TASKS)


def test_nothing_begins_inside_anything(crowd):
    model = SCENE.model
    data = mujoco.MjData(model)
    for seed in (0, 1):
        every_task(crowd, seed)
        for slot in range(crowd.num_envs):
            data.qpos[:] = crowd.simulation.qpos[slot]
            mujoco.mj_forward(model, data)
            deep = [c for c in data.contact[: data.ncon] if c.dist < -0.002]
            assert not deep, [(crowd.goal_text(slot), [model.geom(g).name for g in c.geom], c.dist) for c in deep]


def test_things_stay_where_they_begin(crowd):
    every_task(crowd, 3)
    before = crowd.facts.copy()
    action = np.zeros((crowd.num_envs, 5))
    action[:, 4] = np.where(column(crowd, "grip_command") > 0, 1.0, -1.0)
    for _ in range(30):
        _, _, terminated, _, info = crowd.step(action)
    assert not (terminated.any() or info["bad_physics"].any() or info["lost"].any() or info["success"].any())
    for block in SCENE.blocks:
        at = crowd.columns.index(f"{block.name}_x")
        assert np.abs(crowd.facts[:, at : at + 3] - before[:, at : at + 3]).max() < 0.004, block.name
        assert np.abs(crowd.facts[:, at + 5 : at + 8]).max() < 0.02, block.name
    for slide in SCENE.slides:
        assert (
            np.abs(column(crowd, f"{slide.name}_value") - before[:, crowd.columns.index(f"{slide.name}_value")]).max()
            < 0.004
        )
    tool = crowd.facts[:, :4] - before[:, :4]
    assert np.abs(tool).max() < 0.01


def test_starts_are_fit_for_their_tasks(crowd):
    every_task(crowd, 5)
    text = np.array([crowd.goal_text(slot) for slot in range(crowd.num_envs)])
    assert (column(crowd, "drawer_value")[text == "open(drawer)"] < 0.12).all()
    assert (column(crowd, "drawer_value")[text == "closed(drawer)"] > 0.02).all()
    assert (column(crowd, "cube_z")[text == "taken_out(cube, shelf)"] > 0.06).all()
    assert (column(crowd, "cube_y")[text == "swept_left(cube)"] < 0.16).all()
    assert len(set(column(crowd, "red_lamp_lit"))) == 2  # lamps begin either way


# -- experts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["cube", "dice"])
def test_the_expert_moves_a_block_every_way(block):
    goals = [f"moved_{way}({block})" for way in ("left", "right", "away", "near")]
    env = make(48, goals, max_steps=201, autoreset_mode="Disabled", threads=0)
    env.reset(seed=5, options={"which": np.arange(48) % 4})
    assert not (env.distance[:, 0] > 0).any()
    expert = ScriptedExpert(env)
    for _ in range(200):
        info = env.step(expert.act())[4]
    env.close()
    rates = info["success"].reshape(12, 4).mean(axis=0)
    assert (rates >= 0.8).all(), dict(zip(goals, rates.tolist(), strict=True))


def solved(per_task: int, seed: int, steps: int = 200) -> np.ndarray:
    """Whether the scripted expert reached its goal, bool[tasks, per_task]."""
    n = per_task * len(TASKS)
    env = make(n, max_steps=steps + 1, autoreset_mode="Disabled", threads=0)
    env.reset(seed=seed, options={"which": np.arange(n) % len(TASKS)})
    expert = ScriptedExpert(env)
    for _ in range(steps):
        info = env.step(expert.act())[4]
    env.close()
    return info["success"].reshape(per_task, len(TASKS)).T


def test_experts_solve_most_of_all_tasks():
    assert solved(2, seed=0).mean() >= 0.8


@pytest.mark.slow
def test_experts_solve_nearly_all_of_all_tasks():
    rates = solved(50, seed=1).mean(axis=1)
    assert rates.mean() >= 0.95, dict(zip(TASKS, rates, strict=True))


def test_an_expert_needs_tool_control():
    with pytest.raises(ValueError, match="scripted experts need 'tool' control; this environment has 'joint'"):
        ScriptedExpert(make(1, control="joint"))
