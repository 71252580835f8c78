"""The HTTP end point of a service: `/metrics` for Prometheus and `/health` as JSON (200 healthy, 503 not).

A GET-only responder of its own, because http.server loads 40 ms of modules that a service never needs.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping

from mt5crs.protocol.addresses import is_ipv6, with_port
from mt5crs.service.metrics import Registry

_MAX_REQUEST = 8192
_TIMEOUT_S = 2.0
Health = Mapping[str, object]
"""At least `healthy` (bool) and `state` (str: starting, ready, unknown, halted, …)."""


class Endpoint:
    """Serves on its own daemon thread until closed."""

    def __init__(self, address: str, port: int, registry: Registry, health: Callable[[], Health]) -> None:
        """Bind at once (port 0: any free one); raises OSError that names address and port if that fails."""
        self._registry = registry
        self._health = health
        self._closed = False
        family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address, port))
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise OSError(
                f"cannot serve metrics on {with_port(address, port)}: {error.strerror}; "
                "set METRICS_ADDRESS to an address of this host and METRICS_PORT to a free port"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, name="endpoint", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._closed = True
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                continue
            with peer:
                try:
                    self._answer(peer)
                except OSError:
                    continue  # the peer went away; its loss

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(_TIMEOUT_S)
        request = b""
        while b"\r\n\r\n" not in request and len(request) < _MAX_REQUEST:
            chunk = peer.recv(_MAX_REQUEST)
            if not chunk:
                return
            request += chunk
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            status, kind, body = "405 Method Not Allowed", "text/plain", "only GET\n"
        elif path == b"/metrics":
            status, kind, body = "200 OK", "text/plain; version=0.0.4; charset=utf-8", self._registry.render()
        elif path == b"/health":
            health = self._health()
            status = "200 OK" if health.get("healthy") else "503 Service Unavailable"
            kind, body = "application/json", json.dumps(health, default=str) + "\n"
        else:
            status, kind, body = "404 Not Found", "text/plain", "try /metrics or /health\n"
        payload = body.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        peer.sendall(head.encode() + payload)
