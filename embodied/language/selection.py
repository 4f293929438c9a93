"""Which backend a configuration asks for, with everything around it: cassette, budget, guard and embedded default."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from embodied.errors import UsageError
from embodied.language.base import LanguageModel
from embodied.language.budget import Budget, Limits
from embodied.language.cassettes import Cassette
from embodied.language.grammar import GrammarModel
from embodied.language.guard import Fallback, Guard, Vetted

if TYPE_CHECKING:
    from embodied.cli.schema import LanguageConfig

__all__ = ["BACKENDS", "LEDGER", "agent_of", "describe"]

LEDGER = "language.jsonl"  # in the run's folder: what every request cost
_GRACE = 1.0  # seconds that a backend has beyond its own time-out before it is left alone


def agent_of(config: LanguageConfig, directory: Path, say: Callable[[str], None] = lambda line: None) -> LanguageModel:
    """The configured agent of the run in ``directory``. The grammar comes bare; all else may fail and is guarded.

    ``say`` is told what degrades. Raises UsageError for a library, key, folder or cassette that is not there.
    """
    grammar = GrammarModel()
    if config.backend == "grammar":
        return grammar
    backend = BACKENDS[config.backend](config)
    if config.cassette and config.backend != "replay":
        backend = Cassette(Path(config.cassette), config.model, backend)
    limits = Limits(**vars(config.budget))
    guarded = Guard(Budget(backend, limits, directory / LEDGER), config.timeout + _GRACE)
    agent = Fallback(guarded, grammar, config.roles, say)
    return agent if config.backend == "task_lm" else Vetted(agent, grammar, config.leeway)  # that one ranks as we do


def describe(config: LanguageConfig) -> str:
    """Who would answer, and what it was found able to do. Raises LMError where it cannot be reached, or UsageError."""
    backend = BACKENDS[config.backend](config)
    probe = getattr(backend, "probe", None)
    able = f", {probe().describe()}" if probe else ""
    return f"{config.backend}: {backend.name}{able}; asked to {', '.join(config.roles)}"


def _openai(config: LanguageConfig) -> LanguageModel:
    key = os.environ.get(config.key_variable, "") if config.key_variable else ""
    if config.key_variable and not key:
        raise UsageError(f"language.key_variable names {config.key_variable}, which is not set in the environment")
    try:
        from embodied.language.openai_server import OpenAIModel
    except ImportError:
        raise UsageError(
            "language.backend=openai needs the openai client: pip install 'embodied-repertoire[language]'"
        ) from None
    return OpenAIModel(
        config.endpoint, config.model, key=key, timeout=config.timeout, retries=config.retries,
        max_tokens=config.max_tokens, temperature=config.temperature, seed=config.seed,
    )  # fmt: skip


def _transformers(config: LanguageConfig) -> LanguageModel:
    from embodied.language.transformers_local import load

    return load(config.model, config.max_tokens)


def _task_lm(config: LanguageConfig) -> LanguageModel:
    from embodied.language.task_lm import TaskLanguageModel
    from policies.checkpoint import CheckpointError

    try:
        return TaskLanguageModel.from_pretrained(config.model)
    except CheckpointError as error:
        raise UsageError(f"language.model = '{config.model}' holds no task model: {error}") from error


BACKENDS: dict[str, Callable[[LanguageConfig], LanguageModel]] = {
    "grammar": lambda config: GrammarModel(),
    "task_lm": _task_lm,
    "openai": _openai,
    "transformers": _transformers,
    "replay": lambda config: Cassette(Path(config.cassette), config.model),
}
"""Name -> backend; the names of `embodied.cli.schema.LANGUAGES`."""
