"""Operators as PDDL: what is written can be read, and another planner finds no shorter plans than ours."""

from __future__ import annotations

import builtins
import importlib.util
import warnings
from typing import Any

import pytest

from embodied.errors import UsageError
from embodied.planning.operators import Operator
from embodied.planning.pddl import fast_downward, render
from embodied.planning.search import plan
from envs.goals import Goal, all_ground_goals, schema_of

INSTALLED = all(importlib.util.find_spec(name) for name in ("unified_planning", "up_fast_downward"))
needs_extra = pytest.mark.skipif(not INSTALLED, reason='needs pip install "embodied-repertoire[planning]"')
START = ["closed(drawer)", "clear(red)", "clear(blue)"]


def taught() -> dict[str, Operator]:
    """Operators of a small world: drawers open before blocks go in, a hand is empty before the lamp is switched."""
    operators: dict[str, Operator] = {}
    for goal in all_ground_goals():
        if goal.final[0].predicate not in ("open", "closed", "lit", "lifted", "inside", "placed"):
            continue  # reading PDDL is slow
        operator = operators.setdefault(schema_of(goal), Operator(schema_of(goal)))
        literal = goal.final[0]
        for i in range(40):
            start = {"open(drawer)": i % 2 == 0, "closed(drawer)": i % 2 == 1, "lit(lamp)": not literal.positive}
            start |= {"holding(red)": i % 4 > 1, "lifted(red)": i % 4 > 1, "clear(blue)": True, "clear(red)": True}
            works = {"inside": start["open(drawer)"], "lit": not start["holding(red)"]}.get(literal.predicate, True)
            if i % 10 == 9 or not works:
                operator.observe(goal, start, start, False)
                continue
            end = start | {literal.atom: literal.positive}
            if literal.predicate in ("open", "closed"):
                end |= {"open(drawer)": literal.predicate == "open", "closed(drawer)": literal.predicate == "closed"}
            elif literal.predicate != "lit":
                end |= {f"{x}({literal.args[0]})": literal.predicate == "lifted" for x in ("holding", "lifted")}
            operator.observe(goal, start, end, True)
    operators["inside(?a:block, drawer)"].forbid(
        Goal.parse("inside(red, drawer)"), ["lit(lamp)", "holding(blue)"], "hot"
    )
    return operators


PROBLEMS = [
    "inside(red, drawer) & closed(drawer)",
    "lit(lamp) ; not lit(lamp) & placed(blue, left)",
    "open(drawer) ; closed(drawer) ; open(drawer)",
]  # fmt: skip


def test_a_domain_is_typed_and_deterministic() -> None:
    goal = Goal.parse("inside(red, drawer) & closed(drawer)")
    made = render(goal, START, taught())
    assert made == render(goal, list(reversed(START)), dict(reversed(list(taught().items()))))
    assert made.domain.count("(") == made.domain.count(")") and made.problem.count("(") == made.problem.count(")")
    assert "(inside ?x0 - block-type ?x1 - drawer-type)" in made.domain and "(not (closed drawer))" in made.domain
    assert "(or (not (holding ?b)) (not (lit lamp)))" in made.domain  # the lesson
    assert "(= (cost-achieve-inside red blue)" in made.problem and "(:metric minimize (total-cost))" in made.problem
    only_blue = render(goal, START, taught(), allowed=lambda skill: "red" not in str(skill.final[0].args[0]))
    assert not any(step.goal == "inside(red, drawer)" for step in only_blue.steps.values())
    assert "(can-achieve-inside red blue)" in made.problem and "(can-achieve-inside red" not in only_blue.problem


def test_impossible_goals_need_no_planner() -> None:
    found = fast_downward(Goal.parse("on(red, blue) & on(blue, red)"), START, taught())
    assert "impossible because" in found.explanation
    assert "no skill" in fast_downward(Goal.parse("lit(lamp)"), START, []).explanation


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **how: Any) -> Any:
        if name.startswith(("unified_planning", "up_fast_downward")):
            raise ImportError("no", name=name)
        return real(name, *args, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"embodied-repertoire\[planning\]"):
        fast_downward(Goal.parse("open(drawer)"), START, taught())


@needs_extra
@pytest.mark.parametrize("text", PROBLEMS)
def test_what_is_written_reads_back_and_fast_downward_plans_no_longer_than_ours(text: str) -> None:
    goal, operators = Goal.parse(text), taught()
    made = render(goal, START, operators)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from unified_planning.io import PDDLReader, PDDLWriter  # pyright: ignore[reportMissingImports]

        problem = PDDLReader().parse_problem_string(made.domain, made.problem)
        if text == PROBLEMS[0]:
            writer = PDDLWriter(problem)
            again = PDDLReader().parse_problem_string(writer.get_domain(), writer.get_problem())
            for kind in ("actions", "fluents", "goals", "all_objects", "initial_values"):
                assert len(getattr(again, kind)) == len(getattr(problem, kind))
    names = {name for name, _ in made.steps} | {f"reach-{k}" for k in range(len(goal.stages) - 1)}
    assert {action.name for action in problem.actions} == names
    assert {t.name for t in problem.user_types} >= {"block-type", "place-type", "drawer-type"}
    assert len(problem.quality_metrics) == 1
    ours, other = plan(goal, START, operators), fast_downward(goal, START, operators)
    assert ours.found and other.found
    assert len(other.steps) <= len(ours.steps)
    assert other.probability > ours.probability - 0.01  # ours weighs what happened in this very state, too
    assert {step.schema for step in other.steps} <= operators.keys()


@needs_extra
def test_fast_downward_says_when_there_is_no_plan_and_hears_of_failures() -> None:
    operators = taught()
    few = {k: v for k, v in operators.items() if k in ("inside(?a:block, drawer)", "closed(drawer)")}
    found = fast_downward(Goal.parse("inside(red, drawer)"), START, few)
    assert not found.found and found.explanation and found.steps == ()
    operator = Operator("lit(lamp) & open(drawer)")
    for i in range(40):
        operator.observe(Goal.parse("lit(lamp) & open(drawer)"), {}, {"open(drawer)": True}, i % 10 > 2)
    pool = operators | {operator.schema: operator}
    goal = Goal.parse("open(drawer)")
    assert fast_downward(goal, START, pool).steps[0].schema == "open(drawer)"
    assert fast_downward(goal, START, pool, failed={"open(drawer)": 9}).steps[0].schema == operator.schema
