"""Whether the suites run: a thousand steps on three tasks of each, with our spaces and flags, the success flag seen.

Actions are random and held for a while, so that a robot goes somewhere; where a task has an expert, half of the slots
follow it. A suite counts when its three tasks ran and nothing about them was wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from embodied.evaluation.claims import ClaimError, Context, Measurement
from envs import suites
from envs.registry import make_vector

__all__ = ["TASKS", "run_task", "suites_run"]

TASKS = {
    "metaworld": ("drawer-open", "drawer-close", "handle-press"),
    "fetch": ("reach", "push", "pick-place"),
    "hand": ("reach", "manipulate-block-rotate-z", "manipulate-egg"),
    "myosuite": ("hand-reach-random", "hand-pose-fixed", "finger-reach-random"),
    "babyai": ("go-to-red-ball", "open-door", "pickup-loc"),
    "ogbench": ("cube-single", "scene", "puzzle-3x3"),
}
SLOTS = 4
_HELD = 20  # steps that a random action is held for


def suites_run(context: Context) -> Measurement:
    """The figure is the number of suites whose three tasks ran a thousand steps (a quick run: a hundred) flawlessly.

    Conditions: every library was there; in a full run, episodes with and without success were seen on each task with
    an expert. Raises ClaimError where no suite's library is installed.
    """
    steps = 100 if context.quick else 1000
    found: dict[str, Any] = {}
    absent: list[str] = []
    for suite, names in TASKS.items():
        try:
            suites.tasks(suite)
        except suites.MissingLibraryError as error:
            absent.append(suite)
            found[suite] = {"ran": False, "missing": str(error)}
            continue
        rows = {}
        for name in names:
            rows[name] = run_task(suite, name, steps, context.seed)
            context.say(f"{suite}/{name}: {_line(rows[name])}")
        ran = all(row["steps"] >= steps and not row["wrong"] for row in rows.values())
        found[suite] = {"ran": ran, "tasks": rows, "limits": suites.limits(suite)}
    if len(absent) == len(TASKS):
        raise ClaimError('no suite is installed: pip install "embodied-repertoire[suites]"')
    rows = [row for entry in found.values() for row in entry.get("tasks", {}).values()]
    both = {
        suite: [name for name, row in entry.get("tasks", {}).items() if row["success_seen"] and row["failure_seen"]]
        for suite, entry in found.items()
    }
    expert = [row for row in rows if row["expert"]]
    conditions = {"every suite's library is installed": not absent}
    if not context.quick:  # a hundred steps end too few episodes
        conditions["success seen both ways on each task with an expert"] = bool(expert) and all(
            row["success_seen"] and row["failure_seen"] for row in expert
        )
    return Measurement(
        figure=float(sum(entry["ran"] for entry in found.values())),
        seeds=(context.seed,),
        n=len(rows),
        conditions=conditions,
        details={"suites": found, "success_seen_both_ways": both},
    )


def run_task(suite: str, task: str, steps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Runs ``steps`` batch steps of a task and looks whether all is as declared.

    Returns steps (batch steps taken), slots, episodes, episodes_with_success (the flag was up at some step),
    success_seen and failure_seen (there was an episode with, one without), expert (whether there is one), wrong (what
    was not as declared, in words), versions.
    """
    env = make_vector(f"{suite}/{task}", SLOTS)
    expert = _expert(env)
    rng, wrong = np.random.default_rng(seed), dict[str, None]()
    observation, info = env.reset(seed=seed)
    _look(env, observation, info, None, wrong)
    begins, held = np.ones(SLOTS, np.bool_), np.zeros(env.action_space.shape)  # type: ignore[arg-type]
    ever, episodes, successes, taken = np.zeros(SLOTS, np.bool_), 0, 0, 0
    for taken in range(1, steps + 1):
        if isinstance(env.action_space, Box):
            if taken % _HELD == 1:
                held = rng.uniform(-1, 1, env.action_space.shape)
            actions = np.clip(held + 0.3 * rng.standard_normal(held.shape), -1, 1).astype(np.float32)
        else:
            actions = rng.integers(0, env.single_action_space.n, SLOTS)  # type: ignore[attr-defined]
        if expert is not None:
            actions[::2] = expert(observation, begins)[::2]
        observation, reward, terminated, truncated, info = env.step(actions)
        begins = np.asarray(terminated | truncated)
        _look(env, observation, info, (reward, terminated, truncated), wrong)
        ever |= info["success"]
        episodes += int(begins.sum())
        successes += int((ever & begins).sum())
        ever &= ~begins
    stamp = env.versions() if hasattr(env, "versions") else {}  # type: ignore[attr-defined]
    env.close()
    return {
        "steps": taken, "slots": SLOTS, "episodes": episodes, "episodes_with_success": successes,
        "success_seen": successes > 0, "failure_seen": successes < episodes,
        "expert": expert is not None, "wrong": list(wrong), "versions": stamp,
    }  # fmt: skip


def _expert(env: VectorEnv) -> Any:
    if not hasattr(env, "expert"):
        return None
    try:
        return env.expert()  # type: ignore[attr-defined]
    except suites.SuiteError:
        return None


def _look(env: VectorEnv, observation: Any, info: dict[str, Any], ends: Any, wrong: dict[str, None]) -> None:
    """Notes in ``wrong`` what is not as declared."""
    n = env.num_envs
    checks = {
        "an observation is outside its space": env.observation_space.contains(observation),
        "success is no bool[n]": _is(info.get("success"), np.bool_, n),
    }
    if ends is not None:
        reward, terminated, truncated = ends
        done = np.asarray(terminated | truncated)
        checks |= {
            "rewards are no finite float64[n]": _is(reward, np.float64, n) and bool(np.isfinite(reward).all()),
            "terminated or truncated is no bool[n]": _is(terminated, np.bool_, n) and _is(truncated, np.bool_, n),
            "final_obs is there without an end, or not with one": ("final_obs" in info) == bool(done.any()),
        }
        if "final_obs" in info:
            checks["_final_obs marks other slots than ended"] = np.array_equal(info["_final_obs"], done)
            checks["final_obs is outside its space"] = env.observation_space.contains(info["final_obs"])
    wrong.update(dict.fromkeys(words for words, fine in checks.items() if not fine))


def _is(value: Any, dtype: Any, n: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == (n,)


def _line(row: dict[str, Any]) -> str:
    flag = f"in {row['episodes_with_success']} of them"
    state = "; ".join(row["wrong"]) or "as declared"
    return f"{row['steps']} steps of {row['slots']} slots, {row['episodes']} episodes, success {flag}, {state}"
