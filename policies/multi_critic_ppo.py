"""Proximal policy optimisation with one critic a reward.

Actor: diagonal Gaussian, mean m(x) by a perceptron, one standard deviation an action component. Over each
rollout, with r = pi(a|x) / pi_old(a|x) and the combined advantage A of `multi_critic`,

    L_actor  = -mean min(r A, clip(r, 1 +- .2) A) + .05 mean relu(|m| - 1.2)^2
    L_critic = sum_k mean (V_k - R_k / s_k)^2

where R_k = A_k + V_k and s_k is the running spread of head k's discounted returns. Details that matter:

1. Observations are normalised by running statistics, frozen during a rollout, clipped to +-6.
2. The learning rate follows the divergence KL(pi_old || pi) after every minibatch: divided by 1.5 above twice
   the target, multiplied by 1.5 below half of it, within fixed bounds.
3. There is no entropy bonus; the standard deviation has a floor instead.
4. The penalty on means beyond the action range keeps them where clipping leaves a gradient.
5. At a time limit every critic bootstraps from its value of the episode's true last observation.
6. Gradients are clipped to norm 1 for the actor and for every critic on its own.
7. A rollout is cut into equal minibatches, as many as come closest to the configured size.

`critic` chooses how rewards are combined: see `multi_critic`. With "sum", the ablation, one critic learns their
weighted sum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from policies.base import LearnablePolicy, State, as_batch, config_from_dict
from policies.checkpoint import (
    Arrays,
    load_module,
    load_optimizer,
    module_arrays,
    optimizer_arrays,
    with_prefix,
    without_prefix,
)
from policies.cloning import fit_mean
from policies.distributions import gaussian_kl, gaussian_log_prob
from policies.multi_critic import (
    Critics,
    Multipliers,
    clip_each_gradient,
    combine_advantages,
    explained_variance,
    gae,
)
from policies.multi_critic_config import MultiCriticPPOConfig
from policies.networks import GripperMLP
from policies.normalization import ObservationNorm, ReturnScale
from policies.patience import lasting_noise
from policies.practice import PracticeResult, train_ppo
from policies.rollout import Rollout

__all__ = ["MultiCriticPPO", "MultiCriticPPOConfig", "PracticeResult", "Rollout", "train_ppo"]


class _Networks(nn.Module):
    """All that is saved with the policy."""

    def __init__(self, config: MultiCriticPPOConfig, generator: torch.Generator) -> None:
        super().__init__()
        inputs, outputs = config.observation_size, config.action_size
        several = config.critic in ("multi", "lagrangian")
        discounts = config.discounts if several else config.discounts[:1]
        self.norm = ObservationNorm(inputs, config.observation_limit)
        self.actor = GripperMLP((inputs, *config.hidden, outputs), "elu", 0.01, generator)
        self.actor.limit = config.gripper_limit
        self.log_std = nn.Parameter(torch.full((outputs,), math.log(config.initial_std)))
        self.critics = Critics(len(discounts), inputs, config.critic_hidden, generator)
        self.scale = ReturnScale(discounts)
        if config.critic == "normalized_sum":
            self.spread = ReturnScale(config.discounts)
        elif config.critic == "lagrangian":
            costs = [name in config.costs for name in config.reward_names]
            self.multipliers = Multipliers(costs, config.cost_limit, config.multiplier_rate)


class MultiCriticPPO(LearnablePolicy):
    """The policy, its critics and their learner.

    Non-deterministic `predict` draws from a random stream apart from that of learning, so acting between
    updates leaves no trace in them.
    """

    registry_key = "multi-critic-ppo"

    def __init__(self, config: MultiCriticPPOConfig) -> None:
        self.config = config
        self.observation_size, self.action_size = config.observation_size, config.action_size
        self._generator = torch.Generator().manual_seed(config.seed)
        self._sampling = torch.Generator().manual_seed(config.seed)
        self.networks = _Networks(config, self._generator)
        self.learning_rate = config.learning_rate
        self._reset_optimizers()

    def _reset_optimizers(self) -> None:
        net = self.networks
        self._actor_parameters = [*net.actor.parameters(), net.log_std]
        self._critic_parameters = list(net.critics.parameters())
        self._actor_optimizer = torch.optim.Adam(self._actor_parameters, self.learning_rate, fused=True)
        self._critic_optimizer = torch.optim.Adam(self._critic_parameters, self.learning_rate, fused=True)

    @property
    def critic_names(self) -> tuple[str, ...]:
        """The names of the critics: the rewards', or "sum"."""
        return self.config.reward_names if self.config.critic in ("multi", "lagrangian") else ("sum",)

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each reward's advantage counts; may be set between updates."""
        return self.config.weights

    @weights.setter
    def weights(self, weights: tuple[float, ...]) -> None:
        self.config = dataclasses.replace(self.config, weights=tuple(weights))

    # ---- acting

    @torch.no_grad()
    def act(
        self, observation: np.ndarray | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sample for learning from observations float32[n, D].

        Returns: action [n, A] (not clipped), log density [n], mean [n, A], normalised observation [n, D].
        """
        net = self.networks
        normalised = net.norm(torch.as_tensor(observation))
        mean = net.actor(normalised)
        noise = torch.randn(mean.shape, generator=self._generator)
        action = torch.addcmul(mean, noise, net.log_std.exp())
        return action, gaussian_log_prob(action, mean, net.log_std), mean, normalised

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """See `Policy.predict`. Deterministic acting takes the mean, from `patience` steps on with `lasting_noise`."""
        net, patience = self.networks, self.config.patience
        action = net.actor(net.norm(torch.from_numpy(as_batch(observation, self.observation_size))))
        spread = net.log_std.exp()
        if not deterministic:
            action = torch.addcmul(action, torch.randn(action.shape, generator=self._sampling), spread)
        elif patience:
            noise, state = lasting_noise(observation, self.action_size, patience, state, episode_start)
            action = torch.addcmul(action, torch.from_numpy(noise), spread)
        return action.clamp(-1.0, 1.0).numpy(), state

    @torch.no_grad()
    def values(self, observation: np.ndarray | torch.Tensor) -> torch.Tensor:
        """What each critic expects, in reward units: float32[n, D] -> float32[n, number of critics]."""
        net = self.networks
        return net.critics(net.norm(torch.as_tensor(observation))) * net.scale.scale

    def seed(self, seed: int) -> None:
        self._sampling.manual_seed(seed)

    # ---- learning

    def new_rollout(self, length: int, slots: int) -> Rollout:
        """An empty rollout of the shape this policy learns from."""
        return Rollout(length, slots, self.observation_size, self.action_size, len(self.config.reward_names))

    def update(self, batch: Rollout, critic_only: bool = False) -> dict[str, float]:
        """Learn from a full rollout, collected by `act` since the last update.

        With `critic_only`, the critics alone learn: the actor, its spread and the observations' normalisation
        stay as they are (for a warm-started actor, whose first advantages would come from untrained critics).

        Returns: policy_loss, value_loss, mean_penalty, kl (nats, mean over minibatches), clip_fraction, std,
        learning_rate, gradient_norm; and for every critic explained_variance/NAME (before this update),
        advantage_std/NAME and return_std/NAME (reward units).

        Raises ValueError for a rollout that is not full, or holds values that are not finite.
        """
        if not batch.full:
            raise ValueError(f"The rollout holds {batch.filled} of its {batch.length} steps; fill it first.")
        if not (torch.isfinite(batch.observations).all() and torch.isfinite(batch.rewards).all()):
            raise ValueError("The rollout holds observations or rewards that are not finite.")
        inputs, advantages, targets, metrics = self._evaluate(batch)
        columns = (inputs, batch.actions.flatten(0, 1), batch.log_probs.flatten(), batch.means.flatten(0, 1))
        old_log_std = self.networks.log_std.detach().clone()
        samples = len(inputs)
        pieces = max(1, round(samples / self.config.minibatch))
        totals: dict[str, float] = {}
        for _ in range(self.config.epochs):
            order = torch.randperm(samples, generator=self._generator)
            shuffled = [column[order].tensor_split(pieces) for column in (*columns, advantages, targets)]
            for x, action, log_prob, mean, advantage, target in zip(*shuffled, strict=True):
                losses = {"value_loss": self._critic_step(x, target)}
                if not critic_only:
                    losses |= self._actor_step(x, action, log_prob, mean, old_log_std, advantage)
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value
        metrics |= {name: total / (pieces * self.config.epochs) for name, total in totals.items()}
        metrics["std"] = self.networks.log_std.detach().exp().mean().item()
        metrics["learning_rate"] = self.learning_rate
        if not critic_only:
            self.networks.norm.update(batch.observations)
        return metrics

    @torch.no_grad()
    def _evaluate(self, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, float]]:
        """(inputs [T n, D], advantages [T n], scaled value targets [T n, K], metrics a critic)."""
        net, config = self.networks, self.config
        weights = torch.tensor(config.weights)
        rewards = rollout.rewards
        done = rollout.terminated | rollout.truncated
        if config.critic == "normalized_sum":
            net.spread.observe(rewards, done)
            rewards = rewards / net.spread.scale
        if config.critic in ("sum", "normalized_sum"):
            rewards, weights = (rewards @ weights)[..., None], torch.ones(1)
        net.scale.observe(rewards, done)
        scale = net.scale.scale
        inputs = net.norm(rollout.observations.flatten(0, 1))
        bootstrapped = rollout.truncated & ~rollout.terminated
        further = net.norm(torch.cat([rollout.last_observation, rollout.final_observations[bootstrapped]]))
        values = (net.critics(inputs) * scale).unflatten(0, (rollout.length, rollout.slots))
        further_values = net.critics(further) * scale
        next_values = torch.cat([values[1:], further_values[None, : rollout.slots]])
        next_values[bootstrapped] = further_values[rollout.slots :]
        discounts = net.scale.discounts
        advantages = gae(rewards, values, next_values, rollout.terminated, done, discounts, config.gae_lambda)
        floor: float | torch.Tensor = config.advantage_floor
        if config.relative_floor > 0.0:
            floor = (config.relative_floor * scale).clamp(min=max(1e-9, config.advantage_floor))
            floor = torch.where(net.scale.variance > 0.0, floor, torch.inf)  # what never varied says nothing yet
        combined, spread = combine_advantages(advantages, weights, floor)
        if config.critic == "lagrangian":
            net.multipliers.observe(rewards)
            combined = net.multipliers.combine(advantages, weights)
        targets = advantages + values
        metrics: dict[str, float] = {}
        per_critic = {
            "explained_variance": explained_variance(values, targets),
            "advantage_std": spread,
            "return_std": scale,
        }
        for metric, column in per_critic.items():
            metrics |= {f"{metric}/{n}": v for n, v in zip(self.critic_names, column.tolist(), strict=True)}
        return inputs, combined.flatten(), (targets / scale).flatten(0, 1), metrics

    def _critic_step(self, x: torch.Tensor, target: torch.Tensor) -> float:
        loss = (self.networks.critics(x) - target).square().mean(0).sum()
        self._critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_each_gradient(self._critic_parameters, self.config.gradient_limit)
        self._critic_optimizer.step()
        return loss.item()

    def _actor_step(
        self,
        x: torch.Tensor,
        action: torch.Tensor,
        old_log_prob: torch.Tensor,
        old_mean: torch.Tensor,
        old_log_std: torch.Tensor,
        advantage: torch.Tensor,
    ) -> dict[str, float]:
        net, config = self.networks, self.config
        mean = net.actor(x)
        ratio = (gaussian_log_prob(action, mean, net.log_std) - old_log_prob).exp()
        with torch.no_grad():
            kl = gaussian_kl(old_mean, old_log_std, mean, net.log_std).mean().item()
            clipped = ((ratio - 1).abs() > config.clip).float().mean().item()
        self._adapt_learning_rate(kl)
        limited = ratio.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -torch.minimum(ratio * advantage, limited * advantage).mean()
        penalty = (mean.abs() - config.mean_limit).relu().square().mean()
        self._actor_optimizer.zero_grad(set_to_none=True)
        (policy_loss + config.mean_penalty * penalty).backward()
        norm = nn.utils.clip_grad_norm_(self._actor_parameters, config.gradient_limit)
        self._actor_optimizer.step()
        with torch.no_grad():
            net.log_std.clamp_(math.log(config.minimum_std), math.log(config.maximum_std))
            if config.gripper_std > 0.0:  # letting go has to stay within what is tried
                net.log_std[-1:].clamp_(min=math.log(config.gripper_std))
        return {
            "policy_loss": policy_loss.item(),
            "mean_penalty": penalty.item(),
            "kl": kl,
            "clip_fraction": clipped,
            "gradient_norm": norm.item(),
        }

    def _adapt_learning_rate(self, kl: float) -> None:
        config = self.config
        if kl > 2 * config.target_kl:
            self.learning_rate = max(config.minimum_learning_rate, self.learning_rate / 1.5)
        elif kl < config.target_kl / 2:
            self.learning_rate = min(config.maximum_learning_rate, self.learning_rate * 1.5)
        for optimizer in (self._actor_optimizer, self._critic_optimizer):
            optimizer.param_groups[0]["lr"] = self.learning_rate

    def warm_start_actor(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        epochs: int = 20,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        std: float = 0.3,
    ) -> dict[str, float]:
        """Clone behaviour: fit the actor's mean to actions by squared error, every component alike.

        Sets the observations' normalisation to the statistics of `observations` (float32[N, D]) and the
        standard deviation to `std`, within its bounds. `actions` (float32[N, A]) are clipped to [-1, 1]. The
        learning rate falls linearly to zero. Returns the mean squared error of the last epoch as "loss".
        """
        net = self.networks
        inputs = torch.from_numpy(as_batch(observations, self.observation_size))
        targets = torch.from_numpy(as_batch(actions, self.action_size)).clamp(-1.0, 1.0)
        if self.config.gripper_limit > 0.0:  # within reach of the squashed mean
            targets[:, -1].clamp_(-0.85 * self.config.gripper_limit, 0.85 * self.config.gripper_limit)
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(f"Expected as many observations as actions; found {len(inputs)}, {len(targets)}.")
        net.norm.reset()
        net.norm.update(inputs)
        with torch.no_grad():
            net.log_std.fill_(math.log(min(max(std, self.config.minimum_std), self.config.maximum_std)))
            inputs = net.norm(inputs)
        loss = fit_mean(net.actor, inputs, targets, epochs, batch_size, learning_rate, self._generator)
        self._reset_optimizers()
        return {"loss": loss}

    # ---- saving

    @property
    def _return_scales(self) -> dict[str, ReturnScale]:
        net = self.networks
        return {"returns": net.scale} | ({"spread_returns": net.spread} if hasattr(net, "spread") else {})

    def config_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(config_from_dict(MultiCriticPPOConfig, config))

    def arrays(self) -> Arrays:
        return module_arrays(self.networks)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.networks, arrays)

    def training_arrays(self) -> Arrays:
        return {
            "generator": self._generator.get_state().numpy(),
            "sampling": self._sampling.get_state().numpy(),
            "learning_rate": np.array(self.learning_rate),
            **{name: _running(scale) for name, scale in self._return_scales.items()},
            **with_prefix("actor_optimizer", optimizer_arrays(self._actor_optimizer)),
            **with_prefix("critic_optimizer", optimizer_arrays(self._critic_optimizer)),
        }

    def load_training_arrays(self, arrays: Arrays) -> None:
        self._generator.set_state(torch.from_numpy(arrays["generator"]))
        self._sampling.set_state(torch.from_numpy(arrays["sampling"]))
        self.learning_rate = float(arrays["learning_rate"])
        for name, scale in self._return_scales.items():
            scale.returns = torch.from_numpy(arrays[name]) if arrays[name].size else None
        load_optimizer(self._actor_optimizer, without_prefix("actor_optimizer", arrays))
        load_optimizer(self._critic_optimizer, without_prefix("critic_optimizer", arrays))


def _running(scale: ReturnScale) -> np.ndarray:
    """The running returns of every slot, empty before any data."""
    return np.zeros((0, 0), np.float32) if scale.returns is None else scale.returns.numpy().copy()
