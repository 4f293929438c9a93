"""What every policy is: something that acts on batches, and can be written to a directory and read back.

`predict` follows stable-baselines3's protocol, batched. Whatever a policy remembers between calls (action
chunks, plans, recurrent memory) is in the explicit `state`, one row a slot, so that one slot starts anew,
by `episode_start`, without touching its neighbours. A *slot* is one row of the batch: one environment.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

import policies
from policies.checkpoint import (
    MODEL,
    TRAINING,
    Arrays,
    CheckpointError,
    content_hash,
    read_arrays,
    read_header,
    write_checkpoint,
)

State = dict[str, np.ndarray]
"""A policy's memory: arrays whose first axis is the slot."""

C = TypeVar("C")


class Policy(ABC):
    """Acts. Subclasses set `registry_key`, and say how they are configured and which arrays they hold."""

    registry_key: ClassVar[str]
    observation_size: int
    action_size: int

    @abstractmethod
    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Actions for a batch.

        Args:
            observation: float32[n, observation_size].
            state: what the previous call returned, or None at the beginning.
            episode_start: bool[n], True for slots whose episode begins now; None stands for none of them.
            deterministic: no chance involved: the same observations lead to the same actions.

        Returns:
            (float32[n, action_size] within [-1, 1], the state to pass next time). Arguments are not changed.
        """

    @abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """What `build` needs, as plain JSON values."""

    @classmethod
    @abstractmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        """An untrained policy from `config_dict`'s result; ValueError for an unknown entry."""

    def arrays(self) -> Arrays:
        """All that decides the actions, by name."""
        return {}

    def load_arrays(self, arrays: Arrays) -> None:
        """Take over what `arrays` gave; CheckpointError where it does not fit."""
        if arrays:
            raise CheckpointError(f"A {self.registry_key!r} policy has no weights, but found {sorted(arrays)[0]!r}.")

    @abstractmethod
    def seed(self, seed: int) -> None:
        """Restart the random stream behind actions that are not deterministic."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, atomically."""
        write_checkpoint(directory, self.registry_key, self.config_dict(), self.arrays())

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Read a policy; called on a subclass, it insists on that kind."""
        return _load(directory, cls)


class LearnablePolicy(Policy):
    """A policy that improves by `update`, and whose learning can be interrupted without a trace."""

    @abstractmethod
    def update(self, batch: Any) -> dict[str, float]:
        """Learn from one batch; returns the metrics of this update by name."""

    @abstractmethod
    def training_arrays(self) -> Arrays:
        """What learning needs besides `arrays()`: moments, random streams, counters."""

    @abstractmethod
    def load_training_arrays(self, arrays: Arrays) -> None:
        """Take over what `training_arrays` gave."""

    def save_training(self, directory: str | Path) -> None:
        """Like `save_pretrained`, with the training state in the same directory."""
        arrays, training = self.arrays(), self.training_arrays()
        write_checkpoint(directory, self.registry_key, self.config_dict(), arrays, training)

    @classmethod
    def load_training(cls, directory: str | Path) -> Self:
        """Read policy and training state: updates continue bit for bit as if never interrupted."""
        policy = _load(directory, cls)
        try:
            policy.load_training_arrays(read_arrays(directory, TRAINING))
        except KeyError as error:
            raise CheckpointError(f"{TRAINING} in {directory} lacks the entry {error}.") from None
        return policy


def load_policy(directory: str | Path) -> Policy:
    """The policy in a directory, whatever its kind (the "type" in its `config.json`).

    Raises CheckpointError, in one sentence, for a missing, truncated or corrupt file or an unknown type.
    """
    return _load(directory, Policy)


P = TypeVar("P", bound=Policy)


def _load(directory: str | Path, expected: type[P]) -> P:
    header = read_header(directory)
    if header.type not in policies.REGISTRY:
        valid = ", ".join(sorted(policies.REGISTRY))
        raise CheckpointError(f"{directory} holds a policy of unknown type {header.type!r}; valid types: {valid}.")
    found = policies.policy_class(header.type)
    if not issubclass(found, expected):
        wanted = getattr(expected, "registry_key", expected.__name__)
        raise CheckpointError(f"{directory} holds a {header.type!r} policy, not the expected {wanted!r}.")
    try:
        policy = found.build(header.config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The configuration in {directory} is not valid: {error}") from None
    policy.load_arrays(read_arrays(directory, MODEL))
    return policy


def config_from_dict(kind: type[C], values: Mapping[str, Any]) -> C:
    """A configuration dataclass from plain JSON values (lists become tuples).

    ValueError naming the valid entries for an unknown one.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ValueError(f"Unknown entry {name!r} for {kind.__name__}; valid entries: {', '.join(known)}.")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def as_batch(observation: Any, size: int) -> np.ndarray:
    """`observation` as contiguous float32[n, size]; ValueError for any other shape."""
    batch = np.ascontiguousarray(observation, dtype=np.float32)
    if batch.ndim != 2 or batch.shape[1] != size:
        raise ValueError(f"Observations have shape {batch.shape}; expected (n, {size}).")
    return batch


__all__ = [
    "CheckpointError",
    "LearnablePolicy",
    "Policy",
    "State",
    "as_batch",
    "config_from_dict",
    "content_hash",
    "load_policy",
]
