"""Pictures: right against MuJoCo's own rays and closed forms, always the same, possible without any GL."""

from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from envs import rendering
from envs.rendering import RenderError, make_renderer

SCENE = """
<mujoco>
  <option><flag sleep="enable"/></option>
  <asset>
    <texture name="squares" type="2d" builtin="checker" width="64" height="64" rgb1="1 0 0" rgb2="0 0 1"/>
    <material name="squares" texture="squares" texrepeat="1 1" texuniform="true"/>
  </asset>
  <worldbody>
    <light pos="0 0 4" dir="0 0 -1" type="directional"/>
    <camera name="other" pos="0 -2 1" xyaxes="1 0 0 0 0.5 1"/>
    <camera name="front" pos="2 0 1.2" xyaxes="0 1 0 -.5 0 1"/>
    <camera name="above" pos="0 0 2" fovy="60"/>
    <geom name="floor" type="plane" size="1.5 1.5 .1" rgba=".6 .6 .6 1" {floor}/>
    <geom name="lamp" type="sphere" size=".1" pos="0 .8 .3"/>
    <geom name="hidden" type="box" size=".3 .3 .3" pos="0 -.8 .3" group="3"/>
    <geom name="clear" type="box" size=".3 .3 .3" pos="0 -.8 .3" rgba="1 1 1 0"/>
    <body pos="0 0 .2"><freejoint/><geom name="box" type="box" size=".2 .1 .05" rgba="0 .8 0 1"/></body>
    <body pos="-.5 0 .3"><joint name="swing" axis="0 1 0"/>
      <geom name="rod" type="capsule" size=".04" fromto="0 0 0 .1 0 .6"/>
      <body pos=".1 0 .6"><joint axis="1 0 0"/><geom name="plate" type="cylinder" size=".15 .01"/></body>
    </body>
  </worldbody>
</mujoco>
"""


