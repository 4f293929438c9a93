"""``embodied bench``: speed against what the machine can do at all."""

from __future__ import annotations

import json
from typing import Any

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import BenchConfig
from embodied.errors import UsageError

SUBJECTS = ("sim", "render")


def run(arguments: Arguments) -> int:
    """Measure and print; with --json as one JSON object."""
    from embodied.cli.config import compose

    if len(arguments.words) != 1:
        raise UsageError(f"what is to be measured? embodied bench {'|'.join(SUBJECTS)}")
    COMMAND.one_of(arguments.words[0], SUBJECTS, "subject")
    config = compose(BenchConfig, arguments.overrides)
    windows = {"seconds": config.seconds, "repeats": config.repeats}
    if arguments.words[0] == "sim":
        from envs.bench import simulation

        found = simulation(num_envs=config.num_envs, threads=config.threads, world=config.env, **windows)
    else:
        from envs.render_bench import rendering

        found = rendering(size=config.size, **windows)
    if "json" in arguments.flags:
        print(json.dumps(found))
        return 0
    shown = found if arguments.words[0] == "sim" else _pictures(found)
    width = max(map(len, shown))
    for key, value in shown.items():
        print(f"{key:<{width}}  {_plain(value)}")
    return 0


def _pictures(found: dict[str, Any]) -> dict[str, Any]:
    """What was found about drawing, a line a kind of picture: the rate a core, its interval, and the agreement."""
    lines: dict[str, Any] = {}
    for name, backend in found["backends"].items():
        lines[name] = backend["drawn_by"]
        for kind in ("rgb", "rgb_shadows", "depth", "segmentation"):
            low, high = map(_plain, backend[kind]["interval"])
            lines[f"{name} {kind}"] = f"{_plain(backend[kind]['rate'])} pictures/s a core ({low} to {high})"
    for name, seen in found["agreement"].items():
        gap = f"depth {1000 * seen['depth_median']:.3g} mm apart in the median"
        lines[f"{name} and rays"] = f"the same geom in {seen['segmentation']:.2%} of pixels, {gap}"
    lines |= {name: f"does not work here: {why}" for name, why in found["missing"].items()}
    return lines | {key: found[key] for key in ("size", "cameras", "repeats", "seconds", "method", "versions")}


def _plain(value: object) -> str:
    """A figure, an interval or versions, as a person would write them."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return (", " if isinstance(value[0], str) else " to ").join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


COMMAND = Command(
    name="bench",
    usage="embodied bench sim|render [--json] [key=value ...]",
    about="""
Environment steps a second with random actions, observations, rewards and resets included, over the limit that
physics alone sets: mj_step on one thread, replaying such episodes in C, times the threads. Then what letting
resting objects sleep gains. Medians of several windows; let the machine do nothing else meanwhile.

Pictures a second and a core of each way of drawing that works here, from three cameras: in colour, without and
with shadows, depth and segmentation; and whether OpenGL and ray casting see the same.
""",
    run=run,
    schema=BenchConfig,
    words={"sim": "the simulation", "render": "pictures: rays on the processor, and OpenGL where it works"},
    flags={"json": "one JSON object instead of a table"},
    examples=(
        ("embodied bench sim", "about a minute"),
        ("embodied bench sim env=playroom num_envs=256", "another world, another shape"),
        ("embodied bench render size=128", "larger pictures"),
    ),
)
