"""What a latent plan is: a Gaussian vector, or several categorical variables, with what learning asks of either.

A network's outputs [b, ``parameters``] stand for a distribution over plans [b, ``size``].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch.nn import functional

from policies.distributions import gumbel_from_normal

__all__ = ["PLAN_SPACES", "CategoricalPlans", "GaussianPlans", "PlanSpace"]

MIN_STD = 0.01
ACTIVE = 0.01


class PlanSpace(ABC):
    """A family of distributions over plans; the size of a plan, of its parameters, and of the noise a draw takes."""

    size: int
    parameters: int
    noise_size: int

    @abstractmethod
    def sample(self, outputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A plan [b, size] from standard normal noise [b, noise_size], of zeros the mode; gradients reach outputs."""

    @abstractmethod
    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        """The likeliest plan [b, size]."""

    @abstractmethod
    def kl(self, outputs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """KL(outputs || reference) in nats for each variable: [b, variables]."""

    @abstractmethod
    def use(self, outputs: torch.Tensor, kl: torch.Tensor) -> dict[str, float]:
        """How much of the space recognition uses, from its outputs and their `kl` to the proposal's."""


class GaussianPlans(PlanSpace):
    """A diagonal Gaussian in ``variables`` dimensions. `use`: active_units, whose mean KL exceeds .01 nats."""

    def __init__(self, variables: int, classes: int) -> None:
        self.size, self.parameters, self.noise_size = variables, 2 * variables, variables

    @staticmethod
    def _split(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, raw = outputs.chunk(2, dim=-1)
        return mean, functional.softplus(raw + math.log(math.e - 1.0)) + MIN_STD

    def sample(self, outputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        mean, std = self._split(outputs)
        return mean + std * noise

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.chunk(2, dim=-1)[0]

    def kl(self, outputs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        (mean, std), (other, spread) = self._split(outputs), self._split(reference)
        return (spread / std).log() + 0.5 * ((std.square() + (mean - other).square()) / spread.square() - 1.0)

    def use(self, outputs: torch.Tensor, kl: torch.Tensor) -> dict[str, float]:
        return {"active_units": float((kl.mean(0) > ACTIVE).sum())}


class CategoricalPlans(PlanSpace):
    """One-hot vectors of ``classes`` entries, ``variables`` of them; gradients go straight through to probabilities.

    `use`: perplexity, exp(entropy) of the classes over the batch, the variables' mean: from 1 (collapsed) to classes.
    """

    def __init__(self, variables: int, classes: int) -> None:
        self.classes = classes
        self.size = self.parameters = self.noise_size = variables * classes

    def _logarithms(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.unflatten(-1, (-1, self.classes)).log_softmax(-1)

    def sample(self, outputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        logarithms = self._logarithms(outputs)
        drawn = (logarithms.detach() + gumbel_from_normal(noise).view_as(logarithms)).argmax(-1)
        chosen, probabilities = functional.one_hot(drawn, self.classes), logarithms.exp()
        return (chosen + (probabilities - probabilities.detach())).flatten(-2)

    def mode(self, outputs: torch.Tensor) -> torch.Tensor:
        chosen = outputs.unflatten(-1, (-1, self.classes)).argmax(-1)
        return functional.one_hot(chosen, self.classes).flatten(-2).to(outputs.dtype)

    def kl(self, outputs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        own, other = self._logarithms(outputs), self._logarithms(reference)
        return (own.exp() * (own - other)).sum(-1)

    def use(self, outputs: torch.Tensor, kl: torch.Tensor) -> dict[str, float]:
        mean = self._logarithms(outputs).exp().mean(0)
        return {"perplexity": float(torch.special.entr(mean).sum(-1).exp().mean())}


PLAN_SPACES: dict[str, type[GaussianPlans] | type[CategoricalPlans]] = {
    "gaussian": GaussianPlans,
    "categorical": CategoricalPlans,
}
