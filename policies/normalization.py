"""Running statistics, kept as module buffers so that they are saved with the weights that depend on them.

Batches are merged by the parallel update of mean and variance (Chan et al.): with n_a, m_a, v_a so far and
n_b, m_b, v_b of the batch, n = n_a + n_b, d = m_b - m_a,

    m = m_a + d n_b / n        v = (n_a v_a + n_b v_b + d^2 n_a n_b / n) / n
"""

from __future__ import annotations

import torch
from torch import nn


class RunningMoments(nn.Module):
    """Mean and (population) variance of each of `size` columns; mean 0 and variance 1 before any data."""

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, batch: torch.Tensor) -> None:
        """Merge the rows of `batch`, [..., size]."""
        rows = batch.reshape(-1, self.mean.shape[0]).double()
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        total = self.count + len(rows)
        difference = mean - self.mean
        spread = self.count * self.variance + len(rows) * variance
        self.variance.copy_((spread + difference.square() * (self.count * len(rows) / total)) / total)
        self.mean.add_(difference * (len(rows) / total))
        self.count.copy_(total)

    def reset(self) -> None:
        """Forget all data."""
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.count.zero_()


class ObservationNorm(RunningMoments):
    """(x - mean) / sqrt(variance + 0.05), clipped to +-`limit`; the identity (clipped) before any data.

    Features come at order one; the constant keeps columns that hardly vary in one task from filling the clipped range,
    so that weights learnt there still mean something in the next.
    """

    def __init__(self, size: int, limit: float = 6.0) -> None:
        super().__init__(size)
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.count == 0:
            return x.clamp(-self.limit, self.limit)
        scale = (self.variance + 0.05).rsqrt().float()
        return ((x - self.mean.float()) * scale).clamp(-self.limit, self.limit)


class ReturnScale(RunningMoments):
    """Per reward head, the standard deviation of discounted returns: the unit its critic predicts in.

    For every slot R <- g R + r after each step, beginning again at zero after an episode; the statistics run
    over all R seen. With targets divided by `scale`, multiplying a reward by a constant changes neither the
    critic's learning nor, since advantages are normalised, the policy's.
    """

    def __init__(self, discounts: tuple[float, ...]) -> None:
        super().__init__(len(discounts))
        self.discounts = torch.tensor(discounts)
        self.returns: torch.Tensor | None = None  # float32[n, K]: training state, not part of the policy

    @torch.no_grad()
    def observe(self, rewards: torch.Tensor, done: torch.Tensor) -> None:
        """Continue the running returns over rewards [T, n, K], done bool[T, n], and take in their spread."""
        if self.returns is None or self.returns.shape != rewards.shape[1:]:
            self.returns = torch.zeros(rewards.shape[1:])
        seen = torch.empty_like(rewards)
        alive = (~done)[..., None].float()
        running = self.returns
        for t in range(len(rewards)):
            running = torch.addcmul(rewards[t], running, self.discounts, out=seen[t])
            running = running * alive[t]
        self.returns = running.clone()
        self.update(seen)

    @property
    def scale(self) -> torch.Tensor:
        """float32[K], at least 1e-6; ones before any data."""
        return self.variance.sqrt().clamp(min=1e-6).float()
