"""A bank of real outcomes, and edits planted in it whose truth is known.

A version is the table's scripted expert with normal noise on its actions: a standard deviation and a noise stream (its
*key*) for each ground goal of its family. The outcome of (instruction, version of each stage, row) is a physical
episode, run once and kept; row r starts from reset r of the instruction, whoever acts. Versions with one key share
their noise (a small edit: few pairs differ), with two keys they share only the starts (a policy learnt anew).

A version may also *know rows*: it recognises those starts and acts there as the expert does, which is what a skill
fitted to the probe looks like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.core import Skill, canonical_json
from embodied.skills.edits import Answer, Fork, Task
from embodied.skills.gate import GateError
from envs.goals import Goal, schema_of
from envs.playroom.oracle import ScriptedOracle
from envs.vector import TabletopVectorEnv

__all__ = ["Bank", "Level", "Planted", "Sitting", "family_of", "stages_of"]

Level = tuple[float, int]
"""(standard deviation of the noise, key of its stream)."""

STEPS = 48  # control steps a stage
SLOTS = 160
START_SEED = 20_261_122


@cache
def stages_of(instruction: str) -> tuple[str, ...]:
    """The goals of an instruction's stages, in order."""
    return tuple(str(Goal((stage,))) for stage in Goal.parse(instruction).stages)


@cache
def family_of(goal: str) -> str:
    """The family that serves a single goal."""
    return schema_of(Goal.parse(goal))


@dataclass(frozen=True)
class Planted:
    """A version: its noise for each goal of the family, and the rows of each goal that it recognises."""

    family: str
    levels: Mapping[str, Level]
    knows: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def skill(self, parent: str | None = None) -> Skill:
        """As the library would hold it."""
        content = [self.family, {k: list(v) for k, v in self.levels.items()}]
        content.append({goal: sorted(rows) for goal, rows in self.knows.items()})  # type: ignore[arg-type]
        artifact = hashlib.sha256(canonical_json(content).encode()).hexdigest()
        return Skill(self.family, artifact, {}, {}, parent)


