"""``embodied report``: the run as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import RenderConfig, ReportConfig


def run(arguments: Arguments) -> int:
    """Write the report and print where it is."""
    from embodied import runs
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(ReportConfig, arguments.overrides)
    if config.run and (Path(config.run) / "discover.yaml").is_file():
        from embodied import discovering

        print(discovering.refresh(Path(config.run), config.render if config.render != RenderConfig() else None))
        return 0
    run_dir = runs.find(config.run)
    from embodied.viz.gather import refresh

    print(refresh(run_dir, config.render))
    return 0


COMMAND = Command(
    name="report",
    usage="embodied report [key=value ...]",
    about="""
Writes report.html into the run directory, also while the run goes on: what was mastered over steps and over
time, success with intervals, held-out instructions by depth, the library, the decisions, and videos of the
robot. Of a folder of `embodied discover`: the exam and pictures of the skills it holds by now.
""",
    run=run,
    schema=ReportConfig,
    examples=(
        ("embodied report", "of the newest run"),
        ("embodied report run=runs/quick", "of that one"),
        ("embodied report run=runs/discover/discovery-slim-1-seed0", "of discovered skills"),
    ),
)
