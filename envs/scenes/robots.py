"""The robot of a scene: the built-in arm, or a user's own MJCF or URDF with what its page says of it.

```yaml
robot:
  file: arm.xml                # MJCF or URDF; relative to the page
  tool: grasp                  # a site or body: z out of the hand, y the way the fingers open, between their pads
  home: [0, -0.3, 0, -1.8, 0, 1.5, 0.8]   # rad, of the hinges from the base to the tool, in order
  fingers: [left, right]       # the two bodies that close on things (none: an arm without a hand)
  gripper: grip                # actuators of the file that move the fingers (none: servos on their joints)
  kp: 400                      # makes position servos of all joints; or a number a joint. kd: their damping
  pos: [0, 0, 0]               # of the base; yaw in degrees
  gravcomp: 1                  # share of the robot's weight that is carried, as a real controller does
```

What the file does not say is found out: how the joints lie from the model at rest, how wide the fingers open from their
shapes at the ends of their ranges, which end of an actuator opens them from the force it puts on their joints. The
robot's parts get collision bits as the built-in arm's: they meet objects and furniture, the fingers the table as well,
and the robot never meets itself. The options of the file (timestep, integrator) are not taken: a scene has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mujoco
import numpy as np

from envs.kinematics import Chain
from envs.playroom.robot import DRIVE, FINGER_RANGE, GRIPPER, HOME
from envs.scenes.document import Entry
from envs.scenes.parts import FINGER, HAND, forget_globals

__all__ = ["MOST_JOINTS", "Robot", "attach", "builtin"]

MOST_JOINTS = 7  # facts have so many columns for angles
PREFIX = "robot "  # of everything that comes out of the robot's file
_KEYS = ("file", "tool", "home", "fingers", "gripper", "kp", "kd", "pos", "yaw", "gravcomp")
_QUICK = 30.0  # rad/s: a servo with no kp given is critically damped at this, for the inertia at home
_WEAKEST = 20.0  # Nm/rad that such a servo has at least
# Servos on fingers that slide or turn: kp, kd, most force (N or Nm), rotor inertia as felt at the joint (kg or kg m²).
_GRIP = {True: (500.0, 30.0, 40.0, 0.1), False: (4.0, 0.3, 4.0, 0.001)}
_OPENS = 0.002  # m by which fingers must open
_WHOLE = 0.08  # m that scripts take the fingers of an arm without a hand to open


@dataclass(frozen=True)
class Robot:
    """What control, facts and scripts need to know of a robot. J joints, F finger joints, G gripper actuators.

    The arm's joints are the first J of qpos and qvel. ``drive``: actuators int64[J] and int64[G], the latter's controls
    when shut and half their ranges float64[G]. ``gripper``: the finger joints' addresses in qpos and qvel int64[F],
    where they are shut and open float64[F], what a unit adds to the width between the fingers float64[F] (m), and the
    width when shut (m). ``base`` and ``fingers`` are bodies; ``opening``: width of the open gripper (m).
    """

    chain: Chain
    drive: tuple[np.ndarray, ...]
    gripper: tuple
    base: str
    fingers: tuple[str, ...]
    opening: float

    @property
    def arrays(self) -> tuple[tuple, ...]:
        """All of it, as compiled code takes it."""
        return self.chain.arrays, self.drive, self.gripper


def builtin(model: mujoco.MjModel) -> Robot:
    """The built-in arm of a compiled scene."""
    fingers = ("finger_left", "finger_right")
    return Robot(Chain.from_model(model, HOME), DRIVE, GRIPPER, "link0", fingers, 2 * FINGER_RANGE)


def attach(spec: mujoco.MjSpec, entry: Entry, folder: Path) -> Robot:
    """Adds a user's robot to a scene that has no joints yet. Raises SceneError with the line of what is wrong."""
    entry.only(*_KEYS)
    _add(spec, entry, folder / entry.text("file"))
    joints = _arm(spec, entry)
    home = np.array(entry.vector("home", len(joints)))
    fingers = _fingers(spec, entry)
    own = _servos(spec, entry, joints)
    grips = _grips(spec, entry, joints, fingers)
    model = _compiled(spec, entry)
    for number, joint in enumerate(joints):
        if model.joint(joint).id != number:
            what = "neither between its base and its tool nor comes after them; the arm's joints must come first"
            raise entry.wrong(f"joint '{_own(model.joint(number).name)}' is {what}", "file")
    chain = _chain(model, entry, home)
    for joint, (angle, low, high) in zip(joints, np.stack([home, chain.low, chain.high], 1).tolist(), strict=True):
        if not low - 1e-6 <= angle <= high + 1e-6:
            raise entry.wrong(f"home: {angle:g} rad of joint '{_own(joint)}' is not in {low:g} to {high:g}", "home")
    data = mujoco.MjData(model)
    data.qpos[: len(home)] = home
    mujoco.mj_forward(model, data)
    (_, _, height), turn = _frame(model, data, entry)
    if height < 0.0:
        raise entry.wrong(f"home: the tool is {-1000 * height:.0f} mm under the table", "home")
    if turn[0, 0] < 0.0:  # two fingers are the same turned by half: the way round that is nearer to a yaw of 0
        chain.rotations[-1][:, :2] *= -1.0
    gripper, directions, opening = _opening(model, data, entry, fingers)
    motors = np.array([model.actuator(name).id for name in _soft(spec, entry, own, joints, model, data)], np.int64)
    shut, half = _ends(model, data, entry, grips, gripper, directions)
    drive = (motors, np.array([model.actuator(name).id for name in grips], np.int64), shut, half)
    base = model.body(model.body_rootid[model.joint(joints[0]).bodyid[0]]).name
    return Robot(chain, drive, gripper, base, fingers, opening)


