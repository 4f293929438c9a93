"""Which skills may serve now: hard filters, then text and embedding, then a draw of how well each will do.

A query says what is wanted (ground literals, or text), what is true now and what things there are. A skill passes where
it is in the head, brings about a wanted fact (or, for text alone, any), has one of the statuses asked for, needs only
types that there are, and its precondition holds now under the binding that the wanted fact gives its parameters. A
variable left over may stand for anything: a positive literal with it holds where some fact fits, a negative one where
none does. What passes is ranked by

    covered wanted facts + text match + cosine of the embeddings + a draw from the Beta distribution of its success,

so that a skill tried rarely gets its chance, and one that fails is found less and less. Where nothing passes the answer
is a `CapabilityGap`, which says what stood in the way of how many, and becomes a proposal of what to learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from embodied.skills.artifacts import LibraryError
from embodied.skills.index import TYPES, SkillIndex
from embodied.skills.manifest import ManifestError, literal_of
from embodied.skills.schema import STATUSES
from embodied.skills.wording import words

if TYPE_CHECKING:
    from embodied.curriculum.proposer import Record

COVERED, TEXT, COSINE, SUCCESS = 2.0, 1.0, 0.5, 1.0  # weights of what a score is made of
SHORT = 512  # rows that a draw is made for
WANTED, WORDS = 16, 32  # literals and words of a query at most


@dataclass(frozen=True)
class Query:
    """wanted: ground literals; text: what is asked for in words; facts: atoms true now (None: not known, so that no
    precondition is looked at); types: name of a thing -> its type (None: not known); schemas and statuses allowed.
    """

    wanted: tuple[str, ...] = ()
    text: str = ""
    facts: frozenset[str] | None = None
    types: Mapping[str, str] | None = None
    schemas: tuple[str, ...] | None = None
    statuses: tuple[str, ...] = ("admitted",)

    def __post_init__(self) -> None:
        if not self.wanted and not words(self.text):
            raise LibraryError("a query without wanted literals needs words; say what is wanted")
        if len(self.wanted) > WANTED:
            raise LibraryError(f"{len(self.wanted)} wanted literals are too many for one skill; at most {WANTED}")
        if odd := next((status for status in self.statuses if status not in STATUSES), None):
            raise LibraryError(f"unknown status '{odd}' in a query; valid are {', '.join(STATUSES)}")
        try:
            for text in self.wanted:
                if any(argument.startswith("?") for argument in literal_of(text)[1]):
                    raise LibraryError(f"the wanted literal '{text}' has a variable; name the thing")
        except ManifestError as error:
            raise LibraryError(f"a query wants what cannot be: {error}") from error


@dataclass(frozen=True)
class Retrieved:
    """A version that may serve, its score, what the score is made of, and the wanted literals that it brings about."""

    version: str
    schema: str
    score: float
    reasons: Mapping[str, float]
    covers: tuple[str, ...]


@dataclass(frozen=True)
class CapabilityGap:
    """Nothing serves: what was wanted, and how many versions each filter, in this order, has turned away."""

    wanted: tuple[str, ...]
    text: str
    filtered: Mapping[str, int]

    def __str__(self) -> str:
        said = " & ".join(self.wanted) or f"'{self.text}'"
        stood = ", ".join(f"{count} by {name}" for name, count in self.filtered.items() if count) or "there are none"
        return f"no skill serves {said}: {stood}"


@dataclass
class _Search:
    """One query on its way: counts of what was turned away."""

    index: SkillIndex
    query: Query
    filtered: dict[str, int] = field(default_factory=dict)

    def keep(self, name: str, rows: np.ndarray, passed: np.ndarray) -> np.ndarray:
        self.filtered[name] = self.filtered.get(name, 0) + int(len(rows) - passed.sum())
        return rows[passed]


def retrieve(
    index: SkillIndex, query: Query, k: int = 10, rng: np.random.Generator | int = 0
) -> list[Retrieved] | CapabilityGap:
    """At most k versions of the index's head, the best first, or the gap. The same seed gives the same answer."""
    search = _Search(index, query)
    rows, covered = _matching(search)
    if not len(rows):
        return CapabilityGap(query.wanted, query.text, search.filtered)
    rng = np.random.default_rng(rng)
    text = _text(index, rows, query.text)
    relevance = COVERED * covered.sum(axis=1) / max(1, len(query.wanted)) + TEXT * text
    vector = index.encoder([query.text])[0] if query.text else None
    if vector is not None:
        every = 4 * len(rows) > len(index.versions)  # reading all in order is faster than many here and there
        cosine = (index.vectors[: len(index.versions)] @ vector)[rows] if every else index.vectors[rows] @ vector
        relevance += COSINE * cosine
    else:
        cosine = np.zeros(len(rows), np.float32)
    beta = index.beta[rows]
    if len(rows) > SHORT:
        total = beta.sum(axis=1)
        mean = beta[:, 0] / total
        hope = relevance + SUCCESS * (mean + 2 * np.sqrt(mean * (1 - mean) / (total + 1)))
        short = np.argpartition(-hope, SHORT)[:SHORT]
        rows, covered, text, cosine, relevance, beta = (
            part[short] for part in (rows, covered, text, cosine, relevance, beta)
        )
    draw = rng.beta(beta[:, 0], beta[:, 1])
    score = relevance + SUCCESS * draw
    return [
        Retrieved(
            index.versions[rows[i]], index.schemas[rows[i]], float(score[i]),
            {"covered": float(covered[i].sum()), "text": float(text[i]), "cosine": float(cosine[i]),
             "draw": float(draw[i]), "success": float(beta[i, 0] / beta[i].sum())},
            tuple(literal for literal, does in zip(query.wanted, covered[i], strict=True) if does),
        )
        for i in np.argsort(-score, kind="stable")[:k]
    ]  # fmt: skip


