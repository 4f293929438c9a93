"""Other simulators of robot arms, run as fast as they go here: what our own speed is read beside.

A unit that compares worlds with different control rates is *simulated robot-seconds a wall second*: environment steps
a second times the seconds a control step takes. Actions are random, episodes are reset as they end, and observations,
rewards and success are computed, as a learner would have it. Each peer runs in its library's own fastest way, not
through our adapters: pools with a thread a core, all slots at once (their asynchronous mode was no faster on two cores,
and would go on computing while others are timed), single environments in as many processes as there are cores.

``peers()`` gives those that are installed, each advancing by one batch a call, so that a benchmark can let them and
our own simulation take turns; ``measure`` does that alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import cycle
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import TimeLimit

from envs.suites import MissingLibraryError, library
from envs.suites.adapter import usable_cores

__all__ = ["PEERS", "Peer", "measure", "missing", "peers"]

SLICE = 0.5  # seconds that one peer runs before the next one has its turn
_DRAWN = 64  # batches of random actions, drawn beforehand


class Peer(Protocol):
    """One simulator at work. ``way`` says how it is run, ``control_dt`` is in simulated seconds."""

    way: str
    control_dt: float
    versions: dict[str, str]

    def advance(self) -> int:
        """One batch step with random actions; gives the environment steps taken."""
        ...

    def close(self) -> None:
        """Frees the simulations."""
        ...


class PoolPeer:
    """An envpool task: ``num_envs`` slots a call, a thread a core; ended slots are reset by the next call."""

    def __init__(self, task: str, control_dt: float, num_envs: int = 64, threads: int = 0):
        cores = threads or usable_cores()
        pool = library("envpool").make_gymnasium(task, num_envs=num_envs, num_threads=cores, seed=0)
        self.control_dt, self.versions = control_dt, {"envpool": version("envpool")}
        self.way = f"envpool, {num_envs} slots, {cores} threads"
        space, self._pool = pool.action_space, pool
        draws = np.random.default_rng(0).uniform(space.low, space.high, (_DRAWN, num_envs, *space.shape))
        self._actions = cycle(draws.astype(np.float32))
        self._pool.reset()

    def advance(self) -> int:
        info = self._pool.step(next(self._actions))[-1]
        return int(np.count_nonzero(info["elapsed_step"]))  # a slot that was reset has taken no step

    def close(self) -> None:
        self._pool.close()


class OGBenchPeer:
    """OGBench, which has no vector environment of its own, in ``num_envs`` processes, one a core."""

    def __init__(self, name: str = "cube-single-v0", num_envs: int = 0):
        self.versions = {name: version(name) for name in ("ogbench", "mujoco", "gymnasium")}
        num_envs = num_envs or usable_cores()
        self.way = f"gymnasium's AsyncVectorEnv, {num_envs} processes"
        self._env = AsyncVectorEnv(
            [_Make(name)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP, context="spawn"
        )  # fmt: skip
        self.control_dt = float(self._env.get_attr("control_dt")[0])
        self._env.reset(seed=0)
        self._env.action_space.seed(0)
        self._actions = cycle([self._env.action_space.sample() for _ in range(_DRAWN)])

    def advance(self) -> int:
        self._env.step(next(self._actions))
        return self._env.num_envs

    def close(self) -> None:
        self._env.close()


class _Make:
    """Makes one environment in its own process."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self) -> gym.Env:
        from envs.suites.ogbench import single

        env = single(self.name)  # imports OGBench, which registers its environments
        return _Lean(TimeLimit(env, gym.spec(self.name).max_episode_steps or 1))


class _Lean(gym.Wrapper):
    """Sends nothing between the processes but what a learner needs: OGBench's info is large."""

    @property
    def control_dt(self) -> float:
        return self.unwrapped.control_timestep()  # type: ignore[attr-defined]

    def reset(self, **kwargs: Any):
        return self.env.reset(**kwargs)[0], {}

    def step(self, action: Any):
        *found, info = self.env.step(action)
        return *found, {"success": info["success"]}


PEERS: dict[str, Callable[[], Peer]] = {
    "gymnasium-robotics Fetch pick-and-place": lambda: PoolPeer("FetchPickAndPlace-v4", 20 * 0.002),
    "Meta-World pick-place": lambda: PoolPeer("MetaWorld/PickPlace-v3", 5 * 0.0025),
    "OGBench cube-single": OGBenchPeer,
}
"""Name -> what starts it."""
_NEEDS = {name: "ogbench" if name.startswith("OGBench") else "envpool" for name in PEERS}


def peers() -> dict[str, Peer]:
    """Every peer that is installed, started. Close each when done; those that are not are in `missing`."""
    absent = missing()
    return {name: start() for name, start in PEERS.items() if name not in absent}


def missing() -> dict[str, str]:
    """The peers that are not installed, with the sentence that says what to install."""
    found = {}
    for name, needed in _NEEDS.items():
        try:
            library(needed)
        except MissingLibraryError as error:
            found[name] = str(error)
    return found


def measure(seconds: float = 5.0, warmup: float = 2.0) -> list[dict[str, Any]]:
    """Every installed peer's speed: slices taking turns, ``seconds`` each, after ``warmup`` seconds that do not count.

    One plain dict a peer: name, way, env_steps_per_second, control_dt, robot_seconds_per_second, versions.
    """
    running = peers()
    try:
        _race(running, warmup)
        rates = _race(running, seconds)
    finally:
        for peer in running.values():
            peer.close()
    return [
        {
            "name": name, "way": peer.way, "env_steps_per_second": rates[name], "control_dt": peer.control_dt,
            "robot_seconds_per_second": rates[name] * peer.control_dt, "versions": peer.versions,
        }
        for name, peer in running.items()
    ]  # fmt: skip


def _race(running: Mapping[str, Peer], seconds: float) -> dict[str, float]:
    """Environment steps a second of each, in turns."""
    count, spent = dict.fromkeys(running, 0), dict.fromkeys(running, 0.0)
    while spent and min(spent.values()) < seconds:
        for name, peer in running.items():
            begin = time.perf_counter()
            while (elapsed := time.perf_counter() - begin) < min(SLICE, seconds):
                count[name] += peer.advance()
            spent[name] += elapsed
    return {name: count[name] / spent[name] for name in running}
