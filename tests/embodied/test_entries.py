"""A skill's entry: supports are the operator's counts, the handbook is the librarian's and never evidence."""

from __future__ import annotations

from embodied.language.grammar import GrammarModel
from embodied.planning.invented import Invented
from embodied.planning.operators import Operator
from embodied.training.entries import entry_of
from envs.goals import Goal

FACTS = {"open(drawer)": False, "closed(drawer)": True, "lit(lamp)": False}


def opened(times: int, failures: int) -> Operator:
    operator, goal = Operator("open(drawer)"), Goal.parse("open(drawer)")
    after = FACTS | {"open(drawer)": True, "closed(drawer)": False}
    for k in range(times + failures):
        operator.observe(goal, FACTS, after if k < times else FACTS, k < times)
    return operator


def test_an_entry_says_what_was_counted() -> None:
    entry = entry_of(GrammarModel(), opened(18, 2), "open(drawer)", {"open(drawer)": [18, 20]}, 120)
    assert entry.policy.termination == ("open(drawer)",) and entry.policy.horizon == 120
    assert entry.operator.success == (19.0, 3.0) and entry.operator.parameters == ()
    added = {row.literal: (row.hits, row.trials) for row in entry.operator.add}
    deleted = {row.literal: (row.hits, row.trials) for row in entry.operator.delete}
    assert added == {"open(drawer)": (18, 18)} and deleted == {"closed(drawer)": (18, 18)}
    assert "18 times in 20" in entry.handbook.when and entry.author == "grammar"


def test_what_happens_to_things_it_is_not_told_about_is_left_out() -> None:
    operator, goal = Operator("lifted(?a:block)"), Goal.parse("lifted(red)")
    before = {"lifted(red)": False, "clear(red)": True, "clear(blue)": False, "on(red, blue)": True}
    after = before | {"lifted(red)": True, "clear(blue)": True, "on(red, blue)": False}
    for _ in range(6):
        operator.observe(goal, before, after, True)
    entry = entry_of(GrammarModel(), operator, "lifted(red)", {"lifted(red)": [6, 6]}, 120)
    assert entry.operator.parameters == (("?a", "block"),)
    assert [row.literal for row in entry.operator.add] == ["lifted(?a)"]
    assert "no failure is known" in entry.handbook.dont


def test_what_was_invented_for_one_operator_stays_out_of_its_entry() -> None:
    near = Invented.parse("near(?a, ?b) := gap(?a, ?b) < 0.051")
    operator, goal = Operator("lifted(?a:block)", invented=[near]), Goal.parse("lifted(red)")
    base = {"lifted(red)": False, "clear(red)": True, "clear(blue)": True}
    for k in range(40):  # it fails wherever the other block is near, and what succeeds takes it away from there
        close = k % 2 == 0
        after = base | {"lifted(red)": not close, "near(red, blue)": close, "near(blue, red)": close}
        operator.observe(goal, base | {"near(red, blue)": close, "near(blue, red)": close}, after, not close)
    assert any("near" in literal for literal in operator.model.precondition)
    entry = entry_of(GrammarModel(), operator, "lifted(red)", {"lifted(red)": [20, 40]}, 120)
    rows = (*entry.operator.pre, *entry.operator.add, *entry.operator.delete)
    assert not any("near" in row.literal for row in rows) and "near" not in entry.handbook.when
