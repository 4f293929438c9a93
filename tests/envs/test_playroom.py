"""The playroom's contract: seeds, slots that do not disturb each other, autoreset, faults, states, control."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.scenes.playroom import PlayroomEnv, PlayroomVectorEnv
from envs.scenes.scene import load
from envs.scenes.world import ACTIONS

SCENE = load("playroom")
TASKS = list(SCENE.tasks)
ID = "Embodied/Playroom-v0"


def make(n: int = 4, goals: Any = None, **arguments: Any) -> PlayroomVectorEnv:
    return PlayroomVectorEnv(n, goals, SCENE, **{"max_steps": 20, "threads": 1, **arguments})


def chance(env: PlayroomVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Actions float64[steps, n, A], every slot's from a generator of its own."""
    size = (steps, ACTIONS[env.control])
    streams = [np.random.default_rng((seed, slot)).uniform(-1, 1, size) for slot in range(env.num_envs)]
    return list(np.stack(streams, axis=1))


def column(env: PlayroomVectorEnv, name: str) -> np.ndarray:
    return env.facts[:, env.columns.index(name)]


# -- the checks of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["tool", "joint"])
def test_the_single_playroom_passes_the_checks_of_gymnasium_and_stable_baselines3(control):
    env = gymnasium.make(ID, control=control, threads=1)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_the_single_playroom_is_slot_0_of_a_batch():
    single, batch = PlayroomEnv(threads=1, max_steps=20), make(3, autoreset_mode="Disabled")
    observation, _ = single.reset(seed=5)
    together, _ = batch.reset(seed=5)
    np.testing.assert_array_equal(observation, together[0])
    for action in chance(batch, 10):
        observation, reward, *ends, info = single.step(action[0])
        together, rewards, terminations, truncations, infos = batch.step(action)
        np.testing.assert_array_equal(observation, together[0])
        assert (reward, *ends) == (rewards[0], terminations[0], truncations[0])
        assert info["success"] is bool(infos["success"][0])
        np.testing.assert_array_equal(info["reward_terms"], infos["reward_terms"][0])


# -- seeds and slots -----------------------------------------------------------------------------------------------


def trace(n: int, steps: int, seed: int, **arguments: Any) -> dict[str, np.ndarray]:
    """What happens to every slot, [steps, n, …]: slots end at different times."""
    env = make(n, **arguments)
    observation, _ = env.reset(seed=seed)
    env.elapsed[:] = np.arange(n) * 3 % 10
    rows = []
    for action in chance(env, steps):
        after, reward, terminated, truncated, info = env.step(action)
        rows.append((observation, reward, terminated, truncated, info["success"], env.facts.copy(), env.get_state()))
        observation = after
    labels = ("observation", "reward", "terminated", "truncated", "success", "facts", "state")
    return {label: np.stack(values) for label, values in zip(labels, zip(*rows, strict=True), strict=True)}


@pytest.mark.parametrize("arguments", [{}, {"randomise": {"mass": (0.5, 2), "noise": (0, 0.1), "delay": (0, 3)}}])
def test_same_seed_same_bits_and_a_slot_does_not_depend_on_how_many_there_are(arguments):
    many, same, few, other = (trace(n, 45, seed, **arguments) for n, seed in ((5, 3), (5, 3), (2, 3), (5, 4)))
    assert len(set(many["truncated"].argmax(axis=0))) > 1
    for name, values in many.items():
        np.testing.assert_array_equal(values, same[name], err_msg=name)
        np.testing.assert_array_equal(values[:, :2], few[name], err_msg=name)
    assert not np.array_equal(many["facts"], other["facts"])


