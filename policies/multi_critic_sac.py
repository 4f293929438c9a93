"""Soft actor-critic with one critic a reward: the off-policy twin of `multi_critic_ppo`.

Actor: pi(a|s), a diagonal Gaussian squashed by tanh. Every reward k has a discount g_k, two critics Q_k1, Q_k2
and their slowly following targets Q', all in units of s_k, the running spread of the discounted returns of k.
With a' drawn from pi(.|s') and d = 1 only where an episode *terminated*, never at a time limit,

    L_critic = sum_k sum_j mean (Q_kj(s, a) - r_k / s_k - g_k (1 - d) min_j Q'_kj(s', a'))^2
    L_actor  = mean (alpha log pi(a|s) - sum_k f_k min_j Q_kj(s, a))        a drawn from pi(.|s)
    L_alpha  = -log alpha mean (log pi(a|s) + H)                            H the wanted entropy

    f_k = v_k / m_k sum_i v_i m_i                             v = w / sum w

where m_k is the spread of the *advantage* of k: the standard deviation of min_j Q_kj(s, a) over a few actions
of the policy in the same state, averaged over states and, with decay, over updates. Unlike |Q| it does not move
with what every action of a state has in common. Details that matter:

1. The weights alone say what matters: a reward times a constant changes neither critics nor actor.
2. The factors put the mean spread back, so that with one reward f = 1: plain soft actor-critic.
3. Targets hold no entropy: every critic predicts its own reward only. The actor alone is paid for entropy.
4. The spread has a floor, as a share of the spread of returns: noise of a cost that no action changes stays small.
5. Observations are normalised by running statistics over what was remembered, clipped to +-6.
6. All 2 K critics are one ensemble; with `compile`, a whole update is one compiled graph.

`torch.set_float32_matmul_precision("medium")`, the caller's to set, about doubles the speed of float32 products.
With `critic="sum"`, the ablation, one pair of critics learns the weighted sum of the rewards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

from policies.adam import Adam
from policies.base import LearnablePolicy, State, as_batch, config_from_dict
from policies.checkpoint import Arrays, load_module, module_arrays, with_prefix, without_prefix
from policies.distributions import squashed_sample
from policies.networks import MLP, EnsembleMLP
from policies.normalization import ObservationNorm, ReturnScale
from policies.practice import PracticeResult, train_sac
from policies.replay import Replay, Transitions

__all__ = ["MultiCriticSAC", "MultiCriticSACConfig", "PracticeResult", "Transitions", "train_sac"]

PRECISIONS = ("float32", "bfloat16")
Network = Callable[[torch.Tensor], torch.Tensor]
SPREAD_ACTIONS = 4  # drawn in each state to measure advantages
SPREAD_STATES = 16  # of a batch, in which that is done


@dataclass(frozen=True)
class MultiCriticSACConfig:
    """Everything that decides how a policy is built and learns."""

    observation_size: int
    action_size: int
    reward_names: tuple[str, ...] = ("reward",)
    weights: tuple[float, ...] = ()  # one a reward; () stands for ones
    discounts: tuple[float, ...] = (0.97,)  # one a reward, or one for all
    critic: Literal["multi", "sum"] = "multi"
    advantage_floor: float = 1e-3  # in units of the spread of returns
    spread_decay: float = 0.99  # an update
    hidden: tuple[int, ...] = (256, 256)
    critic_hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    initial_temperature: float = 0.1
    entropy: float = -1.0  # wanted, in nats an action component
    batch_size: int = 256
    replay_size: int = 1_000_000
    observation_limit: float = 6.0
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products in an update
    compile: bool = False  # the first update then takes tens of seconds, and bits may differ between machines
    seed: int = 0

    def __post_init__(self) -> None:
        heads = len(self.reward_names)
        if self.critic not in ("multi", "sum"):
            raise ValueError(f"Unknown critic {self.critic!r}; valid: multi, sum.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {self.precision!r}; valid: {', '.join(PRECISIONS)}.")
        if heads < 1:
            raise ValueError("reward_names is empty; name at least one reward.")
        if len(set(self.reward_names)) < heads:
            raise ValueError(f"reward_names must differ; found {', '.join(self.reward_names)}.")
        for name in ("observation_size", "action_size", "batch_size", "replay_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; found {getattr(self, name)}.")
        for name in ("weights", "discounts"):
            given = tuple(float(x) for x in getattr(self, name)) or (1.0,)
            if len(given) not in (1, heads):
                raise ValueError(f"{name} has {len(given)} entries; expected 1 or {heads}, one a reward.")
            object.__setattr__(self, name, given * heads if len(given) == 1 else given)
        if not (all(0 <= weight < math.inf for weight in self.weights) and any(self.weights)):
            raise ValueError(f"weights must be at least 0, finite and not all 0; found {self.weights}.")
        if not all(0 <= discount < 1 for discount in self.discounts):
            raise ValueError(f"discounts must lie in [0, 1); found {self.discounts}.")
        for name in ("advantage_floor", "learning_rate", "initial_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite; found {getattr(self, name)}.")
        for name in ("spread_decay", "target_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; found {getattr(self, name)}.")


class AdvantageSpread(nn.Module):
    """The spread of each head's advantage: mean variance over actions in a state, by decaying average."""

    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, heads: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("variance", torch.zeros(heads))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def observe(self, values: torch.Tensor) -> None:
        """Take in Q [K, actions, states]: the plain mean over the first updates, then with decay."""
        self.count.add_(1.0)
        rate = (1.0 / self.count).clamp(min=1.0 - self.decay)
        self.variance.lerp_(values.var(dim=1).mean(dim=-1), rate)

    @property
    def spread(self) -> torch.Tensor:
        """float32[K]; zeros before any data."""
        return self.variance.sqrt()


