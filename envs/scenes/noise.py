"""What domain randomisation draws, in numba, from (seed, slot, episode) alone; sensor noise from the step as well."""

from __future__ import annotations

import numba as nb
import numpy as np

from envs.playroom.draws import normal, start_counter, uniform

__all__ = ["add_noise", "draw_units"]


@nb.njit(cache=True, nogil=True)
def add_noise(seed, episodes, elapsed, sigma, limit, features):
    """Adds normal noise of deviation ``sigma`` float64[n] to features float32[n, F], in place, kept within ±limit."""
    counter = np.zeros(1, np.uint64)
    for i in range(features.shape[0]):
        if sigma[i] > 0.0:
            counter[0] = start_counter(seed + 7, i, episodes[i] * 100_003 + elapsed[i])
            for k in range(features.shape[1]):
                noisy = features[i, k] + sigma[i] * normal(counter)
                features[i, k] = min(limit, max(-limit, noisy))


@nb.njit(cache=True, nogil=True)
def draw_units(seed, quantity, slots, episodes, out):
    """Fills out float64[m, k] with draws in [0, 1) for ``slots`` and ``episodes`` int64[m], a stream a quantity."""
    counter = np.zeros(1, np.uint64)
    for row in range(slots.shape[0]):
        counter[0] = start_counter(seed + 1_000_003 * (quantity + 1), slots[row], episodes[row])
        for k in range(out.shape[1]):
            out[row, k] = uniform(counter, 0.0, 1.0)
