"""Undirected play in a scene: scripted behaviours drawn at random, varied, shaken and cut short, in a whole batch.

Two kinds of generator:

``correlated``  each slot follows a behaviour with a speed, a gain and a noise level of its own; the noise is correlated
                over time, and sometimes a behaviour is dropped midway for another
``markov``      behaviours change at every moment with the same small chance, and the noise is white and strong

Which behaviour ran at a step is kept apart from the data (`labels`), for analysis alone: what learns from play sees
facts and actions. Every episode's source is ``scripted-play``. What a slot does depends on (seed, slot, that slot's
episode count) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from gymnasium.vector import AutoresetMode

from envs.playroom.draws import normal, start_counter, uniform
from envs.playroom.play import ScriptedPlay
from envs.scenes import manoeuvres as m
from envs.scenes.facts import B_BOTTOM, B_UP, BLOCK_STRIDE, BLOCKS, GRIP
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.predicates import HOLDING, contained, term_distance
from envs.scenes.scene import Scene
from envs.scenes.signals import spot_in

__all__ = ["BEHAVIOURS", "KINDS", "ScenePlay", "play_env", "undirected"]

BEHAVIOURS = ("reach", "move", "lift", "push", "turn", "topple", "slide", "press", "store", "stack")
KINDS = ("correlated", "markov")
_REACH, _MOVE, _LIFT, _PUSH, _TURN, _TOPPLE, _SLIDE, _PRESS, _STORE, _STACK = range(len(BEHAVIOURS))
_SHARES = np.cumsum([0.05, 0.13, 0.06, 0.30, 0.11, 0.12, 0.09, 0.06, 0.12, 0.03])  # tried; not all are possible
_TRIES = 60
_LONGEST = 250  # steps a behaviour may take
_SIGMA, _NOISE, _LABEL = 0, 1, 6  # columns of a slot's mood: noise level, noise (5), behaviour


@nb.njit(cache=True, nogil=True)
def _graspable(x, b, layout, area):
    """Whether block ``b`` can be taken: within reach, not shut away, nothing on it, and not too wide as it lies."""
    (bq, _, half, shape), (_, _, _, _, travel), _, (_, _, _, slide) = layout
    p = BLOCKS + BLOCK_STRIDE * b
    if x[p] < 0.30 or x[p] > 0.70 or x[p + 1] < -0.30 or x[p + 1] > area[3] + 0.07:
        return False
    if shape[b] == 0 and x[p + B_UP] < 0.9 and half[b, 2] > 0.033:
        return False
    for other in range(bq.shape[0]):
        q = BLOCKS + BLOCK_STRIDE * other
        if other != b and (x[q] - x[p]) ** 2 + (x[q + 1] - x[p + 1]) ** 2 < 0.03**2 and x[q + 2] > x[p + 2]:
            return False
    for c in range(slide.shape[0]):
        if slide[c] >= 0 and contained(x, b, c, False, layout) > -0.02:
            return x[BLOCKS + BLOCK_STRIDE * bq.shape[0] + 3 * slide[c]] > 0.8 * travel[slide[c]]
    return True


@nb.njit(cache=True, nogil=True)
def _draw(s, mood, x, counter, sigma, layout, area, spot):
    """Draws the next behaviour possible on facts row ``x`` into script row ``s`` and ``mood``."""
    (bq, _, half, _), (_, _, axis, _, travel), (lq, _), (_, _, _, slide) = layout
    blocks, slides, lamps = bq.shape[0], travel.shape[0], lq.shape[0]
    held = -1
    for b in range(blocks):
        if term_distance(x, HOLDING, b, 0, 0.0, 0.0, layout) > 0.0:
            held = b
    mood[_SIGMA] = sigma * uniform(counter, 0.3, 1.5)
    s[m.SPEED] = uniform(counter, 0.5, 1.0)
    s[m.GAIN] = uniform(counter, 0.35, 0.65)
    for _ in range(_TRIES):
        u = uniform(counter, 0.0, _SHARES[-1])
        kind = 0
        while u > _SHARES[kind]:
            kind += 1
        a = int(uniform(counter, 0.0, float(blocks))) if blocks > 0 else -1
        if held >= 0 and uniform(counter, 0.0, 1.0) < 0.7:
            a = held
            if kind in (_PUSH, _TOPPLE, _SLIDE, _PRESS):
                kind = _MOVE
        if kind == _MOVE and held < 0 and uniform(counter, 0.0, 1.0) < 0.6:  # what was put away is taken out again
            for b in range(blocks):
                for c in range(slide.shape[0]):
                    if contained(x, b, c, False, layout) > 0.0 and _graspable(x, b, layout, area):
                        a = b
        px, py = uniform(counter, area[0], area[2]), uniform(counter, area[1], area[3])
        turn, extra = uniform(counter, -0.8, 0.8), uniform(counter, 0.0, 1.0)
        carry = uniform(counter, 0.15, 0.21)
        on_blocks = kind in (_MOVE, _LIFT, _PUSH, _TURN, _TOPPLE, _STORE, _STACK)
        if on_blocks and (blocks == 0 or not _graspable(x, a, layout, area)):
            continue
        p = BLOCKS + BLOCK_STRIDE * a
        mood[_LABEL] = kind
        if kind == _REACH:
            m.begin(s, m.REACH, 0, 0.0)
            m.aim(s, m.AIM_WORLD, -1, px, uniform(counter, -0.25, 0.30), uniform(counter, 0.12, 0.28), turn, carry)
            s[m.GRIPPER] = x[GRIP] if held >= 0 else (1.0 if extra < 0.5 else -1.0)
        elif kind == _MOVE:
            if _occupied(x, a, blocks, px, py, half):
                continue
            m.begin(s, m.TRANSPORT, a, 0.0)
            m.aim(s, m.AIM_WORLD, -1, px, py, half[a, 2], math.nan, carry)
        elif kind == _LIFT:
            m.begin(s, m.LIFT, a, uniform(counter, 6.0, 20.0))
            m.aim(s, m.AIM_WORLD, -1, 0.0, 0.0, 0.0, math.nan, carry)
        elif kind == _PUSH or kind == _TOPPLE:
            angle, length = uniform(counter, -math.pi, math.pi), uniform(counter, 0.05, 0.13)
            dx, dy = math.cos(angle), math.sin(angle)
            ex, ey = x[p] + dx * length, x[p + 1] + dy * length
            outside = ex < area[0] or ex > area[2] or ey < area[1] - 0.03 or ey > area[3] + 0.02
            if x[p + B_BOTTOM] > 0.01 or outside or (kind == _TOPPLE and (half[a, 2] < 0.03 or x[p + B_UP] < 0.9)):
                continue
            m.begin(s, m.PUSH if kind == _PUSH else m.TOPPLE, a, length)
            m.aim(s, m.AIM_WORLD, -1, dx, dy, 0.0, math.nan, carry)
        elif kind == _TURN:
            m.begin(s, m.TURN, a, math.copysign(uniform(counter, 0.5, 1.5), turn))
        elif kind == _SLIDE:
            if slides == 0:
                continue
            k = int(uniform(counter, 0.0, float(slides)))
            share = x[BLOCKS + BLOCK_STRIDE * blocks + 3 * k] / travel[k]
            goal = 0.97 if share < 0.5 else 0.0
            if extra < 0.2:
                goal = uniform(counter, 0.1, 0.9)
            m.begin(s, m.SLIDE, k, goal * travel[k])
        elif kind == _PRESS:
            if lamps == 0:
                continue
            m.begin(s, m.PRESS, int(uniform(counter, 0.0, float(lamps))), 0.0)
        elif kind == _STORE:
            if slide.shape[0] == 0:
                continue
            c = int(uniform(counter, 0.0, float(slide.shape[0])))
            value = 0.0
            if slide[c] >= 0:
                value = x[BLOCKS + BLOCK_STRIDE * blocks + 3 * slide[c]]
                if value < 0.8 * travel[slide[c]] or half[a, 2] > 0.03:
                    continue
            if contained(x, a, c, False, layout) > 0.0:
                continue
            spot_in(x, a, c, layout, spot)
            if slide[c] >= 0:
                spot[0] -= axis[slide[c], 0] * value
                spot[1] -= axis[slide[c], 1] * value
            m.begin(s, m.TRANSPORT, a, 0.0)
            m.aim(s, m.AIM_CONTAINER, c, spot[0], spot[1], spot[2], 0.0, 0.20)
        else:
            other = int(uniform(counter, 0.0, float(blocks)))
            q = BLOCKS + BLOCK_STRIDE * other
            wide = half[other, 0] > 0.015 and half[other, 1] > 0.015 and x[q + B_UP] > 0.9
            if other == a or not wide or half[other, 2] > 0.03 or not _graspable(x, other, layout, area):
                continue
            m.begin(s, m.TRANSPORT, a, 0.0)
            m.aim(s, m.AIM_BLOCK, other, 0.0, 0.0, half[a, 2], math.nan, 0.21)
        return
    m.begin(s, m.REACH, 0, 0.0)
    mood[_LABEL] = _REACH
    m.aim(s, m.AIM_WORLD, -1, 0.45, 0.05, 0.22, 0.0, 0.2)


@nb.njit(cache=True, nogil=True)
def _occupied(x, a, blocks, px, py, half):
    """Whether another block stands where block ``a`` would be put down."""
    for other in range(blocks):
        q = BLOCKS + BLOCK_STRIDE * other
        if other != a and (px - x[q]) ** 2 + (py - x[q + 1]) ** 2 < (0.04 + max(half[a, 0], half[other, 0])) ** 2:
            return True
    return False


@nb.njit(cache=True, nogil=True)
def _play(scripts, moods, counters, facts, sigma, switching, memory, layout, area, actions, labels):
    fresh = math.sqrt(1.0 - memory * memory)
    scratch, spot, act = np.zeros(5), np.zeros(3), np.zeros(5)
    for i in range(facts.shape[0]):
        s, mood, counter = scripts[i], moods[i], counters[i]
        tired = s[m.AGE] > _LONGEST or uniform(counter, 0.0, 1.0) < switching
        if s[m.KIND] < 0 or s[m.STATUS] != m.RUNNING or tired:
            _draw(s, mood, facts[i], counter, sigma, layout, area, spot)
        m.advance(s, facts[i], scratch, act, layout)
        for k in range(5):
            actions[i, k] = act[k]
        for k in range(4):
            noise = memory * mood[_NOISE + k] + fresh * mood[_SIGMA] * normal(counter)
            mood[_NOISE + k] = noise
            actions[i, k] = min(1.0, max(-1.0, act[k] + noise))
        labels[i, 0] = int(mood[_LABEL])
        labels[i, 1] = int(s[m.OBJECT])


def play_env(num_envs: int, scene: Any = "playroom", threads: int = 0, **world: Any) -> PlayroomVectorEnv:
    """An environment that play can run in: free starts, no end but play's own."""
    return PlayroomVectorEnv(
        num_envs, scene=scene, max_steps=1 << 40, terminate_on_success=False, free_starts=True,
        autoreset_mode=AutoresetMode.DISABLED, threads=threads, **world,
    )  # fmt: skip


