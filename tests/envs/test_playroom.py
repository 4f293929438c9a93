"""The playroom: seeds, starts, autoreset, faults, states, goals, rewards, randomisation, and experts that solve it."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.scenes.experts import ScriptedExpert
from envs.scenes.playroom import PlayroomEnv, PlayroomVectorEnv
from envs.scenes.scene import load
from envs.scenes.words import WordError
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


# -- starts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> PlayroomVectorEnv:
    """Every task in 20 slots."""
    return make(20 * len(TASKS), autoreset_mode="Disabled", max_steps=1000)


def every_task(env: PlayroomVectorEnv, seed: int) -> None:
    env.reset(seed=seed, options={"which": np.arange(env.num_envs) % len(TASKS)})


def test_no_goal_holds_at_its_start(crowd):
    for seed in range(12):
        every_task(crowd, seed)
        held = crowd.distance.min(axis=1) > 0
        assert not held.any(), [crowd.goal_text(slot) for slot in np.flatnonzero(held)]


@pytest.mark.parametrize(
    "goal",
    [
        "not open(drawer)",
        "not closed(door)",
        "not lit(red_lamp)",
        "at(flat, anywhere)",
        "placed(upright, anywhere)",
        "inside(dice, drawer)",
        "not inside(cube, shelf)",
        "on(cube, flat)",
        "open(drawer) & lit(red_lamp) & inside(cube, shelf) & closed(door)",
    ],
)
def test_no_goal_of_ones_own_holds_at_its_start(crowd, goal):
    try:
        crowd.reset(seed=0, options={"goals": goal})
        assert not (crowd.distance.min(axis=1) > 0).any()
        (term, *_) = crowd.scene.vocabulary.parse(goal)
        if "anywhere" in term.args:  # a place was drawn, away from the block
            at = crowd.columns.index(f"{term.args[0]}_x")
            assert np.linalg.norm(crowd.codes.place[:, 0] - crowd.facts[:, at : at + 2], axis=1).min() > 0.079
    finally:
        crowd.set_goals(TASKS)


def test_nothing_begins_inside_anything(crowd):
    model = SCENE.model
    data = mujoco.MjData(model)
    for seed in (0, 1):
        every_task(crowd, seed)
        for slot in range(crowd.num_envs):
            data.qpos[:] = crowd.simulation.qpos[slot]
            mujoco.mj_forward(model, data)
            deep = [c for c in data.contact[: data.ncon] if c.dist < -0.002]
            assert not deep, [(crowd.goal_text(slot), [model.geom(g).name for g in c.geom], c.dist) for c in deep]


def test_things_stay_where_they_begin(crowd):
    every_task(crowd, 3)
    before = crowd.facts.copy()
    action = np.zeros((crowd.num_envs, 5))
    action[:, 4] = np.where(column(crowd, "grip_command") > 0, 1.0, -1.0)
    for _ in range(30):
        _, _, terminated, _, info = crowd.step(action)
    assert not (terminated.any() or info["bad_physics"].any() or info["lost"].any() or info["success"].any())
    for block in SCENE.blocks:
        at = crowd.columns.index(f"{block.name}_x")
        assert np.abs(crowd.facts[:, at : at + 3] - before[:, at : at + 3]).max() < 0.004, block.name
        assert np.abs(crowd.facts[:, at + 5 : at + 8]).max() < 0.02, block.name
    for slide in SCENE.slides:
        assert (
            np.abs(column(crowd, f"{slide.name}_value") - before[:, crowd.columns.index(f"{slide.name}_value")]).max()
            < 0.004
        )
    tool = crowd.facts[:, :4] - before[:, :4]
    assert np.abs(tool).max() < 0.01


def test_starts_are_fit_for_their_tasks(crowd):
    every_task(crowd, 5)
    text = np.array([crowd.goal_text(slot) for slot in range(crowd.num_envs)])
    assert (column(crowd, "drawer_value")[text == "open(drawer)"] < 0.12).all()
    assert (column(crowd, "drawer_value")[text == "closed(drawer)"] > 0.02).all()
    assert (column(crowd, "cube_z")[text == "taken_out(cube, shelf)"] > 0.06).all()
    assert (column(crowd, "cube_y")[text == "swept_left(cube)"] < 0.16).all()
    assert len(set(column(crowd, "red_lamp_lit"))) == 2  # lamps begin either way


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


# -- goals and rewards ---------------------------------------------------------------------------------------------


def test_goals_are_tasks_terms_or_english():
    env = make(3, ["open_drawer", "lit(red_lamp) & lifted(cube)", "knock over the upright block"])
    env.reset(seed=0, options={"which": np.arange(3)})
    assert [env.goal_text(slot) for slot in range(3)] == [
        "open(drawer)",
        "lifted(cube) & lit(red_lamp)",
        "toppled(upright)",
    ]
    np.testing.assert_array_equal(env.codes.count, [1, 2, 1])
    env.reset(options={"goals": "close the drawer"})
    assert {env.goal_text(slot) for slot in range(3)} == {"closed(drawer)"}
    with pytest.raises(WordError):
        env.set_goals("make coffee")
    assert env.goals == ["closed(drawer)"]


@pytest.mark.parametrize("which", [7, np.array([1, 7, 2, 7]), np.array([7, 7])], ids=["one", "each", "of those reset"])
def test_which_goal_can_be_told(which):
    env = make()
    env.reset(seed=0)
    mask = np.array([False, True, False, True])
    before = env.goal_of.copy()
    env.reset(options={"which": which, "reset_mask": mask})
    assert (env.goal_of[mask] == 7).all()
    np.testing.assert_array_equal(env.goal_of[~mask], before[~mask])


def test_all_tasks_are_drawn():
    env = make(40)
    env.reset(seed=3)
    assert set(env.goal_of) == set(range(len(TASKS)))
    first = env.goal_of.copy()
    env.reset()
    assert not np.array_equal(env.goal_of, first)
    env.reset(seed=3)
    np.testing.assert_array_equal(env.goal_of, first)


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_a_goal_that_holds_long_enough_is_reached(reward):
    env = make(2, "open(drawer)", reward=reward, hold=3)
    env.reset(seed=0)
    at = SCENE.layout.slides[0][0]
    env.simulation.qpos[0, at], env.simulation.qvel[0, SCENE.layout.slides[1][0]] = 0.15, 0.0
    rows = [env.step(np.zeros((2, 5))) for _ in range(3)]
    assert [row[4]["success"].tolist() for row in rows] == [[False, False], [False, False], [True, False]]
    assert rows[2][2].tolist() == [True, False]
    assert not np.stack([row[3] for row in rows]).any()
    rewards = np.stack([row[1] for row in rows])
    if reward == "sparse":
        np.testing.assert_array_equal(rewards, [[0, 0], [0, 0], [1, 0]])
    else:
        assert rewards[0, 0] > 1.4 > rewards[0, 1]


def test_an_episode_may_go_on_after_success():
    env = make(1, "open(drawer)", terminate_on_success=False, hold=1, max_steps=4)
    env.reset(seed=0)
    env.simulation.qpos[0, SCENE.layout.slides[0][0]] = 0.15
    rows = [env.step(np.zeros((1, 5))) for _ in range(4)]
    assert all(row[4]["success"][0] for row in rows)
    assert [bool(row[2][0]) for row in rows] == [False] * 4
    assert [bool(row[3][0]) for row in rows] == [False] * 3 + [True]


def test_reward_terms_are_in_their_ranges_and_make_the_reward():
    env = make(36, max_steps=100, reward_weights=(2.0, 1.0, 0.3))
    env.reset(seed=1)
    for action in chance(env, 25):
        _, reward, _, _, info = env.step(action)
        terms = env.terms
        ended = info.get("_final_obs", np.zeros(36, bool))
        assert (terms[:, :2] >= 0).all()
        assert (terms[:, :2] <= 1).all()
        assert (terms[:, 2] <= 0).all()
        assert (env.costs >= 0).all()
        np.testing.assert_allclose(reward[~ended], (terms @ [2.0, 1.0, 0.3])[~ended])
        np.testing.assert_array_equal(info["reward_terms"], terms if not ended.any() else info["reward_terms"])


def test_not_touching_is_rewarded_for_going_away():
    env = make(4, "not touching(cube)")
    env.reset(seed=0)
    at = SCENE.layout.blocks[0][2]
    env.simulation.qpos[:, at : at + 3] = env.facts[:, :3] - np.outer([0.0, 0.02, 0.035, 0.045], [0, 0, 1])
    env._settle(np.zeros((4, 5)), np.zeros(4, bool))
    task = env.terms[:, 0]
    assert (np.diff(task) > 0).all()
    assert task[3] == 1.0 > task[2]


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


# -- randomisation -------------------------------------------------------------------------------------------------

RANGES = {
    "mass": (0.5, 2.0),
    "friction": (0.8, 1.2),
    "damping": (0.5, 3.0),
    "delay": (0, 4),
    "noise": (0.01, 0.1),
    "colour": (0.0, 0.2),
    "camera": (-0.05, 0.05),
}


def test_what_varies_is_told_within_its_range_and_drawn_by_seed_and_slot():
    env = make(12, randomise=RANGES)
    _, info = env.reset(seed=0)
    for name in ("mass", "friction", "damping", "delay", "noise"):
        low, high = RANGES[name]
        assert info[name].shape == (12,)
        assert ((info[name] >= low) & (info[name] <= high)).all()
        assert len(set(info[name])) > 2
    assert (info["delay"] == np.round(info["delay"])).all()
    assert info["colours"].shape == (12, 4, 3)
    nominal = np.array([SCENE.model.geom(block.name).rgba[:3] for block in SCENE.blocks])
    assert np.abs(info["colours"] - nominal).max() <= 0.2 + 1e-6
    assert info["camera_shift"].shape == (12, 3)
    assert np.abs(info["camera_shift"]).max() <= 0.05
    _, second_info = env.reset()
    _, again = env.reset(seed=0)
    _, fewer = make(3, randomise=RANGES).reset(seed=0)
    for name in ("mass", "friction", "damping", "delay", "noise", "colours", "camera_shift"):
        np.testing.assert_array_equal(info[name], again[name])
        np.testing.assert_array_equal(info[name][:3], fewer[name])
        assert not np.array_equal(info[name], second_info[name])


def test_a_draw_does_not_depend_on_what_else_varies():
    _, both = make(3, randomise={"noise": (0.0, 0.1), "mass": (0.5, 2.0)}).reset(seed=0)
    _, mass = make(3, randomise={"mass": (0.5, 2.0)}).reset(seed=0)
    np.testing.assert_array_equal(both["mass"], mass["mass"])


def test_only_slots_that_begin_are_drawn_anew():
    env = make(4, randomise=RANGES)
    _, info = env.reset(seed=0)
    _, after = env.reset(options={"reset_mask": np.array([True, False, False, False])})
    np.testing.assert_array_equal(after["mass"][1:], info["mass"][1:])
    assert after["mass"][0] != info["mass"][0]


def test_starts_do_not_depend_on_what_varies():
    plain, varied = make(6), make(6, randomise=RANGES)
    plain.reset(seed=0)
    varied.reset(seed=0)
    np.testing.assert_array_equal(plain.get_state(), varied.get_state())


def test_a_heavier_block_presses_a_button_deeper():
    env = make(6, "lit(red_lamp)", randomise={"mass": (0.5, 2.5)}, max_steps=200, autoreset_mode="Disabled")
    _, info = env.reset(seed=0)
    at = SCENE.layout.blocks[0][2]
    env.simulation.qpos[:, at : at + 7] = *SCENE.lamps[0].top[:2], SCENE.lamps[0].top[2] + 0.02, 1, 0, 0, 0
    action = np.tile([0, -1.0, 0.3, 0, 1], (6, 1))
    for _ in range(60):
        env.step(action)
    depth = column(env, "red_lamp_depth")
    np.testing.assert_allclose(depth, 0.05 * 9.81 * info["mass"] / 80, rtol=0.05, atol=2e-4)


def test_more_damping_stops_a_drawer_sooner():
    env = make(6, "open(door)", randomise={"damping": (0.2, 5.0)}, autoreset_mode="Disabled")
    _, info = env.reset(seed=0)
    for block, spot in zip(SCENE.layout.blocks[0], ((0.37, 0.0), (0.50, 0.05), (0.4, 0.15), (0.48, 0.2)), strict=True):
        env.simulation.qpos[:, block : block + 2] = spot  # none in the drawer
    at, speed = (SCENE.layout.slides[k][0] for k in (0, 1))
    env.simulation.qpos[:, at], env.simulation.qvel[:, speed] = 0.02, 0.4
    for _ in range(3):
        env.step(np.zeros((6, 5)))
    order = np.argsort(info["damping"])
    assert (np.diff(column(env, "drawer_value")[order]) < 0).all()


def test_delayed_actions_arrive_later_and_the_first_have_no_effect():
    late, prompt = (
        make(2, autoreset_mode="Disabled", max_steps=50, **more) for more in ({"randomise": {"delay": (3, 3)}}, {})
    )
    for env in (late, prompt):
        env.reset(seed=2)
    stay = np.zeros((2, 5))
    stay[:, 4] = column(late, "grip_command")
    actions = chance(late, 9)
    for k, action in enumerate(actions):
        late.step(action)
        prompt.step(stay if k < 3 else actions[k - 3])
        np.testing.assert_array_equal(late.get_state(), prompt.get_state())


def test_noise_is_in_observations_only():
    noisy, plain = make(4, randomise={"noise": (0.05, 0.1)}), make(4)
    for env in (noisy, plain):
        env.reset(seed=1)
    seen = []
    for action in chance(noisy, 25):
        observation, reward, *_, info = noisy.step(action)
        clean, same, *_ = plain.step(action)
        np.testing.assert_array_equal(noisy.get_state(), plain.get_state())
        np.testing.assert_array_equal(reward, same)
        seen.append((observation - clean) / info["noise"][:, None])
    spread = np.stack(seen)
    assert abs(spread.mean()) < 0.02
    assert abs(spread.std() - 1.0) < 0.03
    assert np.abs(np.corrcoef(spread.reshape(len(spread), -1))[~np.eye(len(spread), dtype=bool)]).max() < 0.25


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"gravity": (1, 2)}, "unknown quantity 'gravity' to randomise; valid: mass, friction, damping"),
        ({"mass": (2, 1)}, r"randomise mass = \(2, 1\): a range from low to high, above zero, is needed"),
        ({"mass": (0, 1)}, r"randomise mass = \(0, 1\)"),
        ({"noise": (-0.1, 0.1)}, r"randomise noise = \(-0.1, 0.1\)"),
        ({"friction": (1, np.inf)}, r"randomise friction = \(1, inf\)"),
        ({"delay": (0, 6)}, r"delay = \(0, 6\): an action can be 5 steps late at most"),
        ({"mass": 2}, r"randomise mass = 2: \(low, high\) is needed"),
        ({"mass": (1, 2, 3)}, r"randomise mass = \(1, 2, 3\): \(low, high\) is needed"),
        ({"mass": ("a", "b")}, r"randomise mass = \('a', 'b'\): \(low, high\) is needed"),
    ],
)
def test_what_can_not_vary_so_is_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        make(1, randomise=ranges)


# -- experts -------------------------------------------------------------------------------------------------------


def solved(per_task: int, seed: int, steps: int = 200) -> np.ndarray:
    """Whether the scripted expert reached its goal, bool[tasks, per_task]."""
    n = per_task * len(TASKS)
    env = make(n, max_steps=steps + 1, autoreset_mode="Disabled", threads=0)
    env.reset(seed=seed, options={"which": np.arange(n) % len(TASKS)})
    expert = ScriptedExpert(env)
    for _ in range(steps):
        info = env.step(expert.act())[4]
    env.close()
    return info["success"].reshape(per_task, len(TASKS)).T


def test_experts_solve_most_of_all_tasks():
    assert solved(2, seed=0).mean() >= 0.8


@pytest.mark.slow
def test_experts_solve_nearly_all_of_all_tasks():
    rates = solved(50, seed=1).mean(axis=1)
    assert rates.mean() >= 0.95, dict(zip(TASKS, rates, strict=True))


def test_an_expert_needs_tool_control():
    with pytest.raises(ValueError, match="scripted experts need 'tool' control; this environment has 'joint'"):
        ScriptedExpert(make(1, control="joint"))
