"""What the model of a user's robot says of itself: how its joints lie, how its fingers open, what its actuators do."""

from __future__ import annotations

from itertools import product

import mujoco
import numpy as np

from envs.kinematics import Chain
from envs.scenes.document import Entry

__all__ = ["PREFIX", "chain_of", "ends_of", "opening_of", "own_name", "tool_frame"]

PREFIX = "robot "  # of everything that comes out of the robot's file
_OPENS = 0.002  # m by which fingers must open
_WHOLE = 0.08  # m that scripts take the fingers of an arm without a hand to open


def own_name(name: str) -> str:
    """A name as the robot's file has it."""
    return name.removeprefix(PREFIX)


def tool_frame(model: mujoco.MjModel, data: mujoco.MjData, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Position float64[3] and rotation float64[3, 3] of the tool."""
    name = PREFIX + entry.text("tool")
    site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
    at = data.site(site) if site >= 0 else data.body(name)
    turn = at.xmat.reshape(3, 3).copy()
    return at.xpos + turn @ entry.vector("offset", 3, (0.0, 0.0, 0.0)), turn


def chain_of(model: mujoco.MjModel, entry: Entry, home: np.ndarray) -> Chain:
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
    tool, rotation = tool_frame(model, data, entry)
    positions[count], rotations[count] = frame.T @ (tool - at), frame.T @ rotation
    limited = model.jnt_limited[:count].astype(bool)
    low, high = np.where(limited[:, None], model.jnt_range[:count], (-np.inf, np.inf)).T.copy()
    return Chain(positions, rotations, low.copy(), high.copy(), home)


def _solid(model: mujoco.MjModel, body: str) -> list[int]:
    """Geoms of a body that collide."""
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(body).id and model.geom_contype[g]]


def opening_of(model: mujoco.MjModel, data: mujoco.MjData, entry: Entry, fingers: tuple[str, ...]):
    """`Robot.gripper`, which way each finger joint opens (±1) float64[F], and how wide they open (m).

    Shut is where the fingers' middles are nearest. What opening adds is measured at the tool, along its y; between, the
    width is taken to follow the joints in proportion (of sliding fingers it does).
    """
    bodies = [model.body(name) for name in fingers]
    ids = [j for body in bodies for j in range(body.jntadr[0], body.jntadr[0] + body.jntnum[0])]
    at, dofs = model.jnt_qposadr[ids].astype(np.int64), model.jnt_dofadr[ids].astype(np.int64)
    if not ids:
        return (at, dofs, np.zeros(0), np.zeros(0), np.zeros(0), 0.0), np.zeros(0), _WHOLE
    left, right = (_solid(model, name) for name in fingers)
    found = []
    for ends in product(*model.jnt_range[ids].tolist()):
        data.qpos[at] = ends
        mujoco.mj_kinematics(model, data)
        apart = data.geom_xpos[left].mean(0) - data.geom_xpos[right].mean(0)
        found.append((float(np.linalg.norm(apart)), ends))
    shut, wide = np.array(min(found)[1]), np.array(max(found)[1])
    travelled = []
    for ends in (shut, wide):
        data.qpos[at] = ends
        mujoco.mj_kinematics(model, data)
        tool, turn = tool_frame(model, data, entry)
        frames = [(data.xpos[body.id].copy(), data.xmat[body.id].reshape(3, 3).copy()) for body in bodies]
        if not travelled:  # the fingers' points at the tool
            points = [rotation.T @ (tool - place) for place, rotation in frames]
            gap = min(mujoco.mj_geomDistance(model, data, a, b, 1.0, None) for a, b in product(left, right))
        one, other = (place + rotation @ p for (place, rotation), p in zip(frames, points, strict=True))
        travelled.append(float((one - other) @ turn[:, 1]))
    least, opens = max(gap, 0.0), abs(travelled[1] - travelled[0])
    if opens < _OPENS:
        what = f"the fingers open by {1000 * opens:.1f} mm only along the y of the tool '{entry.text('tool')}'"
        raise entry.wrong(what, "fingers")
    travel = np.where(wide == shut, 1.0, wide - shut)
    slope = np.where(wide == shut, 0.0, opens / np.count_nonzero(wide - shut) / travel)
    data.qpos[at] = (shut + wide) / 2
    return (at, dofs, shut, wide, slope, least), np.sign(wide - shut), least + opens


def ends_of(model, data, entry: Entry, grips: list[str], gripper: tuple, directions: np.ndarray):
    """Controls of the gripper's actuators when shut, and half the way to those when open; float64[G] each."""
    shut, half = np.zeros(len(grips)), np.zeros(len(grips))
    for number, name in enumerate(grips):
        actuator = model.actuator(name)
        low, high = actuator.ctrlrange
        if low >= high:
            raise entry.wrong(f"actuator '{own_name(name)}' of the gripper has no ctrlrange", "gripper")
        force = []
        for control in (low, high):
            data.ctrl[:] = 0.0
            data.ctrl[actuator.id] = control
            mujoco.mj_forward(model, data)
            force.append(float(data.qfrc_actuator[gripper[1]] @ directions))
        if abs(force[1] - force[0]) < 1e-9:
            raise entry.wrong(f"actuator '{own_name(name)}' moves none of the fingers' joints", "gripper")
        shut[number], half[number] = (low, (high - low) / 2) if force[1] > force[0] else (high, (low - high) / 2)
    return shut, half
