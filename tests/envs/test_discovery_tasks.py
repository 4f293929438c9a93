"""Tasks on the discovery scene: goals are drawn fairly, judged at rest, and rewarded by getting nearer."""

from __future__ import annotations

import numpy as np
import pytest

from envs.scenes.discovery_tasks import TOLERANCE, DiscoveryTaskVectorEnv
from envs.scenes.facts import B_BOTTOM, BLOCKS


def test_spots_lie_on_the_table_within_reach_and_depend_on_seed_slot_and_episode_alone():
    env = DiscoveryTaskVectorEnv(64, threads=1)
    observation, _ = env.reset(seed=3)
    away = np.linalg.norm(env.goal - env.objects[:, 0], axis=1)
    assert (away > 0.08).all() and (away < 0.25).all()
    low_x, low_y, high_x, high_y = env.scene.document.table or (0.0, 0.0, 0.0, 0.0)
    assert (env.goal[:, 0] > low_x).all() and (env.goal[:, 0] < high_x).all()
    assert (env.goal[:, 1] > low_y).all() and (env.goal[:, 1] < high_y).all()
    np.testing.assert_allclose(observation[:, -6:-3], 8 * (env.goal - env.objects[:, 0]), rtol=1e-5)
    assert env.single_observation_space.contains(observation[0])
    goal = env.goal.copy()
    few = DiscoveryTaskVectorEnv(4, threads=1)
    few.reset(seed=3)
    np.testing.assert_array_equal(few.goal, goal[:4])
    few.reset(options={"reset_mask": np.array([True, False, False, False])})
    assert (few.goal[0] != goal[0]).any() and (few.goal[1:] == goal[1:4]).all()
    state = few.get_state()
    few.set_state(state)
    assert (few.goal[1:] == goal[1:4]).all()
    for each in (env, few):
        each.close()


def test_a_block_that_stays_at_its_spot_is_a_success_once_the_hold_is_over():
    env = DiscoveryTaskVectorEnv(2, hold=3, threads=1)
    env.reset(seed=0)
    env.goal[0] = env.objects[0, 0]
    env._away[:] = env._distance()
    still = np.zeros((2, 5), np.float32)
    ends = [env.step(still) for _ in range(3)]
    assert [bool(step[2][0]) for step in ends] == [False, False, True]
    _, reward, terminated, truncated, info = ends[-1]
    assert info["success"].tolist() == [True, False] and not truncated.any() and not terminated[1]
    assert reward[0] > 4.5 and abs(reward[1]) < 0.5
    np.testing.assert_allclose(info["reward_terms"].sum(axis=1), reward)
    assert np.linalg.norm(info["final_obs"][0, -6:-3] / 8) < TOLERANCE
    assert np.array_equal(env.elapsed, [0, 3])
    env.close()


def test_lifting_is_judged_by_the_lowest_point(monkeypatch):
    env = DiscoveryTaskVectorEnv(2, task="lift", hold=1, threads=1)
    env.reset(seed=0)
    settle = DiscoveryTaskVectorEnv.__mro__[1]._settle

    def raised(self, actions, broken):
        found = settle(self, actions, broken)
        self.facts[:, BLOCKS + B_BOTTOM] = 0.07, 0.09
        return found

    monkeypatch.setattr(DiscoveryTaskVectorEnv.__mro__[1], "_settle", raised)
    assert env.step(np.zeros((2, 5)))[4]["success"].tolist() == [False, True]
    env.close()


def test_goals_can_be_relabelled_and_what_is_wrong_is_named():
    env = DiscoveryTaskVectorEnv(3, goals=True, threads=1)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
    near = observation["desired_goal"] + [0.0, 0.039, 0.0]
    assert env.compute_reward(near, observation["desired_goal"], {}).tolist() == [0.0, 0.0, 0.0]
    assert env.step(np.zeros((3, 5)))[1].tolist() == [-1.0, -1.0, -1.0]
    env.close()
    with pytest.raises(ValueError, match=r"unknown task 'stack'; valid: place, lift"):
        DiscoveryTaskVectorEnv(1, task="stack")
    with pytest.raises(ValueError, match="goals=True is for place"):
        DiscoveryTaskVectorEnv(1, task="lift", goals=True)
    with pytest.raises(ValueError, match="has no table"):
        DiscoveryTaskVectorEnv(1, "cubes")