def proposals(gap: CapabilityGap) -> list[Record]:
    """What to learn to close a gap, for `embodied.curriculum.proposer.choose`: each wanted literal, and all together.

    Of a gap in words it is the goal that the grammar reads in them. GoalError where that is no goal of the grammar.
    """
    from embodied.curriculum.proposer import Record
    from envs.goals import Goal, parse_instruction

    if not gap.wanted:
        return [Record(str(parse_instruction(gap.text)))]
    goals = [Goal.of(literal) for literal in gap.wanted]
    goals += [Goal.of(*gap.wanted)] if len(gap.wanted) > 1 else []
    return [Record(str(goal)) for goal in dict.fromkeys(goals)]


# ---------------------------------------------------------------------- hard filters
def _matching(search: _Search) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64[m] that pass every hard filter, and which wanted literal each brings about, bool[m, wanted]."""
    index, query = search.index, search.query
    n = len(index.versions)
    facts = None if query.facts is None else _Facts(query.facts)
    covered = np.zeros((n, len(query.wanted)), np.bool_)  # and the precondition holds
    effect, able = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    for column, text in enumerate(query.wanted):
        for pattern, needs, rows in _effects(index, text):
            binding = _bound(pattern, literal_of(text)[1], query.types)
            if binding is None:
                continue
            effect[rows] = True
            holds = np.True_ if facts is None else _truth(index, needs, binding, facts)[index.needs[rows]].all(axis=1)
            covered[rows, column] |= holds
    if query.wanted:
        able = covered.any(axis=1)
    elif facts is not None:
        able = _truth(index, range(1, len(index.literals)), {}, facts)[index.needs[:n]].all(axis=1)
    rows = np.flatnonzero(index.alive[:n])
    if query.wanted:
        rows = search.keep("effect", rows, effect[rows])
    if query.schemas is not None:
        allowed = np.zeros(n, np.bool_)
        for schema in query.schemas:
            if schema in index.families:
                allowed[index.families[schema].array] = True
        rows = search.keep("schema", rows, allowed[rows])
    asked = np.isin(np.arange(len(STATUSES)), [STATUSES.index(status) for status in query.statuses])
    rows = search.keep("status", rows, asked[index.status[rows]])
    if query.types is not None:
        rows = search.keep("types", rows, index.kinds[rows] & _missing(index, set(query.types.values())) == 0)
    rows = search.keep("precondition", rows, able[rows])
    return rows, covered[rows]


def _effects(index: SkillIndex, wanted: str) -> list[tuple[tuple[str, ...], Iterable[int], np.ndarray]]:
    """Arguments, preconditions and rows of each pattern with a wanted literal's predicate, sign and number of
    arguments.
    """
    name, arguments, sign = literal_of(wanted)
    found = index.effects.get((name, sign, len(arguments)), {})
    return [(pattern[2], effect.needs, effect.rows.array) for pattern, effect in found.items()]


def _bound(
    pattern: tuple[str, ...], arguments: tuple[str, ...], types: Mapping[str, str] | None
) -> dict[str, str] | None:
    """What each variable of a pattern stands for; None where it does not fit."""
    binding: dict[str, str] = {}
    for part, name in zip(pattern, arguments, strict=True):
        variable, _, kind = part.partition(":")
        if not variable.startswith("?"):
            if variable != name:
                return None
        else:
            of_type = not (kind and types and name in types) or types[name] in kind.split("|")
            if binding.setdefault(variable, name) != name or not of_type:
                return None
    return binding


def _missing(index: SkillIndex, there: set[str]) -> np.uint64:
    """The bits of parameter types that no thing there has."""
    bits = 0
    for kind, bit in index.kinds_known.items():
        if bit < TYPES and not there & set(kind.split("|")):
            bits |= 1 << bit
    return np.uint64(bits)


class _Facts:
    """The atoms true now, by predicate."""

    def __init__(self, atoms: Iterable[str]) -> None:
        self.of: dict[str, set[tuple[str, ...]]] = {}
        for atom in atoms:
            try:
                name, arguments, sign = literal_of(atom)
            except ManifestError as error:
                raise LibraryError(f"a query's facts cannot be: {error}") from error
            if sign:
                self.of.setdefault(name, set()).add(arguments)

    def any_fits(self, name: str, arguments: tuple[str, ...]) -> bool:
        """Whether an atom is true, for some values of the variables in it."""
        known = self.of.get(name, set())
        if not any(argument.startswith("?") for argument in arguments):
            return arguments in known
        return any(
            len(fact) == len(arguments)
            and all(a.startswith("?") or a == b for a, b in zip(arguments, fact, strict=True))
            for fact in known
        )


def _truth(index: SkillIndex, numbers: Iterable[int], binding: Mapping[str, str], facts: _Facts) -> np.ndarray:
    """bool[literals]: of those with these numbers, whether they hold now; of others True."""
    truth = np.ones(len(index.literals), np.bool_)
    for number in numbers:
        name, arguments, sign = index.literals[number]
        truth[number] = facts.any_fits(name, tuple(binding.get(a, a) for a in arguments)) == sign
    return truth


# ---------------------------------------------------------------------- text
def _text(index: SkillIndex, rows: np.ndarray, text: str) -> np.ndarray:
    """float32[m] in 0 … 1: how much of a text's words, the rare ones counting more, each row has."""
    n = len(index.versions)
    asked = list(dict.fromkeys(words(text)))[:WORDS]
    score = np.zeros(n, np.float32)
    total = 0.0
    for word in asked:
        found = index.rows_with(word)
        weight = float(np.log1p((n - len(found) + 0.5) / (len(found) + 0.5)))
        total += weight
        score[found] += np.float32(weight)
    return score[rows] / np.float32(total) if total > 0 else score[rows]
