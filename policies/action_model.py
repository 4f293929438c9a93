"""What is done next, whatever it is done for: a density of the next action given the state and the last few actions.

No goal is given, so what cannot be known is spread over a mixture of M Gaussians with diagonal spreads,

    p(a_t | h_t) = sum_i w_i(h_t) N(a_t; m_i(h_t), s_i(h_t)^2)     h_t = (s_t, a_{t-1} … a_{t-k})

and -ln p, in nats, says how surprising an action is. Within a behaviour the last actions tell which it is, and noise
that lasts is mostly known from them too; a choice of something else is a surprise. One Gaussian would not do: where a
few things are likely to come next, each of them would surprise it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from policies.distributions import gaussian_log_prob
from policies.networks import MLP
from policies.offline import cosine_rate

__all__ = ["ActionModel", "ActionModelConfig"]

LIMIT = 5.0  # standard deviations beyond which a state is clipped


@dataclass(frozen=True)
class ActionModelConfig:
    """Everything that decides how the density is built and learnt. Budgets count gradient steps."""

    state_size: int
    action_size: int
    memory: int = 6  # k, the last actions it is given
    components: int = 6  # M
    hidden: tuple[int, ...] = (256, 256)
    least_std: float = 0.05  # of a Gaussian: exact repetition is no more certain than this
    learning_rate: float = 2e-3
    gradient_steps: int = 3_000
    batch: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.state_size, self.action_size, self.components, self.gradient_steps, self.batch) < 1:
            raise ValueError(f"sizes, components, gradient_steps and batch must be at least 1: {self}")
        if self.memory < 0 or self.least_std <= 0:
            raise ValueError(f"memory must not be negative, least_std must be above 0: {self}")


class ActionModel(nn.Module):
    """The density; see the module's docstring. Flat episodes are as in the episode store: T+1 rows each, of which the
    last has no action of its own.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ActionModelConfig) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        inputs = config.state_size + config.memory * config.action_size
        outputs = config.components * (1 + 2 * config.action_size)
        layers: list[nn.Module] = []
        for a, b in pairwise((inputs, *config.hidden)):
            layers += [MLP((a, b), generator=generator), nn.SiLU(), nn.LayerNorm(b)]
        self.network = nn.Sequential(*layers, MLP((config.hidden[-1], outputs), "silu", 0.1, generator))
        self.register_buffer("mean", torch.zeros(config.state_size))
        self.register_buffer("std", torch.ones(config.state_size))

    def surprise(self, states: torch.Tensor, past: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """-ln p in nats, [b], of actions [b, A] in states [b, S] after ``past`` [b, k A], the latest action first."""
        config = self.config
        inputs = torch.cat([((states - self.mean) / self.std).clamp(-LIMIT, LIMIT), past], dim=-1)
        logits, rest = self.network(inputs).split([config.components, 2 * config.components * config.action_size], -1)
        means, spreads = rest.unflatten(-1, (2, config.components, config.action_size)).unbind(-3)
        low = math.log(config.least_std)
        log_std = low + functional.softplus(spreads - 0.5 - low)
        each = gaussian_log_prob(actions[..., None, :], means, log_std)
        return -torch.logsumexp(logits.log_softmax(-1) + each, dim=-1)

    def fit(
        self, states: np.ndarray, actions: np.ndarray, ends: np.ndarray, at: Callable[[int], None] = lambda step: None
    ) -> float:
        """Learns from flat episodes: states float32[rows, S], actions float32[rows, A], ends int64[episodes].

        Returns the last hundred steps' mean loss (nats). ValueError for rows of other widths, or without a step.
        """
        config = self.config
        if states.shape[1:] != (config.state_size,) or actions.shape[1:] != (config.action_size,):
            raise ValueError(
                f"states {states.shape} and actions {actions.shape} must be {config.state_size} and "
                f"{config.action_size} wide"
            )
        ages = _ages(ends)
        rows = np.delete(np.arange(len(states)), np.asarray(ends) - 1)
        if not len(rows):
            raise ValueError("there is not a single step to learn from")
        self.mean.copy_(torch.from_numpy(states.mean(0)))
        self.std.copy_(torch.from_numpy(states.std(0) + 1e-3))
        optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate, fused=True)
        rng, losses = np.random.default_rng(config.seed), []
        for step in range(config.gradient_steps):
            drawn = rows[rng.integers(len(rows), size=config.batch)]
            optimizer.param_groups[0]["lr"] = cosine_rate(config.learning_rate, step, config.gradient_steps, 50)
            loss = self.surprise(*self._inputs(states, actions, ages, drawn)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            at(step + 1)
        return float(np.mean(losses[-100:]))

    @torch.no_grad()
    def errors(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Surprise float64[T] (nats) at each action of an episode: states float32[T or T+1, S], actions [T, A]."""
        steps = np.arange(len(actions))
        return self.surprise(*self._inputs(states, actions, steps, steps)).double().numpy()

    def _inputs(
        self, states: np.ndarray, actions: np.ndarray, ages: np.ndarray, rows: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `surprise` takes, of ``rows``; zeros for actions before an episode began."""
        back = np.arange(1, self.config.memory + 1)
        there = ages[rows][:, None] >= back
        past = actions[np.where(there, rows[:, None] - back, 0)] * there[..., None]
        found = (states[rows], past.reshape(len(rows), -1), actions[rows])
        states_, past_, actions_ = (torch.from_numpy(np.asarray(x, np.float32)) for x in found)
        return states_, past_, actions_


def _ages(ends: np.ndarray) -> np.ndarray:
    """Steps since its episode's beginning of every row, int64[rows]."""
    ends = np.asarray(ends, np.int64)
    lengths = np.diff(ends, prepend=0)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
