"""What every native world keeps to, by gymnasium's interface alone: seeds, resets, ends, wrappers, copies, checkers.

Every id of the registry is tested here without being named.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import vector as wrappers
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs.registry import make_vector, native

LONGEST = 1_000  # steps within which an episode is to end
MODES = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)

CASES: dict[str, tuple[str, dict[str, Any]]] = {short: (id_, {}) for short, id_ in native().items()}
CASES["tabletop, dict"] = ("Embodied/Tabletop-v0", {"observation": "dict"})


@pytest.fixture(params=CASES)
def world(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes the world with n slots in an autoreset mode, by its id; n = 0: the single environment."""
    id_, arguments = CASES[request.param]
    opened: list[Any] = []

    def make(n: int = 2, mode: AutoresetMode = AutoresetMode.SAME_STEP, **more: Any) -> Any:
        if n == 0:
            env: Any = gymnasium.make(id_, threads=1, **arguments, **more)
        else:
            env = make_vector(id_, n, autoreset_mode=mode, threads=1, **arguments, **more)
        opened.append(env)
        return env

    yield make
    for env in opened:
        env.close()


def same(one: Any, other: Any) -> bool:
    """Bit for bit, through dicts."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")


def rows(batch: Any, slots: Any) -> Any:
    """The same batch, of some slots."""
    if isinstance(batch, dict):
        return {key: rows(value, slots) for key, value in batch.items()}
    return np.asarray(batch)[slots]


def differ(one: Any, other: Any) -> bool:
    """Whether every slot's row differs somewhere."""
    count = len(next(iter(one.values())) if isinstance(one, dict) else one)
    return not any(same(rows(one, [i]), rows(other, [i])) for i in range(count))


def chance(env: VectorEnv, seed: int = 0) -> Callable[[], np.ndarray]:
    """Draws actions [n, …] of one space; a slot's do not depend on how many there are."""
    spaces = [copy.deepcopy(env.single_action_space) for _ in range(env.num_envs)]
    for slot, space in enumerate(spaces):
        space.seed(seed * 1_000 + slot)
    return lambda: np.stack([space.sample() for space in spaces])


def run(env: VectorEnv, steps: int, seed: int = 0) -> list[Any]:
    """What `step` gives under random actions."""
    draw = chance(env, seed)
    return [env.step(draw()) for _ in range(steps)]


def until_the_end(env: VectorEnv, seed: int = 0) -> list[Any]:
    """Steps up to the first in which every slot has ended since the last reset (in one step or another)."""
    draw, ended, found = chance(env, seed), np.zeros(env.num_envs, np.bool_), []
    while not ended.all():
        found.append(env.step(draw()))
        ended |= found[-1][2] | found[-1][3]
        assert len(found) < LONGEST, "episodes end"
    return found


# -- makers and checkers -------------------------------------------------------------------------------------------


def test_the_checkers_of_gymnasium_and_stable_baselines3_pass(world):
    env = world(0).unwrapped
    check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)


def test_both_kinds_are_made_by_id_and_the_single_one_is_slot_0(world):
    single, many = world(0), world(2)
    assert isinstance(many.unwrapped, VectorEnv)
    assert many.num_envs == 2
    assert many.single_observation_space == single.observation_space
    assert many.single_action_space == single.action_space
    assert many.observation_space == batch_space(many.single_observation_space, 2)
    assert many.action_space == batch_space(many.single_action_space, 2)
    one, _ = single.reset(seed=5)
    both, info = many.reset(seed=5)
    assert same(one, rows(both, 0))
    assert info["success"].shape == (2,)
    draw = chance(many)
    for _ in range(5):
        actions = draw()
        observation, reward, terminated, truncated, told = single.step(actions[0])
        found = many.step(actions)
        assert same(observation, rows(found[0], 0))
        assert (reward, terminated, truncated) == tuple(column[0] for column in found[1:4])
        assert isinstance(told["success"], bool)


def test_gymnasiums_own_vectoriser_takes_the_single_one(world):
    single = world(0)
    spec = single.spec
    assert spec is not None
    synced = gymnasium.make_vec(spec.id, 2, vectorization_mode="sync", **spec.kwargs)
    native_one = world(1)
    together, _ = synced.reset(seed=3)
    assert same(rows(together, [0]), native_one.reset(seed=3)[0])
    synced.step(synced.action_space.sample())
    synced.close()