def test_a_start_does_not_depend_on_when_episodes_ended():
    wild, calm = make(6, max_steps=12), make(6)
    wild.reset(seed=8)
    found = {slot: [state] for slot, state in enumerate(wild.get_state())}
    wild.elapsed[:] = np.arange(6) * 2
    for action in chance(wild, 40):
        _, _, terminated, truncated, _ = wild.step(action)
        for slot in np.flatnonzero(terminated | truncated).tolist():
            found[slot].append(wild.get_state()[slot])
    calm.reset(seed=8)
    for episode in range(min(map(len, found.values()))):
        state = calm.get_state()
        for slot, rows in found.items():
            np.testing.assert_array_equal(rows[episode], state[slot])
        calm.reset()
    assert episode >= 2


def test_more_threads_same_bits():
    runs = []
    for threads in (1, 2):
        env = make(64, threads=threads)
        env.reset(seed=0)
        for action in chance(env, 8):
            env.step(action)
        runs.append(env.get_state())
    np.testing.assert_array_equal(*runs)


# -- autoreset -----------------------------------------------------------------------------------------------------


def undisturbed(steps: int, **arguments: Any) -> np.ndarray:
    """Observations [steps, n, F] of the first episodes, never reset."""
    env = make(autoreset_mode=AutoresetMode.DISABLED, **arguments)
    env.reset(seed=0)
    return np.stack([env.step(action)[0] for action in chance(env, steps)])


def second() -> np.ndarray:
    """Observations of the second episodes' starts."""
    env = make()
    env.reset(seed=0)
    return env.reset()[0]


def test_same_step_resets_at_once_and_keeps_the_true_last_observation():
    env = make(max_steps=5)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    env.reset(seed=0)
    *early, action = chance(env, 5)
    assert not any("final_obs" in env.step(action)[4] for action in early)
    observation, _, terminated, truncated, info = env.step(action)
    assert truncated.all()
    assert not terminated.any()
    assert info["_final_obs"].all()
    np.testing.assert_array_equal(info["final_obs"], undisturbed(5, max_steps=5)[-1])
    np.testing.assert_array_equal(observation, second())
    assert (env.elapsed == 0).all()


def test_next_step_returns_the_last_observation_and_the_step_after_only_resets():
    env = make(autoreset_mode=AutoresetMode.NEXT_STEP, max_steps=5)
    env.reset(seed=0)
    *actions, sixth = chance(env, 6)
    for action in actions:
        observation, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    np.testing.assert_array_equal(observation, undisturbed(5, max_steps=5)[-1])
    sixth[1] = np.nan  # whatever it is, it is not done
    observation, reward, terminated, truncated, info = env.step(sixth)
    np.testing.assert_array_equal(observation, second())
    for nothing in (reward, terminated, truncated, info["success"], info["bad_physics"], info["reward_terms"]):
        assert not nothing.any()
    assert (env.elapsed == 0).all()
    assert (env.episodes == 1).all()


def test_next_step_resets_only_those_that_ended():
    env, clean = (make(autoreset_mode=mode, max_steps=30) for mode in ("NextStep", "Disabled"))
    for one in (env, clean):
        one.reset(seed=0)
    env.elapsed[2] = 25
    for step, action in enumerate(chance(env, 10), 1):
        observation, _, _, truncated, _ = env.step(action)
        expected = clean.step(action)[0]
        np.testing.assert_array_equal(observation[[0, 1, 3]], expected[[0, 1, 3]])
        assert truncated.tolist() == [False, False, step == 5, False]
        assert env.episodes.tolist() == [0, 0, int(step > 5), 0]
        if step == 6:
            np.testing.assert_array_equal(observation[2], second()[2])


def test_an_explicit_reset_forgets_a_pending_one():
    env = make(autoreset_mode=AutoresetMode.NEXT_STEP, max_steps=3)
    env.reset(seed=0)
    for action in chance(env, 3):
        env.step(action)
    env.reset(seed=7)
    env.step(np.ones((4, 5)))
    assert (env.elapsed == 1).all()
    assert (env.episodes == 0).all()


