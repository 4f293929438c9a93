"""Hindsight by predicates: play that nobody aimed holds demonstrations of goals."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.core import Episode
from embodied.data.store import EpisodeStore
from embodied.training.playing import learn_from_play
from embodied.training.relabelling import AFTER, HORIZON, demonstrations
from embodied.training.rounds import _play_episode
from envs.goals import Goal
from envs.observations import FEATURES, GOAL_DIM, GROUPS, features, goal_targets
from envs.playroom.play import ScriptedPlay, play_env
from envs.predicates import COLUMNS, encode


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    play = ScriptedPlay(play_env(24, threads=1), seed=5, max_episode=200)
    return [_play_episode(found) for found in play.collect(24 * 300)]


@pytest.fixture(scope="module")
def store(episodes, tmp_path_factory):
    with EpisodeStore.open(tmp_path_factory.mktemp("play"), columns=COLUMNS) as store:
        store.extend(episodes)
        yield store


def flat(*facts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Facts of episodes [T, NX] → observations, actions and ends as a store has them; actions count the rows."""
    rows = np.concatenate(facts)
    actions = np.repeat(np.arange(len(rows), dtype=np.float32)[:, None], 5, axis=1)
    return rows.astype(np.float32), actions, np.cumsum([len(f) for f in facts])


def row(**values: float) -> np.ndarray:
    base = {"red_x": 0.45, "red_z": 0.02, "blue_x": 0.55, "blue_y": 0.15, "blue_z": 0.02, "tool_z": 0.2, "width": 0.08}
    out = np.zeros(len(COLUMNS))
    for name, value in (base | values).items():
        out[COLUMNS.index(name)] = value
    return out


@pytest.mark.parametrize("goal", ["lifted(red)", "placed(blue, anywhere)", "open(drawer)", "lit(lamp)"])
def test_play_holds_demonstrations(store, goal):
    found = demonstrations(store.observations, store.actions, store.episode_ends, goal)
    assert found.count >= 2
    assert found.features.shape == (len(found.actions), FEATURES)
    assert found.features.dtype == found.actions.dtype == np.float32
    assert np.isfinite(found.features).all()
    assert np.abs(found.actions).max() <= 1
    assert 5 * found.count < len(found.actions) <= found.count * (HORIZON + AFTER)


def test_a_stretch_ends_where_the_goal_came_true_and_stayed():
    shut, drawn = row(), row(drawer=0.15)
    quick = np.stack([shut] * 40 + [drawn] * 3 + [shut] * 30)  # not for long enough
    stays = np.stack([shut] * 100 + [drawn] * 20)
    began = np.stack([drawn] * 30)
    found = demonstrations(*flat(quick, stays, began), "open(drawer)")
    assert found.count == 1
    first = len(quick) + 100 - HORIZON
    np.testing.assert_array_equal(found.actions[:, 0], np.arange(first, len(quick) + 100 + AFTER))
    plain = np.zeros((len(found.features), FEATURES), np.float32)
    codes = encode([Goal.parse("open(drawer)").final] * len(plain))
    targets, mask, role = (
        np.zeros((len(plain), GOAL_DIM)),
        np.zeros((len(plain), GROUPS)),
        np.zeros(len(plain), np.int64),
    )
    rows = np.concatenate([quick, stays])[first : first + len(plain)].astype(np.float32).astype(np.float64)
    goal_targets(rows, codes.count, codes.codes, codes.place, targets, mask, role)
    features(rows, targets, mask, role, plain)
    np.testing.assert_array_equal(found.features, plain)


def test_an_episode_does_not_reach_into_the_one_before():
    shut, drawn = row(), row(drawer=0.15)
    found = demonstrations(*flat(np.stack([shut] * 50), np.stack([shut] * 10 + [drawn] * 10)), "open(drawer)")
    np.testing.assert_array_equal(found.actions[:, 0], np.arange(50, 50 + 10 + AFTER))


def carried(to_y: float) -> np.ndarray:
    """Facts [T, NX] of red taken at y = 0, carried through the air to ``to_y`` and let go."""
    ys, zs = np.linspace(0, to_y, 20), 0.02 + 0.1 * np.sin(np.linspace(0, np.pi, 20))
    at = [{"red_y": y, "red_z": z, "tool_x": 0.45, "tool_y": y, "tool_z": z} for y, z in zip(ys, zs, strict=True)]
    held = [row(**where, width=0.04, grip_command=-1) for where in at]
    return np.stack([row()] * 10 + held + [row(red_y=to_y)] * 10)


def test_where_a_carried_block_comes_to_rest_is_the_place_that_was_meant():
    found = demonstrations(*flat(carried(0.2)), "placed(red, anywhere)")
    assert found.count == 1
    rest = 30  # the first row in which it lies there, released
    assert found.actions[-1, 0] == rest + AFTER - 1
    codes = encode([Goal.parse("placed(red, anywhere)").final])
    codes.place[0, 0] = 0.45, 0.2
    targets, mask, role = np.zeros((1, GOAL_DIM)), np.zeros((1, GROUPS)), np.zeros(1, np.int64)
    start = carried(0.2)[:1].astype(np.float32).astype(np.float64)
    goal_targets(start, codes.count, codes.codes, codes.place, targets, mask, role)
    expected = np.zeros((1, FEATURES), np.float32)
    features(start, targets, mask, role, expected)
    np.testing.assert_allclose(found.features[0], expected[0], atol=1e-5)


def test_what_was_put_back_where_it_was_or_never_lifted_is_no_demonstration():
    assert demonstrations(*flat(carried(0.03)), "placed(red, anywhere)").count == 0
    pushed = np.stack([row(red_y=y) for y in np.linspace(0, 0.3, 40)] + [row(red_y=0.3)] * 10)
    none = demonstrations(*flat(pushed), "placed(red, anywhere)")
    assert none.count == 0
    assert none.features.shape == (0, FEATURES)
    assert none.actions.shape == (0, 5)


def test_a_flow_policy_learns_from_the_same_play_and_again_the_same(store):
    told: list[int] = []
    one, other = (learn_from_play(store, 3, seed=4, on_update=lambda k, _: told.append(k)) for _ in range(2))
    assert told == [1, 2, 3] * 2
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)
    action, _ = one.predict(np.zeros((2, FEATURES), np.float32))
    assert action.shape == (2, 5)
    assert np.abs(action).max() <= 1


def test_labels_of_behaviours_stay_behind(episodes):
    for episode in episodes:
        assert episode.source == "scripted-play"
        assert (episode.goal, episode.instruction, episode.policy) == ("", "", "")
