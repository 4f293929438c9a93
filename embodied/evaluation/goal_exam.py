"""How far a policy gets towards goals given as states: the playroom's tasks, one, two or three at a time.

A question is a start and the facts at the end of a scripted expert's way from that start; what is asked of a policy is
to bring the room there. It is judged as the tasks are, by the simulator's predicates on the change from start to end,
not by its distance to that state. Questions that the expert itself did not solve are not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.data.pictures import Eyes, Pixels, Seen
from embodied.skills.statistics import wilson
from envs.scenes.experts import ScriptedExpert
from envs.scenes.facts import B_BOTTOM, BLOCK_STRIDE, BLOCKS
from envs.scenes.playroom import PlayroomVectorEnv
from policies.base import Policy
from policies.chunks import ChunkPolicy

__all__ = ["Answers", "Exam", "Seeing", "chains", "set_exam", "sit_exam"]

AFTER = 5  # steps the expert goes on after success, so that the goal is a state of rest
STEPS = 250  # control steps a task may take
Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What is examined: facts[n, NX] and goal facts[n, NX] -> actions[n, A]."""


@dataclass(frozen=True, eq=False)
class Exam:
    """n questions: simulator states float64[n, S] at the start, goals float64[n, NX] (facts), which int64[n] of the
    ``tasks`` each is about, and the seed they were drawn with. ``depth`` is how many tasks lie between. ``starts``
    float64[n, NX] are the facts at the start, ``ends`` float64[n, S] the simulator states of the goals, of which
    pictures are taken; ``ways`` holds the expert's way, where it was asked for: facts float32[n, T + 1, NX] and actions
    float32[n, T, A].
    """

    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    which: np.ndarray
    states: np.ndarray
    goals: np.ndarray
    seed: int
    depth: int = 1
    scene: Any = "playroom"
    starts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    ends: np.ndarray | None = None
    ways: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.which)


@dataclass(frozen=True, eq=False)
class Answers:
    """What became of an exam: success bool[n], steps int64[n] until it (or the last), of each question."""

    exam: Exam
    success: np.ndarray
    steps: np.ndarray
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Success averaged over tasks, all alike."""
        return float(np.mean(list(self.by_task.values()))) if len(self.exam) else 0.0

    @property
    def by_task(self) -> dict[str, float]:
        """Task → share of its questions solved."""
        exam = self.exam
        return {
            t: float(self.success[exam.which == k].mean()) for k, t in enumerate(exam.tasks) if (exam.which == k).any()
        }

    def summary(self) -> dict[str, Any]:
        """As JSON values: the average, Wilson's interval of all questions together, and each task's rate."""
        solved = int(self.success.sum())
        lower, upper = wilson(solved, len(self.exam))
        return {
            "rate": self.rate,
            "lower": float(lower),
            "upper": float(upper),
            "n": len(self.exam),
            "solved": solved,
            "by_task": self.by_task,
        }


def exam_env(
    questions: int, tasks: Sequence[str], scene: Any = "playroom", steps: int = STEPS, **world: Any
) -> PlayroomVectorEnv:
    """An environment that an exam can be set and sat in."""
    return PlayroomVectorEnv(
        questions, list(tasks), scene, max_steps=steps, terminate_on_success=False, sleep=False,
        autoreset_mode=AutoresetMode.DISABLED, **world,
    )  # fmt: skip


def set_exam(
    tasks: Sequence[str], each: int, seed: int, *, scene: Any = "playroom", depth: int = 1, threads: int = 0,
    ways: bool = False,
) -> Exam:  # fmt: skip
    """``each`` questions of every task (a task of the scene, or a goal in its words), as far as the expert solves them.

    The same seed gives the same questions; with ``ways`` the expert's way is kept of each. Raises WordError for a task
    there is not.
    """
    spare = each + max(2, each // 5)
    env = exam_env(spare * len(tasks), tasks, scene, STEPS * depth, threads=threads)
    which = np.repeat(np.arange(len(tasks)), spare)
    env.reset(seed=seed, options={"which": which})
    states, expert = env.get_state(), ScriptedExpert(env)
    starts, goals, ends = env.facts.copy(), env.facts.copy(), states.copy()
    since = np.full(len(which), -1)
    facts, done = [env.facts.astype(np.float32)], []
    for _ in range(STEPS * depth):
        actions = expert.act()
        info = env.step(actions)[4]
        if ways:
            facts.append(env.facts.astype(np.float32))
            done.append(actions.astype(np.float32))
        since = np.where(since >= 0, since + 1, np.where(info["success"] & ~env.lost, 0, -1))
        fresh = (since >= 0) & (since <= AFTER)
        goals[fresh], ends[fresh] = env.facts[fresh], env.get_state(np.flatnonzero(fresh))
        if (since > AFTER).all():
            break
    solved = since >= 0
    solved &= env.distance.min(axis=1) > 0  # and it still holds
    keep = np.concatenate([np.flatnonzero((which == k) & solved)[:each] for k in range(len(tasks))])
    texts = tuple(env.goals)
    env.close()
    way = (np.stack(facts, axis=1)[keep], np.stack(done, axis=1)[keep]) if ways else None
    return Exam(
        tuple(tasks), texts, which[keep], states[keep], goals[keep], seed, depth, scene, starts[keep], ends[keep], way
    )


def chains(scene: Any, depth: int) -> tuple[str, ...]:
    """Goals of ``depth`` different tasks at once, no thing spoken of twice, nothing to be held before the end.

    The same for everyone: consecutive tasks of the scene's list, as far as they go together.
    """
    tasks = dict(scene.tasks)
    found: list[str] = []
    names = list(tasks)
    for shift in range(1, len(names)):
        for k in range(len(names)):
            chain = [tasks[names[(k + shift * i) % len(names)]] for i in range(depth)]
            chain.sort(key=lambda term: term.startswith("lifted"))
            things = [part.strip() for term in chain for part in term[term.index("(") + 1 : -1].split(",")]
            lifts = sum(term.startswith("lifted") for term in chain)
            if len(set(things)) == len(things) and lifts <= 1:
                text = " & ".join(chain)
                if text not in found:
                    found.append(text)
        if len(found) >= len(names):
            break
    return tuple(found[: len(names)])


def sit_exam(
    act: Act | None, exam: Exam, *, steps: int | None = None, disturb: str | None = None, seed: int = 0,
    watch: Any = None, threads: int = 0,
) -> Answers:  # fmt: skip
    """Puts each question to ``act`` for ``steps`` control steps (None: 250 for each task in it).

    ``disturb``: ``push`` drives the arm aside for half a second at a random moment of the first 4 s, ``move`` puts a
    block 4 cm aside then (the one the goal is about where it is about one, if it is not held). ``watch(env, t)`` is
    called after every step. ``act`` None is the scripted expert. Raises ValueError for another disturbance.
    """
    if disturb not in (None, "push", "move"):
        raise ValueError(f"unknown disturbance '{disturb}'; valid: push, move")
    steps = STEPS * exam.depth if steps is None else steps
    env = exam_env(len(exam), exam.tasks, exam.scene, steps + 1, threads=threads)
    env.reset(seed=exam.seed, options={"which": exam.which})
    if isinstance(act, Seeing):
        act.begin(env, exam)
    env.set_state(exam.states)
    answer = _expert(env) if act is None else act
    draws = np.random.default_rng([exam.seed, seed, 77])
    moment = draws.integers(20, 80, len(exam))
    direction = draws.uniform(-1, 1, (len(exam), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    success, taken = np.zeros(len(exam), np.bool_), np.full(len(exam), steps, np.int64)
    for t in range(steps):
        actions = np.array(answer(env.facts, exam.goals))
        if disturb == "push":
            pushed = (t >= moment) & (t < moment + 10) & ~success
            actions[pushed, :3] = direction[pushed]
        elif disturb == "move":
            _move_blocks(env, np.flatnonzero((t == moment) & ~success), exam, direction)
        info = env.step(actions)[4]
        fresh = info["success"] & ~success
        taken[fresh] = t + 1
        success |= info["success"]
        if watch is not None:
            watch(env, t)
        if success.all():
            break
    env.close()
    if isinstance(act, Seeing):
        act.eyes.close()
    return Answers(exam, success, taken)


def _expert(env: PlayroomVectorEnv) -> Act:
    expert = ScriptedExpert(env)
    return lambda facts, goals: expert.act()


def _move_blocks(env: PlayroomVectorEnv, slots: np.ndarray, exam: Exam, direction: np.ndarray) -> None:
    """Puts the block that changes most between a slot's present and its goal 4 cm aside, unless it is off the table."""
    blocks = env.sizes[0]
    for i in slots:
        first = [BLOCKS + BLOCK_STRIDE * b for b in range(blocks)]
        gap = [np.linalg.norm(exam.goals[i, p : p + 3] - env.facts[i, p : p + 3]) for p in first]
        b = int(np.argmax(gap))
        if env.facts[i, first[b] + B_BOTTOM] > 0.01:  # in the air, or on something
            continue
        at = int(env._layout[0][0][b])
        aside = direction[i, :2] / max(1e-9, float(np.linalg.norm(direction[i, :2])))
        env.simulation.qpos[i, at : at + 2] += 0.04 * aside


