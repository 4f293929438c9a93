"""Experiments: states varied in one thing at a time, and executions of a skill from them.

Experience seldom differs in one thing alone: where a block lies in the drawer the drawer is mostly open. An experiment
takes a state and puts the drawer, the lamp or one block otherwise, and lets it come to rest; everything else stays.
An operator that counts such executions too sees each fact both ways, on as many occasions as it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.training.rollouts import Actor, Begun, Measured, Trial, draw, measure_all
from envs.playroom.resets import AREA_HIGH, AREA_LOW
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import BLOCK, BLOCK_STRIDE, DRAWER, TOOL
from envs.vector import TabletopVectorEnv
from envs.vocabulary import BLOCKS, PLACES

__all__ = ["TRIED", "VARIANTS", "bases", "experiment", "vary"]

SETTLE = 3  # control steps that a varied state rests before anything is judged
_ABOUT = ("table", "cabinet", "drawer", "other")
_TO = (*_ABOUT, "left_of", "in_front_of", "next_to", *PLACES)
_SWITCHES = (("as it is",), ("shut",), ("half",), ("pulled",), ("lamp",))
VARIANTS: tuple[tuple[str, ...], ...] = (*_SWITCHES, *((block, to) for block in BLOCKS for to in _TO))
"""What a state is varied in: nothing, the drawer, the lamp, where a block is put."""
_COARSE = (*_SWITCHES[1:], *((block, to) for block in BLOCKS for to in _ABOUT))
TRIED = (*_COARSE, *((block, to) for block in BLOCKS for to in PLACES), *_COARSE)
"""The variants that the learner tries, in turn: what changes most twice as often as named places."""
_TRAVEL = {"shut": 0.0, "half": 0.07, "pulled": 0.155}  # of the drawer, m
_NQ, _GRIP, _LAMP = 25, 4, 5  # positions in the simulator's state; columns among the latches


def bases(goal: str, n: int, seed: int, kept: tuple[np.ndarray, np.ndarray] | None, share: float = 0.5) -> Begun:
    """n states drawn freely, a share of them from the kept ones (states, facts) at hand, with the goal's places."""
    env = _env(goal, n, kept, share)
    found = draw(env, Trial(goal, n, seed), 0)
    env.close()
    return found


def experiment(
    policy: Actor,
    goal: str,
    n: int,
    seed: int,
    kept: tuple[np.ndarray, np.ndarray] | None,
    *,
    variants: Sequence[tuple[str, ...]] = TRIED,
    threads: int = 0,
    on_steps: Callable[[int], None] | None = None,
) -> Measured:
    """n executions of a goal from varied states, the variants in turn; those that lost a block are left out."""
    base = bases(goal, n, seed, kept)
    turn = np.arange(n) % len(variants)
    order = np.argsort(turn, kind="stable")
    env = _env(goal, n, None, 0.0)
    changed = [
        _changed(base.states[turn == k], base.facts[turn == k], variant, seed + k, env.simulation.state_size)
        for k, variant in enumerate(variants[:n])
    ]
    begun = _settled(env, np.concatenate(changed), base.places[order])[0]
    env.close()
    if on_steps is not None:
        on_steps(n * SETTLE)
    whole = np.isfinite(begun.states).all(1) & np.isfinite(begun.facts).all(1)
    begun = Begun(begun.states[whole], begun.places[whole], begun.facts[whole])
    trials = [Trial(goal, len(begun.states), seed)]
    return measure_all(policy, trials, begun=[begun], threads=threads, on_steps=on_steps)[0]


def _env(goal: str, n: int, kept: Any, share: float) -> TabletopVectorEnv:
    return TabletopVectorEnv(
        n, [goal], max_steps=1 << 30, terminate_on_success=False, autoreset_mode=AutoresetMode.DISABLED, threads=1,
        free_starts=True, kept=kept, kept_share=share,
    )  # fmt: skip


def vary(env: TabletopVectorEnv, begun: Begun, variant: tuple[str, ...], seed: int) -> tuple[Begun, np.ndarray]:
    """The states of ``begun`` varied in one thing and settled, with their facts; bool[n] which lost a block.

    Where there is no room for what is asked a state stays as it is. ``env`` has at least as many slots as there are
    states. Goals' places stay as they were drawn.
    """
    changed = _changed(begun.states, begun.facts, variant, seed, env.simulation.state_size)
    return _settled(env, changed, begun.places)


