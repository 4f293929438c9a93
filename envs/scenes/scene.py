"""A scene built: the compiled model, where everything is in it, and the words that follow from its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import mujoco
import numpy as np

from envs.playroom.robot import add_arm
from envs.scenes.document import Document, Entry, SceneError, read
from envs.scenes.parts import FINGER, FIXTURES, HAND, OBJECTS, TABLE, Block, Container, Lamp, Parts, Slide, add_camera
from envs.scenes.robots import Robot, attach, builtin
from envs.scenes.words import ANYWHERE, Vocabulary, sayable

__all__ = ["Layout", "Scene", "load"]

_NAMES = f"names must be single words of letters, digits and _, other than {ANYWHERE}"
_HARD = (0.98, 0.997, 0.001, 0.5, 2)  # the table: what the arm presses down sinks half as deep as by default
_THICK = 0.03  # half of how thick a table with edges is, m
_OVERLAP = 0.001  # m that two parts may reach into each other before the scene counts as broken
_AREA = "the area"
_CAMERAS = {"front": ((1.35, 0.42, 0.72), (0.44, 0.0, 0.08)), "top": ((0.48, 0.02, 1.45), (0.4799, 0.02, 0.0))}


@dataclass(frozen=True)
class Layout:
    """Addresses and shapes as arrays, for compiled code. B blocks, S slides, C containers, L lamps.

    blocks: qpos and qvel addresses int64[B], half edges float64[B, 3] (m), shape int64[B]. slides: addresses int64[S]
    twice, axis and handle float64[S, 3], travel float64[S]. lamps: the buttons' addresses int64[L], tops float64[L, 3].
    containers: centre, half float64[C, 3], yaw float64[C], slide int64[C].
    """

    blocks: tuple[np.ndarray, ...]
    slides: tuple[np.ndarray, ...]
    lamps: tuple[np.ndarray, ...]
    containers: tuple[np.ndarray, ...]

    @property
    def arrays(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """All of it, as compiled code takes it."""
        return self.blocks, self.slides, self.lamps, self.containers


@dataclass(frozen=True)
class Scene:
    """What `load` gives. ``model`` is compiled without sleep; `compiled` gives either."""

    document: Document
    spec: mujoco.MjSpec
    blocks: tuple[Block, ...]
    slides: tuple[Slide, ...]
    containers: tuple[Container, ...]
    lamps: tuple[Lamp, ...]
    vocabulary: Vocabulary
    own: Robot | None = None  # a robot of the user's; None: the built-in arm

    @property
    def name(self) -> str:
        return self.document.name

    @property
    def tasks(self) -> Mapping[str, str]:
        """Task name -> goal."""
        return self.document.tasks

    @cached_property
    def model(self) -> mujoco.MjModel:
        return self.compiled(False)

    def compiled(self, sleep: bool) -> mujoco.MjModel:
        """The model; ``sleep`` lets resting things skip physics."""
        spec = self.spec.copy()
        if sleep:
            spec.option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        return spec.compile()

    @cached_property
    def robot(self) -> Robot:
        """What moves: its kinematics, actuators and fingers."""
        return self.own or builtin(self.model)

    @cached_property
    def layout(self) -> Layout:
        model = self.model

        def q(names: list[str]) -> np.ndarray:
            return np.array([model.joint(name).qposadr[0] for name in names], np.int64)

        def v(names: list[str]) -> np.ndarray:
            return np.array([model.joint(name).dofadr[0] for name in names], np.int64)

        def table(rows: list, width: int) -> np.ndarray:
            return np.array(rows, np.float64).reshape(len(rows), width)

        blocks, slides, lamps = ([x.name for x in group] for group in (self.blocks, self.slides, self.lamps))
        return Layout(
            blocks=(
                q(blocks), v(blocks), table([b.half for b in self.blocks], 3),
                np.array([b.shape for b in self.blocks], np.int64),
            ),
            slides=(
                q(slides), v(slides), table([s.axis for s in self.slides], 3),
                table([s.handle for s in self.slides], 3), np.array([s.travel for s in self.slides], np.float64),
            ),
            lamps=(q(lamps), table([x.top for x in self.lamps], 3)),
            containers=(
                table([c.centre for c in self.containers], 3), table([c.half for c in self.containers], 3),
                np.array([c.yaw for c in self.containers], np.float64),
                np.array([c.slide for c in self.containers], np.int64),
            ),
        )  # fmt: skip


def load(scene: str | Path | Document, blocks: int | None = None, sleep: bool = False) -> Scene:
    """Builds a scene of the library, of a file, or one already read; only its first ``blocks`` objects if given.

    Raises SceneError, naming the line, for a part that can't be, for parts that reach into each other, and for tasks in
    words the scene does not have.
    """
    document = scene if isinstance(scene, Document) else read(scene)
    spec, own = _empty(document)
    parts = Parts(spec)
    objects = document.objects if blocks is None else document.objects[:blocks]
    if blocks is not None and not 0 <= blocks <= len(document.objects):
        raise SceneError(f"blocks = {blocks}: {document.source} has {len(document.objects)} objects")
    taken = {x.name for group in (spec.bodies, spec.joints, spec.geoms) for x in group}
    _refuse_names(document, taken)
    for entry in objects:
        build = _type(entry, OBJECTS)
        build(parts, entry, document.folder) if entry.type == "mjcf" else build(parts, entry)
    for entry in document.fixtures:
        _type(entry, FIXTURES)(parts, entry)
    for entry in (*objects, *document.fixtures):
        says = entry.text("says", entry.name.replace("_", " "))
        if not sayable(says) or says.lower() in [other.lower() for other in parts.says.values()]:
            raise entry.wrong(
                f"says = '{says}' must differ from the others', and have no comma, 'and' or 'then'", "says"
            )
        parts.says[entry.name] = says
    for entry in document.cameras:
        add_camera(spec, entry)
    for name, (pos, target) in _CAMERAS.items():
        if name not in [camera.name for camera in document.cameras]:
            add_camera(spec, Entry(name, "camera", {"pos": pos, "target": target}, {"": 0}, document.source))
    kind_of = {x.name: x.kind for x in (*parts.containers, *parts.slides)}
    kind_of |= {block.name: "block" for block in parts.blocks} | {lamp.name: "lamp" for lamp in parts.lamps}
    order = [entry.name for entry in (*objects, *document.fixtures) if entry.name in kind_of]
    words = Vocabulary({name: kind_of[name] for name in order}, dict(document.places), parts.says)
    built = Scene(
        document, spec, tuple(parts.blocks), tuple(parts.slides), tuple(parts.containers), tuple(parts.lamps), words,
        own,
    )  # fmt: skip
    try:
        _ = built.model
    except ValueError as error:
        raise SceneError(f"{document.source}: the scene does not compile: {str(error).splitlines()[0]}") from error
    _check_overlaps(built)
    for task, goal in document.tasks.items():
        try:
            words.parse(goal)
        except ValueError as error:
            if blocks is None:
                raise SceneError(
                    f"{document.source} line {document.lines[f'tasks.{task}']}: task {task}: {error}"
                ) from error
    return built


def _type(entry: Entry, known: Mapping):
    if entry.type not in known:
        raise entry.wrong(f"unknown type '{entry.type}'; valid: {', '.join(known)}", "type")
    return known[entry.type]


def _refuse_names(document: Document, taken: set[str]) -> None:
    """Names must differ, be words that a goal can be written with, and not be those of the arm and the table."""
    line = {name: document.lines[f"places.{name}"] for name in document.places}
    for name in document.places:
        if not name.isidentifier() or name == ANYWHERE:
            raise SceneError(f"{document.source} line {line[name]}: {name}: {_NAMES}")
    seen = set(document.places)
    for entry in (*document.objects, *document.fixtures):
        if entry.name in seen:
            raise entry.wrong(f"there is a {entry.name} already; names must differ")
        if not entry.name.isidentifier() or entry.name == ANYWHERE:
            raise entry.wrong(_NAMES)
        if entry.name in taken:
            raise entry.wrong("this is the name of a part of the arm or the table; give it another")
        seen.add(entry.name)


def _empty(document: Document) -> tuple[mujoco.MjSpec, Robot | None]:
    """Table, light and arm, with the options all native worlds share; and what is known of a user's arm."""
    spec = mujoco.MjSpec()
    spec.modelname = "embodied-" + document.name.replace(" ", "-")
    spec.compiler.degree = False
    spec.memory = 1 << 20  # bytes a simulation
    option = spec.option
    option.timestep = document.timestep
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 960, 720
    spec.worldbody.add_light(pos=(0.9, 0.5, 1.6), dir=(-0.4, -0.4, -1), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    shape, size, pos = mujoco.mjtGeom.mjGEOM_PLANE, (1.2, 1.2, 0.1), (0.0, 0.0, 0.0)
    if document.table:  # a slab with edges
        low_x, low_y, high_x, high_y = document.table
        shape, size = mujoco.mjtGeom.mjGEOM_BOX, ((high_x - low_x) / 2, (high_y - low_y) / 2, _THICK)
        pos = ((low_x + high_x) / 2, (low_y + high_y) / 2, -_THICK)
    spec.worldbody.add_geom(
        name="table", type=shape, size=size, pos=pos, rgba=(0.80, 0.78, 0.74, 1),
        contype=TABLE[0], conaffinity=TABLE[1], solimp=_HARD, solmix=1000,  # its hardness counts in every contact
    )  # fmt: skip
    if document.robot:
        return spec, attach(spec, document.robot, document.folder)
    add_arm(spec, HAND, FINGER)
    return spec, None


def _check_overlaps(scene: Scene) -> None:
    """Fixtures must not stand in one another, nor in the arm at home or the area where resets place objects.

    Neither closed nor opened: what opens into another never opens.
    """
    spec = scene.spec.copy()
    low_x, low_y, high_x, high_y = scene.document.area
    tall = max((block.half[2] for block in scene.blocks), default=0.0)
    if tall:
        area = spec.worldbody.add_body(name=_AREA, pos=((low_x + high_x) / 2, (low_y + high_y) / 2, tall))
        area.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=((high_x - low_x) / 2, (high_y - low_y) / 2, tall))
    model = spec.compile()
    others = {scene.robot.base: "the arm", _AREA: "the area where objects begin"}  # by the body
    order = [fixture.name for fixture in scene.document.fixtures]
    solid = [g for g in range(model.ngeom) if model.geom_contype[g] | model.geom_conaffinity[g]]
    owner = {g: _owner(model, model.geom_bodyid[g], (*order, *others)) for g in solid}
    pairs = [
        (later, a, b)
        for later, name in enumerate(order)
        for a, b in product(solid, solid)
        if owner[a] == name and owner[b] in {*order[:later], *others}
    ]
    data = mujoco.MjData(model)
    data.qpos[: len(scene.robot.chain.home)] = scene.robot.chain.home
    for opened in (False, True):
        for slide in scene.slides:
            data.qpos[model.joint(slide.name).qposadr[0]] = slide.travel if opened else 0.0
        mujoco.mj_kinematics(model, data)
        for later, a, b in pairs:
            reach = model.geom_rbound[a] + model.geom_rbound[b]
            if np.linalg.norm(data.geom_xpos[a] - data.geom_xpos[b]) > reach:
                continue
            gap = mujoco.mj_geomDistance(model, data, a, b, 1.0, None)  # contacts leave out what both stands fixed
            if gap < -_OVERLAP:
                other, when = others.get(owner[b], owner[b]), ", opened" if opened else ""
                what = f"it stands {-1000 * gap:.0f} mm inside {other}{when}; move one of them"
                raise scene.document.fixtures[later].wrong(what, "pos")


def _owner(model: mujoco.MjModel, body: int, names: Sequence[str]) -> str:
    """Which of ``names`` a body belongs to, or nothing."""
    while body > 0:
        name = model.body(body).name
        if name in names:
            return name
        body = model.body_parentid[body]
    return ""
