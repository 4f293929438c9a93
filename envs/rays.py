"""Buffers of rays, and how some of them are handed to MuJoCo and their answers put back (see `envs.raycast`)."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["UNIT", "Rays", "gather", "pack", "scatter"]

UNIT = 512  # rays that one simulation of the batch answers in a call


class Rays:
    """Buffers for up to `capacity` rays, allocated once: fresh large arrays cost more than the arithmetic."""

    def __init__(self, capacity: int, states: int, lights: int):
        self.frame, self.geom = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
        self.direction, self.normal = np.empty((capacity, 3)), np.empty((capacity, 3))
        self.dist, self.depth = np.empty(capacity), np.empty(capacity)
        self.near, self.light = np.empty(capacity, np.bool_), np.ones((lights, capacity))
        self.shadow_origin, self.shadow_direction = np.empty((capacity, 3)), np.empty((capacity, 3))
        self.reach, self.row = np.empty(capacity), np.arange(capacity)
        units = capacity // UNIT + states + 1
        self.index, self.state = np.empty((units, UNIT), np.int64), np.empty(units, np.int64)
        self.pnt, self.vec = np.empty((units, UNIT, 3)), np.empty((units, UNIT, 3))


@njit(cache=True, nogil=True)
def pack(rays, cameras, near, frame, unit, index, state):
    """Assigns the `near` rays to units of at most `unit` rays of one state, in order.

    Writes `index` [units, unit]: the rays of each unit, -1 where there is none, and `state` [units];
    returns the number of units.
    """
    units, fill = 0, unit
    for r in range(rays):
        if not near[r]:
            continue
        if fill == unit or state[units - 1] != frame[r] // cameras:
            if units:
                index[units - 1, fill:] = -1
            state[units] = frame[r] // cameras
            units, fill = units + 1, 0
        index[units - 1, fill] = r
        fill += 1
    if units:
        index[units - 1, fill:] = -1
    return units


@njit(cache=True, nogil=True)
def gather(start, stop, index, origin, row, direction, pnt, vec):
    """The rays of the units `start` to `stop`, from `origin[row[r]]`; what fills up a unit looks away from all."""
    for i in range(start, stop):
        for j in range(index.shape[1]):
            r = index[i, j]
            for k in range(3):
                pnt[i, j, k] = origin[row[r], k] if r >= 0 else 1e6
                vec[i, j, k] = direction[r, k] if r >= 0 else (1.0 if k == 2 else 0.0)


@njit(cache=True, nogil=True)
def scatter(start, stop, index, found_dist, found_geom, found_normal, number, turn, frame, direction,
            dist, depth, geom, normal):  # fmt: skip
    """Writes what MuJoCo found for the units `start` to `stop` to their rays, where it is nearer than what they met.

    `number` [ngeom] are the drawn geoms' numbers.
    """
    for i in range(start, stop):
        for j in range(index.shape[1]):
            r = index[i, j]
            if r < 0 or found_dist[i, j] < 0.0 or (geom[r] >= 0 and found_dist[i, j] >= dist[r]):
                continue
            dist[r], geom[r] = found_dist[i, j], number[found_geom[i, j]]
            depth[r] = 0.0
            for k in range(3):
                depth[r] -= dist[r] * direction[r, k] * turn[frame[r], k, 2]
                normal[r, k] = found_normal[i, j, k]
