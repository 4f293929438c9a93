"""Operators learnt from counts on a small symbolic table-top with noise, and plans over them."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.planning.operators import Operator, OperatorError
from embodied.planning.search import Plan, plan
from embodied.planning.separation import precondition
from envs.goals import Goal, all_ground_goals, impossible_reason, schema_of

PRACTISED = all_ground_goals()
OTHER = {"red": "blue", "blue": "red"}


@dataclass(frozen=True)
class Table:
    """The true world: where each block is (table, anywhere, cabinet, drawer, hand, or the block below)."""

    red: str = "table"
    blue: str = "table"
    drawer: str = "closed"  # or "half", "open"
    lit: bool = False
    beside: str = ""  # a relation such as "left_of(red, blue)" between blocks on the table

    def where(self, block: str) -> str:
        return self.red if block == "red" else self.blue

    def move(self, block: str, to: str, beside: str = "") -> Table:
        return replace(self, **{block: to}, beside=beside)  # type: ignore[arg-type]

    def facts(self) -> dict[str, bool]:
        truth = {"open(drawer)": self.drawer == "open", "closed(drawer)": self.drawer == "closed"}
        truth["lit(lamp)"] = self.lit
        for a, b in OTHER.items():
            where = self.where(a)
            truth |= {f"{name}({a})": where == "hand" for name in ("holding", "lifted", "touching")}
            truth[f"clear({a})"] = self.where(b) != a
            truth[f"on({a}, {b})"] = where == b
            truth[f"on({a}, cabinet)"] = where == "cabinet"
            truth[f"inside({a}, drawer)"] = where == "drawer"
            truth[f"placed({a}, anywhere)"] = where == "anywhere"
            for name in ("left_of", "in_front_of", "next_to"):
                truth[f"{name}({a}, {b})"] = self.beside == f"{name}({a}, {b})"
        return truth

    def after(self, goal: Goal) -> Table | None:
        """What a skill makes of the world when all goes well; None where it cannot work."""
        literal = goal.final[0]
        name, block = literal.predicate, literal.args[0]
        busy = [b for b in OTHER if self.where(b) == "hand"]
        if name in ("open", "closed"):
            return None if busy else replace(self, drawer=name)
        if name == "lit":
            return replace(self, lit=literal.positive)
        if (busy and busy != [block]) or self.where(OTHER[block]) == block:
            return None
        if self.where(block) == "drawer" and self.drawer != "open":
            return None
        if name == "lifted":
            return self.move(block, "hand")
        if name == "placed":
            return self.move(block, "anywhere")
        if name == "inside":
            return self.move(block, "drawer") if self.drawer == "open" else None
        base = literal.args[1]
        if name == "on":
            return None if base in OTHER and self.where(base) in ("drawer", "hand") else self.move(block, base)
        if self.where(base) not in ("table", "anywhere"):
            return None
        return self.move(block, "table", str(literal))

    def attempt(self, goal: Goal, rng: np.random.Generator) -> tuple[Table, bool]:
        """One noisy execution."""
        reached = self.after(goal)
        if reached is None or rng.random() < 0.15:
            held = [b for b in OTHER if self.where(b) == "hand"]
            return (self.move(held[0], "table") if held and rng.random() < 0.3 else self), False
        if goal.final[0].predicate == "lit" and rng.random() < 0.1:
            for block in OTHER:  # a held block is sometimes dropped on the way
                reached = reached.move(block, "table") if reached.where(block) == "hand" else reached
        return reached, True


def random_table(rng: np.random.Generator) -> Table:
    table = Table(drawer=str(rng.choice(["closed", "half", "open"])), lit=bool(rng.integers(2)))
    for _ in range(int(rng.integers(4))):
        table = table.after(PRACTISED[int(rng.integers(len(PRACTISED)))]) or table
    return table


@cache
def learnt(executions: int = 3500, seed: int = 0) -> dict[str, Operator]:
    """Operators from chains of random skills."""
    rng = np.random.default_rng(seed)
    operators = {schema_of(goal): Operator(schema_of(goal)) for goal in PRACTISED}
    table = random_table(rng)
    for i in range(executions):
        if i % 6 == 0:
            table = random_table(rng)
        goal = PRACTISED[int(rng.integers(len(PRACTISED)))]
        after, success = table.attempt(goal, rng)
        operators[schema_of(goal)].observe(goal, table.facts(), after.facts(), success)
        table = after
    return operators


def holds(goal: Goal, table: Table) -> bool:
    return all(literal.holds(table.facts()) for literal in goal.final)


def feasible(goal: Goal, start: Table) -> bool:
    """Breadth-first search in the true world, where nothing fails."""
    seen, queue = {start}, deque([start])
    while queue:
        table = queue.popleft()
        if holds(goal, table):
            return True
        for skill in PRACTISED:
            following = table.after(skill)
            if following is not None and following not in seen:
                seen.add(following)
                queue.append(following)
    return False


def carry_out(found: Plan, table: Table) -> Table | None:
    for step in found.steps:
        following = table.after(Goal.parse(step.goal))
        if following is None:
            return None
        table = following
    return table


def random_goal(rng: np.random.Generator) -> Goal:
    while True:
        chosen = rng.choice(len(PRACTISED), size=int(rng.integers(2, 4)), replace=False)
        literals = [PRACTISED[int(i)].final[0] for i in chosen]
        if not any(literal.negated in literals for literal in literals):
            goal = Goal.of(*literals)
            if impossible_reason(goal) is None:
                return goal


def test_plans_over_learnt_operators_reach_nearly_every_feasible_goal() -> None:
    rng = np.random.default_rng(1)
    operators = learnt()
    solved, tried, slowest = 0, 0, 0.0
    plan(Goal.parse("lit(lamp)"), {}, operators)  # the counts are digested once
    while tried < 200:
        goal, table = random_goal(rng), random_table(rng)
        if not feasible(goal, table) or holds(goal, table):
            continue
        began = time.perf_counter()
        found = plan(goal, table.facts(), operators)
        slowest = max(slowest, time.perf_counter() - began)
        tried += 1
        end = carry_out(found, table) if found.found else None
        solved += end is not None and holds(goal, end)
    assert solved >= 0.95 * tried
    assert slowest < 0.5  # usually below 0.02 s; the margin is for a machine under load


def test_order_within_a_conjunction() -> None:
    operators = learnt()
    start = Table()
    texts = [s.goal for s in plan(Goal.parse("inside(red, drawer) & closed(drawer)"), start.facts(), operators).steps]
    assert texts == ["open(drawer)", "inside(red, drawer)", "closed(drawer)"]
    texts = [s.goal for s in plan(Goal.parse("on(red, blue) & on(blue, cabinet)"), start.facts(), operators).steps]
    assert texts == ["on(blue, cabinet)", "on(red, blue)"]


def test_stages_are_met_in_order() -> None:
    found = plan(Goal.parse("open(drawer) ; closed(drawer) ; open(drawer)"), Table().facts(), learnt())
    assert [step.goal for step in found.steps] == ["open(drawer)", "closed(drawer)", "open(drawer)"]
    found = plan(Goal.parse("lit(lamp) ; not lit(lamp) & on(blue, cabinet)"), Table().facts(), learnt())
    assert found.steps[0].goal == "lit(lamp)" and len(found.steps) == 3
    assert 0.3 < found.probability < 0.9


def test_a_goal_that_holds_needs_no_steps() -> None:
    found = plan(Goal.parse("closed(drawer) & not lit(lamp)"), Table().facts(), learnt())
    assert found == Plan((), 1.0) and found.found


def test_what_cannot_be_planned_is_explained_at_once() -> None:
    operators = learnt()
    few = {schema: operators[schema] for schema in ("open(drawer)", "lit(lamp)", "inside(?a:block, drawer)")}
    facts = Table().facts()
    cases = [
        ("on(red, blue) & on(blue, red)", operators, "impossible because"),
        ("on(red, cabinet)", few, "I have no skill that achieves on(red, cabinet)"),
        ("lit(lamp) ; closed(drawer) ; on(red, blue)", few, "no skill that achieves on(red, blue)"),
        (
            "inside(red, drawer)",
            {k: v for k, v in few.items() if k != "open(drawer)"},
            "only when open(drawer) holds",
        ),
        ("lit(lamp)", {}, "I have no skill that achieves lit(lamp)"),
    ]
    for text, pool, naming in cases:
        found = plan(Goal.parse(text), facts, pool)
        assert not found.found and found.steps == () and found.probability == 0.0
        assert naming in found.explanation and "\n" not in found.explanation
    cyclic = plan(Goal.parse("inside(red, drawer) & lifted(red) ; lit(lamp)"), facts, operators)
    assert "impossible because" in cyclic.explanation
    tight = plan(Goal.parse("inside(red, drawer) & closed(drawer)"), facts, operators, limit=1)
    assert "no plan within 1" in tight.explanation


def test_withheld_groundings_are_not_used() -> None:
    goal = Goal.parse("on(red, cabinet)")
    refused = plan(goal, Table().facts(), learnt(), allowed=lambda g: "red" not in str(g))
    assert "no skill" in refused.explanation
    assert plan(goal, Table().facts(), learnt(), allowed=lambda g: g == goal).found


def test_plans_are_deterministic_and_counts_survive_json() -> None:
    restored = {
        schema: Operator.from_dict(json.loads(json.dumps(operator.to_dict()))) for schema, operator in learnt().items()
    }
    assert all(restored[schema] == operator for schema, operator in learnt().items())
    rng = np.random.default_rng(3)
    for _ in range(20):
        goal, facts = random_goal(rng), random_table(rng).facts()
        shuffled = dict(reversed(list(restored.items())))
        assert plan(goal, facts, learnt()) == plan(goal, [k for k, v in facts.items() if v], shuffled)
    with pytest.raises(OperatorError, match="cannot be read"):
        Operator.from_dict({"schema": "open(drawer)"})


def test_learnt_preconditions_effects_and_lessons() -> None:
    operators = learnt()
    inside = operators["inside(?a:block, drawer)"].model
    assert "open(drawer)" in inside.precondition and len(inside.precondition) <= 3
    lifted = operators["lifted(?a:block)"].model
    assert {"holding(?a)", "lifted(?a)"} <= set(lifted.add)
    assert {"on(?a, ?b)", "inside(?a, drawer)", "on(?a, cabinet)"} <= set(lifted.delete)
    bound = operators["lifted(?a:block)"].ground(Goal.parse("lifted(blue)"))
    assert "on(blue, red)" in bound.delete and "holding(blue)" in bound.add
    lamp = operators["lit(lamp)"]
    assert lamp.model.precondition == ()
    off = lamp.ground(Goal.parse("not lit(lamp)"))
    assert "lit(lamp)" in off.delete and "lit(lamp)" not in off.add
    assert 0.75 < off.probability < 0.92  # the truth is 0.85


def test_what_is_often_lost_is_done_first_or_kept() -> None:
    """The lamp's button costs a held block in a third of the cases: switch first, then lift."""
    lamp, lift = Operator("lit(lamp)"), Operator("lifted(?a:block)")
    for i in range(60):
        held = {"lifted(red)": i % 2 == 0, "lit(lamp)": False}
        lamp.observe(Goal.parse("lit(lamp)"), held, held | {"lit(lamp)": True, "lifted(red)": i % 6 in (0, 2)}, True)
        lift.observe(Goal.parse("lifted(red)"), {}, {"lifted(red)": True}, True)
    assert "lifted(red)" not in lamp.model.delete
    found = plan(Goal.parse("lifted(red) & lit(lamp)"), {}, [lift, lamp])
    assert [step.goal for step in found.steps] == ["lit(lamp)", "lifted(red)"]
    goal = Goal.parse("lifted(red) & lit(lamp)")  # without `allowed` it could swap red for blue, and come back
    held = plan(goal, ["lifted(red)"], [lift, lamp], allowed=lambda skill: "blue" not in str(skill))
    assert [step.goal for step in held.steps] == ["lit(lamp)"] and held.probability < 0.75 < found.probability


