"""The robot of a scene: the built-in arm, or a user's own MJCF or URDF with what its page says of it.

```yaml
robot:
  file: arm.xml                # MJCF or URDF; relative to the page
  tool: grasp                  # a site or body: z out of the hand, y the way the fingers open, between their pads
  offset: [0, 0, 0.1]          # m from there, in its frame, where no site is between the pads
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
from pathlib import Path

import mujoco
import numpy as np

from envs.kinematics import Chain
from envs.playroom.robot import DRIVE, FINGER_RANGE, GRIPPER, HOME
from envs.scenes.document import Entry
from envs.scenes.measures import PREFIX, chain_of, ends_of, opening_of, own_name, tool_frame
from envs.scenes.parts import FINGER, HAND, forget_globals

__all__ = ["MOST_JOINTS", "Robot", "attach", "builtin"]

MOST_JOINTS = 7  # facts have so many columns for angles
_KEYS = ("file", "tool", "offset", "home", "fingers", "gripper", "kp", "kd", "pos", "yaw", "gravcomp")
_QUICK = 30.0  # rad/s: a servo with no kp given is critically damped at this, for the inertia at home
_WEAKEST = 20.0  # Nm/rad that such a servo has at least
# Servos on fingers that slide or turn: kp, kd, most force (N or Nm), rotor inertia as felt at the joint (kg or kg m²).
_GRIP = {True: (500.0, 30.0, 40.0, 0.1), False: (4.0, 0.3, 4.0, 0.001)}


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
    fingers = _fingers(spec, entry, joints)
    own = _servos(spec, entry, joints)
    grips = _grips(spec, entry, joints, fingers)
    model = _compiled(spec, entry)
    for number, joint in enumerate(joints):
        if model.joint(joint).id != number:
            what = "neither between its base and its tool nor comes after them; the arm's joints must come first"
            raise entry.wrong(f"joint '{own_name(model.joint(number).name)}' is {what}", "file")
    chain = chain_of(model, entry, home)
    for joint, (angle, low, high) in zip(joints, np.stack([home, chain.low, chain.high], 1).tolist(), strict=True):
        if not low - 1e-6 <= angle <= high + 1e-6:
            raise entry.wrong(f"home: {angle:g} rad of joint '{own_name(joint)}' is not in {low:g} to {high:g}", "home")
    data = mujoco.MjData(model)
    data.qpos[: len(home)] = home
    mujoco.mj_forward(model, data)
    (_, _, height), turn = tool_frame(model, data, entry)
    if height < 0.0:
        raise entry.wrong(f"home: the tool is {-1000 * height:.0f} mm under the table", "home")
    if turn[0, 0] < 0.0:  # two fingers are the same turned by half: the way round that is nearer to a yaw of 0
        chain.rotations[-1][:, :2] *= -1.0
    gripper, directions, opening = opening_of(model, data, entry, fingers)
    motors = np.array([model.actuator(name).id for name in _tune(spec, entry, own, joints, model, data)], np.int64)
    shut, half = ends_of(model, data, entry, grips, gripper, directions)
    drive = (motors, np.array([model.actuator(name).id for name in grips], np.int64), shut, half)
    base = model.body(model.body_rootid[model.joint(joints[0]).bodyid[0]]).name
    return Robot(chain, drive, gripper, base, fingers, opening)


def _listed(names) -> str:
    """Names to choose from, as a sentence's end."""
    return ", ".join(own_name(name) for name in names if name) or "none"


def _compiled(spec: mujoco.MjSpec, entry: Entry) -> mujoco.MjModel:
    try:
        return spec.copy().compile()
    except ValueError as error:
        what = " ".join(str(error).split()).replace(PREFIX, "")
        raise entry.wrong(f"{entry.values['file']} does not compile: {what}", "file") from error


