"""The table-top without a goal, for skills that nobody asked for: what they are told apart by, and named rewards.

As `envs.scenes.discovery`, whose terms and costs these are, on the very table that goals are practised on. Observations
are the table's features without those that a goal decides, the red block first. A goal decides which block comes first:
what is learnt here of the first block is done to whichever block a goal names first. Things that count are the first
``blocks`` of: the red block, the blue block, the drawer's handle. The table measures no force: that cost is 0.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.control import STEP_M
from envs.goals import Literal
from envs.monitor import truth_table
from envs.observations import LIMIT
from envs.playroom.scene import BLOCK_HALF, CABINET, HANDLE
from envs.predicates import BLOCK, BLOCK_STRIDE, DRAWER, TOOL
from envs.rewards import COSTS
from envs.scenes.discovery import COSTS as NAMED
from envs.scenes.discovery import TERMS
from envs.tabletop_goals import STATE_COLUMNS
from envs.vector import TabletopVectorEnv
from envs.vocabulary import BLOCKS

__all__ = ["THINGS", "TabletopDiscovery"]

THINGS = (*BLOCKS, "drawer")
_GOAL = "lifted(red)"  # puts the red block first; what it wants is not seen
_LIFTED = 0.10  # m
_HELD = tuple(Literal("holding", (block,)) for block in BLOCKS)
_OWN = ("joint_margin", "table_press", "lost_block", "overspeed")  # in the order of `envs.scenes.discovery.COSTS`


class TabletopDiscovery(TabletopVectorEnv):
    """n tables without a task; observations float32[n, S]. ``blocks``: how many of `THINGS` count, 1 to 3.

    ``info`` has ``reward_terms`` float64[n, 3], ``costs`` float64[n, 5] and ``objects`` float64[n, blocks, 3] (m, after
    the step, before any reset).
    """

    def __init__(self, num_envs: int = 1, *, blocks: int = 1, max_steps: int = 80, **world: Any):
        if not 1 <= blocks <= len(THINGS):
            raise ValueError(f"blocks = {blocks} must lie in 1 … {len(THINGS)}: {', '.join(THINGS)}")
        self._things = blocks
        self._gap = np.zeros(num_envs)  # from the tool to the nearest thing, m
        super().__init__(
            num_envs, _GOAL, max_steps=max_steps, terminate_on_success=False, free_starts=True, **world
        )  # fmt: skip
        self.single_observation_space = gym.spaces.Box(-LIMIT, LIMIT, (len(STATE_COLUMNS),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._columns = np.array(STATE_COLUMNS)

    @property
    def objects(self) -> np.ndarray:
        """Where the things are now, float64[n, blocks, 3] (m, world), a copy."""
        where = [self.facts[:, BLOCK + BLOCK_STRIDE * b : BLOCK + BLOCK_STRIDE * b + 3] for b in range(2)]
        handle = np.tile(np.append(CABINET, 0.0) + HANDLE, (self.num_envs, 1))
        handle[:, 1] += self.facts[:, DRAWER]
        return np.stack([*where, handle][: self._things], axis=1)

    def observation(self) -> np.ndarray:
        return self._features[:, self._columns]

    def _look(self, slots: np.ndarray) -> None:
        super()._look(slots)
        self._gap[slots] = self._away()[slots]

    def _away(self) -> np.ndarray:
        return np.linalg.norm(self.objects - self.facts[:, None, TOOL : TOOL + 3], axis=2).min(axis=1)

    def _info(self, success: np.ndarray | None = None, bad_physics: np.ndarray | None = None) -> dict[str, Any]:
        info, away = super()._info(success, bad_physics), self._away()
        terms = np.zeros((self.num_envs, len(TERMS)))
        if success is not None:
            terms[:, 0] = np.where(info["bad_physics"], 0.0, (self._gap - away) / STEP_M)
            held = truth_table(self.facts, _HELD)
            high = self.facts[:, [BLOCK + BLOCK_STRIDE * b + 2 for b in range(len(BLOCKS))]] - BLOCK_HALF
            terms[:, 1] = held.any(axis=1)
            terms[:, 2] = np.where(held, np.clip(high / _LIFTED, 0.0, 1.0), 0.0).max(axis=1)
        self._gap = away
        costs = np.zeros((self.num_envs, len(NAMED)))
        for k, own in enumerate(_OWN):
            costs[:, k] = np.clip(info["costs"][:, COSTS.index(own)], 0.0, 1.0)
        return info | {"reward_terms": terms, "costs": costs, "objects": self.objects}
