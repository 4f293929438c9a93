"""Pictures: right against MuJoCo's own rays and closed forms, always the same, possible without any GL."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import mujoco
import numpy as np
import pytest

from envs import backends
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
    <geom name="lamp" type="sphere" size=".1" pos="0 .8 .3" rgba=".30 .29 .24 1"/>
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
                assert ids[i, 0, row, column] == found[0]
                assert depth[i, 0, row, column] == pytest.approx(far if far >= 0 else np.inf, rel=1e-5)
    assert {geom(model, n) for n in ("floor", "box", "rod", "plate", "lamp")} | {-1} == set(np.unique(ids))


def test_depth_of_the_floor_from_above_is_the_cameras_height():
    model = build()
    with make_renderer(model, 32, 16, "above", "rays") as renderer:
        depth, ids = renderer.depth(model.qpos0[None]), renderer.segmentation(model.qpos0[None])
    floor = ids == geom(model, "floor")
    assert depth.shape == (1, 1, 16, 32) and depth.dtype == np.float32 and ids.dtype == np.int32
    assert floor.sum() > 100 and np.allclose(depth[floor], 2.0, atol=1e-6)
    assert np.isinf(depth[ids < 0]).all()
    assert ids[0, 0, 8, 16] == geom(model, "box")
    assert depth[0, 0, 8, 16] == pytest.approx(2.0 - 0.25, abs=1e-6)


def test_same_states_same_pixels_in_any_batch_and_on_one_thread(model):
    qpos, lit = states(model, 5), np.arange(5) % 2 == 1
    with make_renderer(model, 84, 84, backend="rays", threads=3) as renderer:
        batch = renderer.render(qpos, {"lamp": lit})
        again = renderer.render(qpos, {"lamp": lit})
        alone = np.concatenate([renderer.render(qpos[i : i + 1], {"lamp": lit[i : i + 1]}) for i in range(5)])
    with make_renderer(model, 84, 84, backend="rays", threads=1) as renderer:
        single = renderer.render(qpos, {"lamp": lit})
    assert batch.shape == (5, 1, 84, 84, 3) and batch.dtype == np.uint8
    assert (batch == again).all() and (batch == alone).all() and (batch == single).all()
    assert (batch[0] != batch[1]).any()


def test_several_cameras_are_what_each_shows_alone(model):
    qpos, names = states(model, 3), ("above", "front", "other")
    with make_renderer(model, 40, 30, names, "rays") as renderer:
        pictures, (depth, ids) = renderer.render(qpos), renderer.measure(qpos)
        assert "'above', 'front', 'other'" in renderer.describe()
    assert pictures.shape == (3, 3, 30, 40, 3) and depth.shape == ids.shape == (3, 3, 30, 40)
    for c, name in enumerate(names):
        with make_renderer(model, 40, 30, name, "rays") as renderer:
            assert (renderer.render(qpos)[:, 0] == pictures[:, c]).all()
            assert (renderer.depth(qpos)[:, 0] == depth[:, c]).all()
            assert (renderer.segmentation(qpos)[:, 0] == ids[:, c]).all()


def test_cameras_move_with_each_state(model):
    """A camera above that is shifted, raised and turned sees what the geometry says."""
    qpos = np.repeat(model.qpos0[None], 3, 0)
    qpos[:, 0] = 5.0  # the box out of sight
    offset = np.array([(0.0, 0.0, 0.0), (0.0, 0.0, 0.5), (0.2, 0.0, 0.0)])
    with make_renderer(model, 64, 64, ("above", "front"), "rays") as renderer:
        depth, ids = renderer.measure(qpos, offset[:, None] * np.array([1, 0])[None, :, None])
        floor = ids == geom(model, "floor")
        assert np.allclose(depth[0, 0][floor[0, 0]], 2.0, atol=1e-6)
        assert np.allclose(depth[1, 0][floor[1, 0]], 2.5, atol=1e-6)
        lamp = [np.argwhere(ids[i, 0] == geom(model, "lamp")).mean(0) for i in range(3)]
        metre = 32 / (np.tan(np.deg2rad(30)) * (2.0 - 0.3))  # pixels
        assert lamp[2] - lamp[0] == pytest.approx((0, -0.2 * metre), abs=0.6)
        assert (ids[0, 1] == ids[2, 1]).all()  # the other camera stood still
        half = np.array([(1.0, 0, 0, 0), (0.0, 0, 0, 1.0), (1.0, 0, 0, 0)])  # half a turn about its axis
        turned = renderer.segmentation(qpos, camera_turn=half)
        assert (turned[1, 0] == turned[0, 0][::-1, ::-1]).mean() > 0.99
        assert (renderer.render(qpos, camera_turn=half)[0] == renderer.render(qpos)[0]).all()


def test_more_states_than_fit_at_once(model, monkeypatch):
    qpos = states(model, 7)
    with make_renderer(model, 40, 30, backend="rays") as renderer:
        whole = renderer.render(qpos)
    monkeypatch.setattr("envs.raycast.RAYS", 2500)
    with make_renderer(model, 40, 30, backend="rays") as renderer:
        assert (renderer.render(qpos) == whole).all()
        assert renderer.render(qpos[:0]).shape == (0, 1, 30, 40, 3)


def inside(mask: np.ndarray) -> np.ndarray:
    """A mask [h, w] without its rim."""
    return mask & np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)


def test_lamp_is_yellow_when_lit_and_dark_when_not(model):
    qpos = np.repeat(model.qpos0[None], 2, 0)
    with make_renderer(model, 80, 80, backend="rays") as renderer:
        pictures = renderer.render(qpos, {"lamp": np.array([True, False])}).astype(int)
        lamp = inside(renderer.segmentation(qpos)[0, 0] == geom(model, "lamp"))
        assert (renderer.render(qpos)[0] == pictures[1]).all()
    red, green, blue = pictures[0, 0][lamp].T
    assert lamp.any() and red.min() > 180 and green.min() > 150 and blue.max() < 60
    assert np.median(pictures[1, 0][lamp]) < 100


def test_any_geoms_may_be_lamps_and_any_have_colours_of_their_own(model):
    qpos = np.repeat(model.qpos0[None], 2, 0)
    colours = {"plate": np.array([(1.0, 0, 0), (0, 0, 1.0)]), "lamp": np.array([(0, 0.2, 0), (0.1, 0, 0.1)])}
    colours["box"] = np.full((2, 3), (0.1, 0.3, 0.1))
    lit = {"lamp": np.array([True, True]), "box": np.array([False, True])}
    with make_renderer(model, 80, 80, "above", backend="rays", antialias=False) as renderer:
        pictures, ids = renderer.render(qpos, lit, colours).astype(int)[:, 0], renderer.segmentation(qpos)[0, 0]
        plain = renderer.render(qpos).astype(int)[0, 0]
    seen = {name: pictures[:, inside(ids == geom(model, name))].mean(1) for name in ("plate", "lamp", "box")}
    assert seen["plate"][0].argmax() == 0 and seen["plate"][1].argmax() == 2
    assert seen["lamp"][0].argmax() == 1 and seen["lamp"][0][0] < 60  # its own colour in that state, shining
    assert seen["lamp"][1][0] > 150 and seen["lamp"][1][2] > 150 and seen["lamp"][1][1] < 60
    assert seen["box"][0][1] < 200 < seen["box"][1][1]
    assert (plain[ids == geom(model, "plate")] != pictures[0][ids == geom(model, "plate")]).any()


def test_shadow_falls_under_the_box_and_edges_are_smoothed(model):
    sharp, plain, smooth = (
        make_renderer(model, 60, 60, "above", "rays", shadows=s, antialias=a)
        for s, a in ((True, False), (False, False), (True, True))
    )
    qpos = model.qpos0[None].copy()
    qpos[:, 2] = 1.0
    front = [r.render(qpos)[0, 0].astype(int) for r in (sharp, plain, smooth)]
    floor = sharp.segmentation(qpos)[0, 0] == geom(model, "floor")
    darker = (front[0].sum(-1) < front[1].sum(-1) - 30) & floor
    assert 0 < darker.sum() < 0.2 * floor.sum()
    assert len(np.unique(front[2].reshape(-1, 3), axis=0)) > len(np.unique(front[0].reshape(-1, 3), axis=0))
    for renderer in (sharp, plain, smooth):
        renderer.close()


def test_plane_shows_its_texture():
    model = build('material="squares"')
    model.geom_rgba[geom(model, "floor")] = 0.5, 0.5, 0.5, 1.0  # the default: the material's colour counts
    with make_renderer(model, 200, 200, "above", "rays", shadows=False, antialias=False) as renderer:
        picture = renderer.render(model.qpos0[None])[0, 0].astype(int)
    # The checker has 2 x 2 squares a metre: opposite colours half a metre apart, equal ones a metre apart.
    pixel = 2 * 2 * np.tan(np.deg2rad(30)) / 200
    row = round(100 - 0.6 / pixel)
    first, half, whole = (picture[row, round(100 + x / pixel)] for x in (-0.6, -0.1, 0.4))
    assert np.argmax(first) != np.argmax(half) and np.argmax(first) == np.argmax(whole)


def test_wrong_requests_name_the_valid_ones(model):
    with pytest.raises(RenderError, match="'front'"):
        make_renderer(model, cameras=("front", "behind"), backend="rays")
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
        one = model.qpos0[None]
        wrong: tuple[tuple[dict[str, Any], str], ...] = (
            ({"lit": {"lamp": np.zeros(3, bool)}}, r"lit\['lamp'\] has shape \(3,\); \(1,\)"),
            ({"lit": {"sun": [True]}}, "no geom 'sun'.*lamp"),
            ({"lit": [True]}, "lit must map"),
            ({"colours": {"box": [[2.0, 0, 0]]}}, "0 to 1"),
            ({"colours": {"box": [[1.0, 0, 0, 1]]}}, r"\(1, 3\)"),
            ({"camera_offset": np.zeros((1, 2))}, r"\(1, 3\) or \(1, 1, 3\)"),
            ({"camera_turn": np.zeros((1, 4))}, "length zero"),
        )
        for arguments, words in wrong:
            with pytest.raises(RenderError, match=words):
                renderer.render(one, **arguments)
    with pytest.raises(RenderError, match="closed"):
        renderer.render(model.qpos0[None])
    with pytest.raises(RenderError, match="at least one camera"):
        make_renderer(model, cameras=(), backend="rays")


def test_rays_need_no_gl_library():
    """In a fresh process in which every import of a GL binding fails."""
    code = """
