"""The arm: seven revolute joints with the published Franka kinematics, drawn from primitive shapes.

Link frames and joint ranges follow the manufacturer's Denavit-Hartenberg table (in modified form); masses are
round figures of the published ones. Two things are deliberately not the manufacturer's: gravity is compensated
(as the real controller does), and the wrist motors may give 40 Nm instead of 12, because a position servo that
saturates on contact limit-cycles and drops what it holds at the step sizes used here.
"""

from __future__ import annotations

import mujoco
import numpy as np

__all__ = ["DRIVE", "FINGER_RANGE", "GRIPPER", "HOME", "JOINT_HIGH", "JOINT_LOW", "TOOL_OFFSET", "add_arm"]

# Joint ranges in rad (published).
JOINT_LOW = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_HIGH = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
HOME = np.array([0.0, 0.0805, 0.0, -2.4631, 0.0, 2.5436, 0.7854])  # tool at (0.48, 0, 0.16), pointing down
FINGER_RANGE = 0.04  # metres a finger
# What drives it: actuators of joints and gripper, the gripper's control when shut, half its range.
DRIVE = (np.arange(7), np.array([7]), np.zeros(1), np.array([127.5]))
# Its fingers' addresses in qpos and qvel, where they are shut and open, width (m) they add a unit, width when shut.
GRIPPER = (np.array([7, 8]), np.array([7, 8]), np.zeros(2), np.full(2, FINGER_RANGE), np.ones(2), 0.0)
TOOL_OFFSET = 0.1034  # metres from the hand's frame to the point between the finger pads

# (position in the parent, quaternion in the parent, capsule radius, capsule from, to, mass in kg)
_LINKS = (
    ((0, 0, 0.333), (1, 0, 0, 0), 0.058, (0, 0, -0.16), (0, 0, -0.02), 4.97),
    ((0, 0, 0), (1, -1, 0, 0), 0.058, (0, 0, -0.06), (0, 0, 0.06), 0.65),
    ((0, -0.316, 0), (1, 1, 0, 0), 0.056, (0, 0, -0.17), (0, 0, -0.05), 3.23),
    ((0.0825, 0, 0), (1, 1, 0, 0), 0.054, (0, 0, -0.06), (0, 0, 0.06), 3.59),
    ((-0.0825, 0.384, 0), (1, -1, 0, 0), 0.05, (0, 0, -0.26), (0, 0.02, -0.05), 1.23),
    ((0, 0, 0), (1, 1, 0, 0), 0.048, (0, 0, -0.05), (0.05, 0, 0.02), 1.67),
    ((0.088, 0, 0), (1, 1, 0, 0), 0.042, (0, 0, 0.04), (0, 0, 0.07), 0.74),
)
_STIFFNESS = (1500, 1500, 1000, 1000, 200, 200, 200)
_DAMPING = (100, 100, 66, 66, 10, 10, 10)  # of the joints: unlike a servo's, it holds when torque saturates
_TORQUE = (87, 87, 87, 87, 40, 40, 40)
_WHITE, _DARK = (0.93, 0.93, 0.95, 1), (0.23, 0.25, 0.29, 1)


