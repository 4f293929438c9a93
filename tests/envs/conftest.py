"""Facts made by hand: a table-top at rest, changed name by name."""

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
