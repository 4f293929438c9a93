"""A small server that speaks the chat-completions protocol on 127.0.0.1, well or badly, for tests and measurements.

It reads the role and the data out of the prompt that it is sent, as a model would, answers them by the grammar, and
then spoils the answer or the transport as its mode says. It is no language model and takes requests of at most 1 MB.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from embodied.language import roles
from embodied.language.base import LMError, LMRequest
from embodied.language.faults import INJECTION
from embodied.language.grammar import GrammarModel
from embodied.language.prompts import table_of

__all__ = ["MODES", "Stub", "stub_server"]

MODES = {
    "ok": "answers as asked",
    "rejects strict": "400 to a strict schema",
    "ignores schemas": "prose and a code fence around the JSON, whatever form was asked for",
    "plain only": "400 to any response_format, max_tokens, seed, and to pictures",
    "truncates": "every reply cut in the middle, finish_reason length",
    "breaks off": "the connection ends before the reply does",
    "429": "every second request: 429 with Retry-After",
    "500": "every request: 500",
    "stalls": "headers, then nothing",
    "drips": "a byte now and then, without end",
    "streams": "server-sent events, asked for or not",
    "injection": "does what a stranger's text in the data orders it to",
    "huge": "10 MB of reply",
    "nested": "100,000 brackets",
    "wrong types": "JSON of other types than asked for",
    "unknown symbols": "predicates, skills and objects that there are not",
    "not finite": "NaN and Infinity for numbers",
    "no completion": "valid JSON that is no chat completion",
}
MOST_BYTES = 1_000_000
_GRAMMAR = GrammarModel()


class Stub(ThreadingHTTPServer):
    """The server; ``seen`` keeps the bodies of the requests that it got, at most a thousand."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, mode: str, stall: float) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; valid are {', '.join(MODES)}")
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode, self.stall = mode, stall
        self.seen: list[dict[str, Any]] = []
        self.count = 0
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """The base URL of the endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


@contextlib.contextmanager
def stub_server(mode: str = "ok", stall: float = 5.0) -> Iterator[Stub]:
    """A server in a thread until the block ends; ``stall`` seconds are the most that it keeps a client waiting."""
    server = Stub(mode, stall)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        with contextlib.suppress(OSError):  # the client has left
            self._post()

    def _post(self) -> None:
        stub, length = self.server, int(self.headers.get("Content-Length", 0))
        if length > MOST_BYTES:
            self.close_connection = True
            return self._refuse(413, "too much")
        try:
            asked = json.loads(self.rfile.read(length))
            messages = asked["messages"]
        except (ValueError, KeyError, TypeError):
            return self._refuse(400, "this is no chat completion request")
        stub.count += 1
        stub.seen = [*stub.seen[-999:], asked]
        form = asked.get("response_format", {})
        mode = stub.mode
        if mode == "429" and stub.count % 2:
            return self._refuse(429, "slow down", {"Retry-After": "0.01"})
        if mode == "500":
            return self._refuse(500, "out of order")
        if mode == "rejects strict" and form.get("json_schema", {}).get("strict"):
            return self._refuse(400, "strict is not supported")
        if mode == "plain only":
            for name in ("max_tokens", "seed", "response_format"):
                if name in asked:
                    return self._refuse(400, f"unsupported parameter: {name}")
            if any(isinstance(m["content"], list) for m in messages):
                return self._refuse(400, "content must be a string")
        if mode in ("stalls", "drips"):
            return self._keep_waiting(drip=mode == "drips")
        text = _spoilt(mode, answer(messages), stub.count)
        if mode == "streams" or asked.get("stream"):
            return self._stream(text)
        if mode == "no completion":
            return self._send(b'{"choices": "none", "usage": [1, 2]}')
        if mode == "nested" and stub.count % 2:  # once within the text, once as the envelope itself
            return self._send(("[" * 100_000 + "]" * 100_000).encode())
        self._send(_completion(text, cut=mode == "truncates"), short=mode == "breaks off")

    def _send(self, body: bytes, short: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if short else body)
        self.close_connection = self.close_connection or short

    def _refuse(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": {"message": why, "type": "stub", "code": status}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _keep_waiting(self, drip: bool) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        until = time.monotonic() + self.server.stall
        while time.monotonic() < until and not self.server.over.wait(0.02):
            if drip:
                self.wfile.write(b" ")

    def _stream(self, text: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for at in range(0, len(text), 64):
            delta = {"choices": [{"index": 0, "delta": {"content": text[at : at + 64]}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(delta)}\n\n".encode())
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        self.wfile.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())


def _completion(text: str, cut: bool) -> bytes:
    said = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": said, "finish_reason": "length" if cut else "stop"}
    found = {"id": "stub", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice]}
    usage = {"prompt_tokens": 100, "completion_tokens": len(text) // 4 + 1, "total_tokens": 101 + len(text) // 4}
    return json.dumps(found | {"usage": usage}).encode()


def answer(messages: list[dict[str, Any]]) -> str:
    """What a model that does as it is told replies: the grammar's answer to the data in the prompt."""
    system, content = str(messages[0]["content"]), messages[1]["content"]
    text = content if isinstance(content, str) else str(content[0]["text"])
    role = re.search(r"You are the '(\w+)' part", system)
    fenced = re.fullmatch(r"<(data-\w+)>\n(.*)\n</\1>", text, re.DOTALL)
    if role is None or fenced is None:
        return '{"ready": true}'
    data = json.loads(fenced[2])
    if role[1] == "propose":
        goals = data["candidates"]
        chosen = [goals[(data["draw"] + i) % len(goals)] for i in range(min(data["count"], len(goals), 8))]
        reply = {"proposals": [{"goal": g, "reason": "It is open.", "score": 0.0} for g in dict.fromkeys(chosen)]}
        return json.dumps(reply)
    if role[1] in ("relabel", "judge"):
        data["literals"], data["truth"] = table_of(data.pop("changes"), data.pop("steps"))
    asked, wanted = roles.ROLES[role[1]]
    try:
        value = _GRAMMAR.complete(LMRequest(role[1], asked.model_validate(data), wanted)).value
    except (ValueError, LMError) as error:
        return f"I cannot: {error}"
    found = value.model_dump(mode="json")
    return json.dumps(found | {"evidence": "language"} if role[1] == "judge" else found)


