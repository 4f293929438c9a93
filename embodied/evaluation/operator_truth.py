"""What is in truth needed for a skill, and done by it: the simulator's answer, from executions made for the question.

*Needed.* A base state is drawn broadly and varied in one thing at a time: the drawer shut, half open or open, the lamp
switched, one block put somewhere else (`VARIANTS`). Whatever is varied, the skill is then executed from every variant.
Two variants of one base whose facts differ in one literal alone, by the simulator's own predicates, are a *pair*: other
things are equal, and what differs in the outcome is that literal's doing. Facts that cannot differ alone are one
(`canonical`): nothing stands on a block that is clear, ``placed`` is ``at`` where a state is looked at, what is lifted
is held. A literal is needed if success with it exceeds success without it by `GAP`, significantly (an exact sign test
of the pairs in which the outcome differs), and is at most `HOPELESS` without it: the learner's own definition of a
precondition, in states where everything else that is needed holds, and where no second literal makes up for it.

*Done.* From all of these executions and others that begin as those the operator was learnt from did, but are not those:
on successes, where a fact could change, it does at a rate of at least `BELIEVED`.

A literal is undecided where the 95 % interval of a rate reaches across its threshold, or too few pairs or chances were
found; it counts neither for nor against the learner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import binomtest

from embodied.planning.execute import symbolic_state
from embodied.planning.operators import BELIEVED, Operator, effects
from embodied.planning.separation import CONFIDENCE, GAP, HOPELESS
from embodied.skills.statistics import wilson
from envs.goals import Goal

__all__ = ["Tried", "Verdict", "canonical", "done", "lifted", "needed"]

PAIRS = 24  # fewest pairs that decide about a need
CHANCES = 12  # fewest successes in which a fact could change that decide about an effect
LEVEL = 0.01  # of the sign test


# ---- what is needed


def canonical(literal: str) -> str:
    """A literal's stand-in among those that cannot differ alone: of ``not clear(?a)`` it is ``on(?b, ?a)``."""
    sign, atom = ("not ", literal[4:]) if literal.startswith("not ") else ("", literal)
    name, _, args = atom.partition("(")
    if name == "clear":
        block = args.rstrip(")")
        swap = {"?a": "?b", "?b": "?a", "red": "blue", "blue": "red"}
        return f"{'' if sign else 'not '}on({swap.get(block, block)}, {block})"
    return f"{sign}{ {'placed': 'at', 'lifted': 'holding'}.get(name, name) }({args}".replace(" (", "(")


@dataclass(frozen=True)
class Verdict:
    """What was found of one literal: with it and without it (pairs), or done where it could be (an effect)."""

    literal: str
    holds: bool | None  # None: undecided
    n: int
    rate: float  # of success with the literal, or of the effect
    without: float = float("nan")
    spared: str = ""  # the literal that makes up for the absence of this one


@dataclass
class Tried:
    """Executions from the variants of one goal's bases: float or bool arrays [variants, bases], facts lifted."""

    facts: list[list[frozenset[str]]] = field(default_factory=list)
    success: list[np.ndarray] = field(default_factory=list)
    usable: list[np.ndarray] = field(default_factory=list)  # the goal did not hold yet, and no block was lost


def lifted(operator: Operator, goal: Goal, facts: np.ndarray) -> list[frozenset[str]]:
    """The canonical lifted facts of each row of facts float[n, NX]."""
    rows = []
    for state in symbolic_state(facts):
        true = operator.lift(goal, state)
        rows.append(frozenset(canonical(fact) for fact in true if not fact.startswith(("clear(", "placed("))))
    return rows


def needed(tried: Sequence[Tried], seed: int = 0) -> list[Verdict]:
    """A verdict for each literal that differs alone in at least one pair; positive and negative needs."""
    pairs = _pairs(tried, np.random.default_rng(seed))
    found: dict[str, Verdict] = {}
    held: frozenset[str] = frozenset()
    for _ in range(6):  # what is needed is judged where everything else that is needed holds
        found = {v.literal: v for fact, rows in sorted(pairs.items()) for v in _judge(fact, rows, held)}
        following = frozenset(v.literal for v in found.values() if v.holds)
        if following == held:
            break
        held = following
    return list(found.values())


