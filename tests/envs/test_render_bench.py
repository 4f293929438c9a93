"""The measurement of pictures: what it reports, without GL too, and that agreement is measured truly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from envs import render_bench
from envs.bench import BenchError
from envs.rendering import make_renderer


def test_every_working_backend_is_measured_and_the_others_are_named(monkeypatch):
    monkeypatch.setattr(render_bench, "probe", lambda name: (False, "no such library"))
    monkeypatch.setattr(render_bench, "SLICE", 0.01)
    found = render_bench.rendering(seconds=0.05, repeats=2, size=16, cameras=("front",))
    assert json.loads(json.dumps(found)) == found
    assert set(found["backends"]) == {"rays"} and set(found["missing"]) == {"egl", "osmesa", "glfw"}
    assert found["agreement"] == {}
    for kind in ("rgb", "rgb_shadows", "depth", "segmentation"):
        seen = found["backends"]["rays"][kind]
        low, high = seen["interval"]
        assert 0 < low <= seen["rate"] <= high and seen["wall"] > 0


def test_agreement_is_full_with_itself_and_falls_with_another_camera():
    model, qpos, lit = render_bench.states(2)
    assert qpos.shape == (2, model.nq) and set(lit) == {"lamp"}
    front, top = (make_renderer(model, 32, 32, name, "rays", threads=1) for name in ("front", "top"))
    with front, top:
        assert render_bench.agreement(front, front, qpos) == {
            "segmentation": 1.0, "depth_median": 0.0, "depth_p99": 0.0,
        }  # fmt: skip
        assert render_bench.agreement(front, top, qpos)["segmentation"] < 0.9
        assert np.isfinite(render_bench.agreement(front, top, qpos)["depth_median"])


def test_a_measurement_of_nothing_is_refused():
    with pytest.raises(BenchError, match="above zero"):
        render_bench.rendering(seconds=0)
