"""Domain randomisation: what differs from episode to episode, slot by slot, with the drawn values in ``info``.

========== ===================================================================== =======================
quantity   what it multiplies or adds                                            reported as
========== ===================================================================== =======================
mass       × mass and inertia of every block                                     ``mass`` [n]
friction   × sliding friction of blocks and fingers                              ``friction`` [n]
damping    × damping of drawers, doors and buttons                               ``damping`` [n]
delay      control steps until an action arrives (whole numbers, at most 5)      ``delay`` [n]
noise      standard deviation added to every feature of an observation           ``noise`` [n]
colour     each block's colour moves by up to this much a channel                ``colours`` [n, B, 3]
camera     metres by which every camera is moved, along each axis                ``camera_shift`` [n, 3]
========== ===================================================================== =======================

Each is given as (low, high); a draw depends on (seed, slot, episode) alone, not on what else varies. A quantity not
named stays as it is, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from envs.scenes.scene import Scene
    from envs.simulation import Simulation

__all__ = ["QUANTITIES", "Randomisation"]

QUANTITIES = ("mass", "friction", "damping", "delay", "noise", "colour", "camera")
_SCALES = ("mass", "friction", "damping")
MAX_DELAY = 5  # control steps


class Randomisation:
    """The quantities of a batch. `draw` sets those of slots whose episode begins."""

    def __init__(self, simulation: Simulation, scene: Scene, ranges: Mapping[str, tuple[float, float]], actions: int):
        for name, given in ranges.items():
            if name not in QUANTITIES:
                raise ValueError(f"unknown quantity '{name}' to randomise; valid: {', '.join(QUANTITIES)}")
            try:
                low, high = (float(v) for v in given)
            except (TypeError, ValueError) as error:
                raise ValueError(f"randomise {name} = {given}: (low, high) is needed") from error
            floor = -np.inf if name == "camera" else 0.0
            if not (np.isfinite([low, high]).all() and floor <= low <= high and (name not in _SCALES or low > 0)):
                raise ValueError(
                    f"randomise {name} = ({low:g}, {high:g}): a range from low to high, above zero, is needed"
                )
            if name == "delay" and high > MAX_DELAY:
                raise ValueError(
                    f"randomise delay = ({low:g}, {high:g}): an action can be {MAX_DELAY} steps late at most"
                )
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        n, model = simulation.n, simulation.model
        self._simulation = simulation
        self._count, self._blocks = len(scene.blocks), [block.name for block in scene.blocks]
        blocks = [model.body(block.name).id for block in scene.blocks]
        rubbing = (*blocks, *(model.body(finger).id for finger in scene.robot.fingers))
        geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] in rubbing]
        joints = [model.joint(x.name).dofadr[0] for x in (*scene.slides, *scene.lamps)]
        self._fields: list[tuple[str, np.ndarray, Any, np.ndarray]] = []  # quantity, field of the batch, where, nominal
        wanted = {
            "mass": (("body_mass", blocks), ("body_inertia", blocks)),
            "friction": (("geom_friction", (geoms, 0)),),
            "damping": (("dof_damping", joints),),
        }
        for name, fields in wanted.items():
            for field, where in fields if name in self.ranges else ():
                first, *rest = where if isinstance(where, tuple) else (where,)
                at = (np.array(first, np.int64), *rest)
                view = simulation.batch.expand(field)
                self._fields.append((name, view, at, np.array(getattr(model, field)[at])))
        self.values: dict[str, np.ndarray] = {
            name: np.ones(n) if name in _SCALES else np.zeros(n) for name in self.ranges
        }
        self.delays = "delay" in self.ranges
        self.delay = np.zeros(n, np.int64)
        self.past = np.zeros((n, MAX_DELAY + 1, actions))
        self.colours = np.zeros((n, self._count, 3))
        self._nominal = np.array([model.geom_rgba[model.body_geomadr[b], :3] for b in blocks]).reshape(-1, 3)
        self.camera_shift = np.zeros((n, 3))

    def draw(self, seed: int, slots: np.ndarray, episodes: np.ndarray) -> None:
        """New values for ``slots`` int64[m], whose simulations were just cleared."""
        if not self.ranges:
            return
        from envs.scenes.noise import draw_units

        for name, (low, high) in self.ranges.items():
            u = np.empty((len(slots), {"colour": 1 + 3 * self._count, "camera": 3}.get(name, 1)))
            draw_units(seed, QUANTITIES.index(name), slots, episodes, u)
            drawn = low + (high - low) * u[:, 0]
            if name == "colour":
                shift = (2 * u[:, 1:] - 1) * drawn[:, None]
                self.colours[slots] = np.clip(self._nominal + shift.reshape(-1, self._count, 3), 0.0, 1.0)
            elif name == "camera":
                self.camera_shift[slots] = low + (high - low) * u
            else:
                self.values[name][slots] = np.round(drawn) if name == "delay" else drawn
        if self.delays:
            self.delay[slots] = self.values["delay"][slots]
        for name, view, at, nominal in self._fields:
            scale = self.values[name][slots].reshape(-1, *([1] * nominal.ndim))
            view[(slots[:, None], *at)] = nominal * scale
        if self._fields:
            self._simulation.batch.set_const(ids=slots.astype(np.int32))

    def hold(self, slots: np.ndarray, grip: np.ndarray) -> None:
        """What is on its way to ``slots`` int64[m] is to stay where they are, with the gripper as it is, grip [m]."""
        if self.delays:
            self.past[slots] = 0.0
            self.past[slots, :, -1] = grip[:, None]

    def info(self) -> dict[str, np.ndarray]:
        """The values in force, copied."""
        found = {name: values.copy() for name, values in self.values.items() if name not in ("colour", "camera")}
        if "colour" in self.ranges:
            found["colours"] = self.colours.copy()
        if "camera" in self.ranges:
            found["camera_shift"] = self.camera_shift.copy()
        return found

    def colours_by_geom(self) -> dict[str, np.ndarray] | None:
        """Block -> colours float[n, 3], for a renderer; None where they stay as they are."""
        if "colour" not in self.ranges:
            return None
        return dict(zip(self._blocks, self.colours.transpose(1, 0, 2), strict=True))

    @property
    def camera_offset(self) -> np.ndarray | None:
        """How far cameras are moved, float[n, 3] (m, their own axes), for a renderer; None where they stay."""
        return self.camera_shift if "camera" in self.ranges else None

    def noise(self, seed: int, episodes: np.ndarray, elapsed: np.ndarray, features: np.ndarray) -> None:
        """Adds sensor noise to features float32[n, F], in place: drawn from (seed, slot, episode, step) alone."""
        if "noise" in self.values:
            from envs.scenes.features import LIMIT
            from envs.scenes.noise import add_noise

            add_noise(seed, episodes, elapsed, self.values["noise"], LIMIT, features)
