"""Practice: a policy learns a skill schema by trial, one critic a reward, from the best start at hand.

Where it starts from is decided by measurement: play relabelled with the goal and cloned, a skill practised before that
already gets part of the way, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from embodied.training.rollback import Rollback
from embodied.training.rollouts import MAX_STEPS, Trial, measure_all
from envs.observations import FEATURES
from envs.rewards import REWARD_TERMS
from envs.vector import ACTIONS, TabletopVectorEnv
from policies.cloning import fit_mean
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig, train_ppo

__all__ = ["PracticeConfig", "PracticeOutcome", "begin", "clone", "fresh", "practise", "refine"]


@dataclass(frozen=True)
class PracticeConfig:
    """How practice is done; weights belong to `envs.rewards.REWARD_TERMS` (task, reach, safety)."""

    num_envs: int = 192
    rollout: int = 32
    weights: tuple[float, ...] = (1.0, 0.3, 0.15)
    warm_std: float = 0.3
    cold_std: float = 0.5
    gripper_std: float = 0.6  # floor: what never opens never learns to let go
    gripper_limit: float = 0.7
    patience: int = 50  # steps after which a practised policy acts with its spread (see `MultiCriticPPO.predict`)
    averaging: float = 0.95  # decay an iteration of the average of weights that acts in the end
    critic_warmup: int = 3  # rollouts in which only the critics of a warm-started policy learn
    trials: int = 80  # episodes a candidate start is measured on, shared out over the groundings
    clone_epochs: int = 10
    clone_rows: int = 100_000
    refine_rate: float = 5e-4  # step size of cloning into a policy that already acts
    learnt: float = 0.97  # success of the last ``settled`` rollouts at which practice has nothing left to teach
    settled: int = 8
    threads: int = 0
    rollback: bool = False  # go back on updates that did harm (`embodied.training.rollback`)


@dataclass
class PracticeOutcome:
    """A practised policy, one with its actor's weights averaged over the last iterations, and its rollouts' success.

    The one goes on learning; the other acts: from iteration to iteration single goals come and go.
    """

    policy: MultiCriticPPO
    average: MultiCriticPPO
    curve: list[tuple[int, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0


def fresh(seed: int, config: PracticeConfig) -> MultiCriticPPO:
    """A policy that knows nothing."""
    return MultiCriticPPO(
        MultiCriticPPOConfig(
            FEATURES, ACTIONS["tool"], REWARD_TERMS, weights=config.weights, initial_std=config.cold_std,
            advantage_floor=0.05, critic_hidden=(128, 128), epochs=3, minibatch=1536, target_kl=0.02,
            gripper_std=config.gripper_std, gripper_limit=config.gripper_limit, patience=config.patience,
            seed=seed % (1 << 31),
        )
    )  # fmt: skip


def clone(features: np.ndarray, actions: np.ndarray, seed: int, config: PracticeConfig) -> MultiCriticPPO:
    """A policy cloned from demonstrations: features float32[m, F], actions float32[m, A]."""
    policy = fresh(seed, config)
    rows = np.random.default_rng(seed).permutation(len(features))[: config.clone_rows]
    policy.warm_start_actor(
        features[rows],
        actions[rows],
        epochs=config.clone_epochs,
        batch_size=1024,
        learning_rate=2e-3,
        std=config.warm_std,
    )
    _widen(policy, config)
    return policy


def refine(
    policy: MultiCriticPPO,
    features: np.ndarray,
    actions: np.ndarray,
    goals: list[str],
    seed: int,
    config: PracticeConfig,
) -> tuple[bool, int]:
    """Clones demonstrations into a policy that already acts: (whether that helped, environment steps of finding out).

    Only the actor's mean changes, and only where more of the same episodes of ``goals`` succeed with it.
    """
    tried = MultiCriticPPO(policy.config)
    tried.load_arrays(policy.arrays())
    net, limit = tried.networks, 0.85 * policy.config.gripper_limit
    rows = np.random.default_rng(seed).permutation(len(features))[: config.clone_rows]
    targets = torch.from_numpy(actions[rows]).clamp(-1.0, 1.0)
    if limit > 0.0:  # within reach of the squashed mean
        targets[:, -1].clamp_(-limit, limit)
    with torch.no_grad():
        inputs = net.norm(torch.from_numpy(features[rows]))
    generator = torch.Generator().manual_seed(seed % (1 << 31))
    fit_mean(net.actor, inputs, targets, config.clone_epochs, 1024, config.refine_rate, generator)
    n = max(8, config.trials // len(goals))
    trials = [Trial(goal, n, seed + 17 * k) for k, goal in enumerate(goals)]
    runs = [measure_all(actor, trials, threads=config.threads) for actor in (policy, tried)]
    before, after = (sum(run.report.successes for run in of) for of in runs)
    if after > before:
        policy.networks.actor.load_state_dict(net.actor.state_dict())
    return after > before, sum(run.steps for of in runs for run in of)


def begin(
    goals: list[str], starts: Mapping[str, MultiCriticPPO], seed: int, config: PracticeConfig
) -> tuple[MultiCriticPPO, str, int]:
    """A policy to practise with: (policy, what it began from, environment steps spent on choosing).

    Each candidate start is run on the same episodes of ``goals``; the one with the highest return lends its weights:
    with staged rewards it is the one that gets furthest. Without candidates a fresh policy begins.
    """
    policy, spent = fresh(seed, config), 0
    best, best_score = "", -math.inf
    for name, actor in starts.items():
        n = max(8, config.trials // len(goals))
        trials = [Trial(goal, n, seed + 17 * k) for k, goal in enumerate(goals)]
        runs = measure_all(actor, trials, threads=config.threads)
        spent += sum(run.steps for run in runs)
        score = float(np.mean([run.report.returns for run in runs if run.report.returns is not None]))
        if score > best_score:
            best, best_score = name, score
    if best:
        policy.load_arrays(starts[best].arrays())
        _widen(policy, config)
    return policy, best or "nothing", spent


def _widen(policy: MultiCriticPPO, config: PracticeConfig) -> None:
    """Gives a warm-started policy the spread to go on exploring, the gripper most of all."""
    with torch.no_grad():
        policy.networks.log_std.fill_(math.log(config.warm_std))
        policy.networks.log_std[-1] = math.log(max(config.cold_std, config.gripper_std))


def practise(
    policy: MultiCriticPPO,
    goals: list[str],
    steps: int,
    seed: int,
    config: PracticeConfig,
    *,
    warm: bool,
    kept: tuple[np.ndarray, np.ndarray] | None = None,
    kept_share: float = 0.0,
    on_iteration: Callable[[dict[str, float]], None] | None = None,
) -> PracticeOutcome:
    """Practises ``goals`` (of one family) for at least ``steps`` environment steps, or until they are learnt.

    Episodes run on after success, to the time limit, so that staying in the goal is what is learnt. ``warm`` gives the
    critics a head start on a policy that already acts well. A share
    ``kept_share`` of the episodes begins in one of ``kept`` (states, facts).
    """
    env = TabletopVectorEnv(
        config.num_envs, goals, max_steps=MAX_STEPS, terminate_on_success=False, threads=config.threads,
        kept=kept, kept_share=kept_share,
    )  # fmt: skip
    observation, _ = env.reset(seed=seed)
    env.elapsed[:] = np.random.default_rng(seed).integers(0, MAX_STEPS, config.num_envs)  # episodes end at all times
    actor = policy.networks.actor
    average = {name: weight.clone() for name, weight in actor.state_dict().items()}
    outcome = PracticeOutcome(policy, MultiCriticPPO(policy.config))
    delay = math.ceil(MAX_STEPS / config.rollout)
    guard = Rollback(policy, average, delay) if config.rollback else None

    def note(metrics: dict[str, float]) -> bool:
        times = metrics["iteration"] + 1
        decay = min(config.averaging, times / (times + 9.0))  # a short practice averages over less
        for name, weight in actor.state_dict().items():
            average[name].lerp_(weight, 1.0 - decay)
        if "success" in metrics:
            outcome.curve.append((int(metrics["steps"]), float(metrics["success"])))
        if on_iteration is not None:
            on_iteration(metrics)
        if guard is not None:
            guard.observe(metrics)
        lately = [success for _, success in outcome.curve[-config.settled :]]
        return bool(times >= 2 * config.settled and np.mean(lately) >= config.learnt)

    result = train_ppo(
        policy,
        env,
        steps,
        note,
        config.rollout,
        critic_warmup=config.critic_warmup if warm else 0,
        observation=observation,
    )
    outcome.steps = result.steps
    outcome.metrics = dict(result.metrics[-1])
    if guard is not None:
        outcome.metrics["rolled_back"] = guard.times
    outcome.average.load_arrays(policy.arrays())
    outcome.average.networks.actor.load_state_dict(average)
    env.close()
    return outcome
