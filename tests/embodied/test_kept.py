"""Kept states: kept where executions end, begun from where a goal can be reached, and safe on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.errors import MissingRunError
from embodied.training import kept as module
from embodied.training.kept import KeptStates
from embodied.training.rollouts import measure
from envs.goals import all_ground_goals
from envs.playroom.oracle import ScriptedOracle
from envs.predicates import DRAWER
from envs.vector import TabletopVectorEnv

N = 24


@pytest.fixture(scope="module")
def kept() -> KeptStates:
    """Where the scripted expert's executions of every goal ended."""
    goals = [str(goal) for goal in all_ground_goals()]
    env = TabletopVectorEnv(2 * len(goals), goals, autoreset_mode="Disabled", terminate_on_success=False, threads=1)
    env.reset(seed=1, options={"which": np.arange(env.num_envs) % len(goals)})
    oracle, found = ScriptedOracle(env), KeptStates()
    for _ in range(100):
        env.step(oracle.act(env))
    found.look(env, np.arange(env.num_envs))
    env.close()
    assert len(found) == 2 * len(goals)
    return found


@pytest.mark.parametrize("goal", [str(goal) for goal in all_ground_goals()])
def test_an_episode_begins_in_a_kept_state_with_its_goal_still_to_be_reached(kept: KeptStates, goal: str):
    states, facts = kept.arrays() or pytest.fail("nothing was kept")
    env = TabletopVectorEnv(N, goal, threads=1, kept=(states, facts), kept_share=1.0)
    _, info = env.reset(seed=2)
    assert (env.distance.min(axis=1) <= 0).all()
    assert not info["success"].any()
    joints = env.simulation.qpos.shape[1]
    resumed = [any(np.array_equal(q, state[:joints]) for state in states) for q in env.simulation.qpos]
    assert np.mean(resumed) > 0.3, "most goals can be reached from some of the states"
    if goal.startswith("inside"):
        assert (env.facts[:, DRAWER] >= 0.13).all()
    env.close()


def test_begun_states_repeat_and_do_not_disturb_the_other_starts(kept: KeptStates):
    arrays = kept.arrays()
    first, second = (TabletopVectorEnv(N, "lifted(red)", threads=1, kept=arrays) for _ in range(2))
    plain = TabletopVectorEnv(N, "lifted(red)", threads=1)
    for env in (first, second, plain):
        env.reset(seed=7)
    assert np.array_equal(first.simulation.qpos, second.simulation.qpos)
    same = (first.simulation.qpos == plain.simulation.qpos).all(axis=1)
    assert 0.2 < same.mean() < 0.8
    for env in (first, second, plain):
        env.close()


def test_measuring_keeps_the_end_of_every_episode():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation), 5), np.float32), None

    found = KeptStates()
    measure(Still(), "lifted(red)", 5, 3, threads=1, max_steps=4, kept=found)
    assert len(found) == 5


def test_what_is_kept_survives_on_disk_and_damage_is_told(kept: KeptStates, tmp_path: Path):
    path = tmp_path / "kept.safetensors"
    KeptStates().save(path)
    assert len(KeptStates.load(path)) == 0
    kept.save(path)
    again = KeptStates.load(path)
    assert np.array_equal(again.states, kept.states)
    assert np.array_equal(again.facts, kept.facts)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MissingRunError, match="cannot be read"):
        KeptStates.load(path)


def test_the_oldest_states_go_first(kept: KeptStates, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CAPACITY", 3)
    env = TabletopVectorEnv(5, "lifted(red)", threads=1)
    env.reset(seed=0)
    found = KeptStates()
    found.look(env, np.arange(2))
    found.look(env, np.arange(5))
    assert [row.tolist() for row in found.facts] == env.facts[2:].tolist()
    env.close()
