"""Tasks for the task model: imagined starts and goals, their depth, and chains of two that share something.

A goal is drawn from what a random walk of skills makes of a start, so it can be reached; literals that hold already may
stand in it. The *depth* of a task is the number of steps of the embedded planner's plan. Held-out tasks are drawn from
seeds of their own, and no task with an equal goal and start is ever trained on; nor is any goal of the frozen
instructions (`embodied.evaluation.heldout`), from whatever start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from embodied.language.symbolic_world import SymbolicWorld, random_start
from embodied.language.task_plans import Task
from envs.goals import Goal, Literal, impossible_reason

__all__ = ["Chain", "Tasks", "heldout_chains", "heldout_tasks"]

STAGED, HELD, BEFORE = 0.4, 0.35, 0.3  # shares: goals in stages, goals with what holds already, starts walked to
FORWARD = 0.4  # share of a detour's steps that are the plan's
TRIES = 200


@dataclass(frozen=True)
class Chain:
    """Two tasks: what the second asks for contains what the first does, from another start."""

    first: Task
    second: Task


@dataclass
class Tasks:
    """Draws tasks in a world; ``avoid`` holds keys of tasks and ``avoided`` goals that are not to be drawn."""

    world: SymbolicWorld
    avoid: Collection[tuple[frozenset[str], Goal]] = ()
    avoided: Collection[Goal] = ()
    _families: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        schemas = self.world.schemas
        self._families = [[k for k, s in enumerate(schemas) if s == name] for name in dict.fromkeys(schemas)]

    def task(self, rng: np.random.Generator, literals: int) -> Task:
        """A task whose goal has that many literals, not all of them met; ValueError where none can be drawn."""
        for _ in range(TRIES):
            state = self.start(rng)
            goal = self._goal(rng, state, literals)
            if goal is None or goal in self.avoided:
                continue
            found = Task(self.world.facts(state), goal)
            if found.key not in self.avoid and not self.world.run(state[None], [goal], [()]).success[0]:
                return found
        raise ValueError(f"no task of {literals} literals can be drawn with {len(self.world)} skills")

    def chain(self, rng: np.random.Generator, literals: tuple[int, int]) -> Chain:
        """A chain whose goals have that many literals; the second begins elsewhere."""
        for _ in range(TRIES):
            first = self.task(rng, literals[0])
            state = self.start(rng)
            walked = self._walk(rng, state, 2 * (literals[1] - literals[0]) + 1)[1]
            more = [x for k in walked for x in self.world.goals[k].final if x not in first.goal.literals]
            more = more[: literals[1] - literals[0]]
            if len(more) < literals[1] - literals[0]:
                continue
            stages = first.goal.stages
            try:
                goal = (
                    Goal((*stages, tuple(more)))
                    if rng.random() < STAGED
                    else Goal((*stages[:-1], (*stages[-1], *more)))
                )
            except ValueError:
                continue
            if impossible_reason(goal) or goal in self.avoided:
                continue
            second = Task(self.world.facts(state), goal)
            if second.key not in self.avoid and not self.world.run(state[None], [goal], [()]).success[0]:
                return Chain(first, second)
        raise ValueError(f"no chain of {literals} literals can be drawn with {len(self.world)} skills")

    def detour(self, rng: np.random.Generator, task: Task, plan: Sequence[Goal]) -> tuple[list[Goal], Goal, np.ndarray]:
        """One to three steps by chance, at times the plan's next one; what is left of the goal, and the state then."""
        state, ahead, made = self.world.state(task.facts), list(plan), list[int]()
        for _ in range(int(rng.integers(1, 4))):
            if (
                ahead
                and rng.random() < FORWARD
                and self.world.step(state[None], np.array([self.world.skill(ahead[0])]))[1][0]
            ):
                made.append(self.world.skill(ahead.pop(0)))
            else:
                made += self._walk(rng, state, 1)[1]
            state = self.world.run(state[None], [task.goal], [made[-1:]]).states[0]
        verdict = self.world.run(self.world.state(task.facts)[None], [task.goal], [made])
        left = Goal(task.goal.stages[int(verdict.stage[0]) :])
        return [self.world.goals[k] for k in made], left, verdict.states[0]

    def hindsight(self, rng: np.random.Generator, task: Task, steps: Sequence[Goal]) -> tuple[Task, list[Goal]] | None:
        """What three steps or more would have been right for, whatever they were meant for: a task, and the steps."""
        states, skills = [self.world.state(task.facts)], list[int]()
        for k in map(self.world.skill, steps):
            after, fine = self.world.step(states[-1][None], np.array([k]))
            if not fine[0]:
                break
            if (after[0] != states[-1]).any():
                states.append(after[0])
                skills.append(k)
        if len(skills) < 3:
            return None
        goal = self._goal_of(rng, states, skills, int(rng.integers(2, min(len(skills), 4) + 1)))
        if goal is None or goal in self.avoided or (task.facts, goal) in self.avoid:
            return None
        return Task(task.facts, goal), [self.world.goals[k] for k in skills]

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """A state bool[A] to begin in."""
        state = self.world.state(random_start(rng))
        return self._walk(rng, state, int(rng.integers(1, 3)))[0][-1] if rng.random() < BEFORE else state

    def _walk(self, rng: np.random.Generator, state: np.ndarray, steps: int) -> tuple[list[np.ndarray], list[int]]:
        """States from ``state`` on and the skills between them, drawn by schema and then by grounding."""
        states, skills = [state], []
        for _ in range(steps):
            free = self.world.applicable(states[-1][None])[0]
            families = [[k for k in family if free[k]] for family in self._families]
            families = [family for family in families if family]
            if not families:
                break
            family = families[rng.integers(len(families))]
            skill = family[rng.integers(len(family))]
            skills.append(skill)
            states.append(self.world.step(states[-1][None], np.array([skill]))[0][0])
        return states, skills

    def _goal(self, rng: np.random.Generator, state: np.ndarray, literals: int) -> Goal | None:
        return self._goal_of(rng, *self._walk(rng, state, literals + int(rng.integers(0, literals + 1))), literals)

    def _goal_of(
        self, rng: np.random.Generator, states: list[np.ndarray], skills: list[int], literals: int
    ) -> Goal | None:
        """A goal that a walk reached, of so many literals; None where it does not make one."""
        if not skills:
            return None
        reached = [self.world.goals[k].final for k in skills]
        if literals > 1 and rng.random() < STAGED:
            if len(skills) < literals:
                return None
            chosen = sorted(rng.permutation(len(skills))[:literals].tolist())
            stages: list[tuple[Literal, ...]] = []
            for i in chosen:
                joined = (*stages[-1], *reached[i]) if stages and rng.random() < 0.3 else None
                if joined and self._holds(states[i + 1], joined):
                    stages[-1] = joined
                else:
                    stages.append(reached[i])
        else:
            pool = list(dict.fromkeys(x for final in reached for x in final if self._holds(states[-1], (x,))))
            if literals > 1 and rng.random() < HELD:
                known = dict.fromkeys(x for goal in self.world.goals for x in goal.final)
                kept = [x for x in known if self._holds(states[-1], (x,)) and self._holds(states[0], (x,))]
                pool += [x for x in kept if x not in pool]
            if len(pool) < literals:
                return None
            stages = [tuple(pool[i] for i in rng.permutation(len(pool))[:literals])]
        goal = Goal(tuple(stages))
        return goal if len(goal.literals) == literals and impossible_reason(goal) is None else None

    def _holds(self, state: np.ndarray, literals: Iterable[Literal]) -> bool:
        yes, no = self.world.literals(literals)
        return bool((state | ~yes).all() and not (state & no).any())


