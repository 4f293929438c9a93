"""The task model learns, harmful updates are undone, a stopped training goes on as if it had not; and it answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embodied.errors import UsageError
from embodied.evaluation import task_lm_claims
from embodied.language import task_lm as backend
from embodied.language.base import LMError, LMRequest
from embodied.language.roles import (
    AnswerReply,
    AnswerRequest,
    PlanReply,
    PlanRequest,
    ProposeReply,
    ProposeRequest,
)
from embodied.language.symbolic_world import SymbolicWorld, tabletop
from embodied.language.task_lm import TaskLanguageModel
from embodied.language.task_plans import Answers, Task, answer, success_by_depth
from embodied.language.task_tokens import TOKENS, Macro
from embodied.training import task_lm as training_module
from embodied.training.groups import group_advantage
from embodied.training.symbolic_tasks import Chain
from embodied.training.task_lm import TaskLMSettings, TaskLMTraining, train_task_lm
from envs.goals import Goal, Literal, all_ground_goals
from policies.checkpoint import CheckpointError, module_arrays
from policies.task_lm import Sampled, TaskLM, TaskLMConfig

TINY = TaskLMSettings(
    width=32, heads=2, layers=1, precision="float32", demonstrations=30, supervised=4, batch=8, steps=4, tasks=3,
    group=3, going_on=1, chains_every=2, gate_every=2, gate_tasks=3,
)  # fmt: skip
FACTS = {"closed(drawer)": True, "clear(red)": True, "clear(blue)": True}


@pytest.fixture(scope="module")
def world() -> SymbolicWorld:
    return SymbolicWorld(tabletop())


@pytest.fixture(scope="module")
def small() -> TaskLM:
    return TaskLM(TaskLMConfig(len(TOKENS), width=16, heads=2, layers=1))


def _plans(*steps: list[Goal | str], success: list[bool], prompts: int) -> Answers:
    n = len(steps)
    sampled = Sampled(np.ones((n, 1), np.int64), np.ones((n, 1, len(TOKENS)), np.bool_), np.zeros((n, 1), np.float32))
    return Answers(np.ones((prompts, 2), np.int64), sampled, list(steps), np.array(success))


# training --------------------------------------------------------------------------------------------------


def test_drawer_and_lamp_are_learnt_from_demonstrations_and_more_of_them_by_sampling(tmp_path: Path):
    few = SymbolicWorld(tabletop(), lambda goal: goal.final[0].predicate in ("open", "closed", "lit"))
    settings = replace(
        TINY, width=48, layers=2, demonstrations=80, supervised=140, batch=32, rate=5e-3, macros=0.0, goal_weight=0.0,
        steps=10, tasks=8, group=6, chains_every=0, gate_every=10, gate_tasks=15, most_literals=2,
    )  # fmt: skip
    training = TaskLMTraining(few, settings, tmp_path / "run")
    before = success_by_depth(training.model, few, training.gate)
    training.supervise()
    supervised = success_by_depth(training.model, few, training.gate)
    training.reinforce()
    after = success_by_depth(training.model, few, training.gate)
    assert before[1] < 0.5 < 0.8 <= supervised[1]
    assert np.mean([*after.values()]) >= np.mean([*supervised.values()]) - settings.tolerance
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["supervised", "supervised", "grpo", "grpo"]


def test_the_same_seed_gives_the_same_model_and_a_stopped_training_goes_on(
    world: SymbolicWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train_task_lm(world, TINY, tmp_path / "whole")
    broken = TaskLMTraining(world, TINY, tmp_path / "broken")
    broken.supervise()
    improve, calls = TaskLMTraining._improve, []

    def stops(self: TaskLMTraining, *args: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        improve(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(TaskLMTraining, "_improve", stops)
    with pytest.raises(KeyboardInterrupt):
        broken.reinforce()
    monkeypatch.setattr(TaskLMTraining, "_improve", improve)
    resumed = train_task_lm(world, TINY, tmp_path / "broken")
    assert resumed.progress.steps == TINY.steps
    one, two = (module_arrays(TaskLM.from_pretrained(tmp_path / name / "model")) for name in ("whole", "broken"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert resumed.progress.success == whole.progress.success
    assert (tmp_path / "whole" / "supervised" / "config.json").is_file()
    with pytest.raises(UsageError, match="going_on = 3 must be"):
        replace(TINY, going_on=3)
    with pytest.raises(UsageError, match="steps was 4, now 5"):
        TaskLMTraining(world, replace(TINY, steps=5), tmp_path / "whole")


def test_updates_that_lose_more_than_a_point_are_undone(
    world: SymbolicWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    training = TaskLMTraining(world, TINY, tmp_path)
    scores = iter([0.80, 0.795, 0.78])
    monkeypatch.setattr(training_module, "success_by_depth", lambda *_: dict.fromkeys((1, 2), next(scores)))
    training._pass_gate()
    weight = next(training.model.parameters())
    with torch.no_grad():
        weight += 1.0
    training._pass_gate()  # half a point lost: kept
    kept = weight.detach().clone()
    with torch.no_grad():
        weight += 1.0
    training._pass_gate()
    assert torch.equal(weight, kept)
    assert (training.progress.undone, training.progress.floor) == (1, 0.80)


def test_a_macro_made_in_the_first_task_and_used_in_the_second_pays_both(
    world: SymbolicWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    training = TaskLMTraining(world, replace(TINY, tasks=2, group=3), tmp_path)
    one, two = Goal.parse("open(drawer)"), Goal.parse("inside(red, drawer)")
    chain = Chain(Task(frozenset(FACTS), two), Task(frozenset(FACTS), Goal.parse("inside(red, drawer) & lit(lamp)")))
    monkeypatch.setattr(training.tasks, "chain", lambda *_: chain)
    asked: list[list[Task]] = []

    def answers(_model: TaskLM, _world: SymbolicWorld, tasks: list[Task], *_: object) -> Answers:
        asked.append(tasks)
        if len(asked) == 1:
            return _plans([one, two], [one, two], [two], success=[True, True, False], prompts=1)
        name = tasks[0].macros[0].name
        return _plans([name], [one], [one], success=[True, True, False], prompts=3)

    monkeypatch.setattr(training_module, "answer", answers)
    (_, first), (_, second) = training._chained(np.random.default_rng(0), torch.Generator())
    assert [len(task.macros) for task in asked[1]] == [1, 1, 0]
    assert asked[1][0].macros[0].steps == (one, two)
    assert first[0] > first[1] > first[2]  # equal plans; what the first one made was used
    assert second[0] > second[1] > second[2]


def test_what_is_demonstrated_takes_two_steps_at_most_also_after_a_detour(world: SymbolicWorld, tmp_path: Path):
    training = TaskLMTraining(world, TINY, tmp_path)
    taken = [demo for demo in training.demonstrations if demo.detour]
    assert taken
    for demo in training.demonstrations:
        state = world.state(demo.task.facts)
        assert len(world.plan(demo.task.goal, state).steps) <= 2
        assert len(demo.steps) <= 2
        skills = [world.skill(goal) for goal in (*demo.detour, *demo.steps)]
        assert world.run(state[None], [demo.task.goal], [skills]).success.all()


def test_plans_that_go_on_are_cut_where_they_met_the_goal(world: SymbolicWorld, small: TaskLM):
    tasks = [Task(frozenset({"clear(red)", "clear(blue)"}), Goal.parse(t)) for t in ("lit(lamp)", "open(drawer)")]
    found = answer(small, world, tasks, 40, 1.0, torch.Generator().manual_seed(0), 39)
    plain = answer(small, world, tasks, 40, 1.0, torch.Generator().manual_seed(0))
    went_on = np.arange(80) % 40 > 0
    assert found.success[went_on].sum() > plain.success[went_on].sum()
    for i in np.flatnonzero(found.success & went_on):
        skills = [world.skill(step) for step in found.plans[i]]
        state = world.state(tasks[i // 40].facts)[None]
        assert not world.run(state, [tasks[i // 40].goal], [skills[:-1]]).success.any()
        assert found.sampled.log_probabilities[i, 0] < 0
    assert all(plan for plan, on in zip(found.plans, went_on, strict=True) if on)


def test_groups_that_agree_teach_nothing(world: SymbolicWorld, tmp_path: Path):
    training = TaskLMTraining(world, replace(TINY, replay=0.0), tmp_path)
    before = module_arrays(training.model)
    found = answer(training.model, world, [Task(frozenset(FACTS), Goal.parse("lit(lamp)"))], 3)
    training._improve([(found, group_advantage(np.ones(3), 3))], np.random.default_rng(0))
    assert all(np.array_equal(before[name], value) for name, value in module_arrays(training.model).items())
    assert np.allclose(group_advantage(np.array([1.0, 0.0]), 2), [5 / 6, -5 / 6])


# answering -------------------------------------------------------------------------------------------------


def _ask(agent: TaskLanguageModel, goal: str, **more: object) -> tuple[PlanReply, str]:
    message = PlanRequest(goal=goal, facts=FACTS, **more)  # type: ignore[arg-type]
    result = agent.complete(LMRequest("plan", message, PlanReply))
    return result.value, result.degraded


def test_a_plan_that_does_not_verify_is_the_planners_and_says_so(small: TaskLM):
    agent = TaskLanguageModel(small, tabletop(), samples=0)
    found, degraded = _ask(agent, "inside(red, drawer) ; closed(drawer) ; lit(lamp)")
    assert [step.goal for step in found.steps][:2] == ["open(drawer)", "inside(red, drawer)"]
    assert "the planner answered" in degraded
    found, degraded = _ask(agent, "on(red, blue) & on(blue, red)")
    assert "impossible" in found.explanation
    assert degraded
    found, degraded = _ask(agent, "closed(drawer)")
    assert (found.steps, found.explanation, degraded) == ((), "", "")


def test_the_most_probable_verified_plan_is_the_answer_without_what_changes_nothing(
    small: TaskLM, monkeypatch: pytest.MonkeyPatch
):
    shut, open_, in_, lit = map(Goal.parse, ("closed(drawer)", "open(drawer)", "inside(red, drawer)", "lit(lamp)"))
    greedy = _plans([in_], success=[False], prompts=1)
    samples = _plans([lit, open_, in_], [shut, "m1"], success=[True, True], prompts=1)
    monkeypatch.setattr(backend, "answer", lambda *args: greedy if len(args) == 3 else samples)
    agent = TaskLanguageModel(small, tabletop(), samples=2, macros=[Macro("m1", (open_, in_))])
    found, degraded = _ask(agent, "inside(red, drawer)")
    assert ([step.goal for step in found.steps], degraded) == (["open(drawer)", "inside(red, drawer)"], "")
    assert found.steps[0].skill == "open(drawer)"
    assert 0.9 < found.probability < 1


def test_only_allowed_skills_are_used_and_the_reply_is_the_same_again(small: TaskLM):
    agent = TaskLanguageModel(small, tabletop(), samples=4)
    allowed = ("open(drawer)", "lit(lamp)")
    for goal in ("open(drawer)", "lit(lamp) & open(drawer)", "lifted(red)"):
        one, two = _ask(agent, goal, allowed=allowed), _ask(agent, goal, allowed=allowed)
        assert one == two
        assert {step.goal for step in one[0].steps} <= {*allowed}
    assert "no skill" in _ask(agent, "lifted(red)", allowed=allowed)[0].explanation
    empty = TaskLanguageModel(small)
    assert "no skill" in _ask(empty, "lit(lamp)")[0].explanation


def test_goals_are_proposed_among_those_that_may_be_practised(small: TaskLM):
    agent = TaskLanguageModel(small)
    records = ({"goal": "open(drawer)", "status": "mastered"}, {"goal": "lit(lamp)", "status": "frozen"})
    message = ProposeRequest(records=records, excluded=("lift the red block",), count=5, seed=3)  # type: ignore[arg-type]
    found = agent.complete(LMRequest("propose", message, ProposeReply)).value.proposals
    assert found == agent.complete(LMRequest("propose", message, ProposeReply)).value.proposals
    goals = [item.goal for item in found]
    assert len({*goals}) == 5
    assert {*goals} <= {str(goal) for goal in all_ground_goals()} - {"open(drawer)", "lit(lamp)", "lifted(red)"}
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    done = tuple({"goal": str(goal), "status": "frozen"} for goal in all_ground_goals())
    nothing = ProposeRequest(records=done)  # type: ignore[arg-type]
    assert agent.complete(LMRequest("propose", nothing, ProposeReply)).value.proposals == ()
    with pytest.raises(LMError, match="'propose' cannot be answered"):
        agent.complete(LMRequest("propose", ProposeRequest(excluded=("fly",)), ProposeReply))


def test_the_other_roles_are_the_embedded_models(small: TaskLM, tmp_path: Path):
    agent = TaskLanguageModel(small)
    reply = agent.complete(LMRequest("answer", AnswerRequest(instruction="x", reason="no"), AnswerReply))
    assert (reply.backend, reply.degraded) == ("grammar", "")
    with pytest.raises(LMError, match="unknown role 'sing'"):
        agent.complete(LMRequest("sing", AnswerRequest(instruction="x"), AnswerReply))
    with pytest.raises(LMError, match="takes a PlanRequest"):
        agent.complete(LMRequest("plan", AnswerRequest(instruction="x"), PlanReply))
    TaskLM(TaskLMConfig(7, width=16, heads=2, layers=1)).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="knows 7 words"):
        TaskLanguageModel.from_pretrained(tmp_path / "other")


# the claim -------------------------------------------------------------------------------------------------


def test_what_the_library_saves_is_compared_where_both_reach_the_goal(
    small: TaskLM, world: SymbolicWorld, monkeypatch: pytest.MonkeyPatch
):
    one, two, lit = map(Goal.parse, ("open(drawer)", "inside(red, drawer)", "lit(lamp)"))
    first = Task(frozenset(FACTS), Goal.of(*two.final))
    chains = [Chain(first, Task(frozenset(FACTS), Goal.of(*two.final, Literal.parse("lit(lamp)"))))] * 3
    found = iter([
        _plans([one, two], [one, two], [two], success=[True, True, False], prompts=3),
        _plans(["m1", lit], ["m2"], success=[True, False], prompts=2),
        _plans([one, two, lit], [one], success=[True, True], prompts=2),
    ])  # fmt: skip
    monkeypatch.setattr(task_lm_claims, "answer", lambda *_: next(found))
    row = task_lm_claims._library(small, world, chains)
    assert (row["chains"], row["both"], row["steps with"], row["steps without"]) == (2, 1, 2.0, 3.0)
    assert (row["skills run with"], row["used"]) == (3.0, 0.5)
    scores = {"before": {"1": 1.0, "2": 0.9}, "after": {"1": 1.0, "2": 0.89}, "library": row, "cpu seconds": 900.0}
    assert all(task_lm_claims._conditions([scores]).values())
    slow = scores | {"after": {"1": 0.9, "2": 0.9}, "cpu seconds": 1300.0, "library": row | {"steps with": 3.0}}
    assert not any(task_lm_claims._conditions([slow]).values())
