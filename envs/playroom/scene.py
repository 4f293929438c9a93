"""The table-top world as an ``MjSpec``: arm, two blocks, a cabinet with a drawer, a button that toggles a lamp.

World frame: x forward from the robot's base, y to the robot's left, z up; metres. Everything is a primitive shape.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from envs.playroom.robot import add_arm

__all__ = [
    "BLOCKS",
    "BLOCK_HALF",
    "BUTTON",
    "CABINET",
    "CABINET_TOP",
    "DRAWER_FLOOR",
    "DRAWER_OPEN",
    "HANDLE",
    "TIMESTEP",
    "build_model",
    "build_spec",
]

TIMESTEP = 0.01  # seconds a physics step; every scripted manoeuvre holds at 10 ms as it does at 5 ms, at half the price
BLOCKS = ("red", "blue")
BLOCK_HALF = 0.02
CABINET = np.array([0.50, -0.37])  # centre of the cabinet on the table
CABINET_TOP = 0.085  # height of its upper face
DRAWER_OPEN = 0.16  # travel of the drawer, towards +y
DRAWER_FLOOR = 0.016  # height of the drawer's inner floor
HANDLE = np.array([0.0, 0.135, 0.047])  # centre of the handle relative to the closed drawer's (x, y) and the table
BUTTON = np.array([0.40, 0.36, 0.062])  # centre of the button's upper face, not pressed
BUTTON_TRAVEL = 0.02

# Collision bits: objects 1, hand and fingers 2, fixed things 4. (contype, conaffinity)
_OBJECT, _HAND, _FINGER, _TABLE, _FURNITURE = (1, 3), (2, 0), (2, 4), (4, 1), (4, 3)
_WOOD, _FRONT, _METAL = (0.62, 0.47, 0.33, 1), (0.72, 0.57, 0.42, 1), (0.75, 0.77, 0.8, 1)
_RGBA = {"red": (0.86, 0.18, 0.16, 1), "blue": (0.13, 0.36, 0.83, 1)}


def build_model(sleep: bool = True) -> mujoco.MjModel:
    """The compiled table-top. ``sleep`` lets resting objects skip physics (about 1.5 times faster)."""
    return build_spec(sleep).compile()


def build_spec(sleep: bool = True) -> mujoco.MjSpec:
    """The table-top's specification; joints: 7 arm, 2 fingers, 2 free blocks, ``drawer`` (m), ``button`` (m)."""
    spec = mujoco.MjSpec()
    spec.modelname = "embodied-tabletop"
    spec.compiler.degree = False
    spec.memory = 1 << 19  # bytes a simulation; the busiest scenes take 64 KiB
    option = spec.option
    option.timestep = TIMESTEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10
    if sleep:
        option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 960, 720
    world = spec.worldbody
    world.add_light(pos=(0.9, 0.5, 1.6), dir=(-0.4, -0.4, -1), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.2, 1.2, 0.1), rgba=(0.80, 0.78, 0.74, 1),
        contype=_TABLE[0], conaffinity=_TABLE[1],
    )  # fmt: skip
    add_arm(spec, _HAND, _FINGER)
    for index, name in enumerate(BLOCKS):
        block = world.add_body(name=name, pos=(0.45 + 0.1 * index, 0.08, BLOCK_HALF))
        block.add_freejoint(name=name)
        _box(
            block, (0, 0, 0), (BLOCK_HALF,) * 3, _OBJECT, _RGBA[name], mass=0.05, name=name,
            friction=(1.2, 0.01, 0.0005),
        )  # fmt: skip
    _add_cabinet(world)
    _add_button(world)
    _add_camera(world, "front", (1.35, 0.42, 0.72), (0.42, -0.04, 0.12), 42)
    _add_camera(world, "side", (0.62, 1.15, 0.55), (0.46, -0.02, 0.1), 42)
    _add_camera(world, "top", (0.50, -0.01, 1.35), (0.4999, -0.01, 0.0), 42)
    return spec


