"""ACT-JEPA: one trunk predicts the chunk of actions and, in a learnt space, the states they lead to.

With E the state encoder, Ē its moving average (the one that acts, `policies.chunks`), sg a stop to gradients, and the
hidden vector of `policies.act` at each of the K places read twice, as ŷ (the chunk's representation) and as P,

    L = mean w |ŷ - y| + λ mean |P(E(s_t), goal) - sg(Ē(s_{t+1..t+K}))| + R

The second term alone is least where all states are encoded alike. What keeps the encoder from such a collapse is
`collapse`:

    "ema"       the target's stop to gradients and moving average, as above; R = 0
    "sigreg"    targets E(s), through which gradients pass; R = .1 SIGReg(E(s_t))
    "vicreg"    the same with R = variance + covariance / 25            (both in `policies.collapse`)
    "none"      the same with R = 0: nothing does but the actions

All that acts (`policies.act.Actor`) is ACT's, module by module, so that at equal sizes `parameters` are equal. What
differs: P, two layers that only learn, and that there is no variational autoencoder unless `latent_size` asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from policies.act import ACT, ACTConfig, _Network
from policies.collapse import effective_rank, random_directions, sigreg, vicreg
from policies.networks import MLP
from policies.offline import Batch, BatchSpec, expect

__all__ = ["ACTJEPA", "COLLAPSE", "ACTJEPAConfig"]

COLLAPSE = ("ema", "sigreg", "vicreg", "none")


@dataclass(frozen=True)
class ACTJEPAConfig(ACTConfig):
    """ACT's configuration without the autoencoder; λ is ``latent_weight``; SIGReg looks along ``directions``."""

    latent_size: int = 0
    latent_weight: float = 1.0
    collapse: str = "ema"
    sigreg_weight: float = 0.1
    vicreg_weight: float = 1.0
    directions: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.collapse not in COLLAPSE:
            raise ValueError(f"unknown collapse control {self.collapse!r}; valid: {', '.join(COLLAPSE)}")
        if self.directions < 1:
            raise ValueError(f"directions = {self.directions} must be at least 1")


class _JEPANetwork(_Network):
    def __init__(self, config: ACTJEPAConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.predictor = MLP((config.width, config.width, config.width), "relu", 1.0, generator)


class ACTJEPA(ACT):
    """ACT whose trunk also predicts the encodings of the states to come; see the module's docstring."""

    registry_key = "act-jepa"
    config_class = ACTJEPAConfig
    config: ACTJEPAConfig
    network: _JEPANetwork

    def __init__(self, config: ACTJEPAConfig) -> None:
        super().__init__(config, _JEPANetwork)  # type: ignore[arg-type]

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(chunk=self.config.chunk, futures=True)

    def _shapes(self) -> dict[str, tuple[int | str, ...]]:
        return super()._shapes() | {"futures": ("b", self.config.chunk, self.config.state_size)}

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F], actions [b, K, A], valid [b] and futures [b, K, S].

        Returns, besides `ACT.update`'s: latent_error (mean absolute); regularizer (R); effective_rank of E(s_t) over
        the batch (b at most); spread, the mean deviation of its columns. A collapse shows in the last two.
        """
        config = self.config
        arrays = expect(batch, self._shapes())
        loss, metrics, token, hidden = self._imitation(arrays)
        own = self._own(arrays["valid"])
        predicted, futures = self.network.predictor(hidden), arrays["futures"]
        if config.collapse == "ema":
            with torch.no_grad():
                targets = self.average.actor.embed(futures)
        else:
            targets = self.network.actor.embed(futures)
        latent_error = (predicted - targets).abs()[own].mean()
        regularizer = self._regularizer(token)
        loss = loss + config.latent_weight * latent_error + regularizer
        found = {
            "latent_error": latent_error.item(),
            "regularizer": regularizer.item(),
            "effective_rank": effective_rank(token.detach()),
            "spread": token.detach().std(0, correction=0).mean().item(),
        }
        return self._descend(loss) | metrics | found

    def _regularizer(self, token: torch.Tensor) -> torch.Tensor:
        """R for a batch of encodings [b, D]."""
        if self.config.collapse == "sigreg":
            directions = random_directions(token.shape[1], self.config.directions, self._generator)
            return self.config.sigreg_weight * sigreg(token, directions)
        if self.config.collapse == "vicreg":
            variance, covariance = vicreg(token)
            return self.config.vicreg_weight * (variance + covariance / 25)
        return torch.zeros(())
