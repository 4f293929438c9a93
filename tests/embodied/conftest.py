"""The playroom, and a little play in it to learn from and to ask about."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.data.batches import Recorded
from envs.scenes.goal_states import GoalStates
from envs.scenes.play import ScenePlay, play_env
from envs.scenes.scene import Scene, load


@pytest.fixture(scope="session")
def scene() -> Scene:
    return load("playroom")


@pytest.fixture(scope="session")
def play(scene: Scene) -> Recorded:
    """16 episodes of 300 steps."""
    env = play_env(16)
    pieces = ScenePlay(env, 0).collect(16 * 300)
    env.close()
    facts = np.concatenate([p["facts"] for p in pieces])
    actions = np.concatenate([np.vstack([p["actions"], np.zeros((1, 5), np.float32)]) for p in pieces])
    return Recorded(facts, actions, np.cumsum([len(p["facts"]) for p in pieces]), GoalStates(scene))
