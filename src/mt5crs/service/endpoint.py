"""The HTTP end point of a service: `/metrics` for Prometheus and `/health` as JSON (200 healthy, 503 not).

A GET-only responder of its own, because http.server loads 40 ms of modules that a service never needs.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping

from mt5crs.protocol.addresses import is_ipv6, with_port
from mt5crs.service.metrics import Registry

_MAX_REQUEST = 8192
_TIMEOUT_S = 2.0
_MOST_PEERS = 64
"""More at once, and the oldest has to go."""
_PAUSE_S = 0.1
Health = Mapping[str, object]
"""At least `healthy` (bool) and `state` (str: starting, ready, unknown, halted, …)."""


class _Peer:
    """A connection: what it has asked so far, and what of the answer it has yet to take."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.asked = b""
        self.answer: memoryview | None = None


class Endpoint:
    """Serves everybody at once on a daemon thread of its own, until closed: who is slow keeps nobody waiting,
    and has two seconds for everything.
    """

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
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._stop_heard, self._stop_bell = socket.socketpair()
        self._selector.register(self._stop_heard, selectors.EVENT_READ)
        self._peers: dict[socket.socket, _Peer] = {}
        self._spare = _spare()
        self._deaf_until = 0.0
        self._thread = threading.Thread(target=self._serve, name="endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        if not self._closed:
            self._closed = True
            self._stop_bell.send(b"x")
            self._thread.join(_TIMEOUT_S)

    def _serve(self) -> None:
        try:
            while not self._closed:
                self._once()
        finally:
            for peer in list(self._peers.values()):
                self._part(peer)
            self._selector.close()
            for each in (self._socket, self._stop_heard, self._stop_bell):
                each.close()

    def _once(self) -> None:
        for key, _ in self._selector.select(self._pause()):
            if key.fileobj is self._socket:
                self._welcome()
            elif key.fileobj is not self._stop_heard and (peer := self._peers.get(key.fileobj)):  # type: ignore[call-overload]
                self._attend(peer)
        now = time.monotonic()
        for peer in list(self._peers.values()):
            if now >= peer.deadline:
                self._part(peer)
        if self._deaf_until and now >= self._deaf_until:
            self._deaf_until = 0.0
            self._selector.register(self._socket, selectors.EVENT_READ)

    def _pause(self) -> float | None:
        due = [peer.deadline for peer in self._peers.values()]
        if self._deaf_until:
            due.append(self._deaf_until)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _welcome(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._spare is not None:
                # Whoever asks now is answered all the same, in place of a descriptor kept for that.
                os.close(self._spare)
                self._spare = None
            elif error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED):
                self._selector.unregister(
                    self._socket
                )  # it stays readable: waiting on it would not be waiting
                self._deaf_until = time.monotonic() + _PAUSE_S
            return
        connection.setblocking(False)
        if len(self._peers) >= _MOST_PEERS:
            self._part(next(iter(self._peers.values())))
        self._peers[connection] = _Peer(connection, time.monotonic() + _TIMEOUT_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _part(self, peer: _Peer) -> None:
        del self._peers[peer.connection]
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if self._spare is None:
            self._spare = _spare()

    def _attend(self, peer: _Peer) -> None:
        try:
            if peer.answer is None:
                chunk = peer.connection.recv(_MAX_REQUEST)
                peer.asked += chunk
                if b"\r\n\r\n" in peer.asked or len(peer.asked) >= _MAX_REQUEST:
                    peer.answer = memoryview(self._answer(peer.asked))
                    self._selector.modify(peer.connection, selectors.EVENT_WRITE)
                elif not chunk:
                    self._part(peer)
                return
            peer.answer = peer.answer[peer.connection.send(peer.answer) :]
            if not peer.answer:
                self._part(peer)
        except BlockingIOError:
            return
        except OSError:
            self._part(peer)  # it went away; its loss

    def _answer(self, request: bytes) -> bytes:
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
        return head.encode() + payload


def _spare() -> int | None:
    """A descriptor to give up when none is left; None while there is not even one."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