def test_what_failed_here_again_and_again_is_not_insisted_on() -> None:
    direct, detour = Operator("open(drawer)"), Operator("lit(lamp) & open(drawer)")
    reached = {"open(drawer)": True, "lit(lamp)": True}
    for i in range(20):
        direct.observe(Goal.parse("open(drawer)"), {"clear(red)": True}, reached, i % 10 > 0)
        detour.observe(Goal.parse("lit(lamp) & open(drawer)"), {}, reached, i % 10 > 3)
    here = {"closed(drawer)": True, "clear(red)": True}
    chosen = []
    for _ in range(6):
        step = plan(Goal.parse("open(drawer)"), here, [direct, detour]).steps[0]
        chosen.append(step.schema)
        if step.schema == "open(drawer)":
            direct.observe(Goal.parse("open(drawer)"), here, here, False)
    assert chosen[0] == "open(drawer)" and chosen[-1] == "lit(lamp) & open(drawer)"
    elsewhere = plan(Goal.parse("open(drawer)"), {"clear(red)": True}, [direct, detour])
    assert elsewhere.steps[0].schema == "open(drawer)"


def test_what_failed_a_moment_ago_is_come_at_another_way() -> None:
    place, lift = Operator("placed(?a:block, ?p:place)"), Operator("lifted(?a:block)")
    for i in range(40):
        start = {"clear(red)": True}
        place.observe(Goal.parse("placed(red, left)"), start, start | {"placed(red, left)": True}, i % 10 > 0)
        lift.observe(Goal.parse("lifted(red)"), start, start | {"lifted(red)": True, "holding(red)": True}, i > 0)
    goal, facts = Goal.parse("placed(red, left)"), ["clear(red)"]
    first, second = (
        [step.goal for step in plan(goal, facts, [place, lift], failed=failed).steps]
        for failed in ({}, {"placed(red, left)": 1})
    )
    assert first == ["placed(red, left)"] and second == ["lifted(red)", "placed(red, left)"]


