"""Several critics, one a reward, and how their advantages become one.

Critic k predicts the discounted sum of reward k alone, with a discount g_k of its own. Generalised advantage
estimation gives A_k; each is normalised over the rollout before the weighted sum,

    A~_k = (A_k - mean A_k) / max(std A_k, floor)        A = sum_k w_k A~_k,  then centred, scaled to spread 1

so the weights, not the accidental magnitudes of the rewards, say what matters. The floor is in the units of
the reward: without one, the noise of a cost that is almost never incurred would be amplified to full size.

Other rules, to compare with (`RULES`): one critic of the weighted sum of the rewards; the same of rewards each
divided by the running spread of its returns; and for safety, critics each its own whose raw advantages are added,
those of costs weighted by multipliers that grow while a cost is above its limit (`Multipliers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from policies.networks import EnsembleMLP

RULES = ("multi", "sum", "normalized_sum", "lagrangian")
"""How K rewards become one advantage; all but multi and lagrangian have a single critic."""


class Critics(EnsembleMLP):
    """K value functions as one batched ensemble: float32[b, D] -> float32[b, K], each in its own unit."""

    def __init__(self, heads: int, inputs: int, hidden: Sequence[int], generator: torch.Generator | None = None):
        super().__init__(heads, (inputs, *hidden, 1), "elu", 1.0, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[..., 0].T


@torch.no_grad()
def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    done: torch.Tensor,
    discounts: torch.Tensor,
    gae_lambda: float,
) -> torch.Tensor:
    """Advantages of every critic, [T, n, K].

        d_t = r_t + g_k V(s'_t) (1 - terminated_t) - V(s_t)        A_t = d_t + g_k lambda (1 - done_t) A_{t+1}

    Args:
        rewards, values: [T, n, K], of the states acted in.
        next_values: [T, n, K], of the states that followed: at an episode's end its own last state, never
            the first of the next episode.
        terminated: bool[T, n], the task ended and nothing follows; a time limit is not a termination.
        done: bool[T, n], terminated or truncated.
        discounts: [K].
    """
    delta = rewards - values + discounts * next_values * (~terminated)[..., None]
    decay = discounts * gae_lambda * (~done)[..., None]
    advantages = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        following = torch.addcmul(delta[t], decay[t], following, out=advantages[t])
    return advantages


def combine_advantages(
    advantages: torch.Tensor, weights: torch.Tensor, floor: float | torch.Tensor = 1e-3
) -> tuple[torch.Tensor, torch.Tensor]:
    """One advantage from K: ([..., K], [K]) -> ([...] with mean 0 and spread 1, the K standard deviations).

    ``floor`` is one for all, or [K]. One that is a share of what the rewards' returns have spread over since the
    beginning (`policies.normalization.ReturnScale`) guards against noise as well, and knows no units.
    Where all advantages are equal, or all weights zero, the result is zero.
    """
    flat = advantages.reshape(-1, advantages.shape[-1])
    spread, mean = torch.std_mean(flat, dim=0, correction=0)
    combined = (flat - mean) / spread.clamp(min=floor) @ weights
    total, centre = torch.std_mean(combined, correction=0)
    return ((combined - centre) / total.clamp(min=1e-8)).reshape(advantages.shape[:-1]), spread


class Multipliers(torch.nn.Module):
    """Lagrange multipliers of costs (rewards that are <= 0), by dual ascent on their mean a step.

        l_c <- max(0, l_c + rate (mean cost_c - limit))        A = (sum_k w_k A_k + sum_c l_c A_c) / (1 + sum_c l_c)

    with k over the rewards that are no costs, then centred and scaled to spread 1 (Ray, Achiam and Amodei 2019).
    """

    value: torch.Tensor

    def __init__(self, costs: Sequence[bool], limit: float, rate: float) -> None:
        super().__init__()
        self.costs, self.limit, self.rate = torch.tensor(costs), limit, rate
        self.register_buffer("value", torch.where(self.costs, 1.0, 0.0))

    @torch.no_grad()
    def observe(self, rewards: torch.Tensor) -> None:
        """Take in a rollout's rewards [T, n, K]."""
        excess = -rewards.flatten(0, 1).mean(dim=0) - self.limit
        self.value.copy_(torch.where(self.costs, (self.value + self.rate * excess).clamp(min=0.0), 0.0))

    def combine(self, advantages: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """([..., K], [K]) -> [...] with mean 0 and spread 1."""
        raw = advantages @ torch.where(self.costs, self.value, weights) / (1.0 + self.value.sum())
        total, centre = torch.std_mean(raw, correction=0)
        return (raw - centre) / total.clamp(min=1e-8)


def clip_each_gradient(parameters: Iterable[torch.nn.Parameter], limit: float) -> None:
    """Clip the gradient norm of each ensemble member on its own; members lie along the first axis."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors[:, None, None])


def explained_variance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - var(target - predicted) / var(target) for each column of the last axis; 0 for constant targets."""
    error = (target - predicted).reshape(-1, target.shape[-1]).var(dim=0, correction=0)
    spread = target.reshape(-1, target.shape[-1]).var(dim=0, correction=0)
    return torch.where(spread > 0, 1 - error / spread.clamp(min=1e-12), torch.zeros_like(spread))
