"""The held-out instructions: 40 frozen sentences of two and three steps, and the exam on them.

Nothing is trained or chosen on them. In an exam every row starts from the same states and has the same
number of control steps for each instruction; the same judge follows the frozen goal, whoever acts:

loop    the agent: reads the sentence, plans over its admitted skills, carries the plan out, plans again
play    the play policy alone, driven with the instruction's goal
random  uniformly random actions
oracle  the scripted expert, from privileged knowledge: what the world allows
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.planning.execute import Outcome, PlanFunction, carry_out, draw_starts, make_env, step_budget, wait
from embodied.skills.statistics import wilson
from embodied.training.rollouts import Actor, versions
from envs.goals import Goal, GoalError, parse_instruction
from envs.monitor import InstructionMonitor
from envs.observations import FEATURES
from envs.playroom.oracle import ScriptedOracle
from envs.vector import ACTIONS, TabletopVectorEnv

if TYPE_CHECKING:
    from embodied.repertoire import Repertoire

__all__ = [
    "METHODS", "RATE_KEYS", "ROWS", "ExamError", "Instruction", "exam", "instructions", "kept_rows", "rate",
    "report_rows",
]  # fmt: skip

ROWS = ("loop", "play", "random", "oracle")
METHODS = {"loop": "agent", "play": "play policy", "random": "random", "oracle": "oracle"}  # in reports
RATE_KEYS = ("successes", "n", "rate", "lower", "upper")


class ExamError(ValueError):
    """An exam was asked for that does not exist, or its result cannot be read; the sentence says what is valid."""


@dataclass(frozen=True)
class Instruction:
    """A sentence, the goal it is judged by, and how many steps it asks for."""

    text: str
    goal: Goal
    steps: int


@cache
def instructions() -> tuple[Instruction, ...]:
    """The frozen instructions, in order."""
    rows = json.loads(files("embodied.evaluation").joinpath("heldout.json").read_text(encoding="utf-8"))
    return tuple(Instruction(row["instruction"], Goal.parse(row["goal"]), int(row["steps"])) for row in rows)


@dataclass
class _Sitting:
    """What every row is given, a slot (instruction × episode): a goal, a start, a number of control steps."""

    questions: list[Instruction]
    states: np.ndarray
    seed: int
    replans: int
    threads: int
    tick: Callable[[], None]
    reasons: dict[int, str] = field(default_factory=dict)  # slot -> why the agent failed
    planner: PlanFunction | None = None
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # slot -> what came of the agent's plans

    @property
    def goals(self) -> list[Goal]:
        return [question.goal for question in self.questions]


def exam(
    repertoire: Repertoire,
    play_policy: Actor | None,
    seed: int,
    episodes: int = 5,
    replans: int = 2,
    threads: int = 0,
    rows: Sequence[str] = ROWS,
    *,
    questions: Sequence[Instruction] | None = None,
    tick: Callable[[], None] | None = None,
    planner: PlanFunction | None = None,
    outcomes: dict[int, Outcome] | None = None,
) -> dict[str, Any]:
    """Every instruction, ``episodes`` times, for each of ``rows``; without a play policy its row is left out.

    Returns, ready for JSON: ``rows`` {row: {successes, n, rate, lower, upper, by_steps: {"2": …, "3": …}}}
    with Wilson intervals, ``instructions`` [{instruction, goal, steps, successes: {row: int},
    episodes: {row: [bool]}, reasons: {why the agent failed: times}}], ``versions``, ``seed``. ``tick`` is
    called at every control step. ``planner`` is another than the repertoire's. ``outcomes`` is filled with what came of
    each slot's plans (its number is the instruction's times ``episodes``, plus the episode's); one whose sentence was
    not read has none. Raises ExamError for an unknown row or too few episodes.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise ExamError(f"there is no row {unknown[0]!r} in the exam; the rows are: {', '.join(ROWS)}")
    if episodes < 1:
        raise ExamError(f"an exam of {episodes} episodes an instruction says nothing; at least 1 is needed")
    asked = list(instructions() if questions is None else questions)
    slots = [question for question in asked for _ in range(episodes)]
    world = make_env((), len(slots), threads)
    states = draw_starts(world, [question.goal for question in slots], seed)
    world.close()
    sitting = _Sitting(slots, states, seed, replans, threads, tick or (lambda: None), planner=planner)
    found: dict[str, np.ndarray] = {}
    for row in rows:
        if row == "loop":
            found[row] = _agent(sitting, repertoire)
            if outcomes is not None:
                outcomes |= sitting.outcomes
        elif row != "play" or play_policy is not None:
            found[row] = _alone(sitting, row, play_policy)
    table = {row: success.reshape(len(asked), episodes) for row, success in found.items()}
    return _result(asked, table, sitting.reasons, seed)