def test_disabled_goes_on_until_a_mask_resets():
    env = make(autoreset_mode=AutoresetMode.DISABLED, max_steps=3)
    env.reset(seed=0)
    for action in chance(env, 5):
        truncated = env.step(action)[3]
    assert truncated.all()
    before = env.facts.copy()
    observation, _ = env.reset(options={"reset_mask": np.array([False, True, False, True])})
    np.testing.assert_array_equal(env.elapsed, [5, 0, 5, 0])
    np.testing.assert_array_equal(env.facts[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(observation[[1, 3]], second()[[1, 3]])


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["action", "infinite", "state"])
def test_what_goes_bad_ends_alone_and_the_batch_goes_on(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mujoco logs its warning where it runs
    env, clean = make(max_steps=50), make(max_steps=50)
    env.reset(seed=2)
    clean.reset(seed=2)
    others = [0, 1, 3]
    for k, action in enumerate(chance(env, 12)):
        expected = clean.step(action)
        if k == 5:
            if fault == "state":
                env.simulation.qvel[2, 3] = np.nan
            else:
                action = action.copy()
                action[2, 1] = np.nan if fault == "action" else np.inf
        observation, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(observation[others], expected[0][others])
        np.testing.assert_array_equal(reward[others], expected[1][others])
        np.testing.assert_array_equal(info["bad_physics"], [False, False, k == 5, False])
        assert truncated.tolist() == [False, False, k == 5, False]
        assert not (terminated.any() or info["success"].any())
        assert np.isfinite(observation).all()
        assert np.isfinite(reward).all()
        assert "final_obs" not in info or np.isfinite(info["final_obs"]).all()
    assert env.episodes.tolist() == [0, 0, 1, 0]
    assert np.isfinite(env.get_state()).all()


def test_actions_beyond_their_range_are_clipped():
    runs = []
    for scale in (1.0, 9.0):
        env = make(2)
        env.reset(seed=6)
        env.step(np.full((2, 5), scale))
        runs.append(env.get_state())
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 8)), r"actions have shape \(2, 8\); 'tool' control of 2 takes \(2, 5\)"),
        (np.zeros(5), r"actions have shape \(5,\)"),
        (np.zeros((3, 5)), r"actions have shape \(3, 5\)"),
        (np.full((2, 5), "up"), r"actions are of type <U2; numbers in \[-1, 1\] are needed"),
        (np.full((2, 5), None), r"actions are of type object"),
        (np.zeros((2, 5), complex), r"actions are of type complex128"),
    ],
)
def test_what_is_no_action_is_refused(actions, message):
    env = make(2)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=message):
        env.step(actions)
    np.testing.assert_array_equal(env.get_state(), before)


@pytest.mark.parametrize("kind", [int, bool, np.float32])
def test_numbers_of_any_kind_are_actions(kind):
    env = make(2)
    env.reset(seed=0)
    actions = np.ones((2, 5), kind)
    assert np.isfinite(env.step(actions)[0]).all()
    assert (actions == 1).all()


def test_a_lost_block_ends_the_episode():
    env = make(2)
    env.reset(seed=0)
    env.simulation.qpos[1, SCENE.layout.blocks[0][2] : SCENE.layout.blocks[0][2] + 3] = 1.5, 0.0, 0.02
    _, _, terminated, truncated, info = env.step(np.zeros((2, 5)))
    assert terminated.tolist() == info["lost"].tolist() == [False, True]
    assert not (truncated.any() or info["success"].any())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": "torque"}, "unknown control 'torque'; valid: tool, joint"),
        ({"reward": "shaped"}, "unknown reward 'shaped'; valid: dense, sparse"),
        ({"render_mode": "human"}, "unknown render_mode 'human'; valid: rgb_array"),
        ({"goals": "opened(drawer)"}, r"unknown predicate 'opened'.*open, closed"),
        ({"goals": "lifted(green)"}, r"'green' does not fit in lifted; valid: upright, flat, cube, dice"),
        ({"goals": "open_draw"}, r"'open_draw' is not understood; I can: .*open the drawer"),
        ({"goals": []}, "no goals given; name a task"),
        ({"autoreset_mode": "later"}, "later"),
        ({"max_steps": 0}, "max_steps = 0.*at least 1"),
        ({"hold": 0}, "hold = 0: all must be at least 1"),
    ],
)
def test_what_is_unknown_is_named_with_what_is_valid(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(1, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.ones(2, bool)}, "unknown reset option 'mask'; valid: reset_mask, goals, which"),
        ({"goals": "shut(drawer)"}, "unknown predicate 'shut'"),
        ({"which": 18}, "out of range; valid: 0 to 17"),
        ({"which": np.array([0, -1])}, "out of range; valid: 0 to 17"),
        ({"which": np.zeros(3, int)}, "must be the index of a goal, or 2 of them"),
        ({"which": [0.5, 1.0]}, "must be the index of a goal"),
        ({"reset_mask": np.ones(3, bool)}, r"reset_mask has shape \(3,\); \(2,\) is needed"),
    ],
)
def test_reset_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(2).reset(options=options)


