"""The configuration of ``embodied train``: what is learnt on, and a dataclass for each learner with its defaults.

The learners' defaults are meant for the native goal environments (episodes of some fifty steps at 20 Hz, rewards of -1
or 0) and stay close to those of their papers. ``configs/policy/sb3/*.yaml`` offers them to the command line by name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from embodied.cli.fields import Checked, option
from embodied.cli.offline_learners import OFFLINE_LEARNERS
from embodied.cli.schema import LearnerConfig
from embodied.errors import ConfigError

__all__ = [
    "LEARNERS",
    "OFFLINE_LEARNERS",
    "RECORDED",
    "A2CConfig",
    "LearnerConfig",
    "PPOConfig",
    "SACConfig",
    "SACHerConfig",
    "TD3Config",
    "TrainConfig",
]

RATE = "step size of the optimiser"
GAMMA = "discount; 1 / (1 - gamma) is the horizon in control steps"
NET_ARCH = "widths of the hidden layers, of actor and critics alike"
NORMALISE = "learn from observations of mean 0 and deviation 1, by running moments that the policy keeps"
LAMBDA = "λ of the generalised advantage estimate"
BUFFER = "transitions kept; never more than the training has steps"
STARTS = "environment steps of random actions before the first update; at least one episode of each slot"


def _layers() -> list[int]:
    return [256, 256]


@dataclass
class PPOConfig(LearnerConfig):
    """Proximal policy optimisation (Schulman et al. 2017)."""

    name = "sb3/ppo"
    algorithm = "ppo"
    apart = ("net_arch", "normalise", "log_std_init")
    learning_rate: float = option(3e-4, RATE, low=0.0)
    n_steps: int = option(128, "steps of each slot in a rollout", low=2)
    batch_size: int = option(256, "transitions in a gradient step", low=2)
    n_epochs: int = option(10, "passes over a rollout", low=1)
    gamma: float = option(0.95, GAMMA, low=0.0, high=1.0)
    gae_lambda: float = option(0.95, LAMBDA, low=0.0, high=1.0)
    clip_range: float = option(0.2, "how far from 1 the ratio of probabilities may go", low=0.0)
    ent_coef: float = option(0.0, "weight of the entropy", low=0.0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0.0)
    max_grad_norm: float = option(0.5, "gradients longer than this are shortened to it", low=0.0)
    target_kl: float | None = option(
        None, "a rollout's passes end where the policy has moved 1.5 times so far; null: never"
    )
    log_std_init: float = option(0.0, "logarithm of the actions' standard deviation at first")
    net_arch: list[int] = option(_layers, NET_ARCH)
    normalise: bool = option(True, NORMALISE)


@dataclass
class A2CConfig(LearnerConfig):
    """Advantage actor-critic (Mnih et al. 2016)."""

    name = "sb3/a2c"
    algorithm = "a2c"
    learning_rate: float = option(7e-4, RATE, low=0.0)
    n_steps: int = option(8, "steps of each slot in a rollout", low=1)
    gamma: float = option(0.95, GAMMA, low=0.0, high=1.0)
    gae_lambda: float = option(0.95, LAMBDA, low=0.0, high=1.0)
    ent_coef: float = option(0.0, "weight of the entropy", low=0.0)
    vf_coef: float = option(0.5, "weight of the value loss", low=0.0)
    max_grad_norm: float = option(0.5, "gradients longer than this are shortened to it", low=0.0)
    net_arch: list[int] = option(_layers, NET_ARCH)
    normalise: bool = option(True, NORMALISE)


@dataclass
class SACConfig(LearnerConfig):
    """Soft actor-critic with a learnt temperature (Haarnoja et al. 2018)."""

    name = "sb3/sac"
    algorithm = "sac"
    learning_rate: float = option(1e-3, RATE, low=0.0)
    buffer_size: int = option(1_000_000, BUFFER, low=1)
    learning_starts: int = option(1_000, STARTS, low=0)
    batch_size: int = option(256, "transitions in a gradient step", low=1)
    tau: float = option(0.02, "share of the online critics in the targets at each update", low=0.0, high=1.0)
    gamma: float = option(0.95, GAMMA, low=0.0, high=1.0)
    train_freq: int = option(1, "steps of each slot between updates", low=1)
    gradient_steps: int = option(8, "gradient steps an update; -1: as many as environment steps were taken", low=-1)
    net_arch: list[int] = option(_layers, NET_ARCH)
    normalise: bool = option(True, NORMALISE)


@dataclass
class SACHerConfig(SACConfig):
    """Soft actor-critic with hindsight experience replay (Andrychowicz et al. 2017); needs a goal environment."""

    name = "sb3/sac_her"
    apart = ("net_arch", "normalise", "n_sampled_goal", "goal_selection_strategy")
    hindsight = ("n_sampled_goal", "goal_selection_strategy")
    n_sampled_goal: int = option(4, "replayed transitions with a goal reached later, to each with its own goal", low=1)
    goal_selection_strategy: str = option(
        "future", "which reached goal is taken", choices=("future", "final", "episode")
    )


@dataclass
class TD3Config(LearnerConfig):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""

    name = "sb3/td3"
    algorithm = "td3"
    apart = ("net_arch", "normalise", "action_noise")
    learning_rate: float = option(1e-3, RATE, low=0.0)
    buffer_size: int = option(1_000_000, BUFFER, low=1)
    learning_starts: int = option(1_000, STARTS, low=0)
    batch_size: int = option(256, "transitions in a gradient step", low=1)
    tau: float = option(0.02, "share of the online networks in the targets at each update", low=0.0, high=1.0)
    gamma: float = option(0.95, GAMMA, low=0.0, high=1.0)
    train_freq: int = option(1, "steps of each slot between updates", low=1)
    gradient_steps: int = option(8, "gradient steps an update; -1: as many as environment steps were taken", low=-1)
    policy_delay: int = option(2, "updates of the critics to one of the actor", low=1)
    action_noise: float = option(0.1, "standard deviation of the noise on actions", low=0.0)
    net_arch: list[int] = option(_layers, NET_ARCH)
    normalise: bool = option(True, NORMALISE)


LEARNERS: dict[str, type[LearnerConfig]] = {
    kind.name: kind for kind in (SACHerConfig, SACConfig, PPOConfig, A2CConfig, TD3Config)
}
"""Name on the command line → configuration; the first is the default."""


ENCODERS = ("state", "pixels", "blind")  # those of embodied.data.recorded, named here so that help is quick
WORLD = "reach"  # of those that act, where none is named
RECORDED = ("data", "encoder", "allow_mixed_physics", "updates", "batch", "horizon", "questions")
ACTING = ("steps", "num_envs", "eval_every", "eval_episodes", "final_episodes", "device")
"""Keys of learners from recorded episodes, and of learners that act, alone."""


@dataclass
class TrainConfig(Checked):
    """``embodied train``: one learner on one environment, or on recorded episodes, and how far it got."""

    variants: ClassVar[dict[str, dict[str, type]]] = {"policy": {**LEARNERS, **OFFLINE_LEARNERS}}
    env: str = option("", "the world: a native name, or suite/task; empty: reach, or what data is of")
    world: dict[str, Any] = option(dict, "the world's own arguments, one at a time: world.reward=dense")
    policy: LearnerConfig = option(SACHerConfig, "")
    steps: int = option(50_000, "environment steps of the whole training", low=1)
    num_envs: int = option(16, "simulations stepped together", low=1, high=65_536)
    seed: int = option(0, "same seed, same policy on one machine and thread count", low=0)
    eval_every: int = option(10_000, "environment steps between two measurements, where learning can be resumed", low=1)
    eval_episodes: int = option(50, "fresh episodes of each measurement on the way", low=1)
    final_episodes: int = option(200, "fresh episodes of the final measurement", low=1)
    data: str = option(
        "", "recorded: play:STEPS (played and kept once), a path, or FORMAT:PATH (store, ogbench, minari, lerobot …)"
    )
    encoder: str = option(
        "state", "recorded: learn from facts, from pictures that the data has, or (the control) from blank ones",
        choices=ENCODERS,
    )  # fmt: skip
    allow_mixed_physics: bool = option(False, "recorded: take episodes of several versions of the physics together")
    updates: int = option(20_000, "recorded: gradient steps of the whole training", low=1)
    batch: int = option(512, "recorded: moments in a gradient step", low=1)
    horizon: int = option(90, "recorded: how many steps ahead a moment's goal may lie", low=1)
    questions: int = option(50, "recorded: final episodes of each task, or of each goal of OGBench's; 0: none", low=0)
    threads: int = option(0, "physics and learning threads; 0 takes every core this process may use", low=0)
    device: str = option("cpu", "where the networks are; small ones learn fastest on a cpu", choices=("cpu", "cuda"))
    out: str = option("", "the training's folder; empty: runs/train/ENV-LEARNER-seedN; the same folder continues")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.policy.name:  # of no learner yet: what a schema is made from
            return
        if not self.policy.recorded:
            self.env = self.env or WORLD
        defaults = {item.name: item.default for item in fields(self)}
        for key in ACTING if self.policy.recorded else RECORDED:
            if (value := getattr(self, key)) != defaults[key]:
                how, own = ("learns from recorded episodes", RECORDED) if self.policy.recorded else ("acts", ACTING)
                raise ConfigError(f"{key}={value} is no key of policy={self.policy.name}, which {how}: its own are "
                                  f"{', '.join(own)}")  # fmt: skip
        if self.policy.recorded and not self.data:
            raise ConfigError(f"policy={self.policy.name} learns from recorded episodes: say which, as in "
                              f"data=play:200_000 or data=store:PATH")  # fmt: skip