def test_a_failing_context_that_no_conjunction_can_say_becomes_a_lesson() -> None:
    """Lifting fails from the drawer while it is closed, and only then: not a conjunction of needs."""
    rng = np.random.default_rng(0)
    operator = Operator("lifted(?a:block)")
    for _ in range(200):
        block = str(rng.choice(["red", "blue"]))
        inside, is_open = rng.random() < 0.4, rng.random() < 0.4
        start = {f"inside({block}, drawer)": bool(inside), "open(drawer)": bool(is_open)}
        works = not start[f"inside({block}, drawer)"] or start["open(drawer)"]
        success = bool(works and rng.random() < 0.9)
        operator.observe(Goal.parse(f"lifted({block})"), start, start | {f"lifted({block})": success}, success)
    lessons = operator.model.lessons
    assert [set(lesson.literals) for lesson in lessons] == [{"inside(?a, drawer)", "not open(drawer)"}]
    opening = learnt()["open(drawer)"]
    found = plan(Goal.parse("lifted(blue)"), ["inside(blue, drawer)"], [operator, opening])
    assert [step.goal for step in found.steps] == ["open(drawer)", "lifted(blue)"]
    assert not plan(Goal.parse("lifted(blue)"), ["inside(blue, drawer)"], [operator]).found


def test_what_a_goal_excludes_of_another_block_is_cleared_away_first() -> None:
    """Never seen beside a block in the drawer, the skill is not imagined to fetch that one out."""
    beside, lift = Operator("left_of(?a:block, ?b:block)"), Operator("lifted(?a:block)")
    for block, other in (("red", "blue"), ("blue", "red")):
        for _ in range(20):
            done = {f"left_of({block}, {other})": True}
            beside.observe(Goal.parse(f"left_of({block}, {other})"), {f"inside({block}, drawer)": True}, done, True)
            lift.observe(
                Goal.parse(f"lifted({block})"), {f"inside({block}, drawer)": True}, {f"lifted({block})": True}, True
            )
    goal = Goal.parse("left_of(red, blue)")
    assert [step.goal for step in plan(goal, ["inside(red, drawer)"], [beside, lift]).steps] == ["left_of(red, blue)"]
    steps = [step.goal for step in plan(goal, ["inside(blue, drawer)"], [beside, lift]).steps]
    assert steps[0] in ("lifted(blue)", "left_of(blue, red)") and steps[1:] == ["left_of(red, blue)"]


