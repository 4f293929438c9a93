"""A user's own robot in a scene: MJCF or URDF, by its page alone; what is wrong with it is said with its line."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401 - registers the worlds
from envs.kinematics import forward_kinematics, solve
from envs.playroom.robot import HOME as BUILTIN_HOME
from envs.playroom.robot import add_arm
from envs.scenes.document import parse
from envs.scenes.parts import FINGER, HAND
from envs.scenes.play import ScenePlay, play_env
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import Scene, load

HOME = [0, 0.643, 1.855, 0, 0.643, 0]
JOINTS = ("waist", "shoulder", "elbow", "roll", "wrist", "flange")
ROBOTS = {
    "mjcf": f"robot: {{file: arm.xml, tool: grasp, home: {HOME}, fingers: [left, right], gripper: grip}}\n",
    "urdf": f"robot: {{file: arm.urdf, tool: grasp, home: {HOME}, fingers: [left, right]}}\n",
}
DESK = """name: desk
area: [0.40, 0.02, 0.52, 0.20]
objects:
  cube: {type: box, size: [0.04, 0.04, 0.04]}
fixtures:
  drawer: {type: drawer, pos: [0.50, -0.37]}
  lamp: {type: button, pos: [0.44, 0.345]}
tasks:
  open: open(drawer)
  light: toggled(lamp)
  lift: lifted(cube)
