"""Pictures by ray casting: no GL library, the same pixels on every machine.

`Caster` turns joint positions into images of a MuJoCo model. The intersections are MuJoCo's own
(`mujoco.batch.Batch.ray`, on its thread pool); what stands around them is numba (`envs.shading`):

1. *aim*: most rays of a table-top picture meet nothing but the table. A ray that misses every geom's
   bounding sphere is answered from the planes in closed form; only the others are handed to MuJoCo.
2. *obscure*: from every hit, a second ray towards the first light that casts shadows, culled alike.
3. *shade*: MuJoCo's lighting model, i.e. headlight plus up to two of the model's lights, each
   `ambient + diffuse * max(0, n.l)` times the geom's colour `+ specular * max(0, n.h)^shininess`, without
   loss over distance unless the light asks for it.
4. *edges*: pixels that differ from a neighbour are cast again with four sub-samples and averaged.

Simplifications: a partly transparent geom is drawn opaque, textures are drawn on planes (other geoms get
the texture's mean colour), planes have no highlights, nothing reflects. Geoms of groups 0 to 2 are drawn,
as in MuJoCo's viewer.
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

from envs.shading import aim, edges, gather, obscure, pack, scatter, shade

__all__ = ["LAMP_DARK", "LAMP_LIT", "Caster"]

F64 = NDArray[np.float64]
RAYS = 131_072  # rays held in memory at once
UNIT = 512  # rays that one simulation of the batch answers in a call
GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # geom groups that are drawn
SUBPIXEL = np.array([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]])  # rotated grid
EDGE = 0.05  # colour difference to a neighbour (of 1) from which a pixel is sampled again
LAMP_LIT, LAMP_DARK = (1.0, 0.84, 0.16), (0.21, 0.20, 0.17)
CELL = 0.1  # metres: a cell of the checker on a plane without a texture
SKY = ((0.71, 0.75, 0.80), (0.95, 0.96, 0.97))  # background without a skybox: below, above


@dataclass(frozen=True)
class Frames:
    """Kinematics of `F` pictures: where geoms, lights and the camera are (world frame, metres)."""

    qpos: F64  # [F, nq]
    spheres: NDArray[np.float32]  # [F, 4, S] what bounds the geoms that are no planes: centre, squared radius
    plane_pos: F64  # [F, P, 3]
    plane_mat: F64  # [F, P, 9]
    light_pos: F64  # [F, L, 3]
    light_dir: F64  # [F, L, 3]
    lamp_pos: F64  # [F, 3]
    eye: F64  # [F, 3]
    turn: F64  # [F, 3, 3] columns: the camera's right, up and backward axes


class Rays:
    """Buffers for up to `capacity` rays, allocated once: fresh large arrays cost more than the arithmetic."""

    def __init__(self, capacity: int, pictures: int, lights: int):
        self.capacity = capacity
        self.origin, self.direction, self.normal, self.colour = (np.empty((capacity, 3)) for _ in range(4))
        self.dist, self.geom = np.empty(capacity), np.empty(capacity, np.int32)
        self.near = np.empty(capacity, np.bool_)
        self.shadow_origin, self.shadow_direction = np.empty((capacity, 3)), np.empty((capacity, 3))
        self.reach, self.light = np.empty(capacity), np.ones((lights, capacity))
        self.units = capacity // UNIT + pictures + 1
        self.index, self.picture = np.empty((self.units, UNIT), np.int64), np.empty(self.units, np.int64)
        self.pnt, self.vec = np.empty((self.units, UNIT, 3)), np.empty((self.units, UNIT, 3))
        self.edge = np.empty(capacity, np.int64)


class Caster:
    """Casts and shades the rays of one camera; see the module's docstring for what the picture contains.

    `camera` is the camera's id, `width` and `height` are pixels. Not to be used from several threads at once:
    it uses all of the process's processors itself.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, camera: int, shadows: bool, antialias: bool):
        self.model = model = copy.copy(model)
        model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)  # sleep needs per-simulation memory
        self.width, self.height, self.camera = width, height, camera
        self.shadows, self.antialias = shadows, antialias
        self._data = mujoco.MjData(model)
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        self._threads = len(affinity(0)) if affinity else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._read_geoms()
        self._read_lights()
        self._planes, self._finish = self._read_planes()
        pixels = width * height
        self._per_call = max(1, RAYS // pixels)
        self._rays = Rays(max(RAYS, pixels), self._per_call, len(self._lights))
        self._batch = Batch(model, self._rays.units, self._threads)
        self._state = self._batch.bind("qpos")
        row, column = np.mgrid[:height, :width]
        self._grid = np.tile(np.stack([column.ravel(), row.ravel()], 1) + 0.5, (self._per_call, 1))
        self._frame = np.repeat(np.arange(self._per_call), pixels)
        self._lens = (float(width), float(height), float(np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)))

    def close(self) -> None:
        """Stops the worker threads; the caster goes on with one."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def image(self, qpos: F64, lit: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Pictures uint8[n, h, w, 3] of the states `qpos` [n, nq] with the lamp lit or not, `lit` [n]."""
        out = np.empty((len(qpos), self.height, self.width, 3), np.uint8)
        pixels, rays = self.width * self.height, self._rays
        for low in range(0, len(qpos), self._per_call):
            part = slice(low, min(low + self._per_call, len(qpos)))
            frames, on = self._frames(qpos[part]), lit[part]
            total = len(frames.qpos) * pixels
            self._cast(frames, self._grid[:total], self._frame[:total])
            colour = self._colour(frames, self._frame[:total], on)
            if self.antialias:
                colour = colour.copy()
                size = edges(self.height, self.width, 0, len(on), colour, rays.geom, EDGE, rays.edge)
                chosen = rays.edge[:size].copy()
                for piece in np.array_split(chosen, -(-size * len(SUBPIXEL) // rays.capacity) or 1):
                    corner = self._grid[piece]
                    again = (corner[:, None] + SUBPIXEL).reshape(-1, 2)
                    frame = np.repeat(self._frame[piece], len(SUBPIXEL))
                    self._cast(frames, again, frame)
                    fine = self._colour(frames, frame, on)
                    colour[piece] = fine.reshape(len(piece), len(SUBPIXEL), 3).mean(1)
            out[part] = np.rint(255 * colour).astype(np.uint8).reshape(-1, self.height, self.width, 3)
        return out

    def measure(self, qpos: F64) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth along the optical axis [n, h, w] (metres, inf for nothing) and geom ids [n, h, w] (-1)."""
        shape = (len(qpos), self.height, self.width)
        depth, geom = np.empty(shape, np.float32), np.empty(shape, np.int32)
        for low in range(0, len(qpos), self._per_call):
            part = slice(low, min(low + self._per_call, len(qpos)))
            frames = self._frames(qpos[part])
            total = len(frames.qpos) * self.width * self.height
            frame = self._frame[:total]
            self._cast(frames, self._grid[:total], frame)
            dist, direction = self._rays.dist[:total], self._rays.direction[:total]
            axial = -dist * np.einsum("ri,ri->r", direction, frames.turn[frame, :, 2])
            depth[part] = np.where(dist < 0, np.inf, axial).reshape(-1, self.height, self.width)
            geom[part] = self._rays.geom[:total].reshape(-1, self.height, self.width)
        return depth, geom

    def _frames(self, qpos: F64) -> Frames:
        """Runs the kinematics of `qpos` [F, nq] and collects what the kernels read."""
        model, data, n = self.model, self._data, len(qpos)
        planes, lights = len(self._plane), len(self._lights)
        out = Frames(
            qpos, np.empty((n, 4, len(self._radius2)), np.float32),
            np.empty((n, planes, 3)), np.empty((n, planes, 9)),
            np.empty((n, lights, 3)), np.empty((n, lights, 3)),
            np.zeros((n, 3)), np.empty((n, 3)), np.empty((n, 3, 3)),
        )  # fmt: skip
        for i in range(n):
            data.qpos[:] = qpos[i]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_camlight(model, data)
            turn = data.geom_xmat[self._owner].reshape(-1, 3, 3)
            out.spheres[i, :3] = (data.geom_xpos[self._owner] + np.einsum("sij,sj->si", turn, self._offset)).T
            out.spheres[i, 3] = self._radius2
            out.plane_pos[i], out.plane_mat[i] = data.geom_xpos[self._plane], data.geom_xmat[self._plane]
            out.light_pos[i], out.light_dir[i] = data.light_xpos[self._lights], data.light_xdir[self._lights]
            if self._lamp >= 0:
                out.lamp_pos[i] = data.geom_xpos[self._lamp]
            out.eye[i], out.turn[i] = data.cam_xpos[self.camera], data.cam_xmat[self.camera].reshape(3, 3)
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

    def _cast(self, frames: Frames, pixel: F64, frame: NDArray[np.int64]) -> None:
        """Writes origin, direction and first hit of the rays through `pixel` [R, 2] into the buffers."""
        rays, size = self._rays, len(frame)
        self._spread(
            aim, size, 1, pixel, frame, self._lens, frames.eye, frames.turn, frames.spheres,
            self._at_planes(frames), rays.origin, rays.direction, rays.near, rays.dist, rays.geom,
            rays.normal,
        )  # fmt: skip
        if found := self._ask(frames, frame, rays.origin, rays.direction):
            units, dist, geom, normal = found
            self._spread(scatter, units, UNIT, rays.index, dist, geom, normal, rays.dist, rays.geom, rays.normal)

    def _ask(self, frames: Frames, frame: NDArray[np.int64], origin: F64, direction: F64) -> tuple[Any, ...] | None:
        """MuJoCo's answer for the `near` rays: units, their rays' dist, geom, normal; None without any."""
        rays = self._rays
        units = pack(len(frame), rays.near, frame, UNIT, rays.index, rays.picture)
        if units == 0:
            return None
        pnt, vec = rays.pnt[:units], rays.vec[:units]
        self._spread(gather, units, UNIT, rays.index, origin, direction, pnt, vec)
        self._state[:units] = frames.qpos[rays.picture[:units]]
        return units, *self._batch.ray(pnt, vec, geomgroup=GROUPS, ids=np.arange(units), normal=True)

    def _colour(self, frames: Frames, frame: NDArray[np.int64], lit: NDArray[np.bool_]) -> F64:
        """Colours [R, 3] in 0 to 1 of the rays last cast: a view of the buffers. `lit` [F] is the lamp's."""
        rays, size, shadow = self._rays, len(frame), self._shadow_light
        if shadow >= 0:
            light = rays.light[shadow]
            position = np.ascontiguousarray(frames.light_pos[:, shadow])
            direction = np.ascontiguousarray(frames.light_dir[:, shadow])
            self._spread(
                obscure, size, 1, rays.origin, rays.direction, frame, rays.dist, rays.geom, rays.normal,
                int(self._light_table[0][shadow]), position, direction, frames.spheres,
                self._at_planes(frames), rays.shadow_origin, rays.shadow_direction, rays.reach,
                rays.near, light,
            )  # fmt: skip
            if found := self._ask(frames, frame, rays.shadow_origin, rays.shadow_direction):
                index, dist = rays.index[: found[0]], found[1]
                blocked = (index >= 0) & (dist >= 0) & (dist < rays.reach[index])
                light[index[blocked]] = 0
        self._spread(
            shade, size, 1, rays.origin, rays.direction, frame, rays.dist, rays.geom, rays.normal, rays.light,
            (self._rgb, self._gloss, self._plane_of), self._light_table, frames.light_pos, frames.light_dir,
            self._head, self._sky, frames.plane_pos, frames.plane_mat, self._finish, self._lamp, lit,
            frames.lamp_pos, np.array(LAMP_LIT), 2 * self._lens[2] / self.height, rays.colour,
        )  # fmt: skip
        return rays.colour[:size]

    def _at_planes(self, frames: Frames) -> tuple[Any, ...]:
        return self._plane, frames.plane_pos, frames.plane_mat, self._planes

    def _read_geoms(self) -> None:
        """What is drawn and how: colours, gloss, bounding spheres, the lamp."""
        model = self.model
        rgba = _geom_rgba(model)
        drawn = (model.geom_group < 3) & (rgba[:, 3] > 0)
        plane = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        self._plane = np.flatnonzero(drawn & plane).astype(np.int32)
        self._owner, self._offset, self._radius2 = _spheres(model, np.flatnonzero(drawn & ~plane))
        self._rgb = rgba[:, :3].astype(np.float64)
        self._gloss = np.tile([0.5, 0.5, 0.0], (model.ngeom, 1))  # specular, shininess, emission
        for g in np.flatnonzero(model.geom_matid >= 0):
            m = model.geom_matid[g]
            self._gloss[g] = model.mat_specular[m], model.mat_shininess[m], model.mat_emission[m]
            if not plane[g] and (pixels := _texture(model, int(g))) is not None:
                self._rgb[g] *= pixels.reshape(-1, 3).mean(0)
        self._plane_of = np.full(model.ngeom, -1, np.int32)
        self._plane_of[self._plane] = np.arange(len(self._plane))
        self._lamp = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "lamp")
        if self._lamp >= 0:
            self._rgb[self._lamp] = LAMP_DARK

    def _read_lights(self) -> None:
        """The first two active lights, the headlight and the background, in the layout of `shade`."""
        model = self.model
        self._lights = chosen = np.flatnonzero(model.light_active)[:2]
        kind = np.zeros(len(chosen), np.int32)
        kind[model.light_type[chosen] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL] = 1
        kind[model.light_type[chosen] == mujoco.mjtLightType.mjLIGHT_POINT] = 2
        parts = [part[chosen].astype(float) for part in (model.light_ambient, model.light_diffuse)]
        parts.append(model.light_specular[chosen].astype(float))
        cutoff = np.cos(np.deg2rad(model.light_cutoff[chosen]))
        cone = np.stack([cutoff, model.light_exponent[chosen]], 1).astype(float)
        self._light_table = (kind, *parts, cone, model.light_attenuation[chosen].astype(float))
        casting = np.flatnonzero(model.light_castshadow[chosen])
        self._shadow_light = int(casting[0]) if self.shadows and len(casting) else -1
        head = model.vis.headlight
        self._head = np.array([head.ambient, head.diffuse, head.specular], float) * float(bool(head.active))
        self._sky = _sky(model)

    def _read_planes(self) -> tuple[F64, tuple[Any, ...]]:
        """Half sizes [P, 3] of the planes, and the `finish` of `shade`."""
        model, planes = self.model, len(self._plane)
        repeat, mean, haze = np.full((planes, 2), 0.5 / CELL), np.ones((planes, 3)), np.zeros((planes, 2))
        start, shape, texels = np.zeros(planes, np.int64), np.zeros((planes, 2), np.int64), [np.zeros((0, 3))]
        for p, g in enumerate(self._plane.tolist()):
            if (model.geom_size[g, :2] == 0).any():
                haze[p] = 2 * model.stat.extent, 6 * model.stat.extent
            if (pixels := _texture(model, g)) is not None:
                repeat[p], mean[p] = _repeat(model, g), pixels.reshape(-1, 3).mean(0)
                start[p], shape[p] = sum(len(part) for part in texels), pixels.shape[1::-1]
                texels.append(pixels.reshape(-1, 3))
        return model.geom_size[self._plane], (repeat, start, shape, mean, haze, np.concatenate(texels))


def _spheres(model: mujoco.MjModel, geoms: NDArray[np.int64]) -> tuple[NDArray[np.int64], F64, F64]:
    """Spheres that contain the geoms: owner [S], centre in the owner's frame [S, 3], squared radius [S].

    A long geom's bounding box is cut into up to 4 near-cubes, each in a sphere of its own. The radii have a
    margin for single precision.
    """
    owner, offset, radius2 = [], [], []
    for g in geoms.tolist():
        centre, half = model.geom_aabb[g, :3], np.maximum(model.geom_aabb[g, 3:], 1e-6)
        if model.geom_dataid[g] >= 0:  # a mesh or a height field: MuJoCo's own bound
            centre, half = np.zeros(3), np.full(3, model.geom_rbound[g])
        cuts = np.clip(np.rint(half / np.sort(half)[1]), 1, 4).astype(int)
        steps = [half[k] * (2 * np.arange(cuts[k]) + 1 - cuts[k]) / cuts[k] for k in range(3)]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
        owner += [g] * len(grid)
        offset.append(centre + grid)
        radius2 += [float(np.square(half / cuts).sum())] * len(grid)
    margin = 1e-5 * model.stat.extent**2
    return np.array(owner, np.int64), np.concatenate([np.zeros((0, 3)), *offset]), np.array(radius2) + margin


def _geom_rgba(model: mujoco.MjModel) -> NDArray[np.float32]:
    """Colours [ngeom, 4] as MuJoCo draws them: a geom's own unless it is the default, then its material's."""
    rgba = model.geom_rgba.copy()
    default = (rgba == np.array([0.5, 0.5, 0.5, 1], np.float32)).all(1) & (model.geom_matid >= 0)
    rgba[default] = model.mat_rgba[model.geom_matid[default]]
    return rgba


def _texture(model: mujoco.MjModel, geom: int) -> F64 | None:
    """The geom's colour texture [h, w, 3] in 0 to 1, or None."""
    material = model.geom_matid[geom]
    texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB] if material >= 0 else -1
    return None if texture < 0 else _pixels(model, int(texture))


