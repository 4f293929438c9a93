"""Where rays meet shapes: against MuJoCo's own functions and against pinhole geometry written down here."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.intersection import PRIMITIVES, meet, normal_at
from envs.rendering import make_renderer

SIZE = np.array([0.3, 0.2, 0.15])
MESH = """
<mujoco>
  <asset>
    <mesh name="wedge" vertex="0 0 0  1 0 0  0 1 0  0 0 1  1 0 1  0 1 1" scale=".4 .4 .4"/>
    <hfield name="hills" nrow="3" ncol="3" size="1 1 .2 .1" elevation="0 1 0  1 0 1  0 1 0"/>
  </asset>
  <worldbody>
    <light pos="1 1 3" dir="-1 -1 -3" type="directional"/>
    <camera name="front" pos="2 .4 1.5" xyaxes="0 1 0 -.6 0 1"/>
    <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.3"/>
    <geom name="hills" type="hfield" hfield="hills"/>
    <body pos="0 0 .5"><freejoint/><geom name="wedge" type="mesh" mesh="wedge"/></body>
    <geom name="ball" type="sphere" size=".15" pos=".6 .4 .4"/>
  </worldbody>
</mujoco>
"""
PINHOLE = """
<mujoco><worldbody>
  <camera name="eye" pos="0 0 3" fovy="50"/>
  <geom name="floor" type="plane" size="5 5 .1"/>
  <geom name="ball" type="sphere" size=".4" pos=".5 .3 .6"/>
  <geom name="box" type="box" size=".3 .2 .25" pos="-.6 -.4 .25"/>
</worldbody></mujoco>
"""


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_primitives_are_met_where_mujoco_meets_them(kind):
    rng = np.random.default_rng(kind)
    hits = 0
    for _ in range(3000):
        origin = rng.uniform(-1, 1, 3) * rng.choice([0.1, 1.0, 3.0])
        direction = rng.uniform(-0.3, 0.3, 3) - origin + rng.normal(0, 0.1, 3)
        direction[rng.random(3) < 0.1] = 0.0  # along the faces too
        if not direction.any():
            continue
        expected, normal = np.zeros(1), np.zeros(3)
        expected = mujoco.mju_rayGeom(np.zeros(3), np.eye(3).ravel(), SIZE, origin, direction, kind, normal)
        found = meet(kind, SIZE, *origin, *direction)
        assert found == pytest.approx(expected, abs=1e-7)
        if found >= 0:
            hits += 1
            ours = np.array(normal_at(kind, SIZE, *(origin + found * direction)))
            assert abs(ours / np.linalg.norm(ours) @ normal) == pytest.approx(1, abs=1e-4)
    assert hits > 300


def test_meshes_and_height_fields_are_met_among_primitives():
    model = mujoco.MjModel.from_xml_string(MESH)
    qpos, size = np.repeat(model.qpos0[None], 2, 0), 40
    qpos[1, 3:] = 0.5
    with make_renderer(model, size, size, "front", "rays", threads=1) as renderer:
        depth, ids = renderer.measure(qpos)
        assert renderer.render(qpos).std() > 5
    data, tangent = mujoco.MjData(model), np.tan(np.deg2rad(model.cam_fovy[0]) / 2)
    found = np.zeros(1, np.int32)
    for i in range(2):
        data.qpos[:] = qpos[i]
        mujoco.mj_forward(model, data)
        turn = data.cam_xmat[0].reshape(3, 3)
        for row in range(0, size, 3):
            for column in range(0, size, 3):
                local = np.array([2 * column + 1 - size, size - 2 * row - 1, -size / tangent]) * tangent / size
                far = mujoco.mj_ray(model, data, data.cam_xpos[0], turn @ local, None, 1, -1, found)
                assert ids[i, 0, row, column] == found[0]
                assert depth[i, 0, row, column] == pytest.approx(far if far >= 0 else np.inf, rel=1e-5)
    assert set(np.unique(ids)) >= {model.geom(name).id for name in ("hills", "wedge", "ball", "floor")}


def test_depth_and_masks_are_those_of_a_pinhole_camera():
    """Ball, box and floor below a camera that looks straight down: every pixel in closed form."""
    model = mujoco.MjModel.from_xml_string(PINHOLE)
    side = 96
    with make_renderer(model, side, side, "eye", "rays", threads=1) as renderer:
        depth, ids = (x[0, 0] for x in renderer.measure(np.zeros((1, 0))))
    at = (np.arange(side) + 0.5 - side / 2) * 2 * np.tan(np.deg2rad(25)) / side
    x, y = np.meshgrid(at, -at)  # a ray is (x, y, -1) * depth below the camera
    deep, mask = np.full((side, side), 3.0), np.full((side, side), model.geom("floor").id)
    centre = np.array([0.5, 0.3, -2.4])
    a, b = x**2 + y**2 + 1, x * centre[0] + y * centre[1] - centre[2]
    under = b**2 - a * (centre @ centre - 0.4**2)
    ball = under >= 0
    deep[ball], mask[ball] = ((b - np.sqrt(np.maximum(under, 0))) / a)[ball], model.geom("ball").id
    top = (abs(2.5 * x + 0.6) <= 0.3) & (abs(2.5 * y + 0.4) <= 0.2)
    deep[top], mask[top] = 2.5, model.geom("box").id
    # the two inner sides of the box that the camera sees: x = -0.3 and y = -0.2
    for u, v, plane, low, high in ((x, y, -0.3, -0.6, -0.2), (y, x, -0.2, -0.9, -0.3)):
        with np.errstate(divide="ignore"):
            t = plane / u
        side_hit = (t > 2.5) & (t < 3.0) & (v * t >= low) & (v * t <= high)
        deep[side_hit], mask[side_hit] = t[side_hit], model.geom("box").id
    assert (mask == ids).mean() > 0.999
    assert np.abs(depth - deep)[mask == ids].max() < 1e-5
    assert {int(i) for i in np.unique(ids)} == {0, 1, 2}
