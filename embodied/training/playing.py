"""Learning from play: hindsight windows of the episode store → the flow policy.

The goal of a window is what had changed by its end; nothing else of the play (no behaviour labels, no robot pose)
reaches the policy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from embodied.data.store import EpisodeStore
from embodied.data.windows import WindowSampler
from envs.observations import FEATURES, hindsight_features
from envs.tabletop_goals import THRESHOLDS, WATCHED
from envs.vector import ACTIONS
from policies.flow_bc import FlowBC, FlowBCConfig

__all__ = ["learn_from_play"]

HORIZON = 90  # steps a goal may lie ahead
BATCH = 512


def learn_from_play(
    store: EpisodeStore,
    updates: int,
    seed: int,
    on_update: Callable[[int, dict[str, float]], None] | None = None,
) -> FlowBC:
    """A flow policy trained for ``updates`` gradient steps on windows of the store's scripted play.

    Raises ValueError where the store holds no play.
    """
    observations, actions = store.observations, store.actions
    config = FlowBCConfig(
        FEATURES, ACTIONS["tool"], hidden=(384, 384, 384), gradient_steps=updates, seed=seed % (1 << 31)
    )
    sampler = WindowSampler(
        observations, store.episode_ends, horizon=HORIZON, chunk=config.chunk, columns=WATCHED, thresholds=THRESHOLDS,
        preference=0.95, redraws=4, episodes=store.indices("scripted-play"),
    )  # fmt: skip
    policy = FlowBC(config)
    rng = np.random.default_rng(seed)
    for update in range(updates):
        windows = sampler.sample(BATCH, rng)
        features = hindsight_features(observations[windows.start], observations[windows.goal])
        chunk = np.ascontiguousarray(actions[windows.chunk])
        metrics = policy.update({"features": torch.from_numpy(features), "actions": torch.from_numpy(chunk)})
        if on_update is not None:
            on_update(update + 1, {k: float(v) for k, v in metrics.items()})
    return policy
