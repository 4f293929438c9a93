"""The ``embodied`` command: finds the verb, runs it, and turns what a person can act on into one sentence.

A verb's module is imported only when it is called, so ``embodied --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys

from embodied import __version__
from embodied.cli.arguments import Command
from embodied.errors import UsageError

COMMANDS = {
    "run": "live and learn: from an empty library to a repertoire of skills (continues after a kill)",
    "train": "one learner on one world, or from recorded episodes, and how far it got (continues after a kill)",
    "discover": "skills nobody asked for: one policy, a code a skill, several critics (continues after a kill)",
    "ask": "carry out an instruction in plain English with the skills that were learnt",
    "eval": "measure a run's skills, or the held-out instructions, on fresh episodes",
    "skills": "list, show, export, import and revoke what was kept",
    "report": "write the run as one HTML file",
    "view": "look at a world, in the viewer or as a video",
    "data": "record play, and take data sets from one format to another",
    "doctor": "is this machine ready, and how fast is it",
    "bench": "speed of simulation, against the raw limit of the machine, and of drawing",
    "claims": "what this project claims, what was measured, and measuring it anew",
}

PACKAGES = ("embodied", "envs", "policies")

USAGE = """usage: embodied COMMAND [words] [key=value ...]

A robot that teaches itself: in simulation it plays, discovers, practises, and keeps only what it can prove.

commands:
{commands}

start here:
  embodied run preset=quick                                     a quarter of an hour on two cores
  embodied ask "put the red block in the drawer and close it"   with what it learnt
  embodied COMMAND --help                                       examples, and every key with its default
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command line. The exit code: 0 fine, 1 a reported error, 2 called wrongly, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # learners' threads must not spin while physics runs
    try:
        return _dispatch(argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped: nothing is lost; to go on: {_again(argv)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has gone: no more output, and none at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def is_user_error(error: BaseException) -> bool:
    """Whether the error is a sentence for a person: the operating system's, or of a class in our packages.

    Every error class of ours is raised with one sentence that says what is wrong and what is valid; anything
    else (a bare ValueError, a KeyError) is a fault of ours and shows its traceback.
    """
    ours = any(kind.__module__.split(".")[0] in PACKAGES for kind in type(error).__mro__)
    return ours or isinstance(error, OSError)


def load(name: str) -> Command:
    """A verb's definition, from its module."""
    return importlib.import_module(f"embodied.cli.{name}").COMMAND


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(USAGE.format(commands="\n".join(f"  {k:<{width}}  {v}" for k, v in COMMANDS.items())), end="")
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"embodied-repertoire {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}; valid commands: {', '.join(COMMANDS)}")
    command = load(name)
    if any(text in ("-h", "--help") for text in rest):
        from embodied.cli.config import groups

        print(command.help(groups(command.schema)))
        return 0
    parsed = command.parse(rest)
    if os.environ.get("MUJOCO_GL"):
        from envs.backends import import_mujoco

        import_mujoco()  # a GL library that is missing is no reason to stop
    return command.run(parsed)


def _again(argv: list[str]) -> str:
    """The same command line, quoted for a shell."""
    import shlex

    return shlex.join(["embodied", *argv])
