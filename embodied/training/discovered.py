"""Discovered skills become library skills: sorted by what they do, proved by the gate, counted and named.

Each of many codes acts from many fresh starts. Which ways it moves a block in most of them is its effect; the surest
codes of an effect are a cluster. What else comes about (a block is lifted, say) makes clusters of codes that are left.
All of a cluster are put to the gate for it. What passes is a skill: the policy under that code until its goal has
held for a moment or its time is up, with its operator, and English for its goal. It succeeds where, once the arm has
come to rest, its goal holds.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.core import EvalReport, OperatorCount
from embodied.skills.gate import Gate, GateConfig, GateDecision, Question
from embodied.skills.library import SkillLibrary
from embodied.training.discovery import Skills
from embodied.training.episodes import seed_of
from embodied.training.rollouts import versions
from embodied.training.segments import (
    MOVED,
    back_terms,
    follows,
    lifted_facts,
    lifted_schema,
    operator_counts,
    state_terms,
    truth,
)
from envs.control import GRIP
from envs.scenes.discovery import DiscoveryVectorEnv
from envs.scenes.scene import Scene, load
from envs.scenes.words import Term, WordError

__all__ = [
    "HOLD", "REST", "STEPS", "Acted", "Cluster", "act_out", "acting", "effects_of", "keep_discovered", "measure_codes",
    "scene_of",
]  # fmt: skip

STEPS = 80  # control steps that a skill may take
HOLD, REST = 3, 10  # control steps for which a goal has to have held, and of rest before it is judged
CODES, STARTS = 192, 16
RELIABLE = 0.75  # of the starts in which an effect has to come about
CANDIDATES = 8  # codes of a cluster, that the gate looks at
BATCH = 512  # simulations at once
_SURVEY = 7  # what the seed of the survey is for
_OTHERS = ("lifted", "holding", "on", "placed", "inside", "taken_out", "toppled", "turned_left", "turned_right")

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(observation float32[n, F], codes float32[n, Z]) -> actions float32[n, A]."""