def add_arm(spec: mujoco.MjSpec, hand_bits: tuple[int, int], finger_bits: tuple[int, int]) -> None:
    """Adds the arm, its gripper, actuators and the site ``tool`` to ``spec``, with its base at the origin.

    Bodies ``link0`` … ``link7``, ``hand``, ``finger_left``, ``finger_right``; joints ``joint1`` … ``joint7`` (rad)
    and ``finger_left``, ``finger_right`` (m); actuators in the same order, then ``gripper`` (0 closed … 255 open).
    ``hand_bits`` and ``finger_bits`` are (contype, conaffinity). The links themselves do not collide.
    """
    body = spec.worldbody.add_body(name="link0", gravcomp=1)
    _capsule(body, 0.062, (0, 0, 0.06), (0, 0, 0.2), 0.6, _WHITE)
    for number, (pos, quat, radius, start, end, mass) in enumerate(_LINKS, start=1):
        body = body.add_body(name=f"link{number}", pos=pos, quat=quat, gravcomp=1)
        body.add_joint(
            name=f"joint{number}",
            axis=(0, 0, 1),
            range=(JOINT_LOW[number - 1], JOINT_HIGH[number - 1]),
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            armature=0.1,
            damping=[_DAMPING[number - 1], 0, 0],
        )
        _capsule(body, radius, start, end, mass, _WHITE if number % 2 else _DARK)
    hand = body.add_body(name="hand", pos=(0, 0, 0.107), quat=(np.cos(np.pi / 8), 0, 0, -np.sin(np.pi / 8)), gravcomp=1)
    hand.add_geom(
        name="hand",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.025, 0.085, 0.025),
        pos=(0, 0, 0.035),
        mass=0.7,
        contype=hand_bits[0],
        conaffinity=hand_bits[1],
        rgba=_DARK,
    )
    hand.add_site(name="tool", pos=(0, 0, TOOL_OFFSET), size=(0.004, 0.004, 0.004), group=4)
    for side, quat in (("left", (1, 0, 0, 0)), ("right", (0, 0, 0, 1))):
        finger = hand.add_body(name=f"finger_{side}", pos=(0, 0, 0.0584), quat=quat, gravcomp=1)
        finger.add_joint(
            name=f"finger_{side}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(0, 1, 0),
            range=(0, FINGER_RANGE),
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            armature=0.1,
            damping=[30, 0, 0],
        )
        finger.add_geom(
            name=f"pad_{side}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(0.01, 0.008, 0.0225),
            pos=(0, 0.008, 0.0325),
            mass=0.03,
            condim=3,
            friction=(1.2, 0.01, 0.0005),
            contype=finger_bits[0],
            conaffinity=finger_bits[1],
            rgba=(0.35, 0.37, 0.42, 1),
        )
    equality = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, name1="finger_left", name2="finger_right", objtype=mujoco.mjtObj.mjOBJ_JOINT
    )
    equality.solref = [0.005, 1]
    equality.solimp[:3] = [0.95, 0.99, 0.001]
    for joint in range(7):
        _servo(spec, f"joint{joint + 1}", _STIFFNESS[joint], _TORQUE[joint], JOINT_LOW[joint], JOINT_HIGH[joint])
    tendon = spec.add_tendon(name="gripper")
    tendon.wrap_joint("finger_left", 0.5)
    tendon.wrap_joint("finger_right", 0.5)
    gripper = spec.add_actuator(
        name="gripper", target="gripper", trntype=mujoco.mjtTrn.mjTRN_TENDON, biastype=mujoco.mjtBias.mjBIAS_AFFINE
    )
    gripper.gainprm[0] = 80 / 255
    gripper.biasprm[:3] = [0, -2000, 0]
    gripper.ctrlrange = [0, 255]
    gripper.ctrllimited = mujoco.mjtLimited.mjLIMITED_TRUE
    gripper.forcerange = [-80, 80]
    gripper.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
    spec.add_exclude(bodyname1="link0", bodyname2="link1")


def _capsule(body, radius: float, start, end, mass: float, rgba) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        size=(radius, 0, 0),
        fromto=[*start, *end],
        mass=mass,
        contype=0,
        conaffinity=0,
        rgba=rgba,
    )


def _servo(spec, joint: str, stiffness: float, torque: float, low: float, high: float) -> None:
    """A position servo with torque limits on ``joint``: force = stiffness (u - q)."""
    servo = spec.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, biastype=mujoco.mjtBias.mjBIAS_AFFINE
    )
    servo.gainprm[0] = stiffness
    servo.biasprm[:3] = [0, -stiffness, 0]
    servo.ctrlrange = [low, high]
    servo.ctrllimited = mujoco.mjtLimited.mjLIMITED_TRUE
    servo.forcerange = [-torque, torque]
    servo.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
