"""Pixels: pictures, depth and geom ids of batches of states, on any machine.

```python
with make_renderer(model, 240, 240, camera="front") as renderer:
    print(renderer.describe())
    frames = renderer.render(qpos, lamp_lit)  # uint8[n, 240, 240, 3]
```

There are two ways to draw. `rays` casts rays on the processor's threads (`envs.raycast`): it needs no
graphics library and gives the same pixels everywhere. `egl`, `osmesa` and `glfw` are the system's OpenGL.

`auto` decides as follows, and `describe()` says what it chose and why:

1. `MUJOCO_GL` names `egl`, `osmesa` or `glfw`: that one where it works, else `rays`; `disabled` means `rays`.
2. `MUJOCO_GL` is unset and there is a GPU (Linux): EGL where it works **and draws on the GPU**. OpenGL
   emulated on the processor is no faster than `rays` and differs from driver to driver, so it is taken only
   when asked for.
3. Everywhere else `rays`.

Whether a backend works is found out by drawing a small picture in a child process with a time limit, once a
process: a driver that crashes or hangs takes only the child with it. `MUJOCO_GL` need not be set before
mujoco is imported, since the context is created here and not by `mujoco.Renderer`. (One thing can't be mended
from here: with `MUJOCO_GL` set to a library that is missing, `import mujoco` itself may fail; unset it then.)
"""

from __future__ import annotations

import copy
import functools
import glob
import importlib
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import Any, Self

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.raycast import LAMP_DARK, LAMP_LIT, Caster

__all__ = ["BACKENDS", "RenderError", "Renderer", "make_renderer"]

GL_BACKENDS = ("egl", "osmesa", "glfw")
BACKENDS = ("auto", *GL_BACKENDS, "rays")
PROBE_SECONDS = 20.0
MAX_PIXELS = 4096  # a side
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software", "swiftshader")
OFF = ("disable", "disabled", "off", "false", "0")

# Run by the child process: draws a grey box and prints who drew it.
_PROBE = """
import importlib, sys
import mujoco
gl = importlib.import_module("mujoco." + sys.argv[1])
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom type="box" size="1 1 1"/></worldbody></mujoco>')
data, scene, camera = mujoco.MjData(model), mujoco.MjvScene(model, 10), mujoco.MjvCamera()
mujoco.mj_forward(model, data)
mujoco.mjv_defaultFreeCamera(model, camera)
context = gl.GLContext(32, 32)
context.make_current()
from OpenGL import GL
name = GL.glGetString(GL.GL_RENDERER).decode()
draw = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, draw)
mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
import numpy as np
pixels, rect = np.zeros((32, 32, 3), np.uint8), mujoco.MjrRect(0, 0, 32, 32)
mujoco.mjr_render(rect, scene, draw)
mujoco.mjr_readPixels(pixels, None, rect, draw)
assert pixels.max() > 20, "the picture stayed black"
print("drawn by", name, flush=True)
"""


class RenderError(ValueError):
    """A renderer was asked for something it can't do; the sentence says what would work."""