def _add_cabinet(world) -> None:
    cabinet = world.add_body(name="cabinet", pos=(*CABINET, 0))
    side = (CABINET_TOP - 0.008) / 2
    _box(cabinet, (0, -0.1, side), (0.105, 0.005, side), _FURNITURE, _WOOD)
    _box(cabinet, (0.1, 0, side), (0.005, 0.1, side), _FURNITURE, _WOOD)
    _box(cabinet, (-0.1, 0, side), (0.005, 0.1, side), _FURNITURE, _WOOD)
    _box(cabinet, (0, 0, CABINET_TOP - 0.004), (0.105, 0.105, 0.004), _FURNITURE, _WOOD, name="cabinet")
    drawer = cabinet.add_body(name="drawer")
    drawer.add_joint(
        name="drawer", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 1, 0), range=(0, DRAWER_OPEN),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, damping=[2, 0, 0], armature=0.1, frictionloss=0.2,
    )  # fmt: skip
    _box(drawer, (0, 0.002, DRAWER_FLOOR - 0.004), (0.09, 0.088, 0.004), _FURNITURE, _FRONT, mass=0.2, name="drawer")
    wall = 0.018
    for x in (-0.087, 0.087):
        _box(drawer, (x, 0.002, DRAWER_FLOOR + wall), (0.003, 0.088, wall), _FURNITURE, _FRONT, mass=0.03)
    _box(drawer, (0, -0.083, DRAWER_FLOOR + wall), (0.084, 0.003, wall), _FURNITURE, _FRONT, mass=0.03)
    _box(drawer, (0, 0.094, 0.038), (0.092, 0.004, 0.030), _FURNITURE, _FRONT, mass=0.05)
    drawer.add_geom(
        name="handle", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=(0.008, 0, 0), mass=0.05, rgba=_METAL,
        fromto=[-0.04, HANDLE[1], HANDLE[2], 0.04, HANDLE[1], HANDLE[2]],
        contype=_FURNITURE[0], conaffinity=_FURNITURE[1],
    )  # fmt: skip
    for x in (-0.036, 0.036):  # what holds the handle, to look at
        drawer.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=(0.005, 0, 0), mass=0.01, rgba=_METAL,
            fromto=[x, 0.094, HANDLE[2], x, HANDLE[1], HANDLE[2]], contype=0, conaffinity=0,
        )  # fmt: skip


def _add_button(world) -> None:
    box = world.add_body(name="button_box", pos=(BUTTON[0], BUTTON[1], 0))
    _box(box, (0, 0, 0.02), (0.04, 0.04, 0.02), _FURNITURE, (0.35, 0.36, 0.4, 1))
    button = box.add_body(name="button", pos=(0, 0, BUTTON[2] - 0.012), gravcomp=1)
    button.add_joint(
        name="button", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1), range=(-BUTTON_TRAVEL, 0),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, stiffness=[80, 0, 0], damping=[2, 0, 0], armature=0.02,
    )  # fmt: skip
    button.add_geom(
        name="button", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.02, 0.012, 0), mass=0.05,
        contype=_FURNITURE[0], conaffinity=_FURNITURE[1], rgba=(0.16, 0.62, 0.32, 1),
    )  # fmt: skip
    post = world.add_body(name="lamp", pos=(0.52, 0.40, 0))
    post.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(0.008, 0.05, 0),
        pos=(0, 0, 0.05),
        contype=0,
        conaffinity=0,
        rgba=_METAL,
    )
    post.add_geom(
        name="lamp", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.03, 0, 0), pos=(0, 0, 0.12),
        contype=0, conaffinity=0, rgba=(0.30, 0.29, 0.24, 1),
    )  # fmt: skip


def _add_camera(world, name: str, position, target, fovy: float) -> None:
    """A fixed camera at ``position`` that looks at ``target``; ``fovy`` in degrees."""
    back = np.asarray(position, float) - np.asarray(target, float)
    back /= np.linalg.norm(back)
    right = np.cross((0, 0, 1), back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    world.add_camera(name=name, pos=position, quat=quat, fovy=fovy)


def _box(body, pos, size, bits: tuple[int, int], rgba, mass: float = 0.0, name: str = "", friction=None) -> None:
    extra: dict[str, Any] = {"name": name} if name else {}
    if mass:
        extra["mass"] = mass
    if friction is not None:
        extra["friction"] = friction
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=pos,
        size=size,
        contype=bits[0],
        conaffinity=bits[1],
        rgba=rgba,
        condim=3,
        **extra,
    )
