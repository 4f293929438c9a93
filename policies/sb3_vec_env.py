"""A gymnasium ``VectorEnv`` as stable-baselines3's ``VecEnv``, so that its learners learn on any of them unmodified.

    model = SAC("MultiInputPolicy", SB3VecEnv(env), replay_buffer_class=HerReplayBuffer)

The two conventions differ in five places, and each is answered here: the true last observation of an episode goes into
``infos[i]["terminal_observation"]``; a time limit that is not a termination into ``infos[i]["TimeLimit.truncated"]``;
``info["success"]`` of the last step into ``infos[i]["is_success"]``; return, length and seconds of an episode into
``infos[i]["episode"]`` (what their ``Monitor`` writes); and the seeds of slots are one seed of the batch.
Source: the ``VecEnv`` interface of Raffin et al., "Stable-Baselines3", JMLR 22 (2021).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

__all__ = ["SB3VecEnv"]


class SB3VecEnv(VecEnv):
    """A VectorEnv with flat or dict observations, in autoreset mode SAME_STEP, as a VecEnv.

    All slots are one environment: an attribute is the same for each, and a method is called once for all of them.

    Raises ValueError for another autoreset mode: in NEXT_STEP the step after an end only resets, and would be learnt
    from as if an action had led there; in DISABLED nobody resets.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP.value):
            raise ValueError(
                f"The environment's autoreset mode is {mode}; SB3VecEnv needs AutoresetMode.SAME_STEP: "
                f"make the environment with autoreset_mode={AutoresetMode.SAME_STEP.value!r}."
            )
        self.env = env
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
        self._began = time.monotonic()

    # -- episodes ------------------------------------------------------------------------------------------------

    def reset(self) -> VecEnvObs:
        """Starts new episodes in all slots, under the seed given to `seed` since the last reset, if any."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("Slots share one environment: reset options must be the same for all of them.")
        observation, info = self.env.reset(seed=self._seeds[0], options=options or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [_slot(info, i) for i in range(self.num_envs)]
        self._returns[:], self._lengths[:] = 0.0, 0
        return _copy(observation)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards float32[n], dones bool[n], and an info a slot, filled where an episode ended."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        reward, done = np.array(reward, np.float32), np.asarray(terminated, bool) | np.asarray(truncated, bool)
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.flatnonzero(done)
        if ended.size:
            last = info.get("final_obs")
            if last is None:
                raise ValueError("An episode ended and info has no 'final_obs': its true last observation is lost.")
            success = info.get("final_info", info).get("success")
            seconds = round(time.monotonic() - self._began, 6)
            for i in ended:
                length = int(self._lengths[i])
                infos[i]["terminal_observation"] = self._observation(last, i)
                infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
                infos[i]["episode"] = {"r": round(float(self._returns[i]), 6), "l": length, "t": seconds}
                if success is not None:
                    infos[i]["is_success"] = bool(success[i])
            self._returns[ended], self._lengths[ended] = 0.0, 0
        return _copy(observation), reward, done, infos

    def _observation(self, batch: Any, slot: int | np.integer) -> Any:
        """One slot's observation from a batch, or from the object array that gymnasium's own vector envs give."""
        space = self.observation_space
        if isinstance(space, gymnasium.spaces.Dict):
            rows = {key: batch[key][slot] for key in space} if isinstance(batch, dict) else batch[slot]
            return {key: np.array(rows[key], part.dtype) for key, part in space.items()}
        return np.array(batch[slot], space.dtype)

    def close(self) -> None:
        self.env.close()

    # -- what lies beneath ---------------------------------------------------------------------------------------

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute, once for each of the slots; AttributeError where there is none."""
        value = getattr(self._layer_with(attr_name), attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the environment; ValueError for some of the slots only."""
        if len(set(self._get_indices(indices))) < self.num_envs:
            raise ValueError(f"Slots share one environment: cannot set {attr_name!r} for some of them.")
        try:
            target = self._layer_with(attr_name)
        except AttributeError:
            target = self.env.unwrapped
        setattr(target, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Calls a method once; each slot's result is the whole result.

        Hindsight replay asks slot 0 for ``compute_reward``, whose result depends on its arguments alone. Any other
        method acts on every slot, and asking for it on some of them is a ValueError.
        """
        slots = list(self._get_indices(indices))
        if method_name != "compute_reward" and len(set(slots)) < self.num_envs:
            raise ValueError(f"Slots share one environment: cannot call {method_name!r} on some of them.")
        result = getattr(self._layer_with(method_name), method_name)(*args, **kwargs)
        return [result for _ in slots]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Whether a layer is of that class. True for ``Monitor``: this adapter keeps the same statistics."""
        found = wrapper_class is Monitor or any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [found for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture uint8[h, w, 3] a slot, or None without a render mode."""
        pictures: Any = self.env.render() if self.render_mode == "rgb_array" else None
        return [None] * self.num_envs if pictures is None else list(pictures)

    def _layers(self) -> Iterator[VectorEnv]:
        """The environment, outermost wrapper first."""
        layer = self.env
        while isinstance(layer, VectorWrapper):
            yield layer
            layer = layer.env
        yield layer

    def _layer_with(self, name: str) -> VectorEnv:
        for layer in self._layers():
            if hasattr(layer, name):
                return layer
        raise AttributeError(f"{type(self.env.unwrapped).__name__} has no attribute {name!r}.")


def _copy(observation: Any) -> Any:
    """The learner's own copy: an environment may write into its arrays at the next step."""
    if isinstance(observation, dict):
        return {key: np.array(value) for key, value in observation.items()}
    return np.array(observation)


def _slot(info: dict[str, Any], slot: int) -> dict[str, Any]:
    """One slot's share of a vector environment's info: what has a row a slot, without gymnasium's masks."""
    return {
        key: _slot(value, slot) if isinstance(value, dict) else value[slot]
        for key, value in info.items()
        if not key.startswith("_") and isinstance(value, dict | list | tuple | np.ndarray)
    }
