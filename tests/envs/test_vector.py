"""The environment's contract: seeds, slots that do not disturb each other, autoreset, faults, states, goals."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs
from envs.goals import GoalError
from envs.observations import FEATURES
from envs.predicates import COLUMNS, TOOL, TOOL_V, YAW
from envs.vector import ENV_ID, TabletopEnv, TabletopVectorEnv

GOALS = ["open(drawer)", "lit(lamp)", "placed(red, anywhere)", "lifted(blue)"]
TOOL_Z = COLUMNS.index("tool_z")


def make(n: int = 4, goals: Any = GOALS, **kwargs: Any) -> TabletopVectorEnv:
    return TabletopVectorEnv(n, goals, **{"max_steps": 20, "threads": 1, **kwargs})


def chance(env: TabletopVectorEnv, steps: int, seed: int = 0, columns: int = 5) -> list[np.ndarray]:
    """Actions float64[steps, n, columns], every slot's from a generator of its own."""
    streams = [np.random.default_rng((seed, slot)).uniform(-1, 1, (steps, columns)) for slot in range(env.num_envs)]
    return list(np.stack(streams, axis=1))


# -- the checks of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", ["flat", "dict"])
@pytest.mark.parametrize("control", ["tool", "joint"])
def test_the_single_environment_passes_the_checks_of_gymnasium_and_stable_baselines3(observation, control):
    env = gymnasium.make(ENV_ID, observation=observation, control=control, threads=1)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_both_are_made_by_id():
    assert envs.DISTRIBUTION == "embodied-repertoire"
    single = gymnasium.make(ENV_ID, goals="lit(lamp)", threads=1)
    assert isinstance(single.unwrapped, TabletopEnv)
    many = gymnasium.make_vec(ENV_ID, num_envs=3, goals="lit(lamp)", threads=1)
    observation, info = many.reset(seed=0)
    assert isinstance(many.unwrapped, TabletopVectorEnv)
    assert observation.shape == (3, FEATURES)
    assert many.observation_space.contains(observation)
    assert info["success"].shape == (3,)
    np.testing.assert_array_equal(single.reset(seed=0)[0], observation[0])
    single.close()
    many.close()


# -- seeds and slots -----------------------------------------------------------------------------------------------


def trace(n: int, steps: int, seed: int, **kwargs: Any) -> dict[str, np.ndarray]:
    """What happens to every slot, [steps, n, …]: slots end at different times."""
    env = make(n, **kwargs)
    observation, _ = env.reset(seed=seed)
    env.elapsed[:] = np.arange(n) * 3 % 10
    rows = []
    for action in chance(env, steps):
        after, reward, terminated, truncated, info = env.step(action)
        rows.append((observation, reward, terminated, truncated, info["success"], env.facts.copy(), env.get_state()))
        observation = after
    names = ("observation", "reward", "terminated", "truncated", "success", "facts", "state")
    return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def test_same_seed_same_bits_after_slots_ended_at_different_times():
    one, same, other = (trace(6, 70, seed) for seed in (3, 3, 4))
    assert len(set(one["truncated"].argmax(axis=0))) > 1
    for name, values in one.items():
        np.testing.assert_array_equal(values, same[name], err_msg=name)
    assert not np.array_equal(one["facts"], other["facts"])


@pytest.mark.parametrize("goals", [GOALS, "placed(red, anywhere)"])
def test_a_slot_does_not_depend_on_how_many_there_are(goals):
    many, few, single = (trace(n, 50, 9, goals=goals) for n in (5, 2, 1))
    for name in many:
        np.testing.assert_array_equal(many[name][:, :2], few[name], err_msg=name)
        np.testing.assert_array_equal(many[name][:, :1], single[name], err_msg=name)


def test_the_single_environment_is_slot_0_of_a_batch():
    single, batch = TabletopEnv(goals=GOALS, threads=1, max_steps=20), make(3, autoreset_mode="Disabled")
    observation, _ = single.reset(seed=5)
    together, _ = batch.reset(seed=5)
    np.testing.assert_array_equal(observation, together[0])
    for action in chance(batch, 15):
        observation, reward, terminated, truncated, info = single.step(action[0])
        together, rewards, terminations, truncations, infos = batch.step(action)
        np.testing.assert_array_equal(observation, together[0])
        assert (reward, terminated, truncated) == (rewards[0], terminations[0], truncations[0])
        assert info["success"] == infos["success"][0]
        assert isinstance(info["success"], bool)


def test_a_new_episode_is_another_one_and_seeding_starts_over():
    env = make()
    first = env.reset(seed=1)[0]
    second = env.reset()[0]
    assert not (first == second).all(axis=1).any()
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    np.testing.assert_array_equal(env.reset()[0], second)


