"""The one port: Prometheus asks for figures here and Alertmanager sends its sign of life."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

_HEAD_BYTES, _BODY_BYTES = 16 * 1024, 1024 * 1024
_PATIENCE_S = 5.0


class Door:
    """Serves one request a connection.

    hub: address from which scrapes and signs count. scraped, signed: called for each. figures: text of
    /metrics.
    """

    def __init__(
        self, hub: str, scraped: Callable[[], None], signed: Callable[[], None], figures: Callable[[], str]
    ) -> None:
        self._hub = ipaddress.ip_address(hub)
        self._scraped, self._signed, self._figures = scraped, signed, figures

    async def open(self, address: str, port: int) -> asyncio.Server:
        """Listen. OSError: that cannot be."""
        return await asyncio.start_server(self._serve, address, port, limit=_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, text = await asyncio.wait_for(self._answer(reader, writer), _PATIENCE_S)
            body = text.encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await asyncio.wait_for(writer.drain(), _PATIENCE_S)
        except (OSError, ValueError, EOFError, asyncio.TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever asks so gets nothing
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, str]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        named = (line.partition(":") for line in head[1:] if line)
        fields = {name.strip().lower(): value.strip() for name, _, value in named}
        length = int(fields.get("content-length", "0"))
        if not 0 <= length <= _BODY_BYTES:
            return "413 Content Too Large", "too large\n"
        for _ in range(0, length, 65536):  # to the end, or the sender sees its connection reset
            length -= len(await reader.readexactly(min(length, 65536)))
        of_hub = ipaddress.ip_address(writer.get_extra_info("peername")[0].partition("%")[0]) == self._hub
        if (method, path) == ("GET", "/metrics"):
            if of_hub and fields.get("user-agent", "").startswith("Prometheus/"):
                self._scraped()
            return "200 OK", self._figures()
        if (method, path) == ("GET", "/health"):
            return "200 OK", "ok\n"
        if (method, path) == ("POST", "/alive"):
            if not of_hub:
                return "403 Forbidden", "only the Hub's signs count\n"
            self._signed()
            return "200 OK", "ok"  # what Alertmanager expects of a receiver of this kind, to the letter
        return "404 Not Found", "there are /metrics, /health and /alive\n"
