"""What learns from the loop's own play: any of the learners from recorded episodes, measured and gated alike.

Each takes windows of the same play with the same goals in hindsight and sees the same features; what differs is what
it learns from them: plans that it recognises (`policies.latent_plans`), the states to come in a space of its own
(`policies.act_jepa`), or the actions alone. With several of them the gate takes, for each goal, the one that does best.
Learners of goals' values are no choice here: their goals are moments, and where nothing has changed yet the table's
features say that nothing is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied.cli.offline_learners import OFFLINE_LEARNERS
from embodied.data.batches import Recorded
from embodied.data.store import EpisodeStore
from embodied.skills.gate import GateDecision
from embodied.training.offline import OfflineSettings, make_learner, train_offline
from embodied.training.playing import BATCH, HORIZON, learn_from_play
from envs.observations import FEATURES
from envs.tabletop_goals import TabletopGoals
from policies.base import Policy
from policies.viewed import Viewed

__all__ = ["Taught", "learn_all", "recorded_play", "won"]

SOURCE = "scripted-play"


@dataclass(frozen=True)
class Taught:
    """A policy that play taught, by the name of its learner, with the last metrics of its training."""

    name: str
    policy: Policy
    metrics: Mapping[str, float] = field(default_factory=dict)


def recorded_play(store: EpisodeStore) -> Recorded:
    """The scripted play of a run's store, as learners from recorded episodes take it."""
    return Recorded(
        store.observations, store.actions, np.asarray(store.episode_ends), TabletopGoals(), store.indices(SOURCE),
        about={"source": SOURCE, "steps": store.steps},
    )  # fmt: skip


def learn_all(
    names: str, store: EpisodeStore, updates: int, seed: int, folder: Path, tick: Callable[[], None] = lambda: None
) -> list[Taught]:
    """A policy of each learner in ``names`` (joined by +), trained for ``updates`` updates on the store's play.

    Trainings are kept below ``folder``, and gone on with after a kill. Raises ValueError where there is no play.
    """
    found = []
    for name in names.split("+"):
        if name == "flow_bc":
            last: dict[str, float] = {}

            def note(_: int, metrics: dict[str, float], last: dict[str, float] = last) -> None:
                last.update(metrics)
                tick()

            found.append(Taught(name, learn_from_play(store, updates, seed, note), last))
            continue
        tick()
        kind, data = OFFLINE_LEARNERS[name](), recorded_play(store)
        learner = make_learner(kind.algorithm, data, seed=seed % (1 << 31), **kind.settings())
        settings = OfflineSettings(updates=updates, batch=BATCH, seed=seed % (1 << 31), horizon=HORIZON)
        result = train_offline(learner, data, settings, folder / name)
        found.append(Taught(name, Viewed(result.policy, FEATURES, TabletopGoals.columns.tolist()), result.metrics))
    return found


def won(taught: Sequence[Taught], decisions: Sequence[GateDecision]) -> Iterator[tuple[Taught, list[GateDecision]]]:
    """Each policy with the decisions about the goals that it did best at, where there are any."""
    for position, one in enumerate(taught):
        own = [decision for decision in decisions if decision.winner == position]
        if own:
            yield one, own
