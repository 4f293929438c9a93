"""Instructions as numbers: a sentence's words hashed to numbers, and a small network that reads them.

The embedded encoder knows nothing beforehand; it is trained with the policy. With e(w) and b(w, w') learnt vectors of a
word's and of two neighbours' buckets, and a learnt score a of each, a sentence becomes

    T = sum softmax(a . v) v    v = e(w_i) + b(w_i, w_i+1)

All vectors begin at zero, so a word that was never heard says nothing, rather than something at random. While learning,
each sentence's b are left out at times and its words too (`dropped`): what is said in new ways is understood by words.

Another encoder can stand in for it: anything with `TextEncoder`'s two attributes that gives float32[n, D] vectors, such
as a sentence transformer's, and the policy built with ``vector_size = D``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

__all__ = ["BUCKETS", "LONGEST", "HashedWords", "TextEncoder", "WordReader", "dropped"]

BUCKETS = 4096
LONGEST = 16  # words of a sentence that are read
DROPPED_WORDS, DROPPED_PAIRS = 0.15, 0.5
_WORD = re.compile(r"\w+")
_SILENT = frozenset({"the", "a", "an", "please"})


class TextEncoder(Protocol):
    """Sentences to arrays of ``size`` columns: int64 tokens (`HashedWords`) or float32 vectors (any other)."""

    size: int

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


class HashedWords:
    """Lower-case words without articles, each as a number of 1 ... 4095; 0 stands after the last."""

    size = LONGEST

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """int64[n, 16]; words beyond the sixteenth are dropped."""
        tokens = np.zeros((len(texts), LONGEST), np.int64)
        for row, text in zip(tokens, texts, strict=True):
            words = [word for word in _WORD.findall(text.lower()) if word not in _SILENT][:LONGEST]
            row[: len(words)] = [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words]
        return tokens


class WordReader(nn.Module):
    """Tokens int64[n, L] -> float32[n, size]; zeros for a sentence without words."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(BUCKETS, size, _weight=torch.zeros(BUCKETS, size))
        self.pairs = nn.Embedding(BUCKETS, size, _weight=torch.zeros(BUCKETS, size))
        self.score = nn.Parameter(torch.zeros(size))

    def forward(self, tokens: torch.Tensor, read: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """``read``: bool[n, L] which words, bool[n, 1] whether neighbours are taken in (None: all); see `dropped`."""
        there = tokens > 0
        following = torch.nn.functional.pad(tokens[:, 1:], (0, 1))
        pair = torch.where(following > 0, (tokens * 1_000_003 + following) % (BUCKETS - 1) + 1, 0)
        heard, together = (there, pair > 0) if read is None else (there & read[0], (pair > 0) & read[1])
        vectors = self.words(tokens) * heard.unsqueeze(-1) + self.pairs(pair) * together.unsqueeze(-1)
        score = (vectors @ self.score).float().masked_fill(~there, -1e9)
        weight = torch.softmax(score, dim=1) * there
        return (weight.unsqueeze(-1) * vectors).sum(1)


def dropped(tokens: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What a `WordReader` takes in while learning: each word with probability .85, a sentence's neighbours with .5."""
    words = torch.rand(tokens.shape, generator=generator) >= DROPPED_WORDS
    return words, torch.rand(len(tokens), 1, generator=generator) >= DROPPED_PAIRS
