"""Segments of play as skill candidates: what came true in them, counted, named, and what it takes.

Play is cut where its next action surprises a model that knows no goal (`SegmentModel`). A segment's *effect* is the set
of facts in the scene's own words that were false when it began and hold when it ends; what follows from another of them
is left out (what was swept left was swept). Facts that look back are judged on the change since the segment began.

Segments of equal effect are one cluster; the things they are about become variables, as skills have them, so clusters
on red and on blue are one `Candidate`. Its counts are rows for the library's table of operators: an effect's trials are
the candidate's segments that began with the literal false. A segment is no attempt at anything, so its precondition is
what separates the segments that had the effect from those that moved the same things and had another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from embodied.core import OperatorCount
from embodied.data.segmentation import robust_spread, surprise_cuts
from embodied.planning.separation import precondition
from envs.scenes.facts import (
    B_BOTTOM,
    B_PEAK,
    B_START,
    B_TURN,
    B_UP,
    B_UP0,
    BLOCK_STRIDE,
    BLOCKS,
)  # fmt: skip
from envs.scenes.goal_states import GoalStates
from envs.scenes.predicates import distances, encode
from envs.scenes.scene import Scene
from envs.scenes.words import ANYWHERE, MAX_TERMS, PREDICATES, Term
from policies.action_model import ActionModel, ActionModelConfig

__all__ = [
    "MOVED", "Candidate", "Segment", "SegmentModel", "back_terms", "begun", "candidates", "effects", "follows",
    "lifted_facts", "lifted_schema", "operator_counts", "segments_of", "state_terms", "truth",
]  # fmt: skip

LEAST_COUNT = 3  # segments that a candidate rests on
MOVED = ("moved_left", "moved_right", "moved_away", "moved_near")  # not said of play: it was swept or carried there
_BACK = ("toggled", "placed", "taken_out", "swept", "swept_left", "swept_right", "turned_left", "turned_right",
         "toppled", *MOVED)  # fmt: skip  # facts that look back to the beginning
_IMPLIES: dict[str, tuple[str, ...]] = {  # of the same block
    "swept_left": ("swept", "moved_left"),
    "swept_right": ("swept", "moved_right"),
    "taken_out": ("placed", "at"),
    "placed": ("at",),
    "lifted": ("holding", "touching"),
    "holding": ("touching",),
}
_VARIABLES = {"block": "abcd", "drawer": "d", "shelf": "s", "door": "o", "lamp": "l"}


class SegmentModel:
    """Learns from play where it changes its mind. No label is read.

    The defaults were chosen on play of another seed than is tested with (see `embodied.evaluation.segment_claims`).
    """

    def __init__(
        self, scene: Scene, *, threshold: float = 2.5, least: int = 6, settle: int = 2, floor_share: float = 1.4,
        seed: int = 0, **model: Any,
    ) -> None:  # fmt: skip
        self.encoder = GoalStates(scene)
        self.threshold, self.least, self.settle, self.floor_share = threshold, least, settle, floor_share
        self.floor = 1.0  # nats; the usual spread of errors once it has learnt
        self.model = ActionModel(ActionModelConfig(self.encoder.state_size, 5, seed=seed, **model))

    def fit(
        self, facts: np.ndarray, actions: np.ndarray, ends: np.ndarray, at: Callable[[int], None] = lambda step: None
    ) -> float:
        """Learns from flat episodes (see `embodied.data.store`); the loss at the end, nats."""
        loss = self.model.fit(self._states(facts), actions, ends, at)
        pieces = [(a, b) for a, b in zip((0, *ends[:-1]), ends, strict=True) if b - a > 1][:100]
        spreads = [robust_spread(self.errors(facts[a:b], actions[a : b - 1])) for a, b in pieces]
        self.floor = max(1e-6, self.floor_share * float(np.median(spreads)))
        return loss

    def errors(self, facts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Surprise float64[T] (nats) at an episode's actions float32[T, A]; facts float32[T+1, NX]."""
        return self.model.errors(self._states(facts), actions)

    def cuts(self, facts: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Boundaries int64[m] of an episode."""
        errors = self.errors(facts, actions)
        return surprise_cuts(errors, self.threshold, least=self.least, settle=self.settle, floor=self.floor)

    def _states(self, facts: np.ndarray) -> np.ndarray:
        return self.encoder.states(np.asarray(facts, np.float64))


def state_terms(scene: Scene) -> list[Term]:
    """Facts that can be told from one moment alone; of places only ``anywhere``."""
    words = scene.vocabulary
    return [t for t in words.terms() if t.predicate not in _BACK and not set(t.args) & set(words.places)]


def back_terms(scene: Scene) -> list[Term]:
    """Facts that look back to when a goal began; of places only ``anywhere``."""
    words = scene.vocabulary
    return [t for t in words.terms() if t.predicate in _BACK and not set(t.args) & set(words.places)]


def truth(scene: Scene, facts: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
    """bool[n, len(terms)]: which positive terms hold on facts[n, NX]."""
    facts = np.ascontiguousarray(facts, np.float64)
    table = np.zeros((len(facts), len(terms)), np.bool_)
    out = np.zeros(MAX_TERMS)
    for at in range(0, len(terms), MAX_TERMS):
        piece = tuple(terms[at : at + MAX_TERMS])
        codes = encode([piece], scene.vocabulary)
        for i, row in enumerate(facts):
            distances(row, len(piece), codes.codes[0], codes.place[0], scene.layout.arrays, out)
            table[i, at : at + len(piece)] = out[: len(piece)] > 0
    return table


def begun(scene: Scene, facts: np.ndarray) -> np.ndarray:
    """The last row of facts[m, NX] as if a goal had begun with the first: what looks back looks back to there."""
    rows = np.asarray(facts, np.float64)
    first, last = rows[0], rows[-1].copy()
    at = BLOCKS
    for _ in scene.blocks:
        last[at + B_START : at + B_START + 3] = first[at : at + 3]
        last[at + B_UP0] = first[at + B_UP]
        last[at + B_TURN] = rows[-1, at + B_TURN] - first[at + B_TURN]
        last[at + B_PEAK] = rows[:, at + B_BOTTOM].max()
        at += BLOCK_STRIDE
    for k in range(len(scene.slides)):
        last[at + 3 * k + 2] = first[at + 3 * k]
    at += 3 * len(scene.slides)
    for k in range(len(scene.lamps)):
        last[at + 3 * k + 1] = first[at + 3 * k]
    return last


@dataclass(frozen=True)
class Segment:
    """Steps ``start`` … ``stop`` - 1 of an episode: facts true at its beginning and end, and its effect."""

    episode: int
    start: int
    stop: int
    before: frozenset[Term]
    after: frozenset[Term]
    effect: tuple[Term, ...]


def effects(scene: Scene, before: frozenset[Term], after: frozenset[Term]) -> tuple[Term, ...]:
    """What came true, without what follows from another of it, sorted; a lamp switched off is ``not lit``."""
    new = {t for t in after - before if t.predicate not in ("toggled", "touching")}
    new |= {Term("lit", t.args, False) for t in before - after if t.predicate == "lit"}
    rested = {t.args[0] for t in new if t.predicate in ("on", "inside", "taken_out", "placed")}
    told = {(weaker, t.args[0]) for t in new for weaker in _IMPLIES.get(t.predicate, ())}
    told |= {("at", block) for block in rested}
    return tuple(sorted(t for t in new if (t.predicate, t.args[0]) not in told))


def follows(term: Term) -> tuple[Term, ...]:
    """What of the same thing alone follows from a term."""
    weaker = _IMPLIES.get(term.predicate, ()) if term.positive else ()
    return tuple(Term(name, term.args[:1]) for name in weaker if len(PREDICATES[name]) == 1)


def segments_of(scene: Scene, facts: np.ndarray, cuts: np.ndarray, episode: int = 0) -> list[Segment]:
    """The segments between the cuts of an episode with facts float32[T+1, NX], with their effects."""
    now = state_terms(scene)
    back = [t for t in back_terms(scene) if t.predicate not in MOVED]
    edges = [0, *np.asarray(cuts, np.int64).tolist(), len(facts) - 1]
    states = truth(scene, facts[edges], now)
    found = []
    for k, (a, b) in enumerate(pairwise(edges)):
        looked = truth(scene, begun(scene, facts[a : b + 1])[None], back)[0]
        before = frozenset(t for t, held in zip(now, states[k], strict=True) if held)
        after = frozenset(t for t, held in zip(now, states[k + 1], strict=True) if held)
        after |= {t for t, held in zip(back, looked, strict=True) if held}
        found.append(Segment(episode, a, b, before, after, effects(scene, before, after)))
    return found


@dataclass(frozen=True)
class Candidate:
    """A skill that play seems to hold: its lifted schema, goals and how often each came true, the commonest first.

    ``name`` is English for the commonest goal in the scene's words; ``needs`` the lifted literals that separate it;
    ``counts`` are its operator's; ``spans`` (episode, start, stop) of its segments: demonstrations of it.
    """

    schema: str
    goals: Mapping[str, int]
    name: str
    needs: tuple[str, ...] = ()
    counts: tuple[OperatorCount, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)

    @property
    def count(self) -> int:
        """How many segments it rests on."""
        return sum(self.goals.values())


def candidates(scene: Scene, segments: Sequence[Segment], least: int = LEAST_COUNT) -> list[Candidate]:
    """Clusters of ``least`` segments and more, the largest first."""
    clusters: dict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        if segment.effect:
            clusters[lifted_schema(scene, segment.effect)].append(segment)
    found = [_candidate(scene, schema, own, segments) for schema, own in clusters.items() if len(own) >= least]
    return sorted(found, key=lambda c: (-c.count, c.schema))


def _candidate(scene: Scene, schema: str, own: list[Segment], segments: Sequence[Segment]) -> Candidate:
    goals: dict[str, int] = defaultdict(int)
    for segment in own:
        goals[" & ".join(map(str, segment.effect))] += 1
    ranked = dict(sorted(goals.items(), key=lambda pair: (-pair[1], pair[0])))
    executions = [(s, s.effect, True) for s in own]
    effects_of = sorted({s.effect for s in own})
    for segment in segments:  # those that moved the same thing and did something else with it
        wanted = next((e for e in effects_of if segment.effect != e and _moved(segment) & {e[0].args[0]}), None)
        if wanted is not None and not all(_holds(t, segment.before) for t in wanted):
            executions.append((segment, wanted, False))
    starts = [lifted_facts(scene, s.before, goal) for s, goal, _ in executions]
    ends = [lifted_facts(scene, s.after, goal) for s, goal, _ in executions]
    success = np.array([hit for _, _, hit in executions], np.int64)
    literals = sorted(frozenset().union(*starts, *ends))
    begin = np.array([[x in row for x in literals] for row in starts], bool).reshape(len(starts), len(literals))
    end = np.array([[x in row for x in literals] for row in ends], bool).reshape(len(ends), len(literals))
    goal_parts = {part.strip().removeprefix("not ") for part in _untyped(schema).split("&")}
    order = [(i, sign) for sign in (True, False) for i, x in enumerate(literals) if x not in goal_parts]
    needs = precondition(begin, success, 1 - success, order)
    counts = operator_counts(schema, literals, begin, end, success == 1)
    commonest = next(iter(ranked))
    return Candidate(
        schema, ranked, scene.vocabulary.describe(commonest) if len(own[0].effect) <= MAX_TERMS else commonest,
        tuple(f"{'' if sign else 'not '}{literals[i]}" for i, sign in needs), tuple(counts),
        tuple((s.episode, s.start, s.stop) for s in own),
    )  # fmt: skip


def operator_counts(
    schema: str, literals: Sequence[str], begin: np.ndarray, end: np.ndarray, success: np.ndarray
) -> list[OperatorCount]:
    """An operator's counts from n executions: bool[n, literals] at their beginning and end, and success bool[n]."""
    counts = []
    for i, literal in enumerate(literals):
        if begin[:, i].any():
            trials, hits = int(begin[:, i].sum()), int(success[begin[:, i]].sum())
            counts.append(OperatorCount(schema, literal, "precondition", trials, hits))
        for name, could, did in ((literal, ~begin[:, i], end[:, i]), (f"not {literal}", begin[:, i], ~end[:, i])):
            if (success & could).any():
                trials, hits = int((success & could).sum()), int((success & could & did).sum())
                counts.append(OperatorCount(schema, name, "effect", trials, hits))
    return counts


def _moved(segment: Segment) -> set[str]:
    """Things that an effect is about."""
    return {t.args[0] for t in segment.effect}


def _holds(term: Term, facts: frozenset[Term]) -> bool:
    return (Term(term.predicate, term.args) in facts) == term.positive


def _names(scene: Scene, goal: Sequence[Term]) -> dict[str, str]:
    """Thing -> variable of its kind, in the order of the goal's terms; the other blocks come after."""
    kinds, names = scene.vocabulary.kinds, {}
    things = [arg for term in goal for arg in term.args if arg in kinds]
    used: dict[str, int] = defaultdict(int)
    for thing in dict.fromkeys([*things, *(b.name for b in scene.blocks)]):
        letters = _VARIABLES.get(kinds[thing], "x")
        number = used[kinds[thing]]
        used[kinds[thing]] += 1
        names[thing] = f"?{letters[number]}" if number < len(letters) else f"?{letters[-1]}{number}"
    return names


def _lifted(scene: Scene, terms: Sequence[Term], names: Mapping[str, str], typed: bool = False) -> str:
    kinds = scene.vocabulary.kinds

    def say(arg: str) -> str:
        return arg if arg not in names else names[arg] + (f":{kinds[arg]}" if typed else "")

    texts = sorted(f"{'' if t.positive else 'not '}{t.predicate}({', '.join(map(say, t.args))})" for t in terms)
    return " & ".join(texts)


def lifted_schema(scene: Scene, goal: Sequence[Term]) -> str:
    """A goal with typed variables for things, as skills have it."""
    return _lifted(scene, goal, _names(scene, goal), typed=True)


def lifted_facts(scene: Scene, facts: frozenset[Term], goal: Sequence[Term]) -> frozenset[str]:
    """Facts in a goal's variables."""
    names = _names(scene, goal)
    return frozenset(_lifted(scene, [t], names) for t in facts if ANYWHERE not in t.args or t.predicate != "at")


def _untyped(schema: str) -> str:
    return re.sub(r"(\?\w+):\w+", r"\1", schema)
