"""The open-ended claim: what an arm is left without, the exam that no arm has practised, and what the rows say."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.cli.config import compose
from embodied.cli.schema import WITHOUT, RunConfig
from embodied.errors import ConfigError
from embodied.evaluation import openended_claims as claims
from embodied.evaluation import openended_exam as exams
from embodied.evaluation.claims import Context
from embodied.evaluation.heldout import instructions
from embodied.evaluation.openended_exam import Asked
from embodied.language.skill_plans import asked, planner_of
from embodied.language.symbolic_world import tabletop
from embodied.planning.operators import Operator
from embodied.repertoire import Repertoire, anywhere
from embodied.skills.library import SkillLibrary
from embodied.training import operator_learning
from embodied.training.families import EVERYTHING, family_of, repertoire_of, schemas
from embodied.training.kept import KeptStates
from embodied.training.rollouts import Trial
from embodied.training.rounds import Worker
from envs.goals import Goal, GoalError, all_ground_goals, impossible_reason, parse_instruction
from policies.random import RandomPolicy

EVERY = [str(goal) for goal in all_ground_goals()]


def worker(config: RunConfig) -> Worker:
    return Worker(config, None, None, lambda steps: None, lambda text: None)  # type: ignore[arg-type]


def able(goals: list[str], operators: dict[str, Operator] | None = None) -> Repertoire:
    """A repertoire that is admitted for goals, with the true operators where none are given."""
    known = tabletop() if operators is None else operators
    acts = {goal: schema for schema, found in schemas().items() for goal in found if goal in goals}
    return Repertoire({}, {}, {schema: known[schema] for schema in set(acts.values())}, acts)


# ---- what is left out


def test_nothing_is_left_out_unless_asked_for():
    default = compose(RunConfig, [])
    assert (default.without, default.candidates, default.threshold) == ([], 1, 0.8)
    gate = worker(default).gate_config
    assert (gate.threshold, gate.screen, gate.n, gate.confirm, gate.regression) == (0.8, 24, 200, 200, 100)
    assert not any(worker(default).lacks(part) for part in WITHOUT)
    assert family_of(default, "on(?a:block, ?b:block)") == "carry"
    assert planner_of(default.language, able(EVERY)).__qualname__ == "Repertoire.planner.<locals>.search"


def test_what_can_be_left_out_is_named_where_something_else_is():
    with pytest.raises(
        ConfigError, match=r"without = \[gate\] must name parts among: operators, relabeler, regression"
    ):
        compose(RunConfig, ["without=[gate]"])
    with pytest.raises(ConfigError, match=r"candidates = 3 must be in \[1, 2\]"):
        compose(RunConfig, ["candidates=3"])


def test_without_proof_two_episodes_admit_and_without_a_gate_none_need_succeed():
    quick = worker(compose(RunConfig, ["without=[proof]"])).gate_config
    assert (quick.threshold, quick.screen, quick.n, quick.confirm) == (0.2, 1, 1, 1)
    from embodied.skills.statistics import wilson

    assert wilson(0, 1)[0] < quick.threshold < wilson(1, 1)[0]
    assert worker(compose(RunConfig, ["use_gate=false"])).gate_config.threshold == 0.0


def test_without_skills_one_family_holds_every_goal():
    config = compose(RunConfig, ["without=[skills]"])
    assert {family_of(config, schema) for schema in schemas()} == {EVERYTHING}


@pytest.mark.parametrize(("part", "acting"), [("operators", 0), ("regression", 1), ("skills", 1)])
def test_without_regression_the_youngest_of_a_family_acts_whatever_it_forgot(tmp_path: Path, part: str, acting: int):
    goals = ("on(red, blue)", "inside(red, drawer)")
    with SkillLibrary.open(tmp_path / "library.sqlite", threshold=0.0) as library:
        versions = []
        for number, (of, rate) in enumerate((((goals), 90), ((goals[1:]), 20))):
            RandomPolicy(4, 2, number).save_pretrained(tmp_path / f"policy{number}")
            with library.round(number) as tx:
                for goal in of:
                    made = {"executed": {goal: [rate, 100]}}
                    schema = next(schema for schema, found in schemas().items() if goal in found)
                    skill = tx.add_skill(schema, tmp_path / f"policy{number}", provenance=made)
                    for offset, purpose in enumerate(("gate", "confirm")):
                        tx.add_evidence(skill.version, purpose, report(goal, 10 * number + offset))
                versions.append(skill.artifact)  # the last one's: all of a round are alike
                tx.seal(ledger_offset=0, store_offsets={})
        found = repertoire_of(compose(RunConfig, [f"without=[{part}]"]), library, {})
        for goal in goals:
            assert library.skill(found.versions[found.acts[goal]]).artifact == versions[acting]


def report(goal: str, seed: int) -> Any:
    from embodied.core import EvalReport

    return EvalReport(goal, "", seed, np.ones(4, bool))


def test_without_operators_no_experiment_is_made_and_the_goal_is_all_that_is_known(monkeypatch: pytest.MonkeyPatch):
    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("an experiment was made")

    monkeypatch.setattr(operator_learning, "experiment", none)
    measured = [type("Run", (), {"report": report("open(drawer)", 3)})()]
    monkeypatch.setattr(operator_learning, "measure_all", lambda *_, **__: measured)
    trial = Trial("open(drawer)", 4, 0)
    operator, executed = operator_learning.learn_operator(
        RandomPolicy(4, 2), "open(drawer)", [trial], KeptStates(), declared=True
    )
    assert executed == {"open(drawer)": [4, 4]}
    bound = operator.ground(Goal.parse("open(drawer)"))
    assert (bound.needs, bound.add, operator.counts()) == (frozenset(), {"open(drawer)"}, [])


def test_without_a_relabeler_nothing_is_relabelled():
    worker(compose(RunConfig, ["without=[relabeler]"])).relabel([object()])  # type: ignore[list-item]


def test_a_planner_that_is_asked_names_the_skills_of_the_repertoire():
    from embodied.language.grammar import GrammarModel

    repertoire, heard = able(["lit(lamp)", "not lit(lamp)", "open(drawer)"]), list[str]()
    plan = asked(GrammarModel(repertoire.operators), repertoire, heard.append)
    steps = plan({"closed(drawer)": True, "lit(lamp)": False}, Goal.parse("lit(lamp)"), {})
    assert not isinstance(steps, str)
    assert [(step.schema, step.goal) for step in steps] == [("lit(lamp)", "lit(lamp)")]
    assert plan({}, Goal.parse("lifted(red)"), {}) == "I have no skill that achieves lifted(red)"
    assert heard == ["", ""]


# ---- the exam


def test_the_frozen_exam_is_what_is_drawn_and_holds_what_it_says():
    exam = exams.frozen()
    again = exams.draw()
    assert (again.impossible, again.alike) == (exam.impossible, exam.alike)
    assert [sum(q.about == str(d) for q in exam.deep) for d in exams.DEPTHS] == [10] * 6
    for rows in (exam.impossible, exam.alike):
        assert [sum(q.about == kind for q in rows) for kind in exams.KINDS] == [16] * 3
    for question in (*exam.deep, *exam.alike):
        assert parse_instruction(question.text) == question.goal
        assert question.goal is not None
        assert impossible_reason(question.goal) is None
    for question in exam.impossible:
        if question.about == "stranger":
            with pytest.raises(GoalError):
                parse_instruction(question.text)
        else:
            assert parse_instruction(question.text) == question.goal
            assert question.goal is not None
            assert (impossible_reason(question.goal) is None) == (question.about == "unreachable")
    assert exam.shortened(2).deep == tuple(q for d in range(6) for q in exam.deep[10 * d : 10 * d + 2])
    assert exam.digest == dataclasses.replace(exam).digest != exam.shortened(2).digest


def test_no_instruction_of_the_exam_can_be_practised_or_is_held_out_already():
    exam, held_out = exams.frozen(), {item.goal for item in instructions()}
    goals = [question.goal for question in (*exam.deep, *exam.alike)]
    assert len(set(goals)) == len(goals)
    for goal in goals:
        assert goal is not None
        assert goal not in held_out
        assert not exams.proposable(goal)
    assert exams.proposable(Goal.parse("lit(lamp) & open(drawer)"))
    assert exams.proposable(Goal.parse("placed(red, anywhere)"))


def test_who_can_do_much_refuses_what_is_impossible_and_nothing_else():
    exam = exams.frozen()
    whole = able(EVERY)
    impossible, alike = (exams.refused(rows, whole.planner(), 5, 1, whole) for rows in (exam.impossible, exam.alike))
    assert impossible.mean() >= 0.95
    assert alike.mean() <= 0.05
    lamp = able(["lit(lamp)", "not lit(lamp)"])
    few = exam.shortened(3)
    assert exams.refused(few.impossible, lamp.planner(), 5, 1).all()
    assert exams.refused(few.alike, lamp.planner(), 5, 1).mean() > 0.9  # it can do too little to be believed


def test_without_a_planner_only_what_cannot_be_read_is_refused():
    rows = exams.frozen().shortened(2).impossible
    assert exams.refused(rows, None, 0, 2).all(axis=1).tolist() == [q.about == "stranger" for q in rows]


def test_an_exam_counts_success_plans_and_refusals(monkeypatch: pytest.MonkeyPatch):
    from embodied.evaluation import heldout

    monkeypatch.setattr(heldout, "step_budget", lambda goal, replans: 3)
    few = exams.frozen().shortened(1)
    found = exams.examine(Repertoire(), 3, few, episodes=1, threads=1)
    assert found["success"] == {str(depth): {"successes": 0, "n": 1} for depth in exams.DEPTHS}
    assert found["plans"] == {str(depth): 0.0 for depth in exams.DEPTHS}
    assert found["refused"]["alike"] == {kind: [1, 1] for kind in exams.KINDS}  # it can do nothing at all
    assert found["refused"]["able"] == {kind: [0, 0] for kind in exams.KINDS}
    from envs.observations import FEATURES

    alone = exams.examine(Repertoire(), 3, few, alone=RandomPolicy(FEATURES, 5), episodes=1, threads=1)
    assert alone["plans"] == {}
    assert alone["refused"]["impossible"] == {"contradiction": [0, 1], "stranger": [1, 1], "unreachable": [0, 1]}
    assert json.loads(json.dumps(alone)) == alone


def test_a_deep_instruction_is_as_deep_as_it_says():
    world = exams.SymbolicWorld(tabletop())
    for question in exams.frozen().shortened(1).deep:
        assert question.goal is not None
        assert exams._depth(world, question.goal) == int(question.about)
        assert anywhere(question.goal)


# ---- the rows


def row(mastered: int, refused: int = 48) -> dict[str, Any]:
    return {
        "mastered": [f"goal {k}" for k in range(mastered)], "curve": [[100, 2.0, mastered]],
        "exam": {
            "success": {"1": {"successes": 3, "n": 4}}, "plans": {"1": 1.5},
            "refused": {
                key: {"stranger": counts}
                for key, counts in (("impossible", [refused, 48]), ("alike", [2, 48]), ("able", [9, 46]))
            },
        },
    }  # fmt: skip


def test_the_figure_is_what_the_best_arm_that_lacks_a_part_falls_short_by():
    counts = {"full": [16, 14, 15, 17, 18], "no gate": [12, 13, 14], "flat": [9, 9, 9], "two candidates": [30, 30, 30]}
    counts |= {name: [5, 5, 5] for name in claims.AGAINST if name not in counts}
    table = {name: {str(s): row(n) for s, n in enumerate(found)} for name, found in counts.items()}
    found = claims._measurement(table, ["x"], [], quick=False)
    assert (found.figure, found.interval, found.seeds, found.n) == (2.0, (1.0, 4.0), (0, 1, 2, 3, 4), 3)
    assert all(found.conditions.values())
    assert found.details["best_other"] == "no gate"  # a variant lacks nothing: it is not among the others
    assert found.details["more_than"]["flat"] == 6.0
    assert found.details["arms"]["full"]["success by depth"]["1"]["n"] == 20
    assert found.details["arms"]["two candidates"]["mean"] == 30.0
    assert found.details["missing"] == ["x"]


def test_what_was_not_measured_or_not_recognised_is_no_claim():
    assert math.isnan(claims._measurement({}, [], [], quick=False).figure)
    table = {"full": {"0": row(9, 40)}, "no gate": {"0": row(3), "1": row(30)}}
    found = claims._measurement(table, [], [], quick=False)
    assert (found.figure, found.n) == (6.0, 1)
    assert not any(found.conditions.values())
    assert claims._measurement(table, [], [], quick=True).conditions == {}


def test_every_arm_is_a_run_that_can_be_made_and_the_task_model_waits_for_its_folder(tmp_path: Path):
    context = Context(False, tmp_path / "results", tmp_path, seeds=5)
    for name, settings in claims.ARMS.items():
        given = [text.replace(claims.MODEL, "folder") for text in settings]
        changed = compose(RunConfig, [*claims.FULL, *given]) != compose(RunConfig, [*claims.FULL])
        assert changed == (name != "full")
    wanted, left = claims._wanted(context, context.seeds_or(5), exams.frozen())
    assert [seed for name, seed in wanted if name == "full"] == [0, 1, 2, 3, 4]
    assert [seed for name, seed in wanted if name == "flat"] == [0, 1, 2]
    assert "task_lm" not in {name for name, _ in wanted}
    assert "task_lm, seed 0: there is no model of library.d in task-lm/seed0 below out" in left
    claims._model(context, 1).mkdir(parents=True)
    wanted, _ = claims._wanted(context, context.seeds_or(5), exams.frozen())
    assert ("task_lm", 1) in wanted
    assert str(tmp_path) not in json.dumps(wanted["task_lm", 1])  # what is kept names no folder of a machine


def test_a_row_is_measured_once_and_counts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked_for: list[tuple[str, int]] = []
    monkeypatch.setattr(claims, "_measure", lambda _, name, seed, __: asked_for.append((name, seed)) or row(len(name)))
    context = Context(True, tmp_path / "results", tmp_path, say=lambda _: None)
    for _ in range(2):
        found = claims.open_ended(context)
    assert asked_for == [("full", 0), ("no gate", 0)]
    assert (found.figure, found.seeds) == (-3.0, (0,))
    assert Asked("", None, "1") == Asked("", None, "1")
