"""The protocol of a language model: one request for a role, one typed and checked reply.

A request names a role (`embodied.language.roles`), carries that role's message and the type the reply must
have. A backend returns an `LMResult` whose value has passed that type's checks, or raises `LMError` with one
sentence; what a model writes is never executed and never trusted beyond its type. Backends that produce text
hand it to `parse_reply`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)
LONGEST = 262_144  # characters of a reply
DEEPEST = 32  # levels of brackets in a reply; the deepest that is ever asked for has 4
_MARKS = re.compile(r'["\\\[\]{}]')


@dataclass(frozen=True)
class Usage:
    """What an answer cost: requests made, tokens in and out as the backend counts them, seconds of waiting."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )


class LMError(RuntimeError):
    """A request or a reply that cannot be used; one sentence says which role and what was wrong.

    ``usage`` is what was spent all the same. ``final`` says that asking the same backend again is of no use.
    """

    def __init__(self, message: str, usage: Usage | None = None, *, final: bool = False) -> None:
        super().__init__(message)
        self.usage = usage or Usage()
        self.final = final


@dataclass(frozen=True)
class LMRequest(Generic[T]):
    """A message to a role, and the type of its reply."""

    role: str
    message: BaseModel
    reply: type[T]


@dataclass(frozen=True)
class LMResult(Generic[T]):
    """A checked reply, who gave it and what it cost; ``degraded`` says who should have given it, and why not."""

    value: T
    backend: str
    degraded: str = ""
    usage: Usage = field(default_factory=Usage)


class LanguageModel(Protocol):
    """Anything that answers requests."""

    @property
    def name(self) -> str: ...

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """Answer, or raise LMError."""
        ...


def parse_reply(raw: str | Mapping[str, Any], reply: type[T], role: str) -> T:
    """Text holding one JSON object (a code fence or prose around it is dropped), or a mapping, -> the reply.

    Raises LMError naming the role, the first field that is wrong and why. Text longer than LONGEST or nested deeper
    than DEEPEST is refused before it is read, and so are numbers that are not finite.
    """
    if isinstance(raw, str):
        if len(raw) > LONGEST:
            raise LMError(f"the reply to '{role}' is {len(raw):,} characters long; {LONGEST:,} are allowed")
        begin, end = raw.find("{"), raw.rfind("}")
        text = raw[begin : end + 1] if 0 <= begin < end else ""
        if not text:
            raise LMError(f"the reply to '{role}' holds no JSON object; a {reply.__name__} was asked for")
        try:
            raw = read_json(text)
        except ValueError as error:
            raise LMError(f"the reply to '{role}' is not JSON: {error}") from None
    try:
        return reply.model_validate(raw)
    except ValidationError as error:
        raise LMError(f"the reply to '{role}' is no {reply.__name__}: {first_problem(error)}") from None


def read_json(text: str) -> Any:
    """JSON from a stranger. ValueError where it is none, nested deeper than DEEPEST, or holds NaN or Infinity."""
    if depth(text) > DEEPEST:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def depth(text: str) -> int:
    """How deeply brackets outside of strings are nested; in time linear in the text and without recursion."""
    now = most = 0
    quoted, skip = False, -1
    for match in _MARKS.finditer(text):
        mark, at = match[0], match.start()
        if at == skip:
            continue
        if quoted:
            if mark == "\\":
                skip = at + 1
            quoted = mark != '"'
        elif mark == '"':
            quoted = True
        elif mark in "[{":
            now += 1
            most = max(most, now)
        elif mark in "]}":
            now -= 1
    return most


def first_problem(error: ValidationError) -> str:
    """The first problem of a failed check as "field: what is wrong", on one line."""
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"]) or "the message"
    message = " ".join(str(detail["msg"]).removeprefix("Value error, ").split())
    message = message if len(message) <= 400 else f"{message[:400]} …"  # it may quote what a stranger wrote
    rest = error.error_count() - 1
    return f"{where}: {message}" + (f" (and {rest} more)" if rest else "")
