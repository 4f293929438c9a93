"""Replaying an episode: from its first simulator state and with its actions, does the environment do the same again?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.core import Episode
from embodied.data.dataset import Dataset, DatasetError
from envs.registry import make_vector

__all__ = ["Replay", "environment", "pictures", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a replay found: after ``step`` (-1: never) something first differs, by ``gap`` in ``what``."""

    steps: int
    states: int
    facts: bool
    step: int = -1
    gap: float = 0.0
    what: str = ""

    @property
    def same(self) -> bool:
        """Whether all that was recorded came again, to the last bit."""
        return self.step < 0


def environment(dataset: Dataset) -> Any:
    """One copy of the data set's environment that can be put into a state. DatasetError where it is not one of ours."""
    from gymnasium.vector import AutoresetMode

    if not dataset.env.startswith("Embodied/"):
        raise DatasetError(
            f"{dataset.source} is of {dataset.env or 'an unknown environment'}; only our own worlds (Embodied/…) are "
            f"replayed"
        )
    arguments = {name: value for name, value in dataset.kwargs.items() if name != "autoreset_mode"}
    return make_vector(
        dataset.env, 1, **{"max_steps": 1 << 40, **arguments}, autoreset_mode=AutoresetMode.DISABLED, threads=1
    ).unwrapped


def begin(env: Any, episode: Episode, source: str) -> None:
    """Puts the environment into the episode's first state. DatasetError where there is none, or another world's."""
    env.reset(seed=max(0, episode.seed))
    width = env.get_state().shape[1]
    if episode.states.shape[1] != width:
        found = f"states of {episode.states.shape[1]} numbers" if episode.states.shape[1] else "no simulator states"
        raise DatasetError(f"{source} has {found} where this world's have {width}: it cannot be replayed")
    env.set_state(episode.states[:1])


def replay(env: Any, episode: Episode, source: str = "the data set") -> Replay:
    """Takes the episode's actions from its first state and compares every state and observation that was recorded.

    Observations are compared where they are the world's facts.
    """
    begin(env, episode, source)
    facts = episode.observations.shape[1] == env.facts.shape[1]
    names = list(getattr(env, "columns", ())) or [str(i) for i in range(env.facts.shape[1])]
    at = dict(zip(episode.state_steps.tolist(), episode.states, strict=True))
    result = (len(episode), len(episode.states), facts)
    for t in range(len(episode) + 1):
        if t:
            env.step(episode.actions[t - 1][None])
        if facts:
            gap = np.abs(env.facts[0].astype(np.float32) - episode.observations[t])
            if gap.max(initial=0.0) != 0.0:
                worst = int(gap.argmax())
                return Replay(*result, t, float(gap[worst]), f"observation column '{names[worst]}'")
        if t in at:
            gap = np.abs(env.get_state()[0] - at[t])
            if gap.max(initial=0.0) != 0.0:
                return Replay(*result, t, float(gap.max()), f"number {int(gap.argmax())} of the simulator state")
    return Replay(*result)


def pictures(env: Any, episode: Episode, source: str = "the data set") -> Iterator[np.ndarray]:
    """uint8[h, w, 3] before each action of the replayed episode."""
    begin(env, episode, source)
    for action in episode.actions:
        yield env.render()[0]
        env.step(action[None])