"""


@pytest.fixture(scope="module")
def desks(tmp_path_factory, mjcf, urdf) -> dict[str, Path]:
    """Pages of the same desk with each robot."""
    folder = tmp_path_factory.mktemp("desks")
    (folder / "arm.xml").write_text(mjcf(), encoding="utf-8")
    (folder / "arm.urdf").write_text(urdf(), encoding="utf-8")
    for kind, robot in ROBOTS.items():
        (folder / f"{kind}.yaml").write_text(robot + DESK, encoding="utf-8")
    return {kind: folder / f"{kind}.yaml" for kind in ROBOTS}


def room(path: Path | Scene, goals: str | list[str] = "open", n: int = 16, **how) -> PlayroomVectorEnv:
    return PlayroomVectorEnv(n, goals, path, threads=1, **how)


def parse_scene(page: str, folder: Path) -> Scene:
    """A scene from its text, with files in a folder."""
    return load(parse(page, "desk.yaml", folder))


@pytest.mark.parametrize("kind", ROBOTS)
def test_the_arm_is_known_as_the_simulator_has_it(desks, kind):
    scene = load(desks[kind])
    robot, model = scene.robot, scene.model
    data = mujoco.MjData(model)
    assert [model.joint(k).name for k in range(6)] == [f"robot {name}" for name in JOINTS]
    assert robot.opening == pytest.approx(0.07, abs=1e-6)
    joints = np.random.default_rng(0).uniform(robot.chain.low, robot.chain.high, (30, 6))
    places, turns = forward_kinematics(joints, robot.chain.positions, robot.chain.rotations)
    tool = data.site("robot grasp") if kind == "mjcf" else data.body("robot grasp")
    for q, place, turn in zip(joints, places, turns, strict=True):
        data.qpos[:6] = q
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(place, tool.xpos, atol=1e-9)
        np.testing.assert_allclose(turn[:, 2], tool.xmat.reshape(3, 3)[:, 2], atol=1e-9)
        np.testing.assert_allclose(abs(turn[:, 1] @ tool.xmat.reshape(3, 3)[:, 1]), 1.0)  # it may be turned by half


def test_joints_that_read_something_in_the_reference_pose_and_a_base_elsewhere(tmp_path, mjcf):
    text = mjcf().replace("<joint name='elbow'", "<joint ref='0.7' pos='0 0 .02' name='elbow'")
    (tmp_path / "arm.xml").write_text(text, encoding="utf-8")
    robot = ROBOTS["mjcf"].replace("tool: grasp", "tool: grasp, pos: [0.1, 0.05, 0.02], yaw: 30")
    scene = load(parse(robot + DESK, "desk.yaml", tmp_path))
    data, chain = mujoco.MjData(scene.model), scene.robot.chain
    data.qpos[:6] = 0.1, 0.4, 1.2, -0.3, 0.8, 0.2
    mujoco.mj_kinematics(scene.model, data)
    place = forward_kinematics(data.qpos[None, :6].copy(), chain.positions, chain.rotations)[0][0]
    np.testing.assert_allclose(place, data.site("robot grasp").xpos, atol=1e-9)
    np.testing.assert_allclose(data.body("robot foot").xpos, (0.1, 0.05, 0.02))


def test_the_inverse_finds_poses_with_six_joints(desks):
    chain = load(desks["mjcf"]).robot.chain
    rng = np.random.default_rng(1)
    target, yaw = rng.uniform((0.36, -0.2, 0.05), (0.6, 0.2, 0.25), (50, 3)), rng.uniform(-1.2, 1.2, 50)
    q = np.tile(chain.home, (50, 1))
    positions, rotations, low, high, home = chain.arrays
    solve(q, target, yaw, positions, rotations, low, high, home, 40)
    places, turns = forward_kinematics(q, chain.positions, chain.rotations)
    assert np.linalg.norm(places - target, axis=1).max() < 2e-3
    assert np.abs(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]) - yaw).max() < 0.02


@pytest.mark.parametrize("control", ["tool", "joint"])
@pytest.mark.parametrize("kind", ROBOTS)
def test_a_world_with_it_keeps_gymnasiums_contract(desks, kind, control):
    env = gymnasium.make("Embodied/Playroom-v0", scene=desks[kind], control=control, goals="lift")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.action_space.shape == ((5,) if control == "tool" else (7,))
    env.close()


@pytest.mark.parametrize("control", ["tool", "joint"])
def test_same_seed_same_bits(desks, control):
    def run() -> list[np.ndarray]:
        env = gymnasium.make_vec("Embodied/Playroom-v0", 16, scene=desks["mjcf"], control=control, max_steps=15)
        rng = np.random.default_rng(0)
        seen = [env.reset(seed=4)[0]]
        for _ in range(25):  # past an autoreset
            seen.append(env.step(rng.uniform(-1, 1, env.action_space.shape))[0])
        env.close()
        return seen

    one, other = run(), run()
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], one[-1])


def test_facts_say_where_its_tool_is_and_how_wide_it_opens(desks):
    env = room(desks["urdf"], n=4)
    env.reset(seed=0)
    column = env.columns.index
    rows = np.zeros((4, 5))
    widths = []
    for grip in (1.0, -1.0):
        rows[:, 4] = grip
        for _ in range(20):
            env.step(rows)
        widths.append(env.facts[:, column("width")].copy())
        data = mujoco.MjData(env.scene.model)
        for slot in range(4):
            data.qpos[:], data.qvel[:] = env.simulation.qpos[slot], env.simulation.qvel[slot]
            mujoco.mj_kinematics(env.scene.model, data)
            np.testing.assert_allclose(env.facts[slot, :3], data.body("robot grasp").xpos, atol=1e-9)
    np.testing.assert_allclose(widths[0], 0.07, atol=1e-3)
    np.testing.assert_allclose(widths[1], 0.0, atol=1e-3)
    np.testing.assert_allclose(env.facts[:, column("joint1") : column("joint6") + 1], env.simulation.qpos[:, :6])
    assert (env.facts[:, column("joint7")] == 0).all()
    env.close()


def test_the_tool_goes_where_it_is_sent(desks):
    for path in desks.values():
        env = room(path, n=8, terminate_on_success=False)
        env.reset(seed=1)
        begun = env.facts[:, :3].copy()
        for _ in range(10):
            env.step(np.tile([0.0, 0.2, 0.3, 0.0, 1.0], (8, 1)))
        for _ in range(15):
            env.step(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (8, 1)))
        moved = np.minimum(begun + np.array([0.0, 0.06, 0.09]), env._workspace[1]) - begun
        np.testing.assert_allclose(env.facts[:, :3] - begun, moved, atol=6e-3)
        env.close()


@pytest.mark.parametrize("kind", ROBOTS)
def test_the_scripted_expert_opens_presses_and_lifts_with_it(desks, kind):
    env = room(desks[kind], ["open", "light", "lift"], n=12, max_steps=120, autoreset_mode="Disabled")
    env.reset(seed=0, options={"which": np.arange(12) % 3})
    expert = env.scripted_policy()
    done = np.zeros(12, bool)
    for _ in range(90):
        done |= env.step(expert.act())[4]["success"]
    assert done.all(), [env.tasks[k % 3] for k in np.flatnonzero(~done)]
    env.close()


def test_it_is_seen(desks):
    env = room(desks["mjcf"], n=2, render_mode="rgb_array")
    env.reset(seed=0)
    first, second = env.render()
    assert first.shape == (240, 320, 3)
    assert first.std() > 10
    assert not np.array_equal(first, second)
    env.close()


def test_an_arm_without_a_hand_and_servos_presses_a_button(tmp_path, mjcf):
    (tmp_path / "arm.xml").write_text(mjcf(servos=False, hand=False), encoding="utf-8")
    page = f"robot: {{file: arm.xml, tool: grasp, home: {HOME}, kp: 500, kd: 40}}\n" + DESK
    env = room(parse_scene(page, tmp_path), "light", n=4, autoreset_mode="Disabled")
    env.reset(seed=0)
    assert env.simulation.model.nu == 6
    assert (env.simulation.model.actuator_gainprm[:, 0] == 500).all()
    assert (env.simulation.model.dof_damping[:6] == 40).all()
    expert, done = env.scripted_policy(), np.zeros(4, bool)
    for _ in range(80):
        done |= env.step(expert.act())[4]["success"]
    assert done.all()
    env.close()


def test_friction_of_its_fingers_varies_and_states_come_back(desks):
    env = room(desks["mjcf"], "lift", n=4, randomise={"friction": (0.5, 1.5)}, sleep=False)
    env.reset(seed=0)
    state = env.get_state()
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (5, 4, 5))
    ahead = [env.step(row)[0] for row in rows]
    env.set_state(state)
    again = [env.step(row)[0] for row in rows]
    np.testing.assert_array_equal(ahead[-1], again[-1])
    env.close()


def test_the_built_in_arm_written_out_is_taken_like_any_other(tmp_path):
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    add_arm(spec, HAND, FINGER)
    (tmp_path / "arm.xml").write_text(spec.to_xml(), encoding="utf-8")
    page = f"robot: {{file: arm.xml, tool: tool, home: {BUILTIN_HOME.tolist()}, fingers: [finger_left, finger_right],"
    own, builtin = (
        room(parse_scene(text + DESK, tmp_path), "lift", n=4) for text in (page + " gripper: gripper}\n", "")
    )
    for mine, theirs in zip(own.scene.robot.arrays, builtin.scene.robot.arrays, strict=True):
        if len(mine) != 5:  # how links are numbered inside may differ
            assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(mine, theirs, strict=True))
    experts = []
    for env in (own, builtin):
        env.reset(seed=0)
        experts.append(env.scripted_policy())
    for _ in range(40):
        for env, expert in zip((own, builtin), experts, strict=True):
            env.step(expert.act())
    np.testing.assert_allclose(own.facts, builtin.facts, atol=1e-4)
    own.close()
    builtin.close()


def test_the_tool_may_be_a_point_off_a_body(desks):
    page = desks["mjcf"].read_text(encoding="utf-8")
    assert "tool: grasp" in page
    site = load(desks["mjcf"]).robot
    point = parse_scene(page.replace("tool: grasp", "tool: flange, offset: [0, 0, 0.10]"), desks["mjcf"].parent).robot
    for mine, theirs in zip(point.chain.arrays, site.chain.arrays, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    assert point.opening == pytest.approx(site.opening)


def test_what_has_no_name_in_the_file_is_no_hindrance(tmp_path, mjcf):
    text = mjcf().replace("name='foot'", "").replace("<joint name='roll'", "<joint")
    text = text.replace("name='elbow servo'", "").replace("name='roll servo' joint='roll'", "joint='wrist'", 1)
    text = text.replace("<position name='wrist servo' joint='wrist' kp='200' kv='16.666666666666668'/>", "")
    (tmp_path / "arm.xml").write_text(text, encoding="utf-8")
    scene = parse_scene(ROBOTS["mjcf"] + DESK, tmp_path)
    assert len(scene.robot.drive[0]) == 6
    assert [scene.model.actuator_trnid[a, 0] for a in scene.robot.drive[0]] == list(range(6))


JAW = """<mujoco><worldbody><body name="foot"><body name="upper" pos="0 0 .3">
  <joint name="shoulder" axis="0 1 0" range="-10 120"/><geom type="capsule" size=".03" fromto="0 0 0 0 0 .4" mass="2"/>
  <body name="lower" pos="0 0 .4"><joint name="elbow" axis="0 1 0" range="0 150"/>
    <geom type="capsule" size=".025" fromto="0 0 0 0 0 .35" mass="1" contype="0" conaffinity="0"/>
    <site name="grasp" pos="0 .004 .48"/>
    <body name="palm" pos="0 .01 .45"><geom type="box" size=".01 .005 .05" mass=".1"/></body>
    <body name="jaw" pos="0 -.01 .4"><joint name="jaw" axis="1 0 0" range="0 40"/>
      <geom type="box" size=".01 .005 .05" pos="0 0 .05" mass=".05"/></body>
  </body></body></body></worldbody></mujoco>"""


def test_two_joints_and_one_jaw_that_turns_in_degrees(tmp_path):
    (tmp_path / "arm.xml").write_text(JAW, encoding="utf-8")
    page = "robot: {file: arm.xml, tool: grasp, home: [0.7, 1.6], fingers: [palm, jaw]}\n"
    env = room(parse_scene(page + DESK, tmp_path), n=2, control="joint", terminate_on_success=False)
    robot = env.scene.robot
    swing = np.radians(40)
    assert robot.opening == pytest.approx(0.01 + 0.08 * np.sin(swing) + 0.014 * (1 - np.cos(swing)), abs=2e-3)
    assert np.allclose(robot.chain.high, np.radians((120, 150)))
    env.reset(seed=0)
    for grip, width in ((1.0, robot.opening), (-1.0, 0.01)):
        for _ in range(25):
            _, _, _, _, info = env.step(np.tile([0.0, 0.0, grip], (2, 1)))
            assert not info["bad_physics"].any()
        np.testing.assert_allclose(env.facts[:, env.columns.index("width")], width, atol=2e-3)
    env.close()


def test_joints_without_limits_turn_freely(tmp_path, urdf):
    text = urdf().replace("<joint name='flange' type='revolute'>", "<joint name='flange' type='continuous'>")
    (tmp_path / "arm.urdf").write_text(text, encoding="utf-8")
    env = room(parse_scene(ROBOTS["urdf"] + DESK, tmp_path), n=2, control="joint", terminate_on_success=False)
    env.reset(seed=0)
    rows = np.zeros((2, 7))
    rows[:, 5] = 1.0
    for _ in range(60):
        _, reward, _, _, info = env.step(rows)
        assert np.isfinite(reward).all()
        assert not info["bad_physics"].any()
    assert (env.simulation.qpos[:, 5] > 6.5).all()
    env.close()


def test_meshes_are_found_beside_the_file_and_in_its_package(tmp_path, mjcf, urdf):
    folder = tmp_path / "bot"
    (folder / "meshes").mkdir(parents=True)
    (folder / "urdf").mkdir()
    corners = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    (folder / "meshes" / "foot.obj").write_text(corners, encoding="utf-8")
    shape = "<geometry><mesh filename='package://bot/meshes/foot.obj'/></geometry>"
    text = urdf().replace("<geometry><cylinder radius='.06' length='.1'/></geometry>", shape)
    (folder / "urdf" / "arm.urdf").write_text(text, encoding="utf-8")
    text = mjcf().replace("<worldbody>", "<asset><mesh name='foot' file='meshes/foot.obj'/></asset><worldbody>")
    text = text.replace("<geom type='cylinder' size='.06 .05'", "<geom type='mesh' mesh='foot'")
    (folder / "arm.xml").write_text(text, encoding="utf-8")
    for kind, file in (("urdf", "bot/urdf/arm.urdf"), ("mjcf", "bot/arm.xml")):
        page = ROBOTS[kind].replace("arm.urdf" if kind == "urdf" else "arm.xml", file)
        assert parse_scene(page + DESK, tmp_path).model.nmesh == 1


@pytest.mark.parametrize("name", ["Reach", "PickPlace", "DrawerPlace"])
def test_goal_environments_take_it(desks, name):
    env = gymnasium.make_vec(f"Embodied/{name}-v0", 4, scene=desks["mjcf"])
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for _ in range(5):
        env.step(env.action_space.sample())
    env.close()


def test_it_plays(desks):
    play = ScenePlay(play_env(4, desks["mjcf"], threads=1), seed=0)
    pieces = play.collect(4 * 30)
    assert sum(len(piece["actions"]) for piece in pieces) == 4 * 30
    assert all(np.isfinite(piece["facts"]).all() for piece in pieces)


def test_builtin_is_the_arm_that_comes_with_it(desks):
    assert load(parse("robot: builtin\n")).robot.base == "link0"
    assert load(parse("")).robot.base == "link0"
    assert load(desks["mjcf"]).robot.base == "robot foot"
