"""Other people's worlds keep to our conventions: adapters on a tiny fake pool, and the real libraries if installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from embodied.evaluation.suite_claims import TASKS, run_task
from envs import suites
from envs.registry import UnknownEnvError, make_vector
from envs.suites.adapter import flatten, slot_seeds
from envs.suites.babyai import BabyAIVectorEnv, missions
from envs.suites.oracles import presses
from envs.suites.pool import kebab
from envs.suites.robotics import FetchVectorEnv


def needs(suite: str) -> None:
    """Skips where the suite's library is not installed."""
    pytest.importorskip("ogbench" if suite == "ogbench" else "envpool", reason="the extra [suites] is not installed")


class FakePool:
    """Counts: a slot's state is seed + steps taken, 1000 x its episode; three steps an episode; resets like envpool."""

    single = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, num_envs: int, seed: list[int], max_episode_steps: int = 3, success_at: int = 3, **_: Any):
        self.seeds, self.limit, self.success_at = np.array(seed) % 1000, max_episode_steps, success_at
        self.steps, self.episode = np.zeros(num_envs, int), np.full(num_envs, -1)
        self.action_space, self.actions, self.closed = self.single, [], False

    def _look(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        value = (self.seeds + 1000.0 * self.episode + self.steps)[rows]
        return {"observation": value[:, None] * np.ones(2), "achieved_goal": value[:, None] * np.ones(3),
                "desired_goal": np.zeros((len(rows), 3))}  # fmt: skip

    def reset(self, ids: np.ndarray | None = None):
        rows = np.arange(len(self.steps)) if ids is None else ids
        self.steps[rows] = 0
        self.episode[rows] += 1
        return self._look(rows), {}

    def step(self, actions: np.ndarray):
        self.actions.append(np.array(actions))
        over = self.steps >= self.limit  # envpool: the step after the last one only resets
        self.steps += 1
        self.steps[over] = 0
        self.episode[over] += 1
        done = self.steps >= self.limit
        info = {"is_success": (self.steps == self.success_at).astype(float)}
        reward = np.where(info["is_success"] > 0, 0.0, -1.0).astype(np.float32)
        return self._look(np.arange(len(self.steps))), reward, np.zeros(len(done), bool), done, info

    def close(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[FakePool]:
    """A module envpool with one Fetch task; the pools it has made."""
    made: list[FakePool] = []
    sizes = {"observation": 2, "achieved_goal": 3, "desired_goal": 3}
    parts: dict[str, gym.Space] = {key: gym.spaces.Box(-np.inf, np.inf, (n,), np.float64) for key, n in sizes.items()}

    def make_spec(name: str, max_episode_steps: int = 3, **_: Any):
        config = {"max_episode_steps": max_episode_steps, "frame_skip": 20, "reward_type": "sparse",
                  "distance_threshold": 0.05}  # fmt: skip
        actions = gym.spaces.Box(np.array([0.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32))
        return types.SimpleNamespace(
            config=config, gymnasium_observation_space=gym.spaces.Dict(parts), gymnasium_action_space=actions
        )

    def make_gymnasium(name: str, **arguments: Any):
        made.append(FakePool(**arguments))
        return made[-1]

    module = types.ModuleType("envpool")
    module.__dict__.update(
        list_all_envs=lambda: ["FetchReach-v1", "FetchReach-v4", "FetchPickAndPlace-v4"], make_spec=make_spec,
        make_gymnasium=make_gymnasium,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "envpool", module)
    monkeypatch.setattr("envs.suites.pool.version", lambda name: "0")
    return made


def test_importing_the_suites_imports_no_suite_and_no_simulator():
    code = (
        "import sys, envs.suites; assert envs.suites.SUITES;"
        "print([m for m in ('envpool', 'ogbench', 'mujoco', 'torch', 'numba') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_missing_library_is_one_sentence_that_names_the_extra(suite: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("envpool", "ogbench"):
        for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
    real = importlib.import_module

    def absent(name: str, package: str | None = None):
        top = name.partition(".")[0]
        if top in ("envpool", "ogbench"):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        return real(name, package)

    monkeypatch.setattr("envs.suites.importlib.import_module", absent)
    with pytest.raises(suites.MissingLibraryError, match=r'pip install "embodied-repertoire\[suites\]"'):
        make_vector(f"{suite}/anything")
    assert suites.limits(suite)  # what it cannot do is told without the library


def test_a_library_that_lacks_something_of_its_own_is_not_called_missing(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str, package: str | None = None):
        raise ModuleNotFoundError("No module named 'dm_env'", name="dm_env")

    monkeypatch.setattr("envs.suites.importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError) as caught:
        suites.library("envpool")
    assert not isinstance(caught.value, suites.SuiteError)


def test_an_unknown_name_lists_the_valid_ones(fake: list[FakePool], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(suites.UnknownTaskError, match="fetch has no task 'raech'; its 2 tasks: pick-place, reach"):
        make_vector("fetch/raech")
    with pytest.raises(UnknownEnvError, match="metaworld/TASK"):
        make_vector("metawolrd/reach")
    with pytest.raises(suites.SuiteError, match="the suites are: metaworld, fetch"):
        suites.tasks("atari")
    many = [f"task-{i}" for i in range(100)] + ["open-drawer"]
    monkeypatch.setattr(suites, "tasks", lambda suite: many)
    with pytest.raises(suites.UnknownTaskError, match=r"nearest: open-drawer.*; its 101 tasks: .*, …"):
        suites.make_vector("fetch", "open-drawr")


def test_the_newest_version_of_a_task_is_taken_under_a_plain_name(fake: list[FakePool]):
    assert FetchVectorEnv.task_ids() == {"reach": "FetchReach-v4", "pick-place": "FetchPickAndPlace-v4"}
    assert [kebab(name) for name in ("GoToRedBall", "RotateXYZDense", "Block_TouchSensors", "OneRoomS8")] == [
        "go-to-red-ball", "rotate-xyz-dense", "block-touch-sensors", "one-room-s8",
    ]  # fmt: skip


def test_same_step_resets_keep_the_true_last_observation_and_its_success(fake: list[FakePool]):
    env = suites.make_vector("fetch", "reach", 2)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    first, info = env.reset(seed=[10, 20])
    assert env.observation_space.contains(first)
    assert first.dtype == np.float32
    assert first[:, 0].tolist() == [10, 20]
    assert info["success"].tolist() == [False, False]
    for step in (1, 2, 3):
        observation, reward, terminated, truncated, info = env.step(np.zeros((2, 2), np.float32))
        assert ("final_obs" in info) == (step == 3)
    assert reward.dtype == np.float64
    assert (reward.tolist(), terminated.tolist(), truncated.tolist()) == ([0, 0], [False] * 2, [True] * 2)
    assert info["success"].tolist() == [True, True]
    assert info["_final_obs"].tolist() == [True, True]
    assert info["final_obs"][:, 0].tolist() == [13, 23]  # achieved_goal first: the order of the names
    assert observation[:, 0].tolist() == [1010, 1020]  # the next episode's first
    observation, _, _, truncated, info = env.step(np.zeros((2, 2), np.float32))
    assert observation[:, 0].tolist() == [1011, 1021]  # which no step was lost of
    assert not truncated.any()
    assert not info["success"].any()


def test_next_step_resets_are_the_pools_own(fake: list[FakePool]):
    env = suites.make_vector("fetch", "reach", 1, autoreset_mode="NextStep", observation="dict", max_steps=2)
    assert (env.metadata["autoreset_mode"], env.max_steps) == (AutoresetMode.NEXT_STEP, 2)
    env.reset(seed=[5])
    env.step(np.zeros((1, 2)))
    observation, _, _, truncated, info = env.step(np.zeros((1, 2)))
    assert truncated.all()
    assert "final_obs" not in info
    assert observation["achieved_goal"][0, 0] == 7  # the true last one
    observation, _, _, truncated, _ = env.step(np.zeros((1, 2)))
    assert observation["achieved_goal"][0, 0] == 1005
    assert not truncated.any()


def test_a_seed_makes_the_pool_anew_and_without_one_episodes_go_on(fake: list[FakePool]):
    env = suites.make_vector("fetch", "reach", 3)
    first, _ = env.reset(seed=4)
    later, _ = env.reset()
    assert len(fake) == 1
    assert np.allclose(later[:, 0] - first[:, 0], 1000)
    again, _ = env.reset(seed=4)
    assert [pool.closed for pool in fake] == [True, False]
    assert np.array_equal(again, first)
    masked, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert (masked[:, 0] - first[:, 0]).tolist() == [0, 1000, 0]
    with pytest.raises(suites.SuiteError, match="2 seeds for 3 slots"):
        env.reset(seed=[1, 2])
    with pytest.raises(suites.SuiteError, match="valid: reset_mask"):
        env.reset(options={"goal": 1})
    env.close()
    assert fake[-1].closed


def test_seeds_next_to_each_other_share_no_streams():
    drawn = [seed for start in range(50) for seed in slot_seeds(start, 20)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_actions_are_clipped_scaled_and_checked(fake: list[FakePool]):
    env = make_vector("fetch/reach", 2)
    assert env.single_action_space == gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    with pytest.raises(suites.SuiteError, match="before the first reset"):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    env.step(np.array([[-1.0, 0.5], [0.0, 7.0]]))
    assert np.allclose(fake[0].actions[0], [[0.0, 1.0], [0.5, 2.0]])
    for wrong, words in ((np.zeros((2, 3)), "shape"), (np.full((2, 2), np.nan), "not finite")):
        with pytest.raises(suites.SuiteError, match=words):
            env.step(wrong)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"autoreset_mode": "Disabled"}, "SameStep or NextStep"),
        ({"observation": "pixels"}, "valid: flat, dict"),
        ({"max_steps": 0}, "at least 1"),
        ({"num_envs": 0}, "at least 1"),
    ],
)
def test_what_a_suite_cannot_do_is_said(fake: list[FakePool], arguments: dict[str, Any], words: str):
    with pytest.raises(suites.SuiteError, match=words):
        make_vector("fetch/reach", **arguments)


def test_relabelled_rewards_are_those_of_the_task(fake: list[FakePool]):
    env = suites.make_vector("fetch", "reach", 1)
    assert isinstance(env, FetchVectorEnv)
    goals = np.zeros((4, 5, 3))
    assert (env.compute_reward(goals, goals, {}) == 0).all()
    assert (env.compute_reward(goals + 0.1, goals, {}) == -1).all()


def test_a_mission_done_in_the_last_step_is_a_success_and_terminates(monkeypatch: pytest.MonkeyPatch):
    env = BabyAIVectorEnv.__new__(BabyAIVectorEnv)
    found = None, np.array([0.5, 0.0]), np.zeros(2, bool), np.ones(2, bool), {}
    env._pool = types.SimpleNamespace(step=lambda actions: found)
    _, _, terminated, truncated, info = env._step(np.zeros(2, int))
    assert info["success"].tolist() == terminated.tolist() == [True, False]
    assert truncated.tolist() == [False, True]


def test_missions_are_read():
    rows = np.zeros((2, 16), np.uint8)
    rows[0, :9] = list(b"go to the")
    assert missions(rows) == ["go to the", ""]
    with pytest.raises(suites.SuiteError):
        missions(rows[0])


def test_flat_observations_are_in_the_order_of_the_names():
    batch = {"b": np.zeros((2, 3)), "a": np.ones((2, 2, 2)), "c": np.array([5, 6])}
    assert flatten(batch)[1].tolist() == [1, 1, 1, 1, 0, 0, 0, 6]


def test_the_presses_of_a_puzzle_solve_it():
    rng = np.random.default_rng(0)
    for rows, columns in ((3, 3), (4, 5)):
        board, pressed = np.zeros((rows, columns), int), rng.integers(0, 2, (rows, columns))
        assert presses(rows, columns, board.ravel()) == []
        change = press(board, pressed)
        found = np.zeros(rows * columns, int)
        found[presses(rows, columns, change.ravel())] = 1
        assert np.array_equal(press(board, found.reshape(rows, columns)), change)
        assert found.sum() <= pressed.sum()


def press(board: np.ndarray, pressed: np.ndarray) -> np.ndarray:
    padded = np.pad(pressed, 1)
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + pressed
    return (board + around) % 2


# -- the real libraries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_real_task_has_the_declared_spaces_and_seeds(suite: str):
    needs(suite)
    task = "open-door" if suite == "babyai" else TASKS[suite][0]
    assert set(TASKS[suite]) <= set(suites.tasks(suite))
    starts = []
    for actions_seed in (0, 1):  # what was done before does not change how an episode begins
        env = make_vector(f"{suite}/{task}", 2)
        env.action_space.seed(actions_seed)
        begun = [env.reset(seed=7)[0]]
        for _ in range(5 + actions_seed):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert env.observation_space.contains(observation)
            assert not (terminated | truncated).any()
        assert reward.dtype == np.float64
        assert terminated.dtype == truncated.dtype == info["success"].dtype == np.bool_
        begun.append(env.reset()[0])
        starts.append([flatten(observation) for observation in begun])
        env.close()
    for one, other in zip(*starts, strict=True):
        assert np.array_equal(one, other)
    if suite == "myosuite":  # its limits say so; when this fails, they have to be written anew
        assert np.array_equal(starts[0][0], starts[0][1])
    else:
        assert not np.array_equal(starts[0][0], starts[0][1])
        assert not np.array_equal(starts[0][0][0], starts[0][0][1])


@pytest.mark.parametrize("suite", suites.SUITES)
def test_both_autoreset_modes_of_a_real_task_tell_the_same_story(suite: str):
    needs(suite)
    task = {"babyai": "open-door", "myosuite": "finger-reach-random"}.get(suite, TASKS[suite][0])  # no early ends
    same, following = (
        make_vector(f"{suite}/{task}", 2, autoreset_mode=mode, max_steps=5) for mode in ("SameStep", "NextStep")
    )
    first, other = (flatten(env.reset(seed=3)[0]) for env in (same, following))
    assert np.array_equal(first, other)
    same.action_space.seed(0)
    for step in range(1, 16):
        actions = same.action_space.sample()
        (one, _, _, over, info), (other, *_, truncated, _) = same.step(actions), following.step(actions)
        assert np.array_equal(over, truncated)
        assert over.tolist() == [step % 5 == 0] * 2
        if over.any():
            assert np.array_equal(flatten(info["final_obs"]), flatten(other))  # the true last observation
            other, reward, *ends, info = following.step(actions)  # only resets
            assert not (reward.any() or ends[0].any() or ends[1].any() or info["success"].any())
        assert np.array_equal(flatten(one), flatten(other))
    same.close()
    following.close()


@pytest.mark.parametrize("task", ["cube-single", "puzzle-3x3"])
def test_ogbenchs_oracles_reach_the_goal_and_end_the_episode(task: str):
    needs("ogbench")
    env = suites.make_vector("ogbench", task, 1)
    observation, _ = env.reset(seed=1)
    expert, begins = env.expert(), np.ones(1, np.bool_)  # type: ignore[attr-defined]
    for _ in range(env.max_steps):
        observation, _, terminated, truncated, info = env.step(expert(observation, begins))
        begins = terminated | truncated
        if begins.any():
            break
    assert info["success"].all()
    assert terminated.all()
    assert not truncated.any()
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_thousand_steps_on_three_tasks(suite: str):
    needs(suite)
    for task in TASKS[suite]:
        found = run_task(suite, task, steps=1000)
        assert found["steps"] >= 1000
        assert found["wrong"] == []


@pytest.mark.slow
def test_every_installed_peer_advances():
    from envs.suites import peers

    absent = peers.missing()
    assert set(absent) | set(peers.PEERS) == set(peers.PEERS)
    if len(absent) == len(peers.PEERS):
        pytest.skip("the extra [suites] is not installed")
    found = peers.measure(seconds=1.0, warmup=0.5)
    assert {row["name"] for row in found} == set(peers.PEERS) - set(absent)
    for row in found:
        assert row["env_steps_per_second"] > 0
        assert row["robot_seconds_per_second"] == pytest.approx(row["env_steps_per_second"] * row["control_dt"])


def test_missing_peers_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from envs.suites import peers

    def absent(name: str):
        raise suites.MissingLibraryError(f"{name} is not installed")

    monkeypatch.setattr(peers, "library", absent)
    assert set(peers.missing()) == set(peers.PEERS)
    assert peers.peers() == {}
    assert peers.measure(1.0) == []