def combining_factors(weights: torch.Tensor, spread: torch.Tensor, floor: float) -> torch.Tensor:
    """What each Q is multiplied by in the actor's objective: [K], [K] -> [K].

        f_k = v_k / m_k * sum_i v_i m_i        v = w / sum w,  m = max(spread, floor)

    Every f_k times the spread of its Q is w_k times something common to all, and a single factor is one.
    """
    share, spread = weights / weights.sum(), spread.clamp(min=floor)
    return share / spread * (share * spread).sum()


class _Networks(nn.Module):
    """All that is saved with the policy."""

    def __init__(self, config: MultiCriticSACConfig, generator: torch.Generator) -> None:
        super().__init__()
        inputs, outputs = config.observation_size, config.action_size
        discounts = config.discounts if config.critic == "multi" else config.discounts[:1]
        members, sizes = 2 * len(discounts), (inputs + outputs, *config.critic_hidden, 1)
        self.norm = ObservationNorm(inputs, config.observation_limit)
        self.actor = MLP((inputs, *config.hidden, 2 * outputs), "relu", 0.01, generator)
        self.critics = EnsembleMLP(members, sizes, "relu", 1.0, generator)
        self.targets = EnsembleMLP(members, sizes, "relu", 1.0, generator).requires_grad_(False)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.initial_temperature)))
        self.scale = ReturnScale(discounts)
        self.advantage = AdvantageSpread(len(discounts), config.spread_decay)


