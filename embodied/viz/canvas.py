"""Lines, dots and words as pixels, for pictures that are files of their own: smooth, dark, the same everywhere."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from embodied.viz.video import INK, PAPER

__all__ = ["ACCENT", "CARD", "FAINT", "LINE", "Canvas", "Colour", "hue_colour"]

Colour = tuple[int, int, int]
Point = tuple[float, float]
CARD, LINE, FAINT, ACCENT = (38, 42, 41), (62, 68, 66), (140, 147, 143), (82, 199, 187)
_FINE = 3  # times as large as it is shown is a picture drawn


def hue_colour(hue: float) -> Colour:
    """A colour of about the same brightness for any hue in 0 … 1, which goes round."""
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue % 1.0, 0.62, 0.78))  # type: ignore[return-value]


class Canvas:
    """A picture of ``width`` x ``height`` pixels; places are (right, down) from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point] | np.ndarray, colour: Colour, width: float = 1.2) -> None:
        scaled = [(x * _FINE, y * _FINE) for x, y in points]
        if len(scaled) > 1:
            self._draw.line(scaled, colour, max(1, round(width * _FINE)), "curve")

    def box(self, low: Point, high: Point, fill: Colour | None = None, outline: Colour | None = None) -> None:
        """A rectangle from one corner to the other, in any order."""
        (left, right), (top, bottom) = sorted((low[0], high[0])), sorted((low[1], high[1]))
        corners = [left * _FINE, top * _FINE, right * _FINE - 1, bottom * _FINE - 1]
        self._draw.rectangle(corners, fill, outline, _FINE)

    def dot(self, at: Point, radius: float, fill: Colour | None = None, outline: Colour | None = None) -> None:
        corners = [(place + sign * radius) * _FINE for sign in (-1, 1) for place in at]
        self._draw.ellipse(corners, fill, outline, _FINE)

    def text(self, at: Point, words: str, size: int = 12, colour: Colour = INK, anchor: str = "la") -> None:
        """``anchor``: Pillow's, as "la" (left, top), "ra" (right, top), "mm" (middle)."""
        font = ImageFont.load_default(size * _FINE)
        self._draw.text((at[0] * _FINE, at[1] * _FINE), words, colour, font, anchor)

    def image(self) -> NDArray[np.uint8]:
        """uint8[height, width, 3]."""
        return np.asarray(self._image.resize(self._size, Image.Resampling.LANCZOS))
