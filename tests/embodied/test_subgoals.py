"""Subgoals on BabyAI: operators from counts, plans, proposals; and the loop where envpool is installed."""

import numpy as np
import pytest

from embodied.language.base import LMError, LMRequest
from embodied.language.roles import JudgeReply, ProposeRequest
from embodied.language.subgoals import Subgoal, SubgoalGrammar, SubgoalReply, SubgoalRequest
from embodied.planning.lifted import LiftedOperator, instances, plan_mission, schema_of, universe
from envs.suites.babyai_missions import fact, parse_mission, thing


def counted(predicate: str, *rows: tuple[int, str, str, bool]) -> LiftedOperator:
    """An operator of (times, literals before, literals after, success)."""
    operator = LiftedOperator(schema_of(predicate))
    for times, before, after, success in rows:
        for _ in range(times):
            operator.record(frozenset(before.split()), frozenset(after.split()), success)
    return operator


@pytest.fixture(scope="module")
def operators() -> dict[str, LiftedOperator]:
    return {
        "facing": counted(
            "facing",
            (60, "empty_handed()", "empty_handed() facing(?a) seen(?a)", True),
            (40, "seen(?a) barred()", "seen(?a) facing(?a) barred()", True),
            (3, "empty_handed() seen(?a)", "empty_handed() seen(?a)", False),
            (40, "barred()", "barred()", False),
        ),
        "carrying": counted(
            "carrying",
            (60, "facing(?a) empty_handed() seen(?a)", "carrying(?a) seen(?a)", True),
            (40, "facing(?a) seen(?a)", "facing(?a) seen(?a)", False),
            (40, "empty_handed()", "empty_handed()", False),
        ),
        "open": counted(
            "open",
            (60, "facing(?a)", "facing(?a) open(?a)", True),
            (40, "facing(?a) locked(?a) barred()", "facing(?a) locked(?a) barred()", False),
            (40, "facing(?a) locked(?a) barred() carrying(?k)", "facing(?a) open(?a) carrying(?k)", True),
            (40, "", "", False),
        ),
        "empty_handed": counted("empty_handed", (40, "", "empty_handed()", True)),
    }


def test_what_an_operator_needs_and_does_is_learnt_from_counts(operators):
    model = operators["carrying"].model
    assert "facing(?a)" in model.precondition or any("not facing(?a)" in x.literals for x in model.lessons)
    assert "carrying(?a)" in model.add and {"empty_handed()", "facing(?a)"} <= set(model.delete)
    copy = LiftedOperator.from_dict(operators["open"].to_dict())
    assert isinstance(copy, LiftedOperator) and copy.predicate == "open"
    assert copy.model == operators["open"].model
    assert all(c.schema == "open(?a:door)" for c in copy.counts())


def test_a_plan_brings_the_key_before_the_door(operators):
    goal = parse_mission("open the red door")
    things = universe(goal)
    assert things == (thing("red door"), thing("red key"))
    true = {"locked(red door)", "barred()", "seen(red door)", "seen(red key)", "empty_handed()"}
    found = plan_mission(goal, true, things, operators)
    assert [s.goal for s in found.steps] == [
        "facing(red key)",
        "carrying(red key)",
        "facing(red door)",
        "open(red door)",
    ]
    found = plan_mission(goal, {"seen(red door)", "empty_handed()"}, things, operators)
    assert [s.goal for s in found.steps] == ["facing(red door)", "open(red door)"]


def test_without_a_skill_the_plan_says_what_is_missing(operators):
    goal = parse_mission("put the red ball next to the blue key")
    found = plan_mission(goal, {"empty_handed()"}, universe(goal), operators)
    assert not found.found and "no skill that achieves beside(red ball, blue key)" in found.explanation


def test_executions_are_lifted_over_the_facts_own_things():
    texts = dict(instances(fact("open(red door)")))
    assert str(texts["carrying(?k)"]) == "carrying(red key)" and "carrying(?a)" not in texts
    assert "beside(?a, ?b)" in dict(instances(fact("beside(red ball, blue key)")))


def asked(message, reply=SubgoalReply):
    return SubgoalGrammar().complete(LMRequest("propose", message, reply)).value


def test_the_grammar_proposes_what_missions_ask_for_in_ever_longer_contexts():
    plain = asked(SubgoalRequest(missions=("open(red door)",), depth=0)).subgoals
    assert plain[0] == Subgoal(predicate="open") and Subgoal(predicate="facing") in plain
    deep = asked(SubgoalRequest(missions=("open(red door)",), known=("facing", "carrying"), depth=2)).subgoals
    assert Subgoal(predicate="open", context=("carrying(?k)", "facing(?a)")) in deep
    assert not any(s.context[:1] == ("facing(?a)",) for s in deep if len(s.context) == 2)


def test_what_cannot_be_tried_is_refused():
    for bad in ({"predicate": "barred"}, {"predicate": "open", "context": ("import os",)}):
        with pytest.raises(ValueError, match=r"can be no subgoal|is no goal over"):
            Subgoal(**bad)  # type: ignore[arg-type]
    with pytest.raises(LMError, match="with a ProposeRequest"):
        asked(ProposeRequest())
    with pytest.raises(LMError, match="no JudgeReply"):
        asked(SubgoalRequest(missions=("open(red door)",)), JudgeReply)  # type: ignore[arg-type]


def test_a_skill_is_induced_gated_and_used(tmp_path):
    """A tiny run with a gate that lets all through: the parts fit, the library reads back, the steps are counted."""
    pytest.importorskip("envpool", reason="the extra [suites] is not installed")
    from embodied.skills.gate import GateConfig
    from embodied.skills.library import SkillLibrary
    from embodied.training.babyai_world import Levels
    from embodied.training.missions import MissionRunner, carry_out
    from embodied.training.subgoals import SubgoalLoop, SubgoalSettings, load_skills

    settings = SubgoalSettings(levels=("go-to-local-s5-n2",), steps=9000, rounds=1, slots=16, verify=512, practice=3072)
    with SkillLibrary.open(tmp_path / "library.sqlite", threshold=0.0):
        pass
    gate = GateConfig(0.0, 8, 16, 16, 8)
    loop = SubgoalLoop(tmp_path, settings, gate).run()
    assert "facing" in loop.policies and sum(loop.steps.values()) <= 12000
    policies, operators = load_skills(tmp_path)
    assert operators["facing"].model.rate == loop.operators["facing"].model.rate
    levels = Levels(settings.levels, 8, 5)
    outcomes, seen = carry_out(MissionRunner(levels, policies, operators, np.random.default_rng(0)), 1)
    assert outcomes["go-to-local-s5-n2"].shape == (8, 1) and any(o.option.actor == "facing" for o in seen)
    levels.close()
