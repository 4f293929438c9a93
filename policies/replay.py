"""Storage for off-policy experience: the last transitions, with one reward a head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch


class Transitions(NamedTuple):
    """b steps of any slots; `next_observations` are the true ones, where an episode ended its last."""

    observations: torch.Tensor  # float32[b, D], raw
    actions: torch.Tensor  # float32[b, A]
    rewards: torch.Tensor  # float32[b, K]
    terminated: torch.Tensor  # bool[b]; a step that was only truncated is False here
    next_observations: torch.Tensor  # float32[b, D]

    def finite(self) -> bool:
        """Whether no number of any column is NaN or infinite."""
        return all(bool(torch.isfinite(column).all()) for column in self)


class Replay:
    """The last `capacity` transitions, one a row of a single table, so that drawing a batch is one gather.

    Memory is reserved at once but taken by the system only as rows are written.
    """

    def __init__(self, capacity: int, observation_size: int, action_size: int, heads: int) -> None:
        if capacity < 1:
            raise ValueError(f"A replay of {capacity} transitions is impossible; its capacity must be at least 1.")
        self.capacity, self.heads = capacity, heads
        self.sizes = (observation_size, action_size, heads, 1, observation_size)
        self.table = torch.empty(capacity, sum(self.sizes))
        self.size = self.position = 0

    def __len__(self) -> int:
        return self.size

    def add(
        self,
        observation: np.ndarray,
        action: torch.Tensor | np.ndarray,
        reward_terms: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        next_observation: np.ndarray,
        final_observation: Any = None,
    ) -> Transitions:
        """Append one step of n slots, over the oldest ones where there is no more room; returns what was appended.

        `final_observation` [n, D] is read only in rows where an episode ended. ValueError where it is missing
        there, where the reward terms do not have shape [n, K], and where a value is not finite.
        """
        slots = len(observation)
        terms = np.asarray(reward_terms, dtype=np.float32)
        if terms.shape != (slots, self.heads):
            raise ValueError(f"Reward terms have shape {terms.shape}; expected {(slots, self.heads)}.")
        if slots > self.capacity:
            raise ValueError(f"One step of {slots} slots does not fit a replay of {self.capacity} transitions.")
        following = np.array(next_observation, dtype=np.float32)
        ended = np.flatnonzero(np.asarray(terminated, bool) | np.asarray(truncated, bool))
        if len(ended):
            if final_observation is None:
                raise ValueError('An episode ended without info["final_obs"]; use autoreset mode SAME_STEP.')
            following[ended] = np.stack([np.asarray(final_observation[i], dtype=np.float32) for i in ended])
        steps = Transitions(
            torch.as_tensor(observation, dtype=torch.float32),
            torch.as_tensor(action, dtype=torch.float32),
            torch.from_numpy(terms),
            torch.from_numpy(np.asarray(terminated, bool)),
            torch.from_numpy(following),
        )
        if not steps.finite():
            raise ValueError("A step holds observations, actions or rewards that are not finite.")
        rows = (self.position + torch.arange(slots)) % self.capacity
        self.table[rows] = torch.cat([*steps[:3], steps.terminated[:, None].float(), steps.next_observations], dim=1)
        self.position = (self.position + slots) % self.capacity
        self.size = min(self.size + slots, self.capacity)
        return steps

    def sample(self, size: int, generator: torch.Generator) -> Transitions:
        """`size` transitions drawn uniformly with replacement; ValueError while there is none."""
        if not self.size:
            raise ValueError("The replay is empty; add transitions before sampling from it.")
        drawn = self.table[torch.randint(self.size, (size,), generator=generator)]
        observations, actions, rewards, terminated, following = drawn.split(self.sizes, dim=1)
        return Transitions(observations, actions, rewards, terminated[:, 0] > 0.5, following)
