"""Batches for learners from episodes: moments drawn at random, goals later in their episodes, and features of both.

`Recorded` is flat, row-aligned episodes with an encoder of (present, goal); `Batches` draws what a `BatchSpec` asks
for. Batch i of a training depends on (seed, i) alone, so a training that goes on needs no state of its data's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numba import njit

from embodied.data.windows import WindowSampler
from policies.offline import BatchSpec

if TYPE_CHECKING:
    from embodied.data.pictures import Seen

__all__ = ["Batches", "Concatenated", "Encoder", "Labelled", "Recorded"]

CURRENT, GEOMETRIC = 0.2, 0.5  # how goals for values are drawn; the rest are any moment of the data
LABELLED = 0.25  # labelled rows of a batch, over the others


class Encoder(Protocol):
    """Features of (present, goal), both rows of observations; S and F as in `policies.offline`.

    Of episodes with pictures the rows are `embodied.data.pictures.Seen`.
    """

    state_size: int
    feature_size: int
    watched: np.ndarray  # columns of observations in which a change counts, and how large a one; may be empty
    thresholds: np.ndarray

    def features(self, facts: Any, goals: Any) -> np.ndarray: ...

    def states(self, facts: Any, goals: Any = None) -> np.ndarray:
        """The first S of the features; where it is a goal that says what comes first, in the order of ``goals``, each
        for as many rows.
        """
        ...

    def past(self, facts: Any) -> np.ndarray:
        """What `hindsight` looks back on, of all facts[rows, NX]; rows of no columns where there is nothing."""
        ...

    def hindsight(self, facts: Any, start: np.ndarray, goal: np.ndarray, past: np.ndarray | None = None) -> Any:
        """Rows ``goal`` of facts[rows, NX] as goals of the moments ``start``, with what only hindsight tells."""
        ...


class Concatenated:
    """The encoder of any observations: present and goal side by side, each to mean 0 and deviation 1.

    Args: mean, std float[NX]: the data's; columns that never change are left as they are.
    """

    watched = np.zeros(0, np.int64)
    thresholds = np.zeros(0)

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        self.mean = np.asarray(mean, np.float32)
        self.std = np.where(np.asarray(std) < 1e-6, 1.0, std).astype(np.float32)
        self.state_size, self.feature_size = len(self.mean), 2 * len(self.mean)

    @classmethod
    def of(cls, observations: np.ndarray) -> Concatenated:
        """From the data's own moments (of at most 100,000 rows, evenly spaced)."""
        rows = observations[:: max(1, len(observations) // 100_000)].astype(np.float64)
        return cls(rows.mean(0), rows.std(0))

    def features(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.concatenate([self.states(facts), self.states(goals)], axis=1)

    def past(self, facts: np.ndarray) -> np.ndarray:
        return np.zeros((len(facts), 0), np.float32)

    def hindsight(
        self, facts: np.ndarray, start: np.ndarray, goal: np.ndarray, past: np.ndarray | None = None
    ) -> np.ndarray:
        return facts[goal]

    def states(self, facts: np.ndarray, goals: np.ndarray | None = None) -> np.ndarray:
        return np.clip((facts - self.mean) / self.std, -10.0, 10.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Labelled:
    """m windows that were described: first and last rows start, end int64[m], and encodings words [m, E]."""

    start: np.ndarray
    end: np.ndarray
    words: np.ndarray

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n windows' numbers and a moment of each before its end; what is seldom said is drawn more often than it is
        said (as the root of its count).
        """
        window = np.searchsorted(self._cumulative, rng.random(n), side="right").clip(max=len(self.start) - 1)
        length = (self.end - self.start)[window]
        return window, self.start[window] + (rng.random(n) * length).astype(np.int64)

    @cached_property
    def _cumulative(self) -> np.ndarray:
        _, which, count = np.unique(self.words, axis=0, return_inverse=True, return_counts=True)
        weight = count[which.ravel()] ** -0.5
        return np.cumsum(weight) / weight.sum()


@dataclass(frozen=True, eq=False)
class Recorded:
    """Episodes end to end: observations float32[rows, NX], actions float32[rows, A] (the last row of an episode has
    none of its own), episode_ends int64[episodes], and the encoder. ``episodes`` restricts what is drawn from, labelled
    windows excepted. ``pictures`` uint8[rows, H, W, 3] are there for an encoder that takes them.
    """

    observations: np.ndarray
    actions: np.ndarray
    episode_ends: np.ndarray
    encoder: Encoder
    episodes: np.ndarray | None = None
    labelled: Labelled | None = None
    about: dict[str, object] = field(default_factory=dict)
    pictures: np.ndarray | None = None

    @property
    def moments(self) -> np.ndarray | Seen:
        """What the encoder takes rows of."""
        if self.pictures is None:
            return self.observations
        from embodied.data.pictures import Seen

        return Seen(self.observations, self.pictures)

    @property
    def steps(self) -> int:
        """How many actions there are."""
        return int(self.episode_ends[-1]) - len(self.episode_ends)


class Batches:
    """Draws batches of ``size`` for a spec; `batch(i)` is the i-th, always the same.

    Args:
        horizon: how many steps ahead an actor's goal may lie, uniformly.
        preference: chance that a goal in which nothing changed is drawn again, ``redraws`` times at most.

    Raises ValueError for a window longer than the horizon, or than every episode.
    """

    def __init__(
        self, data: Recorded, spec: BatchSpec, size: int, seed: int, *, horizon: int = 80, preference: float = 0.95,
        redraws: int = 4,
    ) -> None:  # fmt: skip
        self.data, self.spec, self.size, self.seed = data, spec, size, seed
        if spec.window > horizon:
            raise ValueError(f"windows of {spec.window} steps need a horizon as long; it is {horizon}")
        self._sampler = WindowSampler(
            data.observations, data.episode_ends, horizon=horizon, chunk=spec.chunk, columns=data.encoder.watched,
            thresholds=data.encoder.thresholds, preference=preference if len(data.encoder.watched) else 0.0,
            redraws=redraws if len(data.encoder.watched) else 0, episodes=data.episodes, least=max(1, spec.window - 1),
        )  # fmt: skip
        self._ends = np.asarray(data.episode_ends, np.int64)
        self._past = data.encoder.past(data.moments)
        if spec.words and data.labelled is not None and data.labelled.words.shape[1] != spec.words:
            raise ValueError(
                f"instructions have {data.labelled.words.shape[1]} columns where {spec.words} are expected"
            )

    def batch(self, i: int) -> dict[str, np.ndarray]:
        """The i-th batch; see `policies.offline` for what it holds."""
        rng = np.random.default_rng([self.seed, i])
        data, spec, encoder = self.data, self.spec, self.data.encoder
        x = data.moments
        windows = self._sampler.sample(self.size, rng)
        start, goal = windows.start, windows.goal
        wanted = encoder.hindsight(x, start, goal, self._past)
        last = self._ends[np.searchsorted(self._ends, start, side="right")] - 1  # each episode's final observation
        found = {
            "features": encoder.features(x[start], wanted),
            "actions": np.ascontiguousarray(data.actions[windows.chunk], np.float32),
            "valid": windows.valid,
        }
        if spec.window:
            rows = np.minimum(start[:, None] + np.arange(spec.window), last[:, None])
            flat = encoder.features(x[rows.ravel()], wanted[np.repeat(np.arange(self.size), spec.window)])
            found["window"] = flat.reshape(self.size, spec.window, -1)
        if spec.futures:
            rows = np.minimum(start[:, None] + np.arange(1, spec.chunk + 1), last[:, None])
            found["futures"] = encoder.states(x[rows.ravel()], wanted).reshape(self.size, spec.chunk, -1)
        if spec.values:
            valued = np.empty(self.size, np.int64)
            _value_goals(start, last, len(x), spec.discount, rng.random((self.size, 2)), valued)
            there = (valued == start).astype(np.float32)
            aim = encoder.hindsight(x, start, valued, self._past)
            found["value_features"] = encoder.features(x[start], aim)
            found["next_features"] = encoder.features(x[start + 1], aim)
            found["rewards"], found["masks"] = there - 1.0, 1.0 - there
        if spec.values or spec.waypoint:
            found["features_next"] = encoder.features(x[start + 1], wanted)
        if spec.waypoint:
            way = np.minimum(start + spec.waypoint, goal)
            between = encoder.hindsight(x, start, way, self._past)
            found["waypoint_features"] = encoder.features(x[start], between)
            found["waypoint_next"] = encoder.features(x[start + 1], between)
            found["waypoint_goal"] = encoder.features(x[way], wanted)
        return found | (self._labelled(i) if spec.words and data.labelled is not None else {})

    def _labelled(self, i: int) -> dict[str, np.ndarray]:
        """The labelled rows of the i-th batch, a quarter as many as the others."""
        data, x = self.data, self.data.moments
        assert data.labelled is not None
        window, now = data.labelled.draw(max(1, int(LABELLED * self.size)), np.random.default_rng([self.seed, i, 1]))
        last = self._ends[np.searchsorted(self._ends, now, side="right")] - 1
        rows = np.minimum(now[:, None] + np.arange(self.spec.chunk), last[:, None] - 1)
        goal = data.encoder.hindsight(x, now, data.labelled.end[window], self._past)
        return {
            "labelled_features": data.encoder.features(x[now], goal),
            "labelled_actions": np.ascontiguousarray(data.actions[rows], np.float32),
            "words": data.labelled.words[window],
        }


@njit(cache=True, nogil=True)
def _value_goals(start, last, rows, discount, uniform, goal):
    """Goals for values: the present, one geometrically far ahead within the episode, or any row."""
    for i in range(len(start)):
        u, v = uniform[i, 0], uniform[i, 1]
        if u < CURRENT:
            goal[i] = start[i]
        elif u < CURRENT + GEOMETRIC:
            ahead = 1 + int(np.log(1.0 - v) / np.log(discount))
            goal[i] = min(start[i] + ahead, last[i])
        else:
            goal[i] = min(int(v * rows), rows - 1)