def _own(name: str) -> str:
    """A name as the robot's file has it."""
    return name.removeprefix(PREFIX)


def _listed(names) -> str:
    """Names to choose from, as a sentence's end."""
    return ", ".join(_own(name) for name in names if name) or "none"


def _compiled(spec: mujoco.MjSpec, entry: Entry) -> mujoco.MjModel:
    try:
        return spec.copy().compile()
    except ValueError as error:
        what = " ".join(str(error).split()).replace(PREFIX, "")
        raise entry.wrong(f"{entry.values['file']} does not compile: {what}", "file") from error


def _add(spec: mujoco.MjSpec, entry: Entry, path: Path) -> None:
    """Attaches the tree of bodies that has the tool; everything gets the arm's collision bits and its weight carried."""
    if not path.is_file():
        raise entry.wrong(f"there is no file {path.name}", "file")
    try:
        child = mujoco.MjSpec.from_file(str(path))
        child.compiler.fusestatic = False  # of a URDF, the links that only name a frame stay
        child.copy().compile()
    except (ValueError, OSError) as error:
        raise entry.wrong(f"{path.name} is not a model: {' '.join(str(error).split())}", "file") from error
    name = entry.text("tool")
    site = child.site(name)
    body = site.parent if site else child.body(name)
    if body is None:
        known = f"sites: {_listed(s.name for s in child.sites)}; bodies: {_listed(b.name for b in child.bodies[1:])}"
        raise entry.wrong(f"tool = '{name}' is no site or body of {path.name}; {known}", "tool")
    while body.name != "world" and body.parent.name != "world":
        body = body.parent
    if body.name == "world":
        raise entry.wrong(f"there are no joints between the base and the tool '{name}'", "tool")
    for part in (*child.keys, *child.sensors):
        child.delete(part)
    forget_globals(child, spec)
    yaw = np.radians(entry.number("yaw", 0.0))
    pos, carried = entry.vector("pos", 3, (0.0, 0.0, 0.0)), entry.number("gravcomp", 1.0, low=0.0)
    frame = spec.worldbody.add_frame(pos=pos, quat=(np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)))
    base = frame.attach_body(body, PREFIX, "")
    if base.name == PREFIX:
        base.name = f"{PREFIX}base"
    for body in (base, *base.find_all("body")):
        body.gravcomp = carried
        for geom in body.geoms:
            if geom.contype or geom.conaffinity:
                geom.contype, geom.conaffinity = HAND
    for number, joint in enumerate(base.joints + base.find_all("joint")):
        joint.name = joint.name if joint.name not in ("", PREFIX) else f"{PREFIX}joint {number + 1}"


