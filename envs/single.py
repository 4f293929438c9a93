"""Single environments: what gymnasium's single-environment tools and stable-baselines3 expect, at n = 1."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

__all__ = ["SingleEnv", "TabletopEnv"]


class SingleEnv(gym.Env):
    """The vector environment ``world`` ("module:class") at n = 1, with the same arguments."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    world: ClassVar[str]

    def __init__(self, render_mode: str | None = None, **kwargs: Any):
        module, _, name = self.world.partition(":")
        make = getattr(importlib.import_module(module), name)
        self.vector = make(1, autoreset_mode=AutoresetMode.DISABLED, render_mode=render_mode, **kwargs)
        self.render_mode = render_mode
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        if isinstance(self.observation_space, gym.spaces.Dict):  # a goal environment, as hindsight replay expects it
            self.compute_reward = self.vector.compute_reward

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; observation and info."""
        super().reset(seed=seed)
        observation, info = self.vector.reset(seed=seed, options=options)
        return self._one(observation), self._one(info)

    def step(self, action: np.ndarray):
        """One control step; the usual five."""
        observation, reward, terminated, truncated, info = self.vector.step(np.asarray(action)[None])
        return self._one(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), self._one(info)

    def render(self):
        return self.vector.render()[0]

    def close(self) -> None:
        self.vector.close()

    @staticmethod
    def _one(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: SingleEnv._one(item) for key, item in value.items()}
        first = value[0]
        return first.item() if isinstance(first, np.generic) else first


class TabletopEnv(SingleEnv):
    """The single table-top."""

    world = "envs.vector:TabletopVectorEnv"
