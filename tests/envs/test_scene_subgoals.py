"""Goals taken apart: what differs is what the features say differs, and a subgoal asks for one thing alone."""

import numpy as np
import pytest

from envs.scenes.facts import BLOCK_STRIDE, BLOCKS, TOOL
from envs.scenes.goal_states import GoalStates
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load
from envs.scenes.subgoals import Subgoals

PEAK, BOTTOM = 8, 9
SLIDES = BLOCKS + 4 * BLOCK_STRIDE


@pytest.fixture(scope="module")
def scene():
    return load("playroom")


@pytest.fixture(scope="module")
def facts(scene):
    env = PlayroomVectorEnv(6, ["open_drawer"], scene)
    env.reset(seed=3)
    found = env.facts.copy()
    env.close()
    return found


def changed(facts):
    """Row i: block 0 moved, block 1 turned, block 2 toppled, drawer or door slid, a lamp switched, nothing."""
    goals = facts.copy()
    goals[0, BLOCKS] += 0.1
    goals[1, BLOCKS + BLOCK_STRIDE + 3] += 1.0
    goals[2, BLOCKS + 2 * BLOCK_STRIDE + 4] = 1.0 - goals[2, BLOCKS + 2 * BLOCK_STRIDE + 4]
    goals[3, SLIDES + 3] += 0.1
    goals[4, SLIDES + 6] = 1.0 - goals[4, SLIDES + 6]
    return goals


def test_what_differs_is_the_thing_that_was_changed(scene, facts):
    subgoals = Subgoals(scene)
    found = subgoals.differing(facts, changed(facts))
    assert len(subgoals.names) == 9 and subgoals.names[4:6] == ("drawer", "door")
    assert [list(np.flatnonzero(row)) for row in found] == [[0], [1], [2], [5], [6], []]


def test_features_agree_on_whether_anything_differs(scene, facts):
    encoder = GoalStates(scene)
    goals = changed(facts)
    focus = encoder.features(facts, goals)[:, -39:-36].any(axis=1)
    np.testing.assert_array_equal(focus, Subgoals(scene).differing(facts, goals).any(axis=1))


def test_a_subgoal_asks_for_one_thing_and_for_no_other_to_be_carried(scene, facts):
    subgoals = Subgoals(scene)
    now, goals = facts.copy(), facts.copy()
    now[:, BLOCKS + BLOCK_STRIDE + PEAK] = 0.3  # it was carried before
    goals[:, BLOCKS] += 0.1
    goals[:, BLOCKS + PEAK] = 0.2
    goals[:, SLIDES] += 0.1
    for which in (0, 4):
        aim = subgoals.alone(now, goals, np.full(len(now), which))
        assert (np.flatnonzero(subgoals.differing(now, aim)[0]) == [which]).all()
        assert (aim[:, BLOCKS + BLOCK_STRIDE + PEAK] == now[:, BLOCKS + BLOCK_STRIDE + BOTTOM]).all()
        assert (aim[:, BLOCKS + PEAK] == (0.2 if which == 0 else now[:, BLOCKS + BOTTOM])).all()
        there = subgoals.arrived(aim, np.full(len(now), which))
        np.testing.assert_allclose(there[:, TOOL : TOOL + 3], subgoals.places(goals)[:, which])
        assert (subgoals.distances(there)[:, which] < 1e-9).all()
    still = subgoals.alone(now, goals, np.full(len(now), -1))
    assert not subgoals.differing(now, still).any()
