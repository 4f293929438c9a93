"""The role "propose" in a world of missions: which subgoals to try, in which circumstances; and its embedded default.

Everything is a term of the closed words of the world, checked on the way in; whether a subgoal can be reached is found
out by trying (`embodied.training.subgoals`), whoever proposed it.
"""

from __future__ import annotations

import re
from itertools import permutations
from typing import Annotated

from pydantic import AfterValidator, Field

from embodied.language.base import LMError, LMRequest, LMResult, T, parse_reply
from embodied.language.roles import Message
from envs.suites.babyai_missions import ACHIEVABLE, PREDICATES, fact

__all__ = ["Subgoal", "SubgoalGrammar", "SubgoalReply", "SubgoalRequest"]

_VARIABLES = {"facing": "abk", "carrying": "abko", "open": "a", "empty_handed": ""}
_LIFTED = re.compile(r"(\w+)\(((?:\?[abko](?:, )?)*)\)")


def _lifted(text: str) -> str:
    match = _LIFTED.fullmatch(text)
    if match is None or match[1] not in ACHIEVABLE or len(match[2].split()) != len(PREDICATES[match[1]]):
        raise ValueError(f"'{text}' is no goal over ?a, ?b, ?k, ?o; the predicates are {', '.join(ACHIEVABLE)}")
    return text


def _predicate(text: str) -> str:
    if text not in ACHIEVABLE:
        raise ValueError(f"'{text}' can be no subgoal; what can is {', '.join(ACHIEVABLE)}")
    return text


Lifted = Annotated[str, AfterValidator(_lifted)]
Predicate = Annotated[str, AfterValidator(_predicate)]
Ground = Annotated[str, AfterValidator(lambda text: str(fact(text)))]


class SubgoalRequest(Message):
    """Missions that fail: the facts they ask for; what skills can do already; how many contexts may be put together."""

    missions: tuple[Ground, ...]
    known: tuple[Predicate, ...] = ()
    depth: int = Field(default=1, ge=0, le=2)


class Subgoal(Message):
    """A subgoal over ?a and ?b, to be tried once the facts of its context were brought about, in order.

    ``?k`` is the key that fits ?a, ``?o`` any other thing.
    """

    predicate: Predicate
    context: tuple[Lifted, ...] = ()


class SubgoalReply(Message):
    """Subgoals, the most promising first."""

    subgoals: tuple[Subgoal, ...]


class SubgoalGrammar:
    """The embedded default: all that the words allow, what missions ask for first, the shortest contexts first."""

    name = "grammar"

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """Answers "propose" with a `SubgoalRequest`; LMError for anything else."""
        if request.role != "propose" or not isinstance(request.message, SubgoalRequest):
            given = type(request.message).__name__
            raise LMError(
                f"subgoals are asked of 'propose' with a SubgoalRequest, not of '{request.role}' with a {given}"
            )
        reply = SubgoalReply(subgoals=tuple(_propose(request.message)))
        return LMResult(parse_reply(reply.model_dump(), request.reply, request.role), self.name)


def _propose(request: SubgoalRequest) -> list[Subgoal]:
    asked = dict.fromkeys(fact(text).predicate for text in request.missions)
    doors = any(arg.kind == "door" for text in request.missions for arg in fact(text).args)
    wanted = dict.fromkeys((*asked, "facing", "carrying", *(("open",) if doors else ()), "empty_handed"))
    found = []
    for depth in range(request.depth + 1):
        for predicate in wanted:
            singles = [c for c in _contexts(request.known, predicate) if not c.startswith(predicate) or "?o" in c]
            found += [Subgoal(predicate=predicate, context=c) for c in permutations(singles, depth) if _sensible(c)]
    return found


def _contexts(known: tuple[str, ...], predicate: str) -> list[str]:
    own = {"beside": "ab", "open": "ak", "empty_handed": ""}.get(predicate, "a") + "o"
    found = [f"{p}(?{v})" for p in known for v in own if v in _VARIABLES.get(p, "")]
    return [c for c in found if not (predicate == "open" and c == "carrying(?a)")]


def _sensible(context: tuple[str, ...]) -> bool:
    """What is faced is faced last, as whatever comes after turns the robot away; one thing is carried."""
    names = [c.partition("(")[0] for c in context]
    return "facing" not in names[:-1] and len(set(names)) == len(names)
