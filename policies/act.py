"""Action chunking with a transformer (ACT): a variational autoencoder of chunks whose decoder is the policy.

With f the features of state and goal, y the representation of a chunk (`policies.chunks`) and z a style of doing it,

    L = mean w |ŷ(f, z) - y| + 10 KL(q(z | s, y) || N(0, I))        z ~ q;  w = .5 at the gripper

over those actions that are the episode's own. q is a transformer over the state and the chunk. ŷ is one over three
tokens (state, goal, style) which K learnt queries then read. Acting, z = 0, the mean of the prior: no chance is
involved. Either `execute` actions of a chunk are carried out before the next is predicted, or, with `ensemble`, a chunk
is predicted at every step and a step's action is the mean of all predictions for it, with weights exp(-0.01 i), i = 0
the oldest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from policies.base import State, as_batch
from policies.chunks import ChunkPolicy, SightConfig
from policies.distributions import gaussian_kl
from policies.encoders import PixelEncoder, make_encoder
from policies.networks import MLP
from policies.offline import Batch, expect
from policies.transformer import TransformerDecoder, TransformerEncoder, linear

__all__ = ["ACT", "ACTConfig", "Actor", "parameters"]


@dataclass(frozen=True)
class ACTConfig(SightConfig):
    """Everything that decides how the policy is built and learns.

    ``latent_size`` 0 leaves the autoencoder away: then a chunk is a function of the features in learning too.
    """

    learning_rate: float = 5e-4
    width: int = 128
    heads: int = 4
    feed_hidden: int = 256
    trunk_layers: int = 2
    decoder_layers: int = 2
    posterior_layers: int = 1
    latent_size: int = 32
    kl_weight: float = 10.0
    ensemble: bool = False
    ensemble_rate: float = 0.01
    encoder_hidden: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_size < 1:
            raise ValueError("state_size must be at least 1: the state and the goal are tokens of their own.")
        if min(self.trunk_layers, self.decoder_layers, self.posterior_layers) < 1 or self.latent_size < 0:
            raise ValueError("every number of layers must be at least 1, latent_size at least 0")


class Actor(nn.Module):
    """All that acts: features float32[b, F] and a style's token -> K hidden vectors, and from them the chunk."""

    def __init__(self, config: ACTConfig, generator: torch.Generator) -> None:
        super().__init__()
        width, size, goal_size = config.width, config.state_size, config.feature_size - config.state_size
        shape = config.image if config.encoder == "pixels" else (size,)
        self.state = make_encoder(config.encoder, shape, width, config.encoder_hidden, generator)
        seen = math.prod(self.state.shape)
        self.own = MLP((size - seen, width), "relu", 1.0, generator) if size > seen else None
        self.goal: nn.Module | None = None
        if config.encoder == "pixels" and goal_size == seen:  # a picture too
            goal = PixelEncoder((config.image[0], config.image[1]), width, generator=generator)
            self.goal = nn.Sequential(nn.Unflatten(-1, goal.shape), goal)
        elif goal_size:
            self.goal = MLP((goal_size, 2 * width, width), "relu", 1.0, generator)
        self.kinds = nn.Parameter(0.02 * torch.randn(3, width, generator=generator))
        block = (width, config.heads, config.feed_hidden)
        self.trunk = TransformerEncoder(*block, config.trunk_layers, generator)
        self.queries = nn.Parameter(torch.randn(config.chunk, width, generator=generator))
        self.decoder = TransformerDecoder(*block, config.decoder_layers, generator)
        self.head = linear(width, config.action_size, generator, 0.1)

    def embed(self, states: torch.Tensor) -> torch.Tensor:
        """The state encoder: float32[..., S] -> float32[..., D]."""
        if self.own is None:
            return self.state(states.unflatten(-1, self.state.shape))
        seen = math.prod(self.state.shape)
        token = self.state(states[..., :seen].unflatten(-1, self.state.shape)) + self.own(states[..., seen:])
        return nn.functional.layer_norm(token, token.shape[-1:])

    def forward(self, state: torch.Tensor, goal: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        """The state's token [b, D], the goal's features [b, F-S], and a style's token (None: z = 0) -> [b, K, D]."""
        blank = torch.zeros_like(state)
        goal_token = blank if self.goal is None else self.goal(goal)
        tokens = torch.stack([state, goal_token, blank if style is None else style], dim=1) + self.kinds
        return self.decoder(self.queries[None], self.trunk(tokens))


class _Posterior(nn.Module):
    """q(z | s, y), for learning alone: the state's token, the chunk [b, K, A] -> mean and log deviation [b, Z]."""

    def __init__(self, config: ACTConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.action = linear(config.action_size, width, generator)
        self.places = nn.Parameter(0.02 * torch.randn(config.chunk + 2, width, generator=generator))
        block = (width, config.heads, config.feed_hidden)
        self.body = TransformerEncoder(*block, config.posterior_layers, generator)
        self.head = linear(width, 2 * config.latent_size, generator, 0.1)
        # without a bias: z = 0 adds nothing, and all that acts is in the actor
        self.style = linear(config.latent_size, width, generator, bias=False)

    def forward(self, state: torch.Tensor, chunk: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        actions = self.action(chunk)
        tokens = torch.cat([torch.zeros_like(state)[:, None], state[:, None], actions], dim=1) + self.places
        mask = torch.cat([torch.ones_like(own[:, :2]), own], dim=1)
        mean, log_std = self.head(self.body(tokens, mask, rows=1)[:, 0]).chunk(2, dim=-1)
        return mean, log_std.clamp(-8.0, 4.0)


class _Network(nn.Module):
    def __init__(self, config: ACTConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.actor = Actor(config, generator)
        self.posterior = _Posterior(config, generator) if config.latent_size else None


class ACT(ChunkPolicy):
    """A chunk read from a transformer by K queries; see the module's docstring.

    State, one row a slot: `policies.chunks`'s, or with ``config.ensemble`` `sums` float32[n, K, A], the weighted sums
    of the predictions for this step and the K - 1 after it, `weights` float32[n, K] their weights' sums, and `age`
    int64[n], the number of predictions made.
    """

    registry_key = "act"
    config_class = ACTConfig
    config: ACTConfig
    network: _Network
    average: _Network

    def __init__(self, config: ACTConfig, network: type[_Network] = _Network) -> None:
        super().__init__(config, lambda generator: network(config, generator))

    @property
    def noise_size(self) -> int:
        return 0

    # ---- learning

    def _shapes(self) -> dict[str, tuple[int | str, ...]]:
        config = self.config
        return {
            "features": ("b", config.feature_size),
            "actions": ("b", config.chunk, config.action_size),
            "valid": ("b",),
        }

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F], actions [b, K, A] and valid [b].

        Returns: loss; motion_error and gripper_error (mean absolute, of the chunk's representation, unweighted); kl (in
        nats); learning_rate; gradient_norm. ValueError for arrays of other shapes.
        """
        loss, metrics, _, _ = self._imitation(expect(batch, self._shapes()))
        return self._descend(loss) | metrics

    def _imitation(
        self, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float], torch.Tensor, torch.Tensor]:
        """(loss, metrics, the states' tokens [b, D], the hidden vectors [b, K, D])."""
        config, actor, posterior = self.config, self.network.actor, self.network.posterior
        state, goal = batch["features"].split([config.state_size, config.feature_size - config.state_size], dim=-1)
        token, chunk, own = actor.embed(state), self.encode(batch["actions"]), self._own(batch["valid"])
        if posterior is None:
            style, kl = None, torch.zeros(())
        else:
            mean, log_std = posterior(token, chunk, own)
            z = mean + log_std.exp() * torch.randn(mean.shape, generator=self._generator)
            style, kl = posterior.style(z), gaussian_kl(mean, log_std, *torch.zeros(2)).mean()
        hidden = actor(token, goal, style)
        error = (actor.head(hidden) - chunk).abs()[own].mean(0)
        loss = (error * self._component_weight).mean() + config.kl_weight * kl
        errors = error.detach()
        metrics = {"motion_error": errors[:-1].mean().item(), "gripper_error": errors[-1].item(), "kl": kl.item()}
        return loss, metrics, token, hidden

    def _own(self, valid: torch.Tensor) -> torch.Tensor:
        """bool[b, K]: which actions of a chunk are the episode's own, not repetitions of its last."""
        return torch.arange(self.config.chunk) < valid[:, None]

    # ---- acting

    def due(self, state: State | None, slots: int) -> np.ndarray:
        return np.ones(slots, np.bool_) if self.config.ensemble else super().due(state, slots)

    @torch.no_grad()
    def embed(self, states: np.ndarray) -> np.ndarray:
        """The representation of states: float32[n, S] -> float32[n, D], by the averaged encoder that acts."""
        rows = torch.from_numpy(as_batch(states, self.config.state_size)).split(4096)
        return torch.cat([self.average.actor.embed(part) for part in rows]).numpy()

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        actor, size = self.average.actor, self.config.state_size
        inputs = torch.from_numpy(features)
        return self.decode(actor.head(actor(actor.embed(inputs[:, :size]), inputs[:, size:]))).numpy()

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        if not self.config.ensemble:
            return super().predict(observation, state, episode_start, deterministic)
        features = as_batch(observation, self.observation_size)
        slots, length = len(features), self.config.chunk
        if state is None:
            sums, weights = (
                np.zeros((slots, length, self.action_size), np.float32),
                np.zeros((slots, length), np.float32),
            )
            age = np.zeros(slots, np.int64)
        else:
            sums, weights, age = (state[name].copy() for name in ("sums", "weights", "age"))
        if len(age) != slots:
            raise ValueError(f"The state has {len(age)} slots, the observations {slots}.")
        if episode_start is not None:
            begun = np.asarray(episode_start, dtype=bool)
            sums[begun], weights[begun], age[begun] = 0.0, 0.0, 0
        # of the predictions for the step k ahead, how many were made before this one: of later steps, fewer reached
        earlier = np.minimum(age[:, None], length - 1 - np.arange(length))
        weight = np.exp(-self.config.ensemble_rate * earlier).astype(np.float32)
        sums += weight[..., None] * self.sample(features, np.zeros((slots, 0), np.float32))
        weights += weight
        action = sums[:, 0] / weights[:, :1]
        sums, weights = np.roll(sums, -1, axis=1), np.roll(weights, -1, axis=1)
        sums[:, -1], weights[:, -1] = 0.0, 0.0
        return action.clip(-1.0, 1.0), {"sums": sums, "weights": weights, "age": age + 1}


def parameters(policy: Any) -> int:
    """How many numbers decide the actions of a policy of this family; what only learning needs does not count."""
    return sum(weight.numel() for weight in policy.average.actor.parameters())
