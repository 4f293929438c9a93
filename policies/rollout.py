"""Storage for on-policy experience."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Rollout:
    """T steps of n slots, allocated once and refilled: observations are raw, rewards one column a head."""

    def __init__(self, length: int, slots: int, observation_size: int, action_size: int, heads: int) -> None:
        self.length, self.slots, self.heads = length, slots, heads
        self.observations = torch.zeros(length, slots, observation_size)
        self.actions = torch.zeros(length, slots, action_size)
        self.means = torch.zeros(length, slots, action_size)
        self.log_probs = torch.zeros(length, slots)
        self.rewards = torch.zeros(length, slots, heads)
        self.terminated = torch.zeros(length, slots, dtype=torch.bool)
        self.truncated = torch.zeros(length, slots, dtype=torch.bool)
        self.final_observations = torch.zeros(length, slots, observation_size)
        self.last_observation = torch.zeros(slots, observation_size)
        self.filled = 0

    @property
    def full(self) -> bool:
        return self.filled == self.length

    def clear(self) -> None:
        """Begin again at the first step."""
        self.filled = 0

    def add(
        self,
        observation: np.ndarray | torch.Tensor,
        action: torch.Tensor,
        log_prob: torch.Tensor,
        mean: torch.Tensor,
        reward_terms: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        next_observation: np.ndarray,
        final_observation: Any = None,
    ) -> None:
        """Append one step; `observation` is what `action` answered, `next_observation` what followed it.

        `final_observation` [n, D] is read only in rows where an episode ended. ValueError where it is missing
        there, or the reward terms do not have shape [n, K].
        """
        if self.full:
            raise ValueError(f"The rollout already holds its {self.length} steps; call clear() to refill it.")
        terms = np.asarray(reward_terms, dtype=np.float32)
        if terms.shape != (self.slots, self.heads):
            raise ValueError(f"Reward terms have shape {terms.shape}; expected {(self.slots, self.heads)}.")
        t = self.filled
        self.observations[t] = torch.as_tensor(observation)
        self.actions[t], self.log_probs[t], self.means[t] = action, log_prob, mean
        self.rewards[t] = torch.from_numpy(terms)
        self.terminated[t] = torch.from_numpy(np.asarray(terminated, dtype=bool))
        self.truncated[t] = torch.from_numpy(np.asarray(truncated, dtype=bool))
        ended = np.flatnonzero(np.asarray(terminated, bool) | np.asarray(truncated, bool))
        if len(ended):
            if final_observation is None:
                raise ValueError('An episode ended without info["final_obs"]; use autoreset mode SAME_STEP.')
            rows = np.stack([np.asarray(final_observation[i], dtype=np.float32) for i in ended])
            self.final_observations[t, torch.from_numpy(ended)] = torch.from_numpy(rows)
        self.filled += 1
        if self.full:
            self.last_observation.copy_(torch.as_tensor(next_observation))
