"""A counter-based random generator for numba loops: SplitMix64 on a slot's own ``uint64[1]`` counter.

What a slot draws depends on its own counter alone, never on how many draws its neighbours made.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

__all__ = ["mix", "normal", "start_counter", "uniform"]


@nb.njit(cache=True, nogil=True)
def mix(z):
    """SplitMix64's finaliser: a bijection of uint64 that scatters neighbouring values."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@nb.njit(cache=True, nogil=True)
def start_counter(seed, slot, episode):
    """The counter (uint64) from which (seed, slot, episode) draws."""
    z = mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(slot) + np.uint64(1))
    return mix(z + np.uint64(episode) * np.uint64(0xD1B54A32D192ED03))


@nb.njit(cache=True, nogil=True)
def uniform(counter, low, high):
    """The next draw in [low, high); ``counter`` uint64[1] moves on."""
    counter[0] += np.uint64(0x9E3779B97F4A7C15)
    return low + (high - low) * (np.float64(mix(counter[0]) >> np.uint64(11)) / 9007199254740992.0)


@nb.njit(cache=True, nogil=True)
def normal(counter):
    """The next standard normal draw (Box and Muller, cosine half); ``counter`` uint64[1] moves on."""
    u = 1.0 - uniform(counter, 0.0, 1.0)
    return math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * uniform(counter, 0.0, 1.0))
