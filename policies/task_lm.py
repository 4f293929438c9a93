"""A small decoder-only language model over a closed vocabulary, trained from scratch, with masks given from outside.

    x = E[tokens];  in each block  x += attention(n(x)),  x += W2 gelu(W1 n(x));  logits = W n(x)

with n layer normalisation and rotary positions: only distances between tokens count, so prompts are padded on the left
with token 0. Of which tokens may follow which it knows nothing: a `Constraint` says so at every step, for sampling and,
by the masks that `Sampled` keeps, for the probabilities learnt from.

Several continuations of a prompt share its keys and values: reading b prompts of P tokens and g continuations each of T
costs b (P + g T) tokens, not b g (P + T), in sampling and in learning alike.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from policies.base import config_from_dict
from policies.checkpoint import MODEL, CheckpointError, load_module, module_arrays, read_arrays, read_header
from policies.checkpoint import write_checkpoint as write
from policies.transformer import linear

__all__ = ["PAD", "Constraint", "Sampled", "TaskLM", "TaskLMConfig", "masked_log_probability"]

PAD = 0
PRECISIONS = ("float32", "bfloat16")
_NEVER = -1e9  # finite: a padded place reads itself alone and does no harm

Memory = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values float32[n, heads, t, d/heads] of each block."""


@dataclass(frozen=True)
class TaskLMConfig:
    """Sizes; ``precision`` is that of the products, bfloat16 being about twice as fast on a recent CPU."""

    vocabulary: int
    width: int = 160
    heads: int = 5
    layers: int = 4
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % (2 * self.heads):
            raise ValueError(f"width = {self.width} must be an even multiple of heads = {self.heads}")
        if min(self.vocabulary, self.layers) < 1:
            raise ValueError("vocabulary and layers must be at least 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {self.precision!r}; valid are {', '.join(PRECISIONS)}")


class Constraint(Protocol):
    """What may be said next by each of n rows; it follows what they say."""

    @property
    def finished(self) -> np.ndarray:
        """bool[n]: rows that say nothing more."""
        ...

    def mask(self) -> np.ndarray:
        """bool[n, vocabulary]: the tokens that may come next; at least one for every row that goes on."""
        ...

    def take(self, tokens: np.ndarray) -> None:
        """Follow what was said, int64[n]; a finished row's is 0."""
        ...


