"""Peers that misbehave on purpose: a gateway that says what the test scripts, and a wire that can be cut."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

import zmq

from mt5crs.local_fleet.rehearsal import free_ports
from mt5crs.protocol import curve
from mt5crs.protocol.codec import decode_request, encode
from mt5crs.protocol.events import Event
from mt5crs.protocol.replies import Reply
from mt5crs.protocol.requests import Request

Answer = Reply | bytes | list[bytes] | None


class ScriptedGateway:
    """A CURVE ROUTER and PUB whose answers are the test's. Counts what it was asked, by how many sockets."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        ports: tuple[int, int] | None = None,
        pair: tuple[str, str] | None = None,
    ) -> None:
        """`ports`, `pair`: where it listens and its keys (public, secret); None: free ones, new ones."""
        self.public, secret = pair or curve.new_keypair()
        self.answer = answer
        self.requests: list[Request] = []
        self.sockets: set[bytes] = set()
        self.port, self.pub_port = ports or free_ports(2)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router, self._pub = self._context.socket(zmq.ROUTER), self._context.socket(zmq.PUB)
        for each, port in ((self._router, self.port), (self._pub, self.pub_port)):
            each.setsockopt(zmq.LINGER, 0)
            each.setsockopt(zmq.CURVE_SERVER, 1)
            each.setsockopt(zmq.CURVE_SECRETKEY, curve.hex_to_z85(secret, "secret"))
            each.bind(f"tcp://127.0.0.1:{port}")
        self._events: list[tuple[str, Event]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedGateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._thread.join(5)
        self._context.destroy(0)

    def asked(self, kind: type[Request]) -> int:
        """How many requests of a kind have come."""
        return sum(isinstance(request, kind) for request in self.requests)

    def publish(self, topic: str, event: Event) -> None:
        """Send an event soon."""
        self._events.append((topic, event))

    def _serve(self) -> None:
        while not self._closed:
            while self._events:
                topic, event = self._events.pop(0)
                self._pub.send_multipart([topic.encode(), encode(event)])
            if not self._router.poll(10):
                continue
            identity, frame = self._router.recv_multipart()
            request = decode_request(frame)
            self.requests.append(request)
            self.sockets.add(identity)
            answer = self.answer(request)
            for part in answer if isinstance(answer, list) else [answer]:
                if part is not None:
                    self._router.send_multipart([identity, part if isinstance(part, bytes) else encode(part)])


class Wire:
    """A TCP forwarder to one port. `freeze` is a half-open connection: nothing flows, no FIN, no RST."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        """`port`: where it listens; 0: any free one."""
        self._target = target_port
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(16)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._mode = "open"
        self._near: set[socket.socket] = set()
        self.deaf_to_answers = False
        """True: requests arrive, but what the gateway says is thrown away."""
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._thread.join(5)
        for each in [*self._pairs, self._listener]:
            each.close()

    def freeze(self) -> None:
        """Stop moving bytes, keep every connection; new ones are taken and stay silent."""
        self._mode = "frozen"

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._mode = "cut"

    def open(self) -> None:
        """Work again. Frozen connections go on where they were."""
        self._mode = "open"

    def _serve(self) -> None:
        while not self._closed:
            if self._mode == "frozen":
                time.sleep(0.01)
                continue
            if self._mode == "cut":
                for each in [*self._pairs]:
                    each.close()
                self._pairs.clear()
            ready, _, _ = select.select([self._listener, *self._pairs], [], [], 0.02)
            for each in ready:
                if each is self._listener:
                    self._take()
                elif each in self._pairs:
                    self._move(each)

    def _take(self) -> None:
        near, _ = self._listener.accept()
        if self._mode == "cut":
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 1)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near
        self._near.add(near)

    def _move(self, source: socket.socket) -> None:
        sink = self._pairs[source]
        try:
            data = source.recv(65536)
            if data:
                if not (self.deaf_to_answers and sink in self._near):
                    sink.sendall(data)
                return
        except OSError:
            pass
        for each in (source, sink):
            self._pairs.pop(each, None)
            each.close()