def test_what_is_returned_is_in_the_spaces_and_of_the_right_kind(world):
    env = world(2)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for observation, reward, terminated, truncated, info in run(env, 5):
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == info["success"].shape == (2,)
        assert (reward.dtype.kind, terminated.dtype, truncated.dtype, info["success"].dtype) == ("f", bool, bool, bool)
        assert np.isfinite(reward).all()


# -- seeds and resets ----------------------------------------------------------------------------------------------


def test_same_seed_same_bits_across_the_end_of_an_episode(world):
    traces = []
    for seed in (3, 3, 4):
        env = world(2)
        first, _ = env.reset(seed=seed)
        traces.append([(first,), *until_the_end(env), *run(env, 3, seed=9)])
    assert len(traces[0]) == len(traces[1])
    for one, other in zip(traces[0], traces[1], strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert differ(traces[0][0][0], traces[2][0][0])


def test_a_reset_does_not_depend_on_what_happened_before(world):
    fresh, used = world(2), world(2)
    used.reset(seed=11)
    run(used, 12, seed=1)
    used.reset()
    run(used, 7, seed=2)
    starts = [env.reset(seed=6) for env in (fresh, used)]
    assert all(same(one, other) for one, other in zip(*starts, strict=True))
    for one, other in zip(*(run(env, 20) for env in (fresh, used)), strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert same(fresh.reset()[0], used.reset()[0])


def test_a_slot_does_not_depend_on_its_neighbours(world):
    many, few = world(3), world(1)
    assert same(rows(many.reset(seed=2)[0], [0]), few.reset(seed=2)[0])
    for wide, narrow in zip(run(many, 15), run(few, 15), strict=True):
        assert all(same(rows(a, [0]), b) for a, b in zip(wide[:4], narrow[:4], strict=True))


def test_observations_are_the_callers_own(world):
    env = world(2)
    observation, _ = env.reset(seed=0)
    kept = copy.deepcopy(observation)
    run(env, 2)
    env.reset(seed=1)
    assert same(observation, kept)


# -- the three ways an episode ends --------------------------------------------------------------------------------


def test_the_mode_is_said(world):
    for mode in MODES:
        assert world(1, mode).metadata["autoreset_mode"] is mode


def test_the_three_modes_agree_on_the_last_observation_and_the_next_first_one(world):
    same_step, next_step, disabled = (world(1, mode) for mode in MODES)
    for env in (same_step, next_step, disabled):
        env.reset(seed=0)
    found, later, plain = (until_the_end(env) for env in (same_step, next_step, disabled))
    assert len(found) == len(later) == len(plain)
    assert not any("final_obs" in step[4] for step in found[:-1])
    (first, *ends, info), (last, *late, _), (true_last, *true, _) = found[-1], later[-1], plain[-1]
    assert all(same(a, b) and same(a, c) for a, b, c in zip(ends, late, true, strict=True))
    assert info["_final_obs"].tolist() == [True]
    assert same(info["final_obs"], last)
    assert same(last, true_last)
    assert same(info["success"], later[-1][4]["success"])
    again, reward, terminated, truncated, told = next_step.step(chance(next_step)())
    assert same(again, first)
    assert not (reward.any() or terminated.any() or truncated.any() or told["success"].any())
    assert same(disabled.reset(options={"reset_mask": np.array([True])})[0], first)
    draw = chance(same_step, 4)
    for _ in range(3):
        action = draw()
        results = [env.step(action) for env in (same_step, next_step, disabled)]
        assert all(same(results[0][k], result[k]) for result in results[1:] for k in range(4))


def test_slots_that_end_at_different_times_do_not_disturb_each_other(world):
    env, twin = world(2), world(2, AutoresetMode.DISABLED)
    for each in (env, twin):
        each.reset(seed=1)
    run(env, 3, seed=5)
    run(twin, 3, seed=5)
    mask = np.array([False, True])
    starts = [each.reset(options={"reset_mask": mask.copy()})[0] for each in (env, twin)]
    assert same(*starts)
    draw, over = chance(env), np.zeros(2, np.bool_)
    while not over.any():
        action = draw()
        observation, _, terminated, truncated, info = env.step(action)
        true = twin.step(action)
        over = terminated | truncated
        assert over.any() or same(observation, true[0])
    assert not over.all() or terminated.any()
    assert same(over, true[2] | true[3])
    assert same(info["_final_obs"], over)
    assert same(rows(info["final_obs"], over), rows(true[0], over))
    assert same(rows(observation, ~over), rows(true[0], ~over))
    assert differ(rows(observation, over), rows(true[0], over))


# -- goals ---------------------------------------------------------------------------------------------------------


def test_a_goal_environments_reward_can_be_computed_again_for_any_goal(world):
    env = world(3, AutoresetMode.DISABLED)
    space = env.single_observation_space
    if not (isinstance(space, gymnasium.spaces.Dict) and "desired_goal" in space.spaces):
        pytest.skip("not a goal environment")
    env.reset(seed=0)
    for observation, reward, *_, info in run(env, 5):
        achieved, desired = observation["achieved_goal"], observation["desired_goal"]
        np.testing.assert_array_equal(env.unwrapped.compute_reward(achieved, desired, info), reward)
        for goals in (desired, np.roll(desired, 1, axis=0)):
            together = env.unwrapped.compute_reward(achieved, goals, {})
            alone = [env.unwrapped.compute_reward(a, g, {}) for a, g in zip(achieved, goals, strict=True)]
            np.testing.assert_array_equal(together, np.asarray(alone))
    assert set(np.unique(reward)) <= {-1.0, 0.0}


# -- wrappers ------------------------------------------------------------------------------------------------------


def test_episode_statistics_are_the_episodes(world):
    for mode in MODES[:2]:
        env, plain = wrappers.RecordEpisodeStatistics(world(2, mode)), world(2, mode)
        env.reset(seed=0)
        plain.reset(seed=0)
        steps = until_the_end(plain)
        draw = chance(env)
        returns, lengths, told = np.zeros(2), np.zeros(2, int), np.zeros(2, np.bool_)
        for step in steps:
            *_, info = env.step(draw())
            over = (step[2] | step[3]) & ~told
            returns[~told] += step[1][~told]
            lengths[~told] += 1
            if over.any():
                np.testing.assert_allclose(info["episode"]["r"][over], returns[over], rtol=1e-5)
                np.testing.assert_array_equal(info["episode"]["l"][over], lengths[over])
                told |= over
        assert told.all()


def test_gymnasiums_vector_wrappers_fit(world):
    env = world(2)
    bound = np.full(env.single_action_space.shape, 2, env.single_action_space.dtype)
    for wrapped in (
        wrappers.RescaleAction(env, -bound, bound),
        wrappers.ClipReward(env, -0.5, 0.5),
        wrappers.NormalizeReward(env),
        wrappers.FlattenObservation(world(2, AutoresetMode.NEXT_STEP)),  # this one takes no other mode
        wrappers.RecordEpisodeStatistics(wrappers.ClipReward(env, -0.5, 0.5)),
    ):
        observation, _ = wrapped.reset(seed=0)
        assert wrapped.observation_space.contains(observation)
        for step in run(wrapped, 3):
            assert wrapped.observation_space.contains(step[0])


# -- copies --------------------------------------------------------------------------------------------------------


def test_specifications_survive_pickling_and_make_the_same_world(world):
    single, many = world(0), world(2)
    for env, make in ((single, gymnasium.make), (many, gymnasium.make_vec)):
        spec = pickle.loads(pickle.dumps(env.spec))
        assert spec == env.spec
        other = make(spec)
        assert same(other.reset(seed=4)[0], env.reset(seed=4)[0])
        other.close()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_is_another_such_world_or_one_clear_sentence(world, how):
    for env in (world(2), world(0)):
        env.reset(seed=0)
        try:
            other = how(env)
        except TypeError as error:
            sentence = str(error)
            assert "\n" not in sentence
            assert type(env.unwrapped).__name__ in sentence
            continue
        assert other.spec == env.spec
        assert same(other.reset(seed=8)[0], env.reset(seed=8)[0])
        action = env.action_space.sample()
        one, two = (each.step(action) for each in (other, env))
        assert all(same(a, b) for a, b in zip(one, two, strict=True))
        env.close()
        other.reset(seed=8)  # it lives on by itself
        other.close()
