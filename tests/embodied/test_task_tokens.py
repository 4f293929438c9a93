"""The task model's language: whatever the automaton allows parses; the symbolic world judges as the planner does."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.language.symbolic_world import SymbolicWorld, random_start, tabletop
from embodied.language.task_plans import Task, flat, kept_as_macro, may_begin, shortened
from embodied.language.task_tokens import (
    END,
    MACROS,
    NOT,
    PLAN,
    TOKENS,
    Automaton,
    Follower,
    goal_tokens,
    left_padded,
    literal_tokens,
    plan_automaton,
    plan_tokens,
    prompt_tokens,
    read_plan,
    text_of,
    token,
)
from embodied.planning.operators import Operator
from embodied.training.symbolic_tasks import Tasks, heldout_chains, heldout_tasks
from envs.goals import Goal, GoalError, Literal, schema_of


@pytest.fixture(scope="module")
def world() -> SymbolicWorld:
    return SymbolicWorld(tabletop())


def test_a_prompt_says_no_more_than_it_must(world: SymbolicWorld):
    facts = {"closed(drawer)": True, "lit(lamp)": False, "at(red, left)": True, "placed(red, left)": True,
             "clear(red)": True, "holding(blue)": True, "lifted(blue)": True, "next_to(red, blue)": True}  # fmt: skip
    goal = Goal.parse("inside(red, drawer) & left_of(red, blue) ; not lit(lamp)")
    task = Task(frozenset(k for k, v in facts.items() if v), goal, (), ("lifted",))
    said = "<facts> closed lifted blue at red left next_to"
    assert text_of(prompt_tokens(facts, goal)) == f"{said} <goal> inside red left_of red ; not lit <plan>"
    steps = [Goal.parse("open(drawer)"), Goal.parse("on(red, cabinet)")]
    assert text_of(kept_as_macro(task, steps, "m2").prompt()).startswith(
        f"{said} <lack> lifted <macro> m2 open on red cabinet <goal>"
    )
    assert text_of(left_padded([[5], [6, 7]]).ravel()) == text_of([5, 6, 7])
    with pytest.raises(GoalError, match="names a thing twice"):
        literal_tokens(Literal("on", ("red", "red")))


def test_every_skill_is_read_back_and_no_step_begins_another(world: SymbolicWorld):
    goals = {tuple(plan_tokens([goal])[:-1]): goal for goal in world.goals}
    assert len(goals) == len(world)
    assert not any(a != b and b[: len(a)] == a for a in goals for b in goals)
    plan = [*world.goals, "m3"]
    assert read_plan(plan_tokens(plan), goals) == plan
    for wrong in ([token("on"), END], [token("open")], [token("red"), END]):
        with pytest.raises(GoalError, match="is not a plan"):
            read_plan(wrong, goals)


def test_whatever_a_follower_allows_is_a_plan_of_the_allowed_skills(world: SymbolicWorld):
    allowed = frozenset(goal for goal in world.goals if "blue" not in str(goal))
    rng, n = np.random.default_rng(0), 200
    shut = Goal.parse("closed(drawer)")
    task = kept_as_macro(Task(frozenset(), shut, (), ("placed",)), [shut], "m1")
    follower = Follower(plan_automaton(allowed), n, np.repeat(may_begin(task)[None], n, 0), most=5)
    rows = []
    while not follower.finished.all():
        mask = follower.mask() | follower.finished[:, None]
        said = np.array([rng.choice(np.flatnonzero(row)) for row in mask]) * ~follower.finished
        follower.take(said)
        rows.append(said)
    goals = {tuple(plan_tokens([goal])[:-1]): goal for goal in allowed}
    plans = [read_plan(row, goals) for row in np.stack(rows, 1)]
    assert max(map(len, plans)) == 5
    assert {step for plan in plans for step in plan} == {
        "m1", *(goal for goal in allowed if goal.final[0].predicate != "placed"),
    }  # fmt: skip


def test_without_a_skill_for_the_lamp_nothing_is_negated():
    task = Task(frozenset(), Goal.parse("open(drawer)"), (), ("lit",))
    assert not may_begin(task)[[NOT, token("lit"), token(MACROS[0])]].any()


def test_sequences_may_begin_one_another_where_each_is_said_once():
    texts = ["lit(lamp)", "lit(lamp) & open(drawer)", "open(drawer)"]
    words = {tuple(goal_tokens(Goal.parse(text))) for text in texts}
    follower = Follower(Automaton(words, repeat=False, end=PLAN), 1)
    assert set(np.flatnonzero(follower.mask()[0])) == {token("lit"), token("open")}
    follower.take(np.array([token("lit")]))
    assert set(np.flatnonzero(follower.mask()[0])) == {token("open"), PLAN}
    assert len(TOKENS) == len(set(TOKENS))


@pytest.mark.parametrize(
    ("facts", "goal", "steps"),
    [
        ("closed(drawer)", "closed(drawer) & inside(red, drawer)",
         ["open(drawer)", "inside(red, drawer)", "closed(drawer)"]),
        ("open(drawer) on(red, blue)", "lifted(blue)", ["*", "lifted(blue)"]),
        ("closed(drawer) inside(red, drawer)", "on(red, cabinet)", ["open(drawer)", "on(red, cabinet)"]),
        ("open(drawer) on(blue, cabinet)", "on(red, blue)", ["*", "on(red, blue)"]),
        ("open(drawer) at(blue, left)", "placed(red, left)", ["*", "placed(red, left)"]),
        ("open(drawer) lit(lamp)", "lifted(red) & not lit(lamp)", ["not lit(lamp)", "lifted(red)"]),
    ],
)  # fmt: skip
def test_the_tabletop_needs_what_the_tabletop_needs(world: SymbolicWorld, facts: str, goal: str, steps: list[str]):
    true = {f"{part})" for part in facts.replace(", ", ",").split(")") if part.strip()}
    true = {str(Literal.parse(atom)) for atom in true}
    covered = {atom.split(", ")[1][:-1] for atom in true if atom.startswith("on(")}
    state = world.state(true | {f"clear({b})" for b in ("red", "blue") if b not in covered})
    found = world.plan(Goal.parse(goal), state)
    assert [y for x, y in zip(steps, [s.goal for s in found.steps], strict=True) if x != "*"] == [
        x for x in steps if x != "*"
    ]
    plan = [world.skill(step.goal) for step in found.steps]
    assert world.run(state[None], [Goal.parse(goal)], [plan]).success.all()
    assert not world.run(state[None], [Goal.parse(goal)], [plan[:-1]]).success.any()


def test_batches_are_judged_row_by_row_and_stages_in_order(world: SymbolicWorld):
    start = world.state({"closed(drawer)", "clear(red)", "clear(blue)"})
    goals = [Goal.parse(t) for t in ("open(drawer) ; closed(drawer)", "closed(drawer) ; open(drawer)", "lit(lamp)")]
    both = [world.skill("open(drawer)"), world.skill("closed(drawer)")]
    states = np.repeat(start[None], 3, 0)
    assert world.run(states, goals, [both, both, both]).success.tolist() == [True, False, False]
    broken = [world.skill("inside(red, drawer)"), *both]
    verdict = world.run(states, goals, [broken, both[:1], [world.skill("lit(lamp)")] * 2])
    assert verdict.success.tolist() == [False, True, True]
    assert verdict.broke.tolist() == [0, -1, -1]
    assert world.facts(verdict.states[0]) == world.facts(start)
    lift = [world.skill("lifted(red)")]
    goals = [world.goals[lift[0]]] * 500
    many = world.run(np.repeat(start[None], 500, 0), goals, [lift] * 500, np.random.default_rng(0))
    assert 0.95 < many.success.mean() < 1.0


def test_operators_learnt_by_executing_the_true_ones_make_a_world_that_agrees(world: SymbolicWorld):
    tasks, rng = Tasks(world), np.random.default_rng(1)
    learnt: dict[str, Operator] = {}
    for _ in range(40):
        state = tasks.start(rng)
        states = np.repeat(state[None], len(world), 0)
        after, fine = world.step(states, np.arange(len(world)))
        before = dict.fromkeys(world.facts(state), True)
        for k, goal in enumerate(world.goals):
            end = dict.fromkeys(world.facts(after[k]), True)
            learnt.setdefault(schema_of(goal), Operator(schema_of(goal))).observe(goal, before, end, bool(fine[k]))
    found = SymbolicWorld({name: Operator.from_dict(o.to_dict()) for name, o in learnt.items()})
    assert found.goals == world.goals
    exam = heldout_tasks(tasks, (1, 2), 20, 5)
    for task in (task for rows in exam.values() for task in rows):
        plan = found.plan(task.goal, found.state(task.facts))
        skills = [found.skill(step.goal) for step in plan.steps]
        assert found.run(found.state(task.facts)[None], [task.goal], [skills]).success.all()
    assert len(SymbolicWorld({})) == 0


def test_tasks_can_be_done_are_as_deep_as_they_say_and_are_not_drawn_again(world: SymbolicWorld):
    exam = heldout_tasks(Tasks(world), (1, 3), 6, 11)
    assert exam == heldout_tasks(Tasks(world), (1, 3), 6, 11)
    for depth, rows in exam.items():
        assert len({task.key for task in rows}) == 6
        for task in rows:
            steps = world.plan(task.goal, world.state(task.facts)).steps
            assert len(steps) == depth
            assert world.run(world.state(task.facts)[None], [task.goal], [[world.skill(s.goal) for s in steps]]).success
    keys = {task.key for rows in exam.values() for task in rows}
    again = Tasks(world, keys, {Goal.parse("lit(lamp)")})
    rng = np.random.default_rng(11)
    drawn = [again.task(rng, int(rng.integers(1, 4))) for _ in range(60)]
    assert not keys & {task.key for task in drawn}
    assert Goal.parse("lit(lamp)") not in {task.goal for task in drawn}


def test_a_chains_second_task_asks_for_what_the_first_did(world: SymbolicWorld):
    for chain in heldout_chains(Tasks(world), 4, 3):
        assert set(chain.first.goal.literals) <= set(chain.second.goal.literals)
        steps = [Goal.parse("open(drawer)"), Goal.parse("lit(lamp)")]
        task = kept_as_macro(chain.second, steps, "m1")
        assert flat(["m1", steps[0]], task) == [*steps, steps[0]]


def test_what_was_done_is_a_plan_for_what_it_reached_and_is_shortened(world: SymbolicWorld):
    tasks, rng = Tasks(world), np.random.default_rng(2)
    texts = ("open(drawer)", "inside(red, drawer)", "lit(lamp)", "closed(drawer)", "on(blue, red)")
    steps = [Goal.parse(text) for text in texts]
    facts = frozenset({"closed(drawer)", "clear(red)", "clear(blue)"})
    meant = Task(facts, Goal.parse("on(blue, red)"))
    drawn = [found for _ in range(12) if (found := tasks.hindsight(rng, meant, steps)) is not None]
    assert len(drawn) > 3
    for task, done in drawn:
        assert done == steps[:4]  # the fifth cannot be done
        skills = [world.skill(goal) for goal in shortened(world, task, done)]
        state = world.state(facts)[None]
        assert world.run(state, [task.goal], [skills]).success.all()
        assert not any(
            world.run(state, [task.goal], [skills[:i] + skills[i + 1 :]]).success.all() for i in range(len(skills))
        )
    assert tasks.hindsight(rng, meant, steps[:1] * 5) is None


def test_starts_are_drawn_from_the_seed_alone():
    one, two = (random_start(np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert all(str(Literal.parse(fact)) == fact for fact in one)
