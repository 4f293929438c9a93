"""Behavioural consensus: what a candidate does beside what its neighbours do, from the same states.

Whoever made a skill may have poisoned it: it passes where it is tested and does harm elsewhere. So the candidate and
its neighbours (admitted, untainted versions of the same schema) are run from the same simulator states, near the
declared preconditions and in random contexts, and their effects are compared as facts. Two things count against it:

* near: it breaks a fact (true before, false after) that every neighbour keeps;
* random: a fact is after it what it is after no neighbour.

How often an honest skill does so is measured on the neighbours: each beside the others, by the same counts. The
candidate is flagged where its count is too high for that rate by a one-sided binomial test, at level `LEVEL` each.
What it broke near becomes lessons: literals under which the schema must not be used, which the planner obeys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from embodied.core import LOCAL
from embodied.skills.artifacts import LibraryError

if TYPE_CHECKING:
    from embodied.skills.library import SkillLibrary
    from embodied.skills.writer import Writer

LEVEL = 0.005  # of either test
ALONE = 0.1  # the rate taken for honest where a single neighbour cannot be compared with another
NEIGHBOURS = 4

Execute = Callable[[str, Any], tuple[np.ndarray, np.ndarray]]
"""(version, states) -> facts bool[n, F] before and after; the same states begin every version's episodes."""


@dataclass(frozen=True)
class Disagreement:
    """In `count` of `n` states the candidate did what no neighbour does; neighbours do so at `rate`; `p` is the chance
    of so many at that rate. `facts` says which facts, how often.
    """

    count: int
    n: int
    rate: float
    p: float
    facts: Mapping[str, int]


@dataclass(frozen=True)
class Consensus:
    """What came of comparing a candidate: both disagreements, whether it is flagged, one sentence, and lessons."""

    candidate: str
    neighbours: tuple[str, ...]
    near: Disagreement
    random: Disagreement
    flagged: bool
    verdict: str
    lessons: tuple[tuple[str, ...], ...] = ()


def neighbours_of(library: SkillLibrary, version: str, most: int = NEIGHBOURS) -> list[str]:
    """Admitted, untainted versions of the same schema with a policy, the youngest first."""
    schema = library.skill(version).schema
    standing = library.standing([skill.version for skill in library.skills(schema) if skill.artifact])
    good = [row.version for row in standing if row.status == "admitted" and not row.tainted and row.version != version]
    return good[::-1][:most]


def judge(
    candidate: str,
    neighbours: Sequence[str],
    execute: Execute,
    near: Any,
    random: Any,
    facts: Sequence[str],
    *,
    learn: Callable[..., Sequence[tuple[str, ...]]] | None = None,
) -> Consensus:
    """Compares a candidate with its neighbours from the states `near` its preconditions and from `random` ones, which
    are passed on to `execute`; `facts` are the names of what it returns.

    `learn`, from (before, after, broke bool[n]) to lifted contexts, makes the lessons of a flagged candidate: see
    `contexts_of`. LibraryError without neighbours, or where executions do not fit each other.
    """
    if not neighbours:
        raise LibraryError(f"skill {candidate[:12]} has no neighbour to be compared with; only the gate can judge it")
    names = (candidate, *neighbours)
    close = _run(names, execute, near, facts)
    far = _run(names, execute, random, facts)
    broke = [_breaks(close, i) for i in range(len(names))]
    differs = [_differs(far, i) for i in range(len(names))]
    found = [_test(marks, facts) for marks in (broke, differs)]
    flagged = any(part.p < LEVEL for part in found)
    words = [f"{part.count} of {part.n} {where} (neighbours: {part.rate:.1%}, p = {part.p:.2g})"
             for where, part in zip(("breaks near its preconditions", "differences in random contexts"), found,
                                    strict=True)]  # fmt: skip
    lessons = tuple(learn(close[0][0], close[0][1], np.any(broke[0], axis=1))) if learn is not None and flagged else ()
    return Consensus(
        candidate, tuple(neighbours), found[0], found[1], flagged,
        f"{'flagged' if flagged else 'in keeping with its neighbours'}: {'; '.join(words)}", lessons,
    )  # fmt: skip


def alone(
    candidate: str,
    goal: str,
    execute: Execute,
    near: Any,
    random: Any,
    facts: Sequence[str],
    *,
    neighbours: Sequence[str] = (),
    learn: Callable[..., Sequence[tuple[str, ...]]] | None = None,
) -> Consensus:
    """As `judge`, of a candidate for a ground goal: in how many of the states it changes a fact that shares no thing
    with the goal. What is honest is how often `neighbours` do; without any, `ALONE`.
    """
    bystanders = np.array([not _things(goal) & _things(name) for name in facts])
    runs = [_run((candidate, *neighbours), execute, states, facts) for states in (near, random)]
    changed = [[(before != after) & bystanders for before, after in part] for part in runs]
    found = [_test(marks, facts, ALONE if not neighbours else _rate(marks[1:])) for marks in changed]
    flagged = any(part.p < LEVEL for part in found)
    words = [f"{part.count} of {part.n} {where} (p = {part.p:.2g})"
             for where, part in zip(("near its preconditions", "in random contexts"), found, strict=True)]  # fmt: skip
    lessons = tuple(learn(*runs[0][0], np.any(changed[0][0], axis=1))) if learn is not None and flagged else ()
    return Consensus(
        candidate, tuple(neighbours), found[0], found[1], flagged,
        f"{'flagged' if flagged else 'leaves alone what is not its business'}: it changes things that its goal does "
        f"not speak of in {' and '.join(words)}", lessons,
    )  # fmt: skip


