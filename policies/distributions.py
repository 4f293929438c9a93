"""Diagonal Gaussians, and Gaussian noise that depends on a slot's own history alone."""

from __future__ import annotations

import math

import numpy as np
import torch

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def gaussian_log_prob(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log density of x [..., A] under independent Gaussians, summed over the last axis: [...]."""
    return (-0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - _LOG_SQRT_2PI).sum(-1)


def gaussian_kl(
    mean_p: torch.Tensor, log_std_p: torch.Tensor, mean_q: torch.Tensor, log_std_q: torch.Tensor
) -> torch.Tensor:
    """KL(p || q) of diagonal Gaussians in nats, summed over the last axis: [...]."""
    spread = torch.exp(2 * log_std_p) + (mean_p - mean_q).square()
    return (log_std_q - log_std_p + 0.5 * spread * torch.exp(-2 * log_std_q) - 0.5).sum(-1)


def squashed_sample(parameters: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(action in (-1, 1) [..., A], its log density [...]) by mean and log deviation [..., 2A] and noise."""
    mean, log_std = parameters.float().chunk(2, dim=-1)
    log_std = log_std.clamp(-5.0, 2.0)
    before = torch.addcmul(mean, log_std.exp(), noise)
    normal = -0.5 * noise.square() - log_std - _LOG_SQRT_2PI
    # log (1 - tanh^2 u), without the cancellation at large |u|
    slope = 2.0 * (math.log(2.0) - before - torch.nn.functional.softplus(-2.0 * before))
    return before.tanh(), (normal - slope).sum(-1)


def mix(bits: np.ndarray) -> np.ndarray:
    """Splitmix64's finaliser: uint64[...] -> uint64[...], every output bit depends on every input bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def slot_noise(keys: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """Standard normal float32[m, size], a pure function of each slot's key and its number of the draw.

    A shared random stream would make one slot's noise depend on how often the others drew. Here slot i's row
    is computed (splitmix64 as a counter-based generator, then Box-Muller) from `keys[i]` and `draws[i]`.

    Args:
        keys: uint64[m]. draws: int64[m], counted from 0.
    """
    seeds = mix(keys ^ mix((draws.astype(np.uint64) + np.uint64(1)) * _GOLDEN))
    half = (size + 1) // 2
    counters = np.arange(1, 2 * half + 1, dtype=np.uint64) * _GOLDEN
    uniform = ((mix(seeds[:, None] + counters) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:, :half])), 2.0 * np.pi * uniform[:, half:]
    noise = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return noise[:, :size].astype(np.float32)


def uniform_from_normal(noise: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers as uniform ones, strictly within (0, 1)."""
    return (0.5 * torch.erfc(noise * -math.sqrt(0.5))).clamp(1e-6, 1.0 - 1e-6)


def gumbel_from_normal(noise: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers as standard Gumbel ones: argmax(ln p + these) is a draw from p, of zeros its mode."""
    return -torch.log(-torch.log(uniform_from_normal(noise)))


def row_key(rows: np.ndarray) -> np.ndarray:
    """A key uint64[m] for each of float32[m, D]: the same for the same bits, and hardly ever for others."""
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32).astype(np.uint64)
    places = np.arange(1, bits.shape[1] + 1, dtype=np.uint64) * _GOLDEN
    return mix(bits + places).sum(axis=1, dtype=np.uint64)
