"""A skill's entry in the library, beside its policy: how to run it, what it was seen to do, and its handbook."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embodied.language.base import LanguageModel, LMRequest
from embodied.language.roles import DescribeReply, DescribeRequest, Entry
from embodied.planning.operators import Operator
from embodied.skills.manifest import HandbookFacet, OperatorFacet, PolicyFacet, Support
from envs.goals import Goal
from envs.vocabulary import PREDICATES

__all__ = ["SkillEntry", "entry_of"]


_TYPED, _VARIABLE = re.compile(r"(\?\w+):(\w+)"), re.compile(r"\?\w+")


@dataclass(frozen=True)
class SkillEntry:
    """The facets of one version, and who wrote its handbook."""

    policy: PolicyFacet
    operator: OperatorFacet
    handbook: HandbookFacet
    author: str


def entry_of(
    agent: LanguageModel, operator: Operator, example: str, executed: Mapping[str, Sequence[int]], horizon: int
) -> SkillEntry:
    """The entry of a skill admitted for ``example`` among others, from its operator's counts and ``executed``: goal ->
    [successes, n]. The handbook is the librarian's (role ``describe``): words to choose by, never evidence.
    """
    counts = {(c.literal, c.role): c for c in operator.counts()}
    parameters = tuple(sorted(set(_TYPED.findall(operator.schema))))
    own = {name for name, _ in parameters}

    def supported(literals: Iterable[str], role: str, sign: str = "") -> tuple[Support, ...]:
        found = [(text, counts.get((sign + text, role))) for text in literals]
        return tuple(Support(text, c.hits, c.trials) if c else Support(text) for text, c in found)

    def bound_ones(facts: Iterable[str]) -> list[str]:  # what it does to things it is not told about is left out
        return sorted(fact for fact in _known(facts) if set(_VARIABLE.findall(fact)) <= own)

    model = operator.model
    successes, n = (sum(counted[i] for counted in executed.values()) for i in (0, 1))
    facet = OperatorFacet(
        parameters=parameters,
        pre=supported(_known(model.precondition), "precondition"),
        add=supported(bound_ones(model.add), "effect"),
        delete=supported(bound_ones(model.delete), "effect", "not "),
        cost=float(horizon),
        success=(1.0 + successes, 1.0 + n - successes),
    )
    goal = Goal.parse(example)
    bound = operator.ground(goal)
    request = DescribeRequest(
        skill=Entry(name=_named(goal.text()), schema_text=operator.schema, evidence=(successes, n)),
        needs=_literals(bound.needs, bound.forbids),
        effects=_literals(bound.add, bound.delete),
    )
    result = agent.complete(LMRequest("describe", request, DescribeReply))
    words = result.value
    return SkillEntry(
        PolicyFacet(termination=tuple(_untyped(operator.schema)), horizon=horizon),
        facet, HandbookFacet(words.when, words.do, words.dont), result.backend,
    )  # fmt: skip


def _known(literals: Iterable[str]) -> list[str]:
    """Those in the vocabulary: what was invented for one operator alone means nothing to a reader of its entry."""
    return [text for text in literals if text.removeprefix("not ").partition("(")[0] in PREDICATES]


def _literals(true: Iterable[str], false: Iterable[str]) -> tuple[str, ...]:
    return (*sorted(_known(true)), *(f"not {atom}" for atom in sorted(_known(false))))


def _untyped(schema: str) -> list[str]:
    """The literals of a schema's last stage, without types."""
    return [part.strip() for part in _TYPED.sub(r"\1", schema).split(";")[-1].split("&")]


def _named(text: str) -> str:
    """A sentence as a skill's name: open-the-drawer."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:64].strip("-")