def _changed(states: np.ndarray, facts: np.ndarray, variant: tuple[str, ...], seed: int, latches: int) -> np.ndarray:
    """The states float64[n, S], of facts float64[n, NX], with one thing put otherwise; nothing has moved yet.

    ``latches``: the column of a state in which the latches begin.
    """
    states, rng = states.copy(), np.random.default_rng(seed)
    if variant[0] in _TRAVEL:
        _pull(states, facts, _TRAVEL[variant[0]])
    elif variant[0] == "lamp":
        states[:, latches + _LAMP] = 1.0 - states[:, latches + _LAMP]
    elif variant[0] in BLOCKS:
        block = BLOCKS.index(variant[0])
        for i, row in enumerate(facts):
            spot = _spot(row, block, variant[1], rng)
            if spot is not None:
                _put(states[i], block, spot)
    return states


def _settled(env: TabletopVectorEnv, states: np.ndarray, places: np.ndarray) -> tuple[Begun, np.ndarray]:
    """What states are after a rest of `SETTLE` control steps, and bool[n] which lost a block."""
    slots = np.arange(len(states))
    env.resume(slots, states, np.zeros(len(states), np.int64), places)
    action = np.zeros((env.num_envs, 5), np.float32)
    action[slots, -1] = states[:, env.simulation.state_size + _GRIP]  # the gripper as it is commanded
    for _ in range(SETTLE):
        env.step(action)
    return Begun(env.get_state(slots), places, env.facts[slots].copy()), env.lost[slots].copy()


def _pull(states: np.ndarray, facts: np.ndarray, travel: float) -> None:
    """Sets the drawer's travel; what lies in it comes along."""
    by = travel - facts[:, DRAWER]
    for block in range(len(BLOCKS)):
        x, y, z = facts[:, BLOCK + BLOCK_STRIDE * block :][:, :3].T
        reach = (abs(x - CABINET[0]) < 0.09) & (abs(y - CABINET[1] - facts[:, DRAWER]) < 0.09) & (z < 0.075)
        states[reach, 9 + 7 * block + 1] += by[reach]
    states[:, 23] = travel
    states[:, _NQ + 21] = 0.0


def _put(state: np.ndarray, block: int, spot: np.ndarray) -> None:
    state[9 + 7 * block : 12 + 7 * block] = spot
    state[12 + 7 * block : 16 + 7 * block] = (1.0, 0.0, 0.0, 0.0)
    state[_NQ + 9 + 6 * block : _NQ + 15 + 6 * block] = 0.0


def _spot(facts: np.ndarray, block: int, to: str, rng: np.random.Generator) -> np.ndarray | None:
    """Where a block goes, float64[3], or None where nothing free was found."""
    other = facts[BLOCK + BLOCK_STRIDE * (1 - block) :][:3]
    side = -0.045 if other[0] > CABINET[0] else 0.045  # the half of cabinet and drawer that the other leaves free
    if to == "cabinet":
        return np.array([CABINET[0] + side, CABINET[1] - 0.02, CABINET_TOP + BLOCK_HALF + 0.001])
    if to == "drawer":
        return np.array([CABINET[0] + side, CABINET[1] + facts[DRAWER] + 0.02, DRAWER_FLOOR + BLOCK_HALF + 0.001])
    if to == "other":
        return np.array([*other[:2], other[2] + 2 * BLOCK_HALF + 0.001])
    for _ in range(64):
        if to in PLACES:
            xy = np.array(PLACES[to]) + rng.uniform(-0.012, 0.012, 2)
        elif to == "table":
            xy = rng.uniform(AREA_LOW, AREA_HIGH)
        else:
            step = {"left_of": (0.0, 0.09), "in_front_of": (-0.09, 0.0), "next_to": (0.06 * rng.choice((-1, 1)), 0.0)}
            xy = other[:2] + step[to] + rng.uniform(-0.003, 0.003, 2)
        dx, dy = np.abs(xy - other[:2])
        beside = other[2] < 0.05 and (dx < 0.05 or dy < 0.05) and max(dx, dy) < 0.16
        named = min(np.hypot(*(xy - place)) for place in PLACES.values()) < 0.04
        if np.hypot(dx, dy) < 0.055 or (np.hypot(*(xy - facts[TOOL : TOOL + 2])) < 0.09 and facts[TOOL + 2] < 0.16):
            continue
        if to != "table" or not (beside or named):
            return np.array([*xy, BLOCK_HALF])
    return None