def test_forbidden_contexts_are_respected() -> None:
    operator = Operator.from_dict(learnt()["closed(drawer)"].to_dict())
    goal = Goal.parse("closed(drawer)")
    facts = Table(drawer="open", red="cabinet").facts()
    assert plan(goal, facts, [operator]).found
    operator.forbid(goal, ["on(red, cabinet)"], "it falls off")
    assert not plan(goal, facts, [operator]).found
    assert plan(goal, Table(drawer="open").facts(), [operator]).found


def test_a_start_that_already_reaches_the_goal_teaches_nothing() -> None:
    operator = Operator("lit(lamp)")
    goal = Goal.parse("not lit(lamp)")
    operator.observe(goal, {"lit(lamp)": False}, {"lit(lamp)": False}, True)
    assert operator.trivial == 1 and not operator.starts
    with pytest.raises(OperatorError, match="no goal of the schema"):
        operator.observe(Goal.parse("open(drawer)"), {}, {}, True)
    assert operator.ground(goal).probability == 0.5  # no evidence


def test_one_colour_may_be_harder() -> None:
    operator = Operator("lifted(?a:block)")
    for block, rate in (("red", 10), ("blue", 4)):
        for i in range(20):
            operator.observe(Goal.parse(f"lifted({block})"), {}, {f"lifted({block})": True}, i % 10 < rate)
    red, blue = (operator.ground(Goal.parse(f"lifted({b})")).probability for b in ("red", "blue"))
    assert red > 0.85 and 0.35 < blue < 0.6


