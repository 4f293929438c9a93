"""A training's world and its untrained learner, from its configuration; what does not fit is one sentence."""

from __future__ import annotations

import inspect

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm

from embodied.cli.learners import TrainConfig
from envs.registry import UnknownEnvError, make_vector, native
from policies.sb3 import SB3Policy
from policies.sb3_learners import is_goal_env, make_learner
from policies.sb3_vec_env import SB3VecEnv

__all__ = ["TrainingError", "make_learner_of", "make_world"]


class TrainingError(ValueError):
    """A learner cannot learn on this world as configured; the sentence says why."""


def make_world(config: TrainConfig, slots: int) -> VectorEnv:
    """The world with so many slots; TrainingError for what its constructor refuses, which is the user's to mend."""
    arguments = dict(config.world)
    if config.threads and _native_id(config.env):
        arguments.setdefault("threads", config.threads)
    try:
        return make_vector(config.env, slots, **arguments)
    except UnknownEnvError:
        raise
    except (TypeError, ValueError) as error:
        unknown = [key for key in config.world if f"unexpected keyword argument '{key}'" in str(error)]
        reason = f"it takes no '{unknown[0]}'; {_arguments(config.env)}" if unknown else str(error)
        raise TrainingError(f"cannot make {config.env} with {config.world or 'no arguments'}: {reason}") from error


def _native_id(name: str) -> str | None:
    """The gymnasium id of a world of ours, None for a suite's."""
    known = native()
    return known.get(name.lower(), name if name in known.values() else None)


def _arguments(name: str) -> str:
    """What a world's constructor takes, in words."""
    full = _native_id(name)
    entry = gymnasium.spec(full).vector_entry_point if full else None
    if not isinstance(entry, str):
        return "see its documentation"
    taken: dict[str, None] = {}
    for kind in getattr(load_env_creator(entry), "__mro__", ()):  # a class hands on what it does not name itself
        found = inspect.signature(kind.__init__).parameters.values() if "__init__" in vars(kind) else ()
        taken |= dict.fromkeys(item.name for item in found if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL))
    return f"valid: {', '.join(key for key in taken if key not in ('self', 'num_envs'))}"


def make_learner_of(config: TrainConfig, env: VectorEnv) -> BaseAlgorithm:
    """The untrained learner on a world, its replay buffer no larger than the training.

    Raises TrainingError where they do not fit: no goals for hindsight, another autoreset mode, actions that are no box.
    """
    policy, settings, extra = config.policy, config.policy.settings(), {}
    try:
        adapter = SB3VecEnv(env)
        if policy.hindsight:
            if not is_goal_env(adapter):
                raise ValueError("hindsight needs a goal environment: dict observations with goals and compute_reward")
            extra["hindsight"] = {key: getattr(policy, key) for key in policy.hindsight}
            horizon = adapter.get_attr("max_steps")[0] if adapter.has_attr("max_steps") else 0
            settings["learning_starts"] = max(settings["learning_starts"], config.num_envs * (horizon + 1))
        if "buffer_size" in settings:  # a margin, so that it is not full before the configured size is reached
            settings["buffer_size"] = min(settings["buffer_size"], config.steps + 2 * config.num_envs)
        model = make_learner(
            policy.algorithm, adapter, settings, seed=config.seed, device=config.device,
            net_arch=getattr(policy, "net_arch", ()), action_noise=getattr(policy, "action_noise", 0.0),
            normalise=getattr(policy, "normalise", False), log_std_init=getattr(policy, "log_std_init", 0.0), **extra,
        )  # fmt: skip
        SB3Policy.from_algorithm(model)  # what cannot be kept in the end is refused now
        return model
    except ValueError as error:
        raise TrainingError(f"{policy.name} cannot learn on {config.env}: {error}") from error
