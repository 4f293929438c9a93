"""Goal-conditioned implicit V-learning (GCIVL): the value of a goal by expectiles, an actor that clones what gained.

With f = f(s, g), f' = f(s', g), V̄ the targets of two critics V1, V2 and q = r + γ m min(V̄1(f'), V̄2(f')),

    L_V = Σ_k mean |e - 1[q < V̄(f)]| (r + γ m V̄_k(f') - V_k(f))²     V̄(f) the mean of both
    L_π = mean w (-log π(a | f))                                     w = min(exp(T (V(f') - V(f))), 100)

with goals g drawn for values in the first and later in the same episode in the second. The value needs no action: it is
optimistic where the outcome of an action is chance, and the advantage of an action is the gain of its outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from policies.goal_values import (
    ACTOR_GAIN,
    GoalValueConfig,
    GoalValuePolicy,
    NormalizedMLP,
    advantage_weights,
    expectile_loss,
    regression_loss,
)
from policies.offline import Batch, expect

__all__ = ["GCIVL", "GCIVLConfig", "value_loss"]


@dataclass(frozen=True)
class GCIVLConfig(GoalValueConfig):
    """``temperature`` T weighs an action by its advantage; 0 clones them all."""

    temperature: float = 10.0


class GCIVL(GoalValuePolicy):
    """See the module's docstring."""

    registry_key = "gcivl"
    config_class = GCIVLConfig
    followed = ("value",)

    def __init__(self, config: GCIVLConfig) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        sizes = (config.feature_size, *config.hidden)
        network = {
            "value": NormalizedMLP(2, (*sizes, 1), generator),
            "actor": NormalizedMLP(1, (*sizes, config.action_size), generator, ACTOR_GAIN),
        }
        super().__init__(config, network)

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features, features_next, value_features, next_features [b, F], actions [b, 1, A],
        rewards and masks [b].

        Returns: loss, value_loss, actor_loss, value (mean V of the values' goals), advantage (mean of the actor's),
        weight (mean w). ValueError for arrays of other shapes.
        """
        names = ("features", "features_next", "value_features", "next_features")
        features, after, now, later, actions, rewards, masks = expect(batch, self._shapes(*names)).values()
        with torch.no_grad():
            target_later, target_now = self.target["value"](torch.cat([later, now]))[..., 0].chunk(2, dim=1)
            gain, base = self._value(torch.cat([after, features])).mean(0).chunk(2)
            weights = advantage_weights(gain - base, self.config.temperature)
        values = self._value(now)
        errors = value_loss(
            values, target_now, target_later, rewards, self.config.discount * masks, self.config.expectile
        )
        cloning = regression_loss(self.act(features), actions[:, 0], weights)
        return self._descend(errors + cloning) | {
            "value_loss": errors.item(),
            "actor_loss": cloning.item(),
            "value": values.mean().item(),
            "advantage": (gain - base).mean().item(),
            "weight": weights.mean().item(),
        }


def value_loss(
    values: torch.Tensor,
    target_now: torch.Tensor,
    target_later: torch.Tensor,
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    expectile: float,
) -> torch.Tensor:
    """L_V of the module's docstring, a number, from V_k(f), V̄_k(f) and V̄_k(f') [K, b], r and γ m [b]."""
    advantage = rewards + discounts * target_later.amin(0) - target_now.mean(0)
    errors = rewards + discounts * target_later - values
    return expectile_loss(errors, expectile, advantage.expand_as(errors)).mean(1).sum()
