"""How `policies.multi_critic_ppo` is built and learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policies.multi_critic import RULES

__all__ = ["MultiCriticPPOConfig"]


@dataclass(frozen=True)
class MultiCriticPPOConfig:
    """Everything that decides how a policy is built and learns; the defaults are known to work at 20 Hz."""

    observation_size: int
    action_size: int
    reward_names: tuple[str, ...] = ("reward",)
    weights: tuple[float, ...] = ()  # one a reward; () stands for ones
    discounts: tuple[float, ...] = (0.97,)  # one a reward, or one for all
    critic: Literal["multi", "sum", "normalized_sum", "lagrangian"] = "multi"
    costs: tuple[str, ...] = ()  # lagrangian: the rewards that are costs, <= 0
    cost_limit: float = 0.0  # lagrangian: mean cost a step up to which a multiplier falls
    multiplier_rate: float = 1.0
    gae_lambda: float = 0.95
    advantage_floor: float = 1e-3  # in reward units
    relative_floor: float = 0.0  # as a share of the spread of all returns so far
    hidden: tuple[int, ...] = (256, 256)
    critic_hidden: tuple[int, ...] = (256, 256)
    initial_std: float = 0.6
    minimum_std: float = 0.12
    gripper_limit: float = 0.0  # bound of the last component's mean; 0: none
    gripper_std: float = 0.0  # floor of the last component's standard deviation; 0: as the others
    maximum_std: float = 1.35
    learning_rate: float = 1e-3
    minimum_learning_rate: float = 1e-5
    maximum_learning_rate: float = 3e-3
    target_kl: float = 0.015
    patience: int = 0  # steps of an episode after which deterministic acting takes on the learnt spread; 0: never
    clip: float = 0.2
    epochs: int = 4
    minibatch: int = 1280
    mean_limit: float = 1.2
    mean_penalty: float = 0.05
    gradient_limit: float = 1.0
    observation_limit: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        heads = len(self.reward_names)
        if self.critic not in RULES:
            raise ValueError(f"Unknown critic {self.critic!r}; valid: {', '.join(RULES)}.")
        unknown = sorted(set(self.costs) - set(self.reward_names))
        if unknown or (self.critic == "lagrangian") != bool(self.costs):
            what = f"{unknown[0]!r} is none of them" if unknown else "which it needs, and nothing else has"
            raise ValueError(f"costs of a lagrangian are some of {', '.join(self.reward_names)}; {what}.")
        if heads < 1 or self.observation_size < 1 or self.action_size < 1:
            raise ValueError("observation_size, action_size and the number of rewards must be at least 1.")
        for name in ("weights", "discounts"):
            given = tuple(float(x) for x in getattr(self, name)) or (1.0,)
            if len(given) not in (1, heads):
                raise ValueError(f"{name} has {len(given)} entries; expected 1 or {heads}, one a reward.")
            object.__setattr__(self, name, given * heads if len(given) == 1 else given)
        if not all(0 <= discount < 1 for discount in self.discounts):
            raise ValueError(f"discounts must lie in [0, 1); found {self.discounts}.")
        if not 0 < self.minimum_std <= self.initial_std <= self.maximum_std:
            raise ValueError("Standard deviations must satisfy 0 < minimum_std <= initial_std <= maximum_std.")
        if self.epochs < 1 or self.minibatch < 1:
            raise ValueError("epochs and minibatch must be at least 1.")
