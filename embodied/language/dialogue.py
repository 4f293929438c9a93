"""The conversation of every backend that writes text: ask, check, and let it mend its reply at most twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from embodied.language.base import LMError, LMRequest, LMResult, T, Usage, parse_reply
from embodied.language.checking import check_answer
from embodied.language.prompts import messages_of
from embodied.language.roles import ROLES

__all__ = ["REPAIRS", "Said", "Speak", "converse"]

REPAIRS = 2
_SHOWN = 2_000  # characters of a wrong reply that its writer is shown again


@dataclass(frozen=True)
class Said:
    """What a model wrote, what it cost, and whether it was cut off."""

    text: str
    usage: Usage
    cut: bool = False


Speak = Callable[[list[dict[str, Any]], type[BaseModel]], Said]
"""Chat messages and the type wanted -> what the model writes; LMError where it writes nothing."""


def converse(request: LMRequest[T], speak: Speak, name: str, repairs: int = REPAIRS) -> LMResult[T]:
    """The model's checked reply. Raises LMError, with all that was spent, where no reply is of use."""
    if request.role not in ROLES:
        raise LMError(f"unknown role '{request.role}'; the roles are {', '.join(ROLES)}")
    messages = messages_of(request)
    spent = Usage()
    problem = ""
    for _ in range(1 + repairs):
        try:
            said = speak(messages, request.reply)
        except LMError as error:
            raise LMError(str(error), spent + error.usage, final=error.final) from None
        spent += said.usage
        try:
            value = parse_reply(said.text, request.reply, request.role)
            check_answer(request, value)
            return LMResult(value, name, usage=spent)
        except LMError as error:
            problem = str(error) + (" (it was cut off)" if said.cut else "")
        wrong = {"role": "assistant", "content": said.text[:_SHOWN]}
        again = f"That cannot be used: {problem}. Reply again with one JSON object, mended."
        messages = [*messages[:2], wrong, {"role": "user", "content": again}]
    raise LMError(f"{problem}, and {name} did not mend it in {repairs} tries", spent)