def _arm(spec: mujoco.MjSpec, entry: Entry) -> list[str]:
    """Names of the joints from the base to the tool: hinges, 1 to `MOST_JOINTS` of them."""
    name = PREFIX + entry.text("tool")
    site = spec.site(name)
    body = site.parent if site else spec.body(name)
    found = []
    while body.name != "world":
        found = [*body.joints, *found]
        body = body.parent
    for joint in found:
        if joint.type != mujoco.mjtJoint.mjJNT_HINGE:
            kind = mujoco.mjtJoint(joint.type).name.removeprefix("mjJNT_").lower()
            raise entry.wrong(
                f"joint '{_own(joint.name)}' between the base and the tool is of type {kind}; hinges are needed", "tool"
            )
    if not 1 <= len(found) <= MOST_JOINTS:
        count = len(found) or "no"
        raise entry.wrong(
            f"there are {count} joints between the base and the tool '{_own(name)}'; 1 to {MOST_JOINTS} are needed",
            "tool",
        )
    return [joint.name for joint in found]


def _names(entry: Entry, key: str) -> list[str]:
    """A name or a list of names."""
    value = entry.values.get(key, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise entry.wrong(f"{key} = {value!r} must be a name or a list of names", key)
    return names


def _fingers(spec: mujoco.MjSpec, entry: Entry) -> tuple[str, ...]:
    """The two bodies that close on things, made to collide as fingers do; none."""
    names = _names(entry, "fingers")
    if "fingers" in entry.values and (len(names) != 2 or names[0] == names[1]):
        raise entry.wrong(f"fingers = {entry.values['fingers']!r} must be two bodies", "fingers")
    joints = 0
    for name in names:
        body = spec.body(PREFIX + name)
        if body is None:
            bodies = _listed(b.name for b in spec.bodies if b.name.startswith(PREFIX))
            raise entry.wrong(f"there is no body '{name}' for a finger; bodies: {bodies}", "fingers")
        for joint in body.joints:
            joints += 1
            turns = joint.type in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)
            if not turns or joint.range[0] >= joint.range[1]:
                raise entry.wrong(f"joint '{_own(joint.name)}' of finger '{name}' must be a slide or hinge with a range")
        solid = [geom for geom in body.geoms if geom.contype or geom.conaffinity]
        if not solid:
            raise entry.wrong(f"finger '{name}' has no geoms that collide", "fingers")
        for geom in solid:
            geom.contype, geom.conaffinity = FINGER
    if names and not joints:
        raise entry.wrong(f"neither of the bodies {' and '.join(names)} has a joint to open with", "fingers")
    return tuple(PREFIX + name for name in names)


def _gains(entry: Entry, key: str, count: int) -> tuple[float, ...] | None:
    """A number a joint, from one for all or from a list of them; None where the page says nothing."""
    if key not in entry.values:
        return None
    if isinstance(entry.values[key], list):
        return entry.vector(key, count, above=0.0)
    return (entry.number(key, above=0.0),) * count


def _servo(spec: mujoco.MjSpec, joint: str, kp: float) -> None:
    """A position servo on a joint, under the joint's own name: force = kp (u - q)."""
    servo = spec.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, biastype=mujoco.mjtBias.mjBIAS_AFFINE
    )
    servo.gainprm[0], servo.biasprm[1] = kp, -kp


def _is_servo(actuator) -> bool:
    """Whether an actuator takes its joint to the angle it is told."""
    kp = actuator.gainprm[0]
    follows = actuator.biastype == mujoco.mjtBias.mjBIAS_AFFINE and kp > 0 and np.isclose(actuator.biasprm[1], -kp)
    return bool(follows and actuator.gear[0] == 1.0 and actuator.dyntype == mujoco.mjtDyn.mjDYN_NONE)


