"""Carrying out instructions on physics: plan over skills, run them as options, look, and plan again where one fails.

A whole batch is carried out at once, one instruction a slot. A slot looks at its own facts, asks the planner for the
steps from there, and runs one skill at a time: until that skill's goal has held, or its time is up. When steps run out
or fail with the instruction still open, it plans anew, a limited number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.training.rollouts import MAX_STEPS, Actor
from envs.goals import Goal, Literal
from envs.monitor import STATE_LITERALS, InstructionMonitor, truth_table
from envs.predicates import LAMP
from envs.vector import TabletopVectorEnv
from envs.vocabulary import BLOCKS, PLACES

__all__ = ["OptionRecord", "Outcome", "carry_out", "symbolic_state"]

_SPOTS = tuple(Literal("at", (block, place)) for block in BLOCKS for place in PLACES)


@dataclass
class OptionRecord:
    """One skill that was run: its goal, the literals before and after, whether it reached its goal, control steps."""

    schema: str
    goal: str
    start: dict[str, bool]
    end: dict[str, bool]
    success: bool
    steps: int


@dataclass
class Outcome:
    """What came of one instruction."""

    goal: str
    success: bool = False
    steps: int = 0  # control steps
    replans: int = 0
    plans: list[list[str]] = field(default_factory=list)  # the goals of each plan's steps
    options: list[OptionRecord] = field(default_factory=list)
    reason: str = ""  # why it ended without success
    holds: dict[str, bool] = field(default_factory=dict)  # the instruction's literals at the end


@dataclass
class Step:
    """A step of a plan: which skill, and with which ground goal."""

    schema: str
    goal: str


PlanFunction = Callable[[Mapping[str, bool], Goal], "list[Step] | str"]
"""(literal → holds, what remains of the instruction) → steps, or one sentence saying why there is no plan."""


def symbolic_state(facts: np.ndarray) -> list[dict[str, bool]]:
    """The literals that the planner sees, for each row of facts float[n, NX]; ``placed`` stands for ``at`` here."""
    table, spots = truth_table(facts), truth_table(facts, _SPOTS)
    states = []
    for row, spot in zip(table, spots, strict=True):
        state = {str(literal): bool(value) for literal, value in zip(STATE_LITERALS, row, strict=True)}
        for literal, value in zip(_SPOTS, spot, strict=True):
            state[str(literal)] = bool(value)
            state[str(Literal("placed", literal.args))] = bool(value)
        states.append(state)
    return states


class _Slot:
    """Where one slot stands in its plan."""

    def __init__(self, goal: Goal):
        self.outcome = Outcome(str(goal))
        self.queue: list[Step] = []
        self.current: Step | None = None
        self.started = 0
        self.before: dict[str, bool] = {}
        self.done = False


def carry_out(
    instructions: Sequence[Goal],
    skills: Mapping[str, Actor],
    plan: PlanFunction,
    seed: int,
    *,
    replans: int = 2,
    option_steps: int = MAX_STEPS,
    threads: int = 0,
    on_step: Callable[[TabletopVectorEnv, list[str]], None] | None = None,
    state: np.ndarray | None = None,
) -> tuple[list[Outcome], int]:
    """Carries out one instruction a slot from free starts (in which it does not hold yet); (outcomes, steps taken).

    skills: schema → what acts. ``on_step(env, goals of the running skills)`` sees every control step (for pictures).
    ``state`` float64[n, S] continues from there instead of drawing starts.
    """
    n = len(instructions)
    options = sorted({*_ground_goals(skills)})
    index = {goal: k for k, goal in enumerate(options)}
    env = TabletopVectorEnv(
        n, options or ["open(drawer)"], max_steps=1 << 30, terminate_on_success=False, threads=threads, free_starts=True,
        autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip
    observation, _ = env.reset(seed=seed)
    if state is not None:
        env.set_state(state)
        observation = env._observation()
    else:
        observation = _avoid_done(env, instructions, observation)
    monitor = InstructionMonitor(instructions)
    slots = [_Slot(goal) for goal in instructions]
    memory: dict[str, object] = dict.fromkeys(skills)
    begins = {schema: np.ones(n, np.bool_) for schema in skills}
    taken = 0
    budget = option_steps * (max((len(goal.literals) for goal in instructions), default=1) + 2) * (replans + 1)
    for step in range(budget):
        _advance(env, monitor, slots, plan, index, begins, step, replans, option_steps)
        live = [i for i, slot in enumerate(slots) if not slot.done]
        if not live:
            break
        observation = env._observation()
        action = np.zeros((n, env.single_action_space.shape[0]), np.float32)
        action[:, -1] = env.latches[:, 4]
        for schema in sorted({slots[i].current.schema for i in live}):  # type: ignore[union-attr]
            rows = [i for i in live if slots[i].current.schema == schema]  # type: ignore[union-attr]
            found, memory[schema] = skills[schema].predict(observation, memory[schema], begins[schema], deterministic=True)
            begins[schema][:] = False
            action[rows] = found[rows]
        _, _, _, _, info = env.step(action)
        taken += len(live)
        monitor.update(env.facts)
        for i in live:
            slots[i].outcome.steps += 1
            slots[i].outcome.success = bool(monitor.success[i])
            if info["success"][i]:
                _finish(env, slots[i], i, True, step + 1)
        if on_step is not None:
            on_step(env, [slot.current.goal if slot.current else "" for slot in slots])
    for i, slot in enumerate(slots):
        slot.outcome.holds = monitor.holds(env.facts, i)
        if not slot.outcome.success and not slot.outcome.reason:
            slot.outcome.reason = "time ran out"
    env.close()
    return [slot.outcome for slot in slots], taken


def _advance(env, monitor, slots, plan, index, begins, step, replans, option_steps) -> None:
    """Gives every slot that needs one its next skill: from its queue, or from a new plan."""
    wants, goals = [], []
    states: list[dict[str, bool]] | None = None
    for i, slot in enumerate(slots):
        if slot.done:
            continue
        if monitor.success[i]:
            slot.done = True
            continue
        if slot.current is not None:
            if step - slot.started < option_steps:
                continue
            _finish(env, slot, i, False, step)
        states = states or symbolic_state(env.facts)
        while slot.queue and states[i].get(slot.queue[0].goal, False):
            slot.queue.pop(0)  # done already
        if not slot.queue:
            if slot.outcome.plans:
                if slot.outcome.replans >= replans:
                    slot.done = True
                    slot.outcome.reason = "no plan left to try"
                    continue
                slot.outcome.replans += 1
            rest = Goal(monitor.goals[i].stages[monitor.stage[i] :])
            found = plan(states[i], rest)
            if isinstance(found, str):
                slot.done, slot.outcome.reason = True, found
                continue
            slot.outcome.plans.append([s.goal for s in found])
            slot.queue = [s for s in found if s.goal in index]
            if not slot.queue:  # the planner sees nothing left to do; give the monitor time to see it too
                slot.done = bool(slot.outcome.replans >= replans)
                slot.queue = []
                continue
        slot.current = slot.queue.pop(0)
        slot.started, slot.before = step, states[i]
        wants.append(i)
        goals.append(index[slot.current.goal])
        begins[slot.current.schema][i] = True
    if wants:
        env.assign_goals(np.array(goals), np.array(wants))


def _finish(env, slot: _Slot, i: int, success: bool, step: int) -> None:
    """Ends a slot's running skill and records it; a failed one drops the rest of its plan."""
    assert slot.current is not None
    after = symbolic_state(env.facts[i : i + 1])[0]
    slot.outcome.options.append(
        OptionRecord(slot.current.schema, slot.current.goal, slot.before, after, success, step - slot.started)
    )
    slot.current = None
    if not success:
        slot.queue = []


