"""How the claim about pictures is measured: how fast they are drawn, with and without GL, and whether the two agree."""

from __future__ import annotations

from typing import Any

from embodied.evaluation.claims import Context, Measurement
from envs.render_bench import rendering as measure

__all__ = ["rendering"]

SIZE = 84
GL_FREE, SYSTEM_GL = 400.0, 1000.0  # pictures a second a core
MASKS, DEPTH = 0.99, 1e-3  # share of pixels with the same geom; metres, median
QUICK, FULL = {"seconds": 1.0, "repeats": 2}, {"seconds": 16.0, "repeats": 5}


def rendering(context: Context) -> Measurement:
    """The figure is the rate of GL-free shaded pictures of 84² a second a core, with its interval over the windows.

    Conditions: that they come as fast as claimed with shadows too; and, where an OpenGL backend works, the rate of the
    fastest one and its agreement with the GL-free pictures. Where none works, ``details["gl"]`` says so and nothing
    about GL counts as met or measured.
    """
    found = measure(size=SIZE, **(QUICK if context.quick else FULL))  # type: ignore[arg-type]
    backends = found["backends"]
    rays = backends["rays"]
    conditions = {
        f"GL-free with shadows: at least {GL_FREE:g} pictures/s a core": _rate(rays, "rgb_shadows") >= GL_FREE
    }
    details: dict[str, Any] = {
        name: {"drawn_by": seen["drawn_by"]} | {kind: round(_rate(seen, kind)) for kind in seen if kind != "drawn_by"}
        for name, seen in backends.items()
    }
    details |= {"method": found["method"], "cameras": found["cameras"], "does not work here": found["missing"]}
    gl = max((name for name in backends if name != "rays"), key=lambda name: _rate(backends[name], "rgb"), default="")
    if gl:
        seen = found["agreement"][gl]
        details |= {"gl": f"{gl}, {backends[gl]['drawn_by']}", "agreement": seen}
        conditions |= {
            f"system GL: at least {SYSTEM_GL:,g} pictures/s a core": _rate(backends[gl], "rgb") >= SYSTEM_GL,
            f"segmentation agrees in at least {MASKS:.0%} of the pixels": seen["segmentation"] >= MASKS,
            f"depth agrees within {1000 * DEPTH:g} mm in the median": seen["depth_median"] <= DEPTH,
        }
    else:
        details["gl"] = "no GL library works here: its speed and agreement are not measured"
    low, high = rays["rgb"]["interval"]
    return Measurement(_rate(rays, "rgb"), (low, high), (0,), found["repeats"], conditions, details)


def _rate(backend: dict[str, Any], kind: str) -> float:
    return float(backend[kind]["rate"])
