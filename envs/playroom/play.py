"""Undirected play: scripted behaviours drawn at random, varied, shaken and cut short, in a whole batch.

Each slot draws a behaviour among those possible now, follows it with a speed, a gain and a noise level of
its own, sometimes switches midway, and starts over when a block is lost or after ``max_episode`` steps. The
noise is correlated over time. Nothing here depends on a goal. Which behaviour ran at a step is kept apart
from the data, for analysis alone: what learns from play sees facts and actions. Every episode's source is
``scripted-play``.

What a slot does depends on (seed, slot, that slot's episode count) alone, whatever its neighbours do.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from gymnasium.vector import AutoresetMode

from envs import predicates as f
from envs.playroom import scripts as m
from envs.playroom.draws import normal, start_counter, uniform
from envs.playroom.resets import AREA_HIGH, AREA_LOW
from envs.playroom.scene import BLOCK_HALF, CABINET, CABINET_TOP, DRAWER_FLOOR
from envs.predicates import literal_distance
from envs.vector import TabletopVectorEnv

__all__ = ["BEHAVIOURS", "SOURCE", "ScriptedPlay", "play_env"]

SOURCE = "scripted-play"
BEHAVIOURS = (
    "reach", "move", "push", "pull", "shut", "press", "store", "stack", "shelve", "beside", "lift",
)  # fmt: skip
_REACH, _MOVE, _PUSH, _PULL, _SHUT, _PRESS, _STORE, _STACK, _SHELVE, _BESIDE, _LIFT = range(len(BEHAVIOURS))
_SHARES = np.cumsum([0.09, 0.18, 0.14, 0.13, 0.05, 0.10, 0.09, 0.07, 0.05, 0.05, 0.05])
_TRIES = 60
_LONGEST = 250  # steps a behaviour may take
_MEMORY = 0.9  # share of the noise that stays from one step to the next
_CX, _CY = float(CABINET[0]), float(CABINET[1])
_LX, _LY, _UX, _UY = float(AREA_LOW[0]), float(AREA_LOW[1]), float(AREA_HIGH[0]), float(AREA_HIGH[1])
_SIGMA, _NOISE, _LABEL = 0, 1, 6  # columns of a slot's mood: noise level, noise (5), behaviour
_MOOD = 7


@nb.njit(cache=True, nogil=True)
def _within_reach(r, block):
    """Whether a block can be grasped: nothing on it, not lost, and not in the dark of the drawer."""
    c = f.BLOCK + f.BLOCK_STRIDE * block
    if literal_distance(r, f.CLEAR, block, 0, 0.0, 0.0) <= 0.0:
        return False
    if r[c] < 0.30 or r[c] > 0.68 or r[c + 1] < -0.41 or r[c + 1] > 0.30:
        return False
    return r[c + 2] > CABINET_TOP or r[c + 1] > -0.225


@nb.njit(cache=True, nogil=True)
def _draw(s, mood, r, counter, sigma):
    """Draws the next behaviour possible on facts row ``r`` into script row ``s`` and ``mood``."""
    held = -1
    for block in range(2):
        if literal_distance(r, f.HOLDING, block, 0, 0.0, 0.0) > 0.0:
            held = block
    mood[_SIGMA] = sigma * uniform(counter, 0.3, 1.5)
    s[m.SPEED] = uniform(counter, 0.5, 1.0)
    s[m.GAIN] = uniform(counter, 0.35, 0.65)
    for _ in range(_TRIES):
        u = uniform(counter, 0.0, _SHARES[-1])
        kind = 0
        while u > _SHARES[kind]:
            kind += 1
        block = 0 if uniform(counter, 0.0, 1.0) < 0.5 else 1
        if held >= 0 and uniform(counter, 0.0, 1.0) < 0.7:
            block = held
            if kind in (_PUSH, _PULL, _SHUT, _PRESS):
                kind = _MOVE
        a = f.BLOCK + f.BLOCK_STRIDE * block
        b = f.BLOCK + f.BLOCK_STRIDE * (1 - block)
        x, y = uniform(counter, _LX, _UX), uniform(counter, _LY, _UY)
        turn = uniform(counter, -0.8, 0.8)
        carry = uniform(counter, 0.10, 0.19)
        extra = uniform(counter, 0.0, 1.0)
        drawer = r[f.DRAWER]
        if kind in (_MOVE, _STORE, _STACK, _SHELVE, _BESIDE, _LIFT) and not _within_reach(r, block):
            continue
        mood[_LABEL] = kind
        if kind == _REACH:
            m.begin(s, m.REACH, block, 0.0)
            m.aim(s, m.AIM_WORLD, x, uniform(counter, -0.20, 0.30), uniform(counter, 0.04, 0.26), turn, carry)
            s[m.GRIPPER] = r[f.GRIP] if held >= 0 else (1.0 if extra < 0.5 else -1.0)
        elif kind == _MOVE:
            if (x - r[b]) ** 2 + (y - r[b + 1]) ** 2 < 0.075**2:
                continue
            m.begin(s, m.TRANSPORT, block, 0.0)
            m.aim(s, m.AIM_WORLD, x, y, BLOCK_HALF, turn, carry)
        elif kind == _PUSH:
            angle, length = uniform(counter, -math.pi, math.pi), uniform(counter, 0.04, 0.13)
            dx, dy = math.cos(angle), math.sin(angle)
            ex, ey = r[a] + dx * length, r[a + 1] + dy * length
            if r[a + 2] > 0.03 or r[a + 1] < -0.03 or ex < _LX or ex > _UX or ey < _LY or ey > _UY:
                continue
            m.begin(s, m.PUSH, block, length)
            m.aim(s, m.AIM_WORLD, dx, dy, 0.0, math.nan, carry)
        elif kind == _PULL:
            if drawer < 0.03 or (drawer < 0.11 and extra < 0.6):
                length = uniform(counter, 0.13, 0.158)
            elif drawer > 0.04:
                length = 0.0 if extra < 0.8 else uniform(counter, 0.02, 0.10)
            else:
                continue
            m.begin(s, m.PULL, -1, length)
            m.aim(s, m.AIM_WORLD, uniform(counter, -0.02, 0.02), 0.0, 0.0, math.nan, carry)
        elif kind == _SHUT:
            if drawer < 0.05:
                continue
            m.begin(s, m.SHUT, -1, 0.0)
            m.aim(s, m.AIM_WORLD, uniform(counter, -0.03, 0.03), 0.0, 0.0, math.nan, carry)
        elif kind == _PRESS:
            m.begin(s, m.PRESS, -1, 0.0)
        elif kind == _STORE:
            x, y = uniform(counter, -0.05, 0.05), uniform(counter, 0.0, 0.035)
            other_in = r[b + 2] < CABINET_TOP and r[b + 1] < -0.06
            if drawer < 0.14 or (other_in and abs(_CX + x - r[b]) < 0.05):
                continue
            m.begin(s, m.TRANSPORT, block, 0.0)
            m.aim(s, m.AIM_DRAWER, _CX + x, _CY + y, DRAWER_FLOOR + BLOCK_HALF, 0.5 * turn, max(carry, 0.15))
        elif kind == _STACK:
            if not _within_reach(r, 1 - block):
                continue
            m.begin(s, m.TRANSPORT, block, 0.0)
            carry = r[b + 2] + max(carry, 0.12)
            m.aim(s, m.AIM_OTHER, 0.0, 0.0, 2 * BLOCK_HALF, r[b + f.B_YAW], carry)
        elif kind == _SHELVE:
            x, y = _CX + uniform(counter, -0.06, 0.06), _CY + uniform(counter, -0.03, 0.02)
            if r[b + 2] > CABINET_TOP and (x - r[b]) ** 2 + (y - r[b + 1]) ** 2 < 0.07**2:
                continue
            m.begin(s, m.TRANSPORT, block, 0.0)
            m.aim(s, m.AIM_WORLD, x, y, CABINET_TOP + BLOCK_HALF, 0.5 * turn, max(carry, 0.17))
        elif kind == _BESIDE:
            if r[b + 2] > 0.03 or r[b + 1] < -0.03:
                continue
            x, y = r[b], r[b + 1]
            step = uniform(counter, 0.08, 0.11)
            if extra < 0.3:
                y += step if r[b + 1] < 0.17 else -step
            elif extra < 0.6:
                x += -step if r[b] > 0.43 else step
            else:
                x += 0.056 if r[b] < 0.5 else -0.056
            m.begin(s, m.TRANSPORT, block, 0.0)
            m.aim(s, m.AIM_WORLD, x, y, BLOCK_HALF, 0.0 if extra < 0.6 else r[b + f.B_YAW], carry)
        else:
            m.begin(s, m.LIFT, block, math.floor(uniform(counter, 6.0, 25.0)))
            s[m.CARRY] = r[a + 2] + uniform(counter, 0.09, 0.15)
        return
    mood[_LABEL] = _REACH  # nothing else is possible: go somewhere
    m.begin(s, m.REACH, 0, 0.0)
    m.aim(s, m.AIM_WORLD, 0.5, 0.1, 0.2, 0.0, 0.12)


@nb.njit(cache=True, nogil=True)
def _play(scripts, moods, counters, scratch, facts, sigma, switching, actions, labels):
    """One step of every slot: fills actions float32[n, 5] and labels int8[n, 2] (behaviour, block or -1)."""
    fresh = math.sqrt(1.0 - _MEMORY * _MEMORY)
    for i in range(facts.shape[0]):
        s, mood, counter = scripts[i], moods[i], counters[i]
        bored = uniform(counter, 0.0, 1.0) < switching
        if s[m.KIND] == m.IDLE or s[m.STATUS] != m.RUNNING or bored or s[m.AGE] > _LONGEST:
            _draw(s, mood, facts[i], counter, sigma)
        m.advance(s, facts[i], scratch, actions[i])
        for k in range(4):
            noise = _MEMORY * mood[_NOISE + k] + fresh * mood[_SIGMA] * normal(counter)
            mood[_NOISE + k] = noise
            actions[i, k] = min(1.0, max(-1.0, actions[i, k] + noise))
        labels[i, 0] = int(mood[_LABEL])
        labels[i, 1] = int(s[m.OBJECT])


def play_env(num_envs: int, threads: int = 0) -> TabletopVectorEnv:
    """An environment that scripted play can run in: free starts, no end but play's own."""
    return TabletopVectorEnv(
        num_envs,
        goals="open(drawer)",
        max_steps=1 << 40,
        terminate_on_success=False,
        free_starts=True,
        autoreset_mode=AutoresetMode.DISABLED,
        threads=threads,
    )


