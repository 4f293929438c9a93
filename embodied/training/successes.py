"""Filtered cloning (PAE): of what was done to reach a goal, only own episodes that did, and of those the quickest.

What counts as success was verified by the simulator's predicates when the episode was measured, and again where the
stretch to learn from is cut (`embodied.training.relabelling`). Play is not among it: it was somebody else's.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from embodied.core import Episode
from embodied.data.store import EpisodeStore

__all__ = ["Lessons", "own_successes", "quickest"]

OWN = ("practice", "evaluation")  # sources of episodes in which the robot's own policies acted
SHARE = 0.2  # of a goal's successes, the shortest
LEAST = 8  # of them that are taken in any case


class Lessons(NamedTuple):
    """Flat episodes as in a store: observations float32[rows, NX], actions float32[rows, A], ends int64[episodes]."""

    observations: np.ndarray
    actions: np.ndarray
    episode_ends: np.ndarray


def quickest(episodes: list[Episode]) -> list[Episode]:
    """The shortest share of each goal's successes, in their order; what failed is left out."""
    taken: list[int] = []
    for goal in dict.fromkeys(episode.goal for episode in episodes):
        found = [i for i, episode in enumerate(episodes) if episode.goal == goal and episode.success]
        count = max(LEAST, math.ceil(SHARE * len(found)))
        taken += sorted(found, key=lambda i: (len(episodes[i]), i))[:count]
    return [episodes[i] for i in sorted(taken)]


def own_successes(store: EpisodeStore, goals: Collection[str]) -> Lessons:
    """What a store holds of own, successful, quick episodes of ``goals``; raises StoreError where it is damaged."""
    own = [e for source in OWN for e in store.iterate(source) if e.success and e.goal in goals]
    return lessons(quickest(own), store)


def lessons(episodes: list[Episode], like: EpisodeStore | Lessons) -> Lessons:
    """Episodes laid out flat, of the widths that ``like`` has."""
    observations, actions = like.observations[:0], like.actions[:0]
    if episodes:
        observations = np.concatenate([e.observations for e in episodes])
        actions = np.concatenate([np.pad(e.actions, ((0, 1), (0, 0))) for e in episodes])
    return Lessons(observations, actions, np.cumsum([len(e) + 1 for e in episodes], dtype=np.int64))
