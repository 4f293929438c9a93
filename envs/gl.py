"""Pictures by the system's OpenGL: MuJoCo's classic renderer in a context of our own (see `envs.rendering`).

The scene of a state is built once and drawn from every camera. A context belongs to the thread that created it.
"""

from __future__ import annotations

import copy
import importlib
import os
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.backends import RenderError
from envs.look import Look, geom_rgba, shining

__all__ = ["GLPainter"]

SHADOW_PIXELS = 1024  # a side of the shadow map at most: what software GL spends most of its time on
SAMPLES = 4
SMALL = 128  # pixels a side up to which round shapes need few facets, which are what small pictures cost
FACETS = (16, 8, 2)  # slices, stacks, quads a side: masks differ from fine ones in less than 0.2 % of 84² pixels
_FLAGS = mujoco.mjtRndFlag
_GEOM = int(mujoco.mjtObj.mjOBJ_GEOM)


class GLPainter:
    """Draws from the cameras `cameras` (ids) with `backend`, one of `envs.backends.GL_BACKENDS`.

    Raises RenderError where no context can be made.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, cameras: list[int], backend: str,
        shadows: bool, antialias: bool,
    ):  # fmt: skip
        self.model = model = copy.copy(model)
        self.width, self.height, self.backend = width, height, backend
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, SHADOW_PIXELS)
        model.vis.quality.offsamples = SAMPLES if antialias else 0
        if max(width, height) <= SMALL:
            quality = model.vis.quality
            quality.numslices, quality.numstacks, quality.numquads = FACETS
        self._rgb = geom_rgba(model)[:, :3].astype(np.float64)
        self._context: Any = None
        self._draw: Any = None
        self._create()
        self._data, self._scene = mujoco.MjData(model), mujoco.MjvScene(model, model.ngeom + 1000)
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._scene.flags[_FLAGS.mjRND_SHADOW] = shadows
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._cameras = []
        for camera in cameras:
            view = mujoco.MjvCamera()
            view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
            self._cameras.append(view)
        self._places: dict[int, int] = {}  # geom → its place in the scene
        self._pixels = np.empty((height, width, 3), np.uint8)

    def image(self, qpos: NDArray[np.float64], look: Look) -> NDArray[np.uint8]:
        """Pictures uint8[n, C, h, w, 3] of the states `qpos` [n, nq]."""
        out = np.empty((len(qpos), len(self._cameras), self.height, self.width, 3), np.uint8)
        for i in range(len(qpos)):
            self._show(qpos[i])
            self._paint(look, i)
            for c in range(len(self._cameras)):
                self._aim(look, i, c)
                mujoco.mjr_render(self._rect, self._scene, self._draw)
                mujoco.mjr_readPixels(self._pixels, None, self._rect, self._draw)
                out[i, c] = self._pixels[::-1]
        return out

    def measure(self, qpos: NDArray[np.float64], look: Look) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth float32 [n, C, h, w] in metres (inf for nothing) and geom ids int32 [n, C, h, w] (-1)."""
        depth = np.empty((len(qpos), len(self._cameras), self.height, self.width), np.float32)
        ids = np.empty(depth.shape, np.int32)
        near = self.model.vis.map.znear * self.model.stat.extent
        far = self.model.vis.map.zfar * self.model.stat.extent
        raw = np.empty((self.height, self.width), np.float32)
        before = self._scene.flags.copy()
        self._scene.flags[_FLAGS.mjRND_SEGMENT] = self._scene.flags[_FLAGS.mjRND_IDCOLOR] = True
        for i in range(len(qpos)):
            self._show(qpos[i])
            shown = self._scene.geoms[: self._scene.ngeom]
            geom_of = np.full(len(shown) + 1, -1, np.int32)  # 0 is the background
            for geom in shown:
                if geom.segid >= 0 and geom.objtype == _GEOM:
                    geom_of[geom.segid + 1] = geom.objid
            for c in range(len(self._cameras)):
                self._aim(look, i, c)
                mujoco.mjr_render(self._rect, self._scene, self._draw)
                mujoco.mjr_readPixels(self._pixels, raw, self._rect, self._draw)
                number = self._pixels.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
                ids[i, c] = geom_of[number][::-1]
                # reversed: 1 at the near plane, 0 at the far one
                depth[i, c] = near * far / (near + raw[::-1].astype(np.float64) * (far - near))
        self._scene.flags[:] = before
        depth[ids < 0] = np.inf
        return depth, ids

    def close(self) -> None:
        """Frees the context; may be called twice."""
        if self._draw is not None:
            self._context.make_current()
            self._draw.free()
            self._draw = None
        if self._context is not None:
            self._context.free()
            self._context = None

    def _create(self) -> None:
        """Makes the context and what MuJoCo keeps in it."""
        threads = os.environ.get("LP_NUM_THREADS")
        os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe's own threads slow small pictures down
        try:
            self._context = importlib.import_module(f"mujoco.{self.backend}").GLContext(self.width, self.height)
            self._context.make_current()
            self._draw = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
            self.close()
            raise RenderError(f"the backend {self.backend!r} failed ({error}); 'rays' works without GL") from error
        finally:
            if threads is None:
                del os.environ["LP_NUM_THREADS"]
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._draw)
        self._draw.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR

    def _show(self, qpos: NDArray[np.float64]) -> None:
        """Builds the scene of a state, as the first camera would see it."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        parts = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, self._data, self._option, None, self._cameras[0], parts, self._scene)
        self._context.make_current()

    def _paint(self, look: Look, state: int) -> None:
        """Gives the scene's geoms the colours of a state, and lights the lamps."""
        for k, g in enumerate(look.painted.tolist()):
            self._geom(g).rgba[:3] = look.colours[state, k]
        for k, g in enumerate(look.lamps.tolist()):
            if look.lit[state, k]:
                own = look.colours[state, look.painted == g]
                geom = self._geom(g)
                geom.rgba[:3] = shining(own[0] if len(own) else self._rgb[g])
                geom.emission = 1.0

    def _geom(self, geom: int) -> Any:
        """A geom of the model in the scene; where it stands there hardly ever changes."""
        shown = self._scene.geoms
        place = self._places.get(geom, -1)
        if not (0 <= place < self._scene.ngeom and shown[place].objid == geom and shown[place].objtype == _GEOM):
            places = {x.objid: i for i, x in enumerate(shown[: self._scene.ngeom]) if x.objtype == _GEOM}
            self._places = places
            place = places.get(geom, -1)
        return shown[place] if place >= 0 else mujoco.MjvGeom()  # not drawn: what is painted is thrown away

    def _aim(self, look: Look, state: int, camera: int) -> None:
        """Looks through a camera, moved as the state asks for; the headlight goes with it."""
        if len(self._cameras) == 1 and not look.moved:
            return
        mujoco.mjv_updateCamera(self.model, self._data, self._cameras[camera], self._scene)
        if look.moved:
            axes = self._data.cam_xmat[self._cameras[camera].fixedcamid].reshape(3, 3)
            turned = axes @ look.turn[state, camera]
            for eye in self._scene.camera:
                eye.pos[:] += axes @ look.offset[state, camera]
                eye.forward[:], eye.up[:] = -turned[:, 2], turned[:, 1]
        eye = self._scene.camera[0]
        for light in self._scene.lights[: self._scene.nlight]:
            if light.headlight:
                light.pos[:], light.dir[:] = eye.pos, eye.forward
