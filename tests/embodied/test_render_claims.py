"""The claim about pictures: what counts where GL works, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied.evaluation import render_claims
from embodied.evaluation.claims import Context


def backend(rate: float) -> dict:
    kinds = ("rgb", "rgb_shadows", "depth", "segmentation")
    return {"drawn_by": "somebody"} | {kind: {"rate": rate, "interval": [rate - 1, rate + 1]} for kind in kinds}


def measured(monkeypatch: pytest.MonkeyPatch, gl: dict, agreement: dict):
    found = {
        "backends": {"rays": backend(900.0)} | gl, "agreement": agreement, "missing": {"osmesa": "not there"},
        "method": "", "cameras": ["front"], "repeats": 2,
    }  # fmt: skip
    monkeypatch.setattr(render_claims, "measure", lambda **arguments: found)
    return render_claims.rendering(Context(quick=True, results=Path("."), out=Path(".")))


def test_gl_counts_where_it_works(monkeypatch):
    good = {"segmentation": 0.998, "depth_median": 1e-6}
    found = measured(monkeypatch, {"egl": backend(1500.0), "glfw": backend(10.0)}, {"egl": good, "glfw": good})
    assert found.figure == 900 and found.interval == (899, 901) and len(found.conditions) == 4
    assert all(found.conditions.values()) and found.details["gl"].startswith("egl")
    slow = measured(monkeypatch, {"egl": backend(800.0)}, {"egl": {"segmentation": 0.98, "depth_median": 2e-3}})
    assert list(slow.conditions.values()) == [True, False, False, False]


def test_without_gl_nothing_about_it_counts_as_met(monkeypatch):
    found = measured(monkeypatch, {}, {})
    assert len(found.conditions) == 1 and "no GL library works here" in found.details["gl"]
    assert found.details["does not work here"] == {"osmesa": "not there"}
