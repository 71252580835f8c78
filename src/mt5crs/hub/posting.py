"""One POST, within a time that no receiver can stretch. The address is secret: no reason shows it."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

_LONGEST_LINE = 4096


def post(url: str, body: bytes, headers: Mapping[str, str], deadline_s: float) -> str:
    """Have JSON delivered; empty: accepted (2xx), else why not.

    A redirection is no acceptance: where it leads is not what was configured.
    """
    late = threading.Event()
    try:
        status = _status(url, body, headers, deadline_s, late)
    except TimeoutError:
        return f"it gave no answer within {deadline_s:g} s"
    except OSError as error:
        if late.is_set():
            return f"it gave no answer within {deadline_s:g} s"
        if isinstance(error, ssl.SSLError):
            return f"no TLS connection: {error.reason or type(error).__name__}"
        return error.strerror or type(error).__name__
    except ValueError as error:
        if late.is_set():
            return f"it gave no answer within {deadline_s:g} s"
        return f"its answer is no HTTP ({error})"
    if 300 <= status < 400:
        return f"it answers {status}: redirections are not followed, set the address that it leads to"
    return "" if 200 <= status < 300 else f"it answers {status}"


def _status(
    url: str, body: bytes, headers: Mapping[str, str], deadline_s: float, late: threading.Event
) -> int:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(socket.create_connection((str(parts.hostname), port), deadline_s))
        # Of this very connection, whoever reads from it: TLS takes the first one over.
        breaker = stack.enter_context(line.dup())
        timer = threading.Timer(deadline_s, _cut, (breaker, late))
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        if secure:
            context = ssl.create_default_context()
            line = stack.enter_context(context.wrap_socket(line, server_hostname=parts.hostname))
        line.sendall(_head(url, body, headers) + body)
        words = _first_line(line).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("no status line")
    return int(words[1])


def _cut(line: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _head(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path or '/'}{f'?{parts.query}' if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: mt5crs-hub",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _first_line(line: socket.socket) -> bytes:
    """What else it says is not waited for."""
    said = b""
    while b"\n" not in said:
        chunk = line.recv(_LONGEST_LINE)
        said += chunk
        if not chunk or len(said) > _LONGEST_LINE:
            break
    return said.partition(b"\n")[0]
