"""``embodied view``: look at a world and at what acts in it."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import ViewConfig


def run(arguments: Arguments) -> int:
    """Open the viewer, or write a video and a strip, and say which and why."""
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(ViewConfig, arguments.overrides)
    from embodied.viz.view import view

    view(config)
    return 0


COMMAND = Command(
    name="view",
    usage="embodied view [env=NAME] [policy=random|script|DIR] [key=value ...]",
    about="""
Shows a world: in MuJoCo's own viewer where there is a screen (space pauses, the right arrow steps, a body can be
pushed with the mouse), otherwise as a video and a PNG strip of stills. Who acts is chance, the world's script, a
saved policy, a skill of a run's library, or a recorded episode of a run, which happens again.
""",
    run=run,
    schema=ViewConfig,
    examples=(
        ("embodied view", "the table-top, random actions"),
        ("embodied view policy=script goal='on(red, blue)'", "the world's script at a goal"),
        ("embodied view skill='open(drawer)' run=runs/quick", "a skill that was learnt"),
        ("embodied view episode=0 run=runs/quick", "a recorded episode once more"),
        ("embodied view env=tabletop steps=100 out=look.mp4", "a video where you want it"),
    ),
)
