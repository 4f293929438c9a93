"""From one observation to one token: state vectors by a perceptron, pixels by a small convolutional network.

Both have the same interface, so a policy is written once: `Encoder.shape` is the shape of one observation, and the
module maps [..., *shape] to float32[..., width]. A policy that keeps its features flat unflattens them by `shape`:
pixels then come as H·W·3 numbers in 0..255 at the head of the features, before what describes the goal. `Sight` does
that for those that read features with a perceptron.

A token is normalised, to mean 0 and deviation 1 over its components: its scale neither carries anything nor is a way
for a representation to collapse unseen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from policies.networks import MLP
from policies.transformer import linear

__all__ = ["ENCODERS", "Encoder", "PixelEncoder", "Sight", "StateEncoder", "make_encoder"]

ENCODERS = ("state", "pixels")
TOKEN = 256  # numbers that a perceptron reads of pictures
CHANNELS = (16, 32, 64)


class Encoder(nn.Module, ABC):
    """Observations [..., *shape] -> normalised tokens float32[..., width]; subclasses give `tokens`, before that."""

    shape: tuple[int, ...]

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """ValueError for observations of another shape."""
        leading = observations.shape[: observations.ndim - len(self.shape)]
        if tuple(observations.shape[len(leading) :]) != self.shape:
            raise ValueError(f"observations have shape {tuple(observations.shape)}; expected (..., {self.shape})")
        tokens = self.tokens(observations.reshape(-1, *self.shape))
        return nn.functional.layer_norm(tokens, tokens.shape[-1:]).reshape(*leading, -1)

    @abstractmethod
    def tokens(self, observations: torch.Tensor) -> torch.Tensor:
        """[n, *shape] -> float32[n, width]."""


class StateEncoder(Encoder):
    """float32[..., size] -> float32[..., width] by a perceptron."""

    def __init__(self, size: int, width: int, hidden: Sequence[int], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = (size,)
        self.body = MLP((size, *hidden, width), "relu", 1.0, generator)

    def tokens(self, observations: torch.Tensor) -> torch.Tensor:
        return self.body(observations)


class PixelEncoder(Encoder):
    """Pixels 0..255, uint8 or float32 [..., H, W, 3] -> float32[..., width].

    3x3 convolutions of stride 2 halve the picture until its shorter side is at most 8; a linear layer reads the map.
    Several ``pictures`` are seen together: [..., H, W, 3 pictures].
    """

    def __init__(
        self,
        size: tuple[int, int],
        width: int,
        channels: Sequence[int] = (32, 64, 64),
        generator: torch.Generator | None = None,
        pictures: int = 1,
    ) -> None:
        super().__init__()
        self.shape = (*size, 3 * pictures)
        height, across = size
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((3 * pictures, *channels)):
            if min(height, across) <= 8:
                break
            layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, stride=2, padding=1)
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.orthogonal_(layer.weight, math.sqrt(2.0), generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
            height, across, depth = (height + 1) // 2, (across + 1) // 2, outputs
        if not layers:
            raise ValueError(f"pictures of {size} pixels are too small; both sides must exceed 8")
        self.body = nn.Sequential(*layers, nn.Flatten(), linear(depth * height * across, width, generator))

    def tokens(self, observations: torch.Tensor) -> torch.Tensor:
        return self.body((observations.float() / 127.5 - 1.0).permute(0, 3, 1, 2))


class Sight(nn.Module):
    """What a perceptron reads of features that begin with a picture: a token of what is seen, then the other numbers.

    Features float32[..., F]: the present's picture of ``image`` = (H, W), H·W·3 numbers in 0..255; the other numbers of
    the state's S; and the goal. A goal of H·W·3 numbers is a picture too: both are then seen together, so that it is
    plain where they differ. Result float32[..., width].
    """

    def __init__(
        self, image: Sequence[int], feature_size: int, state_size: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        height, across = image
        self.picture = 3 * height * across
        pictures = 1 + (feature_size - state_size == self.picture)
        self.encoder = PixelEncoder((height, across), TOKEN, CHANNELS, generator, pictures)
        self.seen = pictures * self.picture
        self.width = TOKEN + feature_size - self.seen

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shape = (*self.encoder.shape[:2], 3)
        others = features.shape[-1] - self.seen
        present, rest, goal = features.split([self.picture, others, self.seen - self.picture], dim=-1)
        parts = [part.unflatten(-1, shape) for part in (present, goal) if part.shape[-1]]
        return torch.cat([self.encoder(torch.cat(parts, dim=-1)), rest], dim=-1)


def make_encoder(
    kind: str,
    shape: Sequence[int],
    width: int,
    hidden: Sequence[int] = (256,),
    generator: torch.Generator | None = None,
) -> Encoder:
    """The encoder of a kind for observations of a shape: (S,) for "state", (H, W) for "pixels"; ValueError."""
    if kind == "state" and len(shape) == 1:
        return StateEncoder(shape[0], width, hidden, generator)
    if kind == "pixels" and len(shape) == 2:
        return PixelEncoder((shape[0], shape[1]), width, generator=generator)
    raise ValueError(
        f"no encoder {kind!r} for observations of shape {tuple(shape)}; valid: 'state' with (S,), 'pixels' with (H, W)"
    )
