"""Learners from recorded episodes, as ``embodied train`` has them: a dataclass each, with defaults for the playroom.

Every key is one of the policy's own configuration (``policies/``), which has more of them; the rest is left as it is
there. ``configs/policy/*.yaml`` offers them to the command line by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from embodied.cli.fields import option
from embodied.cli.schema import LearnerConfig

__all__ = ["OFFLINE_LEARNERS", "OfflineLearnerConfig"]

PRECISIONS = ("float32", "bfloat16")
PLANS = ("gaussian", "categorical")
DECODERS = ("logistic", "chunk", "flow")
COLLAPSE = ("ema", "sigreg", "vicreg", "none")
ACTORS = ("ddpg", "awr")
# those of the policies, named here so that help is quick

RATE = "step size of the optimiser"
HIDDEN = "widths of the hidden layers"
TEMPERATURE = "scales the noise that an action is drawn from: below 1 the likely is done more often"
WEIGH = "how much an action's advantage weighs; 0 clones them all"


def _layers() -> list[int]:
    return [384, 384, 384]


def _wide_layers() -> list[int]:
    return [512, 512, 512]


@dataclass
class OfflineLearnerConfig(LearnerConfig):
    """A learner from recorded episodes."""

    recorded = True


@dataclass
class ChunkLearnerConfig(OfflineLearnerConfig):
    """A learner of chunks of actions."""

    chunk: int = option(16, "actions that are predicted together", low=1)
    execute: int = option(8, "how many of them are carried out before the next chunk", low=1)
    learning_rate: float = option(1e-3, RATE, low=0.0)
    precision: str = option("bfloat16", "of the products in an update", choices=PRECISIONS)


@dataclass
class FlowBCConfig(ChunkLearnerConfig):
    """Behaviour cloning by a flow over chunks: draws one of several ways of doing a thing."""

    name = "flow_bc"
    algorithm = "flow-bc"
    hidden: list[int] = option(_layers, HIDDEN)
    temperature: float = option(0.5, TEMPERATURE, low=0.0)
    sampling_steps: int = option(5, "steps from noise to a chunk", low=1)


@dataclass
class GCBCConfig(ChunkLearnerConfig):
    """Behaviour cloning by squared error (GCBC): the plainest, does the mean of several ways."""

    name = "gcbc"
    algorithm = "gcbc"
    hidden: list[int] = option(_layers, HIDDEN)


@dataclass
class LatentPlansConfig(ChunkLearnerConfig):
    """Latent plans from play (Play-LMP, Lynch et al. 2019): plans recognised in play, proposed by goals."""

    name = "latent_plans"
    algorithm = "latent-plans"
    hidden: list[int] = option(_layers, HIDDEN)
    temperature: float = option(0.5, TEMPERATURE, low=0.0)
    plan: str = option("gaussian", "what a plan is", choices=PLANS)
    plan_size: int = option(32, "dimensions of a plan, or its categorical variables", low=1)
    decoder: str = option("flow", "from a plan to actions: step by step, a mean chunk, a flow", choices=DECODERS)
    beta: float = option(
        0.1, "weight of recognition's divergence from the proposal; too much and plans go unused", low=0.0
    )
    balance: float = option(0.8, "share of it that draws the proposal to recognition", low=0.0, high=1.0)
    free_nats: float = option(0.0, "divergence that recognition is spared", low=0.0)


@dataclass
class MultiContextLearnerConfig(ChunkLearnerConfig):
    """A flow that is given a goal or a sentence (multi-context imitation, Lynch & Sermanet 2021), few of them heard."""

    name = "multi_context"
    algorithm = "multi-context"
    apart = (*LearnerConfig.apart, "labels")
    labels: float = option(0.01, "share of the play's windows that are described in English", low=1e-6, high=0.01)
    hidden: list[int] = option(_layers, HIDDEN)
    temperature: float = option(0.5, TEMPERATURE, low=0.0)
    context_size: int = option(128, "numbers that a goal and a sentence become alike", low=1)
    text_weight: float = option(1.0, "weight of described moments beside those with a goal", low=0.0)
    alignment: float = option(1.0, "weight of a sentence's nearness to its goal", low=0.0)


@dataclass
class BESOConfig(ChunkLearnerConfig):
    """Score-based behaviour generation (BESO, Reuss et al. 2023): a denoiser of chunks, with guidance by the goal."""

    name = "beso"
    algorithm = "beso"
    hidden: list[int] = option(_layers, HIDDEN)
    temperature: float = option(1.0, TEMPERATURE, low=0.0)
    sampling_steps: int = option(3, "steps from noise to a chunk", low=1)
    guidance: float = option(5.0, "how far the goal's part in a chunk is driven; 1: as learnt", low=0.0)
    goal_drop: float = option(0.1, "share of moments learnt without their goal", low=0.0, high=0.9)


@dataclass
class ACTConfig(ChunkLearnerConfig):
    """Action chunking with a transformer (ACT, Zhao et al. 2023): an autoencoder of chunks, acts without chance."""

    name = "act"
    algorithm = "act"
    learning_rate: float = option(5e-4, RATE, low=0.0)
    width: int = option(128, "of the transformers", low=1)
    latent_size: int = option(32, "of the style of a chunk; 0: no autoencoder", low=0)
    kl_weight: float = option(10.0, "weight of the style's divergence from its prior", low=0.0)
    ensemble: bool = option(False, "predict at every step, and do the mean of all predictions for it")


@dataclass
class ACTJEPAConfig(ChunkLearnerConfig):
    """ACT whose trunk also predicts, in a learnt space, the states to come (ACT-JEPA)."""

    name = "act_jepa"
    algorithm = "act-jepa"
    learning_rate: float = option(5e-4, RATE, low=0.0)
    width: int = option(128, "of the transformers", low=1)
    latent_weight: float = option(1.0, "weight of the predicted states", low=0.0)
    collapse: str = option("ema", "what keeps the encoder from saying the same of all states", choices=COLLAPSE)
    ensemble: bool = option(False, "predict at every step, and do the mean of all predictions for it")


@dataclass
class ValueLearnerConfig(OfflineLearnerConfig):
    """A learner of goals' values."""

    hidden: list[int] = option(_wide_layers, HIDDEN)
    learning_rate: float = option(3e-4, RATE, low=0.0)
    discount: float = option(0.99, "1 / (1 - discount) is the horizon of values in control steps", low=0.0, high=1.0)
    expectile: float = option(0.9, "how much of the best that was seen a value takes; 0.5: the mean", low=0.0, high=1.0)