class Seeing:
    """A policy over pictures as what an exam is put to; its state begins anew. It looks when it is to decide anew."""

    def __init__(self, policy: ChunkPolicy, encoder: Pixels, threads: int = 0) -> None:
        self.policy, self.encoder, self.threads = policy, encoder, threads

    def begin(self, env: PlayroomVectorEnv, exam: Exam) -> None:
        """Takes pictures of an exam's goals, from the states they are; leaves the environment there."""
        if exam.ends is None:
            raise ValueError("the exam has no simulator states of its goals, of which pictures could be taken")
        self.env, self.eyes = env, Eyes(env, self.encoder.image, self.encoder.camera, self.threads)
        env.set_state(exam.ends)
        self.goals = self._look(np.arange(len(exam)))
        self.features = np.zeros((len(exam), self.encoder.feature_size), np.float32)
        self.state: Any = None

    def __call__(self, facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        start = np.ones(len(facts), np.bool_) if self.state is None else None
        due = np.flatnonzero(self.policy.due(self.state, len(facts)))
        if len(due):
            self.features[due] = self.encoder.features(self._look(due), self.goals[due])
        actions, self.state = self.policy.predict(self.features, self.state, start)
        return actions

    def _look(self, slots: np.ndarray) -> Seen:
        """What is seen now of slots; the blind are spared the drawing."""
        facts = self.env.facts[slots]
        if self.encoder.blind:
            return Seen(facts, np.zeros((len(slots), *self.encoder.image, 3), np.uint8))
        return Seen(facts, self.eyes.see(self.env.simulation.qpos[slots], facts))


def acting(policy: Policy, encoder: Any, deterministic: bool = False) -> Act:
    """A policy over features as what an exam is put to; its state begins anew."""
    state: Any = None
    begun = False

    def act(facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        nonlocal state, begun
        start = None if begun else np.ones(len(facts), np.bool_)
        begun = True
        actions, state = policy.predict(encoder.features(facts, goals), state, start, deterministic)
        return actions

    return act
