"""Multi-context imitation: one policy for goals and for language, learnt from play of which hardly any is described.

With s the features of the state alone (the first S) and f those of state and goal, a goal and an instruction w become
contexts in one space, and a flow over chunks (`policies.flow_bc`) acts on (s, context) without knowing which it was:

    G(f) = norm(MLP(f))        every moment of play, a later moment as its goal
    T(w, s) = norm(MLP(silu((1 + a(w)) W s + b(w))))    moments of the few labelled windows (`policies.text` reads w)

    L = F(G(f)) + ``text_weight`` F(T(w, s)) + ``alignment`` |T(w, s) - sg G(f)|^2

F is the flow's weighted squared error, the last term is a mean over the context's components, on labelled moments with
their window's end as the goal; norm is to mean 0 and deviation 1. Nearly all that the flow learns, it learns from
goals. T sees the state because what a sentence asks for does not change while it is done, and how far it is done does;
words scale what is seen, since which of the things in sight matters is all that most of them say.
Columns of the goal never reach T nor, in a slot that was told something, the flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from policies.base import State, as_batch
from policies.chunks import ChunkConfig, ChunkPolicy
from policies.flow_bc import Flow
from policies.networks import MLP
from policies.offline import Batch, BatchSpec, expect
from policies.text import BUCKETS, LONGEST, WordReader, dropped

__all__ = ["MultiContext", "MultiContextConfig"]


@dataclass(frozen=True)
class MultiContextConfig(ChunkConfig):
    """Everything that decides how contexts and the flow are built and learnt.

    ``state_size`` is needed. ``vector_size`` is D where instructions come as another encoder's vectors float32[n, D];
    0 stands for tokens, read by an encoder of its own with ``text_size`` components.
    """

    context_size: int = 128
    context_hidden: tuple[int, ...] = (256, 256)  # of goals
    text_hidden: int = 512
    text_size: int = 32
    vector_size: int = 0
    text_weight: float = 1.0
    alignment: float = 1.0
    sampling_steps: int = 5
    hidden: tuple[int, ...] = (384, 384, 384)
    frequencies: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_size < 1:
            raise ValueError("state_size must be at least 1: a text's context sees no more of the features.")
        for name in ("context_size", "text_size", "text_hidden", "sampling_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1.")
        if min(self.vector_size, self.text_weight, self.alignment) < 0:
            raise ValueError(
                f"vector_size = {self.vector_size}, text_weight = {self.text_weight} and alignment = {self.alignment} "
                "must not be negative."
            )

    @property
    def words_size(self) -> int:
        """E: how many columns an instruction's encoding has."""
        return self.vector_size or LONGEST