def _on(spec: mujoco.MjSpec, joint: str) -> list:
    kinds = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
    return [a for a in spec.actuators if a.target == joint and a.trntype in kinds]


def _servos(spec: mujoco.MjSpec, entry: Entry, joints: list[str]) -> list[str]:
    """Sees to it that every joint of the arm has one position servo; the joints that were given one."""
    kp, kd = _gains(entry, "kp", len(joints)), _gains(entry, "kd", len(joints))
    added = []
    for number, joint in enumerate(joints):
        there = _on(spec, joint)
        if there and kp is None:
            if len(there) > 1 or not _is_servo(there[0]):
                names = " and ".join(f"'{_own(a.name)}'" for a in there)
                what = f"joint '{_own(joint)}' is driven by {names}, not by one position servo"
                raise entry.wrong(f"{what}; give kp, and it gets one", "file")
            if kd is not None:
                raise entry.wrong("kd is of the servos that kp asks for; give kp as well, or leave it to the file", "kd")
            continue
        for actuator in there:
            spec.delete(actuator)
        _servo(spec, joint, kp[number] if kp else _WEAKEST)
        added.append(joint)
    return added


def _soft(spec, entry: Entry, added: list[str], joints: list[str], model, data) -> list[str]:
    """Sets the gains of the servos that were added, by the inertia at home; the names of the arm's actuators."""
    kp, kd = _gains(entry, "kp", len(joints)), _gains(entry, "kd", len(joints))
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    names = []
    for number, joint in enumerate(joints):
        (servo,) = _on(spec, joint)
        names.append(servo.name)
        if joint not in added:
            continue
        stiff = kp[number] if kp else max(_WEAKEST, _QUICK**2 * float(inertia[number, number]))
        servo.gainprm[0], servo.biasprm[1] = stiff, -stiff
        damping = spec.joint(joint).damping  # of the joint: unlike a servo's, it holds when torque saturates
        damping[0] = kd[number] if kd else max(damping[0], 2 * stiff / _QUICK)
    return names


def _grips(spec: mujoco.MjSpec, entry: Entry, joints: list[str], fingers: tuple[str, ...]) -> list[str]:
    """The gripper's actuators: those the page names, or servos on the fingers' joints."""
    names = [PREFIX + name for name in _names(entry, "gripper")]
    arm = {actuator.name for joint in joints for actuator in _on(spec, joint)}
    others = [a.name for a in spec.actuators if a.name not in arm]
    for name in names:
        if name not in others:
            raise entry.wrong(f"gripper: there is no actuator '{_own(name)}'; there are: {_listed(others)}", "gripper")
        if spec.actuator(name).ctrlrange[0] >= spec.actuator(name).ctrlrange[1]:
            raise entry.wrong(f"actuator '{_own(name)}' of the gripper has no ctrlrange", "gripper")
    if names and not fingers:
        raise entry.wrong("a gripper needs fingers: the two bodies that close on things", "gripper")
    idle = [name for name in others if name not in names]
    if idle:
        raise entry.wrong(f"nothing drives {_listed(idle)}; name the actuators of the hand as gripper", "file")
    if names:
        return names
    moving = [joint for finger in fingers for joint in spec.body(finger).joints]
    for joint in moving:
        kp, kd, most, heavy = _GRIP[joint.type == mujoco.mjtJoint.mjJNT_SLIDE]
        _servo(spec, joint.name, kp)
        servo = spec.actuator(joint.name)
        servo.ctrlrange, servo.forcerange = joint.range, [-most, most]
        servo.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        joint.damping[0], joint.armature = max(joint.damping[0], kd), max(joint.armature, heavy)
    return [joint.name for joint in moving]


