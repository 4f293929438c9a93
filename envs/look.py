"""What differs from picture to picture besides the joint positions: lamps, colours, where the cameras are.

A lamp that is lit shines in the hue of its geom at full strength (a dull yellow ball shines yellow, a grey one white);
a lamp that is not has the geom's own colour. Everything here is drawn alike by rays and by GL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.backends import RenderError

__all__ = ["Look", "geom_rgba", "read_look", "shining"]

PALE = 0.16  # least colour channel of a lamp that is lit


@dataclass(frozen=True)
class Look:
    """How n states of a model are drawn from C cameras where it is not as the model says; all arrays are checked."""

    painted: NDArray[np.int64]  # [P] geoms with colours of their own
    colours: NDArray[np.float64]  # [n, P, 3] in 0 to 1
    lamps: NDArray[np.int64]  # [L] geoms that may be lit
    lit: NDArray[np.bool_]  # [n, L]
    offset: NDArray[np.float64]  # [n, C, 3] metres along the camera's right, up and backward axes
    turn: NDArray[np.float64]  # [n, C, 3, 3] rotation in the same frame
    moved: bool  # whether any camera is

    def of(self, part: slice) -> Look:
        """The same for some of the states."""
        return Look(
            self.painted, self.colours[part], self.lamps, self.lit[part], self.offset[part], self.turn[part], self.moved
        )


def read_look(
    model: mujoco.MjModel,
    n: int,
    cameras: int,
    lit: Mapping[str, ArrayLike] | None = None,
    colours: Mapping[str, ArrayLike] | None = None,
    camera_offset: ArrayLike | None = None,
    camera_turn: ArrayLike | None = None,
) -> Look:
    """Checks the arguments of `envs.rendering.Renderer.render`, which explains them.

    Raises RenderError for a geom that the model has not and for arrays of another shape or range.
    """
    lamps, on = _by_geom(model, lit or {}, "lit", (n,), np.bool_)
    painted, paint = _by_geom(model, colours or {}, "colours", (n, 3), np.float64)
    if not ((paint >= 0) & (paint <= 1)).all():
        raise RenderError("colours must lie in 0 to 1.")
    turn = np.broadcast_to(np.eye(3), (n, cameras, 3, 3))
    if camera_turn is not None:
        turn = _rotations(_by_camera("camera_turn", camera_turn, n, cameras, 4))
    offset = np.zeros((n, cameras, 3))
    if camera_offset is not None:
        offset = _by_camera("camera_offset", camera_offset, n, cameras, 3)
    return Look(painted, paint, lamps, on, offset, turn, camera_offset is not None or camera_turn is not None)


def geom_rgba(model: mujoco.MjModel) -> NDArray[np.float32]:
    """Colours [ngeom, 4] as MuJoCo draws them: a geom's own unless it is the default, then its material's."""
    rgba = model.geom_rgba.copy()
    default = (rgba == np.array([0.5, 0.5, 0.5, 1], np.float32)).all(1) & (model.geom_matid >= 0)
    rgba[default] = model.mat_rgba[model.geom_matid[default]]
    return rgba


def shining(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """The colours [..., 3] of lamps that are lit, from those of their geoms: the hue at full strength; grey: white."""
    low, high = rgb.min(-1, keepdims=True), rgb.max(-1, keepdims=True)
    hue = np.where(high - low > 0.02, (rgb - low) / np.maximum(high - low, 0.02), 1.0)
    return PALE + (1 - PALE) * hue


def _by_geom(
    model: mujoco.MjModel, given: Mapping[str, ArrayLike], name: str, shape: tuple[int, ...], kind: Any
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Geom ids [P] and their values [n, P, ...]."""
    if not isinstance(given, Mapping):
        raise RenderError(f"{name} must map names of geoms to arrays of shape {shape}.")
    ids = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, key) for key in given]
    for key, number, value in zip(given, ids, given.values(), strict=True):
        if number < 0:
            named = [model.geom(i).name for i in range(model.ngeom) if model.geom(i).name]
            raise RenderError(f"The model has no geom {key!r} ({name}); its named geoms are: {', '.join(named)}.")
        if np.shape(value) != shape:
            raise RenderError(f"{name}[{key!r}] has shape {np.shape(value)}; {shape} is needed, one row a state.")
    values = [np.asarray(value, kind) for value in given.values()]
    return np.array(ids, np.int64), np.stack(values, 1) if values else np.zeros((shape[0], 0, *shape[1:]), kind)


def _by_camera(name: str, value: ArrayLike, n: int, cameras: int, width: int) -> NDArray[np.float64]:
    """[n, C, width] from that or from [n, width], the same for every camera."""
    array = np.asarray(value, np.float64)
    if array.shape == (n, width):
        array = np.repeat(array[:, None], cameras, 1)
    if array.shape != (n, cameras, width) or not np.isfinite(array).all():
        raise RenderError(
            f"{name} has shape {np.shape(value)}; finite values of shape ({n}, {width}) or ({n}, {cameras}, {width}) "
            "are needed."
        )
    return array


def _rotations(quat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] (w, x, y, z), which need not have unit length."""
    length = np.linalg.norm(quat, axis=-1, keepdims=True)
    if (length < 1e-9).any():
        raise RenderError("camera_turn holds a quaternion of length zero; (1, 0, 0, 0) is no turn.")
    w, x, y, z = np.moveaxis(quat / length, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)
