"""``embodied train``: one learner on one environment, measured as it learns, or from recorded episodes."""

from __future__ import annotations

import textwrap

from embodied.cli.arguments import Arguments, Command
from embodied.cli.fields import leaves
from embodied.cli.learners import LEARNERS, OFFLINE_LEARNERS, TrainConfig


def run(arguments: Arguments) -> int:
    """Compose the configuration and train. The exit code is 0 when the budget is used up."""
    from rich.console import Console

    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(TrainConfig, arguments.overrides)
    if config.policy.recorded:
        from embodied.training import recorded

        recorded.train(config, Console())
        return 0
    from embodied.training.baselines import train

    train(config, Console())
    return 0


def _learners() -> str:
    """Every learner, what it is, and its keys."""
    lines = []
    for name, kind in {**LEARNERS, **OFFLINE_LEARNERS}.items():
        lines.append(f"  policy={name}: {(kind.__doc__ or '').splitlines()[0]}")
        keys = ", ".join(key.removeprefix("policy.") for key in leaves(kind, "policy."))
        lines += textwrap.wrap(keys, 100, initial_indent="      policy. ", subsequent_indent="      ")
    return "\n".join(lines)


COMMAND = Command(
    name="train",
    usage="embodied train [policy=NAME] [env=NAME] [data=PLACE] [key=value ...]",
    about=f"""
Trains a learner of stable-baselines3, unmodified, on any of the worlds, and measures it on fresh seeded
episodes before, on the way and at the end. Writes out/: the final policy (config.json and safetensors), the
learning curve (curve.jsonl, curve.csv and TensorBoard scalars), summary.json with versions, and learner/, from
which the same command continues after a kill, as if it had not been killed: what was learnt since the last
measurement is learnt again. More steps than before go on from the end.

The others learn from recorded episodes, data=play:STEPS or of any format of `embodied data`, to reach goals that are
given as states or pictures, and then sit an exam of what the episodes are of: a playroom's tasks, OGBench's goals.
out/ has policy/, summary.json, log.jsonl and exam.json; the same command continues here too
(docs/learning-from-play.md).

learners, and the keys of each:
{_learners()}
""",
    run=run,
    schema=TrainConfig,
    examples=(
        ("embodied train env=reach policy=sb3/sac_her", "hindsight on a sparse reward, 50,000 steps"),
        ("embodied train env=reach policy=sb3/ppo world.reward=dense steps=300_000 num_envs=64", "on-policy, shaped"),
        ("embodied train env=push policy=sb3/sac_her steps=200_000 seed=1 out=runs/push", "another world, own folder"),
        ("embodied train env=tabletop world.observation=dict policy.gamma=0.98", "a world's and a learner's arguments"),
        ("embodied train policy=flow_bc data=play:1_000_000", "from play, which is recorded first; then the exam"),
        ("embodied train policy=flow_bc data=data/seen encoder=pixels", "from pictures that were recorded with play"),
        ("embodied train policy=hiql data=ogbench:cube-single-play-v0.npz batch=1024", "from OGBench's file"),
    ),
)