def _frame(model: mujoco.MjModel, data: mujoco.MjData, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Position float64[3] and rotation float64[3, 3] of the tool."""
    name = PREFIX + entry.text("tool")
    site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
    at = data.site(site) if site >= 0 else data.body(name)
    return at.xpos.copy(), at.xmat.reshape(3, 3).copy()


def _chain(model: mujoco.MjModel, entry: Entry, home: np.ndarray) -> Chain:
    """The arm as links that turn about their own z, from where joints and tool are in the reference pose."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    count = len(home)
    at, frame, turn = np.zeros(3), np.eye(3), np.zeros(9)
    positions, rotations = np.zeros((count + 2, 3)), np.zeros((count + 1, 3, 3))
    for k in range(count):
        axis, quat = data.xaxis[k], np.zeros(4)
        mujoco.mju_quatZ2Vec(quat, axis)
        mujoco.mju_quat2Mat(turn, quat)
        link = turn.reshape(3, 3).copy()
        angle = float(model.qpos0[k])  # what the joint reads in the reference pose
        back = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        positions[k], rotations[k] = frame.T @ (data.xanchor[k] - at), frame.T @ link @ back
        at, frame = data.xanchor[k].copy(), link
    tool, rotation = _frame(model, data, entry)
    positions[count], rotations[count] = frame.T @ (tool - at), frame.T @ rotation
    limited = model.jnt_limited[:count].astype(bool)
    low, high = np.where(limited[:, None], model.jnt_range[:count], (-np.inf, np.inf)).T.copy()
    return Chain(positions, rotations, low.copy(), high.copy(), home)


def _gap(model: mujoco.MjModel, data: mujoco.MjData, fingers: tuple[str, ...]) -> float:
    """Distance of two bodies' shapes (m)."""
    mujoco.mj_kinematics(model, data)
    left, right = (
        [g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(name).id and model.geom_contype[g]]
        for name in fingers
    )
    return min(mujoco.mj_geomDistance(model, data, a, b, 1.0, None) for a, b in product(left, right))


def _opening(model: mujoco.MjModel, data: mujoco.MjData, entry: Entry, fingers: tuple[str, ...]):
    """`Robot.gripper`, which way each finger joint opens (±1) float64[F], and how wide they open (m)."""
    bodies = [model.body(name) for name in fingers]
    ids = [j for body in bodies for j in range(body.jntadr[0], body.jntadr[0] + body.jntnum[0])]
    at, dofs = model.jnt_qposadr[ids].astype(np.int64), model.jnt_dofadr[ids].astype(np.int64)
    if not ids:
        return (at, dofs, np.zeros(0), np.zeros(0), np.zeros(0), 0.0), np.zeros(0), _WHOLE
    found = []
    for ends in product(*model.jnt_range[ids].tolist()):
        data.qpos[at] = ends
        found.append((_gap(model, data, fingers), ends))
    (least, shut), (most, wide) = min(found), max(found)
    least = max(least, 0.0)
    if most - least < _OPENS:
        raise entry.wrong(f"the fingers open by {1000 * (most - least):.1f} mm only", "fingers")
    shut, wide = np.array(shut), np.array(wide)
    travel = np.where(wide == shut, 1.0, wide - shut)
    slope = np.where(wide == shut, 0.0, (most - least) / np.count_nonzero(wide - shut) / travel)
    data.qpos[at] = (shut + wide) / 2
    return (at, dofs, shut, wide, slope, least), np.sign(wide - shut), most


def _ends(model, data, entry: Entry, grips: list[str], gripper: tuple, directions: np.ndarray):
    """Controls of the gripper's actuators when shut, and half the way to those when open; float64[G] each."""
    shut, half = np.zeros(len(grips)), np.zeros(len(grips))
    for number, name in enumerate(grips):
        actuator = model.actuator(name)
        force = []
        for control in actuator.ctrlrange:
            data.ctrl[:] = 0.0
            data.ctrl[actuator.id] = control
            mujoco.mj_forward(model, data)
            force.append(float(data.qfrc_actuator[gripper[1]] @ directions))
        if abs(force[1] - force[0]) < 1e-9:
            raise entry.wrong(f"actuator '{_own(name)}' moves none of the fingers' joints", "gripper")
        low, high = actuator.ctrlrange
        shut[number], half[number] = (low, (high - low) / 2) if force[1] > force[0] else (high, (low - high) / 2)
    return shut, half


