"""The gate in a scene: what does nothing is not admitted, and what nobody can do is not asked."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.evaluation.goal_gate import exam_evaluate
from embodied.skills.gate import Gate, GateConfig, GateError


def idle(candidate: object):
    return lambda facts, goals: np.zeros((len(facts), 5))


def test_a_candidate_of_play_goes_through_the_gate() -> None:
    gate = Gate(exam_evaluate(idle, steps=5), run_seed=0, config=GateConfig(screen=20, n=20, confirm=20))
    decision = gate.decide("open(drawer)", [object()], round=0)
    assert not decision.admitted and "rejected at the screen: 0 of 20" in decision.reason
    (measured,) = decision.reports
    assert measured.report.kind == "simulator" and measured.report.n == 20 and measured.report.versions


def test_a_goal_that_the_expert_cannot_reach_is_refused() -> None:
    with pytest.raises(GateError, match="the expert solved only 0 of the 2"):
        exam_evaluate(idle, steps=5)(object(), [("on(cube, flat) & on(flat, cube)", 2, 1)])