def _pixels(model: mujoco.MjModel, texture: int) -> F64:
    width, height, channels = model.tex_width[texture], model.tex_height[texture], model.tex_nchannel[texture]
    start = model.tex_adr[texture]
    flat = model.tex_data[start : start + width * height * channels].reshape(height, width, channels)
    return np.repeat(flat[..., :1], 3, 2) / 255.0 if channels < 3 else flat[..., :3] / 255.0


def _repeat(model: mujoco.MjModel, plane: int) -> tuple[float, float]:
    """How often a plane's texture repeats a metre, along its x and y."""
    material = model.geom_matid[plane]
    x, y = model.mat_texrepeat[material]
    if model.mat_texuniform[material]:
        return float(x), float(y)
    sx, sy = (size if size > 0 else model.stat.extent for size in model.geom_size[plane, :2])
    return float(x / (2 * sx)), float(y / (2 * sy))


def _sky(model: mujoco.MjModel) -> F64:
    """Background colours [2, 3], below and above: the skybox's lowest and highest, or a pale gradient."""
    boxes = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if len(boxes) == 0:
        return np.array(SKY)
    faces = _pixels(model, int(boxes[0]))
    side = faces.shape[1]
    if len(faces) < 6 * side:
        return np.stack([faces[-1].mean(0), faces[0].mean(0)])
    return np.stack([faces[3 * side : 4 * side].mean((0, 1)), faces[2 * side : 3 * side].mean((0, 1))])
