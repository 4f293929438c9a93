"""The facets of a skill version beside its artifact: how its policy is run, what it does, and when to use it.

* *policy*: where it may begin, when it ends, for how long at most, and what normalises its observations;
* *operator*: typed parameters, precondition, added and deleted facts, each with the executions that support it, a cost,
  and the Beta distribution of its success;
* *handbook*: when to use it, what to do and what not to, in at most 120 words.

Facets are part of what a version is: its hash covers those that are there (``embodied.core.Skill``). They are values:
nothing in them is executed, and text in a handbook is data for whoever reads it. Every number is finite, every literal
has the form ``not name(arg, …)``, and JSON from outside is limited in depth and size, so that nothing here recurses or
grows without bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORDS = 120  # of a handbook, split at white space
WORD = 40  # characters of one of its words; a language has shorter ones
LITERALS = 64  # of one list of a facet
HORIZON = 1_000_000  # control steps
DEPTH, NODES = 16, 200_000  # of any JSON value in a manifest
CONDITIONINGS = ("adapter", "code", "goal")  # how an artifact is told what to do; the first that is a key counts
_LITERAL = re.compile(r"(?:not )?([a-z_][a-z0-9_]{0,63})\(([^()]*)\)")
_ARGUMENT = re.compile(r"\??[A-Za-z0-9_]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class ManifestError(ValueError):
    """A skill's manifest cannot be; the sentence names the facet, the bad value and what is valid."""


@dataclass(frozen=True)
class Support:
    """A lifted literal and what speaks for it: `hits` of `trials` executions."""

    literal: str
    hits: int = 0
    trials: int = 0

    def __post_init__(self) -> None:
        literal_of(self.literal)
        if not (_is_count(self.hits) and _is_count(self.trials) and self.hits <= self.trials):
            raise ManifestError(
                f"'{self.literal}' cannot hold in {self.hits!r} of {self.trials!r} executions: 0 <= hits <= trials"
            )


@dataclass(frozen=True)
class PolicyFacet:
    """How the artifact is run: literals true where it may begin and where it ends, at most `horizon` control steps (0:
    not said), and the name of what normalises its observations ("" for the artifact's own).
    """

    initiation: tuple[str, ...] = ()
    termination: tuple[str, ...] = ()
    horizon: int = 0
    normaliser: str = ""

    def __post_init__(self) -> None:
        for name in ("initiation", "termination"):
            literals = getattr(self, name)
            if len(literals) > LITERALS:
                raise ManifestError(f"{len(literals)} literals of {name} are too many; at most {LITERALS}")
            for literal in literals:
                literal_of(literal)
        if not _is_count(self.horizon) or self.horizon > HORIZON:
            raise ManifestError(f"a horizon of {self.horizon!r} is not a number of control steps in 0 … {HORIZON}")
        _check_text("the normaliser", self.normaliser, 200)


@dataclass(frozen=True)
class OperatorFacet:
    """What an execution needs and does: typed parameters (("?a", "block"), …), literals with their support, a cost (in
    control steps, say), and the success as Beta(a, b).
    """

    parameters: tuple[tuple[str, str], ...] = ()
    pre: tuple[Support, ...] = ()
    add: tuple[Support, ...] = ()
    delete: tuple[Support, ...] = ()
    cost: float = 1.0
    success: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parameters]
        for name, kind in self.parameters:
            if not re.fullmatch(r"\?[a-z]\w{0,15}", name) or not re.fullmatch(r"[a-z][\w|]{0,63}", kind):
                raise ManifestError(f"{name}:{kind} is not a typed parameter such as ?a:block")
        if len(set(names)) < len(names) or len(names) > LITERALS:
            raise ManifestError(f"the parameters {', '.join(names)} must differ and be at most {LITERALS}")
        for part in ("pre", "add", "delete"):
            rows = getattr(self, part)
            if len(rows) > LITERALS:
                raise ManifestError(f"{len(rows)} literals of {part} are too many; at most {LITERALS}")
            for row in rows:
                free = [a for a in literal_of(row.literal)[1] if a.startswith("?") and a not in names]
                if free and part != "pre":  # a precondition may speak of some other thing
                    raise ManifestError(
                        f"'{row.literal}' has the unknown variable {free[0]}; the parameters are "
                        f"{', '.join(names) or 'none'}"
                    )
        if not _is_number(self.cost) or self.cost < 0:
            raise ManifestError(f"a cost of {self.cost!r} is not a finite number of at least 0")
        if len(self.success) != 2 or not all(_is_number(x) and 0 < x < 1e12 for x in self.success):
            raise ManifestError(f"{self.success!r} is not a Beta distribution (a, b) with finite a, b > 0")


