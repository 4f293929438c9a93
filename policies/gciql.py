"""Goal-conditioned implicit Q-learning (GCIQL): values of actions too, and an actor that climbs them near the data.

With f = f(s, g), f' = f(s', g), Q̄ the targets of two critics Q1, Q2 of actions and one V,

    L_V = mean |e - 1[u < 0]| u²                       u = min(Q̄1, Q̄2)(f, a) - V(f)
    L_Q = Σ_k mean (r + γ m V(f') - Q_k(f, a))²

with goals g drawn for values, and with goals later in the same episode either of

    ddpg   L_π = -mean min(Q1, Q2)(f, μ(f)) / mean |Q| + α mean (-log π(a | f))
    awr    L_π = mean w (-log π(a | f))                w = min(exp(T (min(Q1, Q2)(f, a) - V(f))), 100)
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

__all__ = ["GCIQL", "GCIQLConfig"]

ACTORS = ("ddpg", "awr")


@dataclass(frozen=True)
class GCIQLConfig(GoalValueConfig):
    """``actor`` is ddpg, in which ``cloning`` α keeps it near the data's actions, or awr with ``temperature`` T."""

    actor: str = "ddpg"
    cloning: float = 1.0
    temperature: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actor not in ACTORS:
            raise ValueError(f"actor = {self.actor!r} is none of {', '.join(ACTORS)}.")


class GCIQL(GoalValuePolicy):
    """See the module's docstring."""

    registry_key = "gciql"
    config_class = GCIQLConfig
    followed = ("critic",)

    def __init__(self, config: GCIQLConfig) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        features, actions = config.feature_size, config.action_size
        network = {
            "value": NormalizedMLP(1, (features, *config.hidden, 1), generator),
            "critic": NormalizedMLP(2, (features + actions, *config.hidden, 1), generator),
            "actor": NormalizedMLP(1, (features, *config.hidden, actions), generator, ACTOR_GAIN),
        }
        super().__init__(config, network)

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features, value_features, next_features [b, F], actions [b, 1, A], rewards, masks [b].

        Returns: loss, value_loss, critic_loss, actor_loss, value (mean V of the values' goals), cloning_error (mean
        squared distance of the actor from the data, by component). ValueError for arrays of other shapes.
        """
        names = ("features", "value_features", "next_features")
        features, now, later, chunks, rewards, masks = expect(batch, self._shapes(*names)).values()
        config, actions = self.config, chunks[:, 0]
        taken = torch.cat([now, actions], dim=-1)
        with torch.no_grad():
            target = self.target["critic"](taken)[..., 0].amin(0)
            wanted = rewards + config.discount * masks * self._value(later)[0]
        values = self._value(now)[0]
        value_loss = expectile_loss(target - values, config.expectile).mean()
        critic_loss = (wanted - self.network["critic"](taken)[..., 0]).square().mean(1).sum()
        means = self.act(features)
        actor_loss = (
            self._ddpg(features, actions, means) if config.actor == "ddpg" else self._awr(features, actions, means)
        )
        return self._descend(value_loss + critic_loss + actor_loss) | {
            "value_loss": value_loss.item(),
            "critic_loss": critic_loss.item(),
            "actor_loss": actor_loss.item(),
            "value": values.mean().item(),
            "cloning_error": (means.detach() - actions).square().mean().item(),
        }

    def _ddpg(self, features: torch.Tensor, actions: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        critic = self.network["critic"].requires_grad_(False)  # the actor's loss does not teach the critics
        gained = critic(torch.cat([features, means.clamp(-1.0, 1.0)], dim=-1))[..., 0].amin(0)
        critic.requires_grad_(True)
        scale = gained.detach().abs().mean() + 1e-6
        return self.config.cloning * regression_loss(means, actions, torch.ones(())) - gained.mean() / scale

    def _awr(self, features: torch.Tensor, actions: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            gained = self.network["critic"](torch.cat([features, actions], dim=-1))[..., 0].amin(0)
            weights = advantage_weights(gained - self._value(features)[0], self.config.temperature)
        return regression_loss(means, actions, weights)
