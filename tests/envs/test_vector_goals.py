"""Goals of running slots: success, stages, goals given and taken away, states continued, goals as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.predicates import COLUMNS
from envs.vector import TabletopVectorEnv

GOALS = ["open(drawer)", "lit(lamp)", "placed(red, anywhere)", "lifted(blue)"]


def make(n: int = 4, goals: Any = GOALS, **kwargs: Any) -> TabletopVectorEnv:
    return TabletopVectorEnv(n, goals, threads=1, **{"max_steps": 20, **kwargs})


def chance(env: TabletopVectorEnv, steps: int, seed: int = 0, columns: int = 5) -> list[np.ndarray]:
    """Actions float64[steps, n, columns], every slot's from a generator of its own."""
    streams = [np.random.default_rng((seed, slot)).uniform(-1, 1, (steps, columns)) for slot in range(env.num_envs)]
    return list(np.stack(streams, axis=1))


# -- success, goals, states ----------------------------------------------------------------------------------------


def test_success_needs_the_goal_to_hold_for_a_while_and_then_ends_the_episode():
    for terminate in (True, False):
        env = make(1, "open(drawer)", hold=3, terminate_on_success=terminate, autoreset_mode="Disabled")
        env.reset(seed=0)
        env.simulation.qpos[0, 23] = 0.15
        ends = [env.step(np.zeros((1, 5))) for _ in range(4)]
        np.testing.assert_array_equal([end[4]["success"][0] for end in ends], [False, False, True, True])
        np.testing.assert_array_equal([end[2][0] for end in ends], [False, False, terminate, terminate])
        assert not any(end[3][0] for end in ends)


def test_stages_are_done_in_order():
    env = make(3, "open(drawer) ; lit(lamp)", hold=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.simulation.qpos[:, 23] = [0.15, 0.0, 0.15]
    env.latches[:, 5] = [1.0, 1.0, 0.0]
    held = [env.step(np.zeros((3, 5)))[4]["success"] for _ in range(4)]
    np.testing.assert_array_equal(np.stack(held)[:, 0], [False, False, False, True])
    assert not np.stack(held)[:, 1:].any()
    np.testing.assert_array_equal(env.clock.stage, [1, 0, 1])
    assert env.goal_text(0) == "open(drawer) ; lit(lamp)"


def test_goals_given_where_a_slot_stands_begin_there():
    env = make(4, [*GOALS, "not lit(lamp)"], autoreset_mode="Disabled")
    env.reset(seed=0, options={"which": np.zeros(4, int)})
    assert [env.goal_text(k) for k in range(4)] == ["open(drawer)"] * 4
    for action in chance(env, 6):
        env.step(action)
    before, state = env.facts.copy(), env.get_state()
    seen = env.observation()
    env.assign_goals([2, 3], np.array([1, 3]))
    assert [env.goal_text(k) for k in range(4)] == ["open(drawer)", GOALS[2], "open(drawer)", GOALS[3]]
    np.testing.assert_array_equal(env.elapsed, [6, 0, 6, 0])
    peaks = [COLUMNS.index(f"{block}_peak") for block in ("red", "blue")]
    unpeaked = [k for k in range(len(COLUMNS)) if k not in peaks]
    np.testing.assert_array_equal(env.facts[:, unpeaked], before[:, unpeaked])
    np.testing.assert_array_equal(env.get_state()[:, :60], state[:, :60])  # nothing moved
    changed = (env.observation() != seen).any(axis=1)
    np.testing.assert_array_equal(changed, [False, True, False, True])
    with pytest.raises(ValueError, match="0 to 4"):
        env.assign_goals([5, 0], np.array([1, 3]))


def test_running_slots_keep_goals_that_are_taken_off_the_list():
    env = make(3, GOALS, autoreset_mode="Disabled")
    env.reset(seed=0, options={"which": [3, 2, 1]})
    env.reset(options={"goals": ["closed(drawer)"], "reset_mask": np.array([True, False, False])})
    assert [env.goal_text(k) for k in range(3)] == ["closed(drawer)", GOALS[2], GOALS[1]]
    env.step(np.zeros((3, 5)))
    env.reset()
    assert {env.goal_text(k) for k in range(3)} == {"closed(drawer)"}


def test_all_goals_are_drawn():
    env = make(40, GOALS)
    env.reset(seed=0)
    assert {env.goal_text(k) for k in range(40)} == {str(goal) for goal in env.goals}


def test_a_state_is_continued_as_it_was():
    env = make(4, "placed(red, left)", max_steps=100, autoreset_mode="Disabled")
    env.reset(seed=3)
    actions = chance(env, 30)
    for action in actions[:20]:
        env.step(action)
    state, before = env.get_state(), env.facts.copy()
    went = [env.step(action)[0] for action in actions[20:]]
    env.set_state(state)
    moving = [k for k, name in enumerate(COLUMNS) if not name.endswith("peak")]  # peaks count from the goal's beginning
    np.testing.assert_allclose(env.facts[:, moving], before[:, moving], atol=1e-9)
    assert (env.elapsed == 0).all()
    again = [env.step(action)[0] for action in actions[20:]]
    np.testing.assert_allclose(np.stack(again), np.stack(went), atol=0.01)
    other = make(2, "placed(red, left)", max_steps=100, autoreset_mode="Disabled")
    other.reset(seed=8)
    other.set_state(state[[2]], np.array([1]))
    np.testing.assert_allclose(other.facts[1, moving], before[2, moving], atol=1e-9)


# -- goals as arrays -----------------------------------------------------------------------------------------------


def test_compute_reward_is_vectorised_and_is_the_steps_reward():
    env = make(6, GOALS, observation="dict")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for action in chance(env, 25):
        observation, reward, *_, info = env.step(action)
        seen = info.get("final_obs", observation)
        np.testing.assert_array_equal(reward, env.compute_reward(seen["achieved_goal"], seen["desired_goal"], {}))
    achieved, desired = seen["achieved_goal"], seen["desired_goal"]
    grid = env.compute_reward(np.stack([achieved] * 3), np.stack([desired] * 3), {})
    assert grid.shape == (3, 6)
    one = [float(env.compute_reward(a, d, {})) for a, d in zip(achieved, desired, strict=True)]
    np.testing.assert_array_equal(grid[1], one)


def test_hindsight_reaches_what_was_achieved():
    env = make(1, "placed(red, left)", observation="dict")
    observation, _ = env.reset(seed=0)
    achieved, desired = observation["achieved_goal"], observation["desired_goal"]
    assert env.compute_reward(achieved, desired, {}) == -1
    assert env.compute_reward(achieved, achieved, {}) == 0
    moved = achieved.copy()
    moved[:, 0] += 0.05
    assert env.compute_reward(moved, achieved, {}) == -1
    moved[:, 0] -= 0.03
    assert env.compute_reward(moved, achieved, {}) == 0
