"""The world without a task: a table with edges, what pushes back on the tool, named terms and costs."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.scenes.discovery import COSTS, TERMS, DiscoveryEnv, DiscoveryVectorEnv
from envs.scenes.document import SceneError, library, parse
from envs.scenes.goal_envs import PickPlaceVectorEnv, PushVectorEnv
from envs.scenes.scene import load

DOWN, SHUT = 2, 4  # columns of an action


def make(n: int = 2, **arguments: Any) -> DiscoveryVectorEnv:
    return DiscoveryVectorEnv(n, **{"threads": 1, "sleep": False, **arguments})


def chance(env: DiscoveryVectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.num_envs, 5))


def sent(env: DiscoveryVectorEnv, target: np.ndarray, grip: float) -> np.ndarray:
    """Actions that send the tools to ``target`` float64[n, 3]."""
    action = np.zeros((env.num_envs, 5))
    action[:, :3] = np.clip((target - env.latches[:, :3]) / 0.03, -1, 1)
    action[:, SHUT] = grip
    return action


# -- the table -----------------------------------------------------------------------------------------------------


def test_a_block_pushed_over_the_edge_falls_and_the_episode_ends():
    env = make(2)
    env.reset(seed=0)
    at, speed = (env.scene.layout.blocks[k][0] for k in (0, 1))
    env.simulation.qpos[0, at + 1], env.simulation.qvel[0, speed + 1] = 0.34, 1.2
    heights, ended = [], False
    for _ in range(20):
        _, _, terminated, truncated, info = env.step(np.zeros((2, 5)))
        heights.append(info["objects"][0, 0, 2])
        assert not terminated[1] and not truncated.any()
        if terminated[0]:
            assert info["costs"][0, COSTS.index("off_table")] == 1 and info["lost"][0]
            assert info["objects"][0, 0, 1] > 0.36 and heights[-1] < -0.02
            ended = True
            break
        assert info["costs"][0, COSTS.index("off_table")] == 0
    assert ended
    _, _, terminated, _, info = env.step(np.zeros((2, 5)))  # begun anew, on the table
    assert not terminated.any() and info["objects"][0, 0, 2] > 0 and not info["lost"].any()


def test_what_lies_on_the_table_stays_there():
    env = make(3, blocks=4)
    before = env.reset(seed=0)[1]["objects"]
    for _ in range(5):
        info = env.step(np.zeros((3, 5)))[4]
    np.testing.assert_allclose(info["objects"], before, atol=1e-3)


def test_only_a_scene_that_asks_for_one_has_a_table_with_edges():
    for name in library():
        table = load(name).model.geom("table")
        if name == "discovery":
            assert table.type == mujoco.mjtGeom.mjGEOM_BOX and table.pos[2] + table.size[2] == 0
            assert [*(table.pos - table.size)[:2], *(table.pos + table.size)[:2]] == pytest.approx(
                list(load(name).document.table or ())
            )
        else:
            assert table.type == mujoco.mjtGeom.mjGEOM_PLANE
            np.testing.assert_array_equal((table.size, table.pos), ((1.2, 1.2, 0.1), (0, 0, 0)))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[0.7, -0.3, 0.3, 0.3]", "table = [0.7, -0.3, 0.3, 0.3] must be its low corner, then its high one"),
        ("[0.3, 0.3, 0.7, 0.3]", "must be its low corner, then its high one"),
        ("[0.3, 0.3, 0.7]", "must be 4 finite numbers"),
        ("[0.3, -0.3, .inf, 0.3]", "must be 4 finite numbers"),
        ("wide", "table = 'wide' must be 4 finite numbers"),
        ("[0.37, -0.3, 0.7, 0.3]", "must have the area [0.36, 0.0, 0.6, 0.22], where objects begin"),
        ("[0.3, -0.3, 0.7, 0.2]", "must have the area"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_its_line(table, sentence):
    with pytest.raises(SceneError) as found:
        parse(f"name: room\ntable: {table}\narea: [0.36, 0.0, 0.60, 0.22]\n", "room.yaml")
    assert str(found.value).startswith("room.yaml line 2: ") and sentence in str(found.value)
    assert parse("table: [0.36, 0.0, 0.60, 0.22]\n").table == (0.36, 0.0, 0.60, 0.22)  # just as large


# -- force ---------------------------------------------------------------------------------------------------------


def pushed(env: DiscoveryVectorEnv, slot: int) -> np.ndarray:
    """The force on hand and fingers by mujoco's contacts, float64[3] (N)."""
    model, s = env.simulation.model, env.simulation
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = s.qpos[slot], s.qvel[slot], s.ctrl[slot]
    data.qacc_warmstart[:] = s.warmstart[slot]
    mujoco.mj_forward(model, data)
    arm = {model.body(name).id for name in ("hand", "finger_left", "finger_right")}
    total, force = np.zeros(3), np.zeros(6)
    for number, contact in enumerate(data.contact):
        mujoco.mj_contactForce(model, data, number, force)
        first, second = (model.geom_bodyid[g] in arm for g in contact.geom)
        total += (int(second) - int(first)) * (contact.frame.reshape(3, 3).T @ force[:3])
    return total


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_force_on_the_tool_is_what_mujoco_s_contacts_say(blocks):
    env = make(3, blocks=blocks, autoreset_mode="Disabled")
    env.reset(seed=0)
    action = np.zeros((3, 5))
    action[:, :2] = [[1, 1], [1, -1], [-1, -1]]
    action[:, SHUT] = -1
    for _ in range(4):
        info = env.step(action)[4]
        np.testing.assert_allclose(env.forces, 0, atol=1e-6)  # nothing pushes back in the air
        assert not info["costs"][:, [1, 2, 4]].any()
    action[:, :2], action[:, DOWN] = 0, -1
    for _ in range(26):  # until it rests
        info = env.step(action)[4]
    on_table = env.facts[:, 2] < 0.02
    assert on_table.any()
    for slot in np.flatnonzero(on_table).tolist():
        expected = pushed(env, slot)
        assert np.linalg.norm(env.forces[slot] - expected) < 0.08 * np.linalg.norm(expected)
        assert env.forces[slot, 2] == pytest.approx(expected[2], rel=0.06) and expected[2] > 50
        costs = dict(zip(COSTS, info["costs"][slot], strict=True))
        size = np.linalg.norm(env.forces[slot])
        assert costs["table_hit"] == pytest.approx(min(1, (env.forces[slot, 2] - 5) / 100))
        assert costs["force"] == pytest.approx(min(1, (size - 15) / 100)) and costs["off_table"] == 0