def acting(policy: Any) -> Act:
    """How a policy acts under codes, by its means."""

    def act(observation: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return policy.predict(np.concatenate([observation, codes], axis=1, dtype=np.float32), deterministic=True)[0]

    return act


@dataclass(frozen=True)
class Acted:
    """Episodes. begin, end: facts float64[n, NX]; kept bool[n]: no block fell off; steps int64[n]: until rest."""

    begin: np.ndarray
    end: np.ndarray
    kept: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Cluster:
    """Codes float32[m, Z] for one effect, the surest first; rates float64[m]: share of starts it came about in."""

    goal: str
    codes: np.ndarray
    rates: np.ndarray


def scene_of(world: Mapping[str, Any]) -> Scene:
    """The scene of a world: arguments of its environment."""
    scene = world["scene"]
    return scene if isinstance(scene, Scene) else load(scene, world.get("blocks"))


def act_out(
    act: Act,
    asked: Sequence[tuple[int, int, np.ndarray]],
    world: Mapping[str, Any],
    holds: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    steps: int = STEPS,
    rest: int = REST,
    threads: int = 0,
) -> Acted:
    """Carries out (n, seed, code) each: n episodes from resets 0 … n - 1 under the seed, all as one batch.

    An episode acts until its goal has held for `HOLD` control steps, or ``steps`` are over, and then rests with its
    gripper as it is. ``holds``: (episodes' numbers int64[m], facts float64[m, NX]) -> bool[m], asked after every step.
    ``world``: arguments of the environment.
    """
    total = sum(n for n, _, _ in asked)
    size = max(max(n for n, _, _ in asked), min(BATCH, total))
    env = DiscoveryVectorEnv(
        size, autoreset_mode="Disabled", threads=threads, sleep=False, **{"max_steps": 1 << 30, **world}
    )
    states = []
    for n, seed, _ in asked:
        env.reset(seed=seed, options={"reset_mask": np.arange(size) < n})
        states.append(env.get_state(np.arange(n)))
    start = np.concatenate(states)
    codes = np.repeat(np.stack([np.asarray(z, np.float32) for *_, z in asked]), [n for n, _, _ in asked], axis=0)
    found = []
    for first in range(0, total, size):
        n = min(size, total - first)
        rows = np.minimum(np.arange(first, first + size), total - 1)  # the last batch is filled up with its last row
        env.set_state(start[rows])
        begin, end, alive, kept = env.facts.copy(), env.facts.copy(), np.ones(size, np.bool_), np.ones(size, np.bool_)
        held, rested = np.zeros(size, np.int64), np.full(size, -1)  # -1: it acts
        lasted = np.full(size, steps)
        for step in range(1, steps + rest + 1):
            action = act(env.observation(), codes[rows])
            still = rested >= 0
            action[still] = 0.0
            action[still, -1] = env.facts[still, GRIP]
            info = env.step(action)[4]
            alive &= ~info["lost"] & ~info["bad_physics"]
            rested[still] += 1
            if holds is not None:
                held = np.where(holds(rows, env.facts) & alive, held + 1, 0)
            stops = (rested < 0) & ((held >= HOLD) | (step >= steps))
            rested[stops], lasted[stops] = 0, step
            over = rested == rest
            end[over], kept[over] = env.facts[over], alive[over]
            rested[over] = rest + 1
            if (rested > rest).all():
                break
        found.append(tuple(part[:n] for part in (begin, end, kept, lasted)))
    env.close()
    return Acted(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def effects_of(
    skills: Skills,
    seed: int = 0,
    *,
    codes: int = CODES,
    starts: int = STARTS,
    world: Mapping[str, Any] | None = None,
    threads: int = 0,
) -> list[Cluster]:
    """What the skills do: clusters of the best of ``codes`` random codes by effect; no code is in two of them.

    An effect is what a code brings about, and keeps for `HOLD` steps, in at least `RELIABLE` of its ``starts``.
    Effects take their codes in turns, the rarest effect first, each the surest that is left.
    """
    world = _world(skills, world)
    z = skills.discovery.codes(codes, seed_of(seed, _SURVEY)).numpy()
    scene = scene_of(world)
    terms = [t for t in (*back_terms(scene), *state_terms(scene)) if t.predicate in (*MOVED, *_OTHERS)]
    ways = [(k,) for k, term in enumerate(terms) if term.predicate in MOVED]
    pairs = [a + b for a, b in combinations(ways, 2) if _possible(scene, [terms[k] for k in a + b])]
    others = [(k,) for k, term in enumerate(terms) if term.predicate in _OTHERS]
    wordings: list[tuple[int, ...]] = [*pairs, *ways, *others]
    held = np.zeros((codes * starts, len(wordings)), np.int64)

    def look(rows: np.ndarray, facts: np.ndarray) -> np.ndarray:
        table = truth(scene, facts, terms)
        now = np.stack([table[:, w].all(axis=1) for w in wordings], axis=1)
        held[rows] = np.where(held[rows] >= HOLD, HOLD, np.where(now, held[rows] + 1, 0))
        return np.zeros(len(rows), np.bool_)  # each acts till its time is up

    asked = [(starts, seed_of(seed, _SURVEY, 1), code) for code in z]
    act_out(skills.act, asked, world, look, rest=0, threads=threads)
    rates = (held.reshape(codes, starts, -1) >= HOLD).mean(axis=1)  # [codes, wordings]
    best = {w: rates[:, k] for k, w in enumerate(wordings)}
    sure = {w: set(np.flatnonzero(rate >= RELIABLE).tolist()) for w, rate in best.items()}
    for (k,) in others:
        for weaker in follows(terms[k]):  # is not said where the stronger can be
            if sure[k,] and weaker in terms:
                sure[terms.index(weaker),] = set()
    dealt: dict[tuple[int, ...], list[int]] = {w: [] for w in sorted(sure, key=lambda w: len(sure[w])) if sure[w]}
    free = set(range(codes))
    for _ in range(CANDIDATES):
        for w, own in dealt.items():
            if left := sure[w] & free:
                own.append(max(left, key=lambda i: (best[w][i], -i)))
                free.discard(own[-1])
    texts = {w: " & ".join(map(str, sorted(terms[k] for k in w))) for w in dealt}
    found = [Cluster(texts[w], z[own], best[w][own]) for w, own in dealt.items() if own]
    return sorted(found, key=lambda c: (-len(c.codes), c.goal))


def _possible(scene: Scene, terms: Sequence[Term]) -> bool:
    try:
        scene.vocabulary.parse(" & ".join(map(str, terms)))
    except WordError:
        return False
    return True


def measure_codes(
    act: Act,
    asked: Sequence[tuple[Question, np.ndarray]],
    world: Mapping[str, Any],
    policy: str,
    threads: int = 0,
    stops: bool = True,
) -> tuple[list[EvalReport], list[Acted]]:
    """Reports of ((goal, n, seed), code) each, and what was seen; all simulated as one batch.

    A success is an episode at whose end, at rest, the goal holds, with every block still on the table. Without
    ``stops`` it acts till its time is up, whatever has held.
    """
    scene = scene_of(world)
    parts = np.cumsum([0, *(n for (_, n, _), _ in asked)])
    goals = [scene.vocabulary.parse(goal) for (goal, _, _), _ in asked]

    def holds(rows: np.ndarray, facts: np.ndarray) -> np.ndarray:
        now = np.zeros(len(rows), np.bool_)
        for terms, low, high in zip(goals, parts, parts[1:], strict=False):
            own = (rows >= low) & (rows < high)
            if own.any():
                table = truth(scene, facts[own], [Term(t.predicate, t.args) for t in terms])
                now[own] = (table == [t.positive for t in terms]).all(axis=1)
        return now

    questions = [(n, seed, code) for (_, n, seed), code in asked]
    acted = act_out(act, questions, world, holds if stops else None, threads=threads)
    success = holds(np.arange(parts[-1]), acted.end) & acted.kept
    reports, seen = [], []
    for ((goal, _, seed), _), low, high in zip(asked, parts, parts[1:], strict=False):
        own = slice(low, high)
        reports.append(EvalReport(goal, policy, seed, success[own], acted.steps[own], versions=versions()))
        seen.append(Acted(acted.begin[own], acted.end[own], acted.kept[own], acted.steps[own]))
    return reports, seen


@dataclass
class _Looks:
    """What the gate saw of each goal's candidates, kept for the operators."""

    act: Act
    clusters: Mapping[str, Cluster]
    world: Mapping[str, Any]
    policy: str
    threads: int
    seen: dict[tuple[str, int], list[tuple[Acted, np.ndarray]]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, rank: int, questions: Sequence[Question]) -> list[EvalReport]:
        """`embodied.skills.gate.Evaluate`; a candidate is a rank among the codes of each question's own goal."""
        asked = [(question, self.code(question[0], rank)) for question in questions]
        reports, seen = measure_codes(self.act, asked, self.world, self.policy, self.threads)
        for (goal, _, _), report, part in zip(questions, reports, seen, strict=True):
            self.seen[goal, rank].append((part, report.success))
        return reports

    def code(self, goal: str, rank: int) -> np.ndarray:
        """A candidate's code; a cluster of few codes repeats them."""
        own = self.clusters[goal]
        return own.codes[rank % len(own.codes)]


def keep_discovered(
    folder: Path, skills: Skills | None = None, *, gate: GateConfig | None = None,
    world: Mapping[str, Any] | None = None,
    codes: int = CODES, starts: int = STARTS, threads: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:  # fmt: skip
    """Puts what a folder's skills do to the gate and keeps what passes in its library; the goals admitted there are.

    ``skills``: those of the folder, where they are loaded already. A folder whose policy has been through the gate is
    left as it is. Raises ConfigError for a folder without skills.
    """
    skills = Skills.load(folder) if skills is None else skills
    world = _world(skills, world)
    scene = scene_of(world)
    vocabulary = scene.vocabulary
    with SkillLibrary.open(folder / runs.LIBRARY) as library, tempfile.TemporaryDirectory() as scratch:
        skills.policy.save_pretrained(Path(scratch) / "policy")
        artifact = library.artifacts.put(Path(scratch) / "policy")
        last = library.last_round
        if last is not None and last.state.get("artifact") == artifact:
            return [entry.goal for entry in library.mastered()]
        say("looking at what the codes do")
        seed, number = skills.settings.seed, library.next_round
        clusters = effects_of(skills, seed_of(seed, number), codes=codes, starts=starts, world=world, threads=threads)
        found = {c.goal: c for c in clusters}
        say(f"{len(found)} effects at the gate: {'; '.join(map(vocabulary.describe, found)) or 'none'}")
        looks = _Looks(skills.act, found, world, artifact, threads)
        ranks = range(max((len(c.codes) for c in clusters), default=1))
        decisions = Gate(looks, seed, gate).decide_all(list(found), ranks, round=number)
        with library.round(number) as tx:
            for cluster, decision in zip(clusters, decisions, strict=True):
                say(f"{vocabulary.describe(decision.goal)}: {decision.reason}")
                if not decision.admitted:
                    tx.add_decision(None, decision)
                    continue
                goal = vocabulary.parse(decision.goal)
                schema = lifted_schema(scene, goal)
                code = looks.code(decision.goal, decision.winner)
                skill = tx.add_skill(
                    schema, Path(scratch) / "policy", conditioning={"code": code.tolist(), "steps": STEPS},
                    signature={"schema": schema},
                    provenance={
                        "from": "discovery", "name": vocabulary.describe(decision.goal), "codes": len(cluster.codes),
                        "steps": skills.settings.steps, "seed": seed, "combine": skills.settings.combine,
                    },
                )  # fmt: skip
                tx.add_decision(skill.version, decision)
                tx.count(_counts(scene, schema, goal, looks.seen[decision.goal, decision.winner]))
            tx.seal(ledger_offset=0, store_offsets={}, state=_state(artifact, world, clusters, decisions))
        return [entry.goal for entry in library.mastered()]


def _counts(
    scene: Scene, schema: str, goal: Sequence[Term], seen: Sequence[tuple[Acted, np.ndarray]]
) -> list[OperatorCount]:
    """An operator's counts from all that the gate saw of its skill."""
    now, back = state_terms(scene), back_terms(scene)
    begin, end = (np.concatenate(part) for part in ([p.begin for p, _ in seen], [p.end for p, _ in seen]))
    before = [lifted_facts(scene, _facts(row, now), goal) for row in truth(scene, begin, now)]
    after = [lifted_facts(scene, _facts(row, now + back), goal) for row in truth(scene, end, now + back)]
    literals = sorted(frozenset().union(*before, *after))
    first, last = (np.array([[x in facts for x in literals] for facts in rows]) for rows in (before, after))
    return operator_counts(schema, literals, first, last, np.concatenate([success for _, success in seen]))


def _facts(row: np.ndarray, terms: Sequence[Term]) -> frozenset[Term]:
    return frozenset(term for term, holds in zip(terms, row, strict=True) if holds)


def _state(
    artifact: str, world: Mapping[str, Any], clusters: Sequence[Cluster], decisions: Sequence[GateDecision]
) -> dict[str, Any]:
    looked = {c.goal: {"codes": len(c.codes), "best": float(c.rates[0])} for c in clusters}
    return {
        "artifact": artifact, "world": {k: str(v) if isinstance(v, Path) else v for k, v in world.items()},
        "effects": looked, "reasons": {d.goal: d.reason for d in decisions},
    }  # fmt: skip


def _world(skills: Skills, world: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"scene": "discovery", "blocks": skills.settings.blocks, **(world or {})}
