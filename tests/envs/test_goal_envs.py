"""Goal environments: rewards that can be relabelled, goals worth reaching, and what each kind asks for."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.registry import make_vector
from envs.scenes import goal_envs
from envs.scenes.document import parse
from envs.scenes.goal_envs import KINDS, GoalVectorEnv
from envs.scenes.scene import load
from envs.scenes.world import WorldVectorEnv

NAMES = {"".join(word.capitalize() for word in kind.split("_")): kind for kind in KINDS}
HALF = 0.02  # every cube's half edge, m


def make(name: str, n: int = 4, **arguments: Any) -> GoalVectorEnv:
    return getattr(goal_envs, f"{name}VectorEnv")(n, **{"threads": 1, **arguments})


@cache
def many(name: str, blocks: int | None = None) -> GoalVectorEnv:
    """200 of them, for goals; none of it steps."""
    return make(name, 200, blocks=blocks)


def chance(env: WorldVectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, env.num_envs, 5))


def points(goals: np.ndarray) -> np.ndarray:
    """Goals [n, G] as points [n, things, 3]."""
    return goals.reshape(len(goals), -1, 3)


# -- the checks of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_single_environments_pass_the_checks_of_gymnasium_and_stable_baselines3(name):
    env = gymnasium.make(f"Embodied/{name}-v0", threads=1)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_observations_are_in_their_space(name):
    env = make_vector(name.lower(), 3, threads=1, max_steps=6)
    assert isinstance(env.unwrapped, GoalVectorEnv)
    assert env.unwrapped.kind == NAMES[name]
    observation, info = env.reset(seed=0)
    assert info["success"].shape == (3,)
    for action in chance(env.unwrapped, 8):
        assert env.observation_space.contains(observation)
        observation, reward, *_ = env.step(action)
        assert set(reward) <= {0.0, -1.0}
    env.close()


# -- rewards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_reward_of_a_step_is_the_one_computed_of_its_goals(name):
    env = make(name, 6, tolerance=0.15, autoreset_mode="Disabled")
    env.reset(seed=0)
    seen = set()
    for action in chance(env, 12):
        observation, reward, _, _, info = env.step(action)
        np.testing.assert_array_equal(
            reward, env.compute_reward(observation["achieved_goal"], observation["desired_goal"], info)
        )
        np.testing.assert_array_equal(info["success"], reward == 0)
        seen |= set(reward)
    assert seen <= {0.0, -1.0}


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_rewards_are_computed_for_any_number_of_goals_at_once(reward):
    env = make("Rearrange", 2, reward=reward)
    random = np.random.default_rng(0)
    achieved = random.uniform(0, 0.05, (5, 7, 9))
    desired = random.uniform(0, 0.05, (5, 7, 9))
    together = env.compute_reward(achieved, desired, [{}] * 35)
    assert together.shape == (5, 7)
    one = [
        [env.compute_reward(a, d, {}) for a, d in zip(*rows, strict=True)]
        for rows in zip(achieved, desired, strict=True)
    ]
    np.testing.assert_array_equal(together, one)
    assert np.ndim(env.compute_reward(achieved[0, 0], desired[0, 0], {})) == 0
    gaps = np.linalg.norm((achieved - desired).reshape(5, 7, 3, 3), axis=-1)
    expected = -gaps.mean(-1) if reward == "dense" else np.where(gaps.max(-1) < env.tolerance, 0.0, -1.0)
    np.testing.assert_allclose(together, expected)


@pytest.mark.parametrize("tolerance", [0.01, 0.05])
def test_a_goal_is_reached_within_the_tolerance(tolerance):
    env = make("Push", 1, tolerance=tolerance)
    goal = np.array([0.4, 0.1, 0.02])
    near, far = goal.copy(), goal.copy()
    near[0] += 0.99 * tolerance
    far[1] += 1.01 * tolerance
    assert env.compute_reward(near, goal, {}) == 0
    assert env.compute_reward(far, goal, {}) == -1


def test_the_dense_reward_grows_on_the_way_to_the_goal():
    env = make("Reach", 8, reward="dense", tolerance=0.02, autoreset_mode="Disabled")
    observation, _ = env.reset(seed=0)
    rewards = []
    for _ in range(25):
        away = observation["desired_goal"] - env.latches[:, :3]  # from where the tool was sent
        action = np.concatenate([np.clip(away / 0.05, -1, 1), np.zeros((8, 2))], axis=1)
        observation, reward, *_, info = env.step(action)
        np.testing.assert_allclose(reward, -np.linalg.norm(env.goal - observation["achieved_goal"], axis=1))
        rewards.append(reward)
    assert info["success"].all()
    seen = np.stack(rewards)[2::3]
    far = seen[:-1] < -0.05
    assert far[0].all()
    assert (np.diff(seen, axis=0)[far] > 0).all()


def test_the_dense_reward_asks_the_tool_to_the_first_cube_out_of_place():
    env = make("Push", 2, reward="dense", autoreset_mode="Disabled")
    observation, _ = env.reset(seed=0)
    observation, reward, *_ = env.step(np.zeros((2, 5)))
    cube, goal = observation["achieved_goal"], observation["desired_goal"]
    reach = np.linalg.norm(env.facts[:, :3] - cube, axis=1)
    np.testing.assert_allclose(reward, -np.linalg.norm(cube - goal, axis=1) - 0.5 * reach)


# -- goals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_goal_is_near_what_is_achieved_at_the_start(name):
    env = many(name)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        away = np.linalg.norm(points(observation["desired_goal"] - observation["achieved_goal"]), axis=-1)
        first = away if name == "Rearrange" else away[:, 0]  # Stack builds on the first, others stay
        assert first.min() > 0.08, name


@pytest.mark.parametrize("blocks", range(1, 7))
@pytest.mark.parametrize("name", ["Push", "PickPlace", "Rearrange", "DrawerPlace"])
def test_one_to_six_cubes(name, blocks):
    env = make(name, 30, blocks=blocks)
    observation, _ = env.reset(seed=blocks)
    assert observation["desired_goal"].shape == observation["achieved_goal"].shape == (30, 3 * blocks)
    assert env.observation_space.contains(observation)
    achieved, desired = points(observation["achieved_goal"]), points(observation["desired_goal"])
    if name == "Rearrange":
        for a in range(blocks):
            assert np.linalg.norm(achieved[:, a] - desired[:, a], axis=-1).min() > 0.08
            for b in range(a):
                assert np.linalg.norm(desired[:, a, :2] - desired[:, b, :2], axis=-1).min() > 0.07
    else:
        np.testing.assert_array_equal(achieved[:, 1:], desired[:, 1:])
        if name != "DrawerPlace":
            for other in range(1, blocks):  # its place is free
                assert np.linalg.norm(achieved[:, other, :2] - desired[:, 0, :2], axis=-1).min() > 0.07
    _, _, _, _, info = env.step(np.zeros((30, 5)))
    assert not (info["success"].any() or info["lost"].any() or info["bad_physics"].any())


def test_a_cube_is_picked_to_the_air_in_half_of_the_episodes():
    env = many("PickPlace")
    env.reset(seed=0)
    height = env.goal[:, 2]
    air = height > 0.021
    assert 0.35 < air.mean() < 0.65
    np.testing.assert_allclose(height[~air], HALF)
    assert height[air].min() >= HALF + 0.05
    assert height[air].max() <= HALF + 0.20


@pytest.mark.parametrize("blocks", [2, 3, 6])
def test_a_stack_is_one_above_the_other_on_free_ground(blocks):
    env = many("Stack", blocks)
    observation, _ = env.reset(seed=1)
    goal, achieved = points(observation["desired_goal"]), points(observation["achieved_goal"])
    np.testing.assert_array_equal(goal[:, :, :2], np.repeat(goal[:, :1, :2], blocks, axis=1))
    np.testing.assert_allclose(goal[:, :, 2], np.tile(HALF + 2 * HALF * np.arange(blocks), (200, 1)))
    assert np.linalg.norm(achieved[:, :, :2] - goal[:, :1, :2], axis=-1).min() > 0.07


def test_the_drawer_begins_open_and_the_goal_lies_in_it():
    env = many("DrawerPlace", 4)
    env.reset(seed=0)
    slide, drawer = env.scene.slides[0], env.scene.containers[0]
    value = env.facts[:, env.columns.index("drawer_value")]
    assert value.min() > 0.85 * slide.travel
    x, y, z = env.goal[:, :3].T
    assert (np.abs(x - drawer.centre[0]) < drawer.half[0] - HALF).all()
    assert (np.abs(y - drawer.centre[1] - value) < drawer.half[1] - HALF).all()
    np.testing.assert_allclose(z, drawer.centre[2] + HALF)
    assert not (np.abs(env.facts[:, env.columns.index("red_y")] - y) < 0.08).any()
    others = points(env.goal)[:, 1:]
    gap = np.linalg.norm(others[:, :, :2] - env.goal[:, None, :2], axis=-1)
    assert np.mean(gap.min(axis=1) < 2 * HALF) < 0.05  # hardly ever where another cube is


def test_reach_has_goals_all_around_in_reach():
    env = many("Reach")
    env.reset(seed=0)
    assert (env.goal.max(axis=0) - env.goal.min(axis=0) > [0.2, 0.4, 0.15]).all()
    low, high = np.asarray(env.scene.document.workspace).reshape(2, 3)
    assert ((env.goal > low) & (env.goal < high)).all()


def test_goals_depend_on_seed_slot_and_episode_alone():
    env, few = make("Rearrange", 5), make("Rearrange", 2)
    first = env.reset(seed=4)[0]
    few.reset(seed=4)
    np.testing.assert_array_equal(first["desired_goal"][:2], few.goal)
    other = env.reset()[0]
    assert not (other["desired_goal"] == first["desired_goal"]).all(axis=1).any()
    env.step(chance(env, 1)[0])
    again = env.reset(seed=4)[0]
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])


# -- ends and states -----------------------------------------------------------------------------------------------


def reached(env: GoalVectorEnv, slot: int) -> None:
    """Puts the first cube of a slot where it shall be."""
    at = env.scene.layout.blocks[0][0]
    env.simulation.qpos[slot, at : at + 3] = env.goal[slot, :3]


@pytest.mark.parametrize(("ends", "hold"), [(True, 1), (True, 3), (False, 1)])
def test_success_ends_an_episode_only_if_told_to(ends, hold):
    env = make("Push", 2, terminate_on_success=ends, hold=hold, max_steps=5, autoreset_mode="Disabled")
    env.reset(seed=0)
    reached(env, 1)
    rows = [env.step(np.zeros((2, 5))) for _ in range(5)]
    success = np.stack([row[4]["success"] for row in rows])
    assert not success[:, 0].any()
    assert success[:, 1].tolist() == [k >= hold - 1 for k in range(5)]
    np.testing.assert_array_equal(np.stack([row[2] for row in rows]), success & ends)
    truncated = np.stack([row[3] for row in rows])
    assert truncated[:, 0].tolist() == [False] * 4 + [True]
    assert truncated[:, 1].tolist() == [False] * 4 + [not ends]


def test_the_last_observation_keeps_its_own_goal():
    env = make("Push", 3, max_steps=3)
    env.reset(seed=0)
    goal = env.goal.copy()
    for action in chance(env, 3):
        observation, reward, _, truncated, info = env.step(action)
    assert truncated.all()
    assert info["_final_obs"].all()
    last = info["final_obs"]
    np.testing.assert_array_equal(last["desired_goal"], goal)
    np.testing.assert_array_equal(reward, env.compute_reward(last["achieved_goal"], last["desired_goal"], {}))
    assert not (observation["desired_goal"] == goal).all(axis=1).any()


def test_goals_stay_when_states_are_set():
    env = make("PickPlace", 4, autoreset_mode="Disabled", sleep=False)
    env.reset(seed=0)
    goal, actions = env.goal.copy(), chance(env, 12)
    for action in actions[:4]:
        env.step(action)
    state = env.get_state()
    first = [env.step(action) for action in actions[4:]]
    env.set_state(state)
    np.testing.assert_array_equal(env.goal, goal)
    for action, (observation, reward, *_) in zip(actions[4:], first, strict=True):
        again, same, *_ = env.step(action)
        np.testing.assert_array_equal(reward, same)
        for key, value in observation.items():
            np.testing.assert_array_equal(value, again[key])
    env.set_state(state[[2]], np.array([0]))
    np.testing.assert_array_equal(env.goal, goal)
    np.testing.assert_array_equal(env.observation()["achieved_goal"][0], env._achieved[0])


def test_observations_are_copies():
    env = make("Reach", 2)
    observation, _ = env.reset(seed=0)
    kept = {key: value.copy() for key, value in observation.items()}
    env.step(np.ones((2, 5)))
    for key, value in observation.items():
        np.testing.assert_array_equal(value, kept[key])


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Push", {"blocks": 0}, "blocks = 0.*push takes 1 to 6 blocks"),
        ("Push", {"blocks": 7}, "blocks = 7.*push takes 1 to 6 blocks"),
        ("Stack", {"blocks": 1}, "blocks = 1.*stack takes 2 to 6 blocks"),
        ("Push", {"tolerance": 0.0}, "tolerance = 0.0"),
        ("Push", {"tolerance": -0.1}, "tolerance = -0.1"),
        ("Push", {"tolerance": float("nan")}, "tolerance = nan"),
        ("Reach", {"reward": "shaped"}, "unknown reward 'shaped'; valid: sparse, dense"),
        ("Reach", {"control": "torque"}, "unknown control 'torque'; valid: tool, joint"),
        ("DrawerPlace", {"scene": "cubes"}, "scene 'cubes' has no drawer"),
        ("Push", {"scene": "kitchen"}, "there is no scene 'kitchen'"),
        ("Push", {"randomise": {"gravity": (1, 2)}}, "unknown quantity 'gravity'"),
    ],
)
def test_what_can_not_be_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(name, 1, **arguments)


def test_a_scene_built_already_must_have_as_many_cubes():
    scene = load("cubes", 2)
    with pytest.raises(ValueError, match="scene 'cubes' has 2 blocks, not 1"):
        make("Push", 1, scene=scene)
    env = make("Push", 1, scene=scene, blocks=2)
    assert env.reset(seed=0)[0]["achieved_goal"].shape == (1, 6)


def test_goals_can_be_asked_for_in_a_scene_of_ones_own():
    page = (
        "area: [0.36, 0.0, 0.52, 0.2]\n"
        "objects:\n  can: {type: cylinder, radius: 0.02, height: 0.06}\n  ball: {type: ball, radius: 0.02}\n"
        "fixtures:\n  chest: {type: drawer, pos: [0.50, -0.30], yaw: 180}\n"
    )
    env = make("PickPlace", 20, scene=load(parse(page)), blocks=2)
    env.reset(seed=0)
    assert env.goal[:, 2].min() == pytest.approx(0.03)  # the can stands
    low_x, low_y, high_x, high_y = env.scene.document.area
    assert ((env.goal[:, 0] > low_x) & (env.goal[:, 0] < high_x)).all()
    assert ((env.goal[:, 1] > low_y) & (env.goal[:, 1] < high_y)).all()