class Renderer(ABC):
    """Draws states of one model from one camera; `close()` it, or use it in a `with` statement."""

    backend: str
    model: mujoco.MjModel
    width: int
    height: int
    camera: str
    reason: str  # why this backend

    def render(self, qpos: ArrayLike, lamp_lit: ArrayLike | None = None) -> NDArray[np.uint8]:
        """Pictures uint8[n, h, w, 3] of joint positions `qpos` [n, nq].

        `lamp_lit` bool[n] says where the geom named `lamp` is bright yellow; by default it is dark.
        Raises RenderError for arrays of another shape or positions that are not finite.
        """
        states = self._states(qpos)
        lit = np.zeros(len(states), np.bool_) if lamp_lit is None else np.asarray(lamp_lit, np.bool_)
        if lit.shape != (len(states),):
            raise RenderError(f"lamp_lit has shape {lit.shape}; ({len(states)},), one a state, is needed.")
        return self._render(states, lit)

    def depth(self, qpos: ArrayLike) -> NDArray[np.float32]:
        """Distances float32[n, h, w] along the camera's axis in metres, inf where there is nothing."""
        return self._measure(self._states(qpos))[0]

    def segmentation(self, qpos: ArrayLike) -> NDArray[np.int32]:
        """Geom ids int32[n, h, w], -1 where there is nothing."""
        return self._measure(self._states(qpos))[1]

    def describe(self) -> str:
        """One line: backend, why, size and camera."""
        size = f"{self.width}x{self.height}"
        return f"renderer {self.backend} ({self.reason}), {size} pixels, camera {self.camera!r}"

    @abstractmethod
    def close(self) -> None:
        """Frees threads and graphics memory; may be called twice."""

    @abstractmethod
    def _render(self, qpos: NDArray[np.float64], lit: NDArray[np.bool_]) -> NDArray[np.uint8]: ...

    @abstractmethod
    def _measure(self, qpos: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]: ...

    def _states(self, qpos: ArrayLike) -> NDArray[np.float64]:
        states = np.ascontiguousarray(qpos, np.float64)
        if states.ndim != 2 or states.shape[1] != self.model.nq:
            raise RenderError(f"qpos has shape {states.shape}; (n, {self.model.nq}) is needed.")
        if not np.isfinite(states).all():
            raise RenderError("qpos holds values that are not finite; only finite joint positions can be drawn.")
        return states

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_renderer(
    model: mujoco.MjModel,
    width: int = 240,
    height: int = 240,
    camera: str | None = None,
    backend: str = "auto",
    *,
    shadows: bool = True,
    antialias: bool = True,
) -> Renderer:
    """A renderer of `width` x `height` pixels (at most 4096 each) for `model`.

    `camera` names one of the model's cameras, by default `front` or else the first one. `backend` is one of
    `BACKENDS`; see the module's docstring for what `auto` chooses. Pictures to learn from are drawn several
    times as fast without `shadows` and `antialias`. Raises RenderError for an unknown camera or backend, a
    backend that does not work here, and a size out of range.
    """
    if not (1 <= width <= MAX_PIXELS and 1 <= height <= MAX_PIXELS):
        raise RenderError(f"A picture can't have {width}x{height} pixels; each side must be 1 to {MAX_PIXELS}.")
    if backend not in BACKENDS:
        raise RenderError(f"There is no backend {backend!r}; the backends are: {', '.join(BACKENDS)}.")
    name = _camera(model, camera)
    chosen, reason = _choose(backend)
    kind = _RaysRenderer if chosen == "rays" else _GLRenderer
    return kind(model, width, height, name, chosen, reason, shadows, antialias)


def _camera(model: mujoco.MjModel, name: str | None) -> str:
    names = [model.camera(i).name for i in range(model.ncam)]
    if name is None and names:
        name = "front" if "front" in names else names[0]
    if name is None or name not in names:
        known = ", ".join(repr(n) for n in names) or "none"
        raise RenderError(f"The model has no camera {name!r}; its cameras are: {known}.")
    return name


def _choose(backend: str) -> tuple[str, str]:
    """The backend to use and why, in a few words."""
    rays = "ray casting on the processor, no GL needed"
    if backend == "rays":
        return backend, rays
    if backend != "auto":
        works, words = probe(backend)
        if not works:
            raise RenderError(f"The backend {backend!r} does not work here ({words}); 'rays' works without GL.")
        return backend, words
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in GL_BACKENDS:
        works, words = probe(wanted)
        if works:
            return wanted, f"named by MUJOCO_GL; {words}"
        return "rays", f"{rays}; MUJOCO_GL={wanted} does not work: {words}"
    if wanted in OFF:
        return "rays", f"{rays}; MUJOCO_GL={wanted}"
    if not any(glob.glob(nodes) for nodes in ("/dev/dri/renderD*", "/dev/nvidia[0-9]*", "/dev/dxg")):
        return "rays", f"{rays}; no GPU found"
    works, words = probe("egl")
    if works and not any(word in words.lower() for word in SOFTWARE):
        return "egl", words
    return "rays", f"{rays}; EGL {'only emulates a GPU: ' if works else 'does not work: '}{words}"


@functools.cache
def probe(backend: str) -> tuple[bool, str]:
    """Whether an OpenGL backend draws a picture in a child process, and who drew it or what went wrong."""
    environment = {**os.environ, "MUJOCO_GL": "disabled", "LP_NUM_THREADS": "0"}
    environment.pop("PYOPENGL_PLATFORM", None)
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, backend]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"no picture after {PROBE_SECONDS:.0f} s"
    except OSError as error:
        return False, f"no child process: {error}"
    lines = child.stdout.strip().splitlines()
    if child.returncode == 0 and lines:
        return True, lines[-1]
    said = child.stderr.strip().splitlines()
    return False, said[-1][:120] if said else f"exit status {child.returncode}"


