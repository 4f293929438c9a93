"""A policy behind a view: what it sees are some columns of a wider observation, in its own order, and a code.

A learner wants its features in an order of its own (`policies.offline`), and a policy of many skills wants a code
beside them (`policies.discovery`); a world gives one observation to all. With x an observation row and z the code,

    the policy acts on   x[columns] ++ z        z = `code`, always the same, or
                                                z = d / |d|, d = x[towards], and 0 where d is: the way that is wanted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from policies import policy_class
from policies.base import Policy, State, as_batch
from policies.checkpoint import Arrays

__all__ = ["Viewed"]


class Viewed(Policy):
    """Acts as another policy does that sees only a view; its state is the other's.

    Args:
        policy: takes observations float32[n, len(columns) + Z].
        observation_size: columns of the observations that `predict` takes.
        columns: which of them it sees, in this order.
        code: z float32[Z], empty for none.
        towards: instead of a code, the Z columns whose direction is one; -1 stands for a column of zeros.

    Raises ValueError where these do not fit together.
    """

    registry_key = "viewed"

    def __init__(
        self, policy: Policy, observation_size: int, columns: Sequence[int], code: Sequence[float] = (),
        towards: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.policy, self.observation_size, self.action_size = policy, int(observation_size), policy.action_size
        self.columns, self.towards = np.asarray(columns, np.int64), np.asarray(towards, np.int64)
        self.code = np.asarray(code, np.float32)
        seen, more = len(self.columns), len(self.code) + len(self.towards)
        if len(self.code) and len(self.towards):
            raise ValueError("A code is given or found in the observation: name `code` or `towards`, not both.")
        if seen + more != policy.observation_size:
            raise ValueError(
                f"{seen} columns and {more} numbers of a code do not make the {policy.observation_size} features "
                f"that a {policy.registry_key!r} policy takes."
            )
        if not np.isfinite(self.code).all():
            raise ValueError("A code must be finite numbers.")
        for name, low in (("columns", 0), ("towards", -1)):
            chosen = getattr(self, name)
            if len(chosen) and not (low <= chosen.min() and chosen.max() < self.observation_size):
                raise ValueError(f"{name} must lie in {low} … {self.observation_size - 1}; found {chosen.tolist()}.")

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        batch = as_batch(observation, self.observation_size)
        parts = [batch[:, self.columns]]
        if len(self.code):
            parts.append(np.broadcast_to(self.code, (len(batch), len(self.code))))
        elif len(self.towards):
            wanted = np.where(self.towards >= 0, batch[:, self.towards], np.float32(0.0))
            parts.append(wanted / np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-6))
        return self.policy.predict(np.concatenate(parts, axis=1), state, episode_start, deterministic)

    def seed(self, seed: int) -> None:
        self.policy.seed(seed)

    # ---- saving

    def config_dict(self) -> dict[str, Any]:
        return {
            "observation_size": self.observation_size, "columns": self.columns.tolist(), "code": self.code.tolist(),
            "towards": self.towards.tolist(),
            "policy": {"type": self.policy.registry_key, "config": self.policy.config_dict()},
        }  # fmt: skip

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        try:
            inner = config["policy"]
            policy = policy_class(inner["type"]).build(inner["config"])
            return cls(policy, **{name: value for name, value in config.items() if name != "policy"})
        except (KeyError, TypeError) as error:
            raise ValueError(f"A view must name its policy, observation_size and columns: {error!r}.") from None

    def arrays(self) -> Arrays:
        return self.policy.arrays()

    def load_arrays(self, arrays: Arrays) -> None:
        self.policy.load_arrays(arrays)