# -- terms and costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2])
def test_reach_adds_up_to_how_much_nearer_the_tool_came(blocks):
    env = make(3, blocks=blocks, max_steps=25, autoreset_mode="Disabled")
    env.reset(seed=1)

    def gap() -> np.ndarray:
        return np.linalg.norm(env.objects - env.facts[:, None, :3], axis=-1).min(axis=1)

    first, total = gap(), np.zeros(3)
    for action in chance(env, 25, seed=1):
        info = env.step(action)[4]
        assert ((info["costs"] >= 0) & (info["costs"] <= 1)).all()
        assert info["reward_terms"].shape == (3, len(TERMS)) and info["objects"].shape == (3, blocks, 3)
        total += info["reward_terms"][:, 0]
    np.testing.assert_allclose(total, (first - gap()) / 0.03, atol=1e-9)


def test_a_block_that_is_gripped_and_raised_is_a_grasp_and_a_lift():
    env = make(2, autoreset_mode="Disabled")
    env.reset(seed=2)
    block = env.objects[:, 0]
    above = block + np.array((0, 0, 0.10))
    for target, grip, steps in ((above, 1, 14), (block, 1, 10), (block, -1, 5)):
        for _ in range(steps):
            info = env.step(sent(env, target, grip))[4]
            terms = dict(zip(TERMS, info["reward_terms"].T, strict=True))
            if grip > 0:
                assert not terms["grasp"].any() and not terms["lift"].any()
    assert (terms["grasp"] == 1).all() and (terms["lift"] < 0.05).all()
    for _ in range(12):
        info = env.step(sent(env, block + np.array((0, 0, 0.06)), -1))[4]
    assert info["reward_terms"][:, 2] == pytest.approx((info["objects"][:, 0, 2] - 0.02) / 0.10, abs=0.05)
    assert (info["reward_terms"][:, 2] > 0.4).all()


def test_speed_and_the_end_of_a_joint_are_costs_in_their_units():
    env = make(2)
    env.reset(seed=0)
    radius = np.linalg.norm(env.facts[:, :2], axis=1)  # of the tool about the first joint, which is upright
    for room, speed, limit in ((0.05, 0.6, 0.0), (0.025, 0.8, 0.5), (0.0, 1.2, 1.0)):
        env.simulation.qpos[:, 0] = [2.8973 - room, -2.8973 + room]
        env.simulation.qvel[:, 0] = speed / radius
        env._settle(np.zeros((2, 5)), np.zeros(2, bool))
        costs = dict(zip(COSTS, env.costs.T, strict=True))
        assert costs["joint_limit"] == pytest.approx([limit] * 2, abs=1e-4)
        assert costs["overspeed"] == pytest.approx([min(1.0, (speed - 0.6) / 0.4)] * 2, abs=1e-4)


