"""What a scene can be made of: each type of part adds itself to an ``MjSpec`` and says how it is used.

========== ==================================================================== ======================================
type       values                                                               kind
========== ==================================================================== ======================================
box        size (full edges), mass, colour, friction, says                      block
ball       radius, …                                                            block
cylinder   radius, height, …                                                    block
mjcf       file, mass, … (one body, made free)                                  block
drawer     pos, yaw, travel, colour                                             drawer: a slide, and a container
door       pos, yaw, opens (left or right), width, height, travel, colour       door: a slide
shelf      pos, yaw, size (depth, width), floor (height of its board), colour   shelf: a container
button     pos, lamp (pos of its lamp), colour                                  lamp: what the button switches
board      pos, yaw, size (full edges), height (of its underside), colour       none: something in the way
========== ==================================================================== ======================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from envs.scenes.document import Entry

__all__ = ["FIXTURES", "OBJECTS", "Block", "Container", "Lamp", "Parts", "Slide", "add_camera", "forget_globals"]

# Collision bits: objects 1, hand and fingers 2, fixed things 4. (contype, conaffinity)
OBJECT, HAND, FINGER, TABLE, FURNITURE = (1, 3), (2, 0), (2, 4), (4, 1), (4, 3)
SHAPES = ("box", "ball", "cylinder")
_WOOD, _FRONT, _METAL = (0.62, 0.47, 0.33), (0.72, 0.57, 0.42), (0.75, 0.77, 0.80)
_COMMON = ("colour", "says")
_SIZES = ("memory", "nconmax", "njmax", "nstack", "nkey", "nuserdata")
_BUTTON_TOP, BUTTON_TRAVEL = 0.062, 0.02


@dataclass(frozen=True)
class Block:
    """A free thing: half edges float[3] (m; radius, radius, half height for round things) and shape (of `SHAPES`)."""

    name: str
    half: tuple[float, float, float]
    shape: int


@dataclass(frozen=True)
class Slide:
    """A drawer or a door: its joint, unit ``axis`` of opening, ``handle`` when closed (m, world), travel (m)."""

    name: str
    kind: str
    axis: tuple[float, float, float]
    handle: tuple[float, float, float]
    travel: float


@dataclass(frozen=True)
class Container:
    """Where things can be put in: ``centre`` and ``half`` (m; along its own axes, turned by ``yaw`` rad), floor height.

    It moves with slide number ``slide`` (-1: it stands still). ``centre`` z is the floor.
    """

    name: str
    kind: str
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float
    slide: int


@dataclass(frozen=True)
class Lamp:
    """A lamp and the button that switches it: ``top`` of the button, not pressed (m, world)."""

    name: str
    top: tuple[float, float, float]


class Parts:
    """What was added to a scene, in order."""

    def __init__(self, spec: mujoco.MjSpec):
        self.spec = spec
        self.blocks: list[Block] = []
        self.slides: list[Slide] = []
        self.containers: list[Container] = []
        self.lamps: list[Lamp] = []
        self.says: dict[str, str] = {}


def _frame(parts: Parts, entry: Entry):
    """The fixture's body at its place, its yaw (rad) and rotation float64[2, 2]."""
    x, y = entry.vector("pos", 2)
    yaw = math.radians(entry.number("yaw", 0.0))
    quat = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
    body = parts.spec.worldbody.add_body(name=entry.name, pos=(x, y, 0), quat=quat)
    return body, yaw, np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])


def _world(entry: Entry, turn: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float]:
    """A point of the fixture's frame in the world's."""
    at = np.asarray(entry.vector("pos", 2)) + turn @ (x, y)
    return float(at[0]), float(at[1]), z


def _colour(entry: Entry, default: tuple[float, float, float]) -> tuple[float, float, float, float]:
    red, green, blue = entry.vector("colour", 3, default)
    return red, green, blue, 1.0


def box(body, pos, size, bits: tuple[int, int], rgba, mass: float = 0.0, **extra) -> None:
    """A box geom; ``size`` are half edges."""
    if mass:
        extra["mass"] = mass
    kind = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(type=kind, pos=pos, size=size, contype=bits[0], conaffinity=bits[1], rgba=rgba, condim=3, **extra)


