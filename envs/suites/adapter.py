"""What every suite's environment keeps to, whatever library runs it.

A subclass says which tasks there are, how a batch is reset and stepped, and what success means; here are the spaces,
the checks of actions, the two autoreset modes and the shapes that `envs.vector` has too.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.suites import SuiteError

__all__ = ["SuiteVectorEnv", "flat_size", "flatten", "slot_seeds", "usable_cores"]

OBSERVATIONS = ("flat", "dict")


class SuiteVectorEnv(VectorEnv):
    """n copies of a suite's task, with our conventions. See `reset` and `step` for shapes.

    Args:
        task: a name of `task_ids`.
        num_envs: n.
        observation: ``flat`` float32[n, …], a suite's dictionary laid out in the order of its keys; or ``dict``, as the
            suite has it (only where it has one).
        max_steps: an episode is truncated after so many control steps; None takes the suite's own number.
        autoreset_mode: SAME_STEP, or NEXT_STEP where the step after an episode's last one only resets.
        threads: threads that step the simulations, 0 for all cores.

    Raises SuiteError, naming the valid choices, for an argument that the suite cannot follow.
    """

    suite: ClassVar[str]
    limits: ClassVar[str]
    """What the suite cannot do, in sentences."""
    success_counts: ClassVar[Literal["ever", "end"]] = "ever"
    """Which steps decide whether an episode succeeded, by the suite's own custom: any of them, or the last."""
    control_dt: float
    """Seconds of simulated time a control step takes; NaN where there is no time."""

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        *,
        observation: str = "flat",
        max_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        threads: int = 0,
    ):
        if num_envs < 1:
            raise SuiteError(f"num_envs = {num_envs} must be at least 1")
        if max_steps is not None and max_steps < 1:
            raise SuiteError(f"max_steps = {max_steps} must be at least 1")
        mode = AutoresetMode(autoreset_mode)
        if mode == AutoresetMode.DISABLED:
            raise SuiteError(f"{self.suite} cannot leave an ended episode standing: use SameStep or NextStep")
        self.task, self.num_envs, self.threads = task, num_envs, threads or usable_cores()
        self.autoreset_mode, self.render_mode = mode, None
        self.metadata = {"autoreset_mode": mode, "render_modes": []}
        self._seed: int | Sequence[int] = int(np.random.SeedSequence().entropy) % (1 << 62)  # type: ignore[operator]
        if observation not in OBSERVATIONS:
            raise SuiteError(f"unknown observation '{observation}'; valid: {', '.join(OBSERVATIONS)}")
        theirs, actions, self.max_steps = self._open(max_steps)
        if observation == "dict" and not isinstance(theirs, gym.spaces.Dict):
            raise SuiteError(f"{self.suite}'s observations are no dictionary; valid: flat")
        self.observation_kind = observation
        flat = gym.spaces.Box(-np.inf, np.inf, (flat_size(theirs),), np.float32)
        self.single_observation_space = theirs if observation == "dict" else flat
        self._fresh = np.zeros(num_envs, np.bool_)  # next-step mode: to be reset by the next step
        self._low = self._high = None
        if isinstance(actions, gym.spaces.Box):
            self._low, self._high = actions.low.astype(np.float64), actions.high.astype(np.float64)
            actions = gym.spaces.Box(-1.0, 1.0, actions.shape, np.float32)
        self.single_action_space = actions
        self.action_space = batch_space(actions, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    # -- what a suite says ---------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def task_ids(cls) -> dict[str, str]:
        """Task -> the id it has in its own library. MissingLibraryError without the library."""

    @abstractmethod
    def _open(self, max_steps: int | None) -> tuple[gym.Space, gym.Space, int]:
        """Readies the library: one slot's observation and action space as the suite has them, and the step limit."""

    @abstractmethod
    def _reset(self, slots: np.ndarray, seeds: Sequence[int] | None) -> Any:
        """Begins new episodes in ``slots``; their observations. ``seeds`` (one a slot, all slots) restart chance."""

    @abstractmethod
    def _step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of all slots: observations, rewards, terminations, truncations, info with ``success`` bool[n]."""

    def versions(self) -> dict[str, str]:
        """The libraries whose physics and tasks these are, with their versions."""
        return {}

    # -- gymnasium -----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None):
        """Starts new episodes; observations [n, …] and info with ``success`` bool[n], False.

        A ``seed`` fixes what every slot's episodes begin with, from here on; a sequence gives each slot its own.
        ``options``: ``reset_mask`` bool[n] resets only those slots (not together with a seed).
        """
        options = options or {}
        unknown = set(options) - {"reset_mask"}
        if unknown:
            raise SuiteError(f"unknown reset option '{sorted(unknown)[0]}'; valid: reset_mask")
        mask = options.get("reset_mask")
        if seed is not None and mask is not None:
            raise SuiteError("a seed begins all slots anew; give either a seed or a reset_mask")
        first = not hasattr(self, "_observation")
        if seed is not None or first:
            self._seed = self._seed if seed is None else seed
            self._fresh[:] = False
            self._observation = self._seen(self._reset(np.arange(self.num_envs), self._seeds()))
        else:
            slots = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
            self._fresh[slots] = False
            if slots.size:
                self._observation = _put(self._observation, slots, self._seen(self._reset(slots, None)))
        return self._observation, {"success": np.zeros(self.num_envs, np.bool_)}

    def step(self, actions: np.ndarray):
        """One control step; actions float[n, A] in [-1, 1], clipped and scaled to the suite's range, or int[n].

        Returns observations, rewards float64[n], terminations, truncations bool[n], info: ``success`` bool[n], also
        true at an episode's last step; in same-step mode ``final_obs`` [n, …] and ``_final_obs`` bool[n] mark ended
        slots. Raises SuiteError for actions of another shape or that are not finite.
        """
        if not hasattr(self, "_observation"):
            raise SuiteError("step before the first reset")
        observation, reward, terminated, truncated, info = self._step(self._checked(actions))
        observation = self._seen(observation)
        # next-step mode: a step that only resets earns nothing, which not every suite sees to
        reward = np.where(self._fresh, 0.0, reward).astype(np.float64)
        info["success"] &= ~self._fresh
        done = terminated | truncated
        self._fresh[:] = done if self.autoreset_mode == AutoresetMode.NEXT_STEP else False
        if done.any() and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info["final_obs"], info["_final_obs"] = observation, done
            over = np.flatnonzero(done)
            observation = _put(observation, over, self._seen(self._reset(over, None)))
        self._observation = observation
        return observation, reward, terminated, truncated, info

    # -- inside --------------------------------------------------------------------------------------------------

    def _seeds(self) -> list[int]:
        """Every slot's seed: its own if a sequence was given, else drawn by (seed, slot)."""
        if isinstance(self._seed, int | np.integer):
            return slot_seeds(int(self._seed), self.num_envs)
        if len(self._seed) != self.num_envs:
            raise SuiteError(f"{len(self._seed)} seeds for {self.num_envs} slots; give one, or one a slot")
        return [int(seed) for seed in self._seed]

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions in the suite's own range."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise SuiteError(f"actions have shape {actions.shape}; {self.suite}/{self.task} takes {self.action_space}")
        if self._low is None or self._high is None:
            if not self.action_space.contains(actions.astype(self.action_space.dtype)):
                raise SuiteError(f"an action is none of {self.single_action_space}")
            return actions
        if not np.isfinite(actions).all():
            raise SuiteError("an action is not finite")
        return self._low + (np.clip(actions, -1.0, 1.0) + 1.0) / 2 * (self._high - self._low)

    def _seen(self, observation: Any) -> Any:
        """A batch of the suite's observations in the declared space."""
        if self.observation_kind == "flat":
            return flatten(observation)
        space = self.observation_space
        assert isinstance(space, gym.spaces.Dict)
        return {key: np.asarray(observation[key], part.dtype) for key, part in space.items()}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slot_seeds(seed: int, slots: int) -> list[int]:
    """A seed in [0, 2^31) for each slot, drawn by (seed, slot): unlike seed + slot, no two seeds share a stream."""
    words = (np.random.SeedSequence(seed, spawn_key=(slot,)) for slot in range(slots))
    return [int(word.generate_state(1)[0] >> np.uint32(1)) for word in words]


def flat_size(space: gym.Space) -> int:
    """Numbers in one observation laid out flat."""
    if isinstance(space, gym.spaces.Dict):
        return sum(flat_size(space[key]) for key in sorted(space))
    return int(np.prod(space.shape or (1,)))


def flatten(observation: Any) -> np.ndarray:
    """A batch of observations as float32[n, size], a dictionary's entries in the order of their keys."""
    if isinstance(observation, Mapping):
        return np.concatenate([flatten(observation[key]) for key in sorted(observation)], axis=1)
    return np.asarray(observation).reshape(len(observation), -1).astype(np.float32)


def _put(batch: Any, slots: np.ndarray, rows: Any) -> Any:
    """A copy of a batch with ``rows`` in the place of ``slots``."""
    if isinstance(batch, Mapping):
        return {key: _put(value, slots, rows[key]) for key, value in batch.items()}
    batch = np.array(batch)
    batch[slots] = rows
    return batch
