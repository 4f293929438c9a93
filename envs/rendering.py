"""Pixels: pictures, depth and geom ids of batches of states from one or several cameras, on any machine.

```python
with make_renderer(model, 84, 84, cameras=("front", "top")) as renderer:
    print(renderer.describe())
    frames = renderer.render(qpos, lit={"lamp": on})  # uint8[n, 2, 84, 84, 3]
    depth, geoms = renderer.measure(qpos)  # float32[n, 2, 84, 84] in metres, int32[n, 2, 84, 84]
```

There are two ways to draw behind this one interface: rays on the processor, which need no graphics library and give
the same pixels everywhere, and the system's OpenGL. `envs.backends` says how `auto` chooses between them, and
`describe()` what was chosen and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.backends import BACKENDS, RAYS, RenderError, choose
from envs.look import Look, read_look

__all__ = ["BACKENDS", "RenderError", "Renderer", "make_renderer"]

MAX_PIXELS = 4096  # a side


class Renderer:
    """Draws states of one model from C cameras; `close()` it, or use it in a `with` statement.

    Not to be used from several threads at once; a GL renderer belongs to the thread that made it. Every method takes
    joint positions `qpos` [n, nq], and may move the cameras: `camera_offset`, float[n, 3] or [n, C, 3], shifts them by
    metres along their own right, up and backward axes, and `camera_turn`, float[n, 4] or [n, C, 4], turns them by a
    quaternion (w, x, y, z) about the same axes. All raise RenderError for arrays of another shape or range, for
    positions that are not finite, and when the renderer is closed.
    """

    def __init__(
        self, painter: Any, model: mujoco.MjModel, size: tuple[int, int], cameras: tuple[str, ...], why: tuple[str, str]
    ):
        self.model, self.cameras = model, cameras
        self.width, self.height = size
        self.backend, self.reason = why
        self._painter = painter

    def render(
        self,
        qpos: ArrayLike,
        lit: Mapping[str, ArrayLike] | None = None,
        colours: Mapping[str, ArrayLike] | None = None,
        camera_offset: ArrayLike | None = None,
        camera_turn: ArrayLike | None = None,
    ) -> NDArray[np.uint8]:
        """Pictures uint8[n, C, h, w, 3].

        `lit` maps the geoms that are lamps to bool[n], where they shine, in the hue of their colour. `colours` maps
        geoms to float[n, 3] in 0 to 1, which stand for their own colour.
        """
        states, look = self._read(qpos, lit, colours, camera_offset, camera_turn)
        return self._open().image(states, look)

    def depth(
        self, qpos: ArrayLike, camera_offset: ArrayLike | None = None, camera_turn: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Distances float32[n, C, h, w] along the camera's axis in metres, inf where there is nothing."""
        return self.measure(qpos, camera_offset, camera_turn)[0]

    def segmentation(
        self, qpos: ArrayLike, camera_offset: ArrayLike | None = None, camera_turn: ArrayLike | None = None
    ) -> NDArray[np.int32]:
        """Geom ids int32[n, C, h, w], -1 where there is nothing."""
        return self.measure(qpos, camera_offset, camera_turn)[1]

    def measure(
        self, qpos: ArrayLike, camera_offset: ArrayLike | None = None, camera_turn: ArrayLike | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth and segmentation at the price of one."""
        states, look = self._read(qpos, None, None, camera_offset, camera_turn)
        return self._open().measure(states, look)

    def describe(self) -> str:
        """One line: backend, why, size and cameras."""
        size, many = f"{self.width}x{self.height}", "s" if len(self.cameras) > 1 else ""
        names = ", ".join(map(repr, self.cameras))
        return f"renderer {self.backend} ({self.reason}), {size} pixels, camera{many} {names}"

    def close(self) -> None:
        """Frees threads and graphics memory; may be called twice."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def _open(self) -> Any:
        if self._painter is None:
            raise RenderError("The renderer is closed; make another one.")
        return self._painter

    def _read(self, qpos: ArrayLike, *look: Any) -> tuple[NDArray[np.float64], Look]:
        states = np.ascontiguousarray(qpos, np.float64)
        if states.ndim != 2 or states.shape[1] != self.model.nq:
            raise RenderError(f"qpos has shape {states.shape}; (n, {self.model.nq}) is needed.")
        if not np.isfinite(states).all():
            raise RenderError("qpos holds values that are not finite; only finite joint positions can be drawn.")
        return states, read_look(self.model, len(states), len(self.cameras), *look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_renderer(
    model: mujoco.MjModel,
    width: int = 240,
    height: int = 240,
    cameras: str | Sequence[str] | None = None,
    backend: str = "auto",
    *,
    shadows: bool = True,
    antialias: bool = True,
    threads: int = 0,
) -> Renderer:
    """A renderer of `width` x `height` pixels (at most 4096 each) for `model`.

    `cameras` names cameras of the model, by default `front` alone, or else the first one. `backend` is one of
    `BACKENDS`; see `envs.backends` for what `auto` chooses. Pictures to learn from are drawn several times as fast
    without `shadows` and `antialias`. `threads` are those that cast rays, 0 for all cores; GL has one. Raises
    RenderError for an unknown camera or backend, a backend that does not work here, and a size out of range.
    """
    if not (1 <= width <= MAX_PIXELS and 1 <= height <= MAX_PIXELS):
        raise RenderError(f"A picture can't have {width}x{height} pixels; each side must be 1 to {MAX_PIXELS}.")
    names = _cameras(model, cameras)
    ids = [model.camera(name).id for name in names]
    why, painter = choose(backend), None
    if why[0] != "rays":
        from envs.gl import GLPainter

        try:
            painter = GLPainter(model, width, height, ids, why[0], shadows, antialias)
        except RenderError as error:  # it drew the probe's picture, but not in this process, or not this model's
            if backend != "auto":
                raise
            why = "rays", f"{RAYS}; {error}"
    if painter is None:
        from envs.raycast import Caster

        painter = Caster(model, width, height, ids, shadows, antialias, threads)
    return Renderer(painter, model, (width, height), names, why)


def _cameras(model: mujoco.MjModel, wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    names = [model.camera(i).name for i in range(model.ncam)]
    usual = "front" if "front" in names or not names else names[0]
    chosen = (wanted or usual,) if wanted is None or isinstance(wanted, str) else tuple(wanted)
    if not chosen:
        raise RenderError("A renderer needs at least one camera.")
    for name in chosen:
        if name not in names:
            known = ", ".join(repr(n) for n in names) or "none"
            raise RenderError(f"The model has no camera {name!r}; its cameras are: {known}.")
    return chosen
