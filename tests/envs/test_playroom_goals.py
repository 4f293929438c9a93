"""Goals and rewards of the playroom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.scenes.document import parse
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load
from envs.scenes.words import WordError

SCENE = load("playroom")
TASKS = list(SCENE.tasks)


def make(n: int = 4, goals: Any = None, **arguments: Any) -> PlayroomVectorEnv:
    return PlayroomVectorEnv(n, goals, SCENE, **{"max_steps": 20, "threads": 1, **arguments})


def chance(env: PlayroomVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Actions float64[steps, n, 5], every slot's from a generator of its own."""
    size = (steps, 5)
    streams = [np.random.default_rng((seed, slot)).uniform(-1, 1, size) for slot in range(env.num_envs)]
    return list(np.stack(streams, axis=1))


def test_goals_are_tasks_terms_or_english():
    env = make(3, ["open_drawer", "lit(red_lamp) & lifted(cube)", "knock over the upright block"])
    env.reset(seed=0, options={"which": np.arange(3)})
    assert [env.goal_text(slot) for slot in range(3)] == [
        "open(drawer)",
        "lifted(cube) & lit(red_lamp)",
        "toppled(upright)",
    ]
    np.testing.assert_array_equal(env.codes.count, [1, 2, 1])
    env.reset(options={"goals": "close the drawer"})
    assert {env.goal_text(slot) for slot in range(3)} == {"closed(drawer)"}
    with pytest.raises(WordError):
        env.set_goals("make coffee")
    assert env.goals == ["closed(drawer)"]


@pytest.mark.parametrize("which", [7, np.array([1, 7, 2, 7]), np.array([7, 7])], ids=["one", "each", "of those reset"])
def test_which_goal_can_be_told(which):
    env = make()
    env.reset(seed=0)
    mask = np.array([False, True, False, True])
    before = env.goal_of.copy()
    env.reset(options={"which": which, "reset_mask": mask})
    assert (env.goal_of[mask] == 7).all()
    np.testing.assert_array_equal(env.goal_of[~mask], before[~mask])


def test_all_tasks_are_drawn():
    env = make(40)
    env.reset(seed=3)
    assert set(env.goal_of) == set(range(len(TASKS)))
    first = env.goal_of.copy()
    env.reset()
    assert not np.array_equal(env.goal_of, first)
    env.reset(seed=3)
    np.testing.assert_array_equal(env.goal_of, first)


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_a_goal_that_holds_long_enough_is_reached(reward):
    env = make(2, "open(drawer)", reward=reward, hold=3)
    env.reset(seed=0)
    at = SCENE.layout.slides[0][0]
    env.simulation.qpos[0, at], env.simulation.qvel[0, SCENE.layout.slides[1][0]] = 0.15, 0.0
    rows = [env.step(np.zeros((2, 5))) for _ in range(3)]
    assert [row[4]["success"].tolist() for row in rows] == [[False, False], [False, False], [True, False]]
    assert rows[2][2].tolist() == [True, False]
    assert not np.stack([row[3] for row in rows]).any()
    rewards = np.stack([row[1] for row in rows])
    if reward == "sparse":
        np.testing.assert_array_equal(rewards, [[0, 0], [0, 0], [1, 0]])
    else:
        assert rewards[0, 0] > 1.4 > rewards[0, 1]


def test_an_episode_may_go_on_after_success():
    env = make(1, "open(drawer)", terminate_on_success=False, hold=1, max_steps=4)
    env.reset(seed=0)
    env.simulation.qpos[0, SCENE.layout.slides[0][0]] = 0.15
    rows = [env.step(np.zeros((1, 5))) for _ in range(4)]
    assert all(row[4]["success"][0] for row in rows)
    assert [bool(row[2][0]) for row in rows] == [False] * 4
    assert [bool(row[3][0]) for row in rows] == [False] * 3 + [True]


def test_reward_terms_are_in_their_ranges_and_make_the_reward():
    env = make(36, max_steps=100, reward_weights=(2.0, 1.0, 0.3))
    env.reset(seed=1)
    for action in chance(env, 25):
        _, reward, _, _, info = env.step(action)
        terms = env.terms
        ended = info.get("_final_obs", np.zeros(36, bool))
        assert (terms[:, :2] >= 0).all()
        assert (terms[:, :2] <= 1).all()
        assert (terms[:, 2] <= 0).all()
        assert (env.costs >= 0).all()
        np.testing.assert_allclose(reward[~ended], (terms @ [2.0, 1.0, 0.3])[~ended])
        np.testing.assert_array_equal(info["reward_terms"], terms if not ended.any() else info["reward_terms"])


def test_not_touching_is_rewarded_for_going_away():
    env = make(4, "not touching(cube)")
    env.reset(seed=0)
    at = SCENE.layout.blocks[0][2]
    env.simulation.qpos[:, at : at + 3] = env.facts[:, :3] - np.outer([0.0, 0.02, 0.035, 0.045], [0, 0, 1])
    env._settle(np.zeros((4, 5)), np.zeros(4, bool))
    task = env.terms[:, 0]
    assert (np.diff(task) > 0).all()
    assert task[3] == 1.0 > task[2]


def test_every_fact_can_be_a_goal_with_finite_rewards_and_features_in_their_space():
    terms = [str(term) for term in SCENE.vocabulary.terms()]
    goals = [*terms, *(f"not {term}" for term in terms), *map(" & ".join, zip(terms[:-3:9], terms[3::9], strict=False))]
    env = make(len(goals), goals, max_steps=100)
    observation, _ = env.reset(seed=0, options={"which": np.arange(len(goals))})
    for action in chance(env, 12):
        assert env.observation_space.contains(observation)
        observation, reward, _, _, info = env.step(action)
        assert np.isfinite(reward).all()
        assert np.isfinite(info["reward_terms"]).all()
        assert not info["bad_physics"].any()


def test_a_block_as_wide_as_the_open_fingers_is_no_fault():
    page = "name: wide\nobjects:\n  block: {type: box, size: [0.078, 0.078, 0.04]}\n"
    env = PlayroomVectorEnv(1, "lifted(block)", load(parse(page)), threads=1)
    env.reset(seed=0)
    at = env.scene.layout.blocks[0][0]
    env.simulation.qpos[:, at : at + 3] = env.facts[:, :3]
    env._settle(np.zeros((1, 5)), np.zeros(1, bool))
    assert np.isfinite(env.terms).all()
