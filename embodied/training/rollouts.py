"""Running policies in the world: measured episodes, recorded episodes.

Episode i of an evaluation is the first reset of slot i under its seed, so the same seed means the same starts for
every policy, whatever the others do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode

from embodied import __version__
from embodied.core import Episode, EvalReport
from embodied.training.kept import KeptStates
from envs.goals import Goal
from envs.vector import ENV_ID, TabletopVectorEnv

__all__ = ["MAX_STEPS", "Actor", "Measured", "measure", "versions"]

MAX_STEPS = 120  # control steps a skill may take (6 s)


class Actor(Protocol):
    """What acts: a policy, by stable-baselines3's protocol."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]: ...


def versions() -> dict[str, str]:
    """The versions that stand in every dataset and report: ours, mujoco's, gymnasium's, numpy's."""
    return {
        "embodied": __version__,
        "mujoco": mujoco.__version__,
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
    }


@dataclass
class Measured:
    """What came of n episodes on one goal.

    start and end float64[n, NX] are the facts at the reset and at each episode's end; ``observations`` and
    ``actions`` (features float32[m, F], float32[m, A]) are the steps of successful episodes, if they were asked for.
    """

    report: EvalReport
    start: np.ndarray
    end: np.ndarray
    steps: int  # environment steps taken
    episodes: list[Episode] = field(default_factory=list)
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None


def measure(
    policy: Actor,
    goal: str,
    n: int,
    seed: int,
    *,
    artifact: str = "",
    max_steps: int = MAX_STEPS,
    threads: int = 0,
    free_starts: bool = False,
    record: int = 0,
    source: str = "evaluation",
    keep_steps: bool = False,
    kept: KeptStates | None = None,
    starts: tuple[np.ndarray, np.ndarray] | None = None,
    deterministic: bool = True,
) -> Measured:
    """Runs n fresh episodes of ``goal`` and judges them by the simulator's predicates.

    ``record`` episodes are kept whole; ``keep_steps`` keeps the (features, action) pairs of the successful ones.
    ``free_starts`` draws starts without regard to the goal. ``kept`` is given the states in which episodes end;
    half of the episodes begin in one of ``starts`` (states, facts), where the goal can be reached from one.
    """
    env = TabletopVectorEnv(
        n, [goal], max_steps=max_steps, autoreset_mode=AutoresetMode.DISABLED, threads=threads,
        free_starts=free_starts, kept=starts,
    )  # fmt: skip
    observation, _ = env.reset(seed=seed)
    start = env.facts.copy()
    initial = env.get_state(np.arange(min(record, n)))
    success, alive = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    bad = np.zeros(n, np.bool_)
    lengths, returns = np.full(n, max_steps), np.zeros(n)
    end = start.copy()
    state, begins = None, np.ones(n, np.bool_)
    facts_log, action_log, term_log, feature_log = [start[:record].astype(np.float32)], [], [], []
    steps = 0
    for step in range(max_steps):
        action, state = policy.predict(observation, state, begins, deterministic=deterministic)
        begins = np.zeros(n, np.bool_)
        if keep_steps:
            feature_log.append(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        steps += int(alive.sum())
        returns += np.where(alive, reward, 0.0)
        ended = alive & (terminated | truncated)
        success |= ended & info["success"]
        bad |= alive & info["bad_physics"]
        lengths[ended] = step + 1
        end[alive] = env.facts[alive]
        if kept is not None and ended.any():
            kept.look(env, np.flatnonzero(ended))
        if record or keep_steps:
            action_log.append(np.asarray(action, np.float32))
        if record:
            facts_log.append(env.facts[:record].astype(np.float32))
            term_log.append(env.terms[:record].astype(np.float32))
        alive &= ~ended
        if not alive.any():
            break
    report = EvalReport(goal, artifact, seed, success, lengths, returns, versions=versions())
    out = Measured(report, start, end, steps)
    if record:
        out.episodes = _episodes(
            goal,
            artifact,
            seed,
            source,
            success,
            lengths,
            initial,
            np.stack(facts_log),
            np.stack(action_log),
            np.stack(term_log),
        )
    if keep_steps and success.any():
        took = np.arange(len(action_log))[:, None] < lengths[None]
        keep = took & success[None]
        out.observations, out.actions = np.stack(feature_log)[keep], np.stack(action_log)[keep]
    env.close()
    return out


def _episodes(
    goal: str, artifact: str, seed: int, source: str, success: np.ndarray, lengths: np.ndarray, initial: np.ndarray,
    facts: np.ndarray, actions: np.ndarray, terms: np.ndarray,
) -> list[Episode]:  # fmt: skip
    """Cuts logs [T(+1), record, …] into episodes."""
    instruction = Goal.parse(goal).text()
    found = []
    for i in range(facts.shape[1]):
        length = int(min(lengths[i], len(actions)))
        if not np.isfinite(facts[: length + 1, i]).all():
            continue
        last = np.zeros(length, np.bool_)
        last[-1] = True
        found.append(
            Episode(
                observations=np.ascontiguousarray(facts[: length + 1, i]),
                actions=np.ascontiguousarray(actions[:length, i]),
                rewards=np.ascontiguousarray(terms[:length, i]),
                terminations=last & bool(success[i]),
                truncations=last & (not bool(success[i])),
                states=initial[i : i + 1].copy(),
                state_steps=np.zeros(1, np.int64),
                success=bool(success[i]), goal=goal, instruction=instruction, source=source, policy=artifact,
                env=ENV_ID, seed=seed, versions=versions(),
            )
        )  # fmt: skip
    return found
