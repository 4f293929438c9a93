"""Parameter-space skills (PSEC, Liu et al. 2025): low-rank adapters on a frozen flow, composed by the situation.

With W0 a linear layer of the base, adapter i adds a product of rank r to it, and features s of state and goal weigh it:

    W = W0 + sum_i c_i(s) (alpha / r) B_i A_i        A_i [r, in] random, B_i [out, r] zero at first

so that an adapter begins as the base, exactly. A layer computes W0 x + (alpha / r) sum_i c_i B_i (A_i x): no row of a
batch has weights of its own. One adapter learns one skill with c = 1 and the base frozen. A *composition* of K learnt
adapters learns c(s) = start + MLP(s) alone; the MLP's last layer is zero at first, so that a composition starts at
the mean of its adapters (start = 1/K unless given). What is composed is one of MODES; with p_0 the base's and p_i
adapter i's own, all meet in "c = 0 is the base, one-hot c is adapter i":

    parameter  the weights of one network, as above
    score      the clean chunk predicted at every step of the flow: p_0 + sum_i c_i (p_i - p_0)
    action     the chunks of actions that each draws from the same noise: a_0 + sum_i c_i (a_i - a_0)

In the first two c learns from the flow's own loss, in the last from the squared error of the composed chunk.

An artifact holds adapters and c, and names its base by the hash of its content; it acts once it is given that base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from policies.base import Policy, State
from policies.checkpoint import Arrays, CheckpointError, hash_of, load_module, module_arrays
from policies.flow_bc import Flow, FlowBC, FlowBCConfig
from policies.networks import MLP
from policies.offline import Batch, expect

__all__ = ["MODES", "AdaptedFlow", "FlowAdapters", "FlowAdaptersConfig", "LowRank", "Mixture", "adapt", "policy_hash"]

MODES = ("parameter", "score", "action")


# ---- layers


class Mixture:
    """What all adapted layers of a network read: ``weights`` float32[b, K], how much of each adapter a row has."""

    weights: torch.Tensor


class LowRank(nn.Module):
    """A frozen linear layer with K adapters: [b, in] -> [b, out]."""

    def __init__(
        self, linear: nn.Linear, mixture: Mixture, count: int, rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.mixture, self.scale = mixture, alpha / rank
        down = torch.randn(count, rank, linear.in_features, generator=generator)
        self.down = nn.Parameter(down / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(count, linear.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = (x @ self.down.flatten(0, 1).T).unflatten(-1, self.down.shape[:2])
        inner = (inner * self.mixture.weights.unsqueeze(-1)).flatten(-2)
        return self.linear(x) + self.scale * (inner @ self.up.transpose(0, 1).flatten(1).T)


def adapt(module: nn.Module, count: int, rank: int, alpha: float, generator: torch.Generator) -> Mixture:
    """Puts K = ``count`` adapters on every linear layer inside a module, in place; all else in it is frozen.

    Its outputs stay what they were until an ``up`` is changed, whatever the weights. ValueError where it has no such
    layer, or rank or count are below 1.
    """
    found = [(name, layer) for name, layer in module.named_modules() if name and isinstance(layer, nn.Linear)]
    if not found or count < 1 or rank < 1:
        raise ValueError(
            f"count = {count} and rank = {rank} must be at least 1, and {type(module).__name__} hold a linear layer; "
            f"it holds {len(found)}."
        )
    module.requires_grad_(False)
    mixture = Mixture()
    for name, layer in found:
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, LowRank(layer, mixture, count, rank, alpha, generator))
    return mixture


# ---- the network


@dataclass(frozen=True)
class FlowAdaptersConfig(FlowBCConfig):
    """The base's configuration, but for how is learnt, and what is put on it.

    ``base`` is the base's hash and ``base_config`` its configuration. ``adapters`` are the hashes of what is composed;
    none where this is a single adapter, which learns. ``start`` is c before it has learnt, ``composer`` the hidden
    layers of its MLP.
    """

    base: str = ""
    base_config: Mapping[str, Any] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    rank: int = 8
    alpha: float = 16.0
    mode: str = "parameter"
    start: float = 1.0
    composer: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise ValueError(f"Unknown mode {self.mode!r}; valid: {', '.join(MODES)}.")
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank = {self.rank} must be at least 1 and alpha = {self.alpha} positive.")


class AdaptedFlow(Flow):
    """The base's flow with adapters, and the network of their weights where there is something to compose."""

    def __init__(self, config: FlowAdaptersConfig, generator: torch.Generator) -> None:
        size = config.chunk * config.action_size
        super().__init__(config.feature_size, size, config.hidden, config.frequencies, torch.Generator())
        self.mode, self.start, self.count = config.mode, config.start, max(1, len(config.adapters))
        self.mixture = adapt(self.body, self.count, config.rank, config.alpha, generator)
        self.composer = None
        if config.adapters:
            for parameter in self.body.parameters():
                parameter.requires_grad_(False)
            self.composer = MLP((config.feature_size, *config.composer, self.count), "silu", 0.0, generator)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """c(s) float32[b, K] of features [b, F]."""
        c = torch.full((len(features), self.count), self.start)
        return c if self.composer is None else c + self.composer(features).float()

    def forward(self, features: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        if self.mode == "score":
            return compose(self.each(features, noisy, time), self.weights(features))
        self.mixture.weights = self.weights(features)
        return super().forward(features, noisy, time)

    def each(self, features: torch.Tensor, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """The base's and each adapter's own prediction [1 + K, b, C], in one pass."""
        n, many = len(features), 1 + self.count
        rows = torch.cat([torch.zeros(1, self.count), torch.eye(self.count)])
        self.mixture.weights = rows.repeat_interleave(n, dim=0)
        repeated = (part.repeat(many, 1) for part in (features, noisy, time))
        return super().forward(*repeated).unflatten(0, (many, n))

    def draw_each(self, features: torch.Tensor, x: torch.Tensor, steps: int) -> torch.Tensor:
        """Chunks [1 + K, b, C] that the base and each adapter draw from the same noise x [b, C]."""
        n, many = len(features), 1 + self.count
        rows = torch.cat([torch.zeros(1, self.count), torch.eye(self.count)])
        features, x = features.repeat(many, 1), x.repeat(many, 1)
        for i in range(steps):
            self.mixture.weights = rows.repeat_interleave(n, dim=0)
            u = i / steps
            clean = super().forward(features, x, torch.full((len(x), 1), u)).float()
            x = x + (clean - x) / ((1 - u) * steps)
        return x.unflatten(0, (many, n))


def compose(each: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """p_0 + sum_i c_i (p_i - p_0) [b, ...] of each [1 + K, b, ...] and weights [b, K]."""
    base, own = each[0], each[1:]
    c = weights.T.reshape(weights.shape[1], weights.shape[0], *([1] * (each.ndim - 2)))
    return base + (c * (own - base)).sum(0)


# ---- the policy


class FlowAdapters(FlowBC):
    """Adapters on a frozen `FlowBC`, alone or composed; see the module's docstring.

    Made by `over` or `composition`, read by `load`. What `load_policy` reads has no base until `attach`.
    """

    registry_key = "flow-adapters"
    config_class = FlowAdaptersConfig
    config: FlowAdaptersConfig
    network: AdaptedFlow  # type: ignore[assignment]
    average: AdaptedFlow  # type: ignore[assignment]

    def __init__(self, config: FlowAdaptersConfig) -> None:
        self._attached = False
        super(FlowBC, self).__init__(config, lambda generator: AdaptedFlow(config, generator))

    @classmethod
    def over(cls, base: Policy, **config: Any) -> Self:
        """An untrained adapter on a base, which it does not change; it acts as the base does.

        ``config``: entries of `FlowAdaptersConfig`, such as rank, alpha, learning_rate, gradient_steps, seed.
        """
        if not isinstance(base, FlowBC) or isinstance(base, FlowAdapters):
            kind = getattr(base, "registry_key", type(base).__name__)
            raise ValueError(f"Adapters are put on a 'flow-bc' policy; found {kind!r}.")
        own = {f.name for f in dataclasses.fields(FlowAdaptersConfig)}
        if unknown := sorted(config.keys() - own):
            raise ValueError(f"Unknown entry {unknown[0]!r} for an adapter; valid entries: {', '.join(sorted(own))}.")
        about = {"base": policy_hash(base), "base_config": base.config_dict()}
        policy = cls(FlowAdaptersConfig(**(dataclasses.asdict(base.config) | config | about)))
        policy.attach(base)
        return policy

    @classmethod
    def composition(
        cls, base: Policy, adapters: Sequence[FlowAdapters], *, mode: str = "parameter", start: float | None = None,
        **config: Any,
    ) -> Self:  # fmt: skip
        """K single adapters of one base and one rank together; c(s) learns, nothing else. ``start``: 1/K where None."""
        if not adapters:
            raise ValueError("A composition needs at least one adapter.")
        first = adapters[0].config
        for k, adapter in enumerate(adapters):
            own = adapter.config
            if own.adapters:
                raise ValueError(f"Adapter {k} is itself a composition; name the adapters it is made of.")
            if (own.base, own.rank, own.alpha) != (first.base, first.rank, first.alpha):
                raise ValueError(
                    f"Adapter {k} has base {own.base[:12]}, rank {own.rank} and alpha {own.alpha}, the first "
                    f"{first.base[:12]}, {first.rank} and {first.alpha}: they cannot be composed."
                )
        given = {
            "rank": first.rank, "alpha": first.alpha, "mode": mode,
            "adapters": tuple(policy_hash(adapter) for adapter in adapters),
            "start": 1.0 / len(adapters) if start is None else start,
        }  # fmt: skip
        policy = cls.over(base, **(config | given))
        if policy.config.base != first.base:
            raise CheckpointError(f"The adapters were learnt on {first.base[:12]}, not on {policy.config.base[:12]}.")
        parts = [adapter.arrays() for adapter in adapters]
        stacked = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        policy.load_arrays(policy.arrays() | stacked)
        return policy

    @classmethod
    def load(cls, directory: str | Path, base: Policy) -> Self:
        """Adapters from a directory, on their base; CheckpointError, in one sentence, for another base."""
        policy = cls.from_pretrained(directory)
        policy.attach(base)
        return policy

    def attach(self, base: Policy) -> None:
        """Takes over the base's weights, as they are; CheckpointError for a base other than the one learnt on."""
        found = policy_hash(base)
        if found != self.config.base:
            raise CheckpointError(
                f"These adapters were learnt on the base {self.config.base[:12]}…, not on {found[:12]}…; give them "
                "their own base."
            )
        self._freeze(base.arrays())

    def _freeze(self, base: Arrays) -> None:
        for network in (self.network, self.average):
            load_module(network, module_arrays(network) | {_inside(name): array for name, array in base.items()})
        self._attached = True
        self.check_base()

    def check_base(self) -> None:
        """CheckpointError unless the frozen weights, of both networks, are still the base's, bit for bit."""
        if not self._attached:
            raise CheckpointError(
                f"These adapters have no base yet: give them the policy {self.config.base[:12]}… by attach()."
            )
        for network in (self.network, self.average):
            frozen = {_outside(name): a for name, a in module_arrays(network).items() if _is_base(name)}
            if hash_of(FlowBC.registry_key, self.config.base_config, frozen) != self.config.base:
                raise CheckpointError(f"The weights below these adapters are not the base's {self.config.base[:12]}….")

    # ---- learning and acting

    def start_training(self, gradient_steps: int) -> None:
        self.steps, self.gradient_steps = 0, gradient_steps
        learnt = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(learnt, self.config.learning_rate, fused=True)

    @torch.no_grad()
    def _follow(self, times: int) -> None:
        decay = min(self.config.ema_decay, times / (times + 9.0))
        for mean, weight in zip(self.average.parameters(), self.network.parameters(), strict=True):
            if weight.requires_grad:  # not even the sign of a frozen zero changes
                mean.lerp_(weight, 1.0 - decay)

    def update(self, batch: Batch) -> dict[str, float]:
        """As `FlowBC.update`; a composition of actions learns from the error of composed chunks."""
        self._need_base()
        config = self.config
        if config.mode != "action" or not config.adapters:
            return super().update(batch)
        shapes = {"features": ("b", config.feature_size), "actions": ("b", config.chunk, config.action_size)}
        features, actions = expect(batch, shapes).values()
        with self._autocast():
            noise = torch.randn(len(features), self.noise_size, generator=self._generator) * config.temperature
            with torch.no_grad():
                each = self.encode(self._chunks(self.network, features, noise))
            difference = compose(each, self.network.weights(features)) - self.encode(actions)
        error = difference.square().mean((0, 1))
        metrics = self._descend((error * self._component_weight).mean())
        errors = error.detach()
        return metrics | {"motion_error": errors[:-1].mean().item(), "gripper_error": errors[-1].item()}

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        self._need_base()
        return super().predict(observation, state, episode_start, deterministic)

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        if self.config.mode != "action" or not self.config.adapters:
            return super().sample(features, noise)
        seen = torch.from_numpy(features)
        each = self._chunks(self.average, seen, torch.from_numpy(noise))
        return compose(each, self.average.weights(seen)).clamp(-1.0, 1.0).numpy()

    def _chunks(self, network: AdaptedFlow, features: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Chunks of actions [1 + K, b, chunk, A] of the base and each adapter."""
        drawn = network.draw_each(features, noise, self.config.sampling_steps)
        return self.decode(drawn.unflatten(-1, (self.config.chunk, self.action_size)))

    @torch.no_grad()
    def weights(self, observation: np.ndarray) -> np.ndarray:
        """c(s) float32[n, K] of features float32[n, F]."""
        return self.average.weights(torch.from_numpy(np.ascontiguousarray(observation, np.float32))).numpy()

    def _need_base(self) -> None:
        if not self._attached:
            self.check_base()

    # ---- saving

    def arrays(self) -> Arrays:
        return {name: array for name, array in module_arrays(self.average).items() if not _is_base(name)}

    def load_arrays(self, arrays: Arrays) -> None:
        frozen = {name: array for name, array in module_arrays(self.average).items() if _is_base(name)}
        load_module(self.average, frozen | arrays)
        self.network.load_state_dict(self.average.state_dict())

    def save_pretrained(self, directory: str | Path) -> None:
        self.check_base()
        super().save_pretrained(directory)

    def save_training(self, directory: str | Path) -> None:
        self.check_base()
        super().save_training(directory)

    def load_training_arrays(self, arrays: Arrays) -> None:
        super().load_training_arrays(arrays)  # with the frozen weights: a training goes on without being given its base
        self._freeze({_outside(name): a for name, a in module_arrays(self.network).items() if _is_base(name)})


def policy_hash(policy: Policy) -> str:
    """The name a policy has once it is saved: `policies.checkpoint.content_hash`."""
    return hash_of(policy.registry_key, policy.config_dict(), policy.arrays())


def _is_base(name: str) -> bool:
    """Whether an array of an adapted network is the base's."""
    return ".linear." in name or name == "frequencies"


def _outside(name: str) -> str:
    """What the base calls it."""
    return name.replace(".linear.", ".")


def _inside(name: str) -> str:
    """What an adapted network calls the base's array ``name``."""
    return name if name == "frequencies" else ".linear.".join(name.rsplit(".", 1))