@dataclass(frozen=True)
class Sampled:
    """n continuations of at most T tokens, 0 after the end; the masks they were drawn under and their logarithms."""

    tokens: np.ndarray  # int64[n, T]
    masks: np.ndarray  # bool[n, T, vocabulary]
    log_probabilities: np.ndarray  # float32[n, T], at temperature 1; 0 after the end


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.scale = heads, math.sqrt(heads / width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        gain = 1 / math.sqrt(2 * layers)
        self.query_key_value = linear(width, 3 * width, generator, bias=False)
        self.out = linear(width, width, generator, gain, bias=False)
        self.inner = linear(width, 4 * width, generator, math.sqrt(2.0))
        self.outer = linear(4 * width, width, generator, gain)

    def forward(
        self,
        x: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor] | None,
        prompt: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """x float32[n, t, d]; ``mask`` bool[n or 1, 1, t, s] over past and own tokens; ``prompt`` keys and values
        [b, heads, P, d/heads] with places bool[b, 1, 1, P], which n / b rows share."""
        n, t, width = x.shape
        query, key, value = self.query_key_value(self.before(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key = _turned(query, turn), _turned(key, turn)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        scores = (query @ key.mT * self.scale).masked_fill(~mask, _NEVER)
        if prompt is None:
            read = scores.softmax(-1).to(value.dtype) @ value
        else:
            far = (_gathered(query, len(prompt[0])) @ prompt[0].mT * self.scale).masked_fill(~prompt[2], _NEVER)
            weights = torch.cat([_scattered(far, n), scores], -1).softmax(-1).to(value.dtype)
            there = prompt[0].shape[2]
            read = weights[..., there:] @ value
            read = read + _scattered(_gathered(weights[..., :there], len(prompt[0])) @ prompt[1], n)
        x = x + self.out(read.transpose(1, 2).reshape(n, t, width))
        return x + self.outer(F.gelu(self.inner(self.between(x)), approximate="tanh")), (key, value)


def _gathered(rows: torch.Tensor, b: int) -> torch.Tensor:
    """[b g, heads, t, c] -> [b, heads, g t, c]: what shares a prompt, in one product."""
    n, heads, t, c = rows.shape
    return rows.view(b, n // b, heads, t, c).transpose(1, 2).reshape(b, heads, n // b * t, c)


def _scattered(rows: torch.Tensor, n: int) -> torch.Tensor:
    """The inverse of `_gathered`."""
    b, heads, all_, c = rows.shape
    return rows.view(b, heads, n // b, all_ * b // n, c).transpose(1, 2).reshape(n, heads, all_ * b // n, c)


def _turned(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    one, two = x.chunk(2, -1)
    return (x * turn[0] + torch.cat([-two, one], -1) * turn[1]).to(x.dtype)


class TaskLM(nn.Module):
    """The model. Weights are drawn from the configuration's seed."""

    registry_key = "task-lm"

    def __init__(self, config: TaskLMConfig) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        weight = torch.randn(config.vocabulary, config.width, generator=generator)
        self.embedding = nn.Embedding(config.vocabulary, config.width, _weight=weight)
        self.blocks = nn.ModuleList(
            _Block(config.width, config.heads, config.layers, generator) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = linear(config.width, config.vocabulary, generator, 0.1, bias=False)
        half = config.width // config.heads // 2
        self._rates = 1e3 ** (-torch.arange(half) / half)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def autocast(self) -> torch.autocast:
        """The precision of the configuration, for what is done inside."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def read(self, prompts: torch.Tensor) -> tuple[torch.Tensor, Memory]:
        """Logits float32[b, P, V] after each token of prompts int64[b, P] padded on the left, and their memory."""
        length = prompts.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return self._run(prompts, 0, causal & (prompts != PAD)[:, None, None, :], None, None)

    def follow(
        self, prompts: torch.Tensor, memory: Memory, tokens: torch.Tensor, past: Memory | None = None
    ) -> tuple[torch.Tensor, Memory]:
        """Logits float32[b g, t, V] after each of tokens int64[b g, t] that continue prompts int64[b, P].

        ``memory`` is the prompts', ``past`` that of the continuation's earlier tokens; returned is the latter's next.
        """
        begun = past[0][0].shape[2] if past else 0
        t = tokens.shape[1]
        mask = torch.ones(t, begun + t, dtype=torch.bool).tril(begun)[None, None]
        shared = [(key, value, (prompts != PAD)[:, None, None, :]) for key, value in memory]
        return self._run(tokens, prompts.shape[1] + begun, mask, past, shared)

    def logits(self, prompts: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits for continuations int64[b g, T] of prompts int64[b, P]: float32[b g, T, V], and the prompts' own."""
        own, memory = self.read(prompts)
        first = own[:, -1:].repeat_interleave(len(tokens) // len(prompts), 0)
        if tokens.shape[1] == 1:
            return first, own
        rest, _ = self.follow(prompts, memory, tokens[:, :-1])
        return torch.cat([first, rest], 1), own

    @torch.no_grad()
    def sample(
        self,
        prompts: np.ndarray,
        constraint: Constraint,
        copies: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Sampled:
        """``copies`` continuations of each prompt int64[b, P], those of a prompt one after another.

        ``constraint`` is of b·copies rows and ends them all. Temperature 0 takes the likeliest token each time.
        """
        given = torch.from_numpy(np.ascontiguousarray(prompts, np.int64))
        n = len(given) * copies
        tokens, masks, chances = [], [], []
        with self.autocast():
            own, memory = self.read(given)
            logits, past = own[:, -1].repeat_interleave(copies, 0), None
            while not constraint.finished.all():
                going = torch.from_numpy(~constraint.finished)
                allowed = torch.from_numpy(constraint.mask()) | ~going[:, None]
                logs = masked_log_probability(logits, allowed)
                if temperature > 0:
                    noise = torch.empty_like(logs).exponential_(generator=generator)
                    said = ((logs / temperature).exp() / noise).masked_fill(~allowed, -1.0).argmax(-1)
                else:
                    said = logs.argmax(-1)
                chances.append((logs.gather(1, said[:, None])[:, 0] * going).numpy())
                said = said * going
                tokens.append(said.numpy())
                masks.append(allowed.numpy())
                constraint.take(tokens[-1])
                if not constraint.finished.all():
                    logits, past = self.follow(given, memory, said[:, None], past)
                    logits = logits[:, -1]
        if not tokens:
            return Sampled(np.zeros((n, 0), np.int64), np.zeros((n, 0, 0), np.bool_), np.zeros((n, 0), np.float32))
        return Sampled(np.stack(tokens, 1), np.stack(masks, 1), np.stack(chances, 1).astype(np.float32))

    def save_pretrained(self, directory: str | Path, training: dict[str, np.ndarray] | None = None) -> None:
        """Write `config.json` and `model.safetensors`, atomically; and what learning needs, where it is given."""
        write(directory, self.registry_key, asdict(self.config), module_arrays(self), training)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Read a model; CheckpointError in one sentence where there is none, or another kind."""
        header = read_header(directory)
        if header.type != cls.registry_key:
            raise CheckpointError(f"{directory} holds a {header.type!r}, not the expected {cls.registry_key!r}.")
        try:
            model = cls(config_from_dict(TaskLMConfig, header.config))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"The configuration in {directory} is not valid: {error}") from None
        load_module(model, read_arrays(directory, MODEL))
        return model

    def _run(
        self,
        tokens: torch.Tensor,
        begins: int,
        mask: torch.Tensor,
        past: Memory | None,
        prompt: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] | None,
    ) -> tuple[torch.Tensor, Memory]:
        angle = torch.arange(begins, begins + tokens.shape[1])[:, None] * self._rates
        turn = (torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1))
        x = self.embedding(tokens)
        memory: Memory = []
        for i, block in enumerate(self.blocks):
            x, kept = block(x, turn, mask, past[i] if past else None, prompt[i] if prompt else None)
            memory.append(kept)
        return self.head(self.norm(x)).float(), memory


def masked_log_probability(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """log softmax over the tokens that a mask bool[..., V] allows; the others get a very small number."""
    return logits.float().masked_fill(~masks, _NEVER).log_softmax(-1)
