"""Pictures a second and a core, of every way of drawing that works on this machine, and whether they agree.

One thread draws batches of table-top states in the midst of random actions, as a learner would have them: without
antialiasing, with lighting; with and without shadows. A rate is pictures over the *processor time* of the process (all
its threads), so that it is what one core gives, whoever else uses the machine; `wall` is pictures over wall time. The
windows are cut into slices that take turns, so that a drift of the machine's speed falls on all backends alike; rates
are medians over the repeats with the smallest and the largest as interval. What a GPU draws costs its core little:
its rate says what the GPU leaves of the core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from envs.backends import GL_BACKENDS, RAYS, probe
from envs.bench import BenchError
from envs.rendering import Renderer, make_renderer

__all__ = ["agreement", "rendering", "states"]

SLICE = 0.1  # seconds of processor time that one workload has before the next one's turn
BATCH = 16  # states a call
WARMUP = 40  # control steps of random actions that make the states
METHOD = (
    "pictures over processor time of one thread, no antialiasing; rgb: lit and shaded, "
    "rgb_shadows: with shadows too; slices of the workloads take turns, median of the repeats"
)


def rendering(
    seconds: float = 5.0, repeats: int = 5, size: int = 84, cameras: Sequence[str] = ("front", "side", "top")
) -> dict[str, Any]:
    """Measures `rays` and every OpenGL backend that works here; ``seconds`` of processor time a repeat, shared by
    what is drawn: four kinds of pictures a backend.

    Returns, ready for JSON: ``backends``: name -> ``drawn_by`` and, for ``rgb``, ``rgb_shadows``, ``depth`` and
    ``segmentation``, ``rate`` (pictures a second a core), ``interval`` and ``wall``; ``missing``: OpenGL backends that
    do not work here -> why; ``agreement``: backend -> that of `agreement` with rays; ``method``, ``versions`` and
    the arguments. Raises BenchError for arguments that measure nothing, RenderError for an unknown camera.
    """
    if seconds <= 0 or repeats < 1 or size < 1:
        raise BenchError(f"{repeats} repeats of {seconds} s at {size} pixels measure nothing; all must be above zero")
    model, qpos, lit = states(BATCH)
    works = {name: probe(name) for name in GL_BACKENDS}
    drawn_by = {"rays": RAYS} | {name: words for name, (fine, words) in works.items() if fine}
    renderers: dict[str, tuple[Renderer, Renderer]] = {}
    workloads: dict[tuple[str, str], Callable[[], Any]] = {}
    try:
        for name in drawn_by:
            plain, shaded = (
                make_renderer(model, size, size, cameras, name, shadows=shadows, antialias=False, threads=1)
                for shadows in (False, True)
            )
            renderers[name] = plain, shaded
            workloads[name, "rgb"] = lambda r=plain: r.render(qpos, lit)
            workloads[name, "rgb_shadows"] = lambda r=shaded: r.render(qpos, lit)
            workloads[name, "depth"] = lambda r=plain: r.depth(qpos)
            workloads[name, "segmentation"] = lambda r=plain: r.segmentation(qpos)
        found = _race(workloads, seconds / len(workloads), repeats, BATCH * len(cameras))
        agree = {name: agreement(renderers["rays"][0], renderers[name][0], qpos) for name in drawn_by if name != "rays"}
    finally:
        for pair in renderers.values():
            for renderer in pair:
                renderer.close()
    return {
        "backends": {
            name: {"drawn_by": words} | {kind: found[who, kind] for who, kind in workloads if who == name}
            for name, words in drawn_by.items()
        },
        "missing": {name: words for name, (fine, words) in works.items() if not fine},
        "agreement": agree,
        "size": size, "cameras": list(cameras), "seconds": seconds, "repeats": repeats, "method": METHOD,
        "versions": {name: version(name) for name in ("mujoco", "numba", "numpy")},
    }  # fmt: skip


def agreement(one: Renderer, other: Renderer, qpos: np.ndarray) -> dict[str, float]:
    """How far two renderers agree about states [n, nq].

    ``segmentation``: share of pixels with the same geom; ``depth_median`` and ``depth_p99`` of the absolute
    differences in metres, where both see the same geom.
    """
    (depth, ids), (other_depth, other_ids) = one.measure(qpos), other.measure(qpos)
    same = ids == other_ids
    solid = same & (ids >= 0)
    gap = np.abs(depth[solid] - other_depth[solid])
    return {
        "segmentation": float(same.mean()),
        "depth_median": float(np.median(gap)) if gap.size else float("nan"),
        "depth_p99": float(np.quantile(gap, 0.99)) if gap.size else float("nan"),
    }


def states(n: int, seed: int = 0) -> tuple[Any, np.ndarray, dict[str, np.ndarray]]:
    """The table-top's model, n states of it [n, nq] in the midst of random actions, and its lamps."""
    from envs.vector import TabletopVectorEnv

    env = TabletopVectorEnv(n, threads=1)
    env.reset(seed=seed)
    draws = np.random.default_rng(seed)
    for _ in range(WARMUP):
        env.step(draws.uniform(-1, 1, env.action_space.shape).astype(np.float32))  # type: ignore[arg-type]
    model, qpos = env.simulation.model, env.simulation.qpos.copy()
    env.close()
    return model, qpos, {"lamp": np.arange(n) % 2 == 0}


def _race(
    workloads: dict[tuple[str, str], Callable[[], Any]], seconds: float, repeats: int, pictures: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """Rates of the workloads, each of which draws ``pictures`` a call, for ``seconds`` a repeat."""
    for draw in workloads.values():
        draw()  # compiles
    rates = {key: np.zeros((repeats, 2)) for key in workloads}
    for repeat in range(repeats):
        count, spent = dict.fromkeys(workloads, 0), {key: np.zeros(2) for key in workloads}
        while min(clocks[0] for clocks in spent.values()) < seconds:
            for key, draw in workloads.items():
                begin, end = _clocks(), min(SLICE, seconds)
                while (elapsed := _clocks() - begin)[0] < end:
                    draw()
                    count[key] += pictures
                spent[key] += elapsed
        for key in workloads:
            rates[key][repeat] = count[key] / spent[key]
    return {
        key: {
            "rate": float(np.median(rate[:, 0])),
            "interval": [float(rate[:, 0].min()), float(rate[:, 0].max())],
            "wall": float(np.median(rate[:, 1])),
        }
        for key, rate in rates.items()
    }


def _clocks() -> np.ndarray:
    """Processor time of this process and wall time, in seconds."""
    return np.array([time.process_time(), time.perf_counter()])
