"""Facts made by hand: a table-top at rest, changed name by name. And a robot that is not ours, as text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from envs.predicates import COLUMNS


@pytest.fixture(scope="session")
def make_facts() -> Callable[..., np.ndarray]:
    """make_facts(red_z=0.2, …) → float64[len(COLUMNS)]: open empty gripper aloft, blocks apart, drawer shut, lamp off.

    ``red`` and ``blue`` set positions at once, ``tool`` the tool's.
    """

    def make(
        red: tuple[float, ...] = (0.45, 0.05, 0.02),
        blue: tuple[float, ...] = (0.55, 0.15, 0.02),
        tool: tuple[float, ...] = (0.48, 0.0, 0.2),
        **changes: float,
    ) -> np.ndarray:
        row = np.zeros(len(COLUMNS))
        values = {
            "width": 0.08,
            "grip_command": 1.0,
            "red_upright": 1.0,
            "blue_upright": 1.0,
            "joint4": -2.4,
            "joint6": 2.5,
        }
        for name, point in (("red", red), ("blue", blue), ("tool", tool)):
            values |= {f"{name}_{axis}": value for axis, value in zip("xyz", point, strict=True)}
        for name, value in (values | changes).items():
            row[COLUMNS.index(name)] = value
        return row

    return make


@pytest.fixture(scope="session")
def make_held(make_facts) -> Callable[..., np.ndarray]:
    """make_held((x, y, z)) → facts with ``red`` gripped there."""

    def make(at: tuple[float, float, float], **changes: float) -> np.ndarray:
        return make_facts(**({"red": at, "tool": at, "width": 0.04, "grip_command": -1.0} | changes))

    return make


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


def _mjcf(servos: bool = True, hand: bool = True) -> str:
    """A six-joint arm with a parallel gripper; its tool a site, its gripper one actuator on coupled fingers."""
    opened = "<mujoco><compiler angle='radian'/><option timestep='0.002'/><worldbody><light pos='0 0 2'/>"
    opened += "<geom type='plane' size='1 1 1'/>"
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
    else:
        opened += f"<geom type='capsule' size='.012' fromto='0 0 .03 0 0 {TOOL}' mass='.1'/>"
    opened += f"<site name='grasp' pos='0 0 {TOOL}'/>" + len(LINKS) * "</body>" + "</body></worldbody><actuator>"
    for (name, *_), kp in zip(LINKS, SERVOS, strict=True) if servos else ():
        opened += f"<position name='{name} servo' joint='{name}' kp='{kp}' kv='{kp / 12}'/>"
    if hand:
        opened += "<position name='grip' joint='left' kp='2000' ctrlrange='-.005 .035' forcerange='-40 40'/></actuator>"
        opened += "<equality><joint joint1='right' joint2='left' solref='.005 1'/></equality>"
    else:
        opened += "</actuator>"
    return opened + "</mujoco>"


def _urdf() -> str:
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


@pytest.fixture(scope="session")
def mjcf() -> Callable[..., str]:
    """mjcf(servos=True, hand=True) → a small arm's MJCF."""
    return _mjcf


@pytest.fixture(scope="session")
def urdf() -> Callable[[], str]:
    """urdf() → the same arm's URDF."""
    return _urdf