def _avoid_done(env: TabletopVectorEnv, instructions: Sequence[Goal], observation: np.ndarray) -> np.ndarray:
    """Draws starts anew where an instruction's last stage holds already; gives up after 20 draws."""
    finals = sorted({literal for goal in instructions for literal in goal.final})
    column = {literal: k for k, literal in enumerate(finals)}
    resting = [Literal("at", x.args) if x.predicate == "placed" else x for x in finals]
    for _ in range(20):
        table = truth_table(env.facts, resting)
        done = np.array([all(table[i, column[x]] for x in goal.final) for i, goal in enumerate(instructions)])
        if not done.any():
            break
        observation, _ = env.reset(options={"reset_mask": done})
    return observation


def _ground_goals(skills: Mapping[str, Actor]) -> list[str]:
    """Every ground goal the skills can be given, named places included."""
    from envs.goals import ground

    found = []
    for schema in skills:
        for goal in ground(schema):
            found.append(str(goal))
            for literal in goal.literals:
                if "anywhere" in literal.args:
                    found += [str(Goal.of(Literal(literal.predicate, (literal.args[0], place)))) for place in PLACES]
    return found


def watch(env: TabletopVectorEnv) -> tuple[np.ndarray, np.ndarray]:
    """What a renderer needs of an environment's present: qpos float64[n, nq], lamp lit bool[n]."""
    return env.simulation.qpos.copy(), env.facts[:, LAMP] > 0.5