@dataclass
class GCIVLConfig(ValueLearnerConfig):
    """Implicit V-learning of goals (GCIVL): clones what brought a goal nearer."""

    name = "gcivl"
    algorithm = "gcivl"
    temperature: float = option(10.0, WEIGH, low=0.0)


@dataclass
class GCIQLConfig(ValueLearnerConfig):
    """Implicit Q-learning of goals (GCIQL): values of actions too, and an actor that climbs them near the data."""

    name = "gciql"
    algorithm = "gciql"
    actor: str = option("ddpg", "climb the values, or clone by advantage", choices=ACTORS)
    cloning: float = option(1.0, "ddpg: what keeps the actor near the data's actions", low=0.0)
    temperature: float = option(10.0, f"awr: {WEIGH}", low=0.0)


@dataclass
class HIQLConfig(ValueLearnerConfig):
    """Hierarchical implicit Q-learning (HIQL, Park et al. 2023): one actor names a waypoint, another goes there."""

    name = "hiql"
    algorithm = "hiql"
    expectile: float = option(0.7, "how much of the best that was seen a value takes; 0.5: the mean", low=0.0, high=1.0)
    waypoint: int = option(10, "how many steps ahead a waypoint lies", low=1)
    goal_size: int = option(10, "numbers that stand for a waypoint", low=1)
    upper_temperature: float = option(3.0, f"of waypoints: {WEIGH}", low=0.0)
    lower_temperature: float = option(3.0, f"of actions: {WEIGH}", low=0.0)


OFFLINE_LEARNERS: dict[str, type[OfflineLearnerConfig]] = {
    kind.name: kind
    for kind in (
        FlowBCConfig, GCBCConfig, LatentPlansConfig, MultiContextLearnerConfig, BESOConfig, ACTConfig, ACTJEPAConfig,
        GCIVLConfig, GCIQLConfig, HIQLConfig,
    )
}  # fmt: skip
"""Name on the command line → configuration."""
