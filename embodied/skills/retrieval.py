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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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


def retrieve(
    index: SkillIndex, query: Query, k: int = 10, rng: np.random.Generator | int = 0
) -> list[Retrieved] | CapabilityGap:
    """At most k versions of the index's head, the best first, or the gap. The same seed gives the same answer.

    A query of words alone looks at versions that have one of them, and at all others where none of those passes.
    """
    text = _text(index, query.text)
    search = _Search(index, query)
    rows, covered = search.passing(text)
    if not len(rows) and "words" in search.filtered:
        search = _Search(index, query)
        rows, covered = search.passing(None)
    if not len(rows):
        return CapabilityGap(query.wanted, query.text, search.filtered)
    share = text[rows]
    relevance = TEXT * share + COVERED * covered.sum(axis=1, dtype=np.float32) / max(1, len(query.wanted))
    cosine = np.zeros(len(rows), np.float32)
    if query.text:
        vector, n = index.encoder([query.text])[0], len(index.versions)
        every = 2 * len(rows) > n  # then reading all in order is faster
        cosine = (index.vectors[:n] @ vector)[rows] if every else index.vectors[rows] @ vector
        relevance += COSINE * cosine
    if len(rows) > SHORT:
        beta = index.beta[rows]
        total = beta[:, 0] + beta[:, 1]
        mean = beta[:, 0] / total
        hope = relevance + SUCCESS * (mean + 2 * np.sqrt(mean * (1 - mean) / (total + 1)))
        short = np.argpartition(-hope, SHORT)[:SHORT]
        rows, covered = rows[short], covered[short]
        share, cosine, relevance = share[short], cosine[short], relevance[short]
    beta = index.beta[rows]
    draw = np.random.default_rng(rng).beta(beta[:, 0], beta[:, 1])
    score = relevance + SUCCESS * draw
    return [
        Retrieved(
            index.versions[rows[i]], index.schemas[rows[i]], float(score[i]),
            {"covered": float(covered[i].sum()), "text": float(share[i]), "cosine": float(cosine[i]),
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
@dataclass
class _Search:
    """One query on its way: how many versions each filter has turned away."""

    index: SkillIndex
    query: Query
    filtered: dict[str, int] = field(default_factory=dict)

    def passing(self, text: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64[m] that pass every filter, and which wanted literal each brings about, bool[m, wanted]. `text`
        float32[n]: where given, a query of words alone passes rows above 0.
        """
        index, query = self.index, self.query
        n = len(index.versions)
        fitting = [
            (column, binding, needs, rows)
            for column, literal in enumerate(query.wanted)
            for arguments, needs, rows in _effects(index, literal)
            if (binding := _bound(arguments, _parsed(literal)[1], query.types)) is not None
        ]
        chosen = index.alive[:n]
        if query.wanted:
            effect = np.zeros(n, np.bool_)
            for *_, rows in fitting:
                effect[rows] = True
            chosen = chosen & effect
        elif text is not None and text.any():
            chosen = chosen & (text > 0)
        rows = np.flatnonzero(chosen)
        if query.wanted or (text is not None and text.any()):
            self.filtered["effect" if query.wanted else "words"] = len(index) - len(rows)
        if query.schemas is not None:
            allowed = np.zeros(n, np.bool_)
            for schema in query.schemas:
                if schema in index.families:
                    allowed[index.families[schema].array] = True
            rows = self._keep("schema", rows, allowed[rows])
        asked = np.array([status in query.statuses for status in STATUSES])
        rows = self._keep("status", rows, asked[index.status[rows]])
        if query.types is not None:
            missing = _missing(index, set(query.types.values()))
            rows = self._keep("types", rows, index.kinds[rows] & missing == 0)
        return self._able(rows, fitting)

    def _keep(self, name: str, rows: np.ndarray, passed: np.ndarray) -> np.ndarray:
        kept = rows[passed]
        self.filtered[name] = len(rows) - len(kept)
        return kept

    def _able(self, rows: np.ndarray, fitting: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Of the rows those whose precondition holds, and what each brings about."""
        index, query = self.index, self.query
        facts = None if query.facts is None else _Facts(query.facts)
        if not query.wanted:
            if facts is not None and len(rows):
                truth = _truth(index, range(1, len(index.literals)), {}, facts)
                rows = self._keep("precondition", rows, _hold(index, truth, rows))
            return rows, np.zeros((len(rows), 0), np.bool_)
        left, covered = (np.zeros((len(index.versions), k), np.bool_) for k in (1, len(query.wanted)))
        left[rows] = True
        for column, binding, needs, able in fitting:
            able = able[left[able, 0]]
            if facts is not None and len(able):
                able = able[_hold(index, _truth(index, needs, binding, facts), able)]
            covered[able, column] = True
        found = covered[rows]
        holds = np.asarray(found.any(axis=1))
        return self._keep("precondition", rows, holds), found[holds]


_parsed = lru_cache(maxsize=1 << 14)(literal_of)


def _hold(index: SkillIndex, truth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bool[m]: rows all of whose preconditions are true."""
    holds = truth[index.needs[0][rows]]
    for column in index.needs[1:]:
        holds &= truth[column[rows]]
    return holds


def _effects(index: SkillIndex, wanted: str) -> list[tuple[tuple[str, ...], Iterable[int], np.ndarray]]:
    """Arguments, preconditions and rows of each pattern with a wanted literal's predicate, sign and number of
    arguments.
    """
    name, arguments, sign = _parsed(wanted)
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
                name, arguments, sign = _parsed(atom)
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
def _text(index: SkillIndex, text: str) -> np.ndarray:
    """float32[n] in 0 … 1: how much of a text's words, the rare ones counting more, each row has."""
    n = len(index.versions)
    score = np.zeros(n, np.float32)
    total = 0.0
    for word in list(dict.fromkeys(words(text)))[:WORDS]:
        found = index.rows_with(word)
        weight = float(np.log1p((n - len(found) + 0.5) / (len(found) + 0.5)))
        total += weight
        if len(found):
            score[found] += np.float32(weight)
    return score / np.float32(total) if total > 0 else score
