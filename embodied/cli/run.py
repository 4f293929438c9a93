"""``embodied run``: one life, from an empty library to a repertoire."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import RunConfig


def run(arguments: Arguments) -> int:
    """Compose the configuration and live. The exit code is 0 when the budget is used up."""
    from rich.console import Console

    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(RunConfig, arguments.overrides)
    from embodied import loop

    loop.run(config, Console())
    return 0


COMMAND = Command(
    name="run",
    usage="embodied run [preset=NAME] [key=value ...]",
    about="""
Plays, proposes goals to itself, practises them, and keeps what it can prove, until its budget of
environment steps is used up. Writes out/name/: the skill library, every episode, a ledger of every
decision, TensorBoard scalars, videos and report.html. The same command continues a run that was stopped or
killed.
""",
    run=run,
    schema=RunConfig,
    examples=(
        ("embodied run preset=quick", "a quarter of an hour on two cores; leaves runs/quick/report.html"),
        ("embodied run", "the whole thing, about forty minutes"),
        ("embodied run preset=quick name=second seed=1", "another life of the same kind"),
        ("embodied run play_policy=latent_plans+act_jepa discover_steps=480_000 name=paired", "docs/pairing.md"),
        ("embodied run proposer=uniform use_gate=false name=blind", "what the parts are worth"),
    ),
)
