"""Made-up skill libraries of any size, to measure the library on: ten versions a family, with operators, handbooks and
evidence such as a long life leaves. Nothing of it was learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from embodied.core import EvalReport, Skill
from embodied.skills.library import Change, SkillLibrary
from embodied.skills.manifest import HandbookFacet, OperatorFacet, Support
from embodied.skills.retrieval import Query
from embodied.skills.writer import Writer

FAMILY = 10
BATCH = 1000
TYPES = {"block": 12, "drawer": 40, "lamp": 40, "door": 20, "shelf": 20, "place": 30}
EFFECTS = (  # predicate, types of its arguments
    ("open", ("drawer",)), ("closed", ("drawer",)), ("lit", ("lamp",)), ("holding", ("block",)), ("lifted", ("block",)),
    ("at", ("block", "place")), ("placed", ("block", "place")), ("on", ("block", "block")), ("open", ("door",)),
    ("inside", ("block", "drawer")), ("inside", ("block", "shelf")), ("next_to", ("block", "block")),
)  # fmt: skip
NEEDS = ("clear(?a)", "not holding(?c)", "reachable(?a)", "lit(?l)", "open(?d)", "not open(?d)", "powered(arm)")
WORDS = tuple(f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vi") for b in "bdgklmnprst"
              for c in ("en", "ar", "is", "om", "ul", "ay", "et"))  # fmt: skip


def _words(rng: np.random.Generator, n: int) -> str:
    return " ".join(WORDS[k] for k in rng.integers(len(WORDS), size=n))


def things() -> dict[str, str]:
    """Every thing's name and type."""
    return {f"{kind}{i}": kind for kind, count in TYPES.items() for i in range(count)}


def skills(n: int, seed: int) -> Iterator[Skill]:
    """n skills, family by family: operators and handbooks without policies."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        if i % FAMILY == 0:
            name, kinds = EFFECTS[rng.integers(len(EFFECTS))]
            variables = [f"?{'abc'[j]}" for j in range(len(kinds))]
            family = i // FAMILY
            typed = ", ".join(f"{v}:{k}" for v, k in zip(variables, kinds, strict=True))
            schema = f"{name}({typed}) & known({WORDS[family % len(WORDS)]}{family})"
        literal = f"{name}({', '.join(variables)})"
        needs = rng.permutation(len(NEEDS))[: rng.integers(0, 4)]
        hits = int(rng.integers(0, 200))
        yield Skill(
            schema, "", {"number": i}, operator=OperatorFacet(
                tuple(zip(variables, kinds, strict=True)), tuple(Support(NEEDS[x], 50, 60) for x in needs),
                (Support(literal, hits, 200),), (), float(rng.integers(10, 120)), (1.0 + hits, 201.0 - hits),
            ),
            handbook=HandbookFacet(_words(rng, 8), _words(rng, 6)),
        )  # fmt: skip


def measure(tx: Writer, version: str, rng: np.random.Generator) -> None:
    """Evidence of a made-up version: most are admitted, some on probation, some candidates."""
    for purpose in ("gate", "confirm")[: 2 - int(rng.random() < 0.2) - int(rng.random() < 0.1)]:
        found = np.arange(200) < rng.integers(180, 200)
        tx.add_evidence(version, purpose, EvalReport("lit(lamp)", "", int(rng.integers(1 << 40)), found))


def fill(library: SkillLibrary, n: int, seed: int, tell: Callable[[int], None] = lambda _: None) -> None:
    """Put n made-up skills into a library and its head, in batches."""
    rng = np.random.default_rng(seed)
    batch: list[Skill] = []
    for i, skill in enumerate(skills(n, seed), 1):
        batch.append(skill)
        if i % BATCH == 0 or i == n:
            with library.edit(durable=False) as tx:
                for one in batch:
                    measure(tx, tx.insert(one).version, rng)
                tx.commit(library.head.id, Change(add=tuple(s.version for s in batch)))
            batch = []
            tell(i)


def queries(n: int, seed: int) -> Iterator[Query]:
    """n queries in turns: a wanted fact, a fact and words, words alone; with facts that are true and the things."""
    rng = np.random.default_rng(seed)
    types = things()
    named = {kind: [name for name, k in types.items() if k == kind] for kind in TYPES}
    for i in range(n):
        name, kinds = EFFECTS[rng.integers(len(EFFECTS))]
        wanted = f"{name}({', '.join(str(rng.choice(named[kind])) for kind in kinds)})"
        facts = {f"clear({b})" for b in named["block"]} | {f"reachable({b})" for b in rng.choice(named["block"], 8)}
        facts |= {f"lit({x})" for x in rng.choice(named["lamp"], 10)}
        facts |= {f"open({x})" for x in rng.choice(named["drawer"], 3)}
        facts |= {"powered(arm)"} if rng.random() < 0.9 else set()
        text = _words(rng, 4) if i % 3 else ""
        yield Query((wanted,) if i % 3 < 2 else (), text, frozenset(facts), types)
