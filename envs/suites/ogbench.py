"""OGBench's manipulation: a UR5e arm with cubes, a scene of drawer, window and lockable buttons, and button puzzles.

``cube-single``, ``scene``, ``puzzle-3x3`` … draw one of five goals each episode; observations have two parts,
``observation`` and ``goal``, an observation of the same kind made at the goal (flat: goal first). ``…-singletask`` and
``…-singletask-task1`` to ``task5`` keep one goal, whose observations hold no goal. Actions (5): three steps of the
gripper (5 cm at most), a turn and its opening. An episode ends when all that the goal names is done.

OGBench draws the goal from numpy's global stream and two random steps of each reset from the operating system's, so
that its own reset(seed=…) does not fix an episode. Here a reset is given both by (seed, slot, that slot's episode
count), and the global stream is left as it was.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from envs.suites import SuiteError, library
from envs.suites.adapter import SuiteVectorEnv

__all__ = ["GOALS", "OGBenchVectorEnv", "global_stream", "single"]

GOALS = 5
"""How many goals each of OGBench's tasks has."""


class OGBenchVectorEnv(SuiteVectorEnv):
    """n copies of an OGBench manipulation task, stepped one after the other; see the module.

    Args:
        threads: taken for the other suites' sake; OGBench's Python steps on one thread.
        goals: numbers of goals (1 to 5) that slots keep, the slots taking them in turn; none: drawn each episode.
    """

    suite = "ogbench"
    limits = (
        "OGBench is written in Python: its simulations are stepped one after the other on one thread. Only its "
        "manipulation tasks with state observations are here, no pictures and no data sets. …-singletask judges the "
        "state before an action, so that their success flag and their end come one step late."
    )

    def __init__(self, task: str, num_envs: int = 1, *, goals: Sequence[int] = (), **arguments: Any):
        if not all(1 <= goal <= GOALS for goal in goals) or (goals and "singletask" in task):
            raise SuiteError(f"goals = {list(goals)}: those of {task} are 1 to {GOALS}, of …-singletask none")
        self._kept = tuple(goals)
        super().__init__(task, num_envs, **arguments)

    @classmethod
    def task_ids(cls) -> dict[str, str]:
        library("ogbench.manipspace")
        pattern = re.compile(r"((?:cube|scene|puzzle)[a-z0-9-]*)-v0")
        return {found[1]: name for name in gym.registry if (found := pattern.fullmatch(name))}

    def _open(self, max_steps: int | None) -> tuple[gym.Space, gym.Space, int]:
        name = self.task_ids()[self.task]
        spec = gym.spec(name)
        self.envs = [single(name) for _ in range(self.num_envs)]
        self._steps, self._turn = np.zeros(self.num_envs, int), np.zeros(self.num_envs, int)
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._words = [0] * self.num_envs
        self._has_goal = "reward_task_id" not in spec.kwargs
        with global_stream(0):
            theirs, actions = self.envs[0].observation_space, self.envs[0].action_space
        self._goals = np.zeros((self.num_envs, *(theirs.shape if self._has_goal else ())))  # type: ignore[misc]
        self.control_dt = self.envs[0].control_timestep()
        if self._has_goal:
            theirs = gym.spaces.Dict({"observation": theirs, "goal": theirs})
        self.infos: list[dict[str, Any]] = [{} for _ in self.envs]
        return theirs, actions, max_steps or int(spec.max_episode_steps or 0)

    def _reset(self, slots: np.ndarray, seeds: Sequence[int] | None) -> Any:
        if seeds is not None:
            self._words, self._turn[:] = list(seeds), -1
        found = []
        for slot in slots:
            self._turn[slot] += 1
            self._steps[slot], self._ended[slot] = 0, False
            word = np.random.SeedSequence(self._words[slot], spawn_key=(int(self._turn[slot]),)).generate_state(2)
            env = self.envs[slot]
            with global_stream(int(word[0])):
                env.action_space.seed(int(word[1]))
                kept = {"task_id": self._kept[slot % len(self._kept)]} if self._kept else {}
                observation, self.infos[slot] = env.reset(seed=int(word[1]), options=kept)
            if self._has_goal:
                self._goals[slot] = self.infos[slot]["goal"]
            found.append(observation)
        return self._with_goals(np.stack(found), slots)

    def _step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        n = self.num_envs
        reward, success = np.zeros(n), np.zeros(n, np.bool_)
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        slots, found = np.arange(n), []
        for slot, env in enumerate(self.envs):
            if self._ended[slot]:  # next-step mode: this step only resets
                found.append(self._raw(self._reset(slots[slot : slot + 1], None)))
                continue
            observation, reward[slot], terminated[slot], truncated[slot], info = env.step(actions[slot])
            self.infos[slot], success[slot] = info, info["success"]
            self._steps[slot] += 1
            truncated[slot] |= self._steps[slot] >= self.max_steps and not terminated[slot]
            self._ended[slot] = terminated[slot] or truncated[slot]
            found.append(observation)
        return self._with_goals(np.stack(found), slots), reward, terminated, truncated, {"success": success}

    def _with_goals(self, observation: np.ndarray, slots: np.ndarray) -> Any:
        return {"observation": observation, "goal": self._goals[slots]} if self._has_goal else observation

    def _raw(self, batch: Any) -> np.ndarray:
        return (batch["observation"] if self._has_goal else batch)[0]

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("ogbench", "mujoco", "dm_control")}

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()

    def expert(self) -> Any:
        """OGBench's scripted oracles on its cubes and puzzles: `envs.suites.oracles`. SuiteError for another task."""
        from envs.suites.oracles import OGBenchExpert

        return OGBenchExpert(self)


def single(name: str, **changes: Any) -> Any:
    """One OGBench environment (no step limit), whose action space is one object, which can be seeded.

    ``changes`` are arguments of OGBench's own that differ from those registered.
    OGBench makes a new space at each look, seeded by chance, with float64 bounds of which gymnasium warns.
    """
    library("ogbench.manipspace")
    spec = gym.spec(name)

    class Reproducible(load_env_creator(spec.entry_point)):  # type: ignore[arg-type, misc]
        @property
        def action_space(self) -> gym.Space:
            if "_one_action_space" not in self.__dict__:
                self._one_action_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
            return self._one_action_space

    return Reproducible(**(spec.kwargs | changes))


@contextlib.contextmanager
def global_stream(seed: int) -> Iterator[None]:
    """numpy's global stream seeded meanwhile, and left as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
