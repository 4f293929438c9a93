"""A round of the loop in which skills are discovered, then asked what they are good for.

Discovery (`embodied.training.discovery`, SLIM's three critics) runs on the loop's own table without any goal. Then
codes act from fresh starts, and which of the loop's goals came true says what each is good for: the surest codes of a
goal are put to the gate for it, beside the code that points where the goal wants things to go. What passes is a skill
of the library as any other. Where none passes, what was discovered is one of the things practice may begin from.

What a goal says reaches the policy by the code alone, and by which block comes first: what was learnt with the one
block is done to whichever a goal names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.vector import AutoresetMode

from embodied.core import EvalReport
from embodied.skills.gate import Gate, GateDecision, Question
from embodied.training.discovery import DiscoverySettings, Skills, discover
from embodied.training.practice import clone
from embodied.training.rollouts import MAX_STEPS
from envs.goals import Goal, Literal, all_ground_goals, schema_of
from envs.monitor import truth_table
from envs.observations import FEATURES
from envs.tabletop_discovery import TabletopDiscovery
from envs.tabletop_goals import GOAL_COLUMNS, STATE_COLUMNS
from envs.vector import TabletopVectorEnv
from envs.vocabulary import BLOCKS
from policies.multi_critic_ppo import MultiCriticPPO
from policies.viewed import Viewed

if TYPE_CHECKING:
    from embodied.training.rounds import Worker

__all__ = ["FOLDER", "Found", "coded", "discovery_round", "start_of", "survey"]

FOLDER = "discovery"  # in the run: what discovery goes on from
CODES, STARTS = 96, 16  # of the survey
HOLD = 5  # control steps for which a goal has to have held, as where it is measured
LIKELY = 0.25  # of the starts in which a code brings a goal about that is put to the gate for it
CANDIDATES = 3  # codes a goal, besides the one that points
SHOWN = 16  # episodes a goal that practice may begin from
BATCH = 512  # simulations at once

_XY = (GOAL_COLUMNS[0], GOAL_COLUMNS[1]), (GOAL_COLUMNS[7], GOAL_COLUMNS[8]), (-1, GOAL_COLUMNS[14])
"""Features that say where a goal wants the first block, the second and the drawer's handle to go, x and y each."""


@dataclass(frozen=True)
class Found:
    """Codes float32[m, Z] that bring a goal about, the surest first, and in which share of starts each."""

    codes: np.ndarray
    rates: np.ndarray


def coded(skills: Skills, code: np.ndarray | None) -> Viewed:
    """The skill of a code as a policy of the loop; None: the code is the way that the goal wants things to go."""
    towards = [column for pair in _XY[: skills.settings.blocks] for column in pair] if code is None else []
    return Viewed(skills.policy, FEATURES, STATE_COLUMNS, () if code is None else code.tolist(), towards)


