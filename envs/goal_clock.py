"""What each slot of a batch is asked for: its goal, the stage it is at, for how long that has held, and since when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.goals import Goal
from envs.playroom.resets import draw_places
from envs.predicates import MAX_LITERALS, Codes, encode

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

    def load(self, slots: np.ndarray, seed: int, episodes: np.ndarray, facts: np.ndarray) -> None:
        """Loads the codes of the slots' stages and draws the places that their goals leave open where they stand."""
        self._assign(slots)
        codes = self.codes
        place = codes.place[slots]
        draws = episodes[slots] + 1000 * self.stage[slots]
        draw_places(seed, slots, draws, facts[slots], codes.count[slots], codes.codes[slots], place)
        codes.place[slots] = place

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What `envs.settle.settle` needs of the clock; it moves stages, hold counts and steps on."""
        now, known = self.codes, self._source
        return (
            now.count, now.codes, now.place, known.count, known.codes, known.place, self._first, self._stages,
            self.goal_of, self.stage, self._held, self._reached, self.elapsed,
        )  # fmt: skip

    def _assign(self, slots: np.ndarray) -> None:
        self.codes.assign(slots, self._source, self._first[self.goal_of[slots]] + self.stage[slots])