Pair = tuple[frozenset[str], frozenset[str], bool, bool]
"""Facts with the literal and without it; success with it and without it."""


def _pairs(tried: Sequence[Tried], rng: np.random.Generator) -> dict[str, list[Pair]]:
    """Fact → pairs of variants that differ in it alone; of every base at most two, drawn."""
    pairs: dict[str, list[Pair]] = {}
    for one in tried:
        for base in range(len(one.success[0])):
            mine: dict[str, list[Pair]] = {}
            rows = [v for v in range(len(one.facts)) if one.usable[v][base]]
            for i in rows:
                for j in rows:
                    apart = one.facts[i][base] - one.facts[j][base]
                    if len(apart) == 1 and not one.facts[j][base] - one.facts[i][base]:
                        (fact,) = apart
                        mine.setdefault(fact, []).append(
                            (one.facts[i][base], one.facts[j][base], bool(one.success[i][base]),
                             bool(one.success[j][base]))
                        )  # fmt: skip
            for fact, of in mine.items():
                chosen = rng.choice(len(of), size=min(2, len(of)), replace=False)
                pairs.setdefault(fact, []).extend(of[int(k)] for k in chosen)
    return pairs


def _judge(fact: str, pairs: Sequence[Pair], held: frozenset[str]) -> Iterable[Verdict]:
    others = [_signed(x) for x in held if x.removeprefix("not ") != fact]
    rows = [p for p in pairs if all((atom in p[0]) == sign and (atom in p[1]) == sign for atom, sign in others)]
    n = len(rows)
    for sign in (True, False):
        literal = fact if sign else f"not {fact}"
        given = np.array([p[2 if sign else 3] for p in rows], bool)
        lacking = np.array([p[3 if sign else 2] for p in rows], bool)
        if n < PAIRS:
            yield Verdict(
                literal, None, n, float(given.mean()) if n else np.nan, float(lacking.mean()) if n else np.nan
            )
            continue
        better, worse = int((given & ~lacking).sum()), int((lacking & ~given).sum())
        gap = float(given.mean() - lacking.mean())
        spread = 1.96 * float(np.std(given.astype(float) - lacking.astype(float))) / n**0.5
        low, high = (float(b) for b in wilson(lacking.sum(), n))
        significant = better + worse > 0 and binomtest(better, better + worse, alternative="greater").pvalue < LEVEL
        holds: bool | None = bool(significant and gap >= GAP and lacking.mean() <= HOPELESS)
        spared = _spared([p[1] if sign else p[0] for p in rows], lacking, float(given.mean())) if holds else ""
        if spared:
            yield Verdict(literal, False, n, float(given.mean()), float(lacking.mean()), spared)
            continue
        surely = gap - spread >= GAP and high <= HOPELESS
        never = gap + spread < GAP or low > HOPELESS
        yield Verdict(literal, holds if surely or never else None, n, float(given.mean()), float(lacking.mean()))


def _spared(states: Sequence[frozenset[str]], success: np.ndarray, rate: float) -> str:
    """The literal with which success is not rare though the need is not met, by the learner's rule; "" for none."""
    best, least = "", rate / 2
    for fact in sorted(set().union(*states)):
        holds = np.array([fact in state for state in states])
        for name, rows in ((fact, holds), (f"not {fact}", ~holds)):
            lower = float(wilson(success[rows].sum(), rows.sum(), CONFIDENCE)[0]) if rows.any() else 0.0
            best, least = (name, lower) if lower >= least else (best, least)
    return best


def _signed(literal: str) -> tuple[str, bool]:
    return (literal[4:], False) if literal.startswith("not ") else (literal, True)


# ---- what is done


def done(fresh: Operator) -> list[Verdict]:
    """A verdict for each effect, from the counts of fresh executions; deleted facts are negative literals."""
    verdicts = []
    for literal, (chances, hits) in sorted(effects(fresh.changes).items()):
        rate = hits / chances if chances else float("nan")
        low, high = (float(b) for b in wilson(hits, chances))
        clear = chances >= CHANCES and (low >= BELIEVED or high < BELIEVED)
        verdicts.append(Verdict(literal, rate >= BELIEVED if clear else None, chances, rate))
    return verdicts