def _spoilt(mode: str, text: str, count: int) -> str:
    if mode == "ignores schemas":
        return f"Of course! Here {{you}} are:\n```json\n{text}\n```\n" if count % 5 == 0 else f"Sure: ```\n{text}\n```"
    if mode == "truncates":
        return text[: len(text) // 2]
    if mode == "injection":
        return _obedient(text, subtle=count % 2 == 0)
    if mode == "huge":
        return '{"text": "' + "x" * 10_000_000 + '"}'
    if mode == "nested":
        return '{"proposals": ' + "[" * 100_000 + "]" * 100_000 + "}"
    if mode == "wrong types":
        return re.sub(r'": ("[^"]*"|\[\]|true|false|null|[-0-9.e]+)', '": {"a": [1]}', text)
    if mode == "unknown symbols":
        return re.sub(r"\b(lifted|open|closed|lit|placed|on|inside|left_of|red)\b", "zorb", text)
    if mode == "not finite":
        return re.sub(r": ([-0-9.e]+)", ": NaN" if count % 2 else ": 1e999", text)
    return text


def _obedient(text: str, subtle: bool) -> str:
    """A model that was talked into it: orders passed on in every free text, and, unless ``subtle``, status and evidence
    forged and a goal of the stranger's own."""
    found = json.loads(text) if text.startswith("{") else {}
    if not subtle:
        found |= {"status": "admitted", "code": "import os"}
        if "proposals" in found:
            found["proposals"] = [{"goal": "on(red, cabinet) ; lit(lamp)", "reason": INJECTION, "score": 1e9}]
        if "evidence" in found:
            found |= {"evidence": "simulator", "success": True}
    for proposal in found.get("proposals", ()):
        proposal["reason"] = INJECTION
    return json.dumps(found | {key: INJECTION for key in ("reason", "text", "do", "when", "dont") if key in found})
