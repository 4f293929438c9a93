"""Hindsight by predicates: stretches of play in which a goal came true, as demonstrations of that goal.

Play was aimed at nothing that a learner knows of. Wherever a goal's literal turns from false to true and stays, the
steps before it are taken as one way of reaching it, with the goal's own features: targets from the predicates, the
place of a ``placed`` literal from where the block came to rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.goals import Goal, Literal
from envs.monitor import truth_table
from envs.observations import FEATURES, GOAL_DIM, GROUPS, features, goal_targets
from envs.predicates import B_PEAK, BLOCK, BLOCK_STRIDE, CARRY_CLEARANCE, OBJECT_INDEX, encode

__all__ = ["Demonstrations", "demonstrations"]

HORIZON = 60  # steps before a goal came true that count as reaching it
STAY = 5  # looks that it must hold
AFTER = 4  # steps after it came true that are kept too: staying there is part of it
REST_M = 0.08  # a carried block must end at least this far from where it was taken


@dataclass(frozen=True)
class Demonstrations:
    """Features float32[m, F] and actions float32[m, A] of ``count`` stretches."""

    features: np.ndarray
    actions: np.ndarray
    count: int


def demonstrations(
    observations: np.ndarray, actions: np.ndarray, ends: np.ndarray, goal: str, horizon: int = HORIZON
) -> Demonstrations:
    """Stretches of flat episodes (see `embodied.data.store`) that reach ``goal``, a single literal.

    observations float32[rows, NX], actions float32[rows, A], ends int64[episodes].
    """
    (literal,) = Goal.parse(goal).final
    nothing = Demonstrations(np.zeros((0, FEATURES), np.float32), np.zeros((0, actions.shape[1]), np.float32), 0)
    if not len(ends):
        return nothing
    facts = np.asarray(observations, np.float64)
    starts = np.concatenate([[0], ends[:-1]])
    first = np.zeros(len(facts), np.int64)  # first row of each row's episode
    last = np.zeros(len(facts), np.int64)
    for begin, end in zip(starts, ends, strict=True):
        first[begin:end], last[begin:end] = begin, end - 1
    events, places = (
        _carried(facts, literal, first) if literal.predicate == "placed" else _became(facts, literal, first, last)
    )
    spans = [(int(max(first[e], e - horizon)), int(min(last[e], e + AFTER))) for e in events]
    spans = [(a, b) for a, b in spans if b - a > 5]
    if not spans:
        return nothing
    rows = np.concatenate([np.arange(a, b) for a, b in spans])
    stretch = np.repeat(np.arange(len(spans)), [b - a for a, b in spans])
    x = facts[rows].copy()
    if literal.args[0] in ("red", "blue"):
        at = BLOCK + BLOCK_STRIDE * OBJECT_INDEX[literal.args[0]]
        offset = 0
        for a, b in spans:  # the peak counts from the stretch's own beginning
            x[offset : offset + b - a, at + B_PEAK] = np.maximum.accumulate(facts[a:b, at + 2] - 0.02)
            offset += b - a
    codes = encode([(literal,)])
    n = len(rows)
    place = np.repeat(codes.place, n, 0)
    if places is not None:
        kept = [k for k, e in enumerate(events) if min(last[e], e + AFTER) - max(first[e], e - horizon) > 5]
        place[:, 0] = places[kept][stretch]
    targets, mask, role = np.zeros((n, GOAL_DIM)), np.zeros((n, GROUPS)), np.zeros(n, np.int64)
    goal_targets(x, np.repeat(codes.count, n), np.repeat(codes.codes, n, 0), place, targets, mask, role)
    out = np.zeros((n, FEATURES), np.float32)
    features(x, targets, mask, role, out)
    return Demonstrations(out, np.asarray(actions[rows], np.float32), len(spans))


def _became(facts: np.ndarray, literal: Literal, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, None]:
    """Rows at which the literal turned true and stayed."""
    holds = truth_table(facts, [literal])[:, 0]
    turned = holds.copy()
    turned[1:] &= ~holds[:-1]
    turned &= np.arange(len(facts)) > first
    for k in range(1, STAY):
        later = np.minimum(np.arange(len(facts)) + k, last)
        turned &= holds[later]
    return np.flatnonzero(turned), None


def _carried(facts: np.ndarray, literal: Literal, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows at which a block came to rest on the table after having been carried through the air, and where."""
    block = literal.args[0]
    at = BLOCK + BLOCK_STRIDE * OBJECT_INDEX[block]
    held = truth_table(facts, [Literal("holding", (block,))])[:, 0]
    airborne = held & (facts[:, at + 2] - 0.02 > CARRY_CLEARANCE)
    near = np.linalg.norm(facts[:, at : at + 3] - facts[:, :3], axis=1) < 0.035
    resting = (np.abs(facts[:, at + 2] - 0.02) < 0.01) & (~near | (facts[:, 4] > 0.048))
    resting &= np.linalg.norm(facts[:, at + 5 : at + 8], axis=1) < 0.05
    rows = np.arange(len(facts))
    lifted_at = np.maximum.accumulate(np.where(airborne, rows, -1))
    rested_at = np.maximum.accumulate(np.where(resting, rows, -1))
    before = np.concatenate([[-1], rested_at[:-1]])
    event = resting & (lifted_at >= first) & (before < lifted_at) & (rows - lifted_at < 40)
    found = np.flatnonzero(event)
    taken = before[np.maximum(lifted_at[found], 0)]
    far = np.linalg.norm(facts[found, at : at + 2] - facts[np.maximum(taken, 0), at : at + 2], axis=1) > REST_M
    found = found[far]
    return found, facts[found, at : at + 2]
