"""Reinforcement learning over frozen skills: an action is a code, held for some control steps, or to stop.

    env = SkillVectorEnv(DiscoveryTaskVectorEnv(64, autoreset_mode="Disabled"), skills.act, code_size=2)
    train_ppo(policy, env, steps // env.steps)          # a step of it is an option: ``env.steps`` control steps

`learn_over` does this for a task of `envs.scenes.discovery_tasks`, and `measure` says what came of it. A row of codes
that is all zeros means to stop: the tool stands still and its fingers open, so that what is held is put down. A slot
whose episode ends within an option stops until the option is over, and those control steps are counted like all others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from embodied.errors import UsageError
from embodied.training.discovery import Skills
from envs.scenes.discovery_tasks import TASK_TERMS, DiscoveryTaskVectorEnv
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig
from policies.practice import train_ppo

__all__ = ["OPTION", "Act", "Held", "SkillVectorEnv", "hold", "learn_over", "measure", "over_skills", "unit"]

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Actions float32[n, A] of observations float32[n, F] under codes float32[n, Z]: `Skills.act`."""

OPTION = 5  # control steps for which a code is held: a block is carried some 7 cm in these
_OPEN = 1.0  # what the gripper is told where it is stopped
STOP = 0.5  # above this an action's last number says to stop


def unit(codes: np.ndarray) -> np.ndarray:
    """Codes float32[n, Z] on the unit sphere; a row of zeros stays one, and stops."""
    codes = np.asarray(codes, np.float32)
    return codes / np.maximum(1e-6, np.linalg.norm(codes, axis=-1, keepdims=True))


@dataclass
class Held:
    """What came of an option; a slot's values are those of the moment at which its episode ended, if it did."""

    observation: np.ndarray  # float32[n, D]
    reward: np.ndarray  # float64[n], summed
    terms: np.ndarray  # float64[n, K], summed
    terminated: np.ndarray  # bool[n]
    truncated: np.ndarray
    success: np.ndarray
    lost: np.ndarray
    objects: np.ndarray  # float64[n, B, 3], m

    @property
    def done(self) -> np.ndarray:
        return self.terminated | self.truncated


