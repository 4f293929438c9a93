"""Practice: collect experience in a vector environment, learn from it, repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from policies.base import as_batch

if TYPE_CHECKING:
    from policies.multi_critic_ppo import MultiCriticPPO
    from policies.multi_critic_sac import MultiCriticSAC


class VectorEnvironment(Protocol):
    """What is asked of an environment: gymnasium's VectorEnv in autoreset mode SAME_STEP.

    `reset(seed=...)` gives float32[n, D], alone or first in a tuple. `step(actions)` gives observation,
    reward, terminated, truncated, info: `info["reward_terms"]` is float[n, K] and, where an episode ended,
    `info["final_obs"]` holds its true last observation; `observation` is already the next episode's first.
    """

    def reset(self, *, seed: Any = None) -> Any: ...

    def step(self, actions: Any, /) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...


@dataclass(frozen=True)
class PracticeResult:
    """What `train_ppo` or `train_sac` did."""

    metrics: list[dict[str, float]]  # one an iteration
    observation: np.ndarray  # float32[n, D], where the environment stands: pass it on to continue
    steps: int  # environment steps taken


def train_ppo(
    policy: MultiCriticPPO,
    env: VectorEnvironment,
    steps: int,
    on_iteration: Callable[[dict[str, float]], bool | None] | None = None,
    rollout_length: int = 40,
    *,
    critic_warmup: int = 0,
    observation: np.ndarray | None = None,
    seed: int | None = None,
) -> PracticeResult:
    """Practise: alternate rollouts and updates until at least `steps` environment steps have been taken.

    Args:
        env: see `VectorEnvironment`; it receives actions clipped to [-1, 1].
        on_iteration: called with each iteration's metrics; returning True ends practice.
        critic_warmup: number of first iterations in which the critics alone learn.
        observation: continue an environment from here; without it, `env.reset(seed=seed)`.

    The metrics are those of `update`, with iteration, steps, episodes (ended in this iteration),
    reward/NAME (mean a step) and, where `info["success"]` is given, success (share of ended episodes).
    """
    heads = len(policy.config.reward_names)
    current = _initial_observation(env.reset(seed=seed)) if observation is None else observation
    current = as_batch(current, policy.observation_size)
    slots = len(current)
    if policy.networks.norm.count == 0:
        policy.networks.norm.update(torch.from_numpy(current))
    rollout = policy.new_rollout(rollout_length, slots)
    history: list[dict[str, float]] = []
    for iteration in range(math.ceil(steps / (rollout_length * slots))):
        rollout.clear()
        successes = episodes = 0
        judged = False
        while not rollout.full:
            action, log_prob, mean, _ = policy.act(current)
            following, reward, terminated, truncated, info = env.step(action.clamp(-1.0, 1.0).numpy())
            following = as_batch(following, policy.observation_size)
            terms = _reward_terms(reward, info, heads)
            final = info.get("final_obs")
            rollout.add(current, action, log_prob, mean, terms, terminated, truncated, following, final)
            done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
            episodes += int(done.sum())
            if "success" in info:
                judged, successes = True, successes + int(np.asarray(info["success"])[done].sum())
            current = following.copy()
        metrics = policy.update(rollout, critic_only=iteration < critic_warmup)
        taken = (iteration + 1) * rollout_length * slots
        metrics |= {"iteration": iteration, "steps": taken, "episodes": episodes}
        means = rollout.rewards.mean((0, 1)).tolist()
        metrics |= {f"reward/{n}": value for n, value in zip(policy.config.reward_names, means, strict=True)}
        if judged and episodes:
            metrics["success"] = successes / episodes
        history.append(metrics)
        if on_iteration is not None and on_iteration(metrics):
            break
    return PracticeResult(history, current, len(history) * rollout_length * slots)


def train_sac(
    policy: MultiCriticSAC,
    env: VectorEnvironment,
    steps: int,
    on_iteration: Callable[[dict[str, float]], bool | None] | None = None,
    iteration_length: int = 40,
    *,
    updates_per_step: float = 1.0,
    random_steps: int = 1000,
    observation: np.ndarray | None = None,
    seed: int | None = None,
) -> PracticeResult:
    """Practise off-policy until at least `steps` environment steps more have been taken.

    Args:
        env: see `VectorEnvironment`; it receives actions within [-1, 1].
        on_iteration: called with each iteration's metrics; returning True ends practice.
        iteration_length: calls of `env.step` an iteration.
        updates_per_step: gradient steps an environment step of one slot; may be a fraction.
        random_steps: actions are uniform, and nothing is learnt, until the policy remembers as many steps in all.
        observation: continue an environment from here; without it, `env.reset(seed=seed)`.

    The metrics are those of `update`, averaged over the iteration, with iteration, steps, updates, episodes
    (ended in this iteration), reward/NAME (mean a step) and, where `info["success"]` is given, success.
    """
    if not 0 <= updates_per_step < math.inf:
        raise ValueError(f"updates_per_step must be at least 0 and finite; found {updates_per_step}.")
    heads = len(policy.config.reward_names)
    current = _initial_observation(env.reset(seed=seed)) if observation is None else observation
    current = as_batch(current, policy.observation_size)
    slots = len(current)
    history: list[dict[str, float]] = []
    for iteration in range(math.ceil(steps / (iteration_length * slots))):
        successes = episodes = updates = 0
        judged = False
        rewards, totals = np.zeros(heads), dict[str, float]()
        for _ in range(iteration_length):
            action = policy.act(current, random=policy.steps < random_steps)
            following, reward, terminated, truncated, info = env.step(action.numpy())
            following = as_batch(following, policy.observation_size)
            terms = _reward_terms(reward, info, heads)
            before = policy.steps
            policy.remember(current, action, terms, terminated, truncated, following, info.get("final_obs"))
            if policy.steps >= random_steps:
                # counted from the policy's first step, so that interrupted practice owes no fraction of an update
                due = math.floor(policy.steps * updates_per_step) - math.floor(before * updates_per_step)
                for _ in range(due):
                    for name, value in policy.update().items():
                        totals[name] = totals.get(name, 0.0) + value
                updates += due
            done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
            episodes += int(done.sum())
            rewards += terms.mean(0)
            if "success" in info:
                judged, successes = True, successes + int(np.asarray(info["success"])[done].sum())
            current = following.copy()
        metrics = {name: total / updates for name, total in totals.items()}
        taken = (iteration + 1) * iteration_length * slots
        metrics |= {"iteration": iteration, "steps": taken, "updates": updates, "episodes": episodes}
        means = (rewards / iteration_length).tolist()
        metrics |= {f"reward/{n}": value for n, value in zip(policy.config.reward_names, means, strict=True)}
        if judged and episodes:
            metrics["success"] = successes / episodes
        history.append(metrics)
        if on_iteration is not None and on_iteration(metrics):
            break
    return PracticeResult(history, current, len(history) * iteration_length * slots)


def _initial_observation(reset_result: Any) -> np.ndarray:
    """The observations float32[n, D] of a `reset`, which may come with an info dictionary."""
    observation = reset_result[0] if isinstance(reset_result, tuple) else reset_result
    return np.array(observation, dtype=np.float32)


def _reward_terms(reward: Any, info: dict[str, Any], heads: int) -> np.ndarray:
    """float32[n, K] from a step's result; the plain reward serves where only one head is asked for."""
    if "reward_terms" in info:
        return np.asarray(info["reward_terms"], dtype=np.float32)
    if heads != 1:
        raise ValueError(f'The environment gives no info["reward_terms"], which {heads} reward heads need.')
    return np.asarray(reward, dtype=np.float32)[:, None]
