"""Multi-layer perceptrons, initialised orthogonally from a generator of the caller's.

No network here draws from torch's global random stream, so building one changes nothing elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU, "silu": nn.SiLU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU,
}  # fmt: skip


class MLP(nn.Sequential):
    """float32[..., sizes[0]] -> float32[..., sizes[-1]], an activation after every layer but the last.

    Weights are orthogonal with gain sqrt(2), the last layer's with `last_gain`; biases are zero. A small last
    gain makes the output start close to zero whatever the input.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "elu",
        last_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"Unknown activation {activation!r}; valid: {', '.join(ACTIVATIONS)}.")
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(pairwise(sizes)):
            last = depth == len(sizes) - 2
            linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
            assert isinstance(linear, nn.Linear)
            nn.init.orthogonal_(linear.weight, last_gain if last else math.sqrt(2.0), generator=generator)
            nn.init.zeros_(linear.bias)
            layers.append(linear)
            if not last:
                layers.append(ACTIVATIONS[activation]())
        super().__init__(*layers)


class GripperMLP(MLP):
    """An action's mean whose last component, the gripper's, is kept within ±``limit`` (0: free).

    A gripper whose mean sits far beyond its range is never seen to let go: noise of any sensible size cannot change its
    sign. Squashed below the range, holding stays firm and letting go stays within what is tried.
    """

    limit = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = super().forward(x)
        if self.limit <= 0.0:
            return mean
        return torch.cat([mean[..., :-1], self.limit * torch.tanh(mean[..., -1:] / self.limit)], dim=-1)


class EnsembleMLP(nn.Module):
    """K separate perceptrons of equal shape on the same input, as one batched computation.

    float32[b, sizes[0]] -> float32[K, b, sizes[-1]]. Member k equals an `MLP` with weights `weights[l][k].T`
    and biases `biases[l][k, 0]`; members share nothing, and each starts from its own random weights.
    """

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        activation: str = "elu",
        last_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"Unknown activation {activation!r}; valid: {', '.join(ACTIVATIONS)}.")
        self.activation = ACTIVATIONS[activation]()
        self.members = members
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for depth, (inputs, outputs) in enumerate(pairwise(sizes)):
            gain = last_gain if depth == len(sizes) - 2 else math.sqrt(2.0)
            weight = torch.empty(members, inputs, outputs)
            for member in weight:
                # drawn as (outputs, inputs), the shape of a linear layer, then transposed
                member.copy_(nn.init.orthogonal_(torch.empty(outputs, inputs), gain, generator=generator).T)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, outputs)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.expand(self.members, *x.shape)
        last = len(self.weights) - 1
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if depth < last:
                hidden = self.activation(hidden)
        return hidden
