"""Facets of a skill: part of its hash where they are there, and refused in one sentence where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.core import Skill
from embodied.skills.library import LibraryError, SkillLibrary
from embodied.skills.manifest import (
    HandbookFacet,
    ManifestError,
    OperatorFacet,
    PolicyFacet,
    Support,
    check_json,
    check_symbols,
    facets_from_dict,
)
from policies.checkpoint import write_checkpoint

NAN = float("nan")
OPERATOR = OperatorFacet(
    (("?a", "block"), ("?b", "block|cabinet")), (Support("clear(?b)", 9, 10), Support("not holding(?c)")),
    (Support("on(?a, ?b)", 8, 9),), (Support("clear(?b)", 8, 8),), 31.5, (9.0, 2.0),
)  # fmt: skip
POLICY = PolicyFacet(("clear(?b)",), ("on(?a, ?b)",), 120, "running")
HANDBOOK = HandbookFacet("b is free", "lift a above b", "push b")


def test_a_skill_without_facets_keeps_the_hash_it_had():
    skill = Skill("on(?a:block, ?b:block)", "ab" * 32, {"type": "goal"}, {"?a": "block"}, None)
    assert skill.version == "76e5d99904124ccc79e07092a7c3254e708271b81eb9de553f5c15e659f79836"
    versions = {
        Skill(skill.schema, skill.artifact, policy=p, operator=o, handbook=h).version
        for p in (None, POLICY) for o in (None, OPERATOR) for h in (None, HANDBOOK)
    }  # fmt: skip
    assert len(versions) == 8  # each facet is part of what a skill is


def test_facets_come_back_from_the_library_and_from_json(tmp_path: Path):
    write_checkpoint(tmp_path / "p", "random", {}, {"weight": np.ones(3, np.float32)})
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        with library.edit() as tx:
            skill = tx.add_skill("s", tmp_path / "p", policy=POLICY, operator=OPERATOR, handbook=HANDBOOK)
            book = tx.add_skill("s", None, handbook=HANDBOOK)
            with pytest.raises(LibraryError, match="is empty: give it"):
                tx.add_skill("s", None)
        found = library.skill(skill.version)
        assert (found.policy, found.operator, found.handbook) == (POLICY, OPERATOR, HANDBOOK) and found == skill
        assert library.skill(book.version).artifact == ""
        library.verify()
        assert library.gc() == []
    again = facets_from_dict(json.loads(json.dumps(skill.facets)))
    assert again == {"policy": POLICY, "operator": OPERATOR, "handbook": HANDBOOK}


BAD: dict[str, tuple[Any, str]] = {
    "no table": ([1], "must be a table"),
    "unknown facet": ({"code": "import os"}, "have no 'code'"),
    "unknown key": ({"policy": {"run": 1}}, "have no 'run'"),
    "horizon": ({"policy": {"horizon": -1}}, "horizon of -1"),
    "horizon as truth": ({"policy": {"horizon": True}}, "horizon of True"),
    "literal": ({"policy": {"initiation": ["rm -rf"]}}, "is not a literal"),
    "literal as number": ({"policy": {"initiation": [7]}}, "is not a literal"),
    "text as list": ({"policy": {"initiation": "clear(?a)"}}, "must be a list"),
    "counts": ({"operator": {"pre": [["clear(?a)", 3, 2]]}}, "cannot hold in 3 of 2"),
    "count as text": ({"operator": {"pre": [["clear(?a)", "3", 4]]}}, "cannot hold"),
    "short row": ({"operator": {"pre": [["clear(?a)"]]}}, "a list of 3"),
    "unknown variable": ({"operator": {"add": [["on(?x)", 1, 1]]}}, r"unknown variable \?x"),
    "parameters": ({"operator": {"parameters": [["?a", "block"], ["?a", "block"]]}}, "must differ"),
    "parameter": ({"operator": {"parameters": [["a", "block"]]}}, "not a typed parameter"),
    "parameter as list": ({"operator": {"parameters": [[["?a"], "block"]]}}, "not a typed parameter"),
    "cost": ({"operator": {"cost": NAN}}, "must be finite"),
    "cost below": ({"operator": {"cost": -1}}, "cost of -1"),
    "beta": ({"operator": {"success": [0, 1]}}, "not a Beta"),
    "huge": ({"operator": {"cost": 1 << 4000}}, "integer of 4001 bits"),
    "words": ({"handbook": {"do": "word " * 121}}, "121 words is too long; at most 120"),
    "one word": ({"handbook": {"do": "x" * 300}}, "is too long"),
    "escape": ({"handbook": {"do": "\x1b[2J"}}, "control characters"),
    "surrogate": ({"handbook": {"do": "\ud800"}}, "no Unicode"),
    "number as text": ({"handbook": {"do": 7}}, "plain text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_sentence(name: str):
    data, sentence = BAD[name]
    with pytest.raises(ManifestError, match=sentence) as caught:
        facets_from_dict(data)
    assert len(str(caught.value)) < 400 and "\x1b" not in str(caught.value)


def test_a_recursion_bomb_is_no_recursion(tmp_path: Path):
    bomb: Any = []
    for _ in range(200_000):
        bomb = [bomb]
    with pytest.raises(ManifestError, match="deeper than 16"):
        facets_from_dict({"policy": bomb})
    with pytest.raises(ManifestError, match=r"larger than 200,000"):
        check_json([0] * 300_000, "it")
    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        for value, sentence in ((bomb, "deeper"), ({1: 2}, "keys are text"), (NAN, "finite"), (object(), "plain JSON")):
            with pytest.raises(LibraryError, match=sentence):
                tx.insert(Skill("s", "", {"x": value}, handbook=HANDBOOK))
            with pytest.raises(LibraryError, match=sentence):
                tx.add_gate_decision("g", 0, [], {"x": value}, "accepted", "")
        assert library.skills() == []
    while bomb:  # taken apart by hand: the interpreter would recurse
        bomb = bomb.pop()


def test_symbols_are_those_that_are_known():
    check_symbols({"operator": OPERATOR, "policy": POLICY}, {"on", "clear", "holding"})
    with pytest.raises(ManifestError, match=r"unknown predicate 'clear' in 'clear\(\?b\)'; valid are holding, on"):
        check_symbols({"operator": OPERATOR}, {"on", "holding"})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    write_checkpoint(tmp_path / "p", "random", {}, {"weight": np.array([1.0, np.inf], np.float32)})
    with SkillLibrary.open(tmp_path / "library.sqlite") as library, library.edit() as tx:
        with pytest.raises(LibraryError, match="cannot become a skill: its weights 'weight' are not all finite"):
            tx.add_skill("s", tmp_path / "p")
        assert library.skills() == [] and list(library.artifacts) == []
