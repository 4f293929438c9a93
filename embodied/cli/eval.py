"""``embodied eval``: a run's skills or the held-out instructions, measured on fresh episodes."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import EvalConfig


def run(arguments: Arguments) -> int:
    """Measure, print a table with intervals, and leave it in the run directory."""
    from rich.console import Console

    from embodied import runs
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(EvalConfig, arguments.overrides)
    run_dir = runs.find(config.run)
    from embodied.evaluation import evaluate

    evaluate(run_dir, config, Console())
    return 0


COMMAND = Command(
    name="eval",
    usage="embodied eval [key=value ...]",
    about="""
Measures on episodes that nothing was trained or selected on: success with Wilson intervals, a random
policy, the play policy alone and the scripted oracle beside it. One JSON line an episode is left in the
run's evaluations/.
""",
    run=run,
    schema=EvalConfig,
    examples=(
        ("embodied eval", "every goal of the newest run's library, 200 episodes each"),
        ("embodied eval run=runs/quick seed=77", "another run, another set of episodes"),
        ("embodied eval what=instructions", "the 40 held-out instructions, 5 episodes each"),
    ),
)