@dataclass(frozen=True)
class HandbookFacet:
    """Know-how for whoever chooses the skill: when, do, dont; together at most 120 words of plain text."""

    when: str = ""
    do: str = ""
    dont: str = ""

    def __post_init__(self) -> None:
        for name in ("when", "do", "dont"):
            _check_text(f"the handbook's '{name}'", getattr(self, name), WORDS * (WORD + 1))
        words = f"{self.when} {self.do} {self.dont}".split()
        if len(words) > WORDS:
            raise ManifestError(f"a handbook of {len(words)} words is too long; at most {WORDS}")
        if long := next((word for word in words if len(word) > WORD), None):
            raise ManifestError(f"the handbook's word '{long[:WORD]}…' is too long; at most {WORD} characters")


FACETS: dict[str, type] = {"policy": PolicyFacet, "operator": OperatorFacet, "handbook": HandbookFacet}


def literal_of(text: str) -> tuple[str, tuple[str, ...], bool]:
    """A literal's predicate, arguments and sign; ManifestError where it is none."""
    match = _LITERAL.fullmatch(text) if isinstance(text, str) and len(text) <= 400 else None
    arguments = tuple(arg.strip() for arg in match[2].split(",")) if match and match[2].strip() else ()
    if match is None or not all(map(_ARGUMENT.fullmatch, arguments)):
        raise ManifestError(f"{str(text)[:60]!r} is not a literal such as 'clear(?b)' or 'not open(drawer)'")
    return match[1], arguments, not text.startswith("not ")


def check_symbols(facets: Mapping[str, Any], predicates: Collection[str]) -> None:
    """ManifestError where a facet uses a predicate that is not among those known."""
    policy, operator = facets.get("policy"), facets.get("operator")
    literals = [*policy.initiation, *policy.termination] if policy else []
    literals += [row.literal for row in (*operator.pre, *operator.add, *operator.delete)] if operator else []
    for literal in literals:
        if (name := literal_of(literal)[0]) not in predicates:
            raise ManifestError(f"unknown predicate '{name}' in '{literal}'; valid are {', '.join(sorted(predicates))}")


def check_json(value: object, what: str) -> None:
    """ManifestError where a JSON value is too deep, too large, not finite or no JSON at all; it never recurses."""
    pile: list[tuple[object, int]] = [(value, 0)]
    seen = 0
    while pile:
        item, depth = pile.pop()
        seen += 1
        if depth > DEPTH or seen > NODES:
            limit = f"deeper than {DEPTH} levels" if depth > DEPTH else f"larger than {NODES:,} values"
            raise ManifestError(f"{what} is {limit} and was not read")
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str) or not _encodes(key):
                    raise ManifestError(f"{what} has the key {str(key)[:40]!r}; keys are text")
            pile += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, (list, tuple)):
            pile += [(child, depth + 1) for child in item]
        elif isinstance(item, float) and not math.isfinite(item):
            raise ManifestError(f"{what} has the number {item}; every number must be finite")
        elif isinstance(item, int) and abs(item) >= 1 << 128:
            raise ManifestError(f"{what} has an integer of {item.bit_length()} bits; at most 128")
        elif isinstance(item, str) and not _encodes(item):
            raise ManifestError(f"{what} has the text {item[:40]!r}, which is no Unicode")
        elif not (item is None or isinstance(item, (str, int, float))):
            raise ManifestError(f"{what} has a value of type {type(item).__name__}; it must be plain JSON")