def build(floor: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(SCENE.replace("{floor}", floor))


def states(model: mujoco.MjModel, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    qpos = np.repeat(model.qpos0[None], n, 0)
    qpos[:, :3] += rng.uniform(-0.4, 0.4, (n, 3)) * (1, 1, 0.2)
    qpos[:, 3:7] = rng.normal(size=(n, 4))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qpos[:, 7:] = rng.uniform(-1, 1, (n, 2))
    return qpos


def geom(model: mujoco.MjModel, name: str) -> int:
    return model.geom(name).id


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build()


def test_depth_and_geoms_agree_with_mujocos_single_rays(model):
    """The culling may not change what a ray meets: every fourth pixel of three states against mj_ray."""
    size, qpos = 48, states(model, 3)
    with make_renderer(model, size, size, "front", "rays") as renderer:
        depth, ids = renderer.depth(qpos), renderer.segmentation(qpos)
    data = mujoco.MjData(model)
    camera, found = model.camera("front").id, np.zeros(1, np.int32)
    tangent = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    for i in range(3):
        data.qpos[:] = qpos[i]
        mujoco.mj_forward(model, data)
        turn = data.cam_xmat[camera].reshape(3, 3)
        for row in range(0, size, 4):
            for column in range(0, size, 4):
                x, y = (2 * column + 1 - size) / size * tangent, (size - 2 * row - 1) / size * tangent
                local = np.array([x, y, -1])
                far = mujoco.mj_ray(model, data, data.cam_xpos[camera], turn @ local, groups, 1, -1, found)
                assert ids[i, row, column] == found[0]
                assert depth[i, row, column] == pytest.approx(far if far >= 0 else np.inf, rel=1e-5)
    assert {geom(model, n) for n in ("floor", "box", "rod", "plate", "lamp")} | {-1} == set(np.unique(ids))


def test_depth_of_the_floor_from_above_is_the_cameras_height():
    model = build()
    with make_renderer(model, 32, 16, "above", "rays") as renderer:
        depth, ids = renderer.depth(model.qpos0[None]), renderer.segmentation(model.qpos0[None])
    floor = ids == geom(model, "floor")
    assert depth.shape == (1, 16, 32) and depth.dtype == np.float32 and ids.dtype == np.int32
    assert floor.sum() > 100 and np.allclose(depth[floor], 2.0, atol=1e-6)
    assert np.isinf(depth[ids < 0]).all()
    assert ids[0, 8, 16] == geom(model, "box")
    assert depth[0, 8, 16] == pytest.approx(2.0 - 0.25, abs=1e-6)


def test_same_states_same_pixels_in_any_batch_and_on_one_thread(model):
    qpos, lit = states(model, 5), np.arange(5) % 2 == 1
    with make_renderer(model, 84, 84, backend="rays") as renderer:
        batch = renderer.render(qpos, lit)
        again = renderer.render(qpos, lit)
        alone = np.concatenate([renderer.render(qpos[i : i + 1], lit[i : i + 1]) for i in range(5)])
        renderer.close()  # leaves one thread
        single = renderer.render(qpos, lit)
    assert batch.shape == (5, 84, 84, 3) and batch.dtype == np.uint8
    assert (batch == again).all() and (batch == alone).all() and (batch == single).all()
    assert (batch[0] != batch[1]).any()


def test_more_states_than_fit_at_once(model, monkeypatch):
    qpos = states(model, 7)
    with make_renderer(model, 40, 30, backend="rays") as renderer:
        whole = renderer.render(qpos)
    monkeypatch.setattr("envs.raycast.RAYS", 2500)
    with make_renderer(model, 40, 30, backend="rays") as renderer:
        assert (renderer.render(qpos) == whole).all()
        assert renderer.render(qpos[:0]).shape == (0, 30, 40, 3)


def test_lamp_is_yellow_when_lit_and_dark_when_not(model):
    qpos = np.repeat(model.qpos0[None], 2, 0)
    with make_renderer(model, 80, 80, backend="rays") as renderer:
        pictures = renderer.render(qpos, np.array([True, False])).astype(int)
        lamp = renderer.segmentation(qpos)[0] == geom(model, "lamp")
        assert (renderer.render(qpos)[0] == pictures[1]).all()
    inner = lamp & np.roll(lamp, 2, 0) & np.roll(lamp, -2, 0) & np.roll(lamp, 2, 1) & np.roll(lamp, -2, 1)
    red, green, blue = pictures[0][inner].T
    assert inner.any() and red.min() > 180 and green.min() > 150 and blue.max() < 60
    assert np.median(pictures[1][inner]) < 100


def test_shadow_falls_under_the_box_and_edges_are_smoothed(model):
    sharp, plain, smooth = (
        make_renderer(model, 60, 60, "above", "rays", shadows=s, antialias=a)
        for s, a in ((True, False), (False, False), (True, True))
    )
    qpos = model.qpos0[None].copy()
    qpos[:, 2] = 1.0
    front = [r.render(qpos)[0].astype(int) for r in (sharp, plain, smooth)]
    floor = sharp.segmentation(qpos)[0] == geom(model, "floor")
    darker = (front[0].sum(-1) < front[1].sum(-1) - 30) & floor
    assert 0 < darker.sum() < 0.2 * floor.sum()
    assert len(np.unique(front[2].reshape(-1, 3), axis=0)) > len(np.unique(front[0].reshape(-1, 3), axis=0))
    for renderer in (sharp, plain, smooth):
        renderer.close()


def test_plane_shows_its_texture():
    model = build('material="squares"')
    model.geom_rgba[geom(model, "floor")] = 0.5, 0.5, 0.5, 1.0  # the default: the material's colour counts
    with make_renderer(model, 200, 200, "above", "rays", shadows=False, antialias=False) as renderer:
        picture = renderer.render(model.qpos0[None])[0].astype(int)
    # The checker has 2 x 2 squares a metre: opposite colours half a metre apart, equal ones a metre apart.
    pixel = 2 * 2 * np.tan(np.deg2rad(30)) / 200
    row = round(100 - 0.6 / pixel)
    first, half, whole = (picture[row, round(100 + x / pixel)] for x in (-0.6, -0.1, 0.4))
    assert np.argmax(first) != np.argmax(half) and np.argmax(first) == np.argmax(whole)


def test_wrong_requests_name_the_valid_ones(model):
    with pytest.raises(RenderError, match="'front'"):
        make_renderer(model, camera="behind", backend="rays")
    with pytest.raises(RenderError, match="osmesa"):
        make_renderer(model, backend="vulkan")
    with pytest.raises(RenderError, match="4096"):
        make_renderer(model, 0, 10, backend="rays")
    with make_renderer(model, 8, 8, backend="rays") as renderer:
        words = renderer.describe()
        assert "rays" in words and "front" in words and "\n" not in words
        with pytest.raises(RenderError, match=rf"\(n, {model.nq}\)"):
            renderer.render(model.qpos0)
        with pytest.raises(RenderError, match="finite"):
            renderer.render(np.full((1, model.nq), np.nan))
        with pytest.raises(RenderError, match="lamp_lit"):
            renderer.render(model.qpos0[None], np.zeros(3, bool))


def test_rays_need_no_gl_library():
    """In a fresh process in which every import of a GL binding fails."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("OpenGL", "glfw") or name in ("mujoco.egl", "mujoco.osmesa", "mujoco.glfw"):
            raise ImportError("no GL here: " + name)
sys.meta_path.insert(0, Missing())
import mujoco
from envs.rendering import make_renderer
model = mujoco.MjModel.from_xml_string(sys.stdin.read())
renderer = make_renderer(model, 32, 32)
picture = renderer.render(model.qpos0[None])
assert "OpenGL" not in sys.modules and picture.std() > 5
print(renderer.backend)
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(rendering.__file__)))
    environment = {**os.environ, "MUJOCO_GL": "disabled", "PYTHONPATH": root}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=SCENE.replace("{floor}", ""), env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (child.returncode, child.stdout, child.stderr) == (0, "rays\n", "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "no picture"),
        ("import os; os.abort()", "exit status"),
        ("1 / 0", "Zero"),
    ],
)
def test_a_driver_that_hangs_or_crashes_means_rays(model, monkeypatch, code, words):
    monkeypatch.setattr(rendering, "_PROBE", code)
    monkeypatch.setattr(rendering, "PROBE_SECONDS", 0.7)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    rendering.probe.cache_clear()
    try:
        with make_renderer(model, 8, 8) as renderer:
            assert renderer.backend == "rays" and words in renderer.describe()
        with pytest.raises(RenderError, match="'rays' works"):
            make_renderer(model, 8, 8, backend="egl")
    finally:
        rendering.probe.cache_clear()


def test_auto_prefers_rays_to_an_emulated_gpu(model, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering.glob, "glob", lambda pattern: [pattern])
    monkeypatch.setattr(rendering, "probe", lambda backend: (True, "drawn by llvmpipe"))
    assert rendering._choose("auto")[0] == "rays"
    monkeypatch.setattr(rendering, "probe", lambda backend: (True, "drawn by a real GPU"))
    assert rendering._choose("auto") == ("egl", "drawn by a real GPU")
    monkeypatch.setattr(rendering.glob, "glob", lambda pattern: [])
    assert rendering._choose("auto")[0] == "rays"


def test_gl_draws_the_same_scene(model):
    if not rendering.probe("egl")[0]:
        pytest.skip("EGL does not work here")
    qpos, lit = states(model, 2), np.array([True, False])
    rays, gl = (make_renderer(model, 96, 64, backend=name) for name in ("rays", "egl"))
    with rays, gl:
        same = rays.segmentation(qpos) == gl.segmentation(qpos)
        assert same.mean() > 0.99
        solid = same & (rays.segmentation(qpos) >= 0)
        assert np.median(np.abs(rays.depth(qpos)[solid] - gl.depth(qpos)[solid])) < 1e-3
        lamp = rays.segmentation(qpos)[0] == geom(model, "lamp")
        red, _, blue = np.median(gl.render(qpos, lit)[0][lamp], axis=0)
        assert blue < 90 < red
        assert gl.render(qpos, lit).shape == rays.render(qpos, lit).shape
