"""Carrying out instructions on physics: plan over skills, run them as options, look, and plan again.

A whole batch is carried out at once, one instruction a slot. A slot looks at its own facts, asks the planner
for the steps from there, and runs one skill at a time: until that skill's goal has held, or its time is up.
When steps run out or fail with the instruction still open, it plans anew, a limited number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.planning.invented import Invented, extend
from embodied.training.kept import KeptStates
from embodied.training.rollouts import MAX_STEPS, Actor
from envs.goals import Goal, Literal, ground
from envs.monitor import STATE_LITERALS, InstructionMonitor, truth_table
from envs.predicates import BLOCK, BLOCK_STRIDE, GRIP
from envs.vector import TabletopVectorEnv
from envs.vocabulary import BLOCKS, PLACES

__all__ = [
    "OptionRecord", "Outcome", "PlanFunction", "Step", "carry_out", "draw_starts", "make_env",
    "step_budget", "symbolic_state", "wait", "watch",
]  # fmt: skip

DRAWS = 64  # starts drawn at most for one slot
DISTURBED = 0.05  # m
RESTS = 3  # times a slot may wait for the judge to see what it sees
_SPOTS = tuple(Literal("at", (block, place)) for block in BLOCKS for place in PLACES)


@dataclass
class OptionRecord:
    """One skill that was run: its goal, the literals before and after, success, control steps, and its manners.

    ``disturbed``: a block that was no business of the goal's, and neither held nor in the drawer at first, ended up
    more than `DISTURBED` away.
    """

    schema: str
    goal: str
    start: dict[str, bool]
    end: dict[str, bool]
    success: bool
    steps: int
    disturbed: bool = False


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
    holds: dict[str, bool] = field(default_factory=dict)  # the instruction's literals when it ended


@dataclass
class Step:
    """A step of a plan: which skill, and with which ground goal."""

    schema: str
    goal: str


PlanFunction = Callable[[Mapping[str, bool], Goal, Mapping[str, int]], "list[Step] | str"]
"""(literal → holds, what remains of the instruction, skill goal → how often it failed here) → steps, or one sentence
saying why there is no plan."""


def make_env(schemas: Iterable[str], n: int, threads: int = 0) -> TabletopVectorEnv:
    """n tables on which every ground goal of the schemas can be given as an option; starts are free."""
    goals = sorted({str(goal) for schema in schemas for goal in ground(schema.split(" [")[0])})
    return TabletopVectorEnv(
        n, goals or ["open(drawer)"], max_steps=1 << 30, terminate_on_success=False, threads=threads,
        free_starts=True, autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip


def draw_starts(env: TabletopVectorEnv, instructions: Sequence[Goal], seed: int) -> np.ndarray:
    """Draws a start a slot from which its instruction is still to be done; the states float64[n, S].

    A start is drawn anew where the last stage holds already, and where any of its literals about a block or
    the lamp does, so that nothing is given away (the drawer stands as it stands); at most `DRAWS` times.
    """
    env.reset(seed=seed)
    finals = sorted({literal for goal in instructions for literal in goal.final})
    column = {literal: k for k, literal in enumerate(finals)}
    resting = [Literal("at", x.args, x.positive) if x.predicate == "placed" else x for x in finals]
    for _ in range(DRAWS):
        table = truth_table(env.facts, resting)
        given = np.zeros(env.num_envs, np.bool_)
        for i, goal in enumerate(instructions):
            holds = {literal: table[i, column[literal]] for literal in goal.final}
            given[i] = all(holds.values()) or any(v for x, v in holds.items() if x.args[0] != "drawer")
        if not given.any():
            break
        env.reset(options={"reset_mask": given})
    return env.get_state()


def step_budget(goal: Goal, replans: int, option_steps: int = MAX_STEPS) -> int:
    """Control steps that an instruction may take: a skill a literal and two to prepare, for every plan."""
    return option_steps * (len(goal.literals) + 2) * (replans + 1)


def symbolic_state(facts: np.ndarray, inventions: Iterable[Invented] = ()) -> list[dict[str, bool]]:
    """The literals that the planner sees, for each row of facts float[n, NX]; ``placed`` is ``at`` here.

    Facts of invented predicates stand beside them.
    """
    table, spots = truth_table(facts), truth_table(facts, _SPOTS)
    states = []
    for row, spot in zip(table, spots, strict=True):
        state = {str(literal): bool(value) for literal, value in zip(STATE_LITERALS, row, strict=True)}
        for literal, value in zip(_SPOTS, spot, strict=True):
            state[str(literal)] = bool(value)
            state[str(Literal("placed", literal.args))] = bool(value)
        states.append(state)
    extend(states, facts, inventions)
    return states


def wait(env: TabletopVectorEnv) -> np.ndarray:
    """Actions float32[n, A] that keep arm and gripper as they are commanded."""
    action = np.zeros((env.num_envs, env.single_action_space.shape[0]), np.float32)  # type: ignore[index]
    action[:, -1] = env.facts[:, GRIP]
    return action


def _spots(facts: np.ndarray) -> np.ndarray:
    """Where the blocks are, float64[2, 3], on one row of facts."""
    return np.stack([facts[BLOCK + BLOCK_STRIDE * b :][:3] for b in range(len(BLOCKS))])


def watch(env: TabletopVectorEnv) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a renderer needs of an environment's present: qpos float64[n, nq], lamps (geom name -> lit bool[n])."""
    return env.simulation.qpos.copy(), env.lit


