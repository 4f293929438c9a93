"""Pictures by ray casting: no GL library, the same pixels on every machine.

`Caster` turns joint positions into images of a MuJoCo model. Everything per ray is numba (`envs.casting`):

1. *project*: which pixels a geom may cover, and its frame as seen from the camera.
2. *trace*: closed forms of the primitive shapes (`envs.intersection`). Rays that pass a mesh, a height or a distance
   field are handed to MuJoCo's own ray casting (`mujoco.batch.Batch.ray`), and the nearer hit counts.
3. *obscure*: from every hit, a second ray towards the first light that casts shadows.
4. *shade*: MuJoCo's lighting model (`envs.shading`).
5. *edges*: pixels that differ from a neighbour are cast again with four sub-samples and averaged.

What is left out is said in `envs.surfaces`.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from envs.backends import RenderError
from envs.casting import edges, obscure, project, trace
from envs.look import Look
from envs.rays import UNIT, Rays, gather, pack, scatter
from envs.shading import shade
from envs.surfaces import Lights, Surfaces

__all__ = ["Caster"]

F64 = NDArray[np.float64]
RAYS = 32_768  # rays a thread held in memory at once: about what its cache holds
GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # geom groups that are drawn
MIDDLE = np.array([[0.5, 0.5]])
FINE = np.array([[0.375, 0.125], [0.875, 0.375], [0.625, 0.875], [0.125, 0.625]])  # rotated grid
EDGE = 0.05  # colour difference to a neighbour (of 1) from which a pixel is sampled again


@dataclass(frozen=True)
class Frames:
    """Kinematics of S states and of F = S x cameras pictures (world frame, metres)."""

    qpos: F64  # [S, nq]
    pos: F64  # [S, K, 3]
    mat: F64  # [S, K, 9]
    light_pos: F64  # [S, L, 3]
    light_dir: F64  # [S, L, 3]
    eye: F64  # [F, 3]
    turn: F64  # [F, 3, 3] columns: the camera's right, up and backward axes
    local: F64  # [F, K, 12] and the others as `project` writes them
    rect: F64
    close: F64
    order: NDArray[np.int64]


class Caster:
    """Casts and shades the rays of the cameras `cameras` (ids), on `threads` threads (0: all of this process's cores).

    Not to be used from several threads at once. Raises RenderError for a camera that is more than a field of view.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, cameras: list[int],
        shadows: bool, antialias: bool, threads: int = 0,
    ):  # fmt: skip
        for camera in cameras:
            if model.cam_projection[camera] or model.cam_sensorsize[camera].any():
                name = model.camera(camera).name
                raise RenderError(f"The camera {name!r} has no plain fovy; 'rays' draws no other kind, 'egl' does.")
        self.model = model = copy.copy(model)
        model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)  # sleep needs per-simulation memory
        self.width, self.height, self.antialias = width, height, antialias
        self._cameras, self._many = np.array(cameras), len(cameras)
        self._data, self._surfaces, self._lights = mujoco.MjData(model), Surfaces(model), Lights(model, shadows)
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        self._threads = threads or (len(affinity(0)) if affinity else os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._capacity = RAYS * self._threads
        self._states = max(1, self._capacity // (width * height * self._many))  # drawn at once
        self._rays = Rays(self._capacity, self._states, len(self._lights.ids))
        self._batch = Batch(model, len(self._rays.state), self._threads) if self._surfaces.asked else None
        tangents = np.tan(np.deg2rad(model.cam_fovy[self._cameras]) / 2)
        self._lens = (width, height, tangents)
        self._footprint = 2 * tangents / height

    def close(self) -> None:
        """Stops the worker threads; may be called twice."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def image(self, qpos: F64, look: Look) -> NDArray[np.uint8]:
        """Pictures uint8[n, C, h, w, 3] of the states `qpos` [n, nq]."""
        shape = (self._many, self.height, self.width, 3)
        out = np.empty((len(qpos), *shape), np.uint8)
        for low in range(0, len(qpos), self._states):
            part = slice(low, min(low + self._states, len(qpos)))
            some = look.of(part)
            frames = self._frames(qpos[part], some)
            paint = (self._surfaces.colours(some), self._surfaces.lamps(some))
            pixels = np.arange(len(frames.eye) * self.width * self.height)
            colour, geom = np.empty((len(pixels), 3), np.float32), np.empty(len(pixels), np.int64)
            for piece in self._pieces(pixels, 1):
                size = self._cast(frames, piece, MIDDLE)
                geom[piece] = self._rays.geom[:size]
                self._shade(frames, size, paint, colour[piece[0] : piece[-1] + 1])
            if self.antialias:
                edge = np.empty(len(pixels), np.int64)
                edge = edge[: edges(self.height, self.width, 0, len(frames.eye), colour, geom, EDGE, edge)]
                for piece in self._pieces(edge, len(FINE)):
                    size = self._cast(frames, piece, FINE)
                    fine = np.empty((size, 3), np.float32)
                    self._shade(frames, size, paint, fine)
                    colour[piece] = fine.reshape(len(piece), len(FINE), 3).mean(1)
            np.multiply(colour, 255, out=colour)
            out[part] = np.rint(colour, out=colour).reshape(-1, *shape)
        return out

    def measure(self, qpos: F64, look: Look) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth float32 [n, C, h, w] (metres, inf for nothing) and geom ids int32 [n, C, h, w] (-1)."""
        shape = (len(qpos), self._many, self.height, self.width)
        depth, geom = np.empty(shape, np.float32), np.empty(shape, np.int32)
        ids = np.append(self._surfaces.ids, -1)  # -1, nothing, is the last one
        for low in range(0, len(qpos), self._states):
            part = slice(low, min(low + self._states, len(qpos)))
            frames = self._frames(qpos[part], look.of(part))
            deep, found = depth[part].reshape(-1), geom[part].reshape(-1)
            for piece in self._pieces(np.arange(deep.size), 1):
                size = self._cast(frames, piece, MIDDLE)
                deep[piece], found[piece] = self._rays.depth[:size], ids[self._rays.geom[:size]]
        return depth, geom

    def _pieces(self, pixels: NDArray[np.int64], samples: int) -> list[NDArray[np.int64]]:
        """The pixels in parts whose rays fit into the buffers."""
        most = self._capacity // samples
        return [pixels[low : low + most] for low in range(0, len(pixels), most)]

    def _frames(self, qpos: F64, look: Look) -> Frames:
        """Runs the kinematics of `qpos` [S, nq] and projects the geoms."""
        model, data, n, many = self.model, self._data, len(qpos), self._many
        ids, lights, f = self._surfaces.ids, self._lights.ids, n * many
        k, beams = len(ids), len(lights)
        out = Frames(
            qpos, np.empty((n, k, 3)), np.empty((n, k, 9)), np.empty((n, beams, 3)), np.empty((n, beams, 3)),
            np.empty((f, 3)), np.empty((f, 3, 3)), np.empty((f, k, 12)), np.empty((f, k, 4)), np.empty((f, k)),
            np.empty((f, k), np.int64),
        )  # fmt: skip
        for i in range(n):
            data.qpos[:] = qpos[i]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            out.pos[i], out.mat[i] = data.geom_xpos[ids], data.geom_xmat[ids]
            out.light_pos[i], out.light_dir[i] = data.light_xpos[lights], data.light_xdir[lights]
            views = slice(i * many, (i + 1) * many)
            out.eye[views] = data.cam_xpos[self._cameras]
            out.turn[views] = data.cam_xmat[self._cameras].reshape(-1, 3, 3)
        if look.moved:
            out.eye[:] += np.einsum("fij,fj->fi", out.turn, look.offset.reshape(-1, 3))
            out.turn[:] = out.turn @ look.turn.reshape(-1, 3, 3)
        self._spread(
            project, f, 8 * k, many, self._lens, (out.eye, out.turn), self._surfaces.shapes, out.pos, out.mat,
            out.local, out.rect, out.close, out.order,
        )  # fmt: skip
        return out

    def _spread(self, kernel: Callable[..., Any], size: int, cost: int, *arguments: Any) -> None:
        """Runs a kernel over `size` items on all threads, or on this one below 4096 rays (`cost` an item)."""
        if self._pool is None or size * cost < 4096:
            kernel(0, size, *arguments)
            return
        bounds = np.linspace(0, size, 2 * self._threads + 1).astype(int).tolist()
        jobs = [self._pool.submit(kernel, a, b, *arguments) for a, b in itertools.pairwise(bounds)]
        for job in jobs:
            job.result()

    def _cast(self, frames: Frames, pixels: NDArray[np.int64], samples: F64) -> int:
        """Casts the rays through the pixels' samples; how many. The buffers have what they meet."""
        rays, size = self._rays, len(pixels) * len(samples)
        self._spread(
            trace, len(pixels), len(samples), pixels, samples, self._lens, self._many, frames.turn,
            self._surfaces.shapes, frames.mat, frames.local, frames.rect, frames.close, frames.order,
            rays.frame, rays.direction, rays.dist, rays.depth, rays.geom, rays.normal, rays.near,
        )  # fmt: skip
        if found := self._ask(frames, size, frames.eye, rays.frame, rays.direction):
            units, dist, geom, normal = found
            self._spread(
                scatter, units, UNIT, rays.index, dist, geom, normal, self._surfaces.number, frames.turn,
                rays.frame, rays.direction, rays.dist, rays.depth, rays.geom, rays.normal,
            )  # fmt: skip
        return size

    def _ask(
        self, frames: Frames, size: int, origin: F64, row: NDArray[np.int64], direction: F64
    ) -> tuple[Any, ...] | None:
        """MuJoCo's answer for the `near` rays from `origin[row]`: units, their rays' dist, geom, normal."""
        rays = self._rays
        if self._batch is None or not (
            units := pack(size, self._many, rays.near, rays.frame, UNIT, rays.index, rays.state)
        ):
            return None
        pnt, vec = rays.pnt[:units], rays.vec[:units]
        self._spread(gather, units, UNIT, rays.index, origin, row, direction, pnt, vec)
        self._batch.qpos[:units] = frames.qpos[rays.state[:units]]
        return units, *self._batch.ray(pnt, vec, geomgroup=GROUPS, ids=np.arange(units), normal=True)

    def _shade(self, frames: Frames, size: int, paint: tuple[Any, ...], out: NDArray[np.float32]) -> None:
        """Writes the colours [R, 3] in 0 to 1 of the rays last cast."""
        rays, lights, shadow = self._rays, self._lights, self._lights.shadow
        if shadow >= 0:
            light = rays.light[shadow]
            self._spread(
                obscure, size, 1, self._many, frames.eye, self._surfaces.shapes, self._surfaces.reach2, frames.pos,
                frames.mat, rays.frame, rays.direction, rays.dist, rays.geom, rays.normal, int(lights.kind[shadow]),
                np.ascontiguousarray(frames.light_pos[:, shadow]), np.ascontiguousarray(frames.light_dir[:, shadow]),
                rays.shadow_origin, rays.shadow_direction, rays.reach, rays.near, light,
            )  # fmt: skip
            if found := self._ask(frames, size, rays.shadow_origin, rays.row, rays.shadow_direction):
                index, dist = rays.index[: found[0]], found[1]
                blocked = (index >= 0) & (dist >= 0) & (dist < rays.reach[index])
                light[index[blocked]] = 0
        colours, (lamp_of, lamp_on, lamp_rgb) = paint
        self._spread(
            shade, size, 1, self._many, frames.eye, rays.frame, rays.direction, rays.dist, rays.geom, rays.normal,
            rays.light, (colours, self._surfaces.gloss, self._surfaces.plane), lights.table, frames.light_pos,
            frames.light_dir, lights.head, lights.sky, frames.pos, frames.mat, self._surfaces.finish,
            lamp_of, lamp_on, lamp_rgb, self._footprint, out,
        )  # fmt: skip
