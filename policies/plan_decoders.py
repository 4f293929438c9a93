"""From a latent plan to actions: step by step with likelihoods, or a whole chunk by squared error.

A third way is `policies.flow_bc.Flow`, of which `Regression` has the methods.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from policies import logistic_mixture
from policies.networks import MLP

__all__ = ["LogisticDecoder", "Regression"]


class Regression(nn.Module):
    """The mean chunk: features [b, F] -> [b, C]; with the methods of a `Flow`, though no chance is involved."""

    def __init__(self, features: int, size: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.body = MLP((features, *hidden, size), "silu", 0.1, generator)

    def error(self, features: torch.Tensor, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.body(features).float() - clean

    def draw(self, features: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
        return self.body(features)


class LogisticDecoder(nn.Module):
    """A recurrent network over features and plan; for every action component a mixture of discretised logistics."""

    def __init__(
        self,
        sizes: tuple[int, int, int],
        recurrent: int,
        components: int,
        bins: int,
        min_log_scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.recurrent, self.components, self.bins, self.min_log_scale = recurrent, components, bins, min_log_scale
        features, plan, actions = sizes
        self.state = MLP((features, recurrent), generator=generator)
        self.plan = MLP((plan, recurrent), generator=generator)
        self.memory = nn.GRU(recurrent, recurrent, batch_first=True, device="meta").to_empty(device="cpu")
        for name, parameter in self.memory.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.detach().chunk(3):
                    nn.init.orthogonal_(gate, generator=generator)
        self.head = MLP((recurrent, 3 * components * actions), last_gain=0.1, generator=generator)

    def forward(
        self, window: torch.Tensor, plan: torch.Tensor, memory: torch.Tensor
    ) -> tuple[logistic_mixture.Mixture, torch.Tensor]:
        """Mixtures [b, W, A, M] and the memory [b, R] after the window [b, W, F], from the memory before it."""
        inputs = functional.silu(self.state(window) + self.plan(plan)[:, None]).float()
        outputs, last = self.memory(inputs, memory[None])
        return logistic_mixture.split(self.head(outputs).float(), self.components, self.min_log_scale), last[0].float()

    def error(self, window: torch.Tensor, plan: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """-ln P of actions [b, W, A] in nats a step, summed over components: [b]."""
        mixture, _ = self(window, plan, window.new_zeros(len(window), self.recurrent))
        return -logistic_mixture.log_prob(actions, mixture, self.bins).sum(-1).mean(-1)

    def step(
        self, features: torch.Tensor, plan: torch.Tensor, memory: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions [b, A] at features [b, F], and the memory after them; the noise is normal, [b, A, M + 1]."""
        mixture, memory = self(features[:, None], plan, memory)
        at_once = (mixture[0][:, 0], mixture[1][:, 0], mixture[2][:, 0])
        return logistic_mixture.sample(noise, at_once, self.bins), memory
