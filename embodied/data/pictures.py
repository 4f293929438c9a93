"""Pictures beside the facts of recorded play: how they are drawn, where they lie, and what is learnt from them.

``pictures.bin`` has a picture uint8[H, W, 3] for each row of its store, ``pictures.json`` says how large they are and
which camera took them. They are mapped, and read a batch at a time. All are drawn by rays, which give the same pixels
on every machine, with a graphics card or without.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.dataset import DatasetError
from embodied.data.durable import replace_file
from embodied.data.formats.store import PICTURES
from envs.rendering import make_renderer
from envs.scenes.features import TOOL_FEATURES
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import Scene

__all__ = [
    "CAMERA", "DRAWN", "HOW", "PICTURES", "SMALLEST", "Eyes", "Pixels", "Seen", "mapped_pictures", "tell_pictures",
]  # fmt: skip

DRAWN = "pictures.json"
CAMERA = "front"
SMALLEST = 9  # pixels a side that convolutions can halve
HOW = "embodied data record pictures=48 out=PLACE"


@dataclass(frozen=True, eq=False)
class Seen:
    """Moments that were seen: facts float32[n, NX] and pictures uint8[n, H, W, 3], indexed together as an array is."""

    facts: np.ndarray
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.facts)

    def __getitem__(self, rows: Any) -> Seen:
        return Seen(self.facts[rows], self.pictures[rows])


class Eyes:
    """A camera of a world built from a scene (`envs.scenes.world`); ``close`` it. RenderError for one there is not."""

    def __init__(self, env: Any, image: Sequence[int], camera: str = CAMERA, threads: int = 0) -> None:
        height, width = image
        self.env = env
        self.renderer = make_renderer(
            env.simulation.model, width, height, camera, "rays", shadows=False, antialias=False, threads=threads
        )

    def see(self, qpos: np.ndarray, facts: np.ndarray) -> np.ndarray:
        """Pictures uint8[n, H, W, 3] of joint positions [n, nq]; facts [n, NX] tell which lamps shine."""
        return self.renderer.render(qpos, self.env.lit_in(facts))[:, 0]

    def close(self) -> None:
        self.renderer.close()


def tell_pictures(directory: Path, image: Sequence[int], camera: str) -> None:
    """Writes what `mapped_pictures` reads."""
    said = {"shape": [*image, 3], "dtype": "uint8", "camera": camera, "rows": "those of the store"}
    replace_file(directory / DRAWN, json.dumps(said, indent=1).encode())


def mapped_pictures(directory: Path, rows: int) -> tuple[np.ndarray, str]:
    """The pictures uint8[rows, H, W, 3] of a store, mapped, and their camera's name. DatasetError, in one sentence."""
    path = directory / DRAWN
    try:
        said = json.loads(path.read_bytes())
        shape, camera = tuple(int(size) for size in said["shape"]), str(said["camera"])
    except FileNotFoundError as error:
        raise DatasetError(f"{directory} holds no pictures; play is recorded with them by {HOW}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); record play with pictures anew") from error
    if len(shape) != 3 or min(shape) < 1 or shape[2] != 3 or said.get("dtype") != "uint8":
        raise DatasetError(
            f"{path} tells of pictures {list(shape)} of {said.get('dtype')}; they must be [height, width, 3] of uint8"
        )
    path, each = directory / PICTURES, math.prod(shape)
    size = path.stat().st_size if path.is_file() else 0
    if size < rows * each:
        raise DatasetError(
            f"{path} holds {size // each} whole pictures of {shape[1]}x{shape[0]} where the store has {rows} rows: it "
            f"was cut short; restore it from a copy, or record play with pictures anew"
        )
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(rows, *shape))), camera


class Pixels:
    """The encoder of what is seen: the present's picture, what the robot feels of itself, and the goal's picture.

    Features are float32: H·W·3 numbers in 0..255, `TOOL_FEATURES` of the tool (place, velocity, lag, fingers), and
    H·W·3 of the goal. ``watched`` columns of facts decide which goals are worth drawing from recordings; what learns
    and acts sees no facts of any thing. ``blind`` blanks both pictures: the control.
    """

    def __init__(self, scene: Scene, image: Sequence[int], camera: str = CAMERA, blind: bool = False) -> None:
        self.image, self.camera, self.blind = (int(image[0]), int(image[1])), camera, blind
        self._states = GoalStates(scene)
        self.watched, self.thresholds = self._states.watched, self._states.thresholds
        self.picture = 3 * math.prod(self.image)
        self.state_size = self.picture + TOOL_FEATURES
        self.feature_size = self.state_size + self.picture

    def features(self, facts: Seen, goals: Seen) -> np.ndarray:
        """float32[n, F]; ValueError for pictures of another size."""
        out = np.empty((len(facts), self.feature_size), np.float32)
        self._write(facts, out)
        out[:, self.state_size :] = 0.0 if self.blind else self._flat(goals.pictures)
        return out

    def states(self, facts: Seen, goals: Seen | None = None) -> np.ndarray:
        """float32[n, S]: the part of `features` that knows of no goal."""
        out = np.empty((len(facts), self.state_size), np.float32)
        self._write(facts, out)
        return out

    def past(self, facts: Seen) -> np.ndarray:
        return np.zeros((len(facts), 0), np.float32)

    def hindsight(self, facts: Seen, start: np.ndarray, goal: np.ndarray, past: np.ndarray | None = None) -> Seen:
        return facts[goal]

    def _write(self, facts: Seen, out: np.ndarray) -> None:
        out[:, : self.picture] = 0.0 if self.blind else self._flat(facts.pictures)
        out[:, self.picture : self.state_size] = self._states.states(facts.facts)[:, :TOOL_FEATURES]

    def _flat(self, pictures: np.ndarray) -> np.ndarray:
        if pictures.shape[1:] != (*self.image, 3):
            found = "x".join(map(str, pictures.shape[2:0:-1])) or "no"
            raise ValueError(f"pictures of {found} pixels were given where {self.image[1]}x{self.image[0]} are learnt")
        return pictures.reshape(len(pictures), -1)