class MultiCriticSAC(LearnablePolicy):
    """The policy, its critics, their learner and what it remembers.

    Non-deterministic `predict` draws from a random stream apart from that of learning, so acting between
    updates leaves no trace in them.
    """

    registry_key = "multi-critic-sac"

    def __init__(self, config: MultiCriticSACConfig) -> None:
        self.config = config
        self.observation_size, self.action_size = config.observation_size, config.action_size
        self._generator = torch.Generator().manual_seed(config.seed)
        self._sampling = torch.Generator().manual_seed(config.seed)
        self.networks = net = _Networks(config, self._generator)
        self.replay = Replay(config.replay_size, self.observation_size, self.action_size, len(config.reward_names))
        self.steps = 0  # environment steps remembered, in all
        self._critic_adam = Adam(net.critics, config.learning_rate)
        self._actor_adam = Adam(net.actor, config.learning_rate, net.log_temperature)
        self._followers = list(zip(net.targets.parameters(), net.critics.parameters(), strict=True))
        self._learn = torch.compile(self._step, fullgraph=True, dynamic=False) if config.compile else self._step

    @property
    def critic_names(self) -> tuple[str, ...]:
        """The names of the critics: the rewards', or "sum"."""
        return self.config.reward_names if self.config.critic == "multi" else ("sum",)

    @property
    def weights(self) -> tuple[float, ...]:
        """How much each reward's advantage counts; may be set between updates."""
        return self.config.weights

    @weights.setter
    def weights(self, weights: tuple[float, ...]) -> None:
        self.config = dataclasses.replace(self.config, weights=tuple(weights))

    # ---- acting

    @torch.no_grad()
    def act(self, observation: np.ndarray | torch.Tensor, random: bool = False) -> torch.Tensor:
        """Actions [n, A] to learn from, for observations float32[n, D]; uniform ones where `random`."""
        shape = (len(observation), self.action_size)
        if random:
            return torch.rand(shape, generator=self._generator) * 2.0 - 1.0
        net = self.networks
        parameters = net.actor(net.norm(torch.as_tensor(observation)))
        return squashed_sample(parameters, torch.randn(shape, generator=self._generator))[0]

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """See `Policy.predict`. Deterministic acting takes the squashed mean."""
        net = self.networks
        parameters = net.actor(net.norm(torch.from_numpy(as_batch(observation, self.observation_size))))
        shape = (len(parameters), self.action_size)
        noise = torch.zeros(shape) if deterministic else torch.randn(shape, generator=self._sampling)
        return squashed_sample(parameters, noise)[0].numpy(), state

    @torch.no_grad()
    def values(self, observation: np.ndarray | torch.Tensor, action: np.ndarray | torch.Tensor) -> torch.Tensor:
        """The lower of each pair of critics in reward units: [n, D], [n, A] -> float32[n, number of critics]."""
        net = self.networks
        inputs = torch.cat([net.norm(torch.as_tensor(observation)), torch.as_tensor(action)], dim=-1)
        return self._pairs(net.critics(inputs)).amin(0).T * net.scale.scale

    def seed(self, seed: int) -> None:
        self._sampling.manual_seed(seed)

    # ---- learning

    def remember(
        self,
        observation: np.ndarray,
        action: torch.Tensor | np.ndarray,
        reward_terms: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        next_observation: np.ndarray,
        final_observation: Any = None,
    ) -> None:
        """Keep one step of n slots, and take it into the running statistics; see `Replay.add`."""
        taken = (observation, action, reward_terms, terminated, truncated, next_observation, final_observation)
        steps = self.replay.add(*taken)
        done = torch.from_numpy(np.asarray(terminated, bool) | np.asarray(truncated, bool))
        self.networks.norm.update(steps.observations)
        self.networks.scale.observe(self._heads(steps.rewards)[None], done[None])
        self.steps += len(observation)

    def update(self, batch: Transitions | None = None) -> dict[str, float]:
        """Learn from one batch, without one from `batch_size` remembered transitions.

        Returns: actor_loss, temperature, entropy (nats, all components); and for every critic critic_loss/NAME
        (squared error in units of return_std, mean of the pair), q/NAME (of the policy's actions),
        advantage_std/NAME and return_std/NAME (reward units).

        Raises ValueError for an empty replay, or a batch that holds values that are not finite.
        """
        config, net = self.config, self.networks
        if batch is None:
            batch = self.replay.sample(config.batch_size, self._generator)
        elif not batch.finite():
            raise ValueError("The batch holds observations, actions or rewards that are not finite.")
        scale, size = net.scale.scale, len(batch.rewards)
        now, following = net.norm(torch.cat([batch.observations, batch.next_observations])).chunk(2)
        states = min(SPREAD_STATES, size)
        draws = torch.randn((2 * size + SPREAD_ACTIONS * states, self.action_size), generator=self._generator)
        weights = torch.tensor(config.weights) if config.critic == "multi" else torch.ones(1)
        alive = net.scale.discounts[:, None] * ~batch.terminated
        rewards = (self._heads(batch.rewards) / scale).T.contiguous()
        noise = (draws[:size], draws[size : 2 * size], draws[2 * size :])
        single, errors, values = self._learn(now, batch.actions.contiguous(), rewards, alive, following, weights, noise)
        metrics: dict[str, float] = dict(zip(("actor_loss", "temperature", "entropy"), single.tolist(), strict=True))
        per_critic = {
            "critic_loss": errors,
            "q": values * scale,
            "advantage_std": net.advantage.spread * scale,
            "return_std": scale,
        }
        for metric, column in per_critic.items():
            metrics |= {f"{metric}/{n}": v for n, v in zip(self.critic_names, column.tolist(), strict=True)}
        return metrics

    def _heads(self, rewards: torch.Tensor) -> torch.Tensor:
        """The rewards critics learn: [..., K], or their weighted sum [..., 1]."""
        return rewards if self.config.critic == "multi" else (rewards @ torch.tensor(self.config.weights))[..., None]

    def _pairs(self, output: torch.Tensor) -> torch.Tensor:
        """The ensemble's output [2K, b, 1] as float32[2, K, b]."""
        return output[..., 0].float().unflatten(0, (2, len(self.critic_names)))

    def _targets(self, rewards: torch.Tensor, alive: torch.Tensor, following: torch.Tensor, noise: torch.Tensor):
        """What critics should predict, float32[K, b], from scaled rewards [K, b] and discounts, 0 at an end [K, b]."""
        net = self.networks
        action, _ = squashed_sample(net.actor(following), noise)
        return rewards + alive * self._pairs(net.targets(torch.cat([following, action], dim=-1))).amin(0)

    def _step(
        self,
        now: torch.Tensor,
        action: torch.Tensor,
        rewards: torch.Tensor,
        alive: torch.Tensor,
        following: torch.Tensor,
        weights: torch.Tensor,
        noise: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The update as one graph; returns actor_loss, temperature, entropy [3], errors [K], Q [K]."""
        config, net = self.config, self.networks
        wanted = -config.entropy * self.action_size
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            with torch.no_grad():
                targets = self._targets(rewards, alive, following, noise[0])

            def critic_loss(critics: Network) -> tuple[torch.Tensor, torch.Tensor]:
                errors = (self._pairs(critics(torch.cat([now, action], dim=-1))) - targets).square().mean(-1)
                return errors.sum(), errors.detach().mean(0)

            errors = self._critic_adam.descend(critic_loss)

            with torch.no_grad():
                states = now[: len(noise[2]) // SPREAD_ACTIONS].repeat(SPREAD_ACTIONS, 1)
                tried, _ = squashed_sample(net.actor(states), noise[2])
                found = self._pairs(net.critics(torch.cat([states, tried], dim=-1))).amin(0)
                net.advantage.observe(found.unflatten(-1, (SPREAD_ACTIONS, -1)))
                factors = combining_factors(weights, net.advantage.spread, config.advantage_floor)

            def actor_loss(
                actor: Network, log_temperature: torch.Tensor
            ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
                chosen, log_prob = squashed_sample(actor(now), noise[1])
                values = self._pairs(net.critics(torch.cat([now, chosen], dim=-1))).amin(0)
                density = log_prob.mean()
                loss = log_temperature.detach().exp() * density - factors @ values.mean(-1)
                balance = -log_temperature * (density.detach() - wanted)
                return loss + balance, (loss.detach(), density.detach(), values.detach().mean(-1))

            loss, density, values = self._actor_adam.descend(actor_loss)
        with torch.no_grad():
            for target, learnt in self._followers:
                target.lerp_(learnt, config.target_rate)
            single = torch.stack([loss, net.log_temperature.exp(), -density])
        return single, errors, values

    # ---- saving

    def config_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(config_from_dict(MultiCriticSACConfig, config))

    def arrays(self) -> Arrays:
        return module_arrays(self.networks)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.networks, arrays)

    def training_arrays(self) -> Arrays:
        """Random streams, moments, counters, and all that is remembered."""
        returns, replay = self.networks.scale.returns, self.replay
        return {
            "generator": self._generator.get_state().numpy(),
            "sampling": self._sampling.get_state().numpy(),
            "returns": np.zeros((0, 0), np.float32) if returns is None else returns.numpy().copy(),
            "steps": np.array(self.steps),
            "replay": replay.table[: len(replay)].numpy().copy(),
            "replay_position": np.array(replay.position),
            **with_prefix("actor_adam", self._actor_adam.arrays()),
            **with_prefix("critic_adam", self._critic_adam.arrays()),
        }

    def load_training_arrays(self, arrays: Arrays) -> None:
        self._generator.set_state(torch.from_numpy(arrays["generator"]))
        self._sampling.set_state(torch.from_numpy(arrays["sampling"]))
        self.networks.scale.returns = torch.from_numpy(arrays["returns"]) if arrays["returns"].size else None
        self.steps = int(arrays["steps"])
        self.replay.size, self.replay.position = len(arrays["replay"]), int(arrays["replay_position"])
        self.replay.table[: len(self.replay)] = torch.from_numpy(arrays["replay"])
        self._actor_adam.load_arrays(without_prefix("actor_adam", arrays))
        self._critic_adam.load_arrays(without_prefix("critic_adam", arrays))
