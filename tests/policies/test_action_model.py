"""The density of the next action: what it learns, what surprises it, and that the same data give the same."""

from __future__ import annotations

import numpy as np
import pytest

from policies.action_model import ActionModel, ActionModelConfig

CONFIG = ActionModelConfig(
    state_size=2, action_size=2, memory=2, components=2, hidden=(32,), gradient_steps=400, batch=128
)


def persistent(episodes: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States that say nothing; actions that stay as they are, and now and then jump: states, actions, ends."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(episodes * (steps + 1), 2)).astype(np.float32)
    actions = np.zeros((len(states), 2), np.float32)
    for k in range(episodes):
        jumps = np.cumsum(rng.random(steps) < 0.05)
        levels = rng.uniform(-1, 1, (jumps[-1] + 1, 2))
        first = k * (steps + 1)
        actions[first : first + steps] = levels[jumps]
    return states, actions, np.arange(1, episodes + 1) * (steps + 1)


def test_a_change_of_mind_is_a_surprise_and_going_on_is_not() -> None:
    model = ActionModel(CONFIG)
    loss = model.fit(*persistent(40, 60, 0))
    states, actions, _ = persistent(1, 60, 1)
    errors = model.errors(states, actions[:60])
    jumped = np.zeros(60, bool)
    jumped[1:] = np.abs(np.diff(actions[:60], axis=0)).max(1) > 0.3
    assert jumped.any() and errors.dtype == np.float64
    assert loss < 0.0 and errors[jumped].min() > errors[1:][~jumped[1:]].max()


def test_the_same_data_give_the_same_and_the_past_stays_within_its_episode() -> None:
    data = persistent(6, 30, 0)
    errors = []
    for _ in range(2):
        model = ActionModel(CONFIG)
        model.fit(*data)
        errors.append(model.errors(data[0][31:62], data[1][31:61]))
    np.testing.assert_array_equal(*errors)
    first, second, _ = model._inputs(data[0], data[1], np.tile(np.arange(31), 6), np.array([31, 32]))
    assert np.all(second[0].numpy() == 0.0) and np.all(second[1].numpy() == [*data[1][31], 0.0, 0.0])
    np.testing.assert_array_equal(first.numpy(), data[0][31:33])


def test_what_does_not_fit_is_refused() -> None:
    states, actions, ends = persistent(1, 5, 0)
    with pytest.raises(ValueError, match="must be 2 and 2 wide"):
        ActionModel(CONFIG).fit(states[:, :1], actions, ends)
    with pytest.raises(ValueError, match="not a single step"):
        ActionModel(CONFIG).fit(states[:2], actions[:2], np.array([1, 2]))
    with pytest.raises(ValueError, match="least_std"):
        ActionModelConfig(state_size=1, action_size=1, least_std=0.0)
