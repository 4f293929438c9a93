"""Far goals one thing at a time: subgoals for a policy that has learnt goals not far ahead.

A goal in which several things differ from the present is asked of the policy as subgoals, the present with one thing as
the goal has it, so that each is a goal as play shows them. Which is next, of the things k that still differ, with s the
present, w_k the subgoal and V a learnt value (minus the discounted number of steps from a state to a goal):

    nearest   the thing that the tool is nearest to
    value     the largest V(s, w_k) + V(w_k, g): the midpoint of the shortest way that the value knows of

It is pursued until it holds or its patience is over; then whatever was given up least often comes first. A thing that
is undone on the way differs again, and is asked for again. Once nothing differs the goal itself is asked for.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from policies.base import Policy

__all__ = ["GoalFeatures", "GoalValue", "Stitched", "SubgoalSource"]

PATIENCE = 60  # steps a subgoal is pursued; a task takes about as many
GIVEN_UP = 1e6  # outweighs whatever a value says


class GoalFeatures(Protocol):
    """What turns (present, goal) into a policy's features."""

    def features(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray: ...


class GoalValue(Protocol):
    """float32[n] from features float32[n, F] of (state, goal): the larger the sooner, as `policies.gcivl` has it."""

    def value(self, features: np.ndarray) -> np.ndarray: ...


class SubgoalSource(Protocol):
    """A goal taken apart by its M things; see `envs.scenes.subgoals.Subgoals`."""

    def differing(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray: ...

    def alone(self, facts: np.ndarray, goals: np.ndarray, which: np.ndarray) -> np.ndarray: ...

    def distances(self, facts: np.ndarray) -> np.ndarray: ...

    def arrived(self, subgoals: np.ndarray, which: np.ndarray) -> np.ndarray: ...


class Stitched:
    """Acts on facts float64[n, NX] and goals float64[n, NX] -> actions [n, A]; begins anew with `reset`.

    Args:
        policy: over the encoder's features.
        value: what ranks subgoals, over the same features; where there is none, the nearest comes first.
        patience: how many steps a subgoal is pursued before another's turn comes.

    Raises ValueError for another number of slots than at the beginning, or patience below 1.
    """

    def __init__(
        self, policy: Policy, encoder: GoalFeatures, subgoals: SubgoalSource, value: GoalValue | None = None, *,
        patience: int = PATIENCE, deterministic: bool = False,
    ) -> None:  # fmt: skip
        if patience < 1:
            raise ValueError(f"patience = {patience} must be at least 1 step")
        self.policy, self.encoder, self.subgoals, self.value = policy, encoder, subgoals, value
        self.patience, self.deterministic = patience, deterministic
        self.reset()

    def reset(self) -> None:
        """All slots begin a new goal with the next call."""
        self._state = None
        self._which: np.ndarray | None = None  # int64[n], the thing that is pursued; -1 for none
        self._since, self._given_up = np.zeros(0, np.int64), np.zeros((0, 0), np.int64)

    def __call__(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        differing = self.subgoals.differing(facts, goals)
        start = None
        if self._which is None:
            start = np.ones(len(facts), np.bool_)
            self._which = np.full(len(facts), -1)
            self._since, self._given_up = np.zeros(len(facts), np.int64), np.zeros(differing.shape, np.int64)
        if len(self._which) != len(facts):
            raise ValueError(f"{len(facts)} slots are given, but it began with {len(self._which)}; reset it first")
        self._choose(facts, goals, differing)
        self._since += 1
        aim = self.subgoals.alone(facts, goals, self._which)
        aim[self._which < 0] = goals[self._which < 0]
        actions, self._state = self.policy.predict(
            self.encoder.features(facts, aim), self._state, start, self.deterministic
        )
        return actions

    def _choose(self, facts: np.ndarray, goals: np.ndarray, differing: np.ndarray) -> None:
        """Renews what is pursued where it holds, or where patience is over."""
        assert self._which is not None
        pursued = self._which >= 0
        pursued[pursued] = differing[pursued, self._which[pursued]]
        out = np.flatnonzero(pursued & (self._since >= self.patience))
        self._given_up[out, self._which[out]] += 1
        self._given_up[~differing.any(axis=1)] = 0
        due = ~pursued
        due[out] = True
        rows = np.flatnonzero(due)
        if not len(rows):
            return
        open_ = differing[rows]
        score = self._score(facts[rows], goals[rows], open_) - GIVEN_UP * self._given_up[rows]
        best = np.where(open_, score, -np.inf).argmax(axis=1)
        self._which[rows] = np.where(open_.any(axis=1), best, -1)
        self._since[rows] = 0

    def _score(self, facts: np.ndarray, goals: np.ndarray, differing: np.ndarray) -> np.ndarray:
        """float64[n, M]: how good each thing is as the next; what does not differ is left at -inf or any number."""
        if self.value is None:
            return -self.subgoals.distances(facts)
        out = np.full(differing.shape, -np.inf)
        rows, which = np.nonzero(differing)
        if len(rows):
            subgoals = self.subgoals.alone(facts[rows], goals[rows], which)
            arrived = self.subgoals.arrived(subgoals, which)
            features = [self.encoder.features(facts[rows], subgoals), self.encoder.features(arrived, goals[rows])]
            out[rows, which] = self.value.value(np.concatenate(features)).reshape(2, -1).sum(axis=0)
        return out
