"""stable-baselines3's learners, made by name, and their whole learning state as arrays instead of pickles.

    model = make_learner("sac", SB3VecEnv(env), {"gamma": 0.95}, seed=0, hindsight={"n_sampled_goal": 4})
    begin_stretch(model, seed=1)
    model.learn(10_000, reset_num_timesteps=False)
    arrays, counts = learner_arrays(model)      # weights, optimisers, replay buffer; steps and updates
    load_learner(same_kind_of_model, arrays, counts)

A *stretch* is what is learnt between two points at which learning may be interrupted. It begins with new episodes and
with every random stream seeded, so that what follows depends on the arrays, the counts and the seed alone: learning
that was interrupted between two stretches equals learning that was not. Episodes that run when a stretch ends are cut
there: their transitions stay and bootstrap from the value of the last observation, as at a time limit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer

from policies.checkpoint import Arrays, CheckpointError
from policies.sb3 import ALGORITHMS, CLIP, EPSILON, MOMENTS, running_moments
from policies.sb3_vec_env import SB3VecEnv

__all__ = ["GOAL_KEYS", "begin_stretch", "is_goal_env", "learner_arrays", "load_learner", "make_learner"]

GOAL_KEYS = ("achieved_goal", "desired_goal", "observation")
COUNTS = ("num_timesteps", "_n_updates", "_episode_num")  # what learning counts: delayed updates depend on it
BUFFER = "replay_buffer"
RUNNING = ("mean", "var", "count")  # what a running moment consists of
VARIABLES = ("log_ent_coef",)  # a learner's single tensors, where it has them


def is_goal_env(env: SB3VecEnv) -> bool:
    """Whether hindsight replay can be used: the three parts of a goal observation, and ``compute_reward``."""
    space = env.observation_space
    return isinstance(space, spaces.Dict) and set(GOAL_KEYS) <= set(space) and env.has_attr("compute_reward")


def make_learner(
    algorithm: str,
    env: SB3VecEnv,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
    device: str = "cpu",
    net_arch: Iterable[int] = (256, 256),
    action_noise: float = 0.0,
    hindsight: Mapping[str, Any] | None = None,
    normalise: bool = False,
    log_std_init: float = 0.0,
) -> BaseAlgorithm:
    """An untrained learner of stable-baselines3, as it is.

    Args:
        algorithm: a key of `ALGORITHMS`.
        env: what it learns on; a dict observation gets a policy with an input for each part.
        settings: arguments of the learner's constructor.
        net_arch: widths of the hidden layers, of actor and critics alike.
        action_noise: standard deviation of the Gaussian noise on actions, for deterministic actors.
        hindsight: arguments of ``HerReplayBuffer`` (Andrychowicz et al. 2017); None: no hindsight.
        normalise: learn from observations of mean 0 and standard deviation 1, by ``VecNormalize``'s running moments.
        log_std_init: logarithm of the actions' standard deviation at first, for on-policy learners.

    Raises ValueError for an unknown algorithm, and for hindsight on an environment without goals.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"Unknown algorithm {algorithm!r}; valid: {', '.join(ALGORITHMS)}.")
    extra: dict[str, Any] = {}
    networks: dict[str, Any] = {"net_arch": list(net_arch)}
    if log_std_init != 0.0:
        networks["log_std_init"] = log_std_init
    if action_noise > 0:
        width = env.action_space.shape or (1,)
        extra["action_noise"] = NormalActionNoise(np.zeros(width), np.full(width, action_noise))
    if hindsight is not None:
        if not is_goal_env(env):
            raise ValueError(
                f"Hindsight replay needs dict observations ({', '.join(GOAL_KEYS)}) and a compute_reward; "
                f"this environment has {env.observation_space}."
            )
        extra |= {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": dict(hindsight)}
    return getattr(stable_baselines3, ALGORITHMS[algorithm])(
        "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy",
        VecNormalize(env, norm_reward=False, clip_obs=CLIP, epsilon=EPSILON) if normalise else env,
        seed=seed,
        device=device,
        policy_kwargs=networks,
        **settings,
        **extra,
    )


def begin_stretch(model: BaseAlgorithm, seed: int) -> None:
    """Cuts running episodes and seeds everything that is random; the next ``learn`` begins with new episodes."""
    env, buffer = model.get_env(), getattr(model, BUFFER, None)
    assert env is not None
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():  # it warns of what is meant to happen here
            warnings.simplefilter("ignore")
            buffer.truncate_last_trajectory()
    model.set_env(env, force_reset=True)
    model.set_random_seed(seed % (1 << 31))
    model.ep_info_buffer = model.ep_success_buffer = None  # running means of the scalars, made anew by `learn`


def learner_arrays(model: BaseAlgorithm) -> tuple[Arrays, dict[str, int]]:
    """All that learning goes on from at the beginning of a stretch: arrays by name, and counts."""
    arrays: Arrays = {}
    for name, state in model.get_parameters().items():
        if "param_groups" in state:
            for index, entries in state["state"].items():
                arrays |= {f"{name}/{index}/{entry}": _array(value) for entry, value in entries.items()}
        else:
            arrays |= {f"{name}/{key}": _array(value) for key, value in state.items()}
    for name in VARIABLES:
        if isinstance(value := getattr(model, name, None), torch.Tensor):
            arrays[name] = _array(value)
    for key, found in running_moments(model).items():
        arrays |= {f"{MOMENTS}/{key}/{name}": np.array(getattr(found, name), np.float64) for name in RUNNING}
    counts = {name: int(getattr(model, name)) for name in COUNTS}
    buffer = getattr(model, BUFFER, None)
    if buffer is not None:
        counts |= {"pos": int(buffer.pos), "full": int(buffer.full)}
        arrays |= {f"{BUFFER}/{name}": rows[: buffer.size()].copy() for name, rows in _rows(buffer).items()}
        if isinstance(buffer, HerReplayBuffer):
            arrays[f"{BUFFER}/_current_ep_start"] = buffer._current_ep_start.copy()
    return arrays, counts


def load_learner(model: BaseAlgorithm, arrays: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> None:
    """Put back what `learner_arrays` gave; CheckpointError where it is another kind of learner's."""
    try:
        parameters: dict[str, Any] = {
            name: _state(name, state, arrays) for name, state in model.get_parameters().items()
        }
        model.set_parameters(parameters, exact_match=True)
        for name in VARIABLES:
            if isinstance(value := getattr(model, name, None), torch.Tensor):
                with torch.no_grad():
                    value.copy_(torch.from_numpy(np.array(arrays[name])))
        for key, found in running_moments(model).items():
            for name in RUNNING:
                kept = np.array(arrays[f"{MOMENTS}/{key}/{name}"])
                setattr(found, name, kept if kept.ndim else float(kept))
        for name in COUNTS:
            setattr(model, name, int(counts[name]))
        buffer = getattr(model, BUFFER, None)
        if buffer is not None:
            buffer.pos, buffer.full = int(counts["pos"]), bool(counts["full"])
            for name, rows in _rows(buffer).items():
                rows[: buffer.size()] = arrays[f"{BUFFER}/{name}"]
            if isinstance(buffer, HerReplayBuffer):
                buffer._current_ep_start[:] = arrays[f"{BUFFER}/_current_ep_start"]
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"The stored learning state does not fit this learner: {reason}.") from None


def _state(name: str, own: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The state dict of a module or an optimiser from its arrays; rates and betas are the configuration's."""
    prefix = f"{name}/"
    stored = {key[len(prefix) :]: torch.from_numpy(np.array(a)) for key, a in arrays.items() if key.startswith(prefix)}
    if "param_groups" not in own:
        return stored
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in stored.items():
        index, _, entry = key.partition("/")
        entries.setdefault(int(index), {})[entry] = tensor
    return {"state": entries, "param_groups": own["param_groups"]}


def _rows(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """The buffer's columns by name, each [rows, slots, …], those of dict observations as "observations/part"."""
    found: dict[str, np.ndarray] = {}
    for name, value in vars(buffer).items():
        columns = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        for key, column in columns.items():
            if isinstance(column, np.ndarray) and column.dtype != object and column.shape[:1] == (buffer.buffer_size,):
                found[key] = column
    return found


def _array(value: torch.Tensor | float) -> np.ndarray:
    return torch.as_tensor(value).detach().cpu().numpy().copy()
