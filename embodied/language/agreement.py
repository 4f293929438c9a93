"""How far a model's verdicts can be trusted: how often it says what the simulator's predicates say.

The count is stored beside what rests on such verdicts; it never turns one into evidence of a higher kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from embodied.data.durable import replace_file
from embodied.language.base import LanguageModel, LMError, LMRequest
from embodied.language.grammar import GrammarModel
from embodied.language.roles import JudgeReply, JudgeRequest
from embodied.skills.statistics import wilson

__all__ = ["Agreement", "agreement"]


@dataclass(frozen=True)
class Agreement:
    """Episodes by what simulator and model said of success; ``failed``: no verdict was of use."""

    backend: str
    both: int = 0
    neither: int = 0
    only_model: int = 0
    only_simulator: int = 0
    failed: int = 0

    @property
    def n(self) -> int:
        """Verdicts of use."""
        return self.both + self.neither + self.only_model + self.only_simulator

    @property
    def rate(self) -> float:
        """Share of verdicts that agree; 0 where there is none."""
        return (self.both + self.neither) / max(1, self.n)

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance, 0 where chance alone explains all."""
        n = max(1, self.n)
        model, simulator = (self.both + self.only_model) / n, (self.both + self.only_simulator) / n
        chance = model * simulator + (1 - model) * (1 - simulator)
        return 0.0 if chance >= 1.0 else (self.rate - chance) / (1 - chance)

    def save(self, path: Path) -> None:
        """Writes counts, rate with its Wilson interval, and kappa as JSON, whole or not at all."""
        interval = [float(end) for end in wilson(self.both + self.neither, self.n)]
        found = asdict(self) | {"n": self.n, "rate": self.rate, "interval": interval, "kappa": self.kappa}
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


def agreement(model: LanguageModel, episodes: Iterable[JudgeRequest], blind: bool = False) -> Agreement:
    """Asks ``model`` to judge each episode and counts. ``blind`` shows it pictures alone, without the predicates.

    Answers that another gave in its place (degraded) count as failed.
    """
    truth, counts = GrammarModel(), {"both": 0, "neither": 0, "only_model": 0, "only_simulator": 0, "failed": 0}
    for episode in episodes:
        simulator = truth.complete(LMRequest("judge", episode, JudgeReply)).value.success
        steps = len(episode.truth)
        hidden = {"literals": (), "truth": np.zeros((steps, 0), np.bool_)}
        asked = episode.model_copy(update=hidden) if blind else episode
        try:
            result = model.complete(LMRequest("judge", asked, JudgeReply))
        except LMError:
            counts["failed"] += 1
            continue
        if result.degraded:
            counts["failed"] += 1
        elif result.value.success:
            counts["both" if simulator else "only_model"] += 1
        else:
            counts["only_simulator" if simulator else "neither"] += 1
    return Agreement(model.name, **counts)
