"""The claim about language is measured seed by seed, and a finished seed is not measured again."""

from __future__ import annotations

from functools import partial

import pytest

from embodied.evaluation import arms, language_claims
from embodied.evaluation.claims import ClaimError, Context
from embodied.evaluation.goal_exam import set_exam, sit_exam
from embodied.evaluation.instruction_exam import WAYS


def test_a_finished_seed_counts_again_and_a_damaged_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "QUICK_STEPS", 4000)
    monkeypatch.setattr(arms, "QUICK_UPDATES", 2)
    config = {"hidden": (8,), "context_hidden": (8,), "text_hidden": 8, "execute": 8}
    monkeypatch.setattr(language_claims, "ARM", arms.Arm("multi-context", config))
    monkeypatch.setattr(arms, "set_exam", lambda tasks, *rest, **more: set_exam(tasks[:2], 1, 0))
    monkeypatch.setattr(language_claims, "sit_exam", partial(sit_exam, steps=3))
    context = Context(quick=True, results=tmp_path / "results", out=tmp_path / "out", say=lambda text: None)
    first = language_claims.instructed(context)
    assert set(first.details["ways"]) == {"goal", *WAYS} and first.n == 2 and first.seeds == (0,)
    assert first.conditions["at most 1 % of the windows were looked at"]
    labels = first.details["labels"][0]
    assert labels["windows"] == int(0.01 * labels["of"]) and 0 < labels["steps covered"] < 1

    def never(*arguments):
        raise AssertionError("a finished seed was measured again")

    monkeypatch.setattr(language_claims, "_measure", never)
    assert language_claims.instructed(context) == first
    (tmp_path / "results" / "play.h.quick.arms.json").write_text("{}")
    with pytest.raises(ClaimError, match="is damaged"):
        language_claims.instructed(context)
