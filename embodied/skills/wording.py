"""Text as it is searched: words, and a small embedding of them that needs no model.

The embedding is hashed character n-grams: every word, and every three letters of it between its bounds, adds ±1 to one
of `SIZE` numbers, both chosen by a hash; the sum is scaled to length 1. Texts that share words or stems have a large
cosine ("opens the drawers", "open(drawer)"); that they mean the same in other words it cannot know. Another encoder may
take its place: any function from texts to float32[n, D].
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

SIZE = 64
LONGEST = 4000  # characters of a text that are read

Encoder = Callable[[Sequence[str]], np.ndarray]
"""(n texts) -> float32[n, D], rows of length 1 (or 0 for a text that says nothing)."""

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; ``_`` parts them, so that ``moved_left(?a:block)`` is five."""
    return _WORD.findall(text[:LONGEST].lower())


@lru_cache(maxsize=1 << 15)
def _word_vector(word: str) -> np.ndarray:
    bounded = f"<{word}>"
    grams = {bounded, *(bounded[i : i + 3] for i in range(len(bounded) - 2))}
    vector = np.zeros(SIZE, np.float32)
    for gram in grams:
        code = zlib.crc32(gram.encode())
        vector[code % SIZE] += 1.0 if code & 1 << 20 else -1.0
    return vector


def embed(texts: Sequence[str]) -> np.ndarray:
    """The embedded `Encoder`: float32[n, SIZE]."""
    out = np.zeros((len(texts), SIZE), np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in words(text):
            row += _word_vector(word)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return np.divide(out, norms, out=out, where=norms > 0)
