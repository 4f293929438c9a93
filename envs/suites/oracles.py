"""OGBench's scripted oracles as an expert on its tasks, from privileged knowledge: what the suite's world allows.

OGBench's oracles each do one thing (put a block down, press a button, move the drawer or the window). Here they take
turns: as long as the goal is not reached, the next thing it asks for that can be done now is given to its oracle.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.suites import library

if TYPE_CHECKING:
    from envs.suites.ogbench import OGBenchVectorEnv

__all__ = ["OGBenchExpert", "presses"]

_NEAR = 0.035  # m, nearer than OGBench asks for (0.04)
_STEPS = 120  # control steps that one oracle is given before the goal is looked at anew
_MARKOV = "ogbench.manipspace.oracles.markov"
_ORACLES = {"block": "CubeMarkovOracle", "button": "ButtonMarkovOracle", "drawer": "DrawerMarkovOracle",
            "window": "WindowMarkovOracle"}  # fmt: skip
_MODULES = {"block": "cube_markov", "button": "button_markov", "drawer": "drawer_markov", "window": "window_markov"}
_RAISED = 0.16  # m, the height from which the gripper can travel


@dataclass
class _Job:
    """One thing to do: what kind, which one, and what is wanted (a place, a state or a position)."""

    kind: str
    index: int
    wanted: Any
    steps: int = 0


class OGBenchExpert:
    """Acts on an `OGBenchVectorEnv`; call it with observations and bool[n], True where an episode begins."""

    def __init__(self, env: OGBenchVectorEnv):
        self.env = env
        self._jobs: list[_Job | None] = [None] * env.num_envs
        kinds = {kind: getattr(library(f"{_MARKOV}.{_MODULES[kind]}"), name) for kind, name in _ORACLES.items()}
        self._oracles = [{kind: oracle(env=one) for kind, oracle in kinds.items()} for one in env.envs]

    def __call__(self, observation: Any, begins: np.ndarray) -> np.ndarray:
        """Actions float32[n, 5] in [-1, 1]."""
        actions = np.zeros((self.env.num_envs, 5), np.float32)
        for slot, one in enumerate(self.env.envs):
            info = self.env.infos[slot]
            job = None if begins[slot] else self._jobs[slot]
            if job is None or job.steps >= _STEPS or _settled(one, info, job):
                job = self._jobs[slot] = next(_jobs(one, info), None)
                if job is not None:
                    oracle = self._oracles[slot][job.kind]
                    oracle.reset(None, info)
                    oracle._final_pos = np.mean(one._arm_sampling_bounds, axis=0)  # drawn by chance otherwise
                    oracle._final_yaw = 0.0
            if job is not None:
                job.steps += 1
                actions[slot] = self._oracles[slot][job.kind].select_action(None, info | _wish(one, info, job))
        return actions


def _jobs(env: Any, info: dict[str, Any]):
    """What the goal still asks for, in an order in which it can be done."""
    states = info.get("button_states", np.zeros(0, int))
    grid = hasattr(env, "_num_rows")  # a puzzle: a button changes its neighbours too
    if grid:
        change = (env._target_button_states - states) % 2
        for index in presses(env._num_rows, env._num_cols, change):
            yield _Job("button", int(index), 1 - states[index])
        return
    blocks = [np.asarray(info[f"privileged/block_{i}_pos"]) for i in range(env._num_cubes)]
    places = [env._data.mocap_pos[k].copy() for k in env._cube_target_mocap_ids]
    wrong = [i for i in range(env._num_cubes) if np.linalg.norm(blocks[i] - places[i]) > _NEAR]
    if hasattr(env, "_target_drawer_pos"):
        drawer, window = float(info["privileged/drawer_pos"][0]), float(info["privileged/window_pos"][0])
        inside = any(blocks[i][2] > 0.05 or places[i][2] > 0.05 for i in wrong)  # the drawer's floor is raised
        for_blocks = -0.16 if inside and drawer > -0.12 else None
        if for_blocks is not None or abs(drawer - env._target_drawer_pos) > 0.03:
            if states[0] == 0:  # locked
                yield _Job("button", 0, 1)
            if for_blocks is not None:
                yield _Job("drawer", 0, for_blocks)
    yield from (_Job("block", i, places[i]) for i in sorted(wrong, key=lambda i: places[i][2]))
    if hasattr(env, "_target_drawer_pos"):
        if abs(drawer - env._target_drawer_pos) > 0.03:
            yield _Job("drawer", 0, env._target_drawer_pos)
        if abs(window - env._target_window_pos) > 0.03:
            if states[1] == 0:
                yield _Job("button", 1, 1)
            yield _Job("window", 0, env._target_window_pos)
        for index in np.flatnonzero(states != env._target_button_states):
            yield _Job("button", int(index), env._target_button_states[index])


def _settled(env: Any, info: dict[str, Any], job: _Job) -> bool:
    """Whether a job is done and the gripper out of the way."""
    if info["proprio/effector_pos"][2] < _RAISED:
        return False
    if job.kind == "block":
        gap = np.linalg.norm(info[f"privileged/block_{job.index}_pos"] - job.wanted)
        return bool(gap <= _NEAR and info["proprio/gripper_contact"][0] < 0.1)
    if job.kind == "button":
        return bool(info["button_states"][job.index] == job.wanted)
    return bool(abs(float(info[f"privileged/{job.kind}_pos"][0]) - job.wanted) <= 0.012)


def _wish(env: Any, info: dict[str, Any], job: _Job) -> dict[str, Any]:
    """A job in the words that OGBench's oracles read."""
    if job.kind == "block":
        return {
            "privileged/target_block": job.index, "privileged/target_block_pos": job.wanted,
            "privileged/target_block_yaw": np.zeros(1),
        }  # fmt: skip
    if job.kind == "button":
        return {
            "privileged/target_button": job.index, "privileged/target_button_state": job.wanted,
            "privileged/target_button_top_pos": env._data.site_xpos[env._button_site_ids[job.index]].copy(),
        }  # fmt: skip
    handle = np.array(info[f"privileged/{job.kind}_handle_pos"])
    handle[1 if job.kind == "drawer" else 0] += job.wanted - float(info[f"privileged/{job.kind}_pos"][0])
    return {f"privileged/target_{job.kind}_handle_pos": handle}


def presses(rows: int, columns: int, change: np.ndarray) -> list[int]:
    """The fewest buttons to press so that those of ``change`` int[rows·columns] (0 or 1) change, in rising order.

    A press changes a button and its neighbours. Every first row is tried (2^columns of them): the row above decides
    each later one, as only the button below can still put a button right. Empty where nothing has to or can be done.
    """
    best: list[int] | None = None
    for first in itertools.product((0, 1), repeat=columns):
        left = np.array(change, int).reshape(rows, columns) % 2
        pressed = np.zeros((rows, columns), int)
        for row in range(rows):
            pressed[row] = first if row == 0 else left[row - 1]
            for column in np.flatnonzero(pressed[row]):
                for r, c in ((row, column), (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                    if 0 <= r < rows and 0 <= c < columns:
                        left[r, c] ^= 1
        found = np.flatnonzero(pressed).tolist()
        if not left.any() and (best is None or len(found) < len(best)):
            best = found
    return best or []
