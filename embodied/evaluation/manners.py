"""Manners: ways of doing a task that play never showed, each for scripted demonstrations and for a judge.

The task is to press a lamp's button. ``level`` is the tool's horizontal distance to it; on the *way* it is FAR or more.

    high     the tool travels 0.29 m above the table and comes down only over the button
    slow     at 0.4 of the speed that play and experts have
    turned   with the gripper turned by 0.6 rad
    open     with open fingers, shut over the button

Each is a change to what the scripted expert does, so several go together; a judge sees the recorded facts alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embodied.data.batches import Recorded
from embodied.evaluation.goal_exam import AFTER, exam_env
from envs.control import LAG, STEP_M, STEP_RAD, TOOL, WIDTH, YAW
from envs.scenes.experts import ScriptedExpert
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import load

__all__ = ["MANNERS", "STEPS", "TASKS", "WIDE", "buttons", "demonstrate", "kept_to", "mannered"]

MANNERS = ("high", "slow", "turned", "open")
TASKS = ("push_red", "push_green", "push_blue")
STEPS = 140  # control steps a press may take
FAR, WIDE = 0.06, 0.20  # m: the way that is judged lies between
HIGH, SLOW, TURNED = 0.29, 0.4, 0.6  # m, share of the largest action, rad
_LEAST_HIGH, _MOST_SPEED, _MOST_OFF, _LEAST_WIDE = 0.23, 0.30, 0.2, 0.05  # m, m/s, rad, m: what a judge asks for
_RATE = 20.0  # control steps a second


def buttons(scene: str = "playroom") -> np.ndarray:
    """Where the buttons of TASKS are, float64[3, 2] m."""
    return np.asarray(load(scene).layout.arrays[2][1])[: len(TASKS), :2]


def mannered(actions: np.ndarray, facts: np.ndarray, button: np.ndarray, manners: Sequence[str]) -> np.ndarray:
    """The expert's actions float32[n, 5] changed to the manners; facts[n, NX], button[n, 2]."""
    a = np.array(actions)
    level = np.linalg.norm(facts[:, TOOL : TOOL + 2] - button, axis=1)
    far, z = level > FAR, facts[:, TOOL + 2]
    if "high" in manners:
        rise = np.clip((HIGH - z - facts[:, LAG + 2]) / STEP_M * 0.6, -0.9, 0.9)
        a[:, 2] = np.where(far, rise, a[:, 2])
        hold = np.clip(1.0 + (z - HIGH + 0.03) / 0.05, 0.1, 1.0)
        a[far, :2] *= hold[far, None]
    if "turned" in manners:
        a[:, 3] = np.clip((TURNED - facts[:, YAW] - facts[:, LAG + 3]) / STEP_RAD * 0.6, -1.0, 1.0)
    if "open" in manners:
        a[far, 4] = 1.0
        still = ~far & (facts[:, WIDTH] > 0.015)
        a[still, 2] = np.maximum(a[still, 2], 0.0)
    if "slow" in manners:
        norm = np.linalg.norm(a[:, :3], axis=1, keepdims=True)
        a[:, :3] *= np.minimum(1.0, SLOW / np.maximum(norm, 1e-9))
    return a.astype(np.float32)


def kept_to(facts: np.ndarray, ends: np.ndarray, button: np.ndarray) -> dict[str, np.ndarray]:
    """Which manners were kept to on the way: bool[n] each. facts[n, T, NX], of which ``ends`` int64[n] count."""
    level = np.linalg.norm(facts[:, :, TOOL : TOOL + 2] - button[:, None], axis=2)
    way = (level > FAR) & (level < WIDE) & (np.arange(facts.shape[1]) < ends[:, None])
    speed = np.zeros(level.shape)
    speed[:, 1:] = np.linalg.norm(np.diff(facts[:, :, TOOL : TOOL + 2], axis=1), axis=2) * _RATE

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.where(way, values, 0.0).sum(1)
        return np.where(way.any(1), total / np.maximum(1, way.sum(1)), np.nan)

    return {
        "high": mean(facts[:, :, TOOL + 2]) >= _LEAST_HIGH,
        "slow": mean(speed) <= _MOST_SPEED,
        "turned": mean(np.abs(facts[:, :, YAW] - TURNED)) <= _MOST_OFF,
        "open": mean(facts[:, :, WIDTH]) >= _LEAST_WIDE,
    }


def demonstrate(
    manners: Sequence[str], tasks: Sequence[str], each: int, seed: int, threads: int = 0
) -> tuple[Recorded, float]:
    """``each`` successful demonstrations of every task in these manners, and the share of tries that succeeded.

    ValueError where fewer succeeded.
    """
    spare = each + max(8, each // 2)
    env = exam_env(spare * len(tasks), tasks, "playroom", STEPS + 1, threads=threads)
    which = np.repeat(np.arange(len(tasks)), spare)
    button = buttons()[[TASKS.index(task) for task in tasks]][which]
    env.reset(seed=seed, options={"which": which})
    expert = ScriptedExpert(env)
    facts, actions, since = [env.facts.astype(np.float32)], [], np.full(len(which), -1)
    for _ in range(STEPS):
        actions.append(mannered(expert.act(), env.facts, button, manners))
        info = env.step(actions[-1])[4]
        facts.append(env.facts.astype(np.float32))
        since = np.where(since >= 0, since + 1, np.where(info["success"], 0, -1))
        if (since > AFTER).all():
            break
    env.close()
    x, a = np.stack(facts, axis=1), np.stack(actions, axis=1)
    length = np.minimum(len(actions), len(actions) - since + AFTER)  # actions until AFTER steps past success
    kept = kept_to(x, np.where(since >= 0, len(actions) - since, 0), button)
    good = (since >= 0) & np.all([kept[m] for m in manners], axis=0)
    rows, moves, ends = [], [], []
    for k in range(len(tasks)):
        chosen = np.flatnonzero(good & (which == k))[:each]
        if len(chosen) < each:
            raise ValueError(f"only {len(chosen)} of {spare} demonstrations of {tasks[k]} succeeded; {each} are needed")
        for i in chosen:
            rows.append(x[i, : length[i] + 1])
            moves.append(np.concatenate([a[i, : length[i]], np.zeros((1, a.shape[2]), np.float32)]))
            ends.append(len(rows[-1]) + (ends[-1] if ends else 0))
    about: dict[str, object] = {
        "manners": list(manners), "tasks": list(tasks), "each": each, "seed": seed, "scene": "playroom",
    }  # fmt: skip
    encoder = GoalStates(load("playroom"))
    found = Recorded(np.concatenate(rows), np.concatenate(moves), np.array(ends), encoder, about=about)
    return found, float(good.mean())
