"""Latent plans from play (Play-LMP): what a stretch of play did becomes a plan, and a goal proposes plans.

A window of play is W = ``chunk`` moments t ... t+W-1 with states s and actions a; its goal g lies at its end or later.
Three networks learn together, sg(.) being a constant to the gradient:

    recognition  q(z | s_t ... s_t+W-1, a_t ... a_t+W-1)    never sees the goal
    proposal     p(z | s_t, g)                              all there is when acting
    decoder      the window's actions from states, goal and a plan z ~ q

    L = R + beta [b KL(sg(q) || p) + (1 - b) max(free nats, KL(q || sg(p)))]     b = balance

The balance lets the proposal come to recognition faster than the reverse; free nats spare recognition alone, so the
proposal goes on learning. Plans are Gaussian or categorical (`policies.plan_spaces`). R depends on the decoder, and so
does the unit of ``beta``:

    logistic   a recurrent network at every step, mixtures of discretised logistics: -ln P in nats a step
    chunk      the chunk's mean from the first moment: the weighted squared error of `GCBC`
    flow       a flow over chunks from the first moment: the weighted squared error of `FlowBC`

Acting, a plan is proposed every ``execute`` steps. Whether plans matter is seen by comparing the proposal's with
recognition's and with those of other rows: `propose`, `plan_of`, `reconstruct`, `give`. KL near 0 means they do not:
the posterior has collapsed, and a smaller beta, free nats or categorical plans are the cures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from policies.base import State, as_batch
from policies.chunks import ChunkConfig, ChunkPolicy
from policies.flow_bc import Flow
from policies.networks import MLP
from policies.offline import Batch, BatchSpec, expect
from policies.plan_decoders import LogisticDecoder, Regression
from policies.plan_spaces import PLAN_SPACES

__all__ = ["DECODERS", "LatentPlans", "LatentPlansConfig"]

DECODERS = ("logistic", "chunk", "flow")


@dataclass(frozen=True)
class LatentPlansConfig(ChunkConfig):
    """Everything that decides how latent plans are built and learnt.

    ``state_size`` is needed: recognition sees that many features. A plan has ``plan_size`` dimensions, or as many
    categorical variables of ``plan_classes`` classes. From recurrent to min_log_scale it is the logistic decoder's,
    sampling_steps and frequencies are the flow's.
    """

    plan: str = "gaussian"
    plan_size: int = 32
    plan_classes: int = 32
    decoder: str = "logistic"
    beta: float = 0.01
    balance: float = 0.8
    free_nats: float = 0.0
    recognise_actions: bool = True
    hidden: tuple[int, ...] = (512, 512, 512)
    recurrent: int = 256
    components: int = 10
    bins: int = 256
    min_log_scale: float = -4.0  # at -7 the gradients of exact values drown all others: marginals alone were learnt
    sampling_steps: int = 5
    frequencies: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, valid in (("plan", self.plan, PLAN_SPACES), ("decoder", self.decoder, DECODERS)):
            if value not in valid:
                raise ValueError(f"Unknown {name} {value!r}; valid: {', '.join(valid)}.")
        if self.state_size < 1:
            raise ValueError(
                "state_size must be at least 1: recognition sees the features that say nothing of the goal."
            )
        for name in ("plan_size", "recurrent", "components", "sampling_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1.")
        if min(self.plan_classes, self.bins) < 2:
            raise ValueError("plan_classes and bins must be at least 2.")
        if self.beta < 0 or self.free_nats < 0 or not 0 <= self.balance <= 1:
            raise ValueError(
                f"beta = {self.beta} and free_nats = {self.free_nats} must be at least 0, and balance = "
                f"{self.balance} lie in [0, 1]."
            )


class _Network(nn.Module):
    """Recognition: [b, W (S + A)] -> parameters of a plan; proposal: [b, F] -> the same; and a decoder."""

    def __init__(self, config: LatentPlansConfig, generator: torch.Generator) -> None:
        super().__init__()
        space = PLAN_SPACES[config.plan](config.plan_size, config.plan_classes)
        seen = config.state_size + config.action_size * config.recognise_actions
        self.recognition = MLP((config.chunk * seen, *config.hidden, space.parameters), "silu", 0.1, generator)
        self.proposal = MLP((config.feature_size, *config.hidden, space.parameters), "silu", 0.1, generator)
        inputs, size = config.feature_size + space.size, config.chunk * config.action_size
        self.decoder: LogisticDecoder | Regression | Flow
        if config.decoder == "logistic":
            sizes = (config.feature_size, space.size, config.action_size)
            shape = (config.recurrent, config.components, config.bins, config.min_log_scale)
            self.decoder = LogisticDecoder(sizes, *shape, generator)
        elif config.decoder == "chunk":
            self.decoder = Regression(inputs, size, config.hidden, generator)
        else:
            self.decoder = Flow(inputs, size, config.hidden, config.frequencies, generator)


class LatentPlans(ChunkPolicy):
    """Acts by plans that state and goal propose; see the module's docstring.

    Beyond a `ChunkPolicy`'s the state has `plan` float32[n, P] and `given` bool[n], and for the logistic decoder
    `memory` float32[n, R] and `noise` float32[n, W, A, M + 1], drawn with the plan; `chunk` holds the actions so far.
    """

    registry_key = "latent-plans"
    config_class = LatentPlansConfig
    config: LatentPlansConfig
    network: _Network
    average: _Network

    def __init__(self, config: LatentPlansConfig) -> None:
        self.space = PLAN_SPACES[config.plan](config.plan_size, config.plan_classes)
        super().__init__(config, lambda generator: _Network(config, generator))

    @property
    def spec(self) -> BatchSpec:
        return BatchSpec(chunk=self.config.chunk, window=self.config.chunk)

    @property
    def noise_size(self) -> int:
        """The plan's noise, then the decoder's."""
        each = {"logistic": self.config.components + 1, "chunk": 0, "flow": 1}[self.config.decoder]
        return self.space.noise_size + each * self.config.chunk * self.action_size

    # ---- learning

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step on window [b, W, F] and actions [b, W, A].

        Returns: loss; reconstruction (R); kl, of recognition to proposal in nats; active_units of a Gaussian plan or
        perplexity of a categorical one (`policies.plan_spaces`); learning_rate; gradient_norm. ValueError for arrays of
        other shapes.
        """
        config = self.config
        window, actions = self._expect(batch)
        noise = torch.randn(len(window), self.space.noise_size, generator=self._generator)
        with self._autocast():
            seen = self._recognise(self.network, window, actions)
            proposed = self.network.proposal(window[:, 0]).float()
            plan = self.space.sample(seen, noise)
            reconstruction = self._error(self.network, window, plan, actions, self._generator).mean()
        drawn = self.space.kl(seen.detach(), proposed)
        kept = self.space.kl(seen, proposed.detach()).sum(-1).mean()
        divergence = config.balance * drawn.sum(-1).mean() + (1 - config.balance) * kept.clamp(min=config.free_nats)
        metrics = self._descend(reconstruction + config.beta * divergence)
        use = self.space.use(seen.detach(), drawn.detach())
        return metrics | {"reconstruction": reconstruction.item(), "kl": kept.item()} | use

    def _expect(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        steps = self.config.chunk
        shapes = {"window": ("b", steps, self.observation_size), "actions": ("b", steps, self.action_size)}
        window, actions = expect(batch, shapes).values()
        return window, actions

    def _recognise(self, network: _Network, window: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        seen = window[..., : self.config.state_size]
        if self.config.recognise_actions:
            seen = torch.cat([seen, actions], dim=-1)
        return network.recognition(seen.flatten(1)).float()

    def _error(
        self,
        network: _Network,
        window: torch.Tensor,
        plan: torch.Tensor,
        actions: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """R for each row, [b]."""
        if isinstance(network.decoder, LogisticDecoder):
            return network.decoder.error(window, plan, actions)
        inputs = torch.cat([window[:, 0], plan], dim=-1)
        difference = network.decoder.error(inputs, self.encode(actions).flatten(1), generator)
        return (difference.square().view_as(actions) * self._component_weight).mean((1, 2))

    # ---- plans, of the averaged weights

    @torch.no_grad()
    def plan_of(self, window: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Recognition's likeliest plan float32[b, P] for a window [b, W, F] and its actions [b, W, A]."""
        seen, done = self._expect({"window": window, "actions": actions})
        return self.space.mode(self._recognise(self.average, seen, done)).numpy()

    @torch.no_grad()
    def propose(self, features: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Plans float32[b, P] for features [b, F]: the likeliest, or drawn by standard normal noise [b, noise_size of
        `space`].
        """
        outputs = self.average.proposal(torch.from_numpy(as_batch(features, self.observation_size)))
        if noise is None:
            return self.space.mode(outputs).numpy()
        return self.space.sample(outputs, torch.from_numpy(noise)).numpy()

    @torch.no_grad()
    def reconstruct(self, batch: Batch, plan: np.ndarray) -> np.ndarray:
        """R float32[b] of a batch's actions by the given plans [b, P]; a flow's noise is the same in every call."""
        window, actions = self._expect(batch)
        plans = torch.from_numpy(as_batch(plan, self.space.size))
        return self._error(self.average, window, plans, actions, torch.Generator().manual_seed(0)).numpy()

    def give(self, plan: np.ndarray, state: State | None = None) -> State:
        """The state in which every slot at once begins to follow its row of plan [n, P] instead of a proposal.

        It keeps to it, over further replannings and episodes, until another is given or `given` of its slot is set to
        False. Without a state, a new one.
        """
        plans = as_batch(plan, self.space.size)
        state = self._fresh_state(len(plans)) if state is None else dict(state)
        if len(state["plan"]) != len(plans):
            raise ValueError(f"The state has {len(state['plan'])} slots, the plans {len(plans)}.")
        position = np.full(len(plans), self.config.execute, np.int64)
        return state | {"plan": plans.copy(), "given": np.ones(len(plans), bool), "position": position}

    # ---- acting

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        action, state = super().predict(observation, state, episode_start, deterministic)
        if isinstance(self.average.decoder, LogisticDecoder):
            rows, last = np.arange(len(action)), state["position"] - 1
            features = as_batch(observation, self.observation_size)
            action, state["memory"] = self._step(features, state["plan"], state["memory"], state["noise"][rows, last])
            state["chunk"][rows, last] = action
        return action, state

    def sample(self, features: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks float32[b, K, A]; the logistic decoder's as if the features stayed what they are."""
        plan = self.propose(features, noise[:, : self.space.noise_size])
        return self._carry_out(features, plan, noise[:, self.space.noise_size :])

    def _renew(self, state: State, due: np.ndarray, features: np.ndarray, noise: np.ndarray) -> None:
        proposed = self.propose(features, noise[:, : self.space.noise_size])
        plan = np.where(state["given"][due, None], state["plan"][due], proposed)
        rest = noise[:, self.space.noise_size :]
        state["plan"][due] = plan
        if "memory" in state:
            state["chunk"][due] = state["memory"][due] = 0.0
            state["noise"][due] = rest.reshape(len(due), *state["noise"].shape[1:])
        else:
            state["chunk"][due] = self._carry_out(features, plan, rest)

    @torch.no_grad()
    def _carry_out(self, features: np.ndarray, plan: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks float32[b, K, A] from plans and the decoder's noise."""
        config, decoder = self.config, self.average.decoder
        if isinstance(decoder, LogisticDecoder):
            memory = np.zeros((len(features), config.recurrent), np.float32)
            actions = []
            for numbers in noise.reshape(len(features), config.chunk, self.action_size, -1).swapaxes(0, 1):
                action, memory = self._step(features, plan, memory, numbers)
                actions.append(action)
            return np.stack(actions, axis=1)
        inputs = torch.from_numpy(np.concatenate([features, plan], axis=1))
        chunk = decoder.draw(inputs, torch.from_numpy(noise), config.sampling_steps)
        return self.decode(chunk.unflatten(1, (config.chunk, self.action_size))).numpy()

    @torch.no_grad()
    def _step(
        self, features: np.ndarray, plan: np.ndarray, memory: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        decoder = self.average.decoder
        assert isinstance(decoder, LogisticDecoder)
        action, after = decoder.step(*(torch.from_numpy(array) for array in (features, plan, memory, noise)))
        return action.numpy(), after.numpy()

    def _fresh_state(self, slots: int) -> State:
        config = self.config
        state = super()._fresh_state(slots)
        state |= {"plan": np.zeros((slots, self.space.size), np.float32), "given": np.zeros(slots, bool)}
        if config.decoder == "logistic":
            state["memory"] = np.zeros((slots, config.recurrent), np.float32)
            state["noise"] = np.zeros((slots, config.chunk, config.action_size, config.components + 1), np.float32)
        return state
