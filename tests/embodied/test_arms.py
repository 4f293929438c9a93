"""Tables of finished arms: read as they were written, none of other versions, and pooled over seeds."""

from __future__ import annotations

import json

import pytest

from embodied.evaluation import arms
from embodied.evaluation.claims import ClaimError, Context


def test_a_table_is_read_as_written_unless_versions_differ_or_it_is_damaged(tmp_path):
    context = Context(quick=True, results=tmp_path / "results", out=tmp_path)
    path = arms.table_path(context, "play.z.arms.json")
    assert path == tmp_path / "results" / "play.z.quick.arms.json" and arms.kept(path) == {}
    table = {"flow": {"0": {"about": arms.about_of(context, arms.ARMS["flow"]), "rate": 0.5}}}
    arms.keep(path, table, quick=True)
    assert arms.kept(path) == table
    content = json.loads(path.read_text())
    assert set(content) == {"arms", "versions", "quick"}
    path.write_text(json.dumps(content | {"versions": {}}))
    assert arms.kept(path) == {}
    path.write_text("{}")
    with pytest.raises(ClaimError, match=r"play\.z\.quick\.arms\.json is damaged"):
        arms.kept(path)


def test_seeds_are_pooled_over_all_their_questions():
    rows = [
        {"rate": 0.5, "n": 4, "solved": 2, "by_task": {"a": 1.0, "b": 0.0}},
        {"rate": 1.0, "n": 4, "by_task": {"a": 1.0, "b": 1.0}},
    ]
    found = arms.pooled(rows)
    assert (found["rate"], found["n"], found["by_seed"]) == (0.75, 8, [0.5, 1.0])
    assert found["by_task"] == {"a": 1.0, "b": 0.5}
    assert 0.40 < found["lower"] < 0.75 < found["upper"] < 0.93