def heldout_tasks(tasks: Tasks, depths: Iterable[int], each: int, seed: int) -> dict[int, list[Task]]:
    """Depth → tasks of that depth, no two the same: drawn with ``seed`` alone."""
    rng = np.random.default_rng(seed)
    found: dict[int, list[Task]] = {depth: [] for depth in depths}
    known: set[tuple[frozenset[str], Goal]] = set()
    while any(len(rows) < each for rows in found.values()):
        open_ = [depth for depth, rows in found.items() if len(rows) < each]
        depth = open_[rng.integers(len(open_))]
        task = tasks.task(rng, int(rng.integers(max(1, depth - 1), depth + 2)))
        steps = len(tasks.world.plan(task.goal, tasks.world.state(task.facts)).steps)
        if task.key not in known and len(found.get(steps, ())) < each and steps in found:
            found[steps].append(task)
            known.add(task.key)
    return found


def heldout_chains(tasks: Tasks, n: int, seed: int) -> list[Chain]:
    """n chains whose first task is of depth 2 and whose second of depth 3 or 4, drawn with ``seed`` alone."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < n:
        chain = tasks.chain(rng, (int(rng.integers(1, 3)), int(rng.integers(2, 5))))
        steps = [len(tasks.world.plan(t.goal, tasks.world.state(t.facts)).steps) for t in (chain.first, chain.second)]
        if steps[0] == 2 and steps[1] in (3, 4):
            found.append(chain)
    return found
