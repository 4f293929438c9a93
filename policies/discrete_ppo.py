"""Proximal policy optimisation for discrete actions: small, for one core.

A step counts only where it is *active*: slots may do other things in between (what prepares the task, say). With
ratio r = pi(a|s) / pi_old(a|s) and advantages A by GAE over each active stretch, the loss is

    -mean(min(r A, clip(r, 1 - c, 1 + c) A)) + (value - return)^2 / 2 - entropy_weight * entropy.

Actions are drawn: under partial views the best memoryless policy may have to be one with chance in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from policies.base import Policy, State, as_batch, config_from_dict
from policies.checkpoint import Arrays, CheckpointError

__all__ = ["DiscretePPO", "DiscretePPOConfig", "Rollout", "advantages"]


@dataclass(frozen=True)
class DiscretePPOConfig:
    """``actions`` is their number; the rest are the field's usual settings."""

    observation_size: int
    actions: int
    hidden: tuple[int, ...] = (128, 64)
    learning_rate: float = 1e-3
    gamma: float = 0.97
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_weight: float = 0.01
    epochs: int = 5
    minibatch: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Rollout:
    """T steps of n slots: observations float32[T, n, F], actions int64[T, n], their log probabilities and the states'
    values, rewards float32[T, n] each, whether the task ended with the step and whether the step counts bool[T, n], and
    the values of what the last step led to float32[n].
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    active: np.ndarray
    last_values: np.ndarray


def advantages(rollout: Rollout, gamma: float, gae_lambda: float) -> np.ndarray:
    """float32[T, n] by GAE; 0 where a step does not count. A stretch that is cut off by inactivity ended there."""
    found = np.zeros_like(rollout.rewards)
    following, gain = rollout.last_values, np.zeros_like(rollout.last_values)
    for t in reversed(range(len(found))):
        on = ~rollout.ended[t]
        if t + 1 < len(found):
            on &= rollout.active[t + 1]
        delta = rollout.rewards[t] + gamma * following * on - rollout.values[t]
        gain = np.where(rollout.active[t], delta + gamma * gae_lambda * gain * on, 0.0)
        found[t], following = gain, rollout.values[t]
    return found


class DiscretePPO(Policy):
    """Actor and critic, a small network each. `predict` gives int64[n] actions."""

    registry_key: ClassVar[str] = "discrete-ppo"

    def __init__(self, config: DiscretePPOConfig) -> None:
        if config.actions < 2 or config.observation_size < 1:
            raise ValueError(f"a policy needs an observation and at least 2 actions, not {config}")
        self.config = config
        self.observation_size, self.action_size = config.observation_size, 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.actor = _network(config.observation_size, config.hidden, config.actions, 0.01)
            self.critic = _network(config.observation_size, config.hidden, 1, 1.0)
        self._parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self._optimizer: torch.optim.Optimizer | None = None
        self.seed(config.seed)

    def seed(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        with torch.no_grad():
            logits = self.actor(torch.from_numpy(as_batch(observation, self.observation_size)))
        if deterministic:
            return logits.argmax(1).numpy(), state
        return self._draw(logits).numpy(), state

    def act(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Actions int64[n], their log probabilities and the values, float32[n] each."""
        with torch.no_grad():
            seen = torch.from_numpy(as_batch(observation, self.observation_size))
            logits = self.actor(seen)
            actions = self._draw(logits)
            chosen = torch.log_softmax(logits, 1).gather(1, actions[:, None])[:, 0]
            return actions.numpy(), chosen.numpy(), self.critic(seen)[:, 0].numpy()

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(logits.shape, generator=self._generator).clamp_(1e-20, 1.0)
        return (logits - torch.log((-torch.log(noise)).clamp_min(1e-20))).argmax(1)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from the steps that count; nothing where none does."""
        config = self.config
        rows = np.flatnonzero(rollout.active.ravel())
        if len(rows) < 2:
            return {"steps": float(len(rows))}
        gains = advantages(rollout, config.gamma, config.gae_lambda)
        returns = (gains + rollout.values).ravel()[rows]
        chosen = gains.ravel()[rows]
        observations = rollout.observations.reshape(-1, self.observation_size)[rows]
        actions, old = rollout.actions.ravel()[rows], rollout.log_probabilities.ravel()[rows]
        tensors = [torch.from_numpy(a) for a in (observations, actions, old, chosen, returns)]
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self._parameters, config.learning_rate, eps=1e-5)
        pieces = max(1, round(len(rows) / config.minibatch))
        total = {"policy": 0.0, "value": 0.0, "entropy": 0.0}
        for _ in range(config.epochs):
            order = torch.randperm(len(rows), generator=self._generator)
            for part in order.tensor_split(pieces):
                seen, action, before, gain, target = (t[part] for t in tensors)
                log_all = torch.log_softmax(self.actor(seen), 1)
                entropy = -(log_all.exp() * log_all).sum(1).mean()
                ratio = (log_all.gather(1, action[:, None])[:, 0] - before).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
                policy = -torch.minimum(ratio * gain, clipped * gain).mean()
                value = (self.critic(seen)[:, 0] - target).square().mean() / 2
                self._optimizer.zero_grad(set_to_none=True)
                (policy + value - config.entropy_weight * entropy).backward()
                nn.utils.clip_grad_norm_(self._parameters, 0.5)
                self._optimizer.step()
                for name, loss in (("policy", policy), ("value", value), ("entropy", entropy)):
                    total[name] += float(loss.detach()) / (pieces * config.epochs)
        return {"steps": float(len(rows)), **total}

    def config_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self.config).items()}

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(config_from_dict(DiscretePPOConfig, config))

    def arrays(self) -> Arrays:
        parts = {"actor": self.actor, "critic": self.critic}
        return {f"{p}.{k}": v.numpy().copy() for p, net in parts.items() for k, v in net.state_dict().items()}

    def load_arrays(self, arrays: Arrays) -> None:
        for part, network in (("actor", self.actor), ("critic", self.critic)):
            own = {k.removeprefix(part + "."): v for k, v in arrays.items() if k.startswith(part + ".")}
            try:
                network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in own.items()})
            except RuntimeError as error:
                raise CheckpointError(f"The {part} does not fit: {str(error).splitlines()[-1].strip()}") from None


def _network(inputs: int, hidden: tuple[int, ...], outputs: int, gain: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.Tanh()]
        inputs = size
    last = nn.Linear(inputs, outputs)
    with torch.no_grad():
        last.weight.mul_(gain)
        last.bias.zero_()
    return nn.Sequential(*layers, last)
