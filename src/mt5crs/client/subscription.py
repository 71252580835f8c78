"""Events of the gateway: sequence gaps and silence are noticed, never papered over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from socket import socket as PlainSocket  # noqa: N812  (beside zmq's)

import zmq

from mt5crs.client.connection import HANDSHAKE_FAILED, Peer, milliseconds, watch
from mt5crs.protocol import addresses, curve
from mt5crs.protocol.codec import ProtocolError, decode_event
from mt5crs.protocol.events import AnyEvent, Heartbeat

_NEXT_KEY_S = 0.1


class Sequence:
    """Pure book-keeping: which event numbers have been seen, and whether something is missing."""

    def __init__(self, topics: Iterable[str] | None) -> None:
        """`topics` are those subscribed to; numbers of others in a heartbeat do not concern us. None: all."""
        self._topics = None if topics is None else frozenset(topics)
        self._seen: dict[str, int] = {}
        self.stream = ""

    def reset(self, stream: str, seqs: Mapping[str, int]) -> None:
        """Start from a snapshot that contains all events up to `seqs`."""
        self.stream = stream
        self._seen = {topic: seqs.get(topic, 0) for topic in (seqs if self._topics is None else self._topics)}

    def accept(self, topic: str, event: AnyEvent) -> str | None:
        """Take one event; the reason for a resync when something was missed, else None."""
        if event.stream != self.stream:
            return f"gateway restarted (stream {self.stream or 'none'} to {event.stream})"
        if isinstance(event, Heartbeat):
            topics = event.seqs if self._topics is None else self._topics
            behind = sorted(name for name in topics if event.seqs.get(name, 0) > self._seen.get(name, 0))
            return f"the last events of {', '.join(behind)} were lost" if behind else None
        last = self._seen.get(topic, 0)
        if event.seq <= last:
            return None  # contained in the snapshot already
        self._seen[topic] = event.seq
        return f"events {last + 1} to {event.seq - 1} of {topic} were lost" if event.seq > last + 1 else None

    def seen(self, topic: str) -> int:
        """Number of the last event of a topic."""
        return self._seen.get(topic, 0)


class Subscription:
    """A SUB socket on the gateway's event port. One thread at a time.

    `silent_for_s` grows without limit while nothing arrives, also on a half-open connection; the owner
    compares it with its bound and calls `reopen`.
    """

    def __init__(self, peer: Peer, topics: Iterable[str], context: curve.Context | None = None) -> None:
        self._peer = peer
        self._server = peer.server
        self._context = context
        self._topics = tuple(topics)
        self.malformed = 0
        self._last_heard = time.monotonic()
        self._open()

    def _open(self) -> None:
        self._key = self._server.now
        self._opened = time.monotonic()
        self._socket: curve.Socket = (self._context or zmq.Context.instance()).socket(zmq.SUB)
        curve.secure_client(self._socket, self._key, self._peer.secret_key)
        addresses.prepare(self._socket, self._peer.host)
        for topic in self._topics:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        # Only while there is another key to try: by itself the socket tries the same again and again.
        self._monitor = watch(self._socket, HANDSHAKE_FAILED) if self._server.two else None
        self._socket.connect(self._peer.event_url)

    @property
    def socket(self) -> curve.Socket:
        """For polling together with other sockets."""
        return self._socket

    @property
    def silent_for_s(self) -> float:
        """Seconds since anything valid arrived (or since the socket was opened)."""
        return time.monotonic() - self._last_heard

    def reopen(self) -> None:
        """Replace the socket by a fresh one and start counting silence anew."""
        self.close()
        self._open()
        self._last_heard = time.monotonic()

    def close(self) -> None:
        """Close the socket; again is allowed."""
        if self._socket.closed:
            return
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
        self._socket.close(0)

    def __del__(self) -> None:
        """In the right order also when nobody has closed it: see `watch`."""
        if getattr(self, "_monitor", None) is not None:
            self.close()

    def _other_key(self) -> None:
        """Open the socket by the key that is to be tried now, if that is another; at most every 100 ms."""
        if self._monitor is None or time.monotonic() < self._opened + _NEXT_KEY_S:
            return
        if self._monitor.poll(0):
            self._server.refused(self._key)
        if self._key != self._server.now:
            self.close()
            self._open()

    def receive(self, timeout_s: float, waker: PlainSocket | None = None) -> list[tuple[str, AnyEvent]]:
        """Everything that is there, waiting at most `timeout_s` for the first; malformed ones are counted.

        Something to read on `waker` ends the waiting.
        """
        self._other_key()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        if waker is not None:
            poller.register(waker, zmq.POLLIN)
        if self._socket not in dict(poller.poll(milliseconds(timeout_s))):
            return []
        arrived: list[tuple[str, AnyEvent]] = []
        for _ in range(1000):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                topic, payload = frames
                arrived.append((topic.decode(), decode_event(payload)))
                self._last_heard = time.monotonic()
                self._server.worked(self._key)
            except (ProtocolError, ValueError):
                self.malformed += 1
        return arrived