@pytest.mark.parametrize("size", range(4))
def test_separation_finds_the_conjunction_and_nothing_in_noise(size: int) -> None:
    """A true conjunction of ``size`` of 12 facts, 300 executions, success 0.9 inside and 0.05 outside it."""
    order = [(i, sign) for sign in (True, False) for i in range(12)]
    for seed in range(40):  # fixed: about one draw in a thousand misleads
        rng = np.random.default_rng((seed, size))
        starts = rng.random((300, 12)) < 0.6
        needed = sorted(int(i) for i in rng.choice(12, size=size, replace=False))
        success = rng.random(300) < np.where(starts[:, needed].all(1), 0.9, 0.05)
        found = precondition(starts, success.astype(np.int64), (~success).astype(np.int64), order)
        assert len(found) <= min(3, size + 1)
        assert {i for i, sign in found if sign} >= set(needed)


@given(st.permutations(range(40)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_observation_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(5)
    rows = []
    for _ in range(40):
        table = random_table(rng)
        goal = Goal.parse(f"lifted({rng.choice(['red', 'blue'])})")
        after, success = table.attempt(goal, rng)
        rows.append((goal, table.facts(), after.facts(), success))
    one, other = Operator("lifted(?a:block)"), Operator("lifted(?a:block)")
    for i in range(40):
        one.observe(*rows[i])
        other.observe(*rows[order[i]])
    assert one.to_dict() == other.to_dict() and one.model == other.model
