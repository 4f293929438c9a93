"""``embodied doctor``: is this machine ready, and how fast is it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import DoctorConfig, LanguageConfig

OLDEST = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    text: str
    fine: bool = True


def run(arguments: Arguments) -> int:
    """Print one line a finding, as it is found. The exit code is 1 where something does not work."""
    from embodied.cli.config import compose

    COMMAND.no_words(arguments)
    config = compose(DoctorConfig, arguments.overrides)
    fine = True
    for finding in examine(config):
        print(f"{'ok  ' if finding.fine else 'FAIL'}  {finding.name:<19}{finding.text}", flush=True)
        fine &= finding.fine
    print("everything works" if fine else "something does not work: see the lines marked FAIL")
    return 0 if fine else 1


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    import embodied

    system = f"{platform.system()} {platform.machine()}"
    yield Finding("embodied", f"{embodied.__version__}, Python {platform.python_version()} on {system}", python_fine())
    yield from libraries()
    yield cores(config.threads)
    yield renderer()
    if config.language.backend != "grammar":
        yield language(config.language)
    if config.seconds > 0:
        yield throughput(config)


def python_fine() -> bool:
    """Whether this Python is new enough."""
    return sys.version_info >= OLDEST


def libraries() -> Iterator[Finding]:
    """The libraries that decide the results: their versions, and that they can be imported."""
    import importlib
    from importlib.metadata import version

    for distribution in ("torch", "mujoco", "gymnasium", "numba", "numpy", "stable-baselines3"):
        try:
            importlib.import_module(distribution.replace("-", "_"))
            yield Finding(distribution, version(distribution))
        except (ImportError, OSError) as error:  # OSError: a shared library that a wheel needs is missing
            yield Finding(distribution, f"cannot be imported: {str(error).splitlines()[0]}", fine=False)


def cores(threads: int) -> Finding:
    """What there is to compute with, and what is used of it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limited = {k: v for k in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if (v := os.environ.get(k))}
    note = "".join(f", {key}={value} is set" for key, value in limited.items())
    return Finding("cores", f"{usable} usable, {threads or usable} threads for physics{note}")


def renderer() -> Finding:
    """How the robot will be drawn here, decided as a run decides it."""
    try:
        from envs.playroom.scene import build_model
        from envs.rendering import make_renderer

        with make_renderer(build_model(), 64, 48) as drawn:
            return Finding("rendering", drawn.describe())
    except (ImportError, RuntimeError) as error:
        return Finding("rendering", f"does not work: {str(error).splitlines()[0]}", fine=False)


def language(config: LanguageConfig) -> Finding:
    """Who would speak for the robot, and whether it can be reached."""
    from embodied.errors import UsageError
    from embodied.language.base import LMError
    from embodied.language.selection import describe

    try:
        return Finding("language", describe(config))
    except (LMError, UsageError) as error:
        return Finding("language", str(error), fine=False)


def throughput(config: DoctorConfig) -> Finding:
    """Environment steps a second with random actions, after compiling."""
    from envs.bench import environment_rate
    from envs.vector import TabletopVectorEnv

    env = TabletopVectorEnv(config.num_envs, threads=config.threads)
    env.reset(seed=0)
    environment_rate(env, min(0.2, config.seconds))  # compiles
    rate = environment_rate(env, config.seconds)
    env.close()
    text = f"{rate:,.0f} environment steps/s ({rate / 20:,.0f} times real time), {config.num_envs} simulations"
    return Finding("throughput", f"{text}, {config.seconds:g} s", fine=rate > 0)


COMMAND = Command(
    name="doctor",
    usage="embodied doctor [key=value ...]",
    about="""
Prints the versions of what decides the results, the cores and threads, how the robot is drawn on this
machine, and a throughput check. One line each; the exit code is 1 where something does not work.
""",
    run=run,
    schema=DoctorConfig,
    examples=(
        ("embodied doctor", "everything, a few seconds"),
        ("embodied doctor seconds=0", "without the throughput check"),
    ),
)