def test_the_one_reward_is_the_weighted_sum():
    env = make(3, weights=(2.0, 3.0, 5.0, 0.5))
    env.reset(seed=0)
    for action in chance(env, 12):
        _, reward, _, _, info = env.step(action)
        expected = info["reward_terms"] @ [2.0, 3.0, 5.0] - 0.5 * info["costs"].sum(axis=1)
        np.testing.assert_allclose(reward, expected)


# -- gymnasium -----------------------------------------------------------------------------------------------------


def test_the_single_environment_passes_gymnasium_s_checks():
    env = DiscoveryEnv(threads=1)
    check_env(env, skip_render_check=True)
    env.close()


def test_the_same_seed_gives_the_same_bits():
    seen = []
    for seed in (3, 3, 4):
        env = make(3, blocks=2, max_steps=6, sleep=True)
        rows = [env.reset(seed=seed)[0]]
        for action in chance(env, 10):
            observation, reward, _, _, info = env.step(action)
            rows += [observation, reward, info["costs"], info["reward_terms"], info["objects"]]
        seen.append(np.concatenate([row.ravel() for row in rows]))
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])


def test_the_true_last_observation_is_kept_and_the_objects_are_those_of_the_step():
    env, through = make(2, max_steps=5), make(2, max_steps=5, autoreset_mode="Disabled")
    env.reset(seed=0)
    through.reset(seed=0)
    *actions, action = chance(env, 5)
    for before in actions:
        assert not env.step(before)[3].any()
        through.step(before)
    observation, _, _, truncated, info = env.step(action)
    other, *_, same = through.step(action)
    assert truncated.all()
    np.testing.assert_array_equal(info["final_obs"], other)
    np.testing.assert_array_equal(info["objects"], same["objects"])
    assert (observation != other).any(axis=1).all()
    assert (env.objects != info["objects"]).any(axis=(1, 2)).all()


def test_a_slot_s_reset_does_not_touch_its_neighbours():
    env, other = make(3, blocks=2), make(3, blocks=2)
    for e in (env, other):
        e.reset(seed=0)
    for step, action in enumerate(chance(env, 10)):
        if step == 4:
            env.reset(options={"reset_mask": np.array([False, True, False])})
        a, b = env.step(action), other.step(action)
        for x, y in zip((a[0], a[1], *a[4].values()), (b[0], b[1], *b[4].values()), strict=True):
            np.testing.assert_array_equal(x[[0, 2]], y[[0, 2]])
        assert (a[0][1] != b[0][1]).any() == (step >= 4)


def test_a_slot_that_goes_bad_has_no_rewards_and_no_costs():
    env = make(2, autoreset_mode="Disabled")
    env.reset(seed=0)
    action = np.zeros((2, 5))
    action[0, 0] = np.nan
    _, _, terminated, truncated, info = env.step(action)
    assert truncated.tolist() == [True, False] and not terminated.any() and info["bad_physics"][0]
    assert not info["costs"][0].any() and not info["reward_terms"][0].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, "has no block to discover anything about"),
        ({"blocks": 5}, "blocks = 5"),
        ({"weights": (1.0, 2.0)}, "must be 4 finite numbers: reach, grasp, lift, safety"),
        ({"weights": (1.0, 0.0, 0.0, np.nan)}, "must be 4 finite numbers"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(1, **arguments)


# -- goals near by -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PushVectorEnv, PickPlaceVectorEnv])
def test_goals_lie_within_their_range_and_in_the_area(kind):
    env = kind(200, threads=1, goal_range=0.1)
    low_x, low_y, high_x, high_y = env.scene.document.area
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        away = observation["desired_goal"] - observation["achieved_goal"]
        far = np.linalg.norm(away[:, :2], axis=1)
        assert far.min() > 0.08 and far.max() < 0.1
        x, y = observation["desired_goal"][:, :2].T
        assert ((x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)).all()


@pytest.mark.parametrize("goal_range", [0.05, 0.0, -1.0, np.nan])
def test_a_range_too_small_for_any_goal_is_refused(goal_range):
    with pytest.raises(ValueError, match=r"push and pick_place have one, of > 0\.096 m"):
        PushVectorEnv(1, goal_range=goal_range)
