"""A vector environment seen by a policy of skills: each slot's code beside the observation, the skill's reward beside
the environment's own, every reward with a name and a scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from policies.discovery import Discovery

__all__ = ["SAFETY", "SKILL", "CodedVectorEnv"]

SKILL, SAFETY = "skill", "safety"


class CodedVectorEnv:
    """What `train_ppo` and `train_sac` practise in while skills are discovered.

    Args:
        env: a gymnasium VectorEnv in autoreset mode SAME_STEP with observations float32[n, F] and in ``info``
            ``objects`` float[n, B, 3], ``reward_terms`` and ``costs``, whose columns ``terms`` and ``costs`` name.
        discovery: draws codes and rewards what they bring about; it is shown every transition.
        rewards: which named rewards are given, in this order: `SKILL`, `SAFETY` (minus the sum of costs), the
            environment's terms, and single costs (given as minus the cost).
        scales: name -> factor of a reward; 1 where it is not named.

    Raises ValueError for names there are not, scales that are not finite, and an environment without objects or of
    another autoreset mode.
    """

    def __init__(
        self,
        env: Any,
        discovery: Discovery,
        rewards: Sequence[str],
        terms: Sequence[str],
        costs: Sequence[str],
        scales: Mapping[str, float] | None = None,
    ) -> None:
        valid = (SKILL, SAFETY, *terms, *costs)
        for name in (*rewards, *(scales or {})):
            if name not in valid:
                raise ValueError(f"There is no reward {name!r}; valid: {', '.join(valid)}.")
        if not rewards:
            raise ValueError(f"No rewards given; valid: {', '.join(valid)}.")
        if not hasattr(env, "objects"):
            raise ValueError("The environment has no objects; skills are told apart by what they do to objects.")
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"The environment's autoreset mode is {mode}; codes change with episodes in SAME_STEP only."
            )
        self.env, self.discovery, self.rewards = env, discovery, tuple(rewards)
        self.factors = np.array([(scales or {}).get(name, 1.0) for name in rewards])
        if not np.isfinite(self.factors).all():
            raise ValueError(f"Scales {dict(scales or {})} must be finite.")
        self._columns = [
            (0, 0) if name == SKILL else (1, 0) if name == SAFETY else (2, list(terms).index(name)) if name in terms
            else (3, list(costs).index(name)) for name in rewards
        ]  # fmt: skip
        self.codes = torch.zeros(0)
        self.cost_total = np.zeros(len(costs))  # summed over slots and steps since `take_costs`
        self.hits = np.zeros(len(costs))
        self.steps = 0

    def reset(self, *, seed: Any = None) -> np.ndarray:
        """New episodes with new codes in all slots; float32[n, F + Z]."""
        observation, _ = self.env.reset(seed=seed)
        self.codes = self.discovery.codes(len(observation))
        self._objects = np.array(self.env.objects)
        return self._seen(observation)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """The environment's step; ``info["reward_terms"]`` float32[n, K] are the named rewards."""
        observation, _, terminated, truncated, info = self.env.step(actions)
        after, done = np.asarray(info["objects"]), terminated | truncated
        transition = torch.from_numpy(self._objects), torch.from_numpy(after), self.codes
        skill = self.discovery.reward(*transition).numpy()
        self.discovery.remember(*transition)
        costs = np.asarray(info["costs"])
        self.cost_total += costs.sum(axis=0)
        self.hits += (costs > 0).sum(axis=0)
        self.steps += len(costs)
        sources = (skill[:, None], -costs.sum(axis=1, keepdims=True), np.asarray(info["reward_terms"]), -costs)
        terms = np.stack([sources[group][:, column] for group, column in self._columns], axis=1) * self.factors
        told: dict[str, Any] = {"reward_terms": terms.astype(np.float32)}
        if done.any():
            told["final_obs"] = self._seen(np.asarray(info["final_obs"]))
            fresh = torch.from_numpy(done)
            self.codes = torch.where(fresh[:, None], self.discovery.codes(len(done)), self.codes)
        self._objects = np.array(self.env.objects)
        return self._seen(observation), terms.sum(axis=1), terminated, truncated, told

    def take_costs(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean cost a step, share of steps with any of it) of every cost since this was last asked."""
        steps = max(1, self.steps)
        found = self.cost_total / steps, self.hits / steps
        self.cost_total, self.hits, self.steps = np.zeros_like(self.hits), np.zeros_like(self.hits), 0
        return found

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, self.codes.numpy()], axis=1, dtype=np.float32)
