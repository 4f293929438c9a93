"""Gradients, and Adam, as plain functions, so that a whole update can be one compiled graph.

`backward()` and `torch.optim.Adam.step` break the graph. Eager updates use the same autograd and the same fused
kernel as they do; under `torch.compile` both are traced operation by operation and fused with what is around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad_and_value
from torch.optim.adam import adam

from policies.checkpoint import Arrays


def gradients(
    loss: Callable[..., tuple[torch.Tensor, Any]], module: nn.Module, *others: torch.Tensor
) -> tuple[list[torch.Tensor], Any]:
    """Gradients of a loss with respect to a module's parameters, in their order, and then to `others`.

    Args:
        loss: (the module as a function, *others) -> (scalar, anything detached to hand back beside the gradients).
    """
    named = dict(module.named_parameters())
    if not torch.compiler.is_compiling():
        value, beside = loss(module, *others)
        return list(torch.autograd.grad(value, [*named.values(), *others])), beside

    def traced(parameters: dict[str, Any], *free: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return loss(lambda *inputs: functional_call(module, parameters, inputs), *free)

    wanted = tuple(range(1 + len(others)))
    (found, *rest), (_, beside) = grad_and_value(traced, argnums=wanted, has_aux=True)(named, *others)
    return [*found.values(), *rest], beside


class Adam:
    """Moments of some parameters, and the step that uses them; betas (0.9, 0.999), epsilon 1e-8."""

    def __init__(self, parameters: Iterable[torch.Tensor], learning_rate: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros(()) for _ in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Iterable[torch.Tensor]) -> None:
        """Move the parameters, in place, down `gradients` given in their order."""
        traced = torch.compiler.is_compiling()
        adam(
            self.parameters,
            list(gradients),
            self.means,
            self.squares,
            [],
            self.steps,
            foreach=traced,
            capturable=traced,
            fused=not traced,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _state(self) -> dict[str, torch.Tensor]:
        kinds = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {f"{i}/{kind}": tensor for kind, tensors in kinds.items() for i, tensor in enumerate(tensors)}

    def arrays(self) -> Arrays:
        """Copies of moments and step counts as arrays named "parameter index/entry"."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self._state().items()}

    def load_arrays(self, arrays: Arrays) -> None:
        """Restore what `arrays` gave; learning continues bit for bit as if never interrupted."""
        for name, tensor in self._state().items():
            tensor.copy_(torch.from_numpy(arrays[name]))