@dataclass
class Bank:
    """Outcomes by (instruction, level of each stage), run when they are first asked for.

    ``rows`` of every instruction of one stage, ``composed`` of every other; ``path``: kept there, where given.
    """

    rows: int
    composed: int = 600
    path: Path | None = None
    say: Callable[[str], None] = lambda _: None
    cells: dict[tuple[str, tuple[Level, ...]], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    steps: int = 0  # environment steps taken

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            with np.load(self.path) as kept:
                for name in kept.files:
                    instruction, levels, rows = json.loads(name)
                    if rows == self.size(instruction):
                        key = (instruction, tuple((float(sigma), int(stream)) for sigma, stream in levels))
                        self.cells[key] = (kept[name][0].astype(np.bool_), kept[name][1].astype(np.int64))

    def save(self) -> None:
        """Keeps all cells at ``path``."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found = {
                json.dumps([instruction, levels, self.size(instruction)]): np.stack(cell).astype(np.int8)
                for (instruction, levels), cell in self.cells.items()
            }
            np.savez_compressed(self.path, **found)  # type: ignore[arg-type]

    def size(self, instruction: str) -> int:
        """Rows of an instruction."""
        return self.rows if len(stages_of(instruction)) == 1 else self.composed

    def outcomes(self, instruction: str, levels: tuple[Level, ...]) -> tuple[np.ndarray, np.ndarray]:
        """success bool[rows], and the stage in which each episode ended, int64[rows]."""
        key = (instruction, levels)
        if key not in self.cells:
            self.cells[key] = self._run(instruction, levels)
            rate = self.cells[key][0].mean()
            self.say(f"bank: {instruction} under {levels}: {rate:.3f} of {self.size(instruction)} episodes")
            self.save()
        return self.cells[key]

    def _run(self, instruction: str, levels: tuple[Level, ...]) -> tuple[np.ndarray, np.ndarray]:
        goals, n = stages_of(instruction), self.size(instruction)
        slots = min(SLOTS, n)
        env = TabletopVectorEnv(
            slots, [instruction], max_steps=STEPS * len(goals), autoreset_mode=AutoresetMode.DISABLED, threads=1
        )
        states, places = self._starts(env, n)
        sizes = np.array([sigma for sigma, _ in levels], np.float32)
        noise = np.stack([self._noise(goal, key, n, len(goals)) for goal, (_, key) in zip(goals, levels, strict=True)])
        expert = ScriptedOracle(env)
        success, ended = np.zeros(n, np.bool_), np.zeros(n, np.int64)
        running, following, alive = np.arange(slots), slots, np.ones(slots, np.bool_)
        env.resume(running, states[:slots], np.zeros(slots, np.int64), places[:slots])
        while alive.any():
            stage = np.minimum(env.clock.stage, len(goals) - 1)
            shake = noise[stage, running, np.minimum(env.elapsed, noise.shape[2] - 1)] * sizes[stage][:, None]
            _, _, terminated, truncated, info = env.step(expert.act() + shake)
            self.steps += int(alive.sum())
            over = np.flatnonzero(alive & (terminated | truncated))
            success[running[over]], ended[running[over]] = info["success"][over], stage[over]
            alive[over] = False
            again = over[: n - following]
            if again.size:
                new = np.arange(following, following + again.size)
                following += again.size
                env.resume(again, states[new], np.zeros(again.size, np.int64), places[new])
                running[again], alive[again] = new, True
        env.close()
        return success, ended

    def _starts(self, env: TabletopVectorEnv, n: int) -> tuple[np.ndarray, np.ndarray]:
        """States and places that the rows begin with."""
        states, places = [], []
        for k in range(-(-n // env.num_envs)):
            env.reset(seed=START_SEED + k)
            states.append(env.get_state())
            places.append(env.clock.codes.place.copy())
        return np.concatenate(states)[:n], np.concatenate(places)[:n]

    def _noise(self, goal: str, key: int, n: int, stages: int) -> np.ndarray:
        """float32[rows, steps, 5], the same for every level of a key."""
        word = int.from_bytes(hashlib.sha256(goal.encode()).digest()[:4], "little")
        draw = np.random.default_rng([START_SEED, word, key])
        return draw.standard_normal((n, STEPS * stages, 5), dtype=np.float32)

    def of(self, instruction: str, acting: Mapping[str, Planted]) -> tuple[np.ndarray, np.ndarray]:
        """`outcomes` of the versions that act for each family; all fail where a stage has none that knows its goal."""
        goals = stages_of(instruction)
        missing = [k for k, g in enumerate(goals) if family_of(g) not in acting or g not in acting[family_of(g)].levels]
        if missing:
            n = self.size(instruction)
            return np.zeros(n, np.bool_), np.full(n, missing[0] - 1)
        versions = [acting[family_of(goal)] for goal in goals]
        success, ended = self.outcomes(instruction, tuple(v.levels[g] for v, g in zip(versions, goals, strict=True)))
        known = versions[0].knows.get(instruction, frozenset()) if len(goals) == 1 else frozenset()
        if known:
            rows = np.array(sorted(known))
            success = success.copy()
            success[rows] = self.outcomes(instruction, ((0.0, 0),))[0][rows]
        return success, ended


@dataclass
class Sitting:
    """One decision's view of the bank: each fresh episode is given a row that nothing else in the decision has."""

    bank: Bank
    versions: Mapping[str, Planted]  # by version hash
    seed: int
    given: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    orders: dict[str, np.ndarray] = field(default_factory=dict)

    def row(self, task: Task) -> int:
        """The row of an episode, the next free one where it is new; GateError where the bank is used up."""
        given = self.given.setdefault(task.goal, {})
        place = given.setdefault((task.seed, task.episode), len(given))
        if place >= self.bank.size(task.goal):
            raise GateError(f"'{task.goal}' needs more than the {self.bank.size(task.goal)} rows of the bank")
        return int(self._order(task.goal)[place])

    def _order(self, goal: str) -> np.ndarray:
        if goal not in self.orders:
            word = int.from_bytes(hashlib.sha256(goal.encode()).digest()[:4], "little")
            self.orders[goal] = np.random.default_rng([self.seed, word]).permutation(self.bank.size(goal))
        return self.orders[goal]

    def acting(self, fork: Fork) -> dict[str, Planted]:
        """Family → the version that acts: that of its last slot, so an added slot takes over, a removed one yields."""
        return {slot.split(" [")[0]: self.versions[fork[slot]] for slot in sorted(fork)}

    def evaluate(self, fork: Fork, tasks: Sequence[Task]) -> Answer:
        """The gate's evaluation."""
        acting = self.acting(fork)
        hashes = {slot.split(" [")[0]: fork[slot] for slot in sorted(fork)}
        success = np.zeros(len(tasks), np.bool_)
        used = {version: np.zeros(len(tasks), np.bool_) for version in hashes.values()}
        where: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            where.setdefault(task.goal, []).append(i)
        for instruction, places in where.items():
            rows = np.array([self.row(tasks[i]) for i in places])
            found, ended = self.bank.of(instruction, acting)
            success[places] = found[rows]
            for k, goal in enumerate(stages_of(instruction)):
                if family_of(goal) in hashes:
                    used[hashes[family_of(goal)]][places] |= ended[rows] >= k
        return Answer(success, used)
