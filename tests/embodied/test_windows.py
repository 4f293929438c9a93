"""Windows: inside their episode, uniform, fond of change, and the same for the same generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.data.windows import WindowSampler


def flat(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observations of episodes of these lengths: column 0 is noise, column 1 the episode's number."""
    ends = np.cumsum(lengths)
    noise = np.random.default_rng(seed).normal(size=ends[-1])
    return np.stack([noise, np.repeat(np.arange(len(lengths)), lengths)], 1).astype(np.float32), ends


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=6),
    horizon=st.integers(1, 12),
    chunk=st.integers(1, 8),
)
def test_every_window_lies_inside_its_episode(lengths: list[int], horizon: int, chunk: int) -> None:
    observations, ends = flat(lengths)
    sampler = WindowSampler(observations, ends, horizon=horizon, chunk=chunk, columns=[0], thresholds=[0.5])
    w = sampler.sample(200, np.random.default_rng(1))
    last = ends[np.searchsorted(ends, w.start, side="right")] - 1
    assert sampler.steps == sum(lengths) - len(lengths)
    assert (w.start < w.goal).all() and (w.goal <= np.minimum(w.start + horizon, last)).all()
    expected = np.minimum(w.start[:, None] + np.arange(chunk), last[:, None] - 1)
    np.testing.assert_array_equal(w.chunk, expected)
    np.testing.assert_array_equal(w.valid, [len(np.unique(row)) for row in expected])


def test_starts_and_goal_offsets_are_uniform() -> None:
    observations, ends = flat([11, 31])
    w = WindowSampler(observations, ends, horizon=10, chunk=1).sample(80_000, np.random.default_rng(0))
    starts = np.bincount(w.start, minlength=42)
    assert starts[[10, 41]].tolist() == [0, 0]  # an episode's last row has no action
    assert abs(starts[starts > 0] / 2000 - 1).max() < 0.1
    offsets = np.bincount((w.goal - w.start)[(w.start > 11) & (w.start < 30)])[1:]
    assert len(offsets) == 10 and abs(offsets / offsets.mean() - 1).max() < 0.1


def test_goals_that_changed_something_are_preferred() -> None:
    observations = np.zeros((101, 3), np.float32)
    observations[50:, 1] = 1.0  # one change, in the middle; column 2 only trembles
    observations[:, 2] = np.linspace(0, 0.01, 101)

    def changed(preference: float, redraws: int = 3) -> float:
        sampler = WindowSampler(
            observations, np.array([101]), horizon=20, chunk=1, columns=[1, 2], thresholds=[0.5, 0.05],
            preference=preference, redraws=redraws,
        )  # fmt: skip
        w = sampler.sample(40_000, np.random.default_rng(3))
        return float((observations[w.goal, 1] != observations[w.start, 1])[(w.start >= 39) & (w.start < 50)].mean())

    base = changed(0.0)  # half of the goals reachable from there lie past the change, more or less
    once = changed(0.9, redraws=1)
    assert base == pytest.approx(changed(1.0, redraws=0), abs=0.01)
    assert base < once < changed(0.9) < changed(1.0)
    assert changed(0.9) > base + 0.2


def test_the_same_generator_state_gives_the_same_windows_of_the_chosen_episodes() -> None:
    observations, ends = flat([9, 5, 20])
    sampler = WindowSampler(observations, ends, horizon=4, chunk=3, episodes=np.array([0, 2]))
    a, b = (sampler.sample(500, np.random.default_rng(7)) for _ in range(2))
    for name in ("start", "goal", "chunk", "valid"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert set(observations[a.start, 1]) == {0.0, 2.0}


def test_read_only_observations_will_do() -> None:
    observations, ends = flat([9, 5])
    observations.flags.writeable = False
    assert len(WindowSampler(observations, ends, horizon=4, chunk=3).sample(5, np.random.default_rng(0)).start) == 5


@pytest.mark.parametrize(
    "bad, sentence",
    [
        ({"horizon": 0}, "horizon 0"),
        ({"columns": [0], "thresholds": []}, "1 columns need as many thresholds"),
        ({"columns": [5], "thresholds": [0.1]}, "must lie in 0 … 1"),
        ({"episodes": np.array([], int)}, "no episodes"),
        ({"episode_ends": np.array([9, 99])}, "end at row 99"),
        ({"preference": 2.0}, "preference 2.0"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(bad: dict[str, object], sentence: str) -> None:
    observations, ends = flat([9, 5])
    arguments: dict[str, object] = {
        "observations": observations,
        "episode_ends": ends,
        "horizon": 3,
        "chunk": 2,
    }
    with pytest.raises(ValueError, match=sentence):
        WindowSampler(**{**arguments, **bad})  # type: ignore[arg-type]
