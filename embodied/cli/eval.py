"""``embodied eval``: a run's skills, the held-out instructions, or a policy on any environment, on fresh episodes."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import EvalConfig
from embodied.errors import UsageError

UNSET = ("", "random")


def run(arguments: Arguments) -> int:
    """Measure, print a table with intervals, and leave it in the run directory (of an environment: where out= says)."""
    from rich.console import Console

    from embodied import runs
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(EvalConfig, arguments.overrides)
    if config.env:
        return _environment(config)
    given = [f"{key}={value}" for key, value in (("policy", config.policy), ("out", config.out)) if value not in UNSET]
    if given:
        raise UsageError(f"{given[0]} is about an environment: say which, as in env=tabletop")
    run_dir = runs.find(config.run)
    from embodied.evaluation import evaluate

    evaluate(run_dir, config, Console())
    return 0


def _environment(config: EvalConfig) -> int:
    """A policy on an environment of the registry."""
    from pathlib import Path

    from rich.console import Console

    from embodied.evaluation import environments
    from embodied.progress import Progress

    if config.run:
        raise UsageError(f"env={config.env} and run={config.run}: give one of them; policy= names what acts in env")
    console = Console()
    with Progress(0, console=console) as progress:

        def count(steps: int) -> None:
            progress.stage(f"{config.env}, policy {config.policy}, {config.episodes} episodes")
            progress.advance(steps)

        found = environments.evaluate_policy(
            config.env, config.policy, config.episodes, config.seed, num_envs=config.num_envs, threads=config.threads,
            on_steps=count,
        )  # fmt: skip
    environments.show(found, console)
    if config.out:
        episodes, summary = environments.write(found, Path(config.out))
        console.print(f"kept in {summary} and {episodes.name}", soft_wrap=True, markup=False, highlight=False)
    return 0


COMMAND = Command(
    name="eval",
    usage="embodied eval [key=value ...]",
    about="""
Measures on episodes that nothing was trained or selected on: success with Wilson intervals, a random
policy, the play policy alone and the scripted oracle beside it. One JSON line an episode is left in the
run's evaluations/. With env= it measures a policy on an environment, ours or a suite's (docs/suites.md).
""",
    run=run,
    schema=EvalConfig,
    examples=(
        ("embodied eval", "every goal of the newest run's library, 200 episodes each"),
        ("embodied eval run=runs/quick seed=77", "another run, another set of episodes"),
        ("embodied eval what=instructions", "the 40 held-out instructions, 5 episodes each"),
        ("embodied eval env=tabletop policy=expert episodes=50", "the scripted expert on our own world"),
        ("embodied eval env=metaworld/drawer-open episodes=50 out=drawer.jsonl", "random actions on a suite's task"),
    ),
)
