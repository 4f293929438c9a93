"""Descending a loss by Adam as a plain function, so that a whole update can be one compiled graph.

`backward()` and `torch.optim.Adam.step` break the graph. Eager updates use the same autograd and the same fused
kernel as they do; under `torch.compile` both are traced operation by operation and fused with what is around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad_and_value
from torch.optim.adam import adam

from policies.checkpoint import Arrays


class Adam:
    """Moments of a module's parameters and of `others`, and the steps they take; betas (0.9, 0.999), epsilon 1e-8."""

    def __init__(self, module: nn.Module, learning_rate: float, *others: torch.Tensor) -> None:
        self.module, self.others, self.learning_rate = module, others, learning_rate
        self.parameters: list[torch.Tensor] = [*module.parameters(), *others]
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros(()) for _ in self.parameters]

    def descend(self, loss: Callable[..., tuple[torch.Tensor, Any]]) -> Any:
        """Move the parameters, in place, down a loss; no other tensor gets a gradient.

        Args:
            loss: (the module as a function, *others) -> (scalar, anything detached, which is returned).
        """
        if not torch.compiler.is_compiling():
            value, beside = loss(self.module, *self.others)
            self._step(list(torch.autograd.grad(value, self.parameters)), traced=False)
            return beside

        def functional(parameters: dict[str, Any], *free: torch.Tensor) -> tuple[torch.Tensor, Any]:
            return loss(lambda *inputs: functional_call(self.module, parameters, inputs), *free)

        wanted = tuple(range(1 + len(self.others)))
        gradient = grad_and_value(functional, argnums=wanted, has_aux=True)
        (found, *rest), (_, beside) = gradient(dict(self.module.named_parameters()), *self.others)
        self._step([*found.values(), *rest], traced=True)
        return beside

    @torch.no_grad()
    def _step(self, gradients: list[torch.Tensor], traced: bool) -> None:
        adam(
            self.parameters,
            gradients,
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
