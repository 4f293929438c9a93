"""``embodied discover``: skills that nobody asked for."""

from __future__ import annotations

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import DiscoverConfig


def run(arguments: Arguments) -> int:
    """Compose the configuration and discover. The exit code is 0 when the budget is used up."""
    from rich.console import Console

    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(DiscoverConfig, arguments.overrides)
    from embodied.discovering import learn

    learn(config, Console())
    return 0


COMMAND = Command(
    name="discover",
    usage="embodied discover [method=NAME] [env=SCENE] [blocks=N] [key=value ...]",
    about="""
Learns one policy of many skills without a task. A code, drawn anew for every episode, says which skill acts; what
codes do to the blocks tells skills apart. slim has three rewards (come near, do what the code says, stay safe) and a
critic for each; the others of the field have their own one. rewards, weights, scales, combine and skill.* make others.

Writes out/: skills.json (50 codes from one start: what they cover, move, lift and violate, with versions),
coverage.png, paths.png, curves.png, gallery.mp4 and .png, report.html with all of them, and what learning goes on from:
the same command continues after a kill, as if it had not been killed (docs/discovery.md).
""",
    run=run,
    schema=DiscoverConfig,
    examples=(
        ("embodied discover", "slim, one block, 400,000 steps"),
        ("embodied discover method=metra blocks=2 seed=1", "another method, two blocks"),
        ("embodied discover skill.method=metra weights.safety=1", "slim's three critics, METRA's reward"),
        ("embodied discover combine=sum scales.reach=10", "one critic for the sum of rewards, one of them tenfold"),
        ("embodied discover 'rewards=[reach,skill,safety,lift]' skill.planar=false", "heights count, lifting is paid"),
        ("embodied discover env=scene.yaml blocks=3 out=runs/mine", "a scene of one's own"),
    ),
)
