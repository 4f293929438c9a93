"""A goal given as facts, taken apart: which things of a scene shall change, and the goal of changing one of them alone.

Things are numbered blocks first, then slides, then lamps, M in all.
"""

from __future__ import annotations

import numpy as np

from envs.control import LAG, TOOL, TOOL_V
from envs.scenes.facts import B_BOTTOM, B_PEAK, BLOCK_STRIDE, BLOCKS
from envs.scenes.goal_states import COARSE, all_differ
from envs.scenes.scene import Scene

__all__ = ["Subgoals"]


class Subgoals:
    """What of a goal is still to do, by things. All arguments are facts float64[n, NX]; they are not changed.

    Attributes: ``names``, the things' names, M of them.
    """

    def __init__(self, scene: Scene):
        blocks, slides, lamps = len(scene.blocks), len(scene.slides), len(scene.lamps)
        self._layout = scene.layout.arrays
        (_, _, _, _), (_, _, self._axis, self._handle, _), (_, self._top), _ = self._layout
        self.names = tuple(thing.name for thing in (*scene.blocks, *scene.slides, *scene.lamps))
        self._blocks = [BLOCKS + BLOCK_STRIDE * b for b in range(blocks)]
        first = BLOCKS + BLOCK_STRIDE * blocks
        self._slides = [first + 3 * s for s in range(slides)]
        self._lamps = [first + 3 * (slides + k) for k in range(lamps)]
        self._columns = [slice(p, p + BLOCK_STRIDE) for p in self._blocks]
        self._columns += [slice(at, at + 1) for at in (*self._slides, *self._lamps)]

    def columns(self, which: int) -> slice:
        """The columns of facts that are about a thing alone."""
        return self._columns[which]

    def differing(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """bool[n, M]: which things are not yet as the goal has them, as coarsely as goals are drawn."""
        out = np.empty((len(facts), len(self.names)), np.bool_)
        all_differ(facts, goals, self._layout, COARSE, out)
        return out

    def alone(self, facts: np.ndarray, goals: np.ndarray, which: np.ndarray) -> np.ndarray:
        """float64[n, NX]: the present with thing ``which`` int64[n] as the goal has it; -1 leaves all as they are.

        A block that is not asked for is not to be carried either: its peak is its present height.
        """
        out = np.array(facts)
        for p in self._blocks:
            out[:, p + B_PEAK] = out[:, p + B_BOTTOM]
        for k, columns in enumerate(self._columns):
            rows = which == k
            out[rows, columns] = goals[rows, columns]
        return out

    def places(self, facts: np.ndarray) -> np.ndarray:
        """float64[n, M, 3]: where the tool has to go for each thing (m): a block, a slide's handle, a lamp's button."""
        out = np.empty((len(facts), len(self.names), 3))
        for b, p in enumerate(self._blocks):
            out[:, b] = facts[:, p : p + 3]
        for s, at in enumerate(self._slides):
            out[:, len(self._blocks) + s] = self._handle[s] + self._axis[s] * facts[:, at : at + 1]
        out[:, len(self._blocks) + len(self._slides) :] = self._top
        return out

    def distances(self, facts: np.ndarray) -> np.ndarray:
        """float64[n, M]: how far the tool is from each thing (m)."""
        return np.linalg.norm(self.places(facts) - facts[:, None, TOOL : TOOL + 3], axis=2)

    def arrived(self, subgoals: np.ndarray, which: np.ndarray) -> np.ndarray:
        """float64[n, NX]: the facts where such a subgoal holds: as `alone` says, the tool at rest at the thing."""
        out = np.array(subgoals)
        out[:, TOOL : TOOL + 3] = self.places(subgoals)[np.arange(len(out)), which]
        out[:, TOOL_V : TOOL_V + 3] = 0.0
        out[:, LAG : LAG + 4] = 0.0
        return out
