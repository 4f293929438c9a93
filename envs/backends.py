"""Which way of drawing works on this machine, and why it was chosen.

`rays` casts rays on the processor (`envs.raycast`): no graphics library, the same pixels everywhere. `egl`, `osmesa`
and `glfw` are the system's OpenGL (`envs.gl`). `auto` decides as follows:

1. `MUJOCO_GL` names `egl`, `osmesa` or `glfw`: that one where it works, else `rays`; `disabled` means `rays`.
2. `MUJOCO_GL` is unset and there is a GPU (Linux): EGL where it works **and draws on the GPU**. OpenGL
   emulated on the processor is about as fast as `rays` without shadows, far slower with them, and differs from
   driver to driver, so it is taken only when asked for.
3. Everywhere else `rays`.

Whether a backend works is found out by drawing a small picture in a child process with a time limit, once a
process: a driver that crashes or hangs takes only the child with it. `MUJOCO_GL` need not be set before
mujoco is imported, since the context is created here and not by `mujoco.Renderer`. With `MUJOCO_GL` set to a
library that is missing, `import mujoco` itself fails: `import_mujoco`, called first, gets around that.
"""

from __future__ import annotations

import functools
import glob
import importlib
import os
import subprocess
import sys

__all__ = ["BACKENDS", "GL_BACKENDS", "RAYS", "RenderError", "choose", "import_mujoco", "probe"]

GL_BACKENDS = ("egl", "osmesa", "glfw")
BACKENDS = ("auto", *GL_BACKENDS, "rays")
PROBE_SECONDS = 20.0
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software", "swiftshader")
OFF = ("disable", "disabled", "off", "false", "0")
_NO_LIBRARY = "AttributeError: 'NoneType' object has no attribute"
RAYS = "ray casting on the processor, no GL needed"

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


def choose(backend: str) -> tuple[str, str]:
    """The backend to use for one of `BACKENDS` and why, in a few words.

    Raises RenderError for an unknown backend, and for one named here (not `auto`) that does not work.
    """
    if backend not in BACKENDS:
        raise RenderError(f"There is no backend {backend!r}; the backends are: {', '.join(BACKENDS)}.")
    if backend == "rays":
        return backend, RAYS
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
        return "rays", f"{RAYS}; MUJOCO_GL={wanted} does not work: {words}"
    if wanted in OFF:
        return "rays", f"{RAYS}; MUJOCO_GL={wanted}"
    if not any(glob.glob(nodes) for nodes in ("/dev/dri/renderD*", "/dev/nvidia[0-9]*", "/dev/dxg")):
        return "rays", f"{RAYS}; no GPU found"
    works, words = probe("egl")
    if works and not any(word in words.lower() for word in SOFTWARE):
        return "egl", words
    return "rays", f"{RAYS}; EGL {'only emulates a GPU: ' if works else 'does not work: '}{words}"


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
    if said and said[-1].startswith(_NO_LIBRARY):  # what PyOpenGL says for want of a better word
        return False, "its library is not installed, or gives no context here"
    return False, said[-1][:120] if said else f"exit status {child.returncode}"


def import_mujoco() -> None:
    """Imports mujoco, also where `MUJOCO_GL` names a library that is missing: then without its own GL context.

    Nothing here needs that context, and what is said about drawing (`choose`) still goes by `MUJOCO_GL`.
    """
    wanted = os.environ.get("MUJOCO_GL", "")
    platform = os.environ.get("PYOPENGL_PLATFORM")
    try:
        importlib.import_module("mujoco")
    except (ImportError, AttributeError, RuntimeError):  # what the bindings raise for a missing library
        if wanted.lower().strip() not in GL_BACKENDS:
            raise
        if platform is None:
            os.environ.pop("PYOPENGL_PLATFORM", None)  # set by the attempt
        os.environ["MUJOCO_GL"] = "disabled"
        try:
            importlib.import_module("mujoco")
        finally:
            os.environ["MUJOCO_GL"] = wanted
