"""stable-baselines3's learners as policies here; `SB3VecEnv` is a vector environment here as a VecEnv there.

    model = PPO("MlpPolicy", SB3VecEnv(env))
    model.learn(100_000)
    policy = SB3Policy.from_algorithm(model)

The learner's optimiser and replay buffer stay with stable-baselines3 (`policies.sb3_learners` keeps them, for learning
that goes on later); what is kept here is the trained policy, as safetensors rather than as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd

from policies.base import Policy, State, as_batch
from policies.checkpoint import Arrays, CheckpointError, load_module, module_arrays, with_prefix, without_prefix
from policies.sb3_vec_env import SB3VecEnv

__all__ = ["ALGORITHMS", "SB3Policy", "SB3VecEnv", "running_moments"]

ALGORITHMS = {"ppo": "PPO", "a2c": "A2C", "sac": "SAC", "td3": "TD3"}
OPTIMISER = ("optimizer_class", "optimizer_kwargs")  # arguments that decide how it was learnt, not how it acts


FLAT, MOMENTS = "observation", "moments"  # the name of a flat observation's moments, and of all of them
CLIP, EPSILON = 10.0, 1e-8  # as ``VecNormalize`` has them by default

Sizes = int | Sequence[tuple[str, int]]
"""The width of a flat observation, or the name and width of each part of a dict observation, in order."""


class SB3Policy(Policy):
    """A policy trained by stable-baselines3: flat or dict observations, box actions within [-1, 1].

    Args:
        algorithm: a key of `ALGORITHMS`.
        observation_size: width of a flat observation, or (name, width) of each part of a dict observation.
        action_size: width of an action.
        policy_arguments: the learner's ``policy_kwargs``, plain values.
        normalised: whether it learnt from observations normalised by ``VecNormalize``, whose moments it then holds.

    Raises ValueError for an unknown algorithm.
    """

    registry_key = "sb3"

    def __init__(
        self,
        algorithm: str,
        observation_size: Sizes,
        action_size: int,
        policy_arguments: Mapping[str, Any] | None = None,
        normalised: bool = False,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"Unknown algorithm {algorithm!r}; valid: {', '.join(ALGORITHMS)}.")
        flat = isinstance(observation_size, int)
        self.parts: dict[str, int] = {} if flat else dict(observation_size)  # type: ignore[arg-type]
        self.observation_size: int = observation_size if flat else sum(self.parts.values())  # type: ignore[assignment]
        self.algorithm, self.action_size = algorithm, action_size
        self.policy_arguments = dict(policy_arguments or {})
        aliases = getattr(stable_baselines3, ALGORITHMS[algorithm]).policy_aliases
        space = gymnasium.spaces.Dict([(key, _box(size)) for key, size in self.parts.items()])
        self.policy: BasePolicy = aliases["MlpPolicy" if flat else "MultiInputPolicy"](
            _box(self.observation_size) if flat else space,
            gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32),
            lambda _: 0.0,
            **self.policy_arguments,
        )
        self.policy.set_training_mode(False)
        sizes = self.parts or {FLAT: self.observation_size}
        self.moments: Arrays = {}  # "part/mean" and "part/var" float64[width]
        if normalised:
            for key, size in sizes.items():
                self.moments |= {f"{key}/mean": np.zeros(size), f"{key}/var": np.ones(size)}
        self.seed(0)

    @classmethod
    def from_algorithm(cls, model: BaseAlgorithm) -> Self:
        """Take over a learner's present weights; ValueError where its policy cannot be stored as JSON."""
        name = type(model).__name__.lower()
        arguments = {k: v for k, v in (model.policy_kwargs or {}).items() if k not in OPTIMISER}
        try:
            json.dumps(arguments)
        except TypeError:
            raise ValueError(f"policy_kwargs must be plain values to be saved; found {arguments}.") from None
        actions = model.action_space
        if not (isinstance(actions, gymnasium.spaces.Box) and (actions.low == -1).all() and (actions.high == 1).all()):
            raise ValueError(f"Actions must be a flat box within [-1, 1]; found {actions}.")
        moments = running_moments(model)
        policy = cls(name, _sizes(model.observation_space), _width(actions), arguments, normalised=bool(moments))
        load_module(policy.policy, module_arrays(model.policy))
        for key, found in moments.items():
            policy.moments |= {f"{key}/mean": found.mean.copy(), f"{key}/var": found.var.copy()}
        return policy

    def predict(
        self,
        observation: np.ndarray | Mapping[str, np.ndarray],
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """As `Policy.predict`. A dict policy takes a dict of float32[n, width], or its parts side by side in order."""
        if isinstance(observation, Mapping):
            batch: Any = self._parts(observation)
        else:
            batch = as_batch(observation, self.observation_size)
            if self.parts:
                cuts = np.cumsum(list(self.parts.values()))[:-1]
                batch = dict(zip(self.parts, np.split(batch, cuts, axis=1), strict=True))
        if self.moments:
            parts = batch.items() if isinstance(batch, dict) else [(FLAT, batch)]
            scaled = {key: self._normalised(key, part) for key, part in parts}
            batch = scaled if self.parts else scaled[FLAT]
        with torch.random.fork_rng(devices=[]):  # the library samples from torch's global stream
            torch.manual_seed(int(self._rng.integers(2**63)))
            action, _ = self.policy.predict(batch, deterministic=deterministic)
        return np.asarray(action, np.float32), state

    def _parts(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if observation.keys() != self.parts.keys():
            expected = f"a dict of {', '.join(self.parts)}" if self.parts else f"shape (n, {self.observation_size})"
            raise ValueError(f"Observations are a dict of {', '.join(observation)}; expected {expected}.")
        return {key: as_batch(observation[key], size) for key, size in self.parts.items()}

    def _normalised(self, key: str, part: np.ndarray) -> np.ndarray:
        """One part as ``VecNormalize`` gave it to the learner: float32[n, width]."""
        deviation = np.sqrt(self.moments[f"{key}/var"] + EPSILON)
        return np.clip((part - self.moments[f"{key}/mean"]) / deviation, -CLIP, CLIP).astype(np.float32)

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def config_dict(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "observation_size": [list(part) for part in self.parts.items()] or self.observation_size,
            "action_size": self.action_size,
            "policy_arguments": self.policy_arguments,
            "normalised": bool(self.moments),
        }

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)

    def arrays(self) -> Arrays:
        return module_arrays(self.policy) | with_prefix(MOMENTS, self.moments)

    def load_arrays(self, arrays: Arrays) -> None:
        moments = without_prefix(MOMENTS, arrays)
        if {k: v.shape for k, v in moments.items()} != {k: v.shape for k, v in self.moments.items()}:
            raise CheckpointError("The stored moments of the observations do not fit this policy.")
        load_module(self.policy, {key: array for key, array in arrays.items() if not key.startswith(f"{MOMENTS}/")})
        self.moments = moments


def running_moments(model: BaseAlgorithm) -> dict[str, RunningMeanStd]:
    """The moments of each part of a learner's observations; empty where it learns from them as they are."""
    normaliser = model.get_vec_normalize_env()
    if normaliser is None:
        return {}
    found = normaliser.obs_rms
    return dict(found) if isinstance(found, dict) else {FLAT: found}


def _box(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _width(space: gymnasium.Space) -> int:
    """The width of a flat box; ValueError for any other space."""
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"Flat boxes are expected, or a dict of them; found {space}.")
    return space.shape[0]


def _sizes(space: gymnasium.Space) -> Sizes:
    if isinstance(space, gymnasium.spaces.Dict):
        return [(key, _width(part)) for key, part in space.items()]
    return _width(space)
