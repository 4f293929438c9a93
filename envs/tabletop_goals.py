"""The table-top's goals as learners from recorded episodes take them: what had changed later, in a goal's own columns.

In hindsight a goal is what a goal in words becomes for `envs.observations`: where which things should be, of which of
them it speaks, and which block comes first. The features are the very ones that the world shows, in another order: the
first S of them say nothing of where things should be, the others nothing else. Which block comes first is the goal's
doing in both.
"""

from __future__ import annotations

import numpy as np

from envs.observations import FEATURES, GOAL_DIM, GROUPS, features, hindsight_targets
from envs.predicates import BLOCK, BLOCK_STRIDE, DRAWER, LAMP

__all__ = ["GOAL_COLUMNS", "STATE_COLUMNS", "THRESHOLDS", "WATCHED", "TabletopGoals"]

WATCHED = [*(BLOCK + BLOCK_STRIDE * b + k for b in range(2) for k in range(3)), DRAWER, LAMP]
THRESHOLDS = [0.02] * 6 + [0.03, 0.5]
"""Columns of facts in which a change counts, and how large a one (m; the lamp is 0 or 1)."""

_BLOCKS = tuple(14 + 23 * slot for slot in range(2))  # first feature of each block
GOAL_COLUMNS = (*(first + k for first in _BLOCKS for k in (*range(12, 18), 22)), 65, 66, 76, 77)
STATE_COLUMNS = tuple(column for column in range(FEATURES) if column not in GOAL_COLUMNS)
"""Of the features of `envs.observations`, those that a goal decides, and the others."""


class TabletopGoals:
    """Encoder of (facts, goal), `embodied.data.batches.Encoder`; goals float64[n, 13]: targets, mask, first block."""

    state_size, feature_size = len(STATE_COLUMNS), FEATURES
    columns = np.array([*STATE_COLUMNS, *GOAL_COLUMNS])  # feature k here is feature columns[k] of the world
    watched, thresholds = np.array(WATCHED, np.int64), np.array(THRESHOLDS)

    def features(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """float32[n, F] of facts[n, NX] towards goals of `hindsight`."""
        goals = np.ascontiguousarray(goals, np.float64)
        out = np.empty((len(facts), FEATURES), np.float32)
        targets, mask = (
            np.ascontiguousarray(part) for part in (goals[:, :GOAL_DIM], goals[:, GOAL_DIM : GOAL_DIM + GROUPS])
        )
        x, first = np.ascontiguousarray(facts, np.float64), goals[:, -1].astype(np.int64)
        features(x, targets, mask, first, out)
        return out[:, self.columns]

    def states(self, facts: np.ndarray, goals: np.ndarray | None = None) -> np.ndarray:
        """float32[n, S] of facts[n, NX]; with goals, each for as many rows, in their order of the blocks."""
        none = np.zeros((len(facts), GOAL_DIM + GROUPS + 1))
        if goals is not None:
            none[:, -1] = np.repeat(goals[:, -1], len(facts) // len(goals))
        return self.features(facts, none)[:, : self.state_size]

    def past(self, facts: np.ndarray) -> np.ndarray:
        return np.zeros((len(facts), 0), np.float32)

    def hindsight(
        self, facts: np.ndarray, start: np.ndarray, goal: np.ndarray, past: np.ndarray | None = None
    ) -> np.ndarray:
        """What had changed from rows ``start`` to rows ``goal`` of facts[rows, NX], as goals float64[n, 13]."""
        n = len(start)
        now, later = (np.ascontiguousarray(facts[rows], np.float64) for rows in (start, goal))
        targets, mask, first = np.zeros((n, GOAL_DIM)), np.zeros((n, GROUPS)), np.zeros(n, np.int64)
        hindsight_targets(now, later, targets, mask, first)
        return np.concatenate([targets, mask, first[:, None]], axis=1)