import sys
from typing import Any
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
    root = os.path.dirname(os.path.dirname(os.path.abspath(backends.__file__)))
    environment = {**os.environ, "MUJOCO_GL": "disabled", "PYTHONPATH": root}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], input=SCENE.replace("{floor}", ""), env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (child.returncode, child.stdout, child.stderr) == (0, "rays\n", "")


def test_a_missing_library_named_by_the_environment_stops_nothing():
    """MuJoCo itself could not be imported."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "mujoco.osmesa":
            raise ImportError("no such library")
sys.meta_path.insert(0, Missing())
from envs.backends import choose, import_mujoco
import_mujoco()
import mujoco
assert mujoco.MjModel.from_xml_string("<mujoco/>").nq == 0
print(choose("auto"))
"""
    root = os.path.dirname(os.path.dirname(os.path.abspath(backends.__file__)))
    environment = {**os.environ, "MUJOCO_GL": "osmesa", "PYTHONPATH": root}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (child.returncode, child.stderr) == (0, "")
    assert "MUJOCO_GL" in child.stdout


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "no picture"),
        ("import os; os.abort()", "exit status"),
        ("1 / 0", "Zero"),
    ],
)
def test_a_driver_that_hangs_or_crashes_means_rays(model, monkeypatch, code, words):
    monkeypatch.setattr(backends, "_PROBE", code)
    monkeypatch.setattr(backends, "PROBE_SECONDS", 0.7)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    backends.probe.cache_clear()
    try:
        with make_renderer(model, 8, 8) as renderer:
            assert renderer.backend == "rays" and words in renderer.describe()
        with pytest.raises(RenderError, match="'rays' works"):
            make_renderer(model, 8, 8, backend="egl")
    finally:
        backends.probe.cache_clear()