def survey(skills: Skills, seed: int, threads: int = 0) -> tuple[dict[str, Found], int]:
    """What random codes bring about that goals ask for: goal -> `Found`; and the environment steps taken.

    Codes act on the red block; what they do of a goal that names it first holds for its twin, red and blue exchanged.
    """
    z = skills.discovery.codes(CODES, seed).numpy()
    goals = all_ground_goals()
    literals = [goal.final[0] for goal in goals]
    at_once = max(1, min(CODES, BATCH // STARTS))
    env = TabletopDiscovery(
        at_once * STARTS, blocks=skills.settings.blocks, max_steps=1 << 30, threads=threads,
        autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip
    env.reset(seed=seed)
    start = np.tile(env.get_state(np.arange(STARTS)), (at_once, 1))
    came, could = np.zeros((2, CODES, len(literals)), np.int64)
    for first in range(0, CODES, at_once):
        own = np.minimum(np.arange(first, first + at_once), CODES - 1)  # the last batch is filled up with its last code
        env.set_state(start)
        each, alive = np.repeat(z[own], STARTS, axis=0), np.ones(len(start), np.bool_)
        open_before = ~truth_table(env.facts, literals)
        held = np.zeros(open_before.shape, np.int64)
        for _ in range(MAX_STEPS):
            info = env.step(skills.act(env.observation(), each))[4]
            alive &= ~info["lost"] & ~info["bad_physics"]
            now = truth_table(env.facts, literals) & alive[:, None]
            held = np.where(held >= HOLD, HOLD, np.where(now, held + 1, 0))
        shape = (at_once, STARTS, len(literals))
        came[own] = ((held >= HOLD) & open_before).reshape(shape).sum(axis=1)
        could[own] = open_before.reshape(shape).sum(axis=1)
    env.close()
    rates = np.where(2 * could >= STARTS, came / np.maximum(could, 1), 0.0)
    found = {}
    for goal, literal in zip(goals, literals, strict=True):
        rate = rates[:, literals.index(_twin(literal) if literal.args[0] == BLOCKS[1] else literal)]
        best = np.argsort(-rate, kind="stable")[:CANDIDATES]
        best = best[rate[best] >= LIKELY]
        if len(best):
            found[str(goal)] = Found(z[best], rate[best])
    return found, len(start) * -(-CODES // at_once) * MAX_STEPS


def _twin(literal: Literal) -> Literal:
    """The literal with the two blocks exchanged, as goals write it."""
    other = dict(zip(BLOCKS, reversed(BLOCKS), strict=True))
    return Goal.parse(str(Literal(literal.predicate, tuple(other.get(a, a) for a in literal.args)))).final[0]


def discovery_round(worker: Worker) -> None:
    """Discovers, looks what for, gates what is not mastered yet, and commits.

    A round that was killed goes on with the discovery where it was.
    """
    journal, config = worker.journal, worker.config
    worker.say("discovering skills without a task")
    skills = _discovered(worker)
    steps = skills.settings.rollout * skills.settings.num_envs * len(skills.curve)
    journal.state.steps += steps
    worker.say("looking what they are good for")
    found, looked = survey(skills, worker.seed(8) % (1 << 31), config.threads)
    worker.spend(looked)
    mastered = {m.goal for m in journal.library.mastered()}
    goals = [str(goal) for goal in all_ground_goals() if str(goal) not in mastered]
    worker.say(f"gating what was discovered on {len(goals)} goals")
    decisions = _decide(worker, skills, found, goals)
    schemas: dict[str, list[GateDecision]] = {}
    alike: dict[tuple[str, tuple[float, ...]], list[GateDecision]] = {}  # by schema and code; () for the way wanted
    for decision in decisions:
        schema = schema_of(Goal.parse(decision.goal))
        code = _candidate(found, decision.goal, decision.winner)
        schemas.setdefault(schema, []).append(decision)
        alike.setdefault((schema, () if code is None else tuple(code.tolist())), []).append(decision)
    admitted: list[str] = []
    with journal.library.round(journal.round) as tx:
        for schema, own in schemas.items():
            worker.remember(schema, own, steps=journal.state.steps)
        for (schema, code), own in alike.items():
            told = {"kind": "code", "code": list(code)} if code else {"kind": "direction"}
            policy = coded(skills, np.array(code, np.float32) if code else None)
            about = {"from": "discovery", "steps": steps, "codes": len(found)}
            admitted += worker.admit(tx, schema, policy, own, None, about, told)
        journal.state.discovered = {goal: each.codes[0].tolist() for goal, each in found.items()}
        journal.note(
            "discovery", "", f"{steps:,} steps without a task find what nobody asked for",
            f"{len(found)} goals come about by some code; admitted: {', '.join(admitted) or 'none'}", "learnt",
            admitted=admitted, reasons=[f"{d.goal}: {d.reason}" for d in decisions],
            rates={goal: round(float(each.rates[0]), 3) for goal, each in found.items()},
        )  # fmt: skip
        worker.seal(tx)


def start_of(worker: Worker, goals: Sequence[str]) -> dict[str, MultiCriticPPO]:
    """What practice of ``goals`` may begin from: episodes of what was discovered towards them, cloned; or nothing."""
    codes = worker.journal.state.discovered
    shown = [goal for goal in goals if goal in (codes or {}) or Goal.parse(goal).final[0].args[0] in BLOCKS]
    if codes is None or not shown:
        return {}
    skills = _discovered(worker)
    env = TabletopVectorEnv(
        SHOWN * len(shown), shown, max_steps=MAX_STEPS, terminate_on_success=False, threads=worker.config.threads,
        autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip
    env.reset(seed=worker.seed(9), options={"which": np.repeat(np.arange(len(shown)), SHOWN)})
    actors = [coded(skills, np.array(codes[goal], np.float32) if goal in codes else None) for goal in shown]
    features, actions = [], []
    for _ in range(MAX_STEPS):
        seen = env.observation()
        parts = zip(actors, np.split(seen, len(shown)), strict=True)
        action = np.concatenate([actor.predict(part, deterministic=True)[0] for actor, part in parts])
        features.append(seen)
        actions.append(action)
        env.step(action)
    env.close()
    worker.spend(env.num_envs * MAX_STEPS)
    cloned = clone(np.concatenate(features), np.concatenate(actions), worker.seed(10), worker.practice_config)
    return {"what was discovered": cloned}


def _discovered(worker: Worker) -> Skills:
    """The run's skills without a task, learnt where they are not yet."""
    config, found = worker.config, worker.journal.state.discovered
    folder = worker.journal.directory / FOLDER
    if found is not None:
        return Skills.load(folder)
    settings = DiscoverySettings(steps=config.discover_steps, num_envs=config.num_envs, seed=worker.seed(7) % (1 << 31))
    size = settings.rollout * settings.num_envs
    return discover(settings, folder, config.threads, lambda _: worker.tell(size), {"kind": TabletopDiscovery})


def _candidate(found: Mapping[str, Found], goal: str, rank: int) -> np.ndarray | None:
    """A goal's candidates: first the code that points (None), then its own codes."""
    return found[goal].codes[rank - 1] if rank else None


def _decide(worker: Worker, skills: Skills, found: Mapping[str, Found], goals: Sequence[str]) -> list[GateDecision]:
    """The gate's decisions about goals; a goal's candidates are as many as it has codes, and the one that points."""

    def look(rank: int, questions: Sequence[Question]) -> list[EvalReport]:
        alike: dict[tuple[float, ...], list[int]] = {}
        for i, (goal, _, _) in enumerate(questions):
            code = _candidate(found, goal, rank)
            alike.setdefault(() if code is None else tuple(code.tolist()), []).append(i)
        reports: dict[int, EvalReport] = {}
        for code, rows in alike.items():
            policy = coded(skills, np.array(code, np.float32) if code else None)
            reports |= zip(rows, worker.look(policy, [questions[i] for i in rows]), strict=True)
        return [reports[i] for i in range(len(questions))]

    decided: dict[str, GateDecision] = {}
    gate, number = Gate(look, worker.config.seed, worker.gate_config), worker.journal.round
    for count in sorted({len(found[goal].codes) if goal in found else 0 for goal in goals}):
        own = [goal for goal in goals if (len(found[goal].codes) if goal in found else 0) == count]
        made = gate.decide_all(own, range(count + 1), round=number)
        decided |= {decision.goal: decision for decision in made}
    return [decided[goal] for goal in goals]
