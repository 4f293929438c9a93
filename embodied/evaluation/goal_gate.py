"""The gate's questions answered in a scene: how a policy that is given goals as states is measured on goals in words.

What a `Gate` needs to decide about candidates from play, such as those of `embodied.training.segments`: each question
is an exam (`embodied.evaluation.goal_exam`) of fresh starts, judged by the simulator's predicates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from embodied.core import EvalReport
from embodied.evaluation.goal_exam import STEPS, Act, set_exam, sit_exam
from embodied.skills.gate import Evaluate, GateError, Question
from embodied.training.rollouts import versions

__all__ = ["exam_evaluate"]


def exam_evaluate(act_of: Callable[[Any], Act], scene: Any = "playroom", steps: int = STEPS) -> Evaluate:
    """What `Gate` is given: a candidate, by ``act_of`` (see `goal_exam.acting`), has ``steps`` a question.

    Starts that the scripted expert does not solve are not asked. It raises GateError where it solves too few of them:
    nobody has shown then that the goal can be reached.
    """

    def evaluate(candidate: Any, questions: Sequence[Question]) -> list[EvalReport]:
        reports = []
        for goal, n, seed in questions:
            exam = set_exam([goal], n, seed, scene=scene)
            if len(exam) < n:
                raise GateError(f"the expert solved only {len(exam)} of the {n} starts for '{goal}' that the gate asks")
            answers = sit_exam(act_of(candidate), exam, steps=steps)
            lengths, name = answers.steps, str(getattr(candidate, "registry_key", ""))
            reports.append(EvalReport(goal, name, seed, answers.success, lengths, versions=versions()))
        return reports

    return evaluate