def test_auto_prefers_rays_to_an_emulated_gpu(model, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(backends.glob, "glob", lambda pattern: [pattern])
    monkeypatch.setattr(backends, "probe", lambda backend: (True, "drawn by llvmpipe"))
    assert backends.choose("auto")[0] == "rays"
    monkeypatch.setattr(backends, "probe", lambda backend: (True, "drawn by a real GPU"))
    assert backends.choose("auto") == ("egl", "drawn by a real GPU")
    monkeypatch.setattr(backends.glob, "glob", lambda pattern: [])
    assert backends.choose("auto")[0] == "rays"


def test_gl_that_works_in_the_probe_and_fails_here_means_rays(model, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(backends, "probe", lambda backend: (True, "drawn by a driver that was there a moment ago"))
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)  # importing it fails
    with make_renderer(model, 8, 8) as renderer:
        assert renderer.backend == "rays" and "'egl' failed" in renderer.describe()
        assert renderer.render(model.qpos0[None]).shape == (1, 1, 8, 8, 3)
    with pytest.raises(RenderError, match="'rays' works without GL"):
        make_renderer(model, 8, 8, backend="egl")


def test_gl_draws_the_same_scene(model):
    if not backends.probe("egl")[0]:
        pytest.skip("EGL does not work here")
    qpos, lit = states(model, 2), {"lamp": np.array([True, False])}
    colours = {"plate": np.array([(1.0, 0, 0), (0, 0, 1.0)])}
    moved = {"camera_offset": np.array([(0.1, -0.2, 0.3), (0, 0, 0)]), "camera_turn": np.array([(1, 0, 0.1, 0)] * 2)}
    rays, gl = (make_renderer(model, 96, 64, ("above", "front"), name) for name in ("rays", "egl"))
    with rays, gl:
        for how in ({}, moved):
            (depth, ids), (gl_depth, gl_ids) = rays.measure(qpos, **how), gl.measure(qpos, **how)
            same = ids == gl_ids
            assert same.mean() > 0.99
            solid = same & (ids >= 0)
            assert np.median(np.abs(depth[solid] - gl_depth[solid])) < 1e-3
            pictures, gl_pictures = (r.render(qpos, lit, colours, **how).astype(int) for r in (rays, gl))
            assert pictures.shape == gl_pictures.shape
            red, _, blue = np.median(gl_pictures[0][ids[0] == geom(model, "lamp")], axis=0)
            assert blue < 90 < red
            red, _, blue = np.median(gl_pictures[1][ids[1] == geom(model, "plate")], axis=0)
            assert red < 90 < blue
        assert (gl.render(qpos)[0] == gl.render(qpos[:1])[0]).all()  # nothing of another state is left
        both = gl.render(qpos)
    with make_renderer(model, 96, 64, "front", "egl") as alone:  # the headlight goes from camera to camera
        assert (alone.render(qpos)[:, 0] == both[:, 1]).all()
