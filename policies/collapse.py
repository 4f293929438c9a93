"""Whether representations have collapsed, and two ways to keep them from it. All take Z float32[n, D], a batch.

SIGReg holds Z to a standard normal: by Cramér and Wold that is so where every projection y = Z u is one, and a
projection is compared by its characteristic function (Epps and Pulley),

    T = mean over u of n Σ_t w_t [(mean cos ty - e^{-t²/2})² + (mean sin ty)²]    17 knots t on [0, 3]

with w_t the trapezoid's weights times e^{-t²/2}. VICReg wants every column to deviate by 1, and columns uncorrelated:

    variance = mean_j max(0, 1 - sqrt(Var z_j + 1e-4))      covariance = Σ_{i≠j} Cov(z_i, z_j)² / D
"""

from __future__ import annotations

import torch

__all__ = ["effective_rank", "random_directions", "sigreg", "vicreg"]

KNOTS, LAST_KNOT = 17, 3.0


def random_directions(size: int, number: int, generator: torch.Generator) -> torch.Tensor:
    """Unit vectors drawn uniformly from the sphere, float32[size, number], one a column."""
    directions = torch.randn(size, number, generator=generator)
    return directions / directions.norm(dim=0)


def sigreg(z: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The statistic T along directions [D, M], a scalar; about 0.53 in expectation for standard normal rows."""
    t, weight = _knots()
    y = (z @ directions).unsqueeze(-1) * t
    wanted = torch.exp(-0.5 * t.square())
    distance = (y.cos().mean(0) - wanted).square() + y.sin().mean(0).square()
    return len(z) * (distance @ weight).mean()


def _knots() -> tuple[torch.Tensor, torch.Tensor]:
    """Knots t float32[17], and the weight of each."""
    t = torch.linspace(0.0, LAST_KNOT, KNOTS)
    weight = torch.full((KNOTS,), LAST_KNOT / (KNOTS - 1))
    weight[0] = weight[-1] = weight[0] / 2
    return t, weight * torch.exp(-0.5 * t.square())


def vicreg(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(variance, covariance) of at least two rows, scalars: 0 where columns are uncorrelated and deviate by 1."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    deviation = (covariance.diagonal() + 1e-4).sqrt()
    off = covariance.square().sum() - covariance.diagonal().square().sum()
    return torch.relu(1.0 - deviation).mean(), off / z.shape[1]


@torch.no_grad()
def effective_rank(z: torch.Tensor) -> float:
    """exp of the entropy of the normalised singular values: r for isotropic data of rank r, at most min(n, D).

    Rows are not centred, so that one constant and little besides has a rank near 1. Only zeros have rank 0. It does not
    see scale: read it beside the spread where the encoder does not normalise its output.
    """
    values = torch.linalg.svdvals(z).double()
    share = values[values > 0] / values.sum()
    return float(torch.exp(-(share * share.log()).sum())) if len(share) else 0.0
