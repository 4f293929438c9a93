"""What a ray caster needs to know of a model once: shapes, colours, lights, textures, background, as plain arrays.

Geoms are numbered 0 to K - 1 among those that are drawn: groups 0 to 2, as in MuJoCo's viewer, and not fully
transparent. Simplifications: a partly transparent geom is drawn opaque, textures are drawn on planes (other geoms get
the texture's mean colour), planes have no highlights, nothing reflects.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.casting import ASKED
from envs.intersection import PLANE, PRIMITIVES
from envs.look import Look, geom_rgba, shining

__all__ = ["Lights", "Surfaces"]

F64 = NDArray[np.float64]
CELL = 0.1  # metres: a cell of the checker on a plane without a texture
SKY = ((0.71, 0.75, 0.80), (0.95, 0.96, 0.97))  # background without a skybox: below, above
FAINT = 0.002  # a highlight weaker than this share of its strongest is not drawn


class Surfaces:
    """The drawn geoms: `ids` [K] in the model, `number` [ngeom] here (-1), and what the kernels read of them."""

    def __init__(self, model: mujoco.MjModel):
        rgba = geom_rgba(model)
        self.ids = ids = np.flatnonzero((model.geom_group < 3) & (rgba[:, 3] > 0))
        self.number = np.full(model.ngeom, -1, np.int32)
        self.number[ids] = np.arange(len(ids))
        kind = model.geom_type[ids].astype(np.int32)
        asked = ~np.isin(kind, PRIMITIVES)
        self.asked = bool(asked.any())
        centre, half = model.geom_aabb[ids, :3].copy(), np.maximum(model.geom_aabb[ids, 3:], 1e-6)
        centre[asked], half[asked] = 0.0, model.geom_rbound[ids[asked], None]
        self.reach2 = np.square(np.linalg.norm(np.abs(centre) + half, axis=1) + 1e-6)
        self.reach2[asked] = np.square(model.geom_rbound[ids[asked]] + 1e-6)
        self.shapes = (np.where(asked, ASKED, kind).astype(np.int32), model.geom_size[ids].copy(), centre, half)
        self.plane = np.where(kind == PLANE, np.cumsum(kind == PLANE) - 1, -1).astype(np.int32)
        self._rgb, self._tint = rgba[ids, :3].astype(np.float64), np.ones((len(ids), 3))
        self.gloss = np.tile([0.5, 0.5, 0.0, 0.0], (len(ids), 1))  # specular, shininess, emission, see `shade`
        for k, g in enumerate(ids.tolist()):
            material = model.geom_matid[g]
            if material >= 0:
                finish = model.mat_specular[material], model.mat_shininess[material], model.mat_emission[material]
                self.gloss[k, :3] = finish
                if self.plane[k] < 0 and (pixels := _texture(model, g)) is not None:
                    self._tint[k] = pixels.reshape(-1, 3).mean(0)
        self.gloss[:, 3] = FAINT ** (1 / np.maximum(128 * self.gloss[:, 1], 1e-3))
        self.finish = _finish(model, ids[self.plane >= 0])

    def colours(self, look: Look) -> F64:
        """Colours [S, K, 3] of the geoms in each state."""
        colours = np.repeat((self._rgb * self._tint)[None], len(look.lit), 0)
        for k, number in enumerate(self.number[look.painted].tolist()):
            if number >= 0:
                colours[:, number] = look.colours[:, k] * self._tint[number]
        return colours

    def lamps(self, look: Look) -> tuple[NDArray[np.int64], NDArray[np.bool_], F64]:
        """The drawn lamps [M], which of them are lit [S, M], and the colours [S, M, 3] in which they shine."""
        numbers = self.number[look.lamps].astype(np.int64)
        drawn, colours = numbers >= 0, self.colours(look)
        on, rgb = look.lit[:, drawn], shining(colours[:, numbers[drawn]])
        return numbers[drawn], np.ascontiguousarray(on), np.ascontiguousarray(rgb)  # compiled for one layout


class Lights:
    """The first two active lights, the headlight and the background, in the layout of `envs.shading.shade`."""

    def __init__(self, model: mujoco.MjModel, shadows: bool):
        self.ids = ids = np.flatnonzero(model.light_active)[:2]
        kind = np.zeros(len(ids), np.int32)
        kind[model.light_type[ids] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL] = 1
        kind[model.light_type[ids] == mujoco.mjtLightType.mjLIGHT_POINT] = 2
        parts = [part[ids].astype(float) for part in (model.light_ambient, model.light_diffuse, model.light_specular)]
        cone = np.stack([np.cos(np.deg2rad(model.light_cutoff[ids])), model.light_exponent[ids]], 1).astype(float)
        self.kind = kind
        self.table = (kind, *parts, cone, model.light_attenuation[ids].astype(float))
        casting = np.flatnonzero(model.light_castshadow[ids])
        self.shadow = int(casting[0]) if shadows and len(casting) else -1  # the one light that casts shadows
        head = model.vis.headlight
        self.head = np.array([head.ambient, head.diffuse, head.specular], float) * float(bool(head.active))
        self.sky = _sky(model)


def _finish(model: mujoco.MjModel, planes: NDArray[np.int64]) -> tuple[Any, ...]:
    """The `finish` of `shade`: how the planes look."""
    many = len(planes)
    repeat, mean, haze = np.full((many, 2), 0.5 / CELL), np.ones((many, 3)), np.zeros((many, 2))
    start, shape, texels = np.zeros(many, np.int64), np.zeros((many, 2), np.int64), [np.zeros((0, 3))]
    for p, g in enumerate(planes.tolist()):
        if (model.geom_size[g, :2] == 0).any():
            haze[p] = 2 * model.stat.extent, 6 * model.stat.extent
        if (pixels := _texture(model, g)) is not None:
            repeat[p], mean[p] = _repeat(model, g), pixels.reshape(-1, 3).mean(0)
            start[p], shape[p] = sum(len(part) for part in texels), pixels.shape[1::-1]
            texels.append(pixels.reshape(-1, 3))
    return repeat, start, shape, mean, haze, np.concatenate(texels)


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
