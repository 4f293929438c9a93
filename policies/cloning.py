"""Behaviour cloning by squared error: where an actor begins when there is something to imitate."""

from __future__ import annotations

import torch
from torch import nn


def fit_mean(
    network: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> float:
    """Fit network(inputs [N, D]) to targets [N, A] in the mean square, all components alike.

    Adam with a rate that falls linearly to zero and gradients of norm at most 1, on shuffled minibatches of
    nearly equal size. Returns the last epoch's mean squared error.
    """
    samples = len(inputs)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, learning_rate, fused=True)
    pieces = max(1, round(samples / batch_size))
    total = 0.0
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(samples, generator=generator)
        for i, rows in enumerate(order.tensor_split(pieces)):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - (epoch + i / pieces) / epochs)
            loss = (network(inputs[rows]) - targets[rows]).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            total += loss.item() * len(rows)
    return total / samples
