"""BabyAI's words: things, facts about them, and the goals that a mission's text amounts to.

================== ==========================================================================================
facing(a)          the cell in front of the robot holds such a thing
carrying(a)        the robot carries it
open(d), locked(d) a door is open, or locked
beside(a, b)       a thing like a and another like b lie in cells that share a side
seen(a)            such a thing was seen since the episode began, or is carried
empty_handed()     the robot carries nothing
barred()           a door that was seen is locked
================== ==========================================================================================

A thing is a description: a kind, a colour, and a place as seen from where the robot began, each of which may be left
open. What a mission asks for one after another are a goal's stages; so are the parts of "… and …", in their order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from envs.suites import SuiteError

__all__ = [
    "ACHIEVABLE", "COLOURS", "KINDS", "PLACES", "PREDICATES", "Fact", "MissionError", "MissionGoal", "Thing",
    "fact", "key_of", "parse_mission", "thing",
]  # fmt: skip

KINDS = {"door": 4, "key": 5, "ball": 6, "box": 7}
COLOURS = {"red": 0, "green": 1, "blue": 2, "purple": 3, "yellow": 4, "grey": 5}
PLACES = {"front": "in front of you", "behind": "behind you", "left": "on your left", "right": "on your right"}
PREDICATES: dict[str, tuple[str, ...]] = {  # name -> kinds of its arguments: "thing" is any, "object" no door
    "facing": ("thing",), "carrying": ("object",), "open": ("door",), "locked": ("door",),
    "beside": ("object", "object"), "seen": ("thing",), "empty_handed": (), "barred": (),
}  # fmt: skip
ACHIEVABLE = ("facing", "carrying", "open", "beside", "empty_handed")
"""What can be a goal of its own; the others come about by the way."""

_FACT = re.compile(r"(?P<no>not )?(?P<name>\w+)\((?P<args>[^()]*)\)")
_THING = re.compile(
    rf"(?:the |an? )?(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<kind>{'|'.join(KINDS)}|object)"
    rf"(?: (?P<place>{'|'.join((*PLACES.values(), *PLACES))}))?"
)
_CLAUSES = (("go to", "facing"), ("pick up", "carrying"), ("open", "open"))


class MissionError(SuiteError):
    """A mission, a fact or a thing that is not in BabyAI's words; the sentence says what is."""


@dataclass(frozen=True, order=True)
class Thing:
    """A description; "" leaves an attribute open."""

    kind: str = ""
    colour: str = ""
    place: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.colour, self.kind or "object", self.place) if part)


@dataclass(frozen=True, order=True)
class Fact:
    """One fact, or its negation; its parts are named as the playroom's literals' are, so that planning takes both."""

    predicate: str
    args: tuple[Thing, ...] = ()
    positive: bool = True

    @property
    def atom(self) -> str:
        """Text without the sign."""
        return f"{self.predicate}({', '.join(map(str, self.args))})"

    def __str__(self) -> str:
        return self.atom if self.positive else f"not {self.atom}"


@dataclass(frozen=True)
class MissionGoal:
    """Stages in order, each a conjunction of facts."""

    stages: tuple[tuple[Fact, ...], ...]

    @property
    def literals(self) -> tuple[Fact, ...]:
        """All facts of all stages."""
        return tuple(fact for stage in self.stages for fact in stage)

    @property
    def final(self) -> tuple[Fact, ...]:
        """The last stage's facts."""
        return self.stages[-1]

    @property
    def things(self) -> tuple[Thing, ...]:
        """The things it names, in order, each once."""
        return tuple(dict.fromkeys(arg for fact in self.literals for arg in fact.args))

    def __str__(self) -> str:
        return "; ".join(" & ".join(map(str, stage)) for stage in self.stages)


def thing(text: str) -> Thing:
    """``a red ball on your left`` or ``red ball left``. Raises MissionError for another description."""
    match = _THING.fullmatch(" ".join(text.lower().split()))
    if match is None:
        raise MissionError(
            f"'{text}' is no thing of BabyAI's: a colour ({', '.join(COLOURS)}) or none, a kind "
            f"({', '.join(KINDS)}, object), and a place ({', '.join(PLACES.values())}) or none"
        )
    place = match["place"] or ""
    short = next((name for name, words in PLACES.items() if place in (name, words)), "")
    return Thing("" if match["kind"] == "object" else match["kind"], match["colour"] or "", short)


def fact(text: str) -> Fact:
    """The inverse of ``str``. Raises MissionError for an unknown predicate, or things that do not fit it."""
    match = _FACT.fullmatch(text.strip())
    if match is None or match["name"] not in PREDICATES:
        signatures = ", ".join(f"{name}({', '.join(kinds)})" for name, kinds in PREDICATES.items())
        raise MissionError(f"'{text}' is no fact of BabyAI's; the facts are {signatures}")
    args = tuple(thing(part) for part in match["args"].split(",") if part.strip())
    return _checked(Fact(match["name"], args, not match["no"]))


def key_of(door: Thing) -> Thing:
    """The key that fits a door: of its colour, wherever it is."""
    return Thing("key", door.colour)


def parse_mission(text: str) -> MissionGoal:
    """What a mission asks for. Raises MissionError for a text that is not BabyAI's."""
    plain = " ".join(text.lower().replace(",", " ").split())
    first, after, second = plain.partition(" after you ")
    halves: Sequence[str] = (second, first) if after else re.split(r" then ", plain)
    stages = [(_clause(part, text),) for half in halves for part in re.split(r" and (?=go to|pick up|open|put)", half)]
    return MissionGoal(tuple(stages))


def _clause(clause: str, mission: str) -> Fact:
    match = re.fullmatch(r"put (.+) next to (.+)", clause)
    if match:
        return _checked(Fact("beside", (thing(match[1]), thing(match[2]))))
    for words, predicate in _CLAUSES:
        if clause.startswith(words + " "):
            return _checked(Fact(predicate, (thing(clause.removeprefix(words + " ")),)))
    raise MissionError(
        f"the mission '{mission}' is not BabyAI's: it should go to, pick up or open a thing, or put one next to "
        "another, one after another or alone"
    )


def _checked(fact: Fact) -> Fact:
    kinds = PREDICATES[fact.predicate]
    if len(kinds) != len(fact.args):
        raise MissionError(f"{fact.predicate} is said of {len(kinds)} things, not of {len(fact.args)}")
    for kind, arg in zip(kinds, fact.args, strict=True):
        if (kind == "door" and arg.kind not in ("door", "")) or (kind == "object" and arg.kind == "door"):
            fitting = "a door" if kind == "door" else "what can be carried"
            raise MissionError(f"'{fact}' cannot be: {fact.predicate} is said of {fitting}")
    return fact