class _RaysRenderer(Renderer):
    def __init__(self, model, width, height, camera, backend, reason, shadows, antialias):
        self.model, self.width, self.height = model, width, height
        self.camera, self.backend, self.reason = camera, backend, reason
        view = model.camera(camera)
        if model.cam_projection[view.id] or model.cam_sensorsize[view.id].any():
            raise RenderError(f"The camera {camera!r} has no plain fovy; 'rays' draws no other kind, 'egl' does.")
        self._caster = Caster(model, width, height, view.id, shadows, antialias)

    def _render(self, qpos, lit):
        return self._caster.image(qpos, lit)

    def _measure(self, qpos):
        return self._caster.measure(qpos)

    def close(self) -> None:
        self._caster.close()


class _GLRenderer(Renderer):
    """MuJoCo's classic OpenGL renderer. A context belongs to the thread that created it."""

    def __init__(self, model, width, height, camera, backend, reason, shadows, antialias):
        self.model = model = copy.copy(model)
        self.width, self.height, self.camera, self.backend, self.reason = (
            width,
            height,
            camera,
            backend,
            reason,
        )
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, 1024)  # the cost of software GL
        model.vis.quality.offsamples = 4 if antialias else 0
        self._lamp = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "lamp")
        self._context: Any = None
        self._draw: Any = None
        threads = os.environ.get("LP_NUM_THREADS")
        os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe's own threads slow small pictures down
        try:
            self._context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
            self._context.make_current()
            self._draw = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            self.close()
            raise RenderError(f"The backend {backend!r} failed ({error}); 'rays' works without GL.") from error
        finally:
            if threads is None:
                del os.environ["LP_NUM_THREADS"]
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._draw)
        self._draw.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._data, self._scene = mujoco.MjData(model), mujoco.MjvScene(model, 1000)
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id

    def _show(self, qpos: NDArray[np.float64], lit: bool) -> None:
        if self._draw is None:
            raise RenderError("The renderer is closed; make another one.")
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        parts = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, self._data, self._option, None, self._camera, parts, self._scene)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if self._lamp >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid == self._lamp:
                geom.rgba[:3] = LAMP_LIT if lit else LAMP_DARK
                geom.emission = 1.0 if lit else 0.0
        self._context.make_current()

    def _render(self, qpos, lit):
        out = np.empty((len(qpos), self.height, self.width, 3), np.uint8)
        for i in range(len(qpos)):
            self._show(qpos[i], bool(lit[i]))
            pixels = np.empty(out.shape[1:], np.uint8)
            mujoco.mjr_render(self._rect, self._scene, self._draw)
            mujoco.mjr_readPixels(pixels, None, self._rect, self._draw)
            out[i] = pixels[::-1]
        return out

    def _measure(self, qpos):
        depth = np.empty((len(qpos), self.height, self.width), np.float32)
        ids = np.empty(depth.shape, np.int32)
        near = self.model.vis.map.znear * self.model.stat.extent
        far = self.model.vis.map.zfar * self.model.stat.extent
        before = self._scene.flags.copy()
        for i in range(len(qpos)):
            self._show(qpos[i], False)
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
            self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
            pixels, raw = np.empty((*ids.shape[1:], 3), np.uint8), np.empty(ids.shape[1:], np.float32)
            mujoco.mjr_render(self._rect, self._scene, self._draw)
            mujoco.mjr_readPixels(pixels, raw, self._rect, self._draw)
            self._scene.flags[:] = before
            number = (pixels.astype(np.int32) << np.array([0, 8, 16])).sum(-1)  # 0 is the background
            geom_of = np.full(self._scene.ngeom + 1, -1, np.int32)
            for geom in self._scene.geoms[: self._scene.ngeom]:
                if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                    geom_of[geom.segid + 1] = geom.objid
            ids[i] = geom_of[number][::-1]
            closeness = raw[::-1].astype(np.float64)  # reversed: 1 at the near plane, 0 at the far one
            metres = near * far / (near + closeness * (far - near))
            depth[i] = np.where(ids[i] < 0, np.inf, metres)
        return depth, ids

    def close(self) -> None:
        if self._draw is not None:
            self._context.make_current()
            self._draw.free()
            self._draw = None
        if self._context is not None:
            self._context.free()
            self._context = None
