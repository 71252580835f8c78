"""One POST of JSON, within a time that no receiver can stretch. The address is secret: no error shows it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit


async def post(
    url: str,
    content: Mapping[str, Any],
    deadline_s: float,
    signed: Callable[[bytes], Mapping[str, str]] = lambda _body: {},
) -> str | None:
    """Have it delivered; None: accepted (2xx), else why not, in words without the address.

    A redirection is no acceptance: where it leads is not what was configured. signed: headers for a body.
    """
    body = json.dumps(content).encode()
    try:
        status = await asyncio.wait_for(_status(url, body, signed(body)), deadline_s)
    except (asyncio.TimeoutError, TimeoutError):
        return f"it gave no answer within {deadline_s:g} s"
    except ssl.SSLError as error:
        return f"no TLS connection: {error.reason or type(error).__name__}"
    except OSError as error:
        return error.strerror or type(error).__name__
    except (ValueError, EOFError, asyncio.LimitOverrunError) as error:
        return f"its answer is no HTTP ({type(error).__name__})"
    if 300 <= status < 400:
        return f"it answers {status}: redirections are not followed, set the address that it leads to"
    return None if 200 <= status < 300 else f"it answers {status}"


async def _status(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname, port, ssl=ssl.create_default_context() if secure else None, limit=4096
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = [
            f"POST {target} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "User-Agent: mt5crs-hub-watch",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            head.append(f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
        writer.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        await writer.drain()
        words = (await reader.readuntil(b"\n")).split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise ValueError("no status line")
        return int(words[1])
    finally:
        writer.transport.abort()  # what else it may send is not waited for
