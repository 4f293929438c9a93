"""What learners of goals' values share: normalised networks, targets that follow, weighted regression, their training.

The value of a goal is minus the discounted number of steps to it: rewards are -1 until it is there, V(g, g) = 0 and
V = -(1 - γ^d) / (1 - γ) where d steps lead to it. All of these learners take the better of what was seen by an
asymmetric squared error (`expectile_loss`), and act by the mean of a Gaussian of unit deviation, so that the
negative log density of an action is half its squared distance to the mean and a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from policies.base import State, as_batch
from policies.checkpoint import Arrays, load_module, module_arrays, with_prefix, without_prefix
from policies.networks import EnsembleMLP
from policies.offline import BatchSpec, OfflinePolicy

__all__ = [
    "GoalValueConfig",
    "GoalValuePolicy",
    "NormalizedMLP",
    "advantage_weights",
    "expectile_loss",
    "regression_loss",
]

WEIGHT_LIMIT = 100.0
ACTOR_GAIN = 0.01


@dataclass(frozen=True)
class GoalValueConfig:
    """What every learner of goals' values has; OGBench's settings. Budgets count gradient steps.

    ``state_size`` is S, how many of the features say nothing of the goal (see `policies.offline`).
    """

    feature_size: int
    action_size: int
    state_size: int = 0
    hidden: tuple[int, ...] = (512, 512, 512)
    discount: float = 0.99
    expectile: float = 0.9
    target_rate: float = 0.005  # how far the target moves towards the weights each update
    learning_rate: float = 3e-4
    gradient_steps: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.feature_size < 1 or self.action_size < 1 or self.gradient_steps < 1 or not self.hidden:
            raise ValueError("feature_size, action_size and gradient_steps must be at least 1, hidden not empty.")
        if not 0 <= self.state_size <= self.feature_size:
            raise ValueError(f"state_size = {self.state_size} must lie in 0..{self.feature_size}, the feature_size.")
        for name, value in (("discount", self.discount), ("expectile", self.expectile)):
            if not 0 < value < 1:
                raise ValueError(f"{name} = {value} must lie in (0, 1).")
        if not 0 < self.target_rate <= 1:
            raise ValueError(f"target_rate = {self.target_rate} must lie in (0, 1].")


class NormalizedMLP(EnsembleMLP):
    """K perceptrons as one batched computation, each hidden layer a GELU and then normalised over its units.

    float32[b, sizes[0]] -> float32[K, b, sizes[-1]]. The normalisation has no weights of its own: the next layer's
    could undo them.
    """

    def __init__(
        self, members: int, sizes: tuple[int, ...], generator: torch.Generator, last_gain: float = 1.0
    ) -> None:
        super().__init__(members, sizes, "gelu", last_gain, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x.expand(self.members, *x.shape)
        last = len(self.weights) - 1
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if depth < last:
                hidden = F.layer_norm(self.activation(hidden), hidden.shape[-1:])
        return hidden


def expectile_loss(error: torch.Tensor, expectile: float, side: torch.Tensor | None = None) -> torch.Tensor:
    """|e - 1[side < 0]| error², elementwise; ``side`` is the error itself where it is not given."""
    below = (error if side is None else side) < 0
    return torch.where(below, 1 - expectile, expectile) * error.square()


def advantage_weights(advantage: torch.Tensor, temperature: float) -> torch.Tensor:
    """exp(temperature · advantage), at most 100; temperature 0 is plain cloning."""
    return (temperature * advantage).exp().clamp(max=WEIGHT_LIMIT)


def regression_loss(mean: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted negative log density of ``wanted`` [b, A] under N(mean, 1), less its constant: a number."""
    return (weights * 0.5 * (wanted - mean).square().sum(-1)).mean()


class GoalValuePolicy(OfflinePolicy):
    """Acts by one forward pass, without memory or chance; all that is learnt is saved, values included.

    A subclass sets `registry_key` and `config_class`, names in `followed` the parts of its network that have a target,
    and gives `update` (which ends with `_descend`) and `act`.
    """

    config_class: ClassVar[type[GoalValueConfig]] = GoalValueConfig
    followed: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any, network: Mapping[str, nn.Module]) -> None:
        self.config = config
        self.observation_size, self.action_size = config.feature_size, config.action_size
        self.network = nn.ModuleDict(network)
        self.start_training(config.gradient_steps)

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(values=True, discount=self.config.discount)

    # ---- learning

    def start_training(self, gradient_steps: int) -> None:
        """Begin a budget of updates from the present weights, with a fresh optimiser and a target equal to them."""
        self.steps, self.gradient_steps = 0, gradient_steps
        self._optimizer = torch.optim.Adam(self.network.parameters(), self.config.learning_rate, fused=True)
        self.target = nn.ModuleDict({name: _twin(self.network[name]) for name in self.followed})

    def _descend(self, loss: torch.Tensor) -> dict[str, float]:
        """One step of every part down its share of the loss, and the target's step after it; the loss as a metric."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        self.steps += 1
        with torch.no_grad():
            for name in self.followed:
                pairs = zip(self.target[name].parameters(), self.network[name].parameters(), strict=True)
                for target, weight in pairs:
                    target.lerp_(weight, self.config.target_rate)
        return {"loss": loss.item()}

    def _shapes(self, *features: str) -> dict[str, tuple[int | str, ...]]:
        """What `expect` checks: features under these names, actions, rewards and masks."""
        shapes: dict[str, tuple[int | str, ...]] = dict.fromkeys(features, ("b", self.config.feature_size))
        return shapes | {"actions": ("b", 1, self.config.action_size), "rewards": ("b",), "masks": ("b",)}

    # ---- acting

    def act(self, features: torch.Tensor) -> torch.Tensor:
        """Features [n, F] -> mean actions [n, A], not clipped."""
        return self.network["actor"](features)[0]

    @torch.no_grad()
    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, None]:
        """The mean action, whether ``deterministic`` or not: the deviation is there for learning alone."""
        features = torch.from_numpy(as_batch(observation, self.observation_size))
        return self.act(features).clamp(-1.0, 1.0).numpy(), None

    @torch.no_grad()
    def value(self, features: np.ndarray) -> np.ndarray:
        """V float32[n] of features float32[n, F]: about minus the discounted number of steps from state to goal."""
        return self._value(torch.from_numpy(as_batch(features, self.observation_size))).mean(0).numpy()

    def _value(self, features: torch.Tensor) -> torch.Tensor:
        """V [K, b] of features [b, F] by the K critics of states."""
        return self.network["value"](features)[..., 0]

    # ---- saving

    def arrays(self) -> Arrays:
        return module_arrays(self.network)

    def load_arrays(self, arrays: Arrays) -> None:
        load_module(self.network, arrays)
        self.start_training(self.gradient_steps)

    def training_arrays(self) -> Arrays:
        return with_prefix("target", module_arrays(self.target)) | super().training_arrays()

    def load_training_arrays(self, arrays: Arrays) -> None:
        load_module(self.target, without_prefix("target", arrays))
        super().load_training_arrays(arrays)


def _twin(module: nn.Module) -> nn.Module:
    """A copy that is not learnt."""
    return copy.deepcopy(module).requires_grad_(False)
