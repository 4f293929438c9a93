"""Small data sets of OGBench's kind, made in their worlds; `embodied.data.formats.ogbench` reads them, and theirs.

A file (npz) has observations float32[rows, O], actions float32[rows, A] and terminals [rows], 1 in the last row of an
episode: that row's observation is the final one, and its action led nowhere. A file made here has ``qpos``, ``qvel``
and ``button_states`` too, as theirs have, from which OGBench computes rewards of its single tasks.

``play`` follows OGBench's plans, which carry noise of their own; ``noisy`` its closed-loop oracles, whose actions get
noise of a strength drawn for each episode, and one in ten of which is random. As soon as one thing is done the next is
drawn, so that an episode goes from thing to thing.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.durable import replace_file
from envs.suites import SuiteError, library
from envs.suites.ogbench import OGBenchVectorEnv, global_stream, single

__all__ = ["KINDS", "record"]

KINDS = ("play", "noisy")
NOISE = 0.1  # of the plans, and the largest strength of the noise on an oracle's actions
RANDOM = 0.1  # share of random actions among the noisy
STACKING = {"double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5), "octuple": (0.0, 0.35)}
"""Between which bounds each episode's chance to put a cube on another is drawn, by how many cubes there are."""
PARTS = {"cube": ("cube",), "puzzle": ("button",), "scene": ("cube", "button", "drawer", "window")}
EXTRAS = ("qpos", "qvel", "button_states")


def record(
    path: str | Path,
    task: str = "cube-single",
    *,
    kind: str = "play",
    episodes: int = 100,
    steps: int = 1000,
    seed: int = 0,
    on_episode: Callable[[int], None] | None = None,
) -> Path:
    """Writes a file of ``episodes`` of ``steps`` actions each, made by OGBench's oracles in its world ``task``.

    An episode depends on (seed, its number) alone. ``on_episode`` hears of how many there are. Raises SuiteError for
    a task or kind there is not, MissingLibraryError where OGBench is not installed.
    """
    names = OGBenchVectorEnv.task_ids()
    if task not in names or "singletask" in task:
        valid = ", ".join(sorted(name for name in names if "singletask" not in name))
        raise SuiteError(f"OGBench has no data of '{task}'; it has of {valid}")
    if kind not in KINDS or min(episodes, steps) < 1:
        raise SuiteError(f"kind = '{kind}' must be one of {', '.join(KINDS)}; episodes and steps at least 1")
    env = single(names[task], mode="data_collection", terminate_at_goal=False, visualize_info=False)
    columns: dict[str, list[np.ndarray]] = {}
    try:
        for episode in range(episodes):
            attempt, found = 0, None
            while found is None:
                words = np.random.SeedSequence(seed, spawn_key=(episode, attempt)).generate_state(2)
                with global_stream(int(words[0])):
                    found = _episode(env, task, kind, steps, int(words[1]))
                attempt += 1
            for name, rows in found.items():
                columns.setdefault(name, []).append(rows)
            if on_episode is not None:
                on_episode(episode + 1)
    finally:
        env.close()
    out, buffer = Path(path).with_suffix(".npz"), BytesIO()
    np.savez_compressed(buffer, **{name: np.concatenate(rows) for name, rows in columns.items()})  # type: ignore[arg-type]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, buffer.getvalue())
    return out


def _episode(env: Any, task: str, kind: str, steps: int, seed: int) -> dict[str, np.ndarray] | None:
    """The columns of one episode, steps + 1 rows; None where a cube was thrown out of reach."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    oracles = _oracles(env, task, kind)
    low, high = STACKING.get(task.rpartition("-")[2], (0.0, 0.0) if task == "cube-single" else (0.5, 0.5))
    stacking, strength = np.random.uniform(low, high), np.random.uniform(0.0, NOISE)  # noqa: NPY002
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)
    columns: dict[str, list[np.ndarray]] = {}
    for step in range(steps + 1):
        if kind == "noisy" and np.random.random() < RANDOM:  # noqa: NPY002
            action = env.action_space.sample()
        else:
            action = np.asarray(oracle.select_action(observation, info))
            if kind == "noisy":
                action = action + np.random.normal(0.0, strength * np.array([1, 1, 1, 3, 10]))  # noqa: NPY002
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        row = {
            "observations": np.float32(observation), "actions": action, "terminals": np.bool_(step == steps),
            **{name: np.asarray(info[name]) for name in EXTRAS if name in info},
        }  # fmt: skip
        for name, value in row.items():
            columns.setdefault(name, []).append(np.asarray(value))
        if step < steps:
            observation, _, _, _, info = env.step(action)
            if oracle.done:
                _, wanted = env.set_new_target(p_stack=stacking)
                oracle = oracles[wanted["privileged/target_task"]]
                oracle.reset(observation, wanted)
                info = wanted
    found = {name: np.stack(rows) for name, rows in columns.items()}
    return found if _within_reach(env, found["qpos"]) else None


def _oracles(env: Any, task: str, kind: str) -> dict[str, Any]:
    """What does each of the things that a world has, by OGBench's name of it."""
    world = task.partition("-")[0]
    way = "plan" if kind == "play" else "markov"
    found = {}
    for part in PARTS[world]:
        module = library(f"ogbench.manipspace.oracles.{way}.{part}_{way}")
        arguments: dict[str, Any] = {"noise": NOISE} if kind == "play" else {}
        if world == "puzzle":
            arguments["gripper_always_closed"] = True
        if kind == "noisy" and world == "scene" and part == "cube":
            arguments["max_step"] = 100
        found[part] = getattr(module, f"{part.title()}{way.title()}Oracle")(env=env, **arguments)
    return found


def _within_reach(env: Any, positions: np.ndarray) -> bool:
    """Whether every cube stayed in OGBench's workspace, half a metre about it."""
    low, high = env._workspace_bounds[0] - 0.5, env._workspace_bounds[1] + 0.5
    for i in range(getattr(env, "_num_cubes", 0)):
        start = env._model.joint(f"object_joint_{i}").qposadr[0]
        cube = positions[:, start : start + 3]
        if (cube < low).any() or (cube > high).any():
            return False
    return True
