"""Hierarchical implicit Q-learning (HIQL): one value, two actors; the upper names a waypoint, the lower goes there.

A goal seen from a state is φ(s, g) = √d u / |u|, d numbers, u a network of f(s, g). The value V(s, φ(s, g)) and φ are
learnt as in `policies.gcivl`. With w the moment some steps ahead on the way to g, V(s, g) short for V(s, φ(s, g)),

    upper   L = mean min(exp(T (V(w, g) - V(s, g))), 100) (-log π_h(φ(s, w) | f(s, g)))
    lower   L = mean min(exp(T (V(s', w) - V(s, w))), 100) (-log π_l(a | s, φ(s, w)))

neither of which teaches φ. To act, the upper's mean is scaled back to the length √d and given to the lower. Far from a
goal the value hardly tells one step from another, but it does tell one waypoint from another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from policies.gcivl import value_loss
from policies.goal_values import (
    ACTOR_GAIN,
    GoalValueConfig,
    GoalValuePolicy,
    NormalizedMLP,
    advantage_weights,
    regression_loss,
)
from policies.offline import Batch, BatchSpec, expect

__all__ = ["HIQL", "HIQLConfig"]


@dataclass(frozen=True)
class HIQLConfig(GoalValueConfig):
    """``waypoint`` counts steps (OGBench: 10 for manipulation, 25 for locomotion), ``goal_size`` is d."""

    expectile: float = 0.7
    waypoint: int = 10
    goal_size: int = 10
    upper_temperature: float = 3.0
    lower_temperature: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_size < 1:
            raise ValueError("state_size must be at least 1: the lower actor sees the state without the goal.")
        if self.waypoint < 1 or self.goal_size < 1:
            raise ValueError(f"waypoint = {self.waypoint} and goal_size = {self.goal_size} must be at least 1.")


class HIQL(GoalValuePolicy):
    """See the module's docstring."""

    registry_key = "hiql"
    config_class = HIQLConfig
    followed = ("goal", "value")

    def __init__(self, config: HIQLConfig) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        features, seen, size = config.feature_size, config.state_size + config.goal_size, config.goal_size
        network = {
            "goal": NormalizedMLP(1, (features, *config.hidden, size), generator),
            "value": NormalizedMLP(2, (seen, *config.hidden, 1), generator),
            "upper": NormalizedMLP(1, (features, *config.hidden, size), generator, ACTOR_GAIN),
            "lower": NormalizedMLP(1, (seen, *config.hidden, config.action_size), generator, ACTOR_GAIN),
        }
        super().__init__(config, network)

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(values=True, waypoint=self.config.waypoint, discount=self.config.discount)

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features, value_features, next_features, waypoint_features, waypoint_next, waypoint_goal
        [b, F], actions [b, 1, A], rewards and masks [b].

        Returns: loss, value_loss, upper_loss, lower_loss, value (mean V of the values' goals), upper_advantage and
        lower_advantage (means). ValueError for arrays of other shapes.
        """
        names = ("features", "value_features", "next_features", "waypoint_features", "waypoint_next", "waypoint_goal")
        arrays = expect(batch, self._shapes(*names)).values()
        features, now, later, near, near_next, ahead, actions, rewards, masks = arrays
        config = self.config
        with torch.no_grad():
            target_later, target_now = self._value(torch.cat([later, now]), target=True).chunk(2, dim=1)
            seen = self._seen(torch.cat([near, near_next, ahead, features]))
            gains = self.network["value"](seen)[..., 0].mean(0).chunk(4)
            lower_advantage, upper_advantage = gains[1] - gains[0], gains[2] - gains[3]
        values = self._value(now)
        errors = value_loss(values, target_now, target_later, rewards, config.discount * masks, config.expectile)
        near_seen = seen[: len(near)]
        upper = regression_loss(
            self.network["upper"](features)[0],
            near_seen[:, config.state_size :],
            advantage_weights(upper_advantage, config.upper_temperature),
        )
        lower = regression_loss(
            self.network["lower"](near_seen)[0],
            actions[:, 0],
            advantage_weights(lower_advantage, config.lower_temperature),
        )
        return self._descend(errors + upper + lower) | {
            "value_loss": errors.item(),
            "upper_loss": upper.item(),
            "lower_loss": lower.item(),
            "value": values.mean().item(),
            "upper_advantage": upper_advantage.mean().item(),
            "lower_advantage": lower_advantage.mean().item(),
        }

    def act(self, features: torch.Tensor) -> torch.Tensor:
        goal = _scaled(self.network["upper"](features)[0])
        return self.network["lower"](torch.cat([features[:, : self.config.state_size], goal], dim=-1))[0]

    def _seen(self, features: torch.Tensor, target: bool = False) -> torch.Tensor:
        """Features [b, F] -> the state beside φ(s, g): [b, S + d]."""
        part = (self.target if target else self.network)["goal"]
        return torch.cat([features[:, : self.config.state_size], _scaled(part(features)[0])], dim=-1)

    def _value(self, features: torch.Tensor, target: bool = False) -> torch.Tensor:
        part = (self.target if target else self.network)["value"]
        return part(self._seen(features, target))[..., 0]


def _scaled(goal: torch.Tensor) -> torch.Tensor:
    """Vectors [..., d], each at the length √d."""
    return math.sqrt(goal.shape[-1]) * torch.nn.functional.normalize(goal, dim=-1)
