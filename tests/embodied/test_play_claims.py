"""Claims about learning from play count rows measured with the present settings alone; others are named."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embodied.evaluation import arms, play_claims, play_more_claims, representation_claims
from embodied.evaluation.claims import Context
from embodied.evaluation.goal_exam import Answers, Exam

EXAM = Exam(("a", "b"), ("a", "b"), np.array([0, 0, 1, 1]), np.zeros((4, 1)), np.zeros((4, 1)), 0)


@pytest.fixture
def asked(monkeypatch):
    """What is put to an exam in a measurement that trains nothing: half of the questions are solved."""
    calls: list[str] = []

    def sit(act, exam, **more):
        calls.append(act)
        return Answers(exam, np.array([True, False, True, False]), np.zeros(4, np.int64))

    for module in (play_claims, play_more_claims):
        monkeypatch.setattr(module, "play_data", lambda *rest: SimpleNamespace(encoder=None))
        monkeypatch.setattr(
            module, "trained", lambda context, name, *rest: SimpleNamespace(policy=name, seconds=1.0, metrics={})
        )
        monkeypatch.setattr(module, "acting", lambda policy, encoder: policy)
        monkeypatch.setattr(module, "exam_of", lambda context: EXAM)
        monkeypatch.setattr(module, "sit_exam", sit)
    monkeypatch.setattr(play_claims, "_untrained", lambda: {"random actions": "random"})
    monkeypatch.setattr(play_more_claims, "cloned_experts", lambda *rest: lambda: "clones")
    return calls


def test_the_headline_pools_only_rows_of_the_present_settings(tmp_path, asked):
    context = Context(quick=True, results=tmp_path, out=tmp_path, say=lambda text: None)
    summary = {"rate": 1.0, "lower": 0.5, "upper": 1.0, "n": 4, "by_task": {"a": 1.0, "b": 1.0}, "seconds": 1.0}
    now = arms.about_of(context, arms.ARMS["flow"])
    before = arms.about_of(context, replace(arms.ARMS["flow"], updates=7))
    path = tmp_path / "play.a.quick.arms.json"
    table = {
        "flow": {"0": summary | {"about": before}, "1": summary | {"about": now}, "2": summary | {"about": before}},
        "forgotten": {"0": summary}, "random actions": {"0": summary},
    }  # fmt: skip
    arms.keep(path, table, quick=True)
    found = play_claims.headline(context)
    assert asked == ["flow", "gcbc", "random"]
    assert found.details["left out"] == ["flow, seed 2", "forgotten, seed 0"]
    assert (found.figure, found.seeds, found.n) == (0.75, (0, 1), 8)
    assert found.details["arms"]["random actions"]["by_seed"] == [0.5]
    assert play_claims.headline(context) == found and len(asked) == 3
    assert set(json.loads(path.read_text())["arms"]) == {"flow", "gcbc", "random actions", "forgotten"}


def test_disturbances_are_measured_anew_where_settings_changed(tmp_path, asked, monkeypatch):
    context = Context(quick=True, results=tmp_path, out=tmp_path, say=lambda text: None)
    first = play_more_claims.disturbed(context)
    assert asked == ["latent plans"] * 3 + ["clones"] * 3 and first.details["left out"] == []
    assert play_more_claims.disturbed(context) == first and len(asked) == 6
    monkeypatch.setitem(arms.ARMS, "latent plans", replace(arms.ARMS["latent plans"], updates=7))
    play_more_claims.disturbed(context)
    assert asked[6:] == ["latent plans"] * 3  # the clones' own settings are as they were


def test_representations_are_compared_seed_by_seed_and_a_margin_is_held_by_the_interval(tmp_path, monkeypatch):
    context = Context(quick=False, results=tmp_path, out=tmp_path, seeds=2, say=lambda text: None)
    rates = {
        "act": (0.5, 0.6),
        representation_claims.JEPA: (0.52, 0.61),
        "act-jepa, ema": (0.4,),
        "act-jepa, none": (0.3,),
    }
    monkeypatch.setattr(representation_claims, "about_of", lambda context, arm: "now")
    ranks = {"act-jepa, none": 2.0}

    def measured(path, wanted, measure, budget, say):
        table = {
            who: {
                str(seed): {
                    "about": "now", "rate": rate, "r2": rate, "rank": ranks.get(who, 60.0), "n": 10,
                }
                for seed, rate in enumerate(row)
            }
            for who, row in rates.items()
        }  # fmt: skip
        arms.keep(path, table)
        return [f"{who}, seed {seed}" for who, seed in wanted if str(seed) not in table.get(who, {})]

    monkeypatch.setattr(representation_claims, "fill", measured)
    found = representation_claims.representations(context)
    assert found.figure == pytest.approx(0.015) and found.seeds == (0, 1) and found.n == 20
    assert found.interval == pytest.approx((0.01, 0.02))
    held = dict(found.conditions)
    assert held.pop("5 seeds") is False and all(held.values())
    assert found.details["missing"] == ["act-jepa, sigreg, seed 0", "act-jepa, vicreg, seed 0"]
    rates[representation_claims.JEPA] = (0.4, 0.61)
    assert not representation_claims.representations(context).conditions["the interval lies above the margin"]