def hold(
    env: Any,
    act: Act,
    codes: np.ndarray,
    steps: int,
    observation: np.ndarray,
    features: int,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> Held:
    """Lets every slot act under its code for so many control steps.

    Args:
        env: a VectorEnv in autoreset mode DISABLED, with ``objects`` and ``reward_terms`` in its info.
        codes: float32[n, Z], zeros to stop. observation: float32[n, D], where the environment stands; the skills see
            its first ``features`` columns.
        on_step: called with each control step's info.
    """
    n = len(codes)
    moving = np.any(codes != 0.0, axis=1)
    alive = np.ones(n, np.bool_)
    found: Held | None = None
    for _ in range(steps):
        acting = (moving & alive)[:, None]
        actions = np.where(acting, act(observation[:, :features], codes), 0.0)
        actions[~acting[:, 0], -1] = _OPEN
        seen, reward, terminated, truncated, info = env.step(actions)
        observation = np.asarray(seen)
        terms, objects = np.asarray(info["reward_terms"], np.float64), np.asarray(info["objects"])
        if found is None:
            none = np.zeros(n, np.bool_)
            found = Held(
                observation.copy(), np.zeros(n), np.zeros((n, terms.shape[1])), none, none.copy(), none.copy(),
                none.copy(), objects.copy(),
            )  # fmt: skip
        found.observation[alive], found.objects[alive] = observation[alive], objects[alive]
        found.reward += np.where(alive, reward, 0.0)
        found.terms += np.where(alive[:, None], terms, 0.0)
        found.terminated |= alive & terminated
        found.truncated |= alive & truncated
        found.success |= alive & np.asarray(info["success"])
        found.lost |= alive & np.asarray(info["lost"])
        alive &= ~(terminated | truncated)
        if on_step is not None:
            on_step(info)
    assert found is not None
    return found


class SkillVectorEnv(VectorEnv):
    """A vector environment of options. Actions float[n, Z + 1]: a code, normalised here, and above `STOP` to stop.

    Args:
        env: what is acted in, autoreset mode DISABLED; it is reset here, where episodes ended. Flat observations.
        act: the frozen skills.
        code_size: Z.
        steps: control steps an option takes.
        features: leading columns of the observation that the skills see; 0: as many as ``env.skill_features`` says.

    Observations are ``env``'s; ``reward_terms`` in ``info`` are its terms' sums over an option. An episode has
    ``env.max_steps // steps`` options. Raises UsageError for another autoreset mode and for options that do not fit.
    """

    def __init__(self, env: Any, act: Act, code_size: int, *, steps: int = OPTION, features: int = 0) -> None:
        mode = AutoresetMode(env.metadata["autoreset_mode"])
        if mode != AutoresetMode.DISABLED:
            raise UsageError(f"the environment's autoreset mode is {mode.value}; skills need 'Disabled'")
        if code_size < 1 or steps < 1 or env.max_steps % steps:
            raise UsageError(
                f"code_size = {code_size}, steps = {steps}: both must be at least 1, and an episode of {env.max_steps} "
                "steps a whole number of options"
            )
        self.env, self.act, self.code_size, self.steps = env, act, code_size, steps
        self.features = features or env.skill_features
        self.num_envs, self.max_steps = env.num_envs, env.max_steps // steps
        self.metadata = env.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = env.single_observation_space
        self.observation_space = env.observation_space
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (code_size + 1,), np.float32)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._observation = np.zeros((0, 0), np.float32)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None):
        """New episodes in all slots, or in those that ``options`` name; as ``env`` does."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation.copy(), info

    def codes(self, actions: np.ndarray) -> np.ndarray:
        """The codes float32[n, Z] that actions float[n, Z + 1] stand for; zeros to stop."""
        actions = np.asarray(actions, np.float32)
        return unit(actions[:, :-1]) * (actions[:, -1:] <= STOP)

    def step(self, actions: np.ndarray):
        """An option of every slot; the five of gymnasium, with ``final_obs`` where episodes ended."""
        if np.shape(actions) != self.action_space.shape:
            raise ValueError(f"actions have shape {np.shape(actions)}; {self.action_space.shape} is needed")
        found = hold(self.env, self.act, self.codes(actions), self.steps, self._observation, self.features)
        info: dict[str, Any] = {
            "success": found.success, "lost": found.lost, "objects": found.objects, "reward_terms": found.terms,
        }  # fmt: skip
        self._observation, done = found.observation.copy(), found.done
        if done.any():
            info |= {"final_obs": found.observation, "_final_obs": done}
            begun, _ = self.env.reset(options={"reset_mask": done})
            self._observation[done] = begun[done]
        return self._observation.copy(), found.reward, found.terminated, found.truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close()


def over_skills(skills: Skills, slots: int, task: str, *, steps: int = OPTION, threads: int = 0) -> SkillVectorEnv:
    """A task's environment in which the actions are codes of these skills. UsageError for discrete codes."""
    config = skills.discovery.config
    if config.discrete or config.method == "dusdi":
        raise UsageError(f"the codes of '{config.method}' are discrete; a hierarchy takes continuous ones")
    env = DiscoveryTaskVectorEnv(
        slots, task=task, blocks=skills.settings.blocks, autoreset_mode="Disabled", threads=threads
    )
    return SkillVectorEnv(env, skills.act, config.code, steps=steps)


def learn_over(
    skills: Skills,
    task: str,
    steps: int,
    *,
    option: int = OPTION,
    num_envs: int = 64,
    seed: int = 0,
    threads: int = 0,
    on_iteration: Callable[[dict[str, float]], bool | None] | None = None,
) -> MultiCriticPPO:
    """A policy of codes for a task, learnt in so many control steps while the skills stay as they are."""
    env = over_skills(skills, num_envs, task, steps=option, threads=threads)
    size = env.single_observation_space.shape[0]  # type: ignore[index]
    policy = MultiCriticPPO(
        MultiCriticPPOConfig(
            size, env.code_size + 1, TASK_TERMS, discounts=(0.97**option,), critic_hidden=(128, 128), epochs=6,
            minibatch=128, seed=seed,
        )
    )  # fmt: skip
    train_ppo(policy, env, steps // option, on_iteration, rollout_length=8, seed=seed)
    env.close()
    return policy


def measure(env: Any, act: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
    """Whether the first episode of each slot, from the starts that ``seed`` draws, was a success: bool[n].

    ``env``: one of options or one of control steps; its slots are acted in for ``env.max_steps`` steps.
    """
    observation, _ = env.reset(seed=seed)
    success, done = np.zeros(env.num_envs, np.bool_), np.zeros(env.num_envs, np.bool_)
    for _ in range(env.max_steps):
        observation, _, terminated, truncated, info = env.step(act(observation))
        success |= np.asarray(info["success"]) & ~done
        done |= terminated | truncated
        if done.all():
            break
    return success
