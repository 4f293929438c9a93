"""Sensor noise, in numba: normal draws that depend on (seed, slot, episode, step) alone."""

from __future__ import annotations

import numba as nb
import numpy as np

from envs.playroom.draws import normal, start_counter

__all__ = ["add_noise"]


@nb.njit(cache=True, nogil=True)
def add_noise(seed, episodes, elapsed, sigma, features):
    """Adds normal noise of standard deviation ``sigma`` float64[n] to features float32[n, F], in place."""
    counter = np.zeros(1, np.uint64)
    for i in range(features.shape[0]):
        if sigma[i] > 0.0:
            counter[0] = start_counter(seed + 7, i, episodes[i] * 100_003 + elapsed[i])
            for k in range(features.shape[1]):
                features[i, k] += sigma[i] * normal(counter)
