"""Manners are shown by experts and seen by judges; what the claim about composing them makes of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embodied.evaluation import adapter_claims as claims
from embodied.evaluation import manners as manners_module
from embodied.evaluation.claims import Context
from embodied.evaluation.manners import MANNERS, TASKS, buttons, demonstrate, kept_to, mannered
from envs.control import TOOL, WIDTH, YAW
from policies.flow_bc import FlowBC, FlowBCConfig


def test_experts_keep_to_their_manners_and_to_no_others(monkeypatch: pytest.MonkeyPatch):
    button = buttons()[:1]
    for manners in (("high",), ("turned", "open")):
        data, share = demonstrate(manners, TASKS[:1], 2, 1, threads=1)
        assert share > 0.4 and len(data.episode_ends) == 2
        x = data.observations[: data.episode_ends[0]][None]
        kept = kept_to(x, np.array([x.shape[1]]), button)
        assert {name for name, held in kept.items() if held[0]} == set(manners)
        assert np.abs(data.actions).max() <= 1.0
    monkeypatch.setattr(manners_module, "STEPS", 4)  # too few to press anything
    with pytest.raises(ValueError, match=r"only 0 of 9 demonstrations of push_red succeeded; 1 are needed"):
        demonstrate(("high",), TASKS[:1], 1, 1, threads=1)


def test_only_the_way_before_the_end_is_judged():
    button = buttons()[:1]
    facts = np.zeros((1, 30, 60))
    facts[0, :, TOOL] = button[0, 0]
    facts[0, :, TOOL + 1] = button[0, 1] - np.linspace(0.3, 0.0, 30)
    facts[0, :24, TOOL + 2], facts[0, 24:, TOOL + 2] = 0.29, 0.05
    facts[0, :, YAW], facts[0, :, WIDTH] = 0.6, 0.0
    kept = kept_to(facts, np.array([30]), button)
    assert [bool(kept[m][0]) for m in MANNERS] == [True, True, True, False]
    assert not any(held[0] for held in kept_to(facts, np.array([5]), button).values())  # it never was on the way


def test_slowness_shortens_every_step_and_turns_none():
    actions = np.array([[0.6, -0.6, 0.3, 0.5, -1.0], [0.1, 0.0, 0.0, 0.0, 1.0]], np.float32)
    slow = mannered(actions, np.zeros((2, 60)), buttons()[:2], ("slow",))
    assert np.linalg.norm(slow[0, :3]) == pytest.approx(0.4, abs=1e-6)
    np.testing.assert_allclose(np.cross(slow[0, :3], actions[0, :3]), 0.0, atol=1e-6)
    np.testing.assert_array_equal(slow[1], actions[1])
    np.testing.assert_array_equal(slow[:, 3:], actions[:, 3:])


def table(parameter: float, score: float, action: float, after: str = "a") -> dict[str, Any]:
    def row(rate: float) -> dict[str, Any]:
        return {"rate": rate, "n": 30}

    stamp = {"base": "a", "base after": after}
    arms = {"parameter": row(parameter), "score": row(score), "action": row(action)}
    names = [" & ".join(pair) for pair in claims.PAIRS[:2]]
    found: dict[str, Any] = {name: {"0": stamp | {"arms": arms}} for name in names}
    found[claims.ALONE] = {"0": stamp | {"singles": {}, "pairs": {name: {"base": row(0.0)} for name in names}}}
    return found


def test_the_figure_is_parameters_less_the_better_other_and_the_base_must_stay():
    found = claims._summary(table(0.8, 0.5, 0.6), claims.PAIRS[:2], (0,), [])
    assert found.figure == pytest.approx(0.2) and found.details["better of score and action"] == "action"
    assert all(found.conditions.values()) and (found.n, found.seeds) == (60, (0,))
    moved = claims._summary(table(0.8, 0.5, 0.6, after="b"), claims.PAIRS[:2], (0,), [])
    assert not moved.conditions["base hash unchanged"]
    partly = claims._summary(table(0.3, 0.5, 0.4), claims.PAIRS[:3], (0,), ["high & open, seed 0"])
    assert partly.figure == pytest.approx(-0.2) and not partly.conditions["all pairs and seeds"]
    assert np.isnan(claims._summary({}, claims.PAIRS, (0,), []).figure)


def test_a_quick_measurement_fills_its_table_and_leaves_the_base(tmp_path, monkeypatch: pytest.MonkeyPatch):
    encoder = claims._encoder()
    config = FlowBCConfig(encoder.feature_size, 5, encoder.state_size, execute=8, hidden=(8,))
    monkeypatch.setattr(claims._Bench, "_base", lambda self: FlowBC(config))  # untrained: it presses nothing
    monkeypatch.setattr(claims, "STEPS", 16)
    context = Context(quick=True, results=tmp_path / "results", out=tmp_path, seeds=1, say=lambda line: None)
    found = claims.combinations(context)
    assert found.figure == 0.0 and all(found.conditions.values()) and found.n > 0
    assert {"parameter", "score", "action", "base", "best single", "fine-tuned, 0.0003"} <= set(
        found.details["success"]
    )
    assert claims.combinations(context) == found  # from its rows
