"""A small pre-norm transformer: blocks that read themselves, and blocks that also read a memory.

    attention(x, m) = concat over heads of softmax(q kᵀ / sqrt(d/h)) v, projected;   q from x, k and v from m
    encoder block    x += attention(n(x), n(x));                      x += W2 relu(W1 n(x))
    decoder block    x += attention(n(x), n(x));  x += attention(n(x), m);  x += W2 relu(W1 n(x))

with n layer normalisation. Weights are orthogonal and drawn from a generator of the caller's, biases zero; there is no
dropout. Attention is written out: for so few tokens that is faster on a CPU than a fused kernel.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["Attention", "DecoderBlock", "EncoderBlock", "TransformerDecoder", "TransformerEncoder", "linear"]


def linear(
    inputs: int, outputs: int, generator: torch.Generator | None = None, gain: float = 1.0, bias: bool = True
) -> nn.Linear:
    """A linear layer with orthogonal weights and zero biases."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    assert isinstance(layer, nn.Linear)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Queries from x float32[b, n, d], keys and values from memory float32[b, m, d] -> float32[b, n, d].

    A first axis of 1 stands for all b. ``mask`` bool[b, m] is True where the memory may be read; at least one place in
    every row. ValueError where ``width`` is not a multiple of ``heads``.
    """

    def __init__(self, width: int, heads: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width = {width} must be a multiple of heads = {heads}")
        self.heads, self.scale = heads, math.sqrt(heads / width)
        self.query, self.key, self.value, self.out = (linear(width, width, generator) for _ in range(4))

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        query, key, value = self._split(self.query(x)), self._split(self.key(memory)), self._split(self.value(memory))
        scores = (query * self.scale) @ key.mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _FeedForward(nn.Sequential):
    def __init__(self, width: int, hidden: int, generator: torch.Generator | None) -> None:
        inner = linear(width, hidden, generator, math.sqrt(2.0))
        super().__init__(nn.LayerNorm(width), inner, nn.ReLU(), linear(hidden, width, generator))


class EncoderBlock(nn.Module):
    """float32[b, n, d] -> float32[b, n, d]; with ``rows``, only the first so many tokens' results."""

    def __init__(self, width: int, heads: int, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, generator)
        self.feed = _FeedForward(width, hidden, generator)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, rows: int | None = None) -> torch.Tensor:
        normed = self.norm(x)
        x = x[:, :rows] + self.attention(normed[:, :rows], normed, mask)
        return x + self.feed(x)


class DecoderBlock(nn.Module):
    """x float32[b, n, d] and memory float32[b, m, d], which is normalised already -> float32[b, n, d]."""

    def __init__(self, width: int, heads: int, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.cross = Attention(width, heads, generator), Attention(width, heads, generator)
        self.feed = _FeedForward(width, hidden, generator)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed)
        x = x + self.cross(self.cross_norm(x), memory)
        return x + self.feed(x)


class TransformerEncoder(nn.Module):
    """``layers`` encoder blocks and a normalisation: float32[b, n, d] -> float32[b, n, d].

    ``rows`` asks for the first so many tokens' results alone: the last block then computes no others.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, layers: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, hidden, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, rows: int | None = None) -> torch.Tensor:
        for depth, block in enumerate(self.blocks):
            x = block(x, mask, rows if depth == len(self.blocks) - 1 else None)
        return self.norm(x[:, :rows])


class TransformerDecoder(nn.Module):
    """``layers`` decoder blocks, one after another, and a normalisation.

    Queries float32[b, n, d] (or [1, n, d]: the same for all, and then what does not depend on the memory yet is
    computed once) and memory float32[b, m, d] -> float32[b, n, d].
    """

    def __init__(
        self, width: int, heads: int, hidden: int, layers: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, hidden, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        x = queries
        for block in self.blocks:
            x = block(x, memory)
        return self.norm(x)
