"""What retrieval finds, what it filters out and says so, and that its columns follow the library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embodied.core import EvalReport, Skill
from embodied.curriculum.proposer import choose
from embodied.evaluation import library_world
from embodied.evaluation.library_claims import _retrievals
from embodied.skills.heads import Change
from embodied.skills.index import SkillIndex
from embodied.skills.library import LibraryError, SkillLibrary
from embodied.skills.manifest import HandbookFacet, OperatorFacet, Support
from embodied.skills.retrieval import CapabilityGap, Query, Retrieved, proposals, retrieve
from embodied.skills.wording import embed, words
from envs.goals import GoalError

ON = "on(?a:block, ?b:block)"
TYPES = {"red": "block", "blue": "block", "drawer": "drawer", "lamp": "lamp"}
FACTS = frozenset({"clear(red)", "clear(blue)", "open(drawer)"})


def operator(*add: str, pre: tuple[str, ...] = (), parameters: tuple[tuple[str, str], ...] = ()) -> OperatorFacet:
    return OperatorFacet(parameters, tuple(map(Support, pre)), tuple(map(Support, add)))


BLOCKS = (("?a", "block"), ("?b", "block"))
KNOWN = {  # name: schema, operator, text
    "stack": (ON, operator("on(?a, ?b)", pre=("clear(?b)",), parameters=BLOCKS), "put a block on another block"),
    "dark": (ON, operator("on(?a, ?b)", pre=("not lit(lamp)", "not holding(?c)"), parameters=BLOCKS), "in the dark"),
    "lit": (ON, operator("on(?a, ?b)", pre=("lit(lamp)",), parameters=BLOCKS), "in the light"),
    "door": ("open(?d:door)", operator("open(?d)", parameters=(("?d", "door"),)), "open a door"),
    "drawer": ("open(drawer)", None, "pull the drawer open"),
    "press": ("lit(lamp)", None, "press the button of the lamp"),
}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[SkillLibrary]:
    """The skills of KNOWN, all admitted but "press"."""
    with SkillLibrary.open(tmp_path / "library.sqlite") as opened:
        with opened.edit() as tx:
            skills = [
                tx.insert(Skill(schema, "", {"name": name}, operator=facet, handbook=HandbookFacet(when=text)))
                for name, (schema, facet, text) in KNOWN.items()
            ]
            for skill in skills[:-1]:
                for seed, purpose in enumerate(("gate", "confirm")):
                    tx.add_evidence(skill.version, purpose, EvalReport("lit(lamp)", "", seed, np.ones(100, bool)))
            tx.commit(0, Change(add=tuple(skill.version for skill in skills)))
        yield opened


def names(library: SkillLibrary, found: list[Retrieved] | CapabilityGap) -> set[str]:
    assert isinstance(found, list), found
    return {str(library.skill(item.version).conditioning["name"]) for item in found}


def test_only_what_serves_now_is_found(library: SkillLibrary):
    index = SkillIndex(library)
    assert len(index) == 6

    def ask(*wanted: str, **more: object) -> list[Retrieved] | CapabilityGap:
        return retrieve(index, Query(wanted, **{"facts": FACTS, "types": TYPES, **more}))  # type: ignore[arg-type]

    assert names(library, ask("on(red, blue)")) == {"stack", "dark"}
    assert names(library, ask("on(red, blue)", facts=FACTS | {"lit(lamp)"})) == {"stack", "lit"}
    assert names(library, ask("on(red, blue)", facts=FACTS - {"clear(blue)"})) == {"dark"}  # bound: b is blue
    assert names(library, ask("on(red, blue)", facts=FACTS | {"holding(blue)"})) == {"stack"}  # nothing may be held
    assert names(library, ask("on(red, blue)", facts=None)) == {"stack", "dark", "lit"}
    assert names(library, ask("open(drawer)")) == {"drawer"}  # the door's parameter is of another type
    assert names(library, ask("on(red, blue)", "open(drawer)")) == {"stack", "dark", "drawer"}
    assert names(library, ask("lit(lamp)", statuses=("candidate",))) == {"press"}
    assert names(library, ask("open(drawer)", "on(red, blue)", schemas=("open(drawer)",))) == {"drawer"}
    both = ask("on(red, blue)")
    assert isinstance(both, list) and both[0].covers == ("on(red, blue)",) and set(both[0].reasons) == {
        "covered", "text", "cosine", "draw", "success",
    }  # fmt: skip
    assert ask("on(red, blue)") == both  # the same seed, the same answer


def test_an_empty_answer_says_what_stood_in_the_way_and_becomes_a_proposal(library: SkillLibrary):
    index = SkillIndex(library)
    gap = retrieve(index, Query(("on(red, blue)",), facts=frozenset({"holding(red)"}), types={"red": "block"}))
    assert isinstance(gap, CapabilityGap) and gap.filtered == {"effect": 3, "status": 0, "types": 0, "precondition": 3}
    gap = retrieve(index, Query(("lit(lamp)", "inside(red, drawer)"), facts=FACTS, types=TYPES))
    assert isinstance(gap, CapabilityGap) and gap.filtered == {"effect": 5, "status": 1, "types": 0, "precondition": 0}
    assert str(gap) == "no skill serves lit(lamp) & inside(red, drawer): 5 by effect, 1 by status"
    records = proposals(gap)
    assert [r.goal for r in records] == ["lit(lamp)", "inside(red, drawer)", "inside(red, drawer) & lit(lamp)"]
    assert choose(records, seed=0)
    gap = retrieve(index, Query(text="press the button of the lamp", types={"red": "block"}, statuses=("revoked",)))
    assert isinstance(gap, CapabilityGap) and "6 by status" in str(gap)
    assert [r.goal for r in proposals(CapabilityGap((), "turn on the lamp", {}))] == ["lit(lamp)"]
    with pytest.raises(GoalError):
        proposals(CapabilityGap(("fly(red)",), "", {}))


def test_words_and_stems_are_found(library: SkillLibrary):
    index = SkillIndex(library)
    best = retrieve(index, Query(text="pull"))
    assert names(library, best) == {"drawer"}
    misspelt = retrieve(index, Query(text="drawers pulling"), k=1)  # no such word: the embedding alone
    assert names(library, misspelt) == {"drawer"}
    assert words("moved_left(?a:block)") == ["moved", "left", "a", "block"]
    a, b, c = embed(["opens the drawers", "open(drawer)", "lit lamp"])
    assert a @ b > 0.3 > a @ c and np.isclose(a @ a, 1) and not embed([""]).any()
    assert len(embed(["x" * 10**6])) == 1


def test_another_encoder_takes_the_place_of_the_embedding(library: SkillLibrary):
    def lamps(texts: object) -> np.ndarray:
        return np.array([["lamp" in text, 1.0] for text in texts], np.float32)  # type: ignore[attr-defined]

    index = SkillIndex(library, lamps)
    assert index.vectors.shape[1] == 2
    assert names(library, retrieve(index, Query(text="a lamp?", statuses=("candidate",)))) == {"press"}


def test_the_draw_prefers_what_succeeds_and_tries_what_is_new(library: SkillLibrary):
    index = SkillIndex(library)
    dark = next(s for s in library.skills(ON) if s.conditioning["name"] == "dark")
    query = Query(("on(red, blue)",), facts=FACTS)
    with library.edit() as tx:
        for _ in range(300):
            tx.add_usage(dark.version, "on(red, blue)", False, 100)
    assert index.follow() == 1 and index.follow() == 0
    firsts = [retrieve(index, query, rng=seed) for seed in range(20)]
    assert all(isinstance(found, list) and found[0].version != dark.version for found in firsts)


def test_the_columns_follow_head_evidence_decisions_and_revocations(library: SkillLibrary):
    index, query = SkillIndex(library), Query(("on(red, blue)",), facts=FACTS)
    by = {str(skill.conditioning["name"]): skill.version for skill in library.skills()}
    library.commit(1, Change(remove=(by["stack"],)))
    assert names(library, retrieve(index, query)) == {"stack", "dark"}  # until it follows
    assert index.follow() == 1
    assert names(library, retrieve(index, query)) == {"dark"}
    library.commit(2, Change(add=(by["stack"],)))
    with library.edit() as tx:
        tx.revoke(by["dark"], "no")
        new = tx.insert(Skill(ON, "", {"name": "new"}, operator=operator("on(?a, ?b)", parameters=BLOCKS)))
        tx.commit(library.head.id, Change(add=(new.version,)))
        for seed, purpose in enumerate(("gate", "confirm")):
            tx.add_evidence(new.version, purpose, EvalReport("on(red, blue)", "", seed, np.ones(100, bool)))
    index.follow()
    assert names(library, retrieve(index, query)) == {"stack", "new"}
    with library.edit() as tx:
        tx.add_gate_decision("on(red, blue)", 0, [new.version], {}, "canary", "")
    index.follow()
    assert names(library, retrieve(index, query)) == {"stack"}
    fresh = SkillIndex(library)
    n = len(fresh.versions)
    rows = [index.row_of[version] for version in fresh.versions]
    for name in ("alive", "status", "kinds", "beta", "vectors"):
        assert (getattr(fresh, name)[:n] == getattr(index, name)[rows]).all(), name


def test_bad_queries_are_one_sentence():
    for values, sentence in (
        ({}, "needs words"), ({"wanted": ("on(?a, red)",)}, "has a variable"), ({"wanted": ("fly",)}, "is not a lit"),
        ({"wanted": ("lit(lamp)",) * 17}, "too many"), ({"text": "x", "statuses": ("best",)}, "unknown status 'best'"),
    ):  # fmt: skip
        with pytest.raises(LibraryError, match=sentence):
            Query(**values)  # type: ignore[arg-type]


def test_a_made_up_library_is_filled_and_searched(tmp_path: Path):
    path = tmp_path / "library.sqlite"
    with SkillLibrary.open(path) as library:
        library_world.fill(library, 120, 0)
        assert len(library.at()) == 120 and {len(v) for v in library.at().families.values()} == {10}
    found = _retrievals(path, 6, 0)
    assert len(found["p99"]) == 5 and found["index"] == 120
