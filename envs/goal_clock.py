"""What each slot of a batch is asked for: its goal, the stage it is at, for how long that has held, and since when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.goals import Goal
from envs.playroom.resets import draw_places
from envs.predicates import MAX_LITERALS, Codes, encode, evaluate

__all__ = ["GoalClock"]


class GoalClock:
    """Goals of n slots.

    Attributes: ``goals`` (what later episodes draw from), ``goal_of`` int64[n], ``stage`` int64[n], ``codes`` (the
    current stages, see `envs.predicates.Codes`), ``distance`` float64[n, 4] (of their literals), ``elapsed`` int64[n]
    (control steps since the goal was given). A goal is reached once its last stage has held for ``hold`` steps.
    """

    def __init__(self, n: int, hold: int):
        self.hold = hold
        self.goals: list[Goal] = []
        self.codes = Codes(n)
        self.distance = np.zeros((n, MAX_LITERALS))
        self.goal_of = np.zeros(n, np.int64)
        self.stage = np.zeros(n, np.int64)
        self.elapsed = np.zeros(n, np.int64)
        self._held = np.zeros(n, np.int64)
        self._reached = np.zeros(n, np.bool_)  # the goal has been held for long enough since it was given
        self._known: list[Goal] = []  # goals, and behind them those of earlier lists that some slot still pursues

    def set_goals(self, texts: str | Sequence[str]) -> None:
        """Replaces ``goals``; slots keep the goals they have. Raises ValueError (GoalError) for none or bad ones."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ValueError("no goals given; name at least one, for instance 'open(drawer)'")
        goals = [Goal.parse(text) for text in texts]
        running = [self._known[k] for k in self.goal_of] if self._known else []
        self.goals = goals
        self._known = [*goals, *(goal for goal in dict.fromkeys(running) if goal not in goals)]
        if running:
            self.goal_of[:] = [self._known.index(goal) for goal in running]
        stages = [len(goal.stages) for goal in self._known]
        self._stages = np.array(stages)
        self._first = np.concatenate([[0], np.cumsum(stages)[:-1]])
        self._source = encode([stage for goal in self._known for stage in goal.stages])

    def text(self, slot: int) -> str:
        """The goal of a slot."""
        return str(self._known[self.goal_of[slot]])

    def give(self, slots: np.ndarray, which: Sequence[int] | np.ndarray) -> None:
        """Gives ``slots`` the goals of indices ``which`` in ``goals``, from their first stage; places stay open."""
        chosen = np.asarray(which)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self.goals)):
            raise ValueError(f"goal index {which} is out of range; valid: 0 to {len(self.goals) - 1}")
        self.goal_of[slots] = chosen
        self.stage[slots] = 0
        self._assign(slots)

    def begin(self, slots: np.ndarray) -> None:
        """Starts the clock of ``slots`` anew: stage, steps and hold count."""
        self.stage[slots] = 0
        self.elapsed[slots] = 0
        self._held[slots] = 0
        self._reached[slots] = False

    def load(self, slots: np.ndarray, seed: int, episodes: np.ndarray, facts: np.ndarray) -> None:
        """Loads the codes of the slots' stages and draws the places that their goals leave open where they stand."""
        self._assign(slots)
        codes = self.codes
        place = codes.place[slots]
        draws = episodes[slots] + 1000 * self.stage[slots]
        draw_places(seed, slots, draws, facts[slots], codes.count[slots], codes.codes[slots], place)
        codes.place[slots] = place

    def look(self, facts: np.ndarray) -> None:
        """Distances on facts float64[n, NX], without moving any clock."""
        evaluate(facts, self.codes.count, self.codes.codes, self.codes.place, self.distance)

    def judge(self, seed: int, episodes: np.ndarray, facts: np.ndarray) -> None:
        """One step: distances and hold counts; on to the next stage where one is done."""
        self.elapsed += 1
        self.look(facts)
        self._held = np.where(self.distance.min(axis=1) > 0, self._held + 1, 0)
        if self._stages.max() > 1:
            on = np.flatnonzero((self._held >= self.hold) & (self.stage < self._stages[self.goal_of] - 1))
            if on.size:
                self.stage[on] += 1
                self._held[on] = 0
                self.load(on, seed, episodes, facts)
                self.look(facts)

    def reached(self, trusted: np.ndarray) -> np.ndarray:
        """bool[n]: whose goal has been held for long enough since it was given; only ``trusted`` slots can gain it."""
        last = self.stage == self._stages[self.goal_of] - 1
        self._reached |= (self._held >= self.hold) & last & trusted
        return self._reached.copy()

    def _assign(self, slots: np.ndarray) -> None:
        self.codes.assign(slots, self._source, self._first[self.goal_of[slots]] + self.stage[slots])
