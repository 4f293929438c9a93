"""OGBench's scripted oracles as an expert on its cubes and puzzles, from privileged knowledge: what its world allows.

OGBench's oracles each do one thing: put a cube down, or press a button. Here they take turns: as long as the goal is
not reached, the next thing it asks for is given to its oracle. The scene, whose drawer and window have to be unlocked
and opened in the right order, has no expert here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.suites import SuiteError, library

if TYPE_CHECKING:
    from envs.suites.ogbench import OGBenchVectorEnv

__all__ = ["OGBenchExpert", "presses"]

_NEAR = 0.035  # m, nearer than OGBench asks for (0.04)
_STEPS = 120  # control steps that one oracle is given before the goal is looked at anew
_RAISED = 0.16  # m, the height from which the gripper can travel
_MARKOV = "ogbench.manipspace.oracles.markov"


@dataclass
class _Job:
    """One thing to do: a cube (by index) to a place, or a button to a state."""

    index: int
    wanted: Any
    steps: int = 0


class OGBenchExpert:
    """Acts on an `OGBenchVectorEnv`; call it with observations and bool[n], True where an episode begins.

    Raises SuiteError for a task it cannot do.
    """

    def __init__(self, env: OGBenchVectorEnv):
        self.env, self._puzzle = env, env.task.startswith("puzzle")
        if not self._puzzle and not env.task.startswith("cube"):
            raise SuiteError(f"ogbench/{env.task} has no expert; ogbench's cube-… and puzzle-… have")
        self._jobs: list[_Job | None] = [None] * env.num_envs
        if self._puzzle:
            kind = library(f"{_MARKOV}.button_markov").ButtonMarkovOracle
        else:
            kind = library(f"{_MARKOV}.cube_markov").CubeMarkovOracle
        self._oracles = [kind(env=one) for one in env.envs]

    def __call__(self, observation: Any, begins: np.ndarray) -> np.ndarray:
        """Actions float32[n, 5] in [-1, 1]."""
        actions = np.zeros((self.env.num_envs, 5), np.float32)
        for slot, (one, oracle) in enumerate(zip(self.env.envs, self._oracles, strict=True)):
            info = self.env.infos[slot]
            job = None if begins[slot] else self._jobs[slot]
            if job is None or job.steps >= _STEPS or self._settled(info, job):
                job = self._jobs[slot] = self._next(one, info)
                # where the gripper goes when it is done, which an oracle would draw by chance: up, without turning
                oracle._done, oracle._step = False, 0
                oracle._final_pos = np.mean(one._arm_sampling_bounds, axis=0)
                oracle._final_yaw = float(info["proprio/effector_yaw"][0])
            if job is not None:
                job.steps += 1
                actions[slot] = oracle.select_action(None, info | self._wish(one, job))
        return actions

    def _next(self, env: Any, info: dict[str, Any]) -> _Job | None:
        """What the goal asks for next: the fewest presses, or the cube whose place is lowest."""
        if self._puzzle:
            states = np.asarray(info["button_states"])
            buttons = presses(env._num_rows, env._num_cols, (env._target_button_states - states) % 2)
            return _Job(buttons[0], 1 - states[buttons[0]]) if buttons else None
        places = [env._data.mocap_pos[k].copy() for k in env._cube_target_mocap_ids]
        far = [np.linalg.norm(info[f"privileged/block_{i}_pos"] - place) > _NEAR for i, place in enumerate(places)]
        wrong = sorted(np.flatnonzero(far), key=lambda i: places[i][2])
        return _Job(int(wrong[0]), places[wrong[0]]) if wrong else None

    def _settled(self, info: dict[str, Any], job: _Job) -> bool:
        """Whether a job is done and the gripper out of the way."""
        if info["proprio/effector_pos"][2] < _RAISED:
            return False
        if self._puzzle:
            return bool(info["button_states"][job.index] == job.wanted)
        gap = np.linalg.norm(info[f"privileged/block_{job.index}_pos"] - job.wanted)
        return bool(gap <= _NEAR and info["proprio/gripper_contact"][0] < 0.1)

    def _wish(self, env: Any, job: _Job) -> dict[str, Any]:
        """A job in the words that OGBench's oracles read."""
        if self._puzzle:
            top = env._data.site_xpos[env._button_site_ids[job.index]].copy()
            wish = {"button": job.index, "button_state": job.wanted, "button_top_pos": top}
        else:
            wish = {"block": job.index, "block_pos": job.wanted, "block_yaw": np.zeros(1)}
        return {f"privileged/target_{name}": value for name, value in wish.items()}


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
