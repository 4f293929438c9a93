"""The speed measurement: the limit is the same physics, bit for bit, and what is reported adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied import cli
from envs import bench
from envs.bench import BenchError, Replay, environment_rate, simulation
from envs.vector import TabletopVectorEnv


def test_the_limit_replays_exactly_the_physics_of_the_environment():
    replay = Replay(3, threads=1, length=12)
    rows = replay.run()
    after = replay.states_after[:, -1, 1 : 1 + replay.model.nq]  # the state begins with the time
    assert np.array_equal(after, replay.final[rows])
    assert not np.array_equal(after, replay.states[rows, 1 : 1 + replay.model.nq])
    assert replay.advance() == 3 * 12
    replay.run(all_threads=True)
    assert np.array_equal(replay.states_after[:, -1, 1 : 1 + replay.model.nq], replay.final)
    assert replay.advance_all() == 3 * 12


def test_trajectories_take_turns_where_there_are_more_than_a_call_takes():
    replay = Replay(10, threads=1, length=2)
    assert [replay.run().tolist() for _ in range(2)] == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 0, 1, 2, 3, 4, 5]]


def test_what_is_reported_adds_up_and_is_json(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "LENGTH", 4)
    found = simulation(seconds=0.05, repeats=3, num_envs=4, threads=1)
    assert json.loads(json.dumps(found)) == found
    low, high = found["ratio_interval"]
    assert 0 < low <= found["ratio"] <= high
    assert found["steps_per_second"] > 0
    assert found["ratio_all_threads_interval"][0] <= found["ratio_all_threads"]
    assert found["raw_steps_per_second"] > 0
    assert found["sleep_factor_interval"][0] <= found["sleep_factor"] <= found["sleep_factor_interval"][1]
    assert (found["repeats"], found["num_envs"], found["threads"]) == (3, 4, 1)
    assert {"mujoco", "numba", "numpy"} <= set(found["versions"])
    assert "mj_step" in found["method"]


def test_windows_without_length_measure_nothing():
    for wrong in ({"seconds": 0.0}, {"repeats": 0}, {"num_envs": 0}):
        with pytest.raises(BenchError, match="measure nothing"):
            simulation(**wrong)  # type: ignore[arg-type]


def test_the_rate_of_an_environment_counts_every_slot():
    env = TabletopVectorEnv(4, threads=1)
    env.reset(seed=0)
    assert environment_rate(env, 0.05) > 0
    assert env.elapsed.max() > 0
    env.close()


def test_the_command_prints_a_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(bench, "LENGTH", 4)
    words = ["bench", "sim", "seconds=0.1", "repeats=1", "num_envs=2", "threads=1"]
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_envs"] == 2
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "ratio" in out
    assert "mujoco" in out
