"""One call of a provider over HTTP: bounded in time and size, to the named host and to no other."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from mt5crs.review.providers import Request

MOST_BYTES: Final = 2_000_000
"""Of an answer; findings are a few thousand."""
_LATER: Final = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_REFUSED: Final = frozenset((401, 402, 403))


class CallError(Exception):
    """The call brought no answer. `billed`: whether it may have cost something all the same."""

    billed = False


class LaterError(CallError):
    """Asking again may help, after `wait_s` seconds if the provider said so."""

    def __init__(self, message: str, *, wait_s: float | None = None, billed: bool = False) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.billed = billed


class RefusedError(CallError):
    """Asking again does not help: the key, the request or the address is wrong."""


class Answer(NamedTuple):
    """The JSON that came, and the provider's own number for the call."""

    document: Any
    request_id: str


def call(request: Request, key: str, within_s: float) -> Answer:
    """Send a request and read the whole answer.

    :raises LaterError: no connection, too slow, cut, too large, no JSON, or the provider asks to wait
    :raises RefusedError: refused, or answered by a redirect
    """
    # Not at the top: whoever makes no call, and other services, need not load it.
    import httpx

    headers = {
        **request.headers,
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",  # what is small on the line and huge here is not taken
        request.key_header: f"{request.key_prefix}{key}",
    }
    body = msgspec.json.encode(request.body)
    limits = httpx.Timeout(within_s, connect=min(within_s, 10.0))
    deadline = _Deadline(within_s)
    try:
        with (
            deadline,
            httpx.Client(timeout=limits, verify=_certificates(), trust_env=False) as client,
            client.stream(
                "POST", request.url, content=body, headers=headers, extensions={"trace": deadline.look}
            ) as answer,
        ):
            _look(answer.status_code, answer.headers)
            content = bytearray()
            for piece in answer.iter_raw():
                content += piece
                if len(content) > MOST_BYTES:
                    raise LaterError(f"the answer is larger than {MOST_BYTES} bytes", billed=True)
            number = answer.headers.get("request-id") or answer.headers.get("x-request-id") or ""
    except httpx.ConnectError as error:
        raise LaterError(f"no connection: {error}") from None
    except httpx.TimeoutException:
        raise LaterError(f"no answer within {within_s:g} s", billed=True) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if deadline.over:
            raise LaterError(f"the answer took longer than {within_s:g} s", billed=True) from None
        raise LaterError(f"the connection broke: {type(error).__name__}", billed=True) from None
    try:
        return Answer(msgspec.json.decode(bytes(content)), number[:100])
    except (msgspec.DecodeError, RecursionError):
        raise LaterError("the answer is no JSON", billed=True) from None


class _Deadline:
    """Ends a connection after so many seconds, whatever it waits for.

    Time limits of httpx are those of one read: an answer whose headers come byte by byte keeps them all.
    """

    def __init__(self, within_s: float) -> None:
        self.over = False
        self._stream: Any = None
        self._timer = threading.Timer(within_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def look(self, event: str, about: Mapping[str, Any]) -> None:
        """Told by httpx of what it does (its extension `trace`): remember the connection."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = about["return_value"]
            if self.over:
                self._end()

    def _end(self) -> None:
        self.over = True
        if self._stream is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, and TLS 1.2 at least. Reading it takes longer than a call on this machine."""
    import httpx

    context = httpx.create_ssl_context(trust_env=False)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _look(status: int, headers: Mapping[str, str]) -> None:
    if status in _LATER:
        raise LaterError(f"HTTP {status}", wait_s=_seconds(headers.get("retry-after", "")))
    if 300 <= status < 400:
        raise RefusedError(f"HTTP {status}: a redirect, which is not followed; correct the endpoint")
    if status in _REFUSED:
        raise RefusedError(f"HTTP {status}: the key is refused; set another one")
    if status != 200:
        raise RefusedError(f"HTTP {status}; check endpoint and model")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json" or headers.get("content-encoding", "identity") != "identity":
        raise LaterError(f"the answer is {kind or 'of no type'}, not JSON", billed=True)


def _seconds(text: str) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
