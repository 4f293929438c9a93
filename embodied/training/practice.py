"""Practice: a policy learns a skill schema by trial, one critic a reward, from the best start at hand.

Where it starts from is decided by measurement: the play policy's own successes on the goal (cloned), an admitted skill
that already gets part of the way, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from embodied.training.rollouts import MAX_STEPS, Actor, measure
from envs.observations import FEATURES
from envs.rewards import REWARD_TERMS
from envs.vector import ACTIONS, TabletopVectorEnv
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig, train_ppo

__all__ = ["PracticeConfig", "PracticeOutcome", "begin", "practise"]


@dataclass(frozen=True)
class PracticeConfig:
    """How practice is done; weights belong to `envs.rewards.REWARD_TERMS` (task, reach, safety)."""

    num_envs: int = 192
    rollout: int = 32
    weights: tuple[float, ...] = (1.0, 0.3, 0.15)
    warm_std: float = 0.3
    cold_std: float = 0.5
    critic_warmup: int = 3  # rollouts in which only the critics of a warm-started policy learn
    trials: int = 100  # episodes a candidate start is measured on, a grounding
    clone_epochs: int = 12
    threads: int = 0


@dataclass
class PracticeOutcome:
    """A practised policy, the success rates of its rollouts over environment steps, and what it began from."""

    policy: MultiCriticPPO
    curve: list[tuple[int, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0


def begin(
    goals: list[str],
    starts: Mapping[str, Actor],
    seed: int,
    config: PracticeConfig,
) -> tuple[MultiCriticPPO, str, int]:
    """A policy to practise with: (policy, what it began from, environment steps spent on choosing).

    Each candidate in ``starts`` is run on ``goals``. The one with the most success is cloned from its successful
    episodes (at least 8 of them); among practised skills without any success, the one with the highest return on the
    goals lends its weights; else a fresh policy.
    """
    policy = MultiCriticPPO(
        MultiCriticPPOConfig(
            FEATURES, ACTIONS["tool"], REWARD_TERMS, weights=config.weights, initial_std=config.cold_std,
            advantage_floor=0.05, critic_hidden=(128, 128), epochs=3, minibatch=1536, seed=seed % (1 << 31),
        )
    )  # fmt: skip
    spent, best, best_score, steps_of = 0, "", -math.inf, {}
    for name, actor in starts.items():
        runs = [
            measure(actor, goal, config.trials, seed + 17 * k, threads=config.threads, keep_steps=True)
            for k, goal in enumerate(goals)
        ]
        spent += sum(run.steps for run in runs)
        successes = sum(run.report.successes for run in runs)
        returns = float(np.mean([run.report.returns for run in runs]))
        found = [run for run in runs if run.observations is not None]
        score = 1000.0 * successes / (config.trials * len(goals)) + returns if successes >= 8 else returns
        if successes < 8 and not isinstance(actor, MultiCriticPPO):
            continue
        if score > best_score:
            best, best_score = name, score
            steps_of = {"runs": found, "successes": successes}
    if not best:
        return policy, "nothing", spent
    chosen = starts[best]
    if isinstance(chosen, MultiCriticPPO):
        policy.load_arrays(chosen.arrays())
        with torch.no_grad():
            policy.networks.log_std.fill_(math.log(config.warm_std))
        return policy, best, spent
    features = np.concatenate([run.observations for run in steps_of["runs"]])
    actions = np.concatenate([run.actions for run in steps_of["runs"]])
    policy.warm_start_actor(features, actions, epochs=config.clone_epochs, std=config.warm_std)
    return policy, f"{best}: {steps_of['successes']} successes cloned", spent


def practise(
    policy: MultiCriticPPO,
    goals: list[str],
    steps: int,
    seed: int,
    config: PracticeConfig,
    *,
    warm: bool,
    on_iteration: Callable[[dict[str, float]], None] | None = None,
) -> PracticeOutcome:
    """Practises ``goals`` (one schema's groundings) for at least ``steps`` environment steps.

    Episodes run on after success, to the time limit, so that staying in the goal is what is learnt. ``warm`` gives the
    critics a head start on a policy that already acts well.
    """
    env = TabletopVectorEnv(
        config.num_envs, goals, max_steps=MAX_STEPS, terminate_on_success=False, threads=config.threads
    )
    observation, _ = env.reset(seed=seed)
    env.elapsed[:] = np.random.default_rng(seed).integers(0, MAX_STEPS, config.num_envs)  # episodes end at all times
    outcome = PracticeOutcome(policy)

    def note(metrics: dict[str, float]) -> None:
        if "success" in metrics:
            outcome.curve.append((int(metrics["steps"]), float(metrics["success"])))
        if on_iteration is not None:
            on_iteration(metrics)

    result = train_ppo(
        policy, env, steps, note, config.rollout, critic_warmup=config.critic_warmup if warm else 0, observation=observation
    )
    outcome.steps = result.steps
    outcome.metrics = dict(result.metrics[-1])
    env.close()
    return outcome

