"""The protocol of a language model: one request for a role, one typed and checked reply.

A request names a role (`embodied.language.roles`), carries that role's message and the type the reply must
have. A backend returns an `LMResult` whose value has passed that type's checks, or raises `LMError` with one
sentence; what a model writes is never executed and never trusted beyond its type. Backends that produce text
hand it to `parse_reply`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)


class LMError(RuntimeError):
    """A request or a reply that cannot be used; one sentence says which role and what was wrong."""


@dataclass(frozen=True)
class LMRequest(Generic[T]):
    """A message to a role, and the type of its reply."""

    role: str
    message: BaseModel
    reply: type[T]


@dataclass(frozen=True)
class LMResult(Generic[T]):
    """A checked reply and who gave it; ``degraded`` says what had to be answered by another way, and why."""

    value: T
    backend: str
    degraded: str = ""


class LanguageModel(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str: ...

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """Answer, or raise LMError."""
        ...


def parse_reply(raw: str | Mapping[str, Any], reply: type[T], role: str) -> T:
    """Text holding one JSON object (a code fence or prose around it is dropped), or a mapping, -> the reply.

    Raises LMError naming the role, the first field that is wrong and why.
    """
    if isinstance(raw, str):
        begin, end = raw.find("{"), raw.rfind("}")
        try:
            raw = json.loads(raw[begin : end + 1]) if 0 <= begin < end else None  # type: ignore[assignment]
        except ValueError as error:
            raise LMError(f"the reply to '{role}' is not JSON: {error}") from None
        if raw is None:
            raise LMError(f"the reply to '{role}' holds no JSON object; a {reply.__name__} was asked for")
    try:
        return reply.model_validate(raw)
    except ValidationError as error:
        raise LMError(f"the reply to '{role}' is no {reply.__name__}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem of a failed check as "field: what is wrong", on one line."""
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"]) or "the message"
    message = " ".join(str(detail["msg"]).removeprefix("Value error, ").split())
    rest = error.error_count() - 1
    return f"{where}: {message}" + (f" (and {rest} more)" if rest else "")
