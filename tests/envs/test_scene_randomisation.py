"""Domain randomisation: what varies is told, reproducible, and felt where it should be and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load

SCENE = load("playroom")


def make(n: int = 4, goals: Any = None, **arguments: Any) -> PlayroomVectorEnv:
    return PlayroomVectorEnv(n, goals, SCENE, **{"max_steps": 20, "threads": 1, **arguments})


def chance(env: PlayroomVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Actions float64[steps, n, 5], every slot's from a generator of its own."""
    size = (steps, 5)
    streams = [np.random.default_rng((seed, slot)).uniform(-1, 1, size) for slot in range(env.num_envs)]
    return list(np.stack(streams, axis=1))


def column(env: PlayroomVectorEnv, name: str) -> np.ndarray:
    return env.facts[:, env.columns.index(name)]


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


def test_what_begins_anew_leaves_the_others_alone():
    runs = []
    for reset in (False, True):
        env = make(3, randomise={"mass": (0.5, 2.0), "delay": (0, 2)}, autoreset_mode="Disabled")
        env.reset(seed=0)
        for k, action in enumerate(chance(env, 15)):
            if reset and k == 5:
                env.reset(options={"reset_mask": np.array([False, True, False])})
            env.step(action)
        runs.append(env.get_state())
    np.testing.assert_array_equal(runs[0][[0, 2]], runs[1][[0, 2]])
    assert not np.array_equal(runs[0][1], runs[1][1])


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
