"""What an option does: an ensemble that predicts the state a skill leaves, from the state it begins in and its code.

With s the state, z the code and K perceptrons f_k that share nothing,

    s' = s + d * f_k(s, z)        p(fell) = sigmoid(g_k(s, z))        p(held') = sigmoid(h_k(s, z))

where d is the spread of the changes seen. States are positions x y z of objects (m), then the tool's from the nearest
object (m) and that object's velocity (m/s), then 1 where an object is held. The loss is the squared error of changes,
where nothing fell, and the cross entropy of falling and of holding. The members begin with different weights: how far
apart they are says where they have seen little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from policies.base import CheckpointError, config_from_dict
from policies.checkpoint import load_module, module_arrays, read_arrays, read_header, write_checkpoint
from policies.networks import EnsembleMLP
from policies.offline import cosine_rate

__all__ = ["EffectModel", "EffectModelConfig"]

KIND = "effect-model"
COLUMNS = ("states", "codes", "next_states", "fell")


@dataclass(frozen=True)
class EffectModelConfig:
    """Everything that decides how the model is built and learnt. ``option``: the control steps an option takes."""

    objects: int = 1
    code: int = 2
    option: int = 5
    members: int = 3
    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 2e-3
    gradient_steps: int = 3_000
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("objects", "code", "option", "members", "gradient_steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")

    @property
    def state_size(self) -> int:
        """Columns of a state: 3 an object, the tool's 3, 3 of velocity, held."""
        return 3 * self.objects + 7


class EffectModel(nn.Module):
    """The ensemble; see the module's docstring."""

    mean: torch.Tensor
    std: torch.Tensor
    change: torch.Tensor

    def __init__(self, config: EffectModelConfig) -> None:
        super().__init__()
        self.config = config
        self._generator = torch.Generator().manual_seed(config.seed)
        size = config.state_size
        # the outputs: changes of all but `held`, then the logits of held and fell
        sizes = (size + config.code, *config.hidden, size + 1)
        self.networks = EnsembleMLP(config.members, sizes, "silu", 0.1, self._generator)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("change", torch.ones(size - 1))

    def forward(self, states: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """[b, S], [b, Z] -> [K, b, S + 1]: changes in units of their spread, logits of held and of fell."""
        return self.networks(torch.cat([(states - self.mean) / self.std, codes], dim=-1))

    @torch.no_grad()
    def predict(self, states: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The state after an option float32[b, S], the chance that something falls off [b], the members' spread [b].

        A state's `held` comes back as a chance. The spread is that of the objects' positions, in m.
        """
        found = self(states, codes)
        moved = found[..., :-2] * self.change
        held, fell = found[..., -2:].sigmoid().mean(0).unbind(-1)
        after = torch.cat([states[:, :-1] + moved.mean(0), held[:, None]], dim=-1)
        spread = moved[..., : 3 * self.config.objects].std(dim=0, correction=0).norm(dim=-1)
        return after, fell, spread

    def fit(self, data: Mapping[str, np.ndarray]) -> float:
        """Learns from options: states, next_states float[rows, S], codes float[rows, Z], fell bool[rows].

        Returns the mean loss of the last hundred steps. Raises ValueError for rows of other widths, or none.
        """
        config = self.config
        states, codes, after, fell = (torch.from_numpy(np.asarray(data[k], np.float32)) for k in COLUMNS)
        if states.shape[1:] != (config.state_size,) or codes.shape[1:] != (config.code,) or not len(states):
            raise ValueError(
                f"states {tuple(states.shape)} and codes {tuple(codes.shape)} must be rows of {config.state_size} and "
                f"{config.code} numbers, and there must be some."
            )
        stayed = fell < 0.5
        change = (after - states)[:, :-1]
        self.mean.copy_(states.mean(0))
        self.std.copy_(states.std(0, correction=0) + 1e-3)
        if stayed.any():
            self.change.copy_(change[stayed].square().mean(0).sqrt() + 1e-4)
        wanted = torch.cat([change / self.change, after[:, -1:], fell[:, None]], dim=-1)
        optimizer = torch.optim.Adam(self.networks.parameters(), config.learning_rate, fused=True)
        losses = []
        for step in range(config.gradient_steps):
            rows = torch.randint(len(states), (config.batch,), generator=self._generator)
            optimizer.param_groups[0]["lr"] = cosine_rate(config.learning_rate, step, config.gradient_steps, 50)
            found, target = self(states[rows], codes[rows]), wanted[rows]
            weight = stayed[rows].float()[:, None]
            squared = ((found[..., :-2] - target[:, :-2]).square() * weight).mean()
            logits, truth = found[..., -2:], target[:, -2:].expand(config.members, -1, -1)
            each = binary_cross_entropy_with_logits(logits, truth, reduction="none")
            loss = squared + (each[..., 0] * weight[:, 0]).mean() + each[..., 1].mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses[-100:]))

    def save(self, directory: str | Path) -> None:
        """To a directory, as policies are saved."""
        write_checkpoint(directory, KIND, asdict(self.config), module_arrays(self))

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """From a directory. Raises CheckpointError where it is missing, damaged or something else."""
        header = read_header(directory)
        if header.type != KIND:
            raise CheckpointError(f"{directory} holds a {header.type!r}, not the expected {KIND!r}.")
        try:
            found = cls(config_from_dict(EffectModelConfig, header.config))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"The configuration in {directory} is not valid: {error}") from None
        load_module(found, read_arrays(directory))
        return found
