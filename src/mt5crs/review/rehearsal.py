"""A provider of reviews on this machine: real HTTP, three dialects, counted calls, faults on demand."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mt5crs.settings.review import Model, Provider, Reviewer, ReviewSettings

KEY = "a-key-of-nobody"
Brain = Callable[[str], str]
"""From a question to the text of a reply."""
_NAME = re.compile(r"^===== (F\d+) [0-9a-f]{24} =====$", re.MULTILINE)


def names(question: str) -> list[str]:
    """The files that a question asks about."""
    return list(dict.fromkeys(_NAME.findall(question)))


def nothing_found(question: str) -> str:
    """A reviewer that has looked at everything and found nothing."""
    return json.dumps({"reviewed": names(question), "findings": []})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what faults are for; anything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class ProviderServer:
    """Use as a context manager. `faults` are used up one a call; then it answers what `brain` says."""

    def __init__(
        self, brain: Brain = nothing_found, faults: Iterable[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self.brain = brain
        self.faults = deque(faults)
        self.always = ""
        """A fault of every call."""
        self.calls = 0
        self.answered = 0
        self.tokens_in = 0
        self.keys: list[str] = []
        self.questions: list[str] = []
        self.models: list[str] = []
        self.redirected = 0
        self.thinks_s = 0.0
        """How long it takes to answer, beside the work."""
        self._done = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner._answer(self)

            def do_GET(self) -> None:
                owner.redirected += 1
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ProviderServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._server.shutdown()
        self._server.server_close()

    def settings(self, provider: Provider = "anthropic", **others: Any) -> ReviewSettings:
        """Settings that ask this server, with the prices of a small, a middle and a large model."""
        given = {"reviewer": reviewer(self.endpoint, provider), "api_key": KEY, "backoff_s": 0.01}
        return ReviewSettings(**{**given, **others})

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.calls += 1
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        key = handler.headers.get("x-api-key") or handler.headers.get("x-goog-api-key")
        self.keys.append(key or handler.headers.get("authorization", "").removeprefix("Bearer "))
        fault = self.always or (self.faults.popleft() if self.faults else "")
        if fault and self._fault(handler, fault):
            return
        self.answered += 1
        question, document = _dialect(handler.path, body, self.brain, fault)
        self.questions.append(question)
        self.models.append(_model(handler.path, body))
        self.tokens_in += _tokens(body)
        self._done.wait(self.thinks_s)
        _send(handler, 200, json.dumps(document).encode())

    def _fault(self, handler: BaseHTTPRequestHandler, fault: str) -> bool:
        """Do what the fault says; False when the call is answered all the same."""
        if fault.isdigit():
            _send(handler, int(fault), b'{"error": {}}', {"retry-after": "0"} if fault == "429" else {})
        elif fault == "wait":
            _send(handler, 429, b"{}", {"retry-after": "3600"})
        elif fault == "redirect":
            _send(handler, 307, b"", {"location": f"{self.endpoint}/elsewhere"})
        elif fault == "slow":
            self._done.wait(30)
        elif fault == "cut":
            handler.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
            )
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "drip":
            self._endless(handler, b" ", 0.02)
        elif fault == "endless":
            self._endless(handler, b" " * 65536, 0)
        elif fault == "header drip":
            self._forever(handler, b"HTTP/1.1 200 OK\r\nx-a: ", b"a", 0.02)
        elif fault == "many headers":
            self._forever(handler, b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 100, 0)
        elif fault == "informational":
            self._forever(handler, b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.005)
        elif fault == "huge":
            begin = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n"
            self._forever(handler, begin, b" " * 65536, 0)
        elif fault == "type":
            _send(handler, 200, b"{}", {"content-type": "text/html"})
        elif fault == "gzip":
            _send(handler, 200, b"\x1f\x8b", {"content-encoding": "gzip"})
        elif fault == "no json":
            _send(handler, 200, b"<html>")
        elif fault == "half":
            _send(handler, 200, b'{"content": [{"type": "te')
        elif fault == "dialect":
            _send(handler, 200, b'{"choices": 7, "content": "x", "candidates": {}}')
        elif fault == "deep":
            _send(handler, 200, b"[" * 100_000)
        else:
            return False  # "cut off": a fault of the dialect
        return True

    def _endless(self, handler: BaseHTTPRequestHandler, piece: bytes, pause_s: float) -> None:
        begin = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        self._forever(handler, begin, b"%x\r\n%s\r\n" % (len(piece), piece), pause_s)

    def _forever(self, handler: BaseHTTPRequestHandler, begin: bytes, piece: bytes, pause_s: float) -> None:
        try:
            handler.wfile.write(begin)
            while not self._done.wait(pause_s):
                handler.wfile.write(piece)
        except OSError:
            handler.close_connection = True


def reviewer(endpoint: str, provider: Provider = "anthropic") -> Reviewer:
    """A reviewer at an address, with the prices of a small, a middle and a large model."""
    return Reviewer(
        provider, endpoint, Model("large", 15.0, 75.0), Model("middle", 3.0, 15.0), Model("small", 0.8, 4.0)
    )


def _tokens(document: object) -> int:
    """Tokens of all texts in a request, four characters each; as with providers, instructions count."""
    if isinstance(document, str):
        return len(document) // 4
    if isinstance(document, list):
        return sum(map(_tokens, document))
    return sum(map(_tokens, document.values())) if isinstance(document, dict) else 0


def _model(path: str, body: dict[str, Any]) -> str:
    return str(body.get("model") or path.split("/")[-1].partition(":")[0])


def _dialect(path: str, body: dict[str, Any], brain: Brain, fault: str) -> tuple[str, dict[str, Any]]:
    """The question in a request, and the answer as the provider that is asked by this path gives it."""
    whole = fault != "cut off"
    if path == "/v1/messages":
        question = body["messages"][0]["content"]
        text = brain(question)
        return question, {
            "model": body["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn" if whole else "max_tokens",
            "usage": {"input_tokens": _tokens(body), "output_tokens": len(text) // 4},
        }
    if path == "/v1/chat/completions":
        question = body["messages"][1]["content"]
        text = brain(question)
        return question, {
            "model": body["model"],
            "choices": [{"message": {"content": text}, "finish_reason": "stop" if whole else "length"}],
            "usage": {"prompt_tokens": _tokens(body), "completion_tokens": len(text) // 4},
        }
    question = body["contents"][0]["parts"][0]["text"]
    text = brain(question)
    return question, {
        "modelVersion": _model(path, body),
        "candidates": [
            {"content": {"parts": [{"text": text}]}, "finishReason": "STOP" if whole else "MAX_TOKENS"}
        ],
        "usageMetadata": {"promptTokenCount": _tokens(body), "candidatesTokenCount": len(text) // 4},
    }


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"content-type": "application/json", **(headers or {})}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