class _Network(nn.Module):
    """Contexts of goals and of texts, and the flow."""

    def __init__(self, config: MultiContextConfig, generator: torch.Generator) -> None:
        super().__init__()
        size, hidden = config.context_size, config.context_hidden
        self.state_size = config.state_size
        self.reader = None if config.vector_size else WordReader(config.text_size)
        read = config.vector_size or config.text_size
        self.goal = MLP((config.feature_size, *hidden, size), "silu", 1.0, generator)
        width = config.text_hidden
        self.seen = MLP((config.state_size, width), "silu", math.sqrt(2.0), generator)
        self.meant = MLP((read, 2 * width), "silu", 1.0, generator)
        self.text = MLP((width, width, size), "silu", 1.0, generator)
        chunk = config.chunk * config.action_size
        self.flow = Flow(config.state_size + size, chunk, config.hidden, config.frequencies, generator)

    def of_goals(self, features: torch.Tensor) -> torch.Tensor:
        """Features [b, F] -> contexts [b, C]."""
        return _norm(self.goal(features))

    def of_texts(
        self, features: torch.Tensor, words: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Features [b, F], of which the first S are looked at, and encodings [b, E] -> contexts [b, C]; while learning,
        the generator by which words of a reader of our own are dropped.
        """
        read = words
        if isinstance(self.reader, WordReader):
            read = self.reader(words, None if generator is None else dropped(words, generator))
        scale, shift = self.meant(read).chunk(2, dim=-1)
        seen = self.seen(features[:, : self.state_size]) * (1 + scale) + shift
        return _norm(self.text(nn.functional.silu(seen)))

    def condition(self, features: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """What the flow sees: [b, S + C]."""
        return torch.cat([features[:, : self.state_size], context], dim=-1)


def _norm(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.layer_norm(x.float(), x.shape[-1:])


class MultiContext(ChunkPolicy):
    """Acts towards goals, or as it was told; see the module's docstring.

    Beyond a `ChunkPolicy`'s the state has `words` [n, E] and `told` bool[n]: slots that follow words, not the features'
    goal. `instruct` sets both.
    """

    registry_key = "multi-context"
    config_class = MultiContextConfig
    config: MultiContextConfig
    network: _Network
    average: _Network

    def __init__(self, config: MultiContextConfig) -> None:
        super().__init__(config, lambda generator: _Network(config, generator))

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(chunk=self.config.chunk, words=self.config.words_size)

    # ---- learning

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on features [b, F] and actions [b, K, A], and where the batch has them labelled_features
        [m, F], labelled_actions [m, K, A] and words [m, E].

        Returns: loss; goal_error and, with labels, text_error (the flow's) and alignment (0 where texts' contexts are
        goals', 2 where they are unrelated); learning_rate; gradient_norm. ValueError for arrays of other shapes.
        """
        config, network = self.config, self.network
        size, chunk = config.feature_size, (config.chunk, config.action_size)
        features, actions = expect(batch, {"features": ("b", size), "actions": ("b", *chunk)}).values()
        rows, labelled = len(features), "words" in batch
        if labelled:
            shapes = {"labelled_features": ("m", size), "labelled_actions": ("m", *chunk)}
            described, done, words = expect(batch, shapes | {"words": ("m", config.words_size)}).values()
            features, actions = torch.cat([features, described]), torch.cat([actions, done])
        apart = torch.zeros(())
        with self._autocast():
            context = network.of_goals(features)
            if labelled:
                told = network.of_texts(features[rows:], words, self._generator)
                apart = (told - context[rows:].detach()).square().mean()
                context = torch.cat([context[:rows], told])
            condition = network.condition(features, context)
            difference = network.flow.error(condition, self.encode(actions).flatten(1), self._generator)
        error = (difference.square().view_as(actions) * self._component_weight).mean((1, 2))
        loss = goal_error = error[:rows].mean()
        found = {"goal_error": goal_error.item()}
        if labelled:
            text_error = error[rows:].mean()
            loss = goal_error + config.text_weight * text_error + config.alignment * apart
            found |= {"text_error": text_error.item(), "alignment": apart.item()}
        return self._descend(loss) | found

    # ---- acting

    def instruct(self, words: np.ndarray, state: State | None = None, slots: np.ndarray | None = None) -> State:
        """The state in which ``slots`` int64[m] (None: all) at once begin to follow their row of words [m, E].

        They keep to it, over further episodes too, until told something else or until `told` is set to False. Without a
        state, a new one of m slots. ValueError where words do not fit.
        """
        given = self._words(words)
        if state is None:
            if slots is not None:
                raise ValueError("slots name rows of a state; give the state, or leave them out.")
            state = self._fresh_state(len(given))
        state = {name: array.copy() for name, array in state.items()}
        rows = np.arange(len(state["told"])) if slots is None else np.asarray(slots)
        if len(rows) != len(given):
            raise ValueError(f"{len(given)} rows of words were given for {len(rows)} slots.")
        state["words"][rows], state["told"][rows] = given, True
        state["position"][rows] = self.config.execute
        return state

    def _words(self, words: np.ndarray) -> np.ndarray:
        config = self.config
        array = np.asarray(words)
        if array.ndim != 2 or array.shape[1] != config.words_size:
            raise ValueError(f"Words have shape {array.shape}; expected (n, {config.words_size}).")
        if config.vector_size:
            return array.astype(np.float32)
        if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= BUCKETS)):
            raise ValueError(f"Words must be whole numbers in 0..{BUCKETS - 1}, as HashedWords gives them.")
        return array.astype(np.int64)

    @torch.no_grad()
    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(features)
        return self._draw(inputs, self.average.of_goals(inputs), noise)

    @torch.no_grad()
    def sample_told(self, features: np.ndarray, words: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks of actions float32[b, K, A] as words [b, E] say; of features [b, F] only the first S are seen."""
        inputs = torch.from_numpy(as_batch(features, self.observation_size))
        return self._draw(inputs, self.average.of_texts(inputs, torch.from_numpy(self._words(words))), noise)

    def _draw(self, features: torch.Tensor, context: torch.Tensor, noise: np.ndarray) -> np.ndarray:
        condition = self.average.condition(features, context)
        x = self.average.flow.draw(condition, torch.from_numpy(noise), self.config.sampling_steps)
        return self.decode(x.unflatten(1, (self.config.chunk, self.action_size))).numpy()

    def _renew(self, state: State, due: np.ndarray, features: np.ndarray, noise: np.ndarray) -> None:
        told = state["told"][due]
        for chosen, is_told in ((np.flatnonzero(told), True), (np.flatnonzero(~told), False)):
            if len(chosen) and is_told:
                words = state["words"][due[chosen]]
                state["chunk"][due[chosen]] = self.sample_told(features[chosen], words, noise[chosen])
            elif len(chosen):
                state["chunk"][due[chosen]] = self.sample(features[chosen], noise[chosen])

    def _fresh_state(self, slots: int) -> State:
        config = self.config
        words = np.zeros((slots, config.words_size), np.float32 if config.vector_size else np.int64)
        return super()._fresh_state(slots) | {"words": words, "told": np.zeros(slots, np.bool_)}
