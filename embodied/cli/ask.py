"""``embodied ask``: an instruction in plain English, carried out on physics with what was learnt."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import AskConfig
from embodied.errors import UsageError


def run(arguments: Arguments) -> int:
    """Plan, act, and say what was done. The exit code is 0 where the instruction was fulfilled, else 1."""
    from rich.console import Console

    from embodied import runs
    from embodied.cli.config import compose

    instruction = " ".join(arguments.words).strip()
    if not instruction:
        raise UsageError('what should the robot do? embodied ask "put the red block in the drawer and close it"')
    config = compose(AskConfig, arguments.overrides)
    run_dir = runs.find(config.run)
    from embodied.asking import ask

    answer = ask(instruction, run_dir, config, Console())
    return 0 if answer.success else 1


COMMAND = Command(
    name="ask",
    usage='embodied ask "INSTRUCTION" [key=value ...]',
    about="""
Reads the instruction, plans it over the operators that were learnt, carries the plan out with admitted
skills on physics, replans where a step fails, and says what it did, as text and video. What it cannot read
or what cannot be is said in one sentence, with the words it knows.
""",
    run=run,
    schema=AskConfig,
    words={"INSTRUCTION": "what to do, in English"},
    examples=(
        ('embodied ask "put the red block in the drawer and close it"', "with the newest run's skills"),
        ('embodied ask "turn on the lamp" run=runs/quick seed=3', "that run's skills, another scene"),
        (
            'embodied ask "stack the red block on the blue block" video=stack.gif',
            "the video where you want it",
        ),
    ),
)
