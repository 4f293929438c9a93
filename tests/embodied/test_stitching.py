"""Far goals one thing at a time, on a toy: M switches, a tool on a line, a policy that can do one thing or is stuck."""

import json

import numpy as np
import pytest

from embodied.evaluation.claims import ClaimError, Context
from embodied.evaluation.far_claims import far_goals
from embodied.planning.stitching import Stitched
from policies.base import Policy


class Line:
    """Subgoals of facts [n, 1 + M]: the tool's place, then switches; thing k is at place k."""

    def differing(self, facts, goals):
        return facts[:, 1:] != goals[:, 1:]

    def alone(self, facts, goals, which):
        out, rows = facts.copy(), np.flatnonzero(which >= 0)
        out[rows, 1 + which[rows]] = goals[rows, 1 + which[rows]]
        return out

    def distances(self, facts):
        return np.abs(facts[:, :1] - np.arange(facts.shape[1] - 1))

    def arrived(self, subgoals, which):
        out = subgoals.copy()
        out[:, 0] = which
        return out


class Beside:
    """Features: present and goal side by side."""

    def features(self, facts, goals):
        return np.concatenate([facts, goals], axis=1)


class OneThing(Policy):
    """Wants what it is asked for, as its action; notes what that was. Features in, [n, M] of wishes out."""

    def __init__(self):
        self.asked, self.starts = [], []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        half = observation.shape[1] // 2
        now, goal = observation[:, 1:half], observation[:, half + 1 :]
        self.asked.append((now != goal).copy())
        self.starts.append(episode_start)
        return goal - now, state

    def seed(self, seed):
        pass

    def config_dict(self):
        return {}

    @classmethod
    def build(cls, config):
        return cls()


def play(act, facts, goals, steps, stuck=()):
    """Carries out wishes, except for things that are stuck; a tool goes where a thing was switched."""
    facts = facts.copy()
    for _ in range(steps):
        wishes = act(facts, goals)
        for i, k in zip(*np.nonzero(wishes), strict=True):
            if k not in stuck:
                facts[i, 1 + k] = goals[i, 1 + k]
                facts[i, 0] = k
    return facts


def test_one_thing_is_asked_for_at_a_time_the_nearest_first():
    policy = OneThing()
    facts, goals = np.array([[2.2, 0, 0, 0], [0.0, 0, 0, 0]]), np.array([[0.0, 1, 1, 1], [0.0, 1, 0, 1]])
    after = play(Stitched(policy, Beside(), Line()), facts, goals, 4)
    np.testing.assert_array_equal(after[:, 1:], goals[:, 1:])
    assert [list(np.flatnonzero(asked[0])) for asked in policy.asked] == [[2], [1], [0], []]
    assert [list(np.flatnonzero(asked[1])) for asked in policy.asked] == [[0], [2], [], []]
    assert policy.starts[0].all() and all(start is None for start in policy.starts[1:])


def test_a_value_says_what_comes_first():
    class Costly:
        """Whatever is switched while thing 2 is still as it was costs more than it does afterwards."""

        def value(self, features):
            half = features.shape[1] // 2
            left = features[:, 1:half] != features[:, half + 1 :]
            return -left.sum(axis=1) - 5.0 * (left[:, 2] & (left.sum(axis=1) > 1))

    facts, goals = np.array([[0.0, 0, 0, 0]]), np.array([[0.0, 1, 1, 1]])
    for value, first in ((None, 0), (Costly(), 2)):
        policy = OneThing()
        play(Stitched(policy, Beside(), Line(), value), facts, goals, 1)
        assert np.flatnonzero(policy.asked[0][0]) == first


def test_what_does_not_succeed_gives_way_and_its_turn_comes_again():
    policy = OneThing()
    facts, goals = np.zeros((1, 4)), np.array([[0.0, 1, 1, 0]])
    after = play(Stitched(policy, Beside(), Line(), patience=3), facts, goals, 9, stuck=(0,))
    assert [int(np.flatnonzero(asked[0])[0]) for asked in policy.asked] == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(after[0, 1:], [0, 1, 0])


def test_what_is_undone_is_asked_for_again():
    policy = OneThing()
    act = Stitched(policy, Beside(), Line())
    facts, goals = np.zeros((1, 3)), np.array([[0.0, 1, 1]])
    facts = play(act, facts, goals, 2)
    facts[0, 1] = 0
    play(act, facts, goals, 1)
    assert list(policy.asked[-1][0]) == [True, False]


def test_it_begins_anew_only_when_told():
    act = Stitched(OneThing(), Beside(), Line())
    act(np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="3 slots are given, but it began with 2"):
        act(np.zeros((3, 3)), np.ones((3, 3)))
    act.reset()
    assert act(np.zeros((3, 3)), np.ones((3, 3))).shape == (3, 2)
    with pytest.raises(ValueError, match="patience = 0"):
        Stitched(OneThing(), Beside(), Line(), patience=0)


def test_the_claim_refuses_policies_that_know_no_goal_states_of_the_room(tmp_path):
    from embodied.training.offline import ENCODER, POLICY
    from policies.flow_bc import FlowBC, FlowBCConfig

    FlowBC(FlowBCConfig(4, 5, 2, hidden=(8,))).save_pretrained(tmp_path / POLICY)
    spec = {"kind": "concatenated", "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    (tmp_path / ENCODER).write_text(json.dumps(spec))
    with pytest.raises(ClaimError, match="was not learnt on the goal states"):
        far_goals(Context(quick=True, results=tmp_path, out=tmp_path, runs=(tmp_path,)))
