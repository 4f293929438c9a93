"""Batched physics: n simulations of one model on ``mujoco.batch``'s C++ threads, with live array views.

Adds to the batch what an environment needs: full states in one vector, and telling which simulations went bad without
stopping the others.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import mujoco
import numpy as np
from mujoco import batch

__all__ = ["Simulation"]

_NONE = int(mujoco.mjtStage.mjSTAGE_NONE)
_BAD = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1)
_FEW = 96  # simulations a thread below which sharing them out costs more than it gains


class Simulation:
    """n simulations. Live views: qpos [n, nq], qvel [n, nv], ctrl [n, nu], time [n]. There are no sensors: what an
    environment looks at is computed from qpos and qvel, which saves a forward pass after every step."""

    def __init__(self, model: mujoco.MjModel, n: int, threads: int = 0):
        self.model, self.n = model, n
        # Sleeping needs an MjData a simulation; without it one a thread serves them all, and stays in its cache.
        asleep = bool(model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_SLEEP))
        self.batch = batch.Batch(model, n, threads, persistent=asleep)
        self.qpos = self.batch.bind("qpos")
        self.qvel = self.batch.bind("qvel")
        self.ctrl = self.batch.bind("ctrl")
        self.time = self.batch.bind("time")
        self.warmstart = self.batch.bind("qacc_warmstart")
        self.threads = int(self.batch.nthread)
        parts = max(1, min(self.threads, n // _FEW))
        edges = np.linspace(0, n, parts + 1).astype(int).tolist()
        self._parts = list(pairwise(edges))
        self._helpers = ThreadPoolExecutor(parts - 1, "settle") if parts > 1 else None
        self._fields = (self.qpos, self.qvel, self.ctrl, self.warmstart)
        self.state_size = sum(field.shape[1] for field in self._fields)

    def step(self, substeps: int) -> np.ndarray | None:
        """Advances all by ``substeps`` physics steps; ids of simulations that went bad, or None."""
        try:
            self.batch.step(nstep=substeps, stage=_NONE)
        except batch.SimulationError as error:
            return np.asarray(error.ids)
        counts = self.batch.warning[:, _BAD, 1]
        return np.flatnonzero(counts.any(axis=1)) if counts.any() else None

    def share(self, work: Callable[..., None], *args: Any) -> None:
        """Runs ``work(low, high, *args)`` over all simulations, a part a thread; it must not hold the GIL."""
        (first, *others) = self._parts
        running = [self._helpers.submit(work, *part, *args) for part in others] if self._helpers else []
        work(*first, *args)
        for part in running:
            part.result()

    def close(self) -> None:
        """Ends the threads of `share`."""
        if self._helpers:
            self._helpers.shutdown()

    def clear(self, ids: np.ndarray) -> None:
        """Resets simulations ``ids`` to the model's defaults (warm start, controls, time and warnings too)."""
        self.batch.reset(ids.astype(np.int32), stage=_NONE)
        self.batch.warning[ids] = 0

    def get_state(self, ids: np.ndarray) -> np.ndarray:
        """Copies of the states, float64[len(ids), state_size]: qpos, qvel, ctrl, warm start."""
        return np.concatenate([field[ids] for field in self._fields], axis=1)

    def set_state(self, ids: np.ndarray, states: np.ndarray) -> None:
        """Writes states from `get_state`; call `clear` before."""
        at = 0
        for field in self._fields:
            field[ids] = states[:, at : at + field.shape[1]]
            at += field.shape[1]
