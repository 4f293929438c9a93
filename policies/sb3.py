"""stable-baselines3's learners as policies here, and a vector environment here as a VecEnv there.

    model = PPO("MlpPolicy", SB3VecEnv(env))
    model.learn(100_000)
    policy = SB3Policy.from_algorithm(model)

The learner's optimiser and replay buffer stay with stable-baselines3; what is kept is the trained policy, as
safetensors rather than as a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from policies.base import Policy, State, as_batch
from policies.checkpoint import Arrays, load_module, module_arrays

ALGORITHMS = {"ppo": "PPO", "a2c": "A2C", "sac": "SAC", "td3": "TD3"}


class SB3Policy(Policy):
    """A policy trained by stable-baselines3, with box observations and box actions within [-1, 1]."""

    registry_key = "sb3"

    def __init__(
        self,
        algorithm: str,
        observation_size: int,
        action_size: int,
        policy_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"Unknown algorithm {algorithm!r}; valid: {', '.join(ALGORITHMS)}.")
        self.algorithm, self.observation_size, self.action_size = algorithm, observation_size, action_size
        self.policy_arguments = dict(policy_arguments or {})
        kind = getattr(stable_baselines3, ALGORITHMS[algorithm]).policy_aliases["MlpPolicy"]
        self.policy: BasePolicy = kind(
            gymnasium.spaces.Box(-np.inf, np.inf, (observation_size,), np.float32),
            gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32),
            lambda _: 0.0,
            **self.policy_arguments,
        )
        self.policy.set_training_mode(False)
        self.seed(0)

    @classmethod
    def from_algorithm(cls, model: BaseAlgorithm) -> Self:
        """Take over a learner's present weights; ValueError where its policy cannot be stored as JSON."""
        name = type(model).__name__.lower()
        arguments = dict(model.policy_kwargs or {})
        try:
            json.dumps(arguments)
        except TypeError:
            raise ValueError(f"policy_kwargs must be plain values to be saved; found {arguments}.") from None
        observations, actions = model.observation_space.shape, model.action_space.shape
        if observations is None or actions is None or len(observations) != 1 or len(actions) != 1:
            raise ValueError(f"Flat boxes are expected; found {model.observation_space} and {model.action_space}.")
        policy = cls(name, observations[0], actions[0], arguments)
        load_module(policy.policy, module_arrays(model.policy))
        return policy

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        batch = as_batch(observation, self.observation_size)
        with torch.random.fork_rng(devices=[]):  # the library samples from torch's global stream
            torch.manual_seed(int(self._rng.integers(2**63)))
            action, _ = self.policy.predict(batch, deterministic=deterministic)
        return np.asarray(action, np.float32), state

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def config_dict(self) -> dict[str, Any]:
        return {
            "algorithm": self.algorithm,
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "policy_arguments": self.policy_arguments,
        }

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)

    def arrays(self) -> Arrays:
        return module_arrays(self.policy)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.policy, arrays)


class SB3VecEnv(VecEnv):
    """A gymnasium VectorEnv in autoreset mode SAME_STEP as a stable-baselines3 VecEnv.

    The true last observation goes into `infos[i]["terminal_observation"]`, a time limit into
    `infos[i]["TimeLimit.truncated"]`, `info["success"]` at an episode's end into `infos[i]["is_success"]`.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP.value):
            raise ValueError(f"The environment's autoreset mode is {mode}; SB3VecEnv needs AutoresetMode.SAME_STEP.")
        self.env = env
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        seed = self._seeds[0]
        observation, _ = self.env.reset(seed=seed)
        self._reset_seeds()
        self._reset_options()
        return np.array(observation)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        for i in np.flatnonzero(done):
            infos[i]["terminal_observation"] = np.array(info["final_obs"][i], np.float32)
            infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            if "success" in info:
                infos[i]["is_success"] = bool(info["success"][i])
        return np.array(observation), np.array(reward, np.float32), done, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise ValueError(f"Slots share one environment: cannot set {attr_name!r} for some of them.")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise ValueError(f"Slots share one environment: cannot call {method_name!r} on some of them.")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        return [None] * self.num_envs
