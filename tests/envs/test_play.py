"""Scripted play and the scripted oracle: deterministic, varied, honest about what they are, and able."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from envs.playroom.oracle import ScriptedOracle
from envs.playroom.play import BEHAVIOURS, SOURCE, ScriptedPlay, play_env
from envs.predicates import COLUMNS
from envs.vector import TabletopVectorEnv

DRAWER, LAMP = COLUMNS.index("drawer"), COLUMNS.index("lamp")
HEIGHTS = [COLUMNS.index("red_z"), COLUMNS.index("blue_z")]


def play(num_envs: int, n_steps: int, seed: int, **kwargs: Any) -> list[dict[str, Any]]:
    return ScriptedPlay(play_env(num_envs, threads=1), seed, **kwargs).collect(n_steps)


@pytest.fixture(scope="module")
def pieces() -> list[dict[str, Any]]:
    return play(24, 24 * 260, seed=5)


def test_play_finds_what_the_world_can_do(pieces):
    facts = [piece["facts"] for piece in pieces]
    assert any((f[:, DRAWER] < 0.02).any() and (f[:, DRAWER] > 0.12).any() for f in facts)  # opened or shut
    assert sum(np.abs(np.diff(f[:, LAMP])).sum() for f in facts) >= 3  # lamp toggled
    assert sum((f[:, HEIGHTS] > 0.13).any() for f in facts) >= 5  # a block well off the table
    assert {label for piece in pieces for label in piece["labels"][:, 0]} == set(range(len(BEHAVIOURS)))


def test_pieces_are_whole_and_labels_stay_apart(pieces):
    assert sum(len(piece["actions"]) for piece in pieces) == 24 * 260
    for piece in pieces:
        length = len(piece["actions"])
        assert piece["facts"].shape == (length + 1, len(COLUMNS)) and piece["facts"].dtype == np.float32
        assert piece["actions"].shape == (length, 5) and piece["actions"].dtype == np.float32
        assert piece["labels"].shape == (length, 2) and piece["labels"].dtype == np.int8
        assert np.abs(piece["actions"]).max() <= 1.0 and np.isfinite(piece["facts"]).all()
        assert piece["source"] == SOURCE


def test_a_slot_plays_the_same_whatever_its_neighbours_do():
    few, many = play(2, 2 * 150, seed=3, max_episode=60), play(5, 5 * 150, seed=3, max_episode=60)
    kept = {(p["slot"], p["episode"]): p for p in many}
    assert len(few) >= 6
    for piece in few:
        twin = kept[piece["slot"], piece["episode"]]
        for name in ("facts", "actions", "labels"):
            np.testing.assert_array_equal(piece[name], twin[name])
    other = play(2, 2 * 20, seed=4)
    assert not np.array_equal(other[0]["facts"][:20], few[0]["facts"][:20])


def test_collecting_in_parts_continues_episodes():
    whole = play(2, 2 * 90, seed=8, max_episode=50)
    parts = ScriptedPlay(play_env(2, threads=1), 8, max_episode=50)
    first, second = parts.collect(2 * 30), parts.collect(2 * 60)
    for piece in whole:
        same = [p for p in first + second if (p["slot"], p["episode"]) == (piece["slot"], piece["episode"])]
        assert [p["step"] for p in same] == [0, *np.cumsum([len(p["actions"]) for p in same])[:-1]]
        np.testing.assert_array_equal(np.concatenate([p["actions"] for p in same]), piece["actions"])
        assert all(not p["truncated"] and not p["lost"] for p in same[:-1])
        for before, after in itertools.pairwise(same):
            np.testing.assert_array_equal(before["facts"][-1], after["facts"][0])
    assert any(p["truncated"] for p in whole) and any(p["step"] > 0 for p in second)


def test_play_wants_an_environment_that_leaves_resets_to_it():
    with pytest.raises(ValueError, match="disabled autoreset"):
        ScriptedPlay(TabletopVectorEnv(1, threads=1), 0)
    with pytest.raises(ValueError, match="'joint'"):
        ScriptedOracle(TabletopVectorEnv(1, control="joint", threads=1))


@pytest.mark.parametrize(
    ("goal", "limit"),
    [
        ("open(drawer)", 100),
        ("placed(blue, anywhere)", 120),
        ("on(red, blue)", 120),
        ("closed(drawer) & inside(red, drawer)", 180),
        ("lifted(red) & not lit(lamp)", 140),
        ("open(drawer) ; next_to(red, blue)", 200),
    ],
)
def test_the_oracle_reaches_goals(goal, limit):
    env = TabletopVectorEnv(
        20, goals=goal, max_steps=limit, terminate_on_success=False, autoreset_mode="Disabled", threads=1
    )
    env.reset(seed=7)
    oracle = ScriptedOracle(env)
    reached = np.zeros(20, bool)
    for _ in range(limit):
        reached |= env.step(oracle.act())[4]["success"]
    assert reached.mean() >= 0.8


def test_the_oracle_notices_new_episodes():
    env = TabletopVectorEnv(6, goals=["lit(lamp)", "open(drawer)"], max_steps=60, threads=1)  # resets itself
    env.reset(seed=2)
    oracle = ScriptedOracle(env)
    succeeded = sum(int(env.step(oracle.act())[4]["success"].sum()) for _ in range(120))
    assert succeeded >= 12
