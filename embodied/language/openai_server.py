"""Any server that speaks OpenAI's chat completions, through the ``openai`` client (extra ``language``).

What the server can do is found out by asking, once, and remembered. A reply's form is asked for by the first of
`SCHEMAS` that the server takes and keeps to: a strict schema, a schema, any JSON object, or the schema told in words.
A refusal (400, 415, 422, 501) of a later request goes one further down; parameters that it names are left out, and
pictures first of all. Streams are read whether they were asked for or not. Replies are read up to `MOST_BYTES` and to
a deadline that covers retries and repairs; 408, 409, 429 and 5xx are tried again after what Retry-After asks for.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel

from embodied.language.base import LMError, LMRequest, LMResult, T, Usage, parse_reply, read_json
from embodied.language.dialogue import Said, converse
from embodied.language.prompts import strict_schema, with_schema, without_pictures

try:  # what the client stands on, by the name that its version uses
    import httpx2 as http  # pyright: ignore[reportMissingImports]
except ImportError:
    import httpx as http  # pyright: ignore[reportMissingImports]

__all__ = ["MOST_BYTES", "SCHEMAS", "Capabilities", "OpenAIModel"]

SCHEMAS = ("strict", "schema", "object", "text")
MOST_BYTES = 1_000_000  # of a reply, envelope and all
LONGEST_WAIT = 20.0  # seconds that Retry-After is heeded for
_REFUSED, _AGAIN = (400, 415, 422, 501), (408, 409, 429)
_OPTIONAL = ("max_tokens", "temperature", "seed", "response_format")


class Ready(BaseModel):
    """What the first request asks for."""

    ready: bool


@dataclass
class Capabilities:
    """What a server was found to take. ``images`` None: not tried yet."""

    schema: str = SCHEMAS[0]
    stream: bool = False
    images: bool | None = None
    left_out: set[str] = field(default_factory=set)

    def describe(self) -> str:
        """In words."""
        sees = {None: "pictures not tried", True: "sees pictures", False: "sees no pictures"}[self.images]
        return f"replies by {self.schema}{', streamed' if self.stream else ''}, {sees}"


class OpenAIModel:
    """A model behind ``endpoint`` (its base URL). ``timeout`` in seconds is for a whole answer, repairs included."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        key: str = "",
        timeout: float = 60.0,
        retries: int = 2,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        host = urlsplit(endpoint).hostname or ""
        self.name = f"{model} at {host}"
        self.model, self.timeout, self.retries = model, timeout, retries
        self.settings = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        self.able: Capabilities | None = None
        here = host == "localhost" or host.startswith("127.") or host == "::1"
        nothing: Any = openai.Omit()
        self._client = openai.OpenAI(
            base_url=endpoint,
            api_key=key or "none",
            max_retries=0,
            http_client=http.Client(
                trust_env=not here,  # a proxy is not asked for what is on this machine
                limits=http.Limits(max_keepalive_connections=0),  # so that nothing is left open between requests
            ),
            default_headers={"OpenAI-Organization": nothing, "OpenAI-Project": nothing},  # not this server's business
        )

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The model's checked reply, mended at most twice; LMError otherwise."""
        until, spent = time.monotonic() + self.timeout, Usage()
        if self.able is None:
            spent = self._probe(until)
        try:
            result = converse(request, lambda messages, reply: self._speak(messages, reply, until), self.name)
        except LMError as error:
            raise LMError(str(error), error.usage + spent, final=error.final) from None
        return LMResult(result.value, result.backend, usage=result.usage + spent)

    def probe(self) -> Capabilities:
        """What the server can do, found out now. Raises LMError where it cannot be reached."""
        self._probe(time.monotonic() + self.timeout)
        assert self.able is not None
        return self.able

    def close(self) -> None:
        """Closes connections."""
        self._client.close()

    def _probe(self, until: float) -> Usage:
        """Descends to the first form of reply that the server takes and keeps to."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "Reply with one JSON object and nothing else."},
            {"role": "user", "content": 'Reply {"ready": true}.'},
        ]
        able, spent = Capabilities(), Usage()
        self.able = able
        try:
            while True:
                said = self._speak(messages, Ready, until)
                spent += said.usage
                try:
                    parse_reply(said.text, Ready, "ready")
                    return spent
                except LMError:
                    if able.schema == SCHEMAS[-1]:
                        return spent
                    able.schema = SCHEMAS[SCHEMAS.index(able.schema) + 1]
        except LMError as error:
            self.able = None
            raise LMError(str(error), spent + error.usage, final=error.final) from None

    def _speak(self, messages: list[dict[str, Any]], reply: type[BaseModel], until: float) -> Said:
        """One reply, capabilities lowered and failures tried again as long as time and retries last."""
        assert self.able is not None
        able, tries, began = self.able, 0, time.monotonic()
        pictures = any(isinstance(message["content"], list) for message in messages)
        made = 0
        while True:
            left = until - time.monotonic()
            if left <= 0.0:
                raise LMError(f"{self.name} took longer than {self.timeout:g} s", self._lost(made, began))
            wait = 0.5 * 2**tries
            made += 1
            try:
                said = self._send(messages, reply, until)
                if pictures and able.images is None:
                    able.images = True
                return Said(said.text, said.usage + self._lost(made, began), said.cut)
            except openai.APIStatusError as error:
                status, told = error.status_code, " ".join(str(error).split())[:300]
                if status in _REFUSED and self._lower(told, pictures):
                    continue
                problem = f"{self.name} answered {status}: {told}"
                if status == 501 or (status not in _AGAIN and status < 500):
                    raise LMError(problem, self._lost(made, began), final=True) from None
                wait = _asked_for(error.response.headers.get("retry-after"), wait)
            except LMError as error:  # too much, or too slow: the same would come again
                raise LMError(str(error), self._lost(made, began)) from None
            except (openai.OpenAIError, http.HTTPError, OSError) as error:
                problem = f"{self.name} cannot be reached: {type(error).__name__}, {' '.join(str(error).split())[:200]}"
            except (ValueError, RecursionError, AttributeError) as error:
                problem = f"{self.name} sent no chat completion: {' '.join(str(error).split())[:200]}"
            tries += 1
            if tries > self.retries or time.monotonic() + wait >= until:
                raise LMError(problem, self._lost(made, began))
            time.sleep(wait)

    def _lost(self, made: int, began: float) -> Usage:
        return Usage(requests=made, seconds=time.monotonic() - began)

    def _lower(self, told: str, pictures: bool) -> bool:
        """Asks for less from now on; False where nothing is left to do without."""
        assert self.able is not None
        able = self.able
        if pictures and able.images is None:
            able.images = False
            return True
        named = [name for name in _OPTIONAL[:3] if name in told and name not in able.left_out]
        if named:
            able.left_out.add(named[0])
        elif "stream" in told and not able.stream:
            able.stream = True
        elif able.schema != SCHEMAS[-1]:
            able.schema = SCHEMAS[SCHEMAS.index(able.schema) + 1]
        else:
            return False
        return True

    def _send(self, messages: list[dict[str, Any]], reply: type[BaseModel], until: float) -> Said:
        """One HTTP request. Raises the client's errors, and ValueError for what is no completion."""
        assert self.able is not None
        able = self.able
        sent = messages if able.images is not False else without_pictures(messages)
        sent = with_schema(sent, reply) if able.schema in SCHEMAS[2:] else sent
        arguments: dict[str, Any] = {k: v for k, v in self.settings.items() if k not in able.left_out}
        if "max_tokens" in able.left_out:
            arguments["max_completion_tokens"] = self.settings["max_tokens"]  # the name that newer servers want
        if able.schema == "object":
            arguments["response_format"] = {"type": "json_object"}
        elif able.schema != "text":
            form: dict[str, Any] = {"name": reply.__name__, "schema": strict_schema(reply)}
            form |= {"strict": True} if able.schema == "strict" else {}
            arguments["response_format"] = {"type": "json_schema", "json_schema": form}
        if able.stream:
            arguments["stream"] = True
        create: Any = self._client.chat.completions.with_streaming_response.create
        left = max(0.01, until - time.monotonic())
        with create(model=self.model, messages=sent, timeout=left, **arguments) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise LMError(f"{self.name} sent more than {MOST_BYTES:,} bytes")
                if time.monotonic() > until:
                    raise LMError(f"{self.name} took longer than {self.timeout:g} s")
        text = body.decode("utf-8", "replace")
        parts = _stream(text) if text.lstrip().startswith(("data:", "event:", ":")) else [read_json(text)]
        said, cut, (tokens_in, tokens_out) = _read(parts)
        asked = sum(len(str(message["content"])) for message in sent)
        return Said(said, Usage(0, tokens_in or asked // 4, tokens_out or len(said) // 4), cut)


def _asked_for(header: str | None, wait: float) -> float:
    """Seconds of a Retry-After header, within bounds; ``wait`` where there is none that can be read."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(header or "")))
    except ValueError:
        return wait


def _stream(text: str) -> list[Any]:
    """The JSON events of a stream."""
    lines = (line[5:].strip() for line in text.splitlines() if line.startswith("data:"))
    return [read_json(line) for line in lines if line and line != "[DONE]"]


def _read(parts: list[Any]) -> tuple[str, bool, tuple[int, int]]:
    """Text, whether it was cut off, and tokens (in, out; 0 where not told) of a completion or of its events.

    Raises ValueError where there is no text.
    """
    text, cut, tokens = "", False, (0, 0)
    for part in parts:
        if not isinstance(part, dict):
            raise ValueError(f"a {type(part).__name__} where an object belongs")
        choices = part.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        said = choice.get("message") or choice.get("delta") or {}
        content = said.get("content") if isinstance(said, dict) else None
        if isinstance(content, list):
            content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
        if isinstance(content, str):
            text += content
        cut = cut or choice.get("finish_reason") == "length"
        usage = part.get("usage")
        if isinstance(usage, dict):
            found = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
            given = [n if isinstance(n, int) and 0 <= n < 10**9 else 0 for n in found]
            tokens = (given[0], given[1])
    if not text:
        raise ValueError(f"no text in {json.dumps(parts)[:150]}")
    return text, cut, tokens
