"""Instructions carried out on physics, with a scripted expert for skills, and the exam on them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied.evaluation import heldout
from embodied.planning.execute import Step, carry_out, draw_starts, make_env, step_budget
from embodied.repertoire import Repertoire
from envs.goals import Goal, parse_instruction, schema_of
from envs.monitor import truth_table
from envs.playroom.oracle import ScriptedOracle
from envs.step import L_LAMP
from policies.random import RandomPolicy

SCHEMAS = tuple(
    schema_of(Goal.parse(text))
    for text in ("open(drawer)", "closed(drawer)", "lit(lamp)", "placed(red, left)", "inside(red, drawer)")
)


class OracleSkill:
    """Acts by the scripted expert on the environment it is bound to; idle for its first ``idle`` steps."""

    def __init__(self, idle: int = 0):
        self.idle, self.calls = idle, 0

    def bind(self, env):
        self.oracle = ScriptedOracle(env)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        action = self.oracle.act()
        if self.calls <= self.idle:
            action[:] = 0
        return action, state


def by_literal(state, rest, failed):
    """A plan for tests: the literals in order, the drawer opened before something goes in, and shut last."""
    steps = []
    for stage in rest.stages:
        if all(literal.holds(state) for literal in stage):
            continue
        for literal in sorted(stage, key=lambda x: (x.predicate == "closed", x)):
            if literal.predicate == "inside" and not state["open(drawer)"]:
                steps.append("open(drawer)")
            steps.append(str(literal))
    return [Step(schema_of(Goal.parse(text)), text) for text in steps]


def perform(instructions, *, plan=by_literal, seed=0, idle=0, **options):
    """`carry_out` with expert skills; ``idle`` makes the one for the lamp useless at first."""
    skills = {schema: OracleSkill(idle if "lit" in schema else 0) for schema in SCHEMAS}
    env = make_env(skills, len(instructions), 1)
    for skill in skills.values():
        skill.bind(env)
    goals = [Goal.parse(text) for text in instructions]
    result = carry_out(goals, skills, plan, seed, env=env, **options)
    env.close()
    return result


def test_plans_run_as_options_and_the_facts_before_and_after_each_are_kept():
    texts = ["closed(drawer) & inside(red, drawer)", "lit(lamp) ; placed(blue, near)"]
    (first, second), taken = perform(texts)
    assert first.success
    assert second.success
    goals = [option.goal for option in first.options]
    assert goals[-2:] == ["inside(red, drawer)", "closed(drawer)"]
    assert all(option.success for option in (*first.options, *second.options))
    for option in first.options:
        assert not option.start[option.goal]
        assert option.end[option.goal]
        assert option.steps <= 120
    assert first.holds == {"closed(drawer)": True, "inside(red, drawer)": True}
    assert taken == first.steps + second.steps
    assert (first.replans, first.reason) == (0, "")


def test_a_skill_that_runs_out_of_time_is_a_failure_and_the_rest_is_planned_anew():
    (late,), _ = perform(["lit(lamp) & placed(red, near)"], idle=60, option_steps=60, replans=2)
    assert [option.success for option in late.options if option.goal == "lit(lamp)"] == [False, True]
    assert (late.success, late.replans, len(late.plans)) == (True, 1, 2)
    (never,), steps = perform(["lit(lamp)"], idle=10_000, option_steps=15, replans=1)
    assert (never.success, never.reason, never.replans) == (False, "no plan left to try", 1)
    assert steps == never.steps == 30
    assert never.holds == {"lit(lamp)": False}


def test_without_a_plan_nothing_is_done_and_the_reason_is_kept():
    outcomes, taken = perform(["lit(lamp)"] * 2, plan=lambda *_: "I have no skill for that")
    assert [outcome.reason for outcome in outcomes] == ["I have no skill for that"] * 2
    assert taken == 0
    (unknown,), _ = perform(["lit(lamp)"], plan=lambda *_: [Step("lifted(?a:block)", "lifted(red)")])
    assert unknown.reason == "no skill takes the goal lifted(red)"
    (blind,), steps = perform(["lit(lamp)"], plan=lambda *_: [], replans=1)
    assert (blind.success, blind.replans, steps) == (False, 0, 15)
    assert "looked done" in blind.reason


def test_a_block_that_already_stands_there_still_has_to_be_carried():
    """The judge of ``placed`` asks for carrying, so the planner is told the same."""
    text = "placed(red, near)"
    env = make_env((), 1, 1)
    env.reset(seed=1)
    state = env.get_state()
    env.simulation.qpos[0, 9:12] = 0.38, 0.10, 0.0201  # red to the place "near", blue away from it
    env.simulation.qpos[0, 16:19] = 0.55, 0.16, 0.0201
    state[:, : env.simulation.state_size] = env.simulation.get_state(np.arange(1))
    env.close()
    seen = []
    plan = lambda facts, *rest: seen.append(facts[text]) or by_literal(facts, *rest)  # noqa: E731
    (outcome,), _ = perform([text], plan=plan, state=state)
    assert seen[0] is False
    assert outcome.options[0].start["at(red, near)"]
    assert outcome.success


def test_a_skill_that_moves_what_is_not_its_business_is_noted():
    def shove(env, running):
        if shove.steps == 3:
            env.simulation.qpos[0, 9:12] = 0.60, 0.02, 0.0201  # the red block, wherever it was
        shove.steps += 1

    shove.steps = 0
    env = make_env((), 1, 1)
    env.reset(seed=1)
    env.simulation.qpos[0, 9:12] = 0.40, 0.15, 0.0201
    env.simulation.qpos[0, 16:19] = 0.50, 0.10, 0.0201
    env.latches[0, L_LAMP] = 0.0
    state = env.get_state()
    env.close()
    calm, rude = (perform(["lit(lamp)"], state=state, on_step=hook)[0][0].options[0] for hook in (None, shove))
    assert (calm.success, calm.disturbed) == (True, False)
    assert (rude.success, rude.disturbed) == (True, True)


def test_outcomes_are_the_same_bits_and_do_not_depend_on_the_neighbours():
    texts = ["closed(drawer) & lit(lamp)", "lit(lamp) & placed(blue, near)"]
    one, _ = perform(texts, seed=5)
    same, _ = perform(texts, seed=5)
    alone, _ = perform(texts[:1], seed=5)
    assert one == same
    assert one[0] == alone[0]


def test_starts_give_nothing_of_the_last_stage_away_but_the_drawer():
    asked = [question.goal for question in heldout.instructions() for _ in range(3)]
    env = make_env((), len(asked), 1)
    states = draw_starts(env, asked, seed=4)
    for i, goal in enumerate(asked):
        for literal in goal.final:
            if literal.args[0] != "drawer":
                literal = Goal.parse(str(literal).replace("placed", "at")).final[0]
                assert not truth_table(env.facts[i : i + 1], [literal])[0, 0], (i, str(literal))
    assert np.array_equal(states, draw_starts(env, asked, seed=4))
    env.close()


def test_the_held_out_instructions_are_forty_readable_sentences():
    asked = heldout.instructions()
    assert [sum(q.steps == depth for q in asked) for depth in (2, 3)] == [20, 20]
    for question in asked:
        assert parse_instruction(question.text) == question.goal
        assert len(question.goal.literals) == question.steps


def test_an_exam_has_every_row_from_the_same_starts(monkeypatch: pytest.MonkeyPatch):
    def with_experts(goals, skills, plan, seed, *, state, replans, threads, on_step):
        env = make_env(skills, len(goals), threads)
        for skill in skills.values():
            skill.bind(env)
        return carry_out(goals, skills, plan, seed, replans=replans, on_step=on_step, state=state, env=env)

    class Experts(Repertoire):
        def planner(self):
            return by_literal

    monkeypatch.setattr(heldout, "carry_out", with_experts)
    monkeypatch.setattr(heldout, "step_budget", lambda goal, replans: 200)
    wanted = ("closed(drawer) & inside(red, drawer)", "inside(blue, drawer) & lit(lamp)")
    asked = [question for question in heldout.instructions() if str(question.goal) in wanted]
    unreadable = heldout.Instruction("waltz with the lamp", Goal.parse("lit(lamp)"), 3)
    experts = Experts({schema: OracleSkill() for schema in SCHEMAS})
    found = heldout.exam(experts, None, 3, 2, threads=1, questions=[*asked, unreadable])
    assert list(found["rows"]) == ["loop", "random", "oracle"]
    loop, oracle = found["rows"]["loop"], found["rows"]["oracle"]
    assert (loop["successes"], loop["n"], oracle["successes"]) == (4, 6, 6)
    assert loop["rate"] == pytest.approx(2 / 3)
    assert loop["lower"] < loop["rate"] < loop["upper"]
    assert loop["by_steps"]["2"]["rate"] == 1.0
    assert loop["by_steps"]["3"]["successes"] == 0
    assert found["rows"]["random"]["by_steps"]["2"]["successes"] == 0
    assert "waltz" in next(iter(found["instructions"][-1]["reasons"]))
    assert found["instructions"][0]["successes"]["oracle"] == 2
    assert found["versions"]["mujoco"]
    assert json.loads(json.dumps(found)) == found
    rows = heldout.report_rows(found)
    assert {"method": "agent", "depth": 2, "successes": 4, "n": 4} in rows


def test_an_exam_without_skills_fails_with_reasons_and_play_has_a_row(monkeypatch: pytest.MonkeyPatch):
    from envs.observations import FEATURES

    monkeypatch.setattr(heldout, "step_budget", lambda goal, replans: 3)
    asked, ticks = heldout.instructions()[:2], []
    found = heldout.exam(
        Repertoire(), RandomPolicy(FEATURES, 5), 0, 1, threads=1, rows=("loop", "play"), questions=asked,
        tick=lambda: ticks.append(1),
    )  # fmt: skip
    assert [found["rows"][row]["successes"] for row in ("loop", "play")] == [0, 0]
    assert all("no skill" in reason for entry in found["instructions"] for reason in entry["reasons"])
    assert len(ticks) == 3
    with pytest.raises(heldout.ExamError, match="loop, play, random, oracle"):
        heldout.exam(Repertoire(), None, 0, rows=("human",))
    with pytest.raises(heldout.ExamError, match="at least 1"):
        heldout.exam(Repertoire(), None, 0, 0)


def test_the_step_budget_grows_with_the_instruction_and_the_replans():
    short, long = Goal.parse("lit(lamp)"), Goal.parse("lit(lamp) ; open(drawer)")
    assert step_budget(short, 0) < step_budget(long, 0) < step_budget(long, 1)
