"""A policy measured on any environment of the registry, native or of a suite.

Every slot plays a number of episodes fixed beforehand (slot i of n plays episodes i, i + n, i + 2n …), and what it does
after them is not counted: whoever takes the first episodes to end favours the short ones. Episode k of a slot begins as
the environment's seed, the slot and k say, so that a seed means the same starts for every policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied.core import EvalReport
from embodied.data.durable import replace_file
from embodied.training.rollouts import Actor, versions
from envs.registry import make_vector
from policies import load_policy

__all__ = ["EnvironmentReport", "EpisodeLine", "PolicyError", "evaluate_policy", "show", "write"]

BUILT_IN = ("random", "expert")


class PolicyError(ValueError):
    """A policy was named that cannot act there; the sentence says which can."""


@dataclass(frozen=True)
class EpisodeLine:
    """One episode: ``slot`` and ``turn`` (that slot's episode count) with the seed say how it began.

    ``success`` as the environment counts it, ``success_ever`` at any step, ``success_end`` at the last one.
    """

    episode: int
    slot: int
    turn: int
    seed: int
    success: bool
    success_ever: bool
    success_end: bool
    total_reward: float
    length: int
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class EnvironmentReport:
    """What was found: `report` has successes, lengths and returns by episode, the seed and the versions."""

    env: str
    policy: str
    num_envs: int
    report: EvalReport
    episodes: tuple[EpisodeLine, ...]
    success_counts: str
    limits: str

    def summary(self) -> dict[str, Any]:
        """Successes with their Wilson interval, mean return and length, seed, versions; ready for JSON."""
        found = self.report.summary()
        del found["goal"]
        lengths, returns = self.report.lengths, self.report.returns
        assert lengths is not None and returns is not None
        return {"env": self.env} | found | {
            "mean_return": float(returns.mean()), "mean_length": float(lengths.mean()),
            "successes_ever": sum(line.success_ever for line in self.episodes),
            "successes_end": sum(line.success_end for line in self.episodes),
            "success_counts": self.success_counts, "num_envs": self.num_envs, "limits": self.limits,
        }  # fmt: skip


class _Acts(Protocol):
    def __call__(self, observation: Any, begins: np.ndarray) -> np.ndarray: ...


def evaluate_policy(
    env_name: str,
    policy: str | Path | Actor,
    episodes: int = 50,
    seed: int = 0,
    *,
    num_envs: int = 10,
    threads: int = 0,
    deterministic: bool = True,
    on_steps: Callable[[int], None] | None = None,
    **arguments: Any,
) -> EnvironmentReport:
    """Plays ``episodes`` episodes of an environment and judges them by its own success flag.

    Args:
        policy: ``random``, ``expert`` (where the environment has one), a directory that a policy was saved to, or
            anything with ``predict``.
        num_envs: simulations stepped together, at most one an episode.
        on_steps: hears of the counted environment steps as they are taken.
        arguments: the environment's own (``max_steps=100``).

    Raises PolicyError for a policy that does not fit, and what the registry raises for an unknown environment.
    """
    if episodes < 1:
        raise PolicyError(f"{episodes} episodes measure nothing; at least 1 is needed")
    slots = min(num_envs, episodes)
    env = make_vector(env_name, slots, threads=threads, **arguments)
    try:
        act, name = _actor(env, env_name, policy, seed, deterministic)
        lines = _play(env, act, episodes, seed, on_steps)
        about = getattr(env, "limits", ""), getattr(env, "success_counts", "ever")
        stamp = versions() | (env.versions() if hasattr(env, "versions") else {})  # type: ignore[attr-defined]
    finally:
        env.close()
    success, lengths, returns = zip(*((line.success, line.length, line.total_reward) for line in lines), strict=True)
    report = EvalReport(
        env_name, name, seed, np.array(success, np.bool_), np.array(lengths, np.int64), np.array(returns, np.float64),
        versions=stamp,
    )  # fmt: skip
    return EnvironmentReport(env_name, name, slots, report, tuple(lines), about[1], about[0])


def write(found: EnvironmentReport, path: Path) -> tuple[Path, Path]:
    """Writes one JSON line an episode to ``path`` and the summary beside it (.json); both paths."""
    path = path.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"env": found.env, "policy": found.policy}
    lines = "".join(json.dumps(about | asdict(line), sort_keys=True) + "\n" for line in found.episodes)
    replace_file(path, lines.encode())
    replace_file(path.with_suffix(".json"), (json.dumps(found.summary(), indent=1, sort_keys=True) + "\n").encode())
    return path, path.with_suffix(".json")


def show(found: EnvironmentReport, console: Console) -> None:
    """The summary as a small table, with what the environment cannot do below it."""
    row = found.summary()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    percent = f"{row['rate']:.0%} [{100 * row['lower']:.0f}, {100 * row['upper']:.0f}]"
    for name, value in {
        "environment": found.env, "policy": found.policy, "seed": f"{row['seed']}, {found.num_envs} simulations",
        "success": f"{row['successes']} of {row['n']} episodes, {percent}",
        "mean return": f"{row['mean_return']:.2f}", "mean length": f"{row['mean_length']:.1f} control steps",
    }.items():  # fmt: skip
        table.add_row(name, Text(value))
    console.print(table)
    counted = {"ever": "at any step", "end": "at the last step"}[found.success_counts]
    stamp = ", ".join(f"{name} {number}" for name, number in found.report.versions.items())
    console.print(Text(f"success counts {counted} of an episode; {stamp}"), soft_wrap=True)
    if found.limits:
        console.print(Text(found.limits, style="dim"), soft_wrap=True)


def _play(
    env: VectorEnv, act: _Acts, episodes: int, seed: int, on_steps: Callable[[int], None] | None
) -> list[EpisodeLine]:
    if env.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
        raise PolicyError(f"episodes are counted in autoreset mode SameStep, not {env.metadata['autoreset_mode']}")
    n = env.num_envs
    counts_end = getattr(env, "success_counts", "ever") == "end"
    quota = np.array([len(range(slot, episodes, n)) for slot in range(n)])
    turn, length, ever, total = np.zeros(n, int), np.zeros(n, int), np.zeros(n, np.bool_), np.zeros(n)
    begins, lines = np.ones(n, np.bool_), []
    observation, _ = env.reset(seed=seed)
    while (counted := turn < quota).any():
        observation, reward, terminated, truncated, info = env.step(act(observation, begins))
        success = np.asarray(info["success"], np.bool_)
        length += 1
        total += reward
        ever |= success
        if on_steps is not None:
            on_steps(int(counted.sum()))
        begins = np.asarray(terminated | truncated)
        for slot in np.flatnonzero(begins):
            if counted[slot]:
                end = bool(success[slot])
                lines.append(EpisodeLine(
                    int(turn[slot] * n + slot), int(slot), int(turn[slot]), seed,
                    end if counts_end else bool(ever[slot]), bool(ever[slot]), end,
                    float(total[slot]), int(length[slot]), bool(terminated[slot]), bool(truncated[slot]),
                ))  # fmt: skip
        turn[begins] += 1
        length[begins], total[begins], ever[begins] = 0, 0.0, False
    return sorted(lines, key=lambda line: line.episode)


def _actor(
    env: VectorEnv, env_name: str, policy: str | Path | Actor, seed: int, deterministic: bool
) -> tuple[_Acts, str]:
    """What acts, and how it is called in the report."""
    if isinstance(policy, str) and policy == "random":
        env.action_space.seed(seed)
        return lambda observation, begins: env.action_space.sample(), "random"
    if isinstance(policy, str) and policy == "expert":
        return _expert(env, env_name), "expert"
    name = type(policy).__name__
    if isinstance(policy, str | Path):
        name, directory = str(policy), Path(policy)
        if not directory.is_dir():
            raise PolicyError(
                f"there is no policy '{policy}': give {', '.join(BUILT_IN)} or the directory of a saved policy"
            )
        policy = load_policy(directory)
        policy.seed(seed)
    _check_fit(env, env_name, policy)
    memory: Any = None

    def act(observation: Any, begins: np.ndarray) -> np.ndarray:
        nonlocal memory
        action, memory = policy.predict(observation, memory, begins, deterministic=deterministic)
        return action

    return act, name


def _check_fit(env: VectorEnv, env_name: str, policy: Actor) -> None:
    """PolicyError where a policy was made for other shapes."""
    there = tuple(gym.spaces.flatdim(space) for space in (env.single_observation_space, env.single_action_space))
    needed = tuple(getattr(policy, f"{what}_size", None) for what in ("observation", "action"))
    if None not in needed and there != needed:
        raise PolicyError(
            f"the policy maps {needed[0]} numbers to {needed[1]}; {env_name} has observations "
            f"{env.single_observation_space} and actions {env.single_action_space}"
        )


def _expert(env: VectorEnv, env_name: str) -> _Acts:
    """The environment's own expert. PolicyError, naming those who have one, where there is none."""
    if hasattr(env, "scripted_policy"):
        script = env.scripted_policy()  # type: ignore[attr-defined]
        return lambda observation, begins: script.predict(observation)[0]
    if hasattr(env, "expert"):
        return env.expert()  # type: ignore[attr-defined]
    raise PolicyError(
        f"{env_name} has no expert; tabletop, playroom, ogbench/cube-…, ogbench/puzzle-…, fetch/reach have one"
    )
