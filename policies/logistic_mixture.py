"""Mixtures of discretised logistics: a distribution over ``bins`` evenly spaced values in [-1, 1], for every component.

With bin centres -1, -1 + D, ..., 1, weights w_i, means m_i and scales s_i,

    P(a) = sum_i w_i [ S((a + D/2 - m_i) / s_i) - S((a - D/2 - m_i) / s_i) ]     S the logistic function

where the first bin reaches down to minus infinity and the last up to infinity. Differences are taken as logarithms,
ln(S(u) - S(v)) = ln S(u) + ln S(-v) + ln(1 - exp(v - u)), which keeps its precision however far a bin lies in the tail.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from policies.distributions import gumbel_from_normal, uniform_from_normal

__all__ = ["Mixture", "log_prob", "nearest_bin", "sample", "split"]

Mixture = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Log weights (normalised), means and log scales, each [..., A, M]."""


def split(outputs: torch.Tensor, components: int, min_log_scale: float) -> Mixture:
    """A network's outputs [..., A * 3 M] as mixtures of M = ``components``; means start spread over (-1, 1)."""
    logits, means, log_scales = outputs.unflatten(-1, (-1, 3, components)).unbind(-2)
    offsets = (torch.arange(components, dtype=outputs.dtype) + 0.5) * (2.0 / components) - 1.0
    log_scales = min_log_scale + functional.softplus(log_scales - 2.0 - min_log_scale)
    return logits.log_softmax(-1), means + offsets, log_scales


def nearest_bin(x: torch.Tensor, bins: int) -> torch.Tensor:
    """The centres nearest to ``x``, which is clipped to [-1, 1]."""
    return ((x.clamp(-1.0, 1.0) + 1.0) * ((bins - 1) / 2)).round() * (2 / (bins - 1)) - 1.0


def log_prob(x: torch.Tensor, mixture: Mixture, bins: int) -> torch.Tensor:
    """ln P of the bins nearest to x [..., A], in nats, not summed: [..., A]."""
    log_weights, means, log_scales = mixture
    half = 1.0 / (bins - 1)
    value = nearest_bin(x, bins)[..., None]
    inverse = torch.exp(-log_scales)
    upper, lower = (value + half - means) * inverse, (value - half - means) * inverse
    below, above = functional.logsigmoid(upper), functional.logsigmoid(-lower)
    inside = below + above + torch.log(-torch.expm1(-2 * half * inverse))
    component = torch.where(value > 1 - half, above, torch.where(value < half - 1, below, inside))
    return torch.logsumexp(log_weights + component, dim=-1)


def sample(noise: torch.Tensor, mixture: Mixture, bins: int) -> torch.Tensor:
    """Bin centres [..., A] from standard normal numbers [..., A, M + 1]: which logistic, and where in it.

    For zeros it is the centre of the likeliest logistic.
    """
    log_weights, means, log_scales = mixture
    chosen = (log_weights + gumbel_from_normal(noise[..., :-1])).argmax(-1, keepdim=True)
    mean, log_scale = (t.gather(-1, chosen)[..., 0] for t in (means, log_scales))
    return nearest_bin(mean + log_scale.exp() * torch.logit(uniform_from_normal(noise[..., -1])), bins)