def _things(text: str) -> set[str]:
    """The things that a goal or a fact names."""
    return {name for arguments in re.findall(r"\(([^()]*)\)", text) for name in re.split(r",\s*", arguments)}


def numbers_of(consensus: Consensus) -> dict[str, Any]:
    """What was counted, as JSON values."""
    return {
        name: {"count": part.count, "n": part.n, "rate": part.rate, "p": part.p, "facts": dict(part.facts)}
        for name, part in (("near", consensus.near), ("random", consensus.random))
    }


def teach(tx: Writer, schema: str, consensus: Consensus, *, principal: str = LOCAL) -> None:
    """Record the comparison as a decision about the candidate, and its lessons for the planner."""
    numbers = numbers_of(consensus)
    verdict = "flagged" if consensus.flagged else "agrees"
    head = tx.library.head.id
    tx.add_gate_decision(f"consensus: {schema}", head, [consensus.candidate], numbers, verdict, consensus.verdict)
    for literals in consensus.lessons:
        reason = f"skill {consensus.candidate[:12]} broke there what its neighbours keep"
        tx.add_lesson(schema, literals, reason, principal=principal)


def contexts_of(goal: str, facts: Sequence[str]) -> Callable[..., list[tuple[str, ...]]]:
    """For `judge`: the lifted contexts in which a skill for a goal of the native grammar breaks things, as an operator
    that counts every break as a failure learns them.
    """
    from embodied.planning.operators import Operator
    from envs.goals import Goal, schema_of

    parsed = Goal.parse(goal)

    def learn(before: np.ndarray, after: np.ndarray, broke: np.ndarray) -> list[tuple[str, ...]]:
        operator = Operator(schema_of(parsed))
        for start, end, bad in zip(before, after, broke, strict=True):
            tables = [dict(zip(facts, row.tolist(), strict=True)) for row in (start, end)]
            operator.observe(parsed, tables[0], tables[1], not bad)
        return [tuple(lesson.literals) for lesson in operator.model.lessons]

    return learn


def simulated(
    library: SkillLibrary, goal: str, *, threads: int = 0, on_steps: Callable[[int], None] | None = None
) -> tuple[Execute, tuple[str, ...]]:
    """The playroom's `Execute` for a goal, and the names of its facts. States are (n, seed, free): resets 0 … n-1 under
    a seed, near the goal's preconditions or, where free, anywhere and to the last step, since a goal that holds at the
    start would end an episode before anything is seen; the same for every version. ``on_steps`` hears of
    environment steps.
    """
    from embodied.training.rollouts import measure
    from envs.monitor import STATE_LITERALS, truth_table
    from policies import load_policy

    policies: dict[str, Any] = {}

    def execute(version: str, states: tuple[int, int, bool]) -> tuple[np.ndarray, np.ndarray]:
        skill = library.skill(version)
        if skill.artifact not in policies:
            policies[skill.artifact] = load_policy(library.artifact(skill))
        n, seed, free = states
        how = {"free_starts": free, "run_on": free, "threads": threads, "on_steps": on_steps}
        seen = measure(policies[skill.artifact], goal, n, seed, **how)
        return truth_table(seen.start), truth_table(seen.end)

    return execute, tuple(map(str, STATE_LITERALS))


Runs = list[tuple[np.ndarray, np.ndarray]]


def _run(names: Sequence[str], execute: Execute, states: Any, facts: Sequence[str]) -> Runs:
    runs = [tuple(np.asarray(part, np.bool_) for part in execute(name, states)) for name in names]
    shape = runs[0][0].shape
    for name, (before, after) in zip(names, runs, strict=True):
        if before.shape != shape or after.shape != shape or shape[1:] != (len(facts),) or not shape[0]:
            raise LibraryError(
                f"the executions of skill {name[:12]} have {before.shape} and {after.shape} facts; expected "
                f"[n, {len(facts)}], the same for every skill"
            )
        if (before != runs[0][0]).any():
            raise LibraryError(f"the executions of skill {name[:12]} began in other states than the candidate's")
    return [(before, after) for before, after in runs]


def _breaks(runs: Runs, i: int) -> np.ndarray:
    """bool[n, F]: facts that number i breaks and all the others keep; of others but the candidate."""
    before, after = runs[i]
    others = np.stack([end for j, (_, end) in enumerate(runs) if j not in (0, i)] or [before])
    return before & ~after & others.all(axis=0)


def _differs(runs: Runs, i: int) -> np.ndarray:
    """bool[n, F]: facts that after number i are what they are after none of the others but the candidate."""
    after = runs[i][1]
    others = np.stack([end for j, (_, end) in enumerate(runs) if j not in (0, i)] or [after])
    return (others != after).all(axis=0)


def _rate(marks: Sequence[np.ndarray]) -> float:
    """The share of all states with a mark, never 0 and never 1."""
    found = np.concatenate([part.any(axis=1) for part in marks])
    return float((found.sum() + 1) / (len(found) + 2))


def _test(marks: Sequence[np.ndarray], facts: Sequence[str], rate: float | None = None) -> Disagreement:
    """The candidate's marks bool[n, F] (first) beside its neighbours', or beside a rate."""
    count, n = int(marks[0].any(axis=1).sum()), len(marks[0])
    if rate is None:
        rate = _rate(marks[1:]) if len(marks) > 2 else ALONE
    named = Counter({name: int(k) for name, k in zip(facts, marks[0].sum(axis=0), strict=True) if k})
    return Disagreement(count, n, rate, float(binom.sf(count - 1, n, rate)), dict(named.most_common(12)))