def _block(parts: Parts, entry: Entry) -> None:
    shape = SHAPES.index(entry.type)
    if shape == 0:
        entry.only("size", "mass", "friction", *_COMMON)
        half = tuple(v / 2 for v in entry.vector("size", 3, above=0.0))
    else:
        entry.only("radius", *(("height",) if shape == 2 else ()), "mass", "friction", *_COMMON)
        radius = entry.number("radius", above=0.0)
        half = (radius, radius, entry.number("height", above=0.0) / 2 if shape == 2 else radius)
    mass, friction = entry.number("mass", 0.05, above=0.0), entry.number("friction", 1.2, low=0.0)
    index = len(parts.blocks)
    body = parts.spec.worldbody.add_body(name=entry.name, pos=(0.4 + 0.12 * (index % 3), 0.12 * (index // 3), half[2]))
    body.add_freejoint(name=entry.name)
    kind = (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CYLINDER)[shape]
    size = half if shape == 0 else (half[0], half[2], 0) if shape == 2 else (half[0], 0, 0)
    friction = entry.number("friction", 1.2, low=0.0)
    body.add_geom(
        name=entry.name, type=kind, size=size, contype=OBJECT[0], conaffinity=OBJECT[1], condim=3 if shape == 0 else 6,
        mass=mass, rgba=_colour(entry, (0.86, 0.18, 0.16)), friction=(friction, 0.01, 5e-4),
    )  # fmt: skip
    parts.blocks.append(Block(entry.name, half, shape))  # type: ignore[arg-type]


def _mjcf(parts: Parts, entry: Entry, folder: Path) -> None:
    """A free thing out of somebody's MJCF (or URDF): its one body, made free, with its frame in its middle."""
    entry.only("file", "mass", *_COMMON)
    path = folder / entry.text("file")
    try:
        child = mujoco.MjSpec.from_file(str(path))
        model = child.copy().compile()
    except (ValueError, OSError) as error:
        raise entry.wrong(f"{path.name} is not a model: {str(error).splitlines()[0]}", "file") from error
    if model.nbody != 2 or model.body_geomnum[1] == 0:
        raise entry.wrong(f"{path.name} has {model.nbody - 1} bodies; an object is one, with geoms", "file")
    forget_globals(child, parts.spec)
    frame = parts.spec.worldbody.add_frame(pos=(0.4, 0.1 * len(parts.blocks), 0.1))
    body = frame.attach_body(child.worldbody.bodies[0], f"{entry.name} ", "")
    body.name = entry.name
    for joint in list(body.joints):
        parts.spec.delete(joint)
    body.add_freejoint(name=entry.name)
    middle, half = _extent(model)
    for geom in body.geoms:
        geom.contype, geom.conaffinity = OBJECT
        if np.isnan(geom.fromto[0]):
            geom.pos = geom.pos - middle
        else:
            geom.fromto = geom.fromto - np.tile(middle, 2)
        if "colour" in entry.values:
            geom.rgba = _colour(entry, (0.0, 0.0, 0.0))
    mass = float(model.body_mass[1])
    body.explicitinertial = True
    body.mass = entry.number("mass", mass, above=0.0)
    body.inertia = model.body_inertia[1] * (body.mass / mass)
    body.fullinertia = np.full(6, np.nan)
    body.ipos, body.iquat = model.body_ipos[1] - middle, model.body_iquat[1]
    parts.blocks.append(Block(entry.name, half, 0))


def forget_globals(child: mujoco.MjSpec, spec: mujoco.MjSpec) -> None:
    """Options and sizes are the scene's: what a file that is attached says of them is dropped without a warning."""
    for mine, theirs in ((child.option, spec.option), (child.stat, spec.stat)):
        for name in dir(mine):
            if not name.startswith("_"):
                setattr(mine, name, getattr(theirs, name))
    for name in (*_SIZES, *(name for name in dir(spec) if name.startswith("nuser_"))):
        setattr(child, name, getattr(spec, name))


def _extent(model: mujoco.MjModel) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Middle and half edges of the box around the first body's geoms, in its frame (m)."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    turn = np.zeros(9)
    for geom in range(model.body_geomadr[1], model.body_geomadr[1] + model.body_geomnum[1]):
        mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
        middle = model.geom_pos[geom] + turn.reshape(3, 3) @ model.geom_aabb[geom, :3]
        reach = np.abs(turn.reshape(3, 3)) @ model.geom_aabb[geom, 3:]
        low, high = np.minimum(low, middle - reach), np.maximum(high, middle + reach)
    x, y, z = (high - low) / 2
    return (low + high) / 2, (float(x), float(y), float(z))


def _drawer(parts: Parts, entry: Entry) -> None:
    entry.only("pos", "yaw", "travel", *_COMMON)
    body, yaw, turn = _frame(parts, entry)
    travel = entry.number("travel", 0.16, above=0.02)
    front = _colour(entry, _FRONT)
    wood, top, floor = (*_WOOD, 1.0), 0.085, 0.016
    side = (top - 0.008) / 2
    box(body, (0, -0.1, side), (0.105, 0.005, side), FURNITURE, wood)
    for x in (-0.1, 0.1):
        box(body, (x, 0, side), (0.005, 0.1, side), FURNITURE, wood)
    box(body, (0, 0, top - 0.004), (0.105, 0.105, 0.004), FURNITURE, wood)
    tray = body.add_body(name=f"{entry.name} tray")
    tray.add_joint(
        name=entry.name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 1, 0), range=(0, travel),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, damping=[2, 0, 0], armature=0.1, frictionloss=0.2,
    )  # fmt: skip
    box(tray, (0, 0.002, floor - 0.004), (0.09, 0.088, 0.004), FURNITURE, front, mass=0.2)
    wall = 0.018
    for x in (-0.087, 0.087):
        box(tray, (x, 0.002, floor + wall), (0.003, 0.088, wall), FURNITURE, front, mass=0.03)
    box(tray, (0, -0.083, floor + wall), (0.084, 0.003, wall), FURNITURE, front, mass=0.03)
    box(tray, (0, 0.094, 0.038), (0.092, 0.004, 0.030), FURNITURE, front, mass=0.05)
    _handle(tray, (-0.04, 0.142, 0.047), (0.04, 0.142, 0.047), ((-0.036, 0.094, 0.047), (0.036, 0.094, 0.047)))
    axis = turn @ (0, 1)
    handle = _world(entry, turn, 0, 0.142, 0.047)
    slide = Slide(entry.name, "drawer", (float(axis[0]), float(axis[1]), 0.0), handle, travel)
    parts.containers.append(
        Container(entry.name, "drawer", _world(entry, turn, 0, 0, floor), (0.085, 0.085, 0.05), yaw, len(parts.slides))
    )
    parts.slides.append(slide)


def _handle(body, start, end, feet) -> None:
    """A bar to take hold of, and what holds it (to look at)."""
    capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
    body.add_geom(
        type=capsule, size=(0.008, 0, 0), mass=0.05, rgba=(*_METAL, 1), fromto=[*start, *end],
        contype=FURNITURE[0], conaffinity=FURNITURE[1],
    )  # fmt: skip
    for foot in feet:
        near = start if np.linalg.norm(np.subtract(foot, start)) < np.linalg.norm(np.subtract(foot, end)) else end
        body.add_geom(
            type=capsule, size=(0.005, 0, 0), mass=0.01, rgba=(*_METAL, 1), fromto=[*foot, *near],
            contype=0, conaffinity=0,
        )  # fmt: skip


def _door(parts: Parts, entry: Entry) -> None:
    entry.only("pos", "yaw", "opens", "width", "height", "travel", *_COMMON)
    body, _, turn = _frame(parts, entry)
    width, height = entry.number("width", 0.16, above=0.04), entry.number("height", 0.10, above=0.06)
    travel = entry.number("travel", width, above=0.02)
    opens = entry.text("opens", "right")
    if opens not in ("left", "right"):
        raise entry.wrong(f"opens = '{opens}' must be left or right", "opens")
    sign = 1.0 if opens == "left" else -1.0
    panel = body.add_body(name=f"{entry.name} panel")
    panel.add_joint(
        name=entry.name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, sign, 0), range=(0, travel),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, damping=[2, 0, 0], armature=0.1, frictionloss=0.2,
    )  # fmt: skip
    low = 0.012
    box(
        panel,
        (0, 0, (low + height) / 2),
        (0.004, width / 2, (height - low) / 2),
        FURNITURE,
        _colour(entry, _FRONT),
        0.25,
    )
    grip = height - 0.035
    _handle(panel, (-0.034, 0, grip), (-0.012, 0, grip), ((-0.004, 0, grip),))
    rail = (travel + width) / 2
    for z, thick in ((0.005, 0.005), (height + 0.003, 0.002)):  # to look at
        middle = sign * (rail - width / 2)
        box(body, (0.008, middle, z), (0.003, rail, thick), (0, 0), (*_METAL, 1))
    axis = turn @ (0, sign)
    handle = _world(entry, turn, -0.022, 0, grip)
    parts.slides.append(Slide(entry.name, "door", (float(axis[0]), float(axis[1]), 0.0), handle, travel))


def _shelf(parts: Parts, entry: Entry) -> None:
    entry.only("pos", "yaw", "size", "floor", *_COMMON)
    body, yaw, turn = _frame(parts, entry)
    depth, width = entry.vector("size", 2, (0.11, 0.32), above=0.05)
    floor = entry.number("floor", 0.05, above=0.01)
    wood = _colour(entry, _WOOD)
    box(body, (0, 0, floor / 2), (depth / 2, width / 2, floor / 2), FURNITURE, wood)
    wall = 0.02
    box(body, (depth / 2 + 0.004, 0, floor / 2 + wall), (0.004, width / 2 + 0.008, floor / 2 + wall), FURNITURE, wood)
    for y in (-width / 2 - 0.004, width / 2 + 0.004):
        box(body, (0, y, floor / 2 + wall), (depth / 2, 0.004, floor / 2 + wall), FURNITURE, wood)
    half = (depth / 2, width / 2, 0.08)
    parts.containers.append(Container(entry.name, "shelf", _world(entry, turn, 0, 0, floor), half, yaw, -1))


def _button(parts: Parts, entry: Entry) -> None:
    entry.only("pos", "lamp", *_COMMON)
    body, _, turn = _frame(parts, entry)
    colour = _colour(entry, (0.16, 0.62, 0.32))
    box(body, (0, 0, 0.02), (0.032, 0.032, 0.02), FURNITURE, (0.35, 0.36, 0.4, 1))
    button = body.add_body(name=f"{entry.name} button", pos=(0, 0, _BUTTON_TOP - 0.012), gravcomp=1)
    button.add_joint(
        name=entry.name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1), range=(-BUTTON_TRAVEL, 0),
        limited=mujoco.mjtLimited.mjLIMITED_TRUE, stiffness=[80, 0, 0], damping=[2, 0, 0], armature=0.02,
    )  # fmt: skip
    button.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.02, 0.012, 0), mass=0.05, rgba=colour,
        contype=FURNITURE[0], conaffinity=FURNITURE[1],
    )  # fmt: skip
    x, y = entry.vector("lamp", 2, (entry.vector("pos", 2)[0], entry.vector("pos", 2)[1] + 0.08))
    post = parts.spec.worldbody.add_body(name=f"{entry.name} post", pos=(x, y, 0))
    post.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.006, 0.04, 0), pos=(0, 0, 0.04), contype=0, conaffinity=0,
        rgba=(*_METAL, 1),
    )  # fmt: skip
    dark = tuple(0.35 * v for v in colour[:3])
    post.add_geom(
        name=entry.name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.022, 0, 0), pos=(0, 0, 0.095),
        contype=0, conaffinity=0, rgba=(*dark, 1),
    )  # fmt: skip
    parts.lamps.append(Lamp(entry.name, _world(entry, turn, 0, 0, _BUTTON_TOP)))