def _agent(sitting: _Sitting, repertoire: Repertoire) -> np.ndarray:
    """bool[slots]: the agent reads each sentence itself; the frozen goal judges it while it is at work."""
    read: dict[int, Goal] = {}
    for i, question in enumerate(sitting.questions):
        try:
            read[i] = parse_instruction(question.text)
        except GoalError as error:
            sitting.reasons[i] = str(error)
    success = np.zeros(len(sitting.questions), np.bool_)
    rows = list(read)
    if not rows:
        return success
    judge = InstructionMonitor([sitting.questions[i].goal for i in rows])
    first = np.full(len(rows), np.iinfo(np.int64).max)  # control step at which the judge saw it done
    now = 0

    def follow(env: TabletopVectorEnv, _: list[str]) -> None:
        nonlocal now
        now += 1
        done = judge.update(env.facts)
        first[done] = np.minimum(first[done], now)
        sitting.tick()

    outcomes, _ = carry_out(
        [read[i] for i in rows], repertoire.actors, sitting.planner or repertoire.planner(), sitting.seed,
        replans=sitting.replans, threads=sitting.threads, on_step=follow, state=sitting.states[rows],
    )  # fmt: skip
    sitting.outcomes = dict(zip(rows, outcomes, strict=True))
    for i, outcome, step in zip(rows, outcomes, first, strict=True):
        success[i] = step <= outcome.steps
        if not success[i]:
            sitting.reasons[i] = outcome.reason or "it was done, but not what was asked"
    return success


def _alone(sitting: _Sitting, row: str, play_policy: Actor | None) -> np.ndarray:
    """bool[slots]: one controller on the environment's own goals, stage after stage."""
    from policies.random import RandomPolicy

    goals, n = sitting.goals, len(sitting.questions)
    texts = list(dict.fromkeys(map(str, goals)))
    env = TabletopVectorEnv(
        n, texts, max_steps=1 << 30, terminate_on_success=False, threads=sitting.threads, free_starts=True,
        autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip
    env.reset(seed=sitting.seed, options={"which": np.array([texts.index(str(goal)) for goal in goals])})
    env.set_state(sitting.states)
    judge = InstructionMonitor(goals)
    budgets = np.array([step_budget(goal, sitting.replans) for goal in goals])
    success, live = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    oracle = ScriptedOracle(env) if row == "oracle" else None
    actor: Actor = RandomPolicy(FEATURES, ACTIONS["tool"], sitting.seed)
    if row == "play" and play_policy is not None:
        actor = play_policy
    memory, begins, step = None, np.ones(n, np.bool_), 0
    while live.any():
        if oracle is not None:
            action = oracle.act(env)
        else:
            action, memory = actor.predict(env.observation(), memory, begins, deterministic=True)
        begins = np.zeros(n, np.bool_)
        env.step(np.where(live[:, None], action, wait(env)))
        step += 1
        success |= judge.update(env.facts) & live
        live &= ~success & (step < budgets)
        sitting.tick()
    env.close()
    return success


def rate(successes: int, n: int) -> dict[str, Any]:
    """successes, n, rate and its Wilson interval (lower, upper), ready for JSON."""
    lower, upper = wilson(successes, n)
    share = successes / n if n else 0.0
    found = {"successes": int(successes), "n": int(n), "rate": share}
    return found | {"lower": float(lower), "upper": float(upper)}


def _result(
    asked: Sequence[Instruction], table: Mapping[str, np.ndarray], reasons: Mapping[int, str], seed: int
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    depths = sorted({question.steps for question in asked})
    for row, success in table.items():
        by_steps = {}
        for depth in depths:
            part = success[[question.steps == depth for question in asked]]
            by_steps[str(depth)] = rate(int(part.sum()), part.size)
        rows[row] = rate(int(success.sum()), success.size) | {"by_steps": by_steps}
    entries = []
    for k, question in enumerate(asked):
        episodes = next(iter(table.values())).shape[1] if table else 0
        why = [reasons[i] for i in range(k * episodes, (k + 1) * episodes) if i in reasons]
        entries.append({
            "instruction": question.text, "goal": str(question.goal), "steps": question.steps,
            "successes": {row: int(success[k].sum()) for row, success in table.items()},
            "episodes": {row: success[k].tolist() for row, success in table.items()},
            "reasons": dict(Counter(why)),
        })  # fmt: skip
    return {"rows": rows, "instructions": entries, "versions": versions(), "seed": seed}


def report_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An exam's result as a run's held-out file keeps it: {method, depth, successes, n}, a row of each."""
    return [
        {"method": METHODS[row], "depth": int(depth), "successes": part["successes"], "n": part["n"]}
        for row, entry in found["rows"].items()
        for depth, part in entry["by_steps"].items()
    ]


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """The rows {method, depth, successes, n} in a held-out file, kept as an exam's result or as rows.

    Raises FileNotFoundError where there is none, ExamError where it is damaged.
    """
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
        rows = report_rows(found) if isinstance(found, dict) else found
        return [{key: row[key] for key in ("method", "depth", "successes", "n")} for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExamError(f"{path} is damaged ({error}); measure anew: embodied eval what=instructions") from error