def facets_to_dict(policy: PolicyFacet | None, operator: OperatorFacet | None, handbook: HandbookFacet | None) -> Any:
    """The facets that are there, as JSON values; {} without any. Inverse of `facets_from_dict`."""
    out: dict[str, Any] = {}
    if policy is not None:
        out["policy"] = {
            "initiation": list(policy.initiation), "termination": list(policy.termination), "horizon": policy.horizon,
            "normaliser": policy.normaliser,
        }  # fmt: skip
    if operator is not None:
        lists = {
            part: [[row.literal, row.hits, row.trials] for row in getattr(operator, part)]
            for part in ("pre", "add", "delete")
        }
        out["operator"] = {
            "parameters": [list(pair) for pair in operator.parameters], **lists, "cost": float(operator.cost),
            "success": [float(x) for x in operator.success],
        }  # fmt: skip
    if handbook is not None:
        out["handbook"] = {"when": handbook.when, "do": handbook.do, "dont": handbook.dont}
    return out


def facets_from_dict(data: object) -> dict[str, Any]:
    """Facets by name, read from JSON of any origin; ManifestError in one sentence for whatever does not fit."""
    check_json(data, "a skill's facets")
    table = _table("facets", data, FACETS)
    builders: dict[str, Callable[[object], object]] = {"policy": _policy, "operator": _operator, "handbook": _handbook}
    return {name: builders[name](value) for name, value in table.items()}


def _policy(data: object) -> PolicyFacet:
    values = _table("policy", data, PolicyFacet.__dataclass_fields__)
    for name in ("initiation", "termination"):
        if name in values:
            values[name] = tuple(_list(f"policy.{name}", values[name]))
    return PolicyFacet(**values)


def _operator(data: object) -> OperatorFacet:
    values = _table("operator", data, OperatorFacet.__dataclass_fields__)
    for part in ("pre", "add", "delete"):
        if part in values:
            values[part] = tuple(
                Support(*_list(f"operator.{part}", row, 3)) for row in _list(f"operator.{part}", values[part])
            )
    if "parameters" in values:
        pairs = [tuple(_list("a parameter", pair, 2)) for pair in _list("operator.parameters", values["parameters"])]
        if odd := next((pair for pair in pairs if not all(isinstance(word, str) for word in pair)), None):
            raise ManifestError(f"{odd!r} is not a typed parameter such as ?a:block")
        values["parameters"] = tuple(pairs)
    if "success" in values:
        values["success"] = tuple(_list("operator.success", values["success"], 2))
    return OperatorFacet(**values)


def _handbook(data: object) -> HandbookFacet:
    return HandbookFacet(**_table("handbook", data, HandbookFacet.__dataclass_fields__))


def _table(name: str, data: object, known: Collection[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ManifestError(f"the {name} must be a table with {', '.join(known)}, not {type(data).__name__}")
    if odd := next((key for key in data if key not in known), None):
        raise ManifestError(f"the {name} have no '{str(odd)[:60]}'; valid are {', '.join(known)}")
    return dict(data)


def _list(name: str, data: object, length: int | None = None) -> Sequence[Any]:
    if not isinstance(data, list | tuple) or (length is not None and len(data) != length):
        wanted = "a list" if length is None else f"a list of {length}"
        raise ManifestError(f"{name} must be {wanted}, not {str(data)[:60]!r}")
    return data


def _check_text(name: str, text: object, longest: int) -> None:
    if not isinstance(text, str) or len(text) > longest or _CONTROL.search(text):
        raise ManifestError(f"{name} must be plain text of at most {longest} characters without control characters")


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
