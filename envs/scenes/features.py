"""What is seen of each thing from the tool, in numba: the parts of features that have nothing to do with a goal.

Each function writes numbers of about unit size from a row of facts x (`envs.scenes.facts`) to the beginning of o. ``p``
and ``at`` are the columns at which a block's, a slide's or a lamp's facts begin.
"""

from __future__ import annotations

import math

import numba as nb

from envs.scenes.facts import B_V, B_YAW, GRIP, LAG, TOOL, TOOL_V, WIDTH, YAW

__all__ = [
    "CENTRE", "LIMIT", "TOOL_FEATURES", "block_features", "clip", "heading", "lamp_features", "slide_features",
    "slide_offset", "tool_features",
]  # fmt: skip

LIMIT = 20.0  # features are clipped to ±LIMIT
CENTRE = (0.48, 0.03, 0.10)
TOOL_FEATURES = 14


@nb.njit(cache=True, nogil=True)
def clip(v, limit):
    return min(limit, max(-limit, v))


@nb.njit(cache=True, nogil=True)
def tool_features(x, o):
    """o[:14]: place, velocity and lag of the tool, its yaw and the lag of that, the fingers, the grip command."""
    for k in range(3):
        o[k] = (x[TOOL + k] - CENTRE[k]) * 8.0
        o[3 + k] = x[TOOL_V + k] * 2.5
        o[6 + k] = x[LAG + k] * 25.0
    o[9] = x[YAW] * 1.5
    o[10] = x[LAG + 3] * 5.0
    o[11] = x[WIDTH] * 25.0 - 1.0
    o[12] = x[WIDTH + 1] * 5.0
    o[13] = x[GRIP]


@nb.njit(cache=True, nogil=True)
def block_features(x, p, o):
    """o[:12]: a block as seen from the tool, far and near, its place and its velocity."""
    for k in range(3):
        relative = x[p + k] - x[TOOL + k]
        o[k] = relative * 8.0
        o[3 + k] = clip(relative * 40.0, 2.0)
        o[6 + k] = (x[p + k] - CENTRE[k]) * 8.0
        o[9 + k] = clip(x[p + B_V + k] * 4.0, 3.0)


@nb.njit(cache=True, nogil=True)
def heading(x, p, o):
    """o[:4]: how a block is turned against the fingers, the same after half a turn; and after a quarter."""
    angle = x[p + B_YAW] - x[YAW]
    o[0] = math.sin(2.0 * angle)
    o[1] = math.cos(2.0 * angle)
    o[2] = math.sin(4.0 * angle)
    o[3] = math.cos(4.0 * angle)


@nb.njit(cache=True, nogil=True)
def slide_features(x, at, o):
    """o[:2]: how far a slide is open, and its rate."""
    o[0] = x[at] * 12.0 - 1.0
    o[1] = clip(x[at + 1] * 5.0, 3.0)


@nb.njit(cache=True, nogil=True)
def slide_offset(x, at, axis, handle, o):
    """o[:4]: a slide's handle as seen from the tool, and how far along the slide's axis."""
    along = 0.0
    for k in range(3):
        away = handle[k] + axis[k] * x[at] - x[TOOL + k]
        o[k] = away * 10.0
        along += away * axis[k]
    o[3] = clip(along * 40.0, 2.0)


@nb.njit(cache=True, nogil=True)
def lamp_features(x, at, top, o):
    """o[:5]: a lamp's button as seen from the tool, how deep it is pressed, whether the lamp is lit."""
    for k in range(3):
        o[k] = (top[k] - x[TOOL + k]) * 10.0
    o[3] = x[at + 2] * 50.0
    o[4] = x[at] * 2.0 - 1.0
