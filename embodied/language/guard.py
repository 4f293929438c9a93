"""What stands between the loop and a backend: time-outs, a second look at every reply, and the embedded default.

`Guard` turns whatever a backend does (hang, crash, answer with the wrong thing) into a checked reply or an LMError.
`Fallback` turns an LMError into the embedded answer, marked as degraded; it raises only what the embedded one raises.
`Vetted` overrules proposals that are valid and poor: to practise what is out of reach costs a run as much as silence.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from embodied.curriculum.proposer import choose
from embodied.language.base import LanguageModel, LMError, LMRequest, LMResult, T, Usage, parse_reply
from embodied.language.checking import check_answer
from embodied.language.roles import ProposeReply, ProposeRequest

__all__ = ["PATIENCE", "Fallback", "Guard", "Vetted"]

HANGING = 4  # calls that may still be running after their time-out before no further one is begun
PATIENCE = 3  # failures in a row after which a backend is left alone for a while
FIRST_REST, LONGEST_REST = 8, 512  # requests that it is left alone for; twice as many each time


class Guard:
    """A backend held to ``timeout`` seconds a request, its replies checked anew whatever it says of them."""

    def __init__(self, inner: LanguageModel, timeout: float) -> None:
        self.inner, self.timeout = inner, timeout
        self._hanging: list[threading.Thread] = []

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The backend's reply, checked. Raises LMError, and nothing else."""
        result = self._in_time(request)
        value: Any = getattr(result, "value", None)
        if not isinstance(result, LMResult) or not isinstance(value, request.reply):
            found = type(value if isinstance(result, LMResult) else result).__name__
            raise LMError(f"{self.name} answered '{request.role}' with a {found}, not a {request.reply.__name__}")
        try:
            plain = value.model_dump(mode="json", warnings=False)
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise LMError(f"{self.name} answered '{request.role}' with what cannot be read: {error}") from None
        checked = parse_reply(plain, request.reply, request.role)
        check_answer(request, checked)
        return replace(result, value=checked)

    def _in_time(self, request: LMRequest[T]) -> Any:
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= HANGING:
            raise LMError(f"{self.name} still hangs in {HANGING} earlier requests")
        done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

        def work() -> None:
            try:
                done.put((True, self.inner.complete(request)))
            except Exception as error:  # a stranger's code: whatever it raises is its failure, not ours
                done.put((False, error))

        thread = threading.Thread(target=work, name="language", daemon=True)
        began = time.monotonic()
        thread.start()
        try:
            fine, found = done.get(timeout=self.timeout)
        except queue.Empty:
            self._hanging.append(thread)
            raise LMError(
                f"{self.name} gave no answer to '{request.role}' within {self.timeout:g} s",
                Usage(1, seconds=time.monotonic() - began),
            ) from None
        if fine:
            return found
        if isinstance(found, LMError):
            raise found
        raise LMError(f"{self.name} failed at '{request.role}' with {type(found).__name__}: {str(found)[:200]}")


class Fallback:
    """``first`` for the roles it is asked for; where it fails, or is not asked, ``default``.

    ``say`` is told each kind of failure once. A backend that fails `PATIENCE` times in a row, or finally, rests for
    a number of requests, twice as many each time, so that a dead one costs a run little.
    """

    def __init__(
        self,
        first: LanguageModel,
        default: LanguageModel,
        roles: Collection[str] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.first, self.default, self.roles, self.say = first, default, frozenset(roles), say
        self.degraded: dict[str, int] = {}  # role -> answers that the default gave in the other's place
        self.answered: dict[str, int] = {}  # role -> answers of the first
        self._failed = self._resting = 0
        self._rest = FIRST_REST
        self._why = ""
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        return self.first.name

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """An answer; raises LMError only where the default has none either."""
        if self.roles and request.role not in self.roles:
            return self.default.complete(request)
        if self._resting:
            self._resting -= 1
            return self._instead(request, Usage())
        try:
            result = self.first.complete(request)
        except LMError as error:
            self._failed += 1
            self._why = _shown(f"{self.name}: {error}")
            if error.final or self._failed >= PATIENCE:
                self._resting, self._rest = self._rest, min(LONGEST_REST, 2 * self._rest)
            self._tell(request.role, error)
            return self._instead(request, error.usage)
        self._failed, self._rest = 0, FIRST_REST
        self.answered[request.role] = self.answered.get(request.role, 0) + 1
        return result

    def _instead(self, request: LMRequest[T], spent: Usage) -> LMResult[T]:
        result = self.default.complete(request)
        self.degraded[request.role] = self.degraded.get(request.role, 0) + 1
        return replace(result, degraded=self._why, usage=result.usage + spent)

    def _tell(self, role: str, error: LMError) -> None:
        kind = "final" if error.final else role
        if kind not in self._told:
            self._told.add(kind)
            self.say(f"{self._why}; {self.default.name} answers instead")


class Vetted:
    """``inner``, but a first proposal that the embedded proposer scores more than ``leeway`` below its best is not
    taken: ``default`` answers, marked as degraded. Only the mode ``progress`` has scores.
    """

    def __init__(self, inner: LanguageModel, default: LanguageModel, leeway: float) -> None:
        self.inner, self.default, self.leeway = inner, default, leeway
        self.overruled = 0

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The inner answer, or the default's; LMError as they raise it."""
        result = self.inner.complete(request)
        message, value = request.message, result.value
        if not (isinstance(message, ProposeRequest) and isinstance(value, ProposeReply)) or result.degraded:
            return result
        if message.mode != "progress" or not value.proposals:
            return result
        every = choose(message.records, excluded=message.excluded, recent=message.recent, count=1 << 30)
        scores = {str(choice.goal): choice.score for choice in every}
        below = max(scores.values()) - scores[value.proposals[0].goal]
        if below <= self.leeway:
            return result
        self.overruled += 1
        why = f"{self.name} proposed '{value.proposals[0].goal}', {below:.2f} below the best score"
        instead = self.default.complete(request)
        return replace(instead, degraded=_shown(why), usage=instead.usage + result.usage)


def _shown(text: str) -> str:
    """A sentence that may quote a stranger, fit for a terminal and a ledger."""
    return "".join(c if c.isprintable() else " " for c in text[:400])