def _board(parts: Parts, entry: Entry) -> None:
    entry.only("pos", "yaw", "size", "height", *_COMMON)
    body, _, _ = _frame(parts, entry)
    half = np.asarray(entry.vector("size", 3, above=0.0)) / 2
    box(body, (0, 0, entry.number("height", 0.0, low=0.0) + half[2]), half, FURNITURE, _colour(entry, _WOOD))


OBJECTS: dict[str, Callable[..., None]] = {**dict.fromkeys(SHAPES, _block), "mjcf": _mjcf}
FIXTURES: dict[str, Callable[..., None]] = {
    "drawer": _drawer,
    "door": _door,
    "shelf": _shelf,
    "button": _button,
    "board": _board,
}


def add_camera(spec: mujoco.MjSpec, entry: Entry) -> None:
    """A fixed camera at ``pos`` (m) that looks at ``target``; ``fovy`` in degrees."""
    entry.only("pos", "target", "fovy")
    position, target = np.asarray(entry.vector("pos", 3)), np.asarray(entry.vector("target", 3))
    back = position - target
    if np.linalg.norm(back) < 1e-6:
        raise entry.wrong("pos and target are the same point; a camera must look somewhere", "target")
    back /= np.linalg.norm(back)
    right = np.cross((0, 0, 1), back) if abs(back[2]) < 0.999 else np.array([0.0, -1.0, 0.0])
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    spec.worldbody.add_camera(name=entry.name, pos=position, quat=quat, fovy=entry.number("fovy", 42.0, above=1.0))