def _add(spec: mujoco.MjSpec, entry: Entry, path: Path) -> None:
    """Attaches the tree of bodies that has the tool, with the arm's collision bits and its weight carried."""
    if not path.is_file():
        raise entry.wrong(f"there is no file {path.name}", "file")
    try:
        child = mujoco.MjSpec.from_file(str(path))
        child.compiler.fusestatic = False  # of a URDF, the links that only name a frame stay
        _find_meshes(child, path)
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
    base.name = base.name if base.name not in ("", PREFIX) else f"{PREFIX}base"
    for number, actuator in enumerate(spec.actuators):
        actuator.name = actuator.name if actuator.name not in ("", PREFIX) else f"{PREFIX}actuator {number + 1}"
    for body in (base, *base.find_all("body")):
        body.gravcomp = carried
        for geom in body.geoms:
            if geom.contype or geom.conaffinity:
                geom.contype, geom.conaffinity = HAND
    for number, joint in enumerate(base.joints + base.find_all("joint")):
        joint.name = joint.name if joint.name not in ("", PREFIX) else f"{PREFIX}joint {number + 1}"


def _find_meshes(child: mujoco.MjSpec, path: Path) -> None:
    """Meshes of a URDF's package (package://name/…) are looked for in the folders above the file."""
    for mesh in child.meshes:
        scheme, _, rest = mesh.file.partition(":")
        if scheme != "package":
            continue
        package = Path(rest.lstrip("/"))
        places = [above / part for above in path.resolve().parents for part in (package, Path(*package.parts[1:]))]
        mesh.file = str(next((place for place in places if place.is_file()), mesh.file))


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
                f"joint '{own_name(joint.name)}' between the base and the tool is of type {kind}; hinges are needed",
                "tool",
            )
    if not 1 <= len(found) <= MOST_JOINTS:
        count = len(found) or "no"
        raise entry.wrong(
            f"there are {count} joints between the base and the tool '{own_name(name)}'; 1 to {MOST_JOINTS} are needed",
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


def _fingers(spec: mujoco.MjSpec, entry: Entry, arm: list[str]) -> tuple[str, ...]:
    """The two bodies that close on things, made to collide as fingers do; of an arm without a hand its last link is."""
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
            if joint.name in arm:
                raise entry.wrong(
                    f"finger '{name}' is a link of the arm, moved by joint '{own_name(joint.name)}'", "fingers"
                )
            turns = joint.type in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)
            if not turns or joint.range[0] >= joint.range[1]:
                raise entry.wrong(
                    f"joint '{own_name(joint.name)}' of finger '{name}' must be a slide or hinge with a range",
                    "fingers",
                )
        solid = [geom for geom in body.geoms if geom.contype or geom.conaffinity]
        if not solid:
            raise entry.wrong(f"finger '{name}' has no geoms that collide", "fingers")
        for geom in solid:
            geom.contype, geom.conaffinity = FINGER
    for geom in [] if names else spec.joint(arm[-1]).parent.geoms:
        if geom.contype:
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
                names = " and ".join(f"'{own_name(a.name)}'" for a in there)
                what = f"joint '{own_name(joint)}' is driven by {names}, not by one position servo"
                raise entry.wrong(f"{what}; give kp, and it gets one", "file")
            if kd is not None:
                raise entry.wrong(
                    "kd is of the servos that kp asks for; give kp as well, or leave it to the file", "kd"
                )
            continue
        for actuator in there:
            spec.delete(actuator)
        _servo(spec, joint, kp[number] if kp else _WEAKEST)
        added.append(joint)
    return added


def _tune(
    spec: mujoco.MjSpec, entry: Entry, added: list[str], joints: list[str], model: mujoco.MjModel, data: mujoco.MjData
) -> list[str]:
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
            raise entry.wrong(
                f"gripper: there is no actuator '{own_name(name)}'; there are: {_listed(others)}", "gripper"
            )
    if names and not fingers:
        raise entry.wrong("a gripper needs fingers: the two bodies that close on things", "gripper")
    idle = [name for name in others if name not in names]
    if idle:
        raise entry.wrong(f"nothing commands the actuators {_listed(idle)}; name those of the hand as gripper", "file")
    if names:
        return names
    moving = [joint for finger in fingers for joint in spec.body(finger).joints]
    model = _compiled(spec, entry)  # the file may say ranges in degrees
    for joint in moving:
        kp, kd, most, heavy = _GRIP[joint.type == mujoco.mjtJoint.mjJNT_SLIDE]
        _servo(spec, joint.name, kp)
        servo = spec.actuator(joint.name)
        servo.ctrlrange, servo.forcerange = model.joint(joint.name).range, [-most, most]
        servo.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        joint.damping[0], joint.armature = max(joint.damping[0], kd), max(joint.armature, heavy)
    return [joint.name for joint in moving]
