"""``embodied eval``: a run's skills, the held-out instructions, or a policy on any environment, on fresh episodes."""

from __future__ import annotations

from pathlib import Path

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import EvalConfig
from embodied.errors import UsageError

UNSET = ("", "random")
EXAM = {"depth": 1, "disturb": "none", "plan": "prior", "told": ""}  # what is about an exam alone, and its defaults
WORLDS = ("playroom", "Embodied/Playroom-v0")  # that exams are of


def run(arguments: Arguments) -> int:
    """Measure, print a table with intervals, and leave it in the run directory (of an environment: where out= says)."""
    from rich.console import Console

    from embodied import runs
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(EvalConfig, arguments.overrides)
    learnt = bool(config.env) and (Path(config.policy) / "encoder.json").is_file()  # from recorded episodes
    if config.exam or (learnt and config.env in WORLDS):
        return _exam(config)
    for key, default in EXAM.items():
        if (value := getattr(config, key)) != default:
            raise UsageError(
                f"{key}={value} is about an exam: env=playroom and exam=true, or a policy from recorded play"
            )
    if config.env:
        return _goals(config) if learnt else _environment(config)
    given = [f"{key}={value}" for key, value in (("policy", config.policy), ("out", config.out)) if value not in UNSET]
    if given:
        raise UsageError(f"{given[0]} is about an environment: say which, as in env=tabletop")
    run_dir = runs.find(config.run)
    from embodied.evaluation import evaluate

    evaluate(run_dir, config, Console())
    return 0


def _exam(config: EvalConfig) -> int:
    """A policy, random actions or the expert in the exam of goals given as states."""
    import imageio.v3 as imageio
    from rich.console import Console

    from embodied.evaluation import exams
    from embodied.progress import Progress

    if config.env not in WORLDS or config.run:
        raise UsageError("exam=true is of the playroom: env=playroom, and no run=")
    console = Console()
    with Progress(0, console=console) as progress:
        progress.stage(f"exam, policy {config.policy}, {config.episodes} questions a task")
        found = exams.examine(
            config.policy, questions=config.episodes, seed=config.seed, depth=config.depth, disturb=config.disturb,
            plan=config.plan, told=config.told, threads=config.threads, tick=progress.advance,
        )  # fmt: skip
    exams.show(found.summary(), console)
    if config.out:
        lines, summary = exams.write(found, Path(config.out))
        console.print(f"kept in {summary} and {lines.name}", soft_wrap=True, markup=False, highlight=False)
        picture = exams.plan_picture(config.policy, found)
        if picture is not None:
            path = Path(config.out).with_suffix(".plans.png")
            imageio.imwrite(path, picture)
            console.print(f"plans by task: {path}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _goals(config: EvalConfig) -> int:
    """A policy from recorded episodes on OGBench's five goals."""
    import json

    from rich.console import Console

    from embodied.data.durable import replace_file
    from embodied.evaluation import environments, exams
    from embodied.evaluation.goals_protocol import evaluate_goals
    from embodied.progress import Progress
    from embodied.training.offline import load_goal_policy

    console = Console()
    policy, encoder = load_goal_policy(config.policy)
    policy.seed(config.seed)
    with Progress(0, console=console) as progress:
        progress.stage(f"{config.env}, policy {config.policy}, {config.episodes} episodes a goal")
        found = evaluate_goals(
            config.env, policy, config.episodes, config.seed, features=encoder.features, on_steps=progress.advance
        )
    row = found.summary() | {"policy": config.policy}
    exams.show(row, console)
    if config.out:
        lines, summary = environments.write(found.all, Path(config.out))
        replace_file(summary, (json.dumps(row, indent=1, sort_keys=True) + "\n").encode())
        console.print(f"kept in {summary} and {lines.name}", soft_wrap=True, markup=False, highlight=False)
    return 0


def _environment(config: EvalConfig) -> int:
    """A policy on an environment of the registry."""
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

A training from recorded play sits an exam in env=playroom: from starts that nobody has seen, to where the scripted
expert got, judged as the tasks are (docs/learning-from-play.md). exam=true gives the same to random and expert.
""",
    run=run,
    schema=EvalConfig,
    examples=(
        ("embodied eval", "every goal of the newest run's library, 200 episodes each"),
        ("embodied eval run=runs/quick seed=77", "another run, another set of episodes"),
        ("embodied eval what=instructions", "the 40 held-out instructions, 5 episodes each"),
        ("embodied eval env=tabletop policy=expert episodes=50", "the scripted expert on our own world"),
        (
            "embodied eval env=playroom policy=runs/train/play depth=2 out=far.json",
            "a training from play: two tasks at once",
        ),
        ("embodied eval env=playroom exam=true policy=expert episodes=50", "the oracle's row of the same exam"),
        ("embodied eval env=metaworld/drawer-open episodes=50 out=drawer.jsonl", "random actions on a suite's task"),
    ),
)
