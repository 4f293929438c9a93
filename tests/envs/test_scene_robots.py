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
from envs.scenes.document import SceneError, parse
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load

HOME = [0, 0.643, 1.855, 0, 0.643, 0]
LINKS = (  # height above the one before (m), axis, range (rad), mass (kg), length drawn (m)
    ("waist", 0.10, "0 0 1", 2.9, 3.0, 0.18),
    ("shoulder", 0.20, "0 1 0", 2.0, 2.5, 0.38),
    ("elbow", 0.40, "0 1 0", 2.8, 1.5, 0.18),
    ("roll", 0.20, "0 0 1", 2.9, 1.0, 0.18),
    ("wrist", 0.20, "0 1 0", 2.5, 0.6, 0.03),
    ("flange", 0.05, "0 0 1", 2.9, 0.4, 0.03),
)
SERVOS = (1200, 1200, 800, 200, 200, 200)
TOOL = 0.10  # m from the flange to between the pads


def mjcf(servos: bool = True, hand: bool = True) -> str:
    """A six-joint arm with a parallel gripper; its tool a site, its gripper one actuator on coupled fingers."""
    opened = "<mujoco><compiler angle='radian'/><option timestep='0.002'/><worldbody><light pos='0 0 2'/><geom type='plane' size='1 1 1'/>"
    opened += "<body name='foot'><geom type='cylinder' size='.06 .05' pos='0 0 .05'/>"
    for name, above, axis, reach, mass, length in LINKS:
        opened += f"<body name='{name}' pos='0 0 {above}'>"
        opened += f"<joint name='{name}' axis='{axis}' range='{-reach} {reach}' damping='5' armature='.05'/>"
        opened += f"<geom type='capsule' size='.03' fromto='0 0 0 0 0 {length}' mass='{mass}' contype='0'"
        opened += " conaffinity='0'/>"
    if hand:
        opened += "<geom type='box' size='.02 .06 .01' pos='0 0 .04' mass='.3'/>"
        for side, sign in (("left", 1), ("right", -1)):
            opened += f"<body name='{side}' pos='0 0 {TOOL}'><joint name='{side}' type='slide' axis='0 {sign} 0'"
            opened += " range='0 .035' damping='20' armature='.05'/><geom type='box' size='.01 .006 .022'"
            opened += f" pos='0 {0.006 * sign} 0' mass='.03' friction='1.2 .01 .0005'/></body>"
    opened += f"<site name='grasp' pos='0 0 {TOOL}'/>" + len(LINKS) * "</body>" + "</body></worldbody><actuator>"
    for (name, *_), kp in zip(LINKS, SERVOS, strict=True) if servos else ():
        opened += f"<position name='{name} servo' joint='{name}' kp='{kp}' kv='{kp / 12}'/>"
    if hand:
        opened += "<position name='grip' joint='left' kp='2000' ctrlrange='-.005 .035' forcerange='-40 40'/></actuator>"
        opened += "<equality><joint joint1='right' joint2='left' solref='.005 1'/></equality>"
    else:
        opened += "</actuator>"
    return opened + "</mujoco>"


def urdf() -> str:
    """The same arm as URDF: its tool a link, no actuators."""
    text = "<robot name='arm'><link name='foot'><collision><origin xyz='0 0 .05'/>"
    text += "<geometry><cylinder radius='.06' length='.1'/></geometry></collision></link>"
    parent = "foot"
    for name, above, axis, reach, mass, length in LINKS:
        spread = mass * (0.01 + length**2 / 12)
        text += f"<link name='{name}'><inertial><origin xyz='0 0 {length / 2}'/><mass value='{mass}'/><inertia ixy='0'"
        text += f" ixz='0' iyz='0' ixx='{spread}' iyy='{spread}' izz='{mass * 0.01}'/></inertial></link>"
        text += f"<joint name='{name}' type='revolute'><parent link='{parent}'/><child link='{name}'/>"
        text += f"<origin xyz='0 0 {above}'/><axis xyz='{axis}'/>"
        text += f"<limit lower='{-reach}' upper='{reach}' effort='150' velocity='3'/></joint>"
        parent = name
    for side, sign in (("left", 1), ("right", -1)):
        text += f"<link name='{side}'><inertial><mass value='.05'/><inertia ixx='1e-4' iyy='1e-4' izz='1e-4' ixy='0'"
        text += f" ixz='0' iyz='0'/></inertial><collision><origin xyz='0 {0.006 * sign} 0'/>"
        text += "<geometry><box size='.02 .012 .044'/></geometry></collision></link>"
        text += f"<joint name='{side}' type='prismatic'><parent link='flange'/><child link='{side}'/>"
        text += f"<origin xyz='0 0 {TOOL}'/><axis xyz='0 {sign} 0'/>"
        text += "<limit lower='0' upper='.035' effort='40' velocity='1'/></joint>"
    text += "<link name='grasp'/><joint name='grasp' type='fixed'><parent link='flange'/><child link='grasp'/>"
    return text + f"<origin xyz='0 0 {TOOL}'/></joint></robot>"


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
def desks(tmp_path_factory) -> dict[str, Path]:
    """Pages of the same desk with each robot."""
    folder = tmp_path_factory.mktemp("desks")
    (folder / "arm.xml").write_text(mjcf(), encoding="utf-8")
    (folder / "arm.urdf").write_text(urdf(), encoding="utf-8")
    for kind, robot in ROBOTS.items():
        (folder / f"{kind}.yaml").write_text(robot + DESK, encoding="utf-8")
    return {kind: folder / f"{kind}.yaml" for kind in ROBOTS}