def test_more_threads_same_bits():
    runs = []
    for threads in (1, 2):
        env = TabletopVectorEnv(8, GOALS, threads=threads)
        env.reset(seed=0)
        for action in chance(env, 20):
            env.step(action)
        runs.append(env.get_state())
    np.testing.assert_array_equal(*runs)


# -- autoreset -----------------------------------------------------------------------------------------------------


def disabled_twin(n: int, steps: int, **kwargs: Any) -> np.ndarray:
    """Observations [steps, n, F] of the first episodes, never reset."""
    env = make(n, autoreset_mode=AutoresetMode.DISABLED, **kwargs)
    env.reset(seed=0)
    return np.stack([env.step(action)[0] for action in chance(env, steps)])


def test_same_step_resets_at_once_and_keeps_the_true_last_observation():
    env = make(autoreset_mode=AutoresetMode.SAME_STEP, max_steps=5)
    env.reset(seed=0)
    last = disabled_twin(4, 5, max_steps=5)[-1]
    *early, action = chance(env, 5)
    assert not any("final_obs" in env.step(action)[4] for action in early)
    observation, _, terminated, truncated, info = env.step(action)
    assert truncated.all()
    assert not terminated.any()
    assert info["_final_obs"].all()
    np.testing.assert_array_equal(info["final_obs"], last)
    fresh = make()
    fresh.reset(seed=0)
    np.testing.assert_array_equal(observation, fresh.reset()[0])
    assert (env.elapsed == 0).all()


def test_next_step_returns_the_last_observation_and_the_step_after_only_resets():
    env = make(autoreset_mode=AutoresetMode.NEXT_STEP, max_steps=5)
    env.reset(seed=0)
    last = disabled_twin(4, 5, max_steps=5)[-1]
    *_, sixth = actions = chance(env, 6)
    for action in actions[:5]:
        observation, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    np.testing.assert_array_equal(observation, last)
    observation, reward, terminated, truncated, info = env.step(sixth)
    fresh = make()
    fresh.reset(seed=0)
    np.testing.assert_array_equal(observation, fresh.reset()[0])
    assert not (reward.any() or terminated.any() or truncated.any() or info["success"].any())
    assert (env.elapsed == 0).all()


def test_an_explicit_reset_forgets_a_pending_one():
    env = make(autoreset_mode=AutoresetMode.NEXT_STEP, max_steps=3)
    env.reset(seed=0)
    for action in chance(env, 3):
        env.step(action)
    env.reset(seed=7)
    after = env.facts.copy()
    env.step(np.ones((4, 5)))
    assert (env.elapsed == 1).all()
    assert (env.episodes == 0).all()
    assert not (env.facts == after).all(axis=1).any()