class ScenePlay(ScriptedPlay):
    """Generates play in an environment such as `play_env` makes; `collect` as in `ScriptedPlay`.

    Labels are (index in `BEHAVIOURS`, number of the block, slide or lamp). Args: ``kind`` of `KINDS`; sigma and
    switching default to what the kind stands for. Raises ValueError for another kind.
    """

    script = m.SCRIPT

    def __init__(
        self, env: PlayroomVectorEnv, seed: int, kind: str = "correlated", *, sigma: float | None = None,
        switching: float | None = None, max_episode: int = 600,
    ):  # fmt: skip
        if kind not in KINDS:
            raise ValueError(f"unknown kind of play '{kind}'; valid: {', '.join(KINDS)}")
        markov = kind == "markov"
        self.kind, self._memory = kind, 0.0 if markov else 0.9
        super().__init__(
            env, seed, sigma=(0.5 if markov else 0.2) if sigma is None else sigma,
            switching=(0.02 if markov else 0.006) if switching is None else switching, max_episode=max_episode,
        )  # type: ignore[arg-type]  # fmt: skip
        self._scripts[:, m.OPENING] = env.scene.robot.opening

    def _act(self, actions: np.ndarray, labels: np.ndarray) -> None:
        env = self.env
        _play(
            self._scripts, self._moods, self._counters, env.facts, self.sigma, self.switching, self._memory,
            env._layout, env._area, actions, labels,
        )  # type: ignore[attr-defined]  # fmt: skip


def undirected(scene: Scene, seed: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Play that asks for no goal: facts[n, NX] and goals (ignored) -> actions[n, 5]. What chance reaches is its row."""
    layout, area = scene.layout.arrays, np.asarray(scene.document.area)
    rows: list[np.ndarray] = []

    def act(facts: np.ndarray, _goals: np.ndarray) -> np.ndarray:
        n = len(facts)
        if not rows:
            drawn = np.array([[start_counter(seed, slot, 0)] for slot in range(n)], np.uint64)
            rows.extend((np.full((n, m.SCRIPT), -1.0), np.zeros((n, 7)), drawn))
        actions, labels = np.zeros((n, 5), np.float32), np.zeros((n, 2), np.int8)
        scripts, moods, counters = rows
        _play(scripts, moods, counters, facts, 0.2, 0.006, 0.9, layout, area, actions, labels)
        return actions

    return act
