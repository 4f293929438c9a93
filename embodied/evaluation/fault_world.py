"""What a bad language agent costs a life, on a learner that is drawn and not simulated.

The loop's own choice of what to do next is asked, of a backend behind everything that stands between the two in a run
(guard, fallback), and a *drawn learner* practises it. Its success on a goal is a logistic function of a level; a round
of practice raises the asked goal's level, that of its family's other goals by half as much, faster where the goal is
easy and where what it needs is mastered. What is mastered is decided by the gate's own test on drawn episodes. Six
rounds are the ablation preset, thirty the default one. The levels and gains below are chosen so that a life by the
embedded default takes about as long as a run of the presets does: 4 goals after 6 rounds, 7 after 14, all after 30
(runs: 8, 10 and 17). Nothing is claimed of them but how arms lie to each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from embodied import loop
from embodied.cli.schema import RunConfig
from embodied.journal import LoopState
from embodied.language.base import LanguageModel
from embodied.skills.statistics import wilson
from embodied.training.families import family, schemas
from envs.goals import Goal, schema_of

__all__ = ["DrawnLearner", "lived"]

DEPTH = {"open": 0, "closed": 0, "lit": 0, "lifted": 1, "placed": 2, "inside": 2, "on": 2}  # others 3
LEVEL, HARDER = 0.9, 0.8  # of success at first, and less for each depth
GAIN, SLOWER = 0.9, 0.5  # of a round of practice, and its share for each depth whose easier goals are not mastered
SCREEN, PROOF, THRESHOLD = 24, 200, 0.8


@dataclass
class DrawnLearner:
    """A life's stand-in: what `loop` reads of a journal (``state``, ``round``, ``library``), and practice."""

    seed: int
    state: LoopState = field(default_factory=LoopState)
    round: int = 1

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng([self.seed, 7])
        self.goals = [goal for found in schemas().values() for goal in found]
        luck = self.draw.normal(0.0, 0.4, len(self.goals))
        self.level = {g: LEVEL - HARDER * _depth(g) + own for g, own in zip(self.goals, luck, strict=True)}
        self.proved: dict[str, Any] = {}

    @property
    def library(self) -> Any:
        """As far as the loop asks: what is mastered."""
        return SimpleNamespace(mastered=lambda: list(self.proved.values()))

    def practise(self, goal: str) -> None:
        """A round of practice and its gate."""
        name = family(schema_of(Goal.parse(goal)))
        for other in self.goals:
            if family(schema_of(Goal.parse(other))) == name:
                self.level[other] += self._gain(other) * (1.0 if other == goal else 0.5)
                self._gate(other)
        self.round += 1

    def _gain(self, goal: str) -> float:
        reached = max((_depth(other) + 1 for other in self.proved), default=0)
        return GAIN * SLOWER ** max(0, _depth(goal) - reached)

    def _gate(self, goal: str) -> None:
        rate = 1.0 / (1.0 + np.exp(-self.level[goal]))
        seen, *proofs = (int(self.draw.binomial(n, rate)) for n in (SCREEN, PROOF, PROOF))
        self.state.history.setdefault(goal, []).append([seen, SCREEN])
        lower = [float(wilson(k, PROOF)[0]) for k in proofs]
        if min(lower) >= THRESHOLD:
            self.proved[goal] = SimpleNamespace(goal=goal, successes=proofs[1], n=PROOF, lower=lower[1])


def lived(agent: LanguageModel, seed: int, rounds: int) -> list[str]:
    """The goals mastered by a drawn learner after so many rounds with an agent that says what to do."""
    life, config = DrawnLearner(seed), RunConfig(seed=seed)
    for _ in range(rounds):
        goal, _, composed = loop._propose(agent, life, config)  # type: ignore[arg-type]
        if goal is None:
            break
        life.state.recent.append(goal)
        if composed:
            life.round += 1
        else:
            life.practise(goal)
    return sorted(life.proved)


def _depth(goal: str) -> int:
    return DEPTH.get(Goal.parse(goal).literals[0].predicate, 3)