def test_disabled_goes_on_until_a_mask_resets():
    env = make(autoreset_mode=AutoresetMode.DISABLED, max_steps=3)
    env.reset(seed=0)
    for action in chance(env, 5):
        truncated = env.step(action)[3]
    assert truncated.all()
    before = env.facts.copy()
    observation, _ = env.reset(options={"reset_mask": np.array([False, True, False, True])})
    np.testing.assert_array_equal(env.elapsed, [5, 0, 5, 0])
    np.testing.assert_array_equal(env.episodes, [0, 1, 0, 1])
    np.testing.assert_array_equal(env.facts[[0, 2]], before[[0, 2]])
    assert not (env.facts[[1, 3]] == before[[1, 3]]).all(axis=1).any()
    fresh = make()
    fresh.reset(seed=0)
    np.testing.assert_array_equal(observation[[1, 3]], fresh.reset()[0][[1, 3]])


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sleep", [True, False], ids=["asleep", "awake"])
@pytest.mark.parametrize("fault", ["action", "state", "infinite"])
def test_what_goes_bad_ends_alone_and_the_batch_goes_on(fault, sleep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mujoco logs its warning where it runs
    env, clean = make(4, max_steps=50, sleep=sleep), make(4, max_steps=50, sleep=sleep)
    env.reset(seed=2)
    clean.reset(seed=2)
    actions = chance(env, 30)
    others = [0, 1, 3]
    for k, action in enumerate(actions):
        expected = clean.step(action)
        if k == 10:
            if fault == "state":
                env.simulation.qvel[2, 3] = np.nan
            else:
                action = action.copy()
                action[2, 1] = np.nan if fault == "action" else np.inf
        observation, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(observation[others], expected[0][others])
        np.testing.assert_array_equal(reward[others], expected[1][others])
        np.testing.assert_array_equal(info["bad_physics"], [False, False, k == 10, False])
        assert np.isfinite(observation).all()
        assert np.isfinite(reward).all()
        assert np.isfinite(env.facts).all()
        if k == 10:
            np.testing.assert_array_equal(truncated, [False, False, True, False])
            assert not terminated.any()
            assert not info["success"].any()
            assert np.isfinite(info["final_obs"]).all()
            assert env.episodes[2] == 1
    assert np.isfinite(env.get_state()).all()


def test_a_lost_block_ends_the_episode():
    env = make(2, "lifted(red)")
    env.reset(seed=0)
    env.simulation.qpos[1, 9:12] = 1.5, 0.0, 0.02
    _, _, terminated, truncated, info = env.step(np.zeros((2, 5)))
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_array_equal(info["lost"], [False, True])
    assert not (truncated.any() or info["success"].any())


# -- control and rendering -----------------------------------------------------------------------------------------


def test_actions_move_the_tool_the_way_they_say():
    env = make(3, "open(drawer)", max_steps=100)
    env.reset(seed=6)
    start = env.facts[:, :3].copy()
    action = np.zeros((3, 5))
    action[0, 0], action[1, 1], action[2, 2] = -1, -1, 1  # away from the walls
    for _ in range(4):
        env.step(action)
    moved = env.facts[:, :3] - start
    assert np.diag(moved * [-1, -1, 1]).min() > 0.04
    assert np.abs(moved - np.diag(np.diag(moved))).max() < 0.01
    clipped, plain = make(2, "open(drawer)"), make(2, "open(drawer)")
    for other, scale in ((clipped, 9.0), (plain, 1.0)):
        other.reset(seed=6)
        other.step(np.full((2, 5), scale))
    np.testing.assert_array_equal(clipped.facts, plain.facts)


def test_joint_control_moves_joints():
    env = make(2, "open(drawer)", control="joint")
    env.reset(seed=0)
    q = env.simulation.qpos[:, :7].copy()
    action = np.zeros((2, 8))
    action[0, 3] = 1.0
    for _ in range(3):
        env.step(action)
    moved = env.simulation.qpos[:, :7] - q
    assert moved[0, 3] > 0.1
    assert np.abs(moved[1]).max() < 0.02


def test_pictures_are_one_a_slot():
    env = make(2, "lit(lamp)", render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert all(picture.shape == (240, 240, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert not np.array_equal(*pictures)
    env.close()


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": "torque"}, "unknown control 'torque'; valid: tool, joint"),
        ({"observation": "pixels"}, "unknown observation 'pixels'; valid: flat, dict"),
        ({"render_mode": "human"}, "unknown render_mode 'human'; valid: rgb_array"),
        ({"goals": "opened(drawer)"}, r"opened.*open.*lit"),
        ({"goals": "lifted(green)"}, r"green.*red.*blue"),
        ({"goals": []}, "no goals given"),
        ({"autoreset_mode": "later"}, "later"),
    ],
)
def test_what_is_unknown_is_named_with_what_is_valid(arguments, message):
    with pytest.raises(ValueError, match=message):
        TabletopVectorEnv(1, threads=1, **arguments)


def test_unknown_options_and_wrong_actions_are_refused():
    env = make(2)
    with pytest.raises(ValueError, match="unknown reset option 'mask'; valid: reset_mask, goals, which"):
        env.reset(options={"mask": np.ones(2, bool)})
    with pytest.raises(GoalError, match="shut"):
        env.reset(options={"goals": "shut(drawer)"})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="8 columns; 'tool' control takes 5"):
        env.step(np.zeros((2, 8)))
    assert env.facts[:, TOOL_Z].min() > 0


def test_the_tool_moves_as_the_simulator_says():
    env = TabletopVectorEnv(3, threads=1, sleep=False)
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 3, 5)):
        env.step(action)
    model = env.simulation.model
    data, site = mujoco.MjData(model), model.site("tool").id
    for i in range(3):
        data.qpos[:], data.qvel[:] = env.simulation.qpos[i], env.simulation.qvel[i]
        mujoco.mj_step1(model, data)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_SITE, site, velocity, 0)
        frame = data.site_xmat[site].reshape(3, 3)
        assert np.allclose(env.facts[i, TOOL : TOOL + 3], data.site_xpos[site], atol=1e-9)
        assert np.allclose(env.facts[i, TOOL_V : TOOL_V + 3], velocity[3:], atol=1e-9)
        assert np.isclose(env.facts[i, YAW], np.arctan2(frame[1, 0], frame[0, 0]))
    env.close()


def test_without_sleep_simulations_share_memory_but_nothing_else():
    far = {"goals": "on(red, blue)", "max_steps": 500, "sleep": False}  # no episode ends by itself
    many, few = make(6, **far), make(3, threads=2, **far)
    many.reset(seed=3)
    few.reset(seed=3)
    actions = chance(many, 60)
    for action in actions:
        many.step(action)
        few.step(action[:3])
    np.testing.assert_array_equal(many.simulation.qpos[:3], few.simulation.qpos)
    few.set_state(many.get_state()[3:])
    for action in actions[:10]:
        many.step(action)
        few.step(action[3:])
    np.testing.assert_array_equal(many.simulation.qpos[3:], few.simulation.qpos)
