"""What a backend may cost, and the ledger of what it did: one JSON line a request, appended, never rewritten.

The ledger stands in the run's folder, so a run that goes on remembers what it spent. A budget that is used up is an
LMError: the embedded default answers from there on (`embodied.language.guard`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embodied.errors import UsageError
from embodied.language.base import LanguageModel, LMError, LMRequest, LMResult, T, Usage
from embodied.language.cassettes import append_line, read_lines

__all__ = ["Budget", "Limits"]


@dataclass(frozen=True)
class Limits:
    """The most that may be spent, 0 for no limit; prices in money a million tokens."""

    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0
    money: float = 0.0
    price_in: float = 0.0
    price_out: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Money."""
        return (usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out) / 1e6

    def used_up(self, usage: Usage) -> str:
        """What is used up, in words; "" where nothing is."""
        spent = {
            "requests": usage.requests, "tokens": usage.prompt_tokens + usage.completion_tokens,
            "seconds": usage.seconds, "money": self.cost(usage),
        }  # fmt: skip
        for name, amount in spent.items():
            limit = getattr(self, name)
            if limit and amount >= limit:
                return f"the budget of {limit:g} {name} is used up ({amount:g})"
        return ""


class Budget:
    """A backend within ``limits``, every request in the ledger at ``path``.

    The request that crosses a limit is still answered; the next is refused. Raises UsageError for a ledger that
    cannot be read.
    """

    def __init__(self, inner: LanguageModel, limits: Limits, path: Path) -> None:
        self.inner, self.limits, self.path = inner, limits, path
        self.spent = Usage()
        fields = ("requests", "prompt_tokens", "completion_tokens", "seconds")
        for row in read_lines(path):
            try:
                requests, tokens_in, tokens_out = (int(row[name]) for name in fields[:3])
                self.spent += Usage(requests, tokens_in, tokens_out, float(row["seconds"]))
            except (KeyError, TypeError, ValueError):
                raise UsageError(f"{path} is no cost ledger: a line lacks one of {', '.join(fields)}") from None

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The backend's answer, paid for. Raises LMError where it fails or nothing is left to pay with."""
        spent = self.limits.used_up(self.spent)
        if spent:
            raise LMError(spent, final=True)
        try:
            result = self.inner.complete(request)
        except LMError as error:
            self._enter(request.role, error.usage, str(error))
            raise
        self._enter(request.role, result.usage, "")
        return result

    def _enter(self, role: str, usage: Usage, problem: str) -> None:
        self.spent += usage
        row = {
            "role": role, "backend": self.inner.name, "requests": usage.requests,
            "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
            "seconds": round(usage.seconds, 4), "money": self.limits.cost(usage), "problem": problem,
        }  # fmt: skip
        append_line(self.path, row)
