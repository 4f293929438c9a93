"""Speed of a world against the limit that physics alone sets on this machine.

*Environment*: control steps a second of a native world with random actions, and with all that a learner gets:
observations, rewards, judging, same-step resets.

*Limit*: how many it would be if nothing but ``mj_step`` were run, on every thread. The environment is run with random
actions and its motor commands are noted; then ``mujoco.rollout`` replays the same starts with the same commands in C on
one thread, with the same model and sleep off: exactly the physics of those control steps, no Python between them. The
limit is that rate times the number of threads, as if threads never got in each other's way. The same replay on all
threads at once is measured too: what this machine really gives them at that time.

The windows of a repeat are cut into slices that take turns, so that a drift of the machine's speed falls on all of
them. A ratio is the median over the repeats; its interval is from the smallest to the largest repeat, which holds the
true median with probability 1 - 2^(1 - repeats), 94 % at five repeats. Measure on a machine that does nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import cycle
from typing import Any

import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from mujoco import rollout

from envs.registry import make_vector

__all__ = ["BenchError", "Replay", "environment_rate", "race", "simulation", "stepper"]

WARMUP = 32  # control steps before anything is timed: compiling, first contacts
LENGTH = 120  # control steps of a replayed trajectory, as long as an episode
SLICE = 0.25  # seconds that one of the workloads runs before the next one has its turn
GROUP = 8  # trajectories a call
ACTIONS = 64  # batches of random actions, drawn beforehand
METHOD = (
    "environment steps/s with random actions over (threads x mj_step/s of one thread, replaying such starts and "
    "commands in C) / physics steps a control step; sleep off, the windows' slices take turns, median of the repeats; "
    "ratio_all_threads is over the same replay on all threads at once"
)


class BenchError(ValueError):
    """A measurement was asked for that says nothing; the sentence says what is needed."""


def simulation(
    seconds: float = 5.0, repeats: int = 5, num_envs: int = 128, threads: int = 0, world: str = "tabletop"
) -> dict[str, Any]:
    """Measures a native world's simulation; ``seconds`` a window, four windows a repeat.

    Returns, ready for JSON: ``ratio`` (environment over limit, sleep off), ``ratio_all_threads`` (over the replay on
    all threads), ``sleep_factor`` (environment with sleep over without), each with its ``…_interval``;
    ``steps_per_second`` and ``raw_steps_per_second`` (medians, control steps); and under what conditions: ``repeats``,
    ``num_envs``, ``threads``, ``seconds``, ``world``, ``control_hz``, ``timestep``, ``method``, ``versions``. Raises
    BenchError for windows or repeats that are not positive.
    """
    if seconds <= 0 or repeats < 1 or num_envs < 1:
        raise BenchError(
            f"{repeats} repeats of {seconds} s with {num_envs} simulations measure nothing; all must be above zero"
        )
    plain = _environment(num_envs, threads, False, world)
    asleep = _environment(num_envs, threads, True, world)
    replay = Replay(num_envs, threads, world=world)
    cores = plain.simulation.threads
    workloads = {
        "environment": stepper(plain),
        "limit": replay.advance,
        "all threads": replay.advance_all,
        "sleep": stepper(asleep),
    }
    windows = [race(workloads, seconds) for _ in range(repeats)]
    plain.close()
    asleep.close()
    rates = {name: np.array([window[name] for window in windows]) for name in workloads}
    rates["limit"] *= cores
    ratio, factor = rates["environment"] / rates["limit"], rates["sleep"] / rates["environment"]
    parallel = rates["environment"] / rates["all threads"]
    return {
        "ratio": float(np.median(ratio)),
        "ratio_interval": [float(ratio.min()), float(ratio.max())],
        "ratio_all_threads": float(np.median(parallel)),
        "ratio_all_threads_interval": [float(parallel.min()), float(parallel.max())],
        "repeats": repeats,
        "steps_per_second": float(np.median(rates["environment"])),
        "raw_steps_per_second": float(np.median(rates["limit"])),
        "sleep_factor": float(np.median(factor)),
        "sleep_factor_interval": [float(factor.min()), float(factor.max())],
        "num_envs": num_envs,
        "threads": cores,
        "seconds": seconds,
        "world": world,
        "control_hz": plain.metadata["render_fps"],
        "timestep": plain.simulation.model.opt.timestep,
        "method": METHOD,
        "versions": {name: version(name) for name in ("mujoco", "numba", "numpy", "gymnasium")},
    }


def environment_rate(env: Any, seconds: float) -> float:
    """Environment steps a second of ``env`` (all its slots) with random actions, over about ``seconds``."""
    return race({"environment": stepper(env)}, seconds)["environment"]


def stepper(env: VectorEnv, seed: int = 0) -> Callable[[], int]:
    """Advances an environment by one batch of random actions; gives the control steps taken."""
    shape = (ACTIONS, *env.action_space.shape)  # type: ignore[misc]
    actions = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    turn = cycle(actions)

    def advance() -> int:
        env.step(next(turn))
        return env.num_envs

    return advance


def race(workloads: Mapping[str, Callable[[], int]], seconds: float) -> dict[str, float]:
    """Steps a second of each workload, run in turns for ``seconds`` each."""
    count, spent = dict.fromkeys(workloads, 0), dict.fromkeys(workloads, 0.0)
    while min(spent.values()) < seconds:
        for name, advance in workloads.items():
            end, begin = min(SLICE, seconds), time.perf_counter()
            while (elapsed := time.perf_counter() - begin) < end:
                count[name] += advance()
            spent[name] += elapsed
    return {name: count[name] / spent[name] for name in workloads}


class Replay:
    """The physics of random actions, noted once and replayed in C on one thread."""

    def __init__(self, num_envs: int, threads: int = 0, length: int = 0, world: str = "tabletop"):
        env: Any = make_vector(
            world, num_envs, max_steps=1 << 30, terminate_on_success=False, autoreset_mode=AutoresetMode.DISABLED,
            threads=threads, sleep=False,
        )  # fmt: skip
        env.reset(seed=0)
        s = env.simulation
        self.model, self.length = s.model, length or LENGTH
        self.data = mujoco.MjData(self.model)
        self.states = np.stack([self._state(q, v) for q, v in zip(s.qpos, s.qvel, strict=True)])
        self.warmstart = s.warmstart.copy()
        draws = np.random.default_rng(1)
        control = np.zeros((num_envs, self.length, self.model.nu))
        for step in range(self.length):
            env.step(draws.uniform(-1, 1, env.action_space.shape).astype(np.float32))  # type: ignore[arg-type]
            control[:, step] = s.ctrl
        self.final = s.qpos.copy()
        self.substeps = substeps_of(env)
        self.control = np.repeat(control, self.substeps, axis=1)
        env.close()
        self._next = 0
        self._alone, self._pool = rollout.Rollout(nthread=0), rollout.Rollout(nthread=s.threads)
        self._datas = [mujoco.MjData(self.model) for _ in range(s.threads)]
        shape = (self.length * self.substeps, self.states.shape[1])
        self._buffers = [np.zeros((min(GROUP * k, num_envs), *shape)) for k in (1, s.threads)]
        self.states_after = self._buffers[0]

    def _state(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        state = np.zeros(mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
        mujoco.mj_getState(self.model, self.data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        return state

    def run(self, all_threads: bool = False) -> np.ndarray:
        """Replays the next few trajectories; their indices. `states_after` then has the states after each mj_step."""
        self.states_after = self._buffers[all_threads]
        rows = (self._next + np.arange(len(self.states_after))) % len(self.states)
        self._next = int(rows[-1] + 1) % len(self.states)
        (self._pool if all_threads else self._alone).rollout(
            self.model, self._datas if all_threads else self.data, self.states[rows], self.control[rows],
            initial_warmstart=self.warmstart[rows], state=self.states_after, chunk_size=1,
        )  # fmt: skip
        return rows

    def advance(self) -> int:
        """Replays the next few trajectories on one thread; gives the control steps taken."""
        return len(self.run()) * self.length

    def advance_all(self) -> int:
        """The same on all threads."""
        return len(self.run(all_threads=True)) * self.length


def substeps_of(env: Any) -> int:
    """Physics steps a control step."""
    return round(1 / (env.metadata["render_fps"] * env.simulation.model.opt.timestep))


def _environment(num_envs: int, threads: int, sleep: bool, world: str) -> Any:
    """An environment in full swing: compiled, its slots at different ages, so that resets come at all times."""
    env: Any = make_vector(world, num_envs, threads=threads, sleep=sleep)
    env.reset(seed=0)
    env.elapsed[:] = np.random.default_rng(0).integers(0, env.max_steps, num_envs)
    draws = np.random.default_rng(2)
    for _ in range(WARMUP):
        env.step(draws.uniform(-1, 1, env.action_space.shape).astype(np.float32))  # type: ignore[arg-type]
    return env