class ScriptedPlay:
    """Generates play in an environment such as `play_env` makes.

    Args:
        env: a `TabletopVectorEnv` in ``tool`` control and with disabled autoreset; it is reset with ``seed``.
        seed: of behaviours and of the environment's starts.
        sigma: noise level as a share of the action range; a behaviour takes 0.3 … 1.5 of it.
        switching: chance a step to drop the behaviour for another.
        max_episode: steps after which a slot starts over.

    Raises ValueError for an environment that resets itself or is driven otherwise.
    """

    script = m.SCRIPT  # columns of a manoeuvre's row

    def __init__(
        self,
        env: Any,
        seed: int,
        *,
        sigma: float = 0.2,
        switching: float = 0.006,
        max_episode: int = 1000,
    ):
        if env.autoreset_mode != AutoresetMode.DISABLED or env.control != "tool":
            raise ValueError(
                "play needs 'tool' control and disabled autoreset; "
                f"this environment has '{env.control}' and {env.autoreset_mode.value}"
            )
        self.env, self.seed = env, seed
        self.sigma, self.switching, self.max_episode = sigma, switching, max_episode
        n = env.num_envs
        self._scripts = np.zeros((n, self.script))
        self._moods = np.zeros((n, _MOOD))
        self._counters = np.zeros((n, 1), np.uint64)
        self._scratch = np.zeros(5)
        self._age = np.zeros(n, np.int64)  # steps since the slot's episode began
        env.reset(seed=seed)
        self._start(np.arange(n))

    def _start(self, slots: np.ndarray) -> None:
        """Forgets what ``slots`` were doing; their draws begin anew."""
        self._scripts[slots, m.KIND] = m.IDLE
        self._moods[slots] = 0.0
        self._age[slots] = 0
        for slot in slots:
            self._counters[slot, 0] = start_counter(self.seed, slot, self.env.episodes[slot])

    def _act(self, actions: np.ndarray, labels: np.ndarray) -> None:
        """Fills a step's actions float32[n, 5] and labels int8[n, 2]."""
        _play(
            self._scripts, self._moods, self._counters, self._scratch, self.env.facts, self.sigma, self.switching,
            actions, labels,
        )  # fmt: skip

    def collect(self, n_steps: int, poses: bool = False) -> list[dict[str, Any]]:
        """Plays ``n_steps`` steps over all slots (rounded up), going on where the last call ended.

        Returns one dict an episode, or piece of one where this call begins or ends inside it: ``facts``
        float32[L+1, NX], ``actions`` float32[L, 5], ``labels`` int8[L, 2] (index in `BEHAVIOURS`; block or
        -1; not for learning), ``state`` float64[S] (the simulator's, at its first row), ``truncated`` and ``lost``
        (how it ended; both False where the call ended first), ``seed``, ``slot``, ``episode``, ``step`` (of its
        first row in the episode), ``source``; with ``poses`` also ``qpos`` float64[L+1, nq], to draw them from.
        """
        env, n = self.env, self.env.num_envs
        steps = -(-n_steps // n)
        facts = np.zeros((steps + 1, n, env.facts.shape[1]), np.float32)
        actions = np.zeros((steps, n, 5), np.float32)
        labels = np.zeros((steps, n, 2), np.int8)
        facts[0] = env.facts
        first = np.zeros(n, np.int64)  # row at which each slot's piece begins
        began = facts[0].copy()  # and its first facts
        positions = env.simulation.qpos
        width = positions.shape[1] if poses else 0
        qpos = np.zeros((steps + 1, n, width))
        qpos[0] = positions[:, :width]
        posed = qpos[0].copy()
        states = env.get_state()
        offset = self._age.copy()
        pieces: list[dict[str, Any]] = []

        def cut(slot: int, end: int, truncated: bool, lost: bool) -> None:
            rows = facts[first[slot] : end + 1, slot].copy()
            rows[0] = began[slot]
            drawn = qpos[first[slot] : end + 1, slot].copy()
            drawn[0] = posed[slot]
            pieces.append(
                {
                    "facts": rows,
                    "actions": actions[first[slot] : end, slot].copy(),
                    "labels": labels[first[slot] : end, slot].copy(),
                    "state": states[slot].copy(),
                    "truncated": truncated,
                    "lost": lost,
                    "seed": self.seed,
                    "slot": slot,
                    "episode": int(env.episodes[slot]),
                    "step": int(offset[slot]),
                    "source": SOURCE,
                    **({"qpos": drawn} if poses else {}),
                }
            )

        for t in range(steps):
            self._act(actions[t], labels[t])
            info = env.step(actions[t])[4]
            facts[t + 1] = env.facts
            qpos[t + 1] = positions[:, :width]
            self._age += 1
            ended = env.lost | info["bad_physics"] | (self._age >= self.max_episode)
            if ended.any():
                slots = np.flatnonzero(ended)
                for slot in slots:
                    cut(int(slot), t + 1, not env.lost[slot], bool(env.lost[slot]))
                env.reset(options={"reset_mask": ended})
                self._start(slots)
                first[slots], offset[slots] = t + 1, 0
                began[slots], states[slots] = env.facts[slots], env.get_state(slots)
                posed[slots] = positions[slots, :width]
        for slot in range(n):
            if first[slot] < steps:
                cut(slot, steps, False, False)
        return pieces