# -- state and control ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["tool", "joint"])
def test_a_state_is_gone_on_from_as_it_was(control):
    env = make(autoreset_mode="Disabled", max_steps=100, control=control, sleep=False)
    env.reset(seed=4)
    actions = chance(env, 20)
    for action in actions[:8]:
        env.step(action)
    state = env.get_state()

    def go_on() -> list[np.ndarray]:
        return [part for action in actions[8:] for part in env.step(action)[:2]]

    first = go_on()
    env.set_state(state)
    np.testing.assert_array_equal(env.get_state(), state)
    for one, again in zip(first, go_on(), strict=True):
        np.testing.assert_array_equal(one, again)


def test_what_goals_look_back_to_stays_with_a_state():
    env = make(2, "swept(cube)", autoreset_mode="Disabled")
    env.reset(seed=0)
    start, first = env.facts.copy(), env.get_state()
    at = SCENE.layout.blocks[0][2]
    env.simulation.qpos[:, at + 1] += 0.03
    env.step(np.zeros((2, 5)))
    later, state = env.facts.copy(), env.get_state()
    assert np.abs(column(env, "cube_y") - column(env, "cube_y0")).min() > 0.02
    env.reset()
    env.set_state(state[[1]], np.array([0]))
    np.testing.assert_array_equal(env.facts[0], later[1])
    env.set_state(first)
    np.testing.assert_array_equal(env.facts, start)
    assert (env.elapsed == 0).all()


def test_joint_control_moves_joints():
    env = make(2, control="joint")
    assert env.action_space.shape == (2, 8)
    env.reset(seed=0)
    q = env.simulation.qpos[:, :7].copy()
    action = np.zeros((2, 8))
    action[0, 3] = 1.0
    for _ in range(3):
        env.step(action)
    moved = env.simulation.qpos[:, :7] - q
    assert moved[0, 3] > 0.1
    assert np.abs(moved[1]).max() < 0.02


def test_tool_control_moves_the_tool_and_stays_in_the_workspace():
    env = make(5, "open(drawer)", max_steps=100)
    env.reset(seed=6)
    start, start_yaw = env.facts[:, :3].copy(), env.facts[:, 3].copy()
    action = np.zeros((5, 5))
    action[0, 0], action[1, 1], action[2, 2], action[3, 3] = -1, -1, 1, 1
    for _ in range(4):
        env.step(action)
    moved = (env.facts[:, :3] - start)[:3]
    assert (np.diag(moved) * [-1, -1, 1] > 0.03).all()
    assert (env.facts[3, 3] - start_yaw[3]) > 0.3 > abs(env.facts[4, 3] - start_yaw[4]) * 10
    action[:, :3] = [[1, 1, 1], [1, -1, 1], [-1, 1, 1], [-1, -1, 1], [1, 1, 1]]
    for _ in range(40):
        env.step(action)
    low, high = np.asarray(SCENE.document.workspace).reshape(2, 3)
    assert (env.latches[:, :3] >= low).all()
    assert (env.latches[:, :3] <= high).all()
    assert (env.facts[:, :3] > low - 0.03).all()
    assert (env.facts[:, :3] < high + 0.03).all()