@dataclass
class _Slot:
    """Where one slot stands: its plan, the skill it runs, and since when."""

    outcome: Outcome
    budget: int
    queue: list[Step] = field(default_factory=list)
    current: Step | None = None
    before: dict[str, bool] = field(default_factory=dict)
    spots: np.ndarray = field(default_factory=lambda: np.zeros((2, 3)))  # of the blocks, when the skill began
    ran: int = 0  # control steps of the running skill
    over: bool | None = None  # the running skill has ended: with success, or without
    rest: int = 0  # steps to wait before looking again
    rests: int = 0  # how often it waited
    failed: dict[str, int] = field(default_factory=dict)  # skill goal → failures while carrying out this instruction
    done: bool = False

    def looks(self) -> bool:
        """Whether the slot needs to look and decide before the next control step; counts its rest down."""
        if self.done or (self.current is not None and self.over is None):
            return False
        if self.rest > 0:
            self.rest -= 1
            return False
        return True

    def begin(self, facts: np.ndarray) -> None:
        """Remembers where the blocks are as the running skill begins, from facts float[NX]."""
        self.spots = _spots(facts)

    def record(self, state: dict[str, bool], facts: np.ndarray) -> None:
        """Notes the skill that has ended in ``state``, facts float[NX]; a failure drops the rest of the plan."""
        if self.current is None:
            return
        step, success = self.current, bool(self.over)
        moved = np.linalg.norm(_spots(facts) - self.spots, axis=1) > DISTURBED
        own = {name for literal in Goal.parse(step.goal).literals for name in literal.args}
        disturbed = any(
            far and name not in own and not (self.before[f"holding({name})"] or self.before[f"inside({name}, drawer)"])
            for name, far in zip(BLOCKS, moved, strict=True)
        )
        record = OptionRecord(step.schema, step.goal, self.before, state, success, self.ran, disturbed)
        self.outcome.options.append(record)
        if not success:
            self.queue = []
            self.failed[step.goal] = self.failed.get(step.goal, 0) + 1
        self.current = None

    def decide(self, state: dict[str, bool], rest: Goal, plan: PlanFunction, replans: int, hold: int) -> str:
        """Takes the next step of the plan, or of a new one; why there is none, or "" (it may wait)."""
        self.queue = _open_steps(self.queue, state)
        if not self.queue:
            found = plan(state, rest, self.failed)
            if isinstance(found, str):
                return found
            self.queue = _open_steps(found, state)
            if not self.queue:  # the planner sees nothing left to do: give the judge time to see it too
                self.rests, self.rest = self.rests + 1, hold - 1
                return "" if self.rests <= RESTS else "it looked done, but did not stay so"
            if self.outcome.plans:
                if self.outcome.replans >= replans:
                    return "no plan left to try"
                self.outcome.replans += 1
            self.outcome.plans.append([step.goal for step in self.queue])
        self.current = self.queue.pop(0)
        self.before, self.ran, self.over = state, 0, None
        return ""


