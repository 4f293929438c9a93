"""Rewards for skills nobody asked for: what a code z changes about the objects, by the methods of the field.

A skill is one policy acting on (observation, z); z is drawn anew for every episode. With s the positions that matter
(m, in units of `STEP`), s' a step later, f a learnt map and q a learnt classifier, the reward of a step is

    position  (s' - s)ᵀ z                    f the identity: what LSD can become at best where s is all there is
    lsd       (f(s') - f(s))ᵀ z              f 1-Lipschitz by spectral norms (Park et al. 2022)
    metra     (f(s') - f(s))ᵀ z              |f(s') - f(s)| <= 1 on transitions, by a multiplier (Park et al. 2024)
    csd       (f(s') - f(s))ᵀ z              |f(s') - f(s)| <= how unlikely s' is after s (Park et al. 2023)
    diayn     log q(z|s') - log p(z)         (Eysenbach et al. 2019)
    dusdi     the mean over objects i of log q(z_i|s'_i) - log p(z_i) - 0.1 (log q(z_i|s'_-i) - log p(z_i)), each
              object having a code of its own, discrete (Hu et al. 2024)
    rnd       how badly a random function of s' is predicted, over its running spread (Burda et al. 2019); z is idle
    random    0

Continuous codes are uniform on the unit sphere; discrete ones are one-hot, centred and scaled so that two of them are
2 apart for the methods that project on z. The learnt parts are trained from a buffer of the last transitions, so that
an on-policy learner of the skills does not starve them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from policies.base import CheckpointError, config_from_dict
from policies.checkpoint import (
    TRAINING,
    Arrays,
    load_module,
    load_optimizer,
    module_arrays,
    optimizer_arrays,
    read_arrays,
    read_header,
    with_prefix,
    without_prefix,
    write_checkpoint,
)
from policies.networks import MLP

__all__ = ["METHODS", "STEP", "Discovery", "DiscoveryConfig"]

KIND = "discovery"
METHODS = ("position", "lsd", "metra", "csd", "diayn", "dusdi", "rnd", "random")
PROJECTING = ("position", "lsd", "metra", "csd")
STEP = 0.03  # m that one unit of s stands for: what the tool moves at most in a control step
_SLACK = 1e-3  # epsilon of METRA's multiplier
_SHARPNESS = 4.0  # a continuous code's classifier is a Gaussian about its guess, of this precision
_PENALTY = 0.1  # of DUSDi, on what an object's code tells of the others


@dataclass(frozen=True)
class DiscoveryConfig:
    """How skills are told apart.

    objects: groups of three columns of s, x y z each. code_size: of z; 0: two numbers an object for methods that
    project on it (x and y for `position`), else 16 (dusdi: 5 an object, `code_size` is ignored). planar: heights are
    left out of s.
    """

    method: str = "position"
    objects: int = 1
    code_size: int = 0
    discrete: bool = False
    planar: bool = True
    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-3
    buffer: int = 200_000  # transitions
    updates: int = 32  # gradient steps for every rollout
    batch: int = 1024
    multiplier: float = 30.0  # metra and csd: at first
    multiplier_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"Unknown discovery method {self.method!r}; valid: {', '.join(METHODS)}.")
        if self.objects < 1:
            raise ValueError(f"objects = {self.objects}: there must be at least one to discover anything about.")
        if self.code_size < 0 or (self.discrete and self.code_size == 1):
            raise ValueError(
                f"code_size = {self.code_size} must be at least {2 if self.discrete else 1}, or 0: default."
            )
        if min(self.buffer, self.batch, *self.hidden) < 1 or self.updates < 0:
            raise ValueError("buffer, batch and hidden must be at least 1, updates at least 0.")
        for name in ("learning_rate", "multiplier", "multiplier_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)} must be a finite number greater than 0.")
        if self.method == "position" and (self.discrete or self.code_size not in (0, self.state_size)):
            raise ValueError(
                f"code_size = {self.code_size}: `position` takes a continuous code with a number for each of its "
                f"{self.state_size} coordinates."
            )

    @property
    def state_size(self) -> int:
        """Columns of s."""
        return self.objects * (2 if self.planar else 3)

    @property
    def code(self) -> int:
        """Columns of z."""
        if self.method == "dusdi":
            return 5 * self.objects
        if self.method == "position":
            return self.state_size
        return self.code_size or (2 * self.objects if self.method in PROJECTING and not self.discrete else 16)

    @property
    def is_discrete(self) -> bool:
        return self.discrete or self.method in ("dusdi",) or (self.method == "diayn" and self.code_size == 0)


class _Networks(nn.Module):
    spread: torch.Tensor
    f: MLP
    q: Any
    others: Any
    density: MLP
    log_multiplier: nn.Parameter

    def __init__(self, config: DiscoveryConfig, generator: torch.Generator) -> None:
        super().__init__()
        inputs, code, hidden = config.state_size, config.code, config.hidden

        def perceptron(inputs: int, outputs: int, gain: float = 1.0) -> MLP:
            return MLP((inputs, *hidden, outputs), "relu", gain, generator)

        if config.method in ("lsd", "metra", "csd"):
            self.f = perceptron(inputs, code)
            if config.method == "lsd":
                seed = int(torch.randint(1 << 31, (), generator=generator))
                with torch.random.fork_rng(devices=()):  # its first guess of singular vectors is drawn globally
                    torch.manual_seed(seed)
                    for layer in self.f:
                        if isinstance(layer, nn.Linear):
                            nn.utils.parametrizations.spectral_norm(layer)
            else:
                self.log_multiplier = nn.Parameter(torch.tensor(math.log(config.multiplier)))
            if config.method == "csd":
                self.density = perceptron(inputs, 2 * inputs, 0.01)
        elif config.method == "diayn":
            self.q = perceptron(inputs, code, 0.01)
        elif config.method == "dusdi":
            own = inputs // config.objects
            self.q = nn.ModuleList(perceptron(own, 5, 0.01) for _ in range(config.objects))
            rest = max(1, inputs - own)
            self.others = nn.ModuleList(perceptron(rest, 5, 0.01) for _ in range(config.objects))
        elif config.method == "rnd":
            self.target, self.guess = perceptron(inputs, 16), perceptron(inputs, 16)
            self.target.requires_grad_(False)
            self.register_buffer("spread", torch.ones(()))


class Discovery:
    """Draws codes, rewards transitions, and learns from those it was shown."""

    def __init__(self, config: DiscoveryConfig) -> None:
        self.config = config
        self._generator = torch.Generator().manual_seed(config.seed)
        self.networks = _Networks(config, self._generator).eval()  # but in `update`: rewarding changes nothing
        learnt = {name: p for name, p in self.networks.named_parameters() if p.requires_grad}
        self.learns = bool(learnt)
        multipliers = [learnt.pop("log_multiplier")] if "log_multiplier" in learnt else []
        if self.learns:
            groups = [{"params": list(learnt.values())}]
            groups += [{"params": multipliers, "lr": config.multiplier_rate}] if multipliers else []
            self._optimizer = torch.optim.Adam(groups, config.learning_rate)
        sizes = (config.state_size, config.state_size, config.code)
        self._columns: tuple[torch.Tensor, ...] = tuple(torch.zeros(0, size) for size in sizes)
        self._fresh: list[tuple[torch.Tensor, ...]] = []

    def codes(self, n: int, seed: int | None = None) -> torch.Tensor:
        """n codes from the prior, float32[n, Z]; with a ``seed``, apart from the stream of learning."""
        config = self.config
        generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
        if not config.is_discrete:
            z = torch.randn(n, config.code, generator=generator)
            return z / z.norm(dim=1, keepdim=True).clamp(min=1e-6)
        parts = config.objects if config.method == "dusdi" else 1
        size = config.code // parts
        draws = torch.randint(size, (n, parts), generator=generator)
        z = nn.functional.one_hot(draws, size).float()
        if config.method in PROJECTING:  # centred; unit length
            z = (z - 1.0 / size) / math.sqrt(1.0 - 1.0 / size)
        return z.flatten(1)

    def state(self, objects: torch.Tensor) -> torch.Tensor:
        """s float32[..., S] from positions float[..., objects, 3] (m)."""
        kept = objects[..., :2] if self.config.planar else objects
        return (kept.flatten(-2) / STEP).float()

    @torch.no_grad()
    def reward(self, before: torch.Tensor, after: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """float32[n] of transitions between positions float[n, objects, 3] under codes z float32[n, Z]."""
        s, t = self.state(before), self.state(after)
        net, config = self.networks, self.config
        if config.method == "position":
            return ((t - s) * z).sum(-1)
        if config.method in PROJECTING:
            return ((net.f(self._centred(t)) - net.f(self._centred(s))) * z).sum(-1)
        if config.method == "diayn":
            return self._log_q(net.q(self._centred(t)), z)
        if config.method == "dusdi":
            return self._factored(self._centred(t), z)
        if config.method == "rnd":
            return (net.guess(self._centred(t)) - net.target(self._centred(t))).square().mean(-1) / net.spread
        return torch.zeros(len(z))

    def remember(self, before: torch.Tensor, after: torch.Tensor, z: torch.Tensor) -> None:
        """Show transitions to learn from later; shapes as of `reward`."""
        if self.learns:
            self._fresh.append((self.state(before), self.state(after), z.clone()))

    def update(self) -> dict[str, float]:
        """Gradient steps on the last transitions shown; loss and the method's own figures, by name."""
        if not self.learns or not self._fresh:
            return {}
        columns = zip(self._columns, *self._fresh, strict=True)
        self._columns = tuple(torch.cat(parts)[-self.config.buffer :] for parts in columns)
        self._fresh = []
        totals: dict[str, float] = {}
        self.networks.train()
        for _ in range(self.config.updates):
            rows = torch.randint(len(self._columns[0]), (self.config.batch,), generator=self._generator)
            s, t, z = (column[rows] for column in self._columns)
            loss, figures = self._loss(self._centred(s), self._centred(t), z)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            for name, value in ({"loss": loss.item()} | figures).items():
                totals[name] = totals.get(name, 0.0) + value / self.config.updates
        self.networks.eval()
        return totals

    # ---- saving

    def save(self, directory: str | Path, training: bool = True) -> None:
        """To a directory, as policies are saved; with ``training``, learning goes on bit for bit after `load`."""
        state: Arrays = {}
        if training:
            state = {"generator": self._generator.get_state().numpy()}
            state |= {f"buffer{i}": column.numpy() for i, column in enumerate(self._columns)}
            for i, parts in enumerate(zip(*self._fresh, strict=True)):  # shown since the last update
                state[f"fresh{i}"] = torch.cat(parts).numpy()
            if self.learns:
                state |= with_prefix("optimizer", optimizer_arrays(self._optimizer))
        write_checkpoint(directory, KIND, asdict(self.config), module_arrays(self.networks), state or None)

    @classmethod
    def load(cls, directory: str | Path, training: bool = True) -> Self:
        """From a directory. Raises CheckpointError where it is missing or damaged."""
        header = read_header(directory)
        if header.type != KIND:
            raise CheckpointError(f"{directory} holds a {header.type!r}, not the expected {KIND!r}.")
        try:
            found = cls(config_from_dict(DiscoveryConfig, header.config))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"The configuration in {directory} is not valid: {error}") from None
        load_module(found.networks, read_arrays(directory))
        if training:
            state = read_arrays(directory, TRAINING)
            found._generator.set_state(torch.from_numpy(state["generator"]))
            found._columns = tuple(torch.from_numpy(state[f"buffer{i}"]) for i in range(3))
            if "fresh0" in state:
                found._fresh = [tuple(torch.from_numpy(state[f"fresh{i}"]) for i in range(3))]
            if found.learns:
                load_optimizer(found._optimizer, without_prefix("optimizer", state))
        return found

    # ---- the methods

    def _centred(self, s: torch.Tensor) -> torch.Tensor:
        """s about the middle of a table; the same for every method."""
        centre = torch.tensor((0.5, 0.0) if self.config.planar else (0.5, 0.0, 0.1)) / STEP
        return (s.unflatten(-1, (self.config.objects, -1)) - centre).flatten(-2)

    def _loss(self, s: torch.Tensor, t: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        net, config = self.networks, self.config
        if config.method == "diayn":
            return -self._log_q(net.q(t), z).mean(), {}
        if config.method == "dusdi":
            own, other, wanted = self._logits(t, z)
            pairs = zip((*own, *other), (*wanted, *wanted), strict=True)
            return torch.stack([cross_entropy(logits, codes) for logits, codes in pairs]).sum(), {}
        if config.method == "rnd":
            error = (net.guess(t) - net.target(t)).square().mean(-1)
            net.spread.mul_(0.99).add_(0.01 * error.detach().mean().clamp(min=1e-8))
            return error.mean(), {}
        step = net.f(t) - net.f(s)
        gain = (step * z).sum(-1)
        if config.method == "lsd":
            return -gain.mean(), {"gain": gain.mean().item()}
        allowed, density_loss = torch.ones(len(s)), torch.zeros(())
        if config.method == "csd":  # Mahalanobis distance of s' under a learnt p(s' - s | s)
            mean, log_std = net.density(s).chunk(2, dim=-1)
            log_std = log_std.clamp(-5.0, 3.0)
            off = ((t - s - mean) / log_std.exp()).square()
            density_loss = (0.5 * off + log_std).sum(-1).mean()
            allowed = off.detach().mean(-1)
        room = (allowed - step.square().sum(-1)).clamp(max=_SLACK)
        multiplier = net.log_multiplier.exp()
        loss = -(gain + multiplier.detach() * room).mean() + multiplier * room.detach().mean() + density_loss
        return loss, {"gain": gain.mean().item(), "multiplier": multiplier.item()}

    def _log_q(self, guess: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log q(z|s) - log p(z), [n]; for continuous codes up to a constant."""
        if self.config.is_discrete:
            return (log_softmax(guess, -1) * z).sum(-1) + math.log(z.shape[-1])
        return -0.5 * _SHARPNESS * (guess - z).square().sum(-1)

    def _logits(self, t: torch.Tensor, z: torch.Tensor) -> tuple[list[Any], list[Any], list[Any]]:
        """Logits from each object's own state and from the others', and the codes' numbers."""
        net, count = self.networks, self.config.objects
        parts, codes = t.unflatten(-1, (count, -1)), z.unflatten(-1, (count, -1))
        own, other = [], []
        for i in range(count):
            rest = torch.cat([parts[..., :i, :], parts[..., i + 1 :, :]], dim=-2).flatten(-2)
            rest = rest if count > 1 else torch.zeros(len(t), 1)
            own.append(net.q[i](parts[..., i, :]))
            other.append(net.others[i](rest))
        return own, other, [codes[..., i, :].argmax(-1) for i in range(count)]

    def _factored(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        own, other, wanted = self._logits(t, z)
        total = torch.zeros(len(t))
        for a, b, w in zip(own, other, wanted, strict=True):
            tells = log_softmax(a, -1).gather(-1, w[:, None])[:, 0] + math.log(a.shape[-1])
            leaks = log_softmax(b, -1).gather(-1, w[:, None])[:, 0] + math.log(b.shape[-1])
            total += tells - _PENALTY * leaks
        return total / len(own)
