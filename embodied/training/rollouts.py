"""Running policies in the world: measured episodes, recorded episodes.

Episode i of a trial is the first reset of slot i under its seed, so the same seed means the same starts for every
policy, whatever else is measured beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

__all__ = ["MAX_STEPS", "Actor", "Begun", "Measured", "Trial", "draw", "measure", "measure_all", "versions"]

MAX_STEPS = 120  # control steps a skill may take (6 s)
WIDTH = 192  # episodes at work at once, where that many wait


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


@dataclass(frozen=True)
class Trial:
    """What is asked: n fresh episodes of a goal under a seed, the first ``record`` of them kept whole."""

    goal: str
    n: int
    seed: int
    record: int = 0


@dataclass(frozen=True)
class Begun:
    """What episodes begin with: states float64[n, S], the goal's places float64[n, 4, 2] and facts float64[n, NX]."""

    states: np.ndarray
    places: np.ndarray
    facts: np.ndarray


@dataclass
class Measured:
    """What came of a trial. start and end float64[n, NX] are the facts at each episode's begin and end."""

    report: EvalReport
    start: np.ndarray
    end: np.ndarray
    steps: int  # environment steps taken
    episodes: list[Episode] = field(default_factory=list)


def measure(policy: Actor, goal: str, n: int, seed: int, *, record: int = 0, **how: Any) -> Measured:
    """One trial; ``how`` as for `measure_all`."""
    return measure_all(policy, [Trial(goal, n, seed, record)], **how)[0]


def measure_all(
    policy: Actor,
    trials: Sequence[Trial],
    *,
    artifact: str = "",
    max_steps: int = MAX_STEPS,
    threads: int = 0,
    free_starts: bool = False,
    run_on: bool = False,
    source: str = "evaluation",
    kept: KeptStates | None = None,
    starts: tuple[np.ndarray, np.ndarray] | None = None,
    deterministic: bool = True,
    begun: Sequence[Begun] = (),
    on_steps: Callable[[int], None] | None = None,
) -> list[Measured]:
    """Runs every episode of every trial and judges them by the simulator's predicates.

    Episodes wait in one line for the next free slot, so that none idles while others finish; what comes of one does
    not depend on that. ``run_on``: episodes go on after success.
    ``free_starts`` draws starts without regard to the goal. ``kept`` is given the states in which
    episodes end; half of the episodes begin in one of ``starts`` (states, facts), where the goal can be reached from
    one. ``begun`` says what each trial's episodes begin with, where that is not to be drawn. ``on_steps`` hears of
    environment steps as they are taken.
    """
    if not trials:
        return []
    goals = list(dict.fromkeys(trial.goal for trial in trials))
    sizes = np.array([trial.n for trial in trials])
    total = int(sizes.sum())
    slots = max(int(sizes.max()), min(total, WIDTH))
    env = TabletopVectorEnv(
        slots, goals, max_steps=max_steps, autoreset_mode=AutoresetMode.DISABLED, threads=threads,
        free_starts=free_starts, kept=starts, terminate_on_success=not run_on,
    )  # fmt: skip
    which = np.repeat([goals.index(trial.goal) for trial in trials], sizes)
    recorded = np.concatenate([np.arange(trial.n) < trial.record for trial in trials])
    begun = begun or [draw(env, trial, goals.index(trial.goal)) for trial in trials]
    states, places, start = (
        np.concatenate([getattr(b, name) for b in begun]) for name in ("states", "places", "facts")
    )
    success, lengths, returns = np.zeros(total, np.bool_), np.zeros(total, np.int64), np.zeros(total)
    end = start.copy()
    log: list[tuple[np.ndarray, ...]] = []  # (episode, facts after the action, action, terms) of recorded episodes
    running, following = np.arange(slots), slots  # each slot's episode; the next one in line
    env.resume(running, states[:slots], which[:slots], places[:slots])
    alive, begins, memory = np.ones(slots, np.bool_), np.ones(slots, np.bool_), None
    while alive.any():
        action, memory = policy.predict(env.observation(), memory, begins, deterministic=deterministic)
        begins = np.zeros(slots, np.bool_)
        _, reward, terminated, truncated, info = env.step(action)
        now = running[alive]
        lengths[now] += 1
        returns[now] += reward[alive]
        rows = np.flatnonzero(alive & recorded[running])
        if rows.size:
            columns = (env.facts[rows], np.asarray(action)[rows], env.terms[rows])
            log.append((running[rows], *(column.astype(np.float32) for column in columns)))
        if on_steps is not None:
            on_steps(len(now))
        over = np.flatnonzero(alive & (terminated | truncated))
        if not over.size:
            continue
        success[running[over]] = info["success"][over]
        end[running[over]] = env.facts[over]
        if kept is not None:
            kept.look(env, over)
        alive[over] = False
        again = over[: total - following]
        if again.size:
            new = np.arange(following, following + again.size)
            following += again.size
            env.resume(again, states[new], which[new], places[new])
            running[again], alive[again], begins[again] = new, True, True
    env.close()
    logged = tuple(np.concatenate(column) for column in zip(*log, strict=True)) if log else None
    out, first = [], 0
    for trial in trials:
        part = slice(first, first + trial.n)
        report = EvalReport(
            trial.goal, artifact, trial.seed, success[part], lengths[part], returns[part], versions=versions()
        )
        out.append(Measured(report, start[part], end[part], int(lengths[part].sum())))
        if trial.record and logged:
            out[-1].episodes = _episodes(trial, report, source, states[part], start[part], logged, first)
        first += trial.n
    return out


def draw(env: TabletopVectorEnv, trial: Trial, goal: int) -> Begun:
    """What a trial's episodes begin with, from the environment's goal of that index."""
    slots = np.arange(trial.n)
    chosen = {"reset_mask": np.arange(env.num_envs) < trial.n, "which": np.full(env.num_envs, goal)}
    env.reset(seed=trial.seed, options=chosen)
    return Begun(env.get_state(slots), env.clock.codes.place[slots], env.facts[slots].copy())


def _episodes(
    trial: Trial, report: EvalReport, source: str, states: np.ndarray, start: np.ndarray,
    log: tuple[np.ndarray, ...], first: int,
) -> list[Episode]:  # fmt: skip
    """Cuts the log into the recorded episodes of a trial, whose episodes are numbered from ``first`` on."""
    ids, facts, actions, terms = log
    instruction = Goal.parse(trial.goal).text()
    found = []
    for i in range(min(trial.record, trial.n)):
        rows = np.flatnonzero(ids == first + i)
        observations = np.concatenate([start[i : i + 1].astype(np.float32), facts[rows]])
        if not np.isfinite(observations).all():
            continue
        last = np.zeros(len(rows), np.bool_)
        last[-1] = True
        done = bool(report.success[i])
        found.append(
            Episode(
                observations=observations,
                actions=actions[rows],
                rewards=terms[rows],
                terminations=last & done,
                truncations=last & (not done),
                states=states[i : i + 1].copy(),
                state_steps=np.zeros(1, np.int64),
                success=done, goal=trial.goal, instruction=instruction, source=source, policy=report.policy,
                env=ENV_ID, seed=trial.seed, versions=versions(),
            )
        )  # fmt: skip
    return found