class _Crew:
    """The skills at work: each acts for the slots that run it, with its own memory of them."""

    def __init__(self, skills: Mapping[str, Actor], n: int) -> None:
        self.skills = skills
        self.memory: dict[str, Any] = dict.fromkeys(skills)
        self.begins = {schema: np.ones(n, np.bool_) for schema in skills}

    def act(self, env: TabletopVectorEnv, slots: Sequence[_Slot]) -> np.ndarray:
        """Actions float32[n, A]; slots without a running skill wait."""
        observation, action = env.observation(), wait(env)
        running = [slot.current.schema if slot.current and not slot.done else "" for slot in slots]
        for schema in sorted(set(running) - {""}):
            rows = [i for i, name in enumerate(running) if name == schema]
            found, self.memory[schema] = self.skills[schema].predict(
                observation, self.memory[schema], self.begins[schema], deterministic=True
            )
            self.begins[schema] = np.zeros(len(slots), np.bool_)
            action[rows] = found[rows]
        return action


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
    env: TabletopVectorEnv | None = None,
    kept: KeptStates | None = None,
    inventions: Sequence[Invented] = (),
) -> tuple[list[Outcome], int]:
    """Carries out one instruction a slot from the starts of `draw_starts`; (outcomes, steps taken).

    skills: schema → what acts. ``on_step(env, goals of the running skills)`` sees every control step (for
    pictures). ``state`` float64[n, S] continues from there instead of drawing starts. ``env`` is what
    `make_env` gave for these schemas and n, and stays open. ``kept`` is given the states in which skills
    end. ``inventions`` are predicates that the plans may speak of. A slot's result depends on its own start,
    instruction and `step_budget` alone.
    """
    n = len(instructions)
    world = make_env(skills, n, threads) if env is None else env
    if state is None:
        draw_starts(world, instructions, seed)
    else:
        world.reset(seed=seed)
        world.set_state(state)
    index = {str(goal): k for k, goal in enumerate(world.goals)}
    monitor, crew = InstructionMonitor(instructions), _Crew(skills, n)
    slots = [_Slot(Outcome(str(goal)), step_budget(goal, replans, option_steps)) for goal in instructions]
    taken = 0
    while True:
        _look(world, monitor, slots, plan, crew, index, replans, inventions)
        live = [slot for slot in slots if not slot.done]
        if not live:
            break
        running = [slot.current.goal if slot.current and not slot.done else "" for slot in slots]
        _, _, _, _, info = world.step(crew.act(world, slots))
        taken += len(live)
        monitor.update(world.facts)
        for i, slot in enumerate(slots):
            if slot.done:
                continue
            slot.outcome.steps += 1
            slot.ran += 1
            if slot.current is not None and (info["success"][i] or slot.ran >= option_steps):
                slot.over = bool(info["success"][i])
                if kept is not None:
                    kept.look(world, np.array([i]))
            if monitor.success[i] or slot.outcome.steps >= slot.budget:
                _end(world, monitor, slot, i, "time ran out", inventions)
        if on_step is not None:
            on_step(world, running)
    if env is None:
        world.close()
    return [slot.outcome for slot in slots], taken


def _look(
    env: TabletopVectorEnv, monitor: InstructionMonitor, slots: Sequence[_Slot], plan: PlanFunction,
    crew: _Crew, index: Mapping[str, int], replans: int, inventions: Sequence[Invented],
) -> None:  # fmt: skip
    """Every slot whose skill has ended looks around and gets its next one: from its queue, or a new plan."""
    looking = [i for i, slot in enumerate(slots) if slot.looks()]
    if not looking:
        return
    given: dict[int, int] = {}
    for i, state in zip(looking, symbolic_state(env.facts[looking], inventions), strict=True):
        slot, goal = slots[i], monitor.goals[i]
        slot.record(state, env.facts[i])
        carried = monitor.holds(env.facts, i)
        state |= {text: holds for text, holds in carried.items() if text.startswith("placed")}
        reason = slot.decide(state, Goal(goal.stages[monitor.stage[i] :]), plan, replans, monitor.hold)
        if not reason and slot.current is not None and slot.current.goal not in index:
            reason = f"no skill takes the goal {slot.current.goal}"
        if reason:
            _end(env, monitor, slot, i, reason, inventions)
        elif slot.current is not None:
            given[i] = index[slot.current.goal]
            slot.begin(env.facts[i])
            crew.begins[slot.current.schema][i] = True
    if given:
        env.assign_goals(np.array(list(given.values())), np.array(list(given)))


def _end(
    env: TabletopVectorEnv,
    monitor: InstructionMonitor,
    slot: _Slot,
    i: int,
    reason: str,
    inventions: Sequence[Invented],
) -> None:
    """Closes a slot: with success if the judge says so. A skill cut short goes unrecorded."""
    if slot.over is not None:
        slot.record(symbolic_state(env.facts[i : i + 1], inventions)[0], env.facts[i])
    outcome = slot.outcome
    outcome.success = bool(monitor.success[i])
    outcome.reason = "" if outcome.success else reason
    outcome.holds = monitor.holds(env.facts, i)
    slot.done = True


def _open_steps(steps: Sequence[Step], state: Mapping[str, bool]) -> list[Step]:
    """The steps from the first one on whose goal does not hold yet."""
    for k, step in enumerate(steps):
        if not all(literal.holds(state) for literal in Goal.parse(step.goal).final):
            return list(steps[k:])
    return []
