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

    found = simulation(
        num_envs=config.num_envs, threads=config.threads, seconds=config.seconds, repeats=config.repeats
    )
    if "json" in arguments.flags:
        print(json.dumps(found))
        return 0
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:<{width}}  {value:,.3g}" if isinstance(value, float) else f"{key:<{width}}  {value}")
    return 0


COMMAND = Command(
    name="bench",
    usage="embodied bench sim [--json] [key=value ...]",
    about="""
Environment steps a second with random actions, observations, rewards and resets included, over the steps a
second of bare physics of the same model on every core; then the same with resting objects asleep. Medians
of several windows.
""",
    run=run,
    schema=BenchConfig,
    words={"sim": "the simulation"},
    flags={"json": "one JSON object instead of a table"},
    examples=(
        ("embodied bench sim", "about a minute"),
        ("embodied bench sim num_envs=256 threads=1", "another shape"),
    ),
)
