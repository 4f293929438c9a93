"""What the vocabulary's definitions alone say: which facts entail, and which exclude, one another.

Only certain knowledge stands here. It refuses goals no robot could reach (`impossible_reason`) and keeps a
planner's imagined states consistent; everything that depends on the world's dynamics is left to be learnt.
Literals are passed as `envs.goals.Literal`; the rules look only at predicate, args and positive.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from envs.vocabulary import BLOCKS, PLACES

if TYPE_CHECKING:
    from envs.goals import Goal, Literal

_RESTING = ("at", "placed", "on", "inside")  # where a released block can be
_BESIDE = ("left_of", "in_front_of", "next_to")  # two blocks on the table, the first of them released
# Where the first block is, seen from the second, in metres: x from, to, y from, to (the boxes of `envs.predicates`).
_BOXES = {
    "left_of": (-0.035, 0.035, 0.05, 0.14),
    "in_front_of": (-0.14, -0.05, -0.035, 0.035),
    "next_to": (-0.068, 0.068, -0.068, 0.068),
}
_SLACK = 0.06  # metres that two blocks at their places can be off them together


def entailed(literal: Literal) -> tuple[Literal, ...]:
    """Positive facts that follow from a positive literal by definition, itself excluded."""
    from envs.goals import Literal  # the two modules need each other: goals use these rules when compared

    if not literal.positive:
        return ()
    block = literal.args[:1]
    if literal.predicate == "placed":
        return (Literal("at", literal.args),)
    if literal.predicate == "lifted":
        return (Literal("holding", block), Literal("touching", block))
    if literal.predicate == "holding":
        return (Literal("touching", block),)
    return ()


def conflict(one: Literal, other: Literal) -> str | None:
    """Why two positive literals cannot hold at once (a clause of English), or None where they can."""
    return _clash(one, other) or _clash(other, one)


def _clash(one: Literal, other: Literal) -> str | None:
    p, a, q, b = one.predicate, one.args, other.predicate, other.args
    if p == "open" and q == "closed":
        return "the drawer cannot be open and closed at once"
    if p in ("holding", "lifted") and q in ("holding", "lifted") and a != b:
        return "the robot has one gripper and cannot hold two blocks"
    if p == "on" and q == "on" and a == b[::-1]:
        return f"{a[0]} and {a[1]} cannot each stand on the other"
    if p == "on" and q == "clear" and a[1] == b[0]:
        return f"{b[0]} is not clear while {a[0]} stands on it"
    if p in ("left_of", "in_front_of") and p == q and a == b[::-1]:
        return f"{a[0]} and {a[1]} cannot each be {p.replace('_', ' ')} the other"
    if p == "left_of" and q == "in_front_of" and set(a) == set(b):
        return f"{a[0]} is either beside {a[1]} or in line with it, not both"
    if p in _BESIDE and q in ("on", "inside", "lifted") and b[0] in a:
        return f"{a[0]} {p.replace('_', ' ')} {a[1]} needs both on the table, not {b[0]} {_where(other)}"
    if p in ("holding", "lifted") and q in (*_RESTING, *_BESIDE) and a[0] == b[0]:
        return f"{a[0]} cannot be held and released {_where(other)} at once"
    if p in _RESTING and q in _RESTING and a[0] == b[0] and _spot(one) != _spot(other):
        return f"{a[0]} cannot be {_where(one)} and {_where(other)} at once"
    return None


def _spot(literal: Literal) -> tuple[str, str]:
    return "at" if literal.predicate == "placed" else literal.predicate, literal.args[1]


def _where(literal: Literal) -> str:
    if literal.predicate == "lifted":
        return "in the air"
    kind, where = _spot(literal)
    return f"{kind} {where}".replace("_", " ")


def impossible_reason(goal: Goal) -> str | None:
    """Why no world state satisfies some stage of the goal (one clause of English), or None."""
    for stage in goal.stages:
        reason = _stage_reason(stage)
        if reason:
            return reason
    return None


def _stage_reason(stage: tuple[Literal, ...]) -> str | None:
    positive = [literal for literal in stage if literal.positive]
    negative = {literal.negated for literal in stage if not literal.positive}
    for literal in positive:
        if len(literal.args) == 2 and literal.args[0] == literal.args[1]:
            return f"{literal.args[0]} cannot be {literal.predicate.replace('_', ' ')} itself"
        for fact in entailed(literal):
            if fact in negative:
                return f"{literal} means {fact}, which the goal forbids"
    for one, other in combinations(positive, 2):
        reason = conflict(one, other)
        if reason:
            return reason
    covered = [literal.args[0] for literal in stage if literal.predicate == "clear" and not literal.positive]
    if len(covered) == len(BLOCKS):
        return f"{' and '.join(covered)} cannot each stand on the other"
    for block in covered:  # with two blocks, it is the other that stands on it
        for literal in positive:
            if _keeps_off(literal, block):
                return f"{block} has nothing on it while {literal} holds"
    return _places_reason(positive)


def _keeps_off(literal: Literal, block: str) -> bool:
    """Whether a positive literal says that no other block is above this one."""
    if literal.predicate in _BESIDE:
        return True
    return literal.predicate in _RESTING and literal.args[0] != block and literal.args[1] != block


def _places_reason(positive: list[Literal]) -> str | None:
    """Whether two places lie such that blocks there cannot stand to each other as they should."""
    places = {lit.args[0]: lit.args[1] for lit in positive if lit.predicate in ("at", "placed")}
    for literal in positive:
        box = _BOXES.get(literal.predicate)
        spots = [PLACES.get(places.get(block, "")) for block in literal.args]
        if box and len(spots) == 2 and spots[0] and spots[1]:
            dx, dy = spots[0][0] - spots[1][0], spots[0][1] - spots[1][1]
            off = (max(box[0] - dx, dx - box[1], 0.0) ** 2 + max(box[2] - dy, dy - box[3], 0.0) ** 2) ** 0.5
            if off >= _SLACK:
                a, b = literal.args
                return f"{a} at {places[a]} is not {literal.predicate.replace('_', ' ')} {b} at {places[b]}"
    return None
