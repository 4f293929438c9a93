"""Other people's worlds, each behind one thin adapter that keeps to our conventions.

Suite -> the adapter's class, as a string: neither a suite's library nor a simulator is imported before it is asked for.
``tasks("fetch")`` lists a suite's tasks, ``make_vector("fetch", "reach", 8)`` makes one, ``limits("fetch")`` says what
the suite cannot do. The libraries come with ``pip install "embodied-repertoire[suites]"``.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.suites.adapter import SuiteVectorEnv

__all__ = ["SUITES", "MissingLibraryError", "SuiteError", "UnknownTaskError", "limits", "make_vector", "tasks"]

SUITES: dict[str, str] = {
    "metaworld": "envs.suites.metaworld:MetaWorldVectorEnv",
    "fetch": "envs.suites.robotics:FetchVectorEnv",
    "hand": "envs.suites.robotics:HandVectorEnv",
    "myosuite": "envs.suites.myosuite:MyoSuiteVectorEnv",
    "babyai": "envs.suites.babyai:BabyAIVectorEnv",
    "ogbench": "envs.suites.ogbench:OGBenchVectorEnv",
}
"""Suite -> "module:class". Add an entry to make another suite known."""

_FEW, _SHOWN = 12, 60  # tasks that an error lists: the nearest first where they are more than few


class SuiteError(ValueError):
    """A suite was asked for something it does not have or cannot do; the sentence says what is valid."""


class MissingLibraryError(SuiteError, ImportError):
    """A suite's library is not installed; the sentence names the extra that brings it."""


class UnknownTaskError(SuiteError):
    """A suite has no such task; the sentence lists those it has, the nearest first where they are many."""


def suite_class(suite: str) -> type[SuiteVectorEnv]:
    """A suite's class. Raises SuiteError, naming the suites there are, for any other."""
    if suite not in SUITES:
        raise SuiteError(f"there is no suite '{suite}'; the suites are: {', '.join(SUITES)}")
    module, _, name = SUITES[suite].partition(":")
    return getattr(importlib.import_module(module), name)


def make_vector(suite: str, task: str, num_envs: int = 1, **arguments: Any) -> SuiteVectorEnv:
    """``num_envs`` copies of a suite's task; ``arguments`` as `envs.suites.adapter.SuiteVectorEnv` takes them.

    Raises MissingLibraryError, UnknownTaskError, or SuiteError for an argument that the suite cannot follow.
    """
    known = tasks(suite)
    if task not in known:
        raise UnknownTaskError(_unknown(suite, task, known))
    return suite_class(suite)(task, num_envs, **arguments)


def tasks(suite: str) -> list[str]:
    """The names of a suite's tasks, sorted. No environment is made; MissingLibraryError without the library."""
    return sorted(suite_class(suite).task_ids())


def limits(suite: str) -> str:
    """What a suite cannot do, in sentences."""
    return suite_class(suite).limits


def library(name: str) -> Any:
    """A suite's library. Raises MissingLibraryError where it is not installed, anything else as it comes."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:
            raise  # the library is there, and lacks something of its own
        raise MissingLibraryError(
            f'{top} is not installed, and this suite runs on it: pip install "embodied-repertoire[suites]"'
        ) from None


def _unknown(suite: str, task: str, known: list[str]) -> str:
    near = difflib.get_close_matches(task, known, n=5, cutoff=0.4) if len(known) > _FEW else []
    rest = [name for name in known if name not in near][: _SHOWN - len(near)]
    more = ", …" if len(near) + len(rest) < len(known) else ""
    nearest = f"; nearest: {', '.join(near)}" if near else ""
    return f"{suite} has no task '{task}'{nearest}; its {len(known)} tasks: {', '.join(rest)}{more}"
