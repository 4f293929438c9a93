"""``embodied bench``: speed against what the machine can do at all."""

from __future__ import annotations

import json

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import BenchConfig
from embodied.errors import UsageError

SUBJECTS = ("sim",)


def run(arguments: Arguments) -> int:
    """Measure and print; with --json as one JSON object."""
    from embodied.cli.config import compose

    if len(arguments.words) != 1:
        raise UsageError(f"what is to be measured? embodied bench {'|'.join(SUBJECTS)}")
    COMMAND.one_of(arguments.words[0], SUBJECTS, "subject")
    config = compose(BenchConfig, arguments.overrides)
    from envs.bench import simulation

    found = simulation(config.seconds, config.repeats, config.num_envs, config.threads, config.env)
    if "json" in arguments.flags:
        print(json.dumps(found))
        return 0
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:<{width}}  {_plain(value)}")
    return 0


def _plain(value: object) -> str:
    """A figure, an interval or versions, as a person would write them."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return " to ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


COMMAND = Command(
    name="bench",
    usage="embodied bench sim [--json] [key=value ...]",
    about="""
Environment steps a second with random actions, observations, rewards and resets included, over the limit that
physics alone sets: mj_step on one thread, replaying such episodes in C, times the threads. Then what letting
resting objects sleep gains. Medians of several windows; let the machine do nothing else meanwhile.
""",
    run=run,
    schema=BenchConfig,
    words={"sim": "the simulation"},
    flags={"json": "one JSON object instead of a table"},
    examples=(
        ("embodied bench sim", "about a minute"),
        ("embodied bench sim env=playroom num_envs=256", "another world, another shape"),
    ),
)
