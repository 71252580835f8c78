"""The network thread: requests in, replies and events out. Never waits for the terminal."""

import functools
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, get_args

import zmq

from mt5crs.protocol import events
from mt5crs.protocol.codec import PLAIN_PING, PLAIN_PONG, ProtocolError, decode_request, encode
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.replies import Error, OrderResult, Reply
from mt5crs.protocol.requests import (
    AnyRequest,
    Halt,
    LeaseAcquire,
    LeaseRelease,
    LeaseRenew,
    OrderCancel,
    OrderResolve,
    PhaseDemote,
    PhaseTrading,
    Ping,
    PositionClose,
    Resume,
    Status,
    Submission,
)
from mt5crs.service.elapsed import elapsed_s

from .access import Access, Peer, authorise, is_operator, may_subscribe
from .arrivals import Arrivals
from .connection_guard import ConnectionGuard
from .connections import COUNTED_REPLY_BYTES
from .control_service import ControlService
from .frames import ReplyEncoder
from .job import Job
from .legacy import LegacyAdapter
from .listen import Listener
from .metrics import GatewayMetrics
from .outbox import Delivery, Outbox, Publication
from .quota import Quota
from .refusal import Refusal
from .stream import Stream
from .terminal import Terminal

_OFFICE = (
    Ping,
    Status,
    LeaseAcquire,
    LeaseRenew,
    LeaseRelease,
    Halt,
    Resume,
    PhaseDemote,
    PhaseTrading,
)
_PINGS = 10
"""Plain PINGs, which cost next to nothing, may be so many times as many as requests."""
_NEVER_COUNTED = (Halt, LeaseRelease)
"""What ends risk is done however much a client has asked before."""
_UNCOUNTED_OF_OPERATORS = (
    *_NEVER_COUNTED,
    OrderCancel,
    PositionClose,
    OrderResolve,
    Resume,
    PhaseDemote,
    PhaseTrading,
)
"""And this, when an operator does it; what operators read is counted as everybody's."""
_KINDS = {each: str(each.__struct_config__.tag) for each in get_args(AnyRequest)}
_BATCH = 64
"""Requests taken before replies and timers get their turn."""
_SUBSCRIPTIONS = 1000
"""Read at each tick."""
_TICK_S = 0.1
_LOOK_S = 0.25
"""The longest pause: a freeze within it is not noticed."""
_NOBLOCK, _MORE, _READABLE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.POLLIN)
"""As plain numbers: arithmetic on pyzmq's enumerations takes longer than the calls they are for."""
_LINGER_MS = 100
_MOST_PARTS = 16
"""Frames of a message that may be a mistake."""
_MAX_TOPIC_BYTES = 64
"""The longest topic there is has 38 characters."""
_REMEDIES = {
    "BAD_VERSION": "update the client, or the gateway, to a common protocol version",
    "TOO_LARGE": "send smaller messages",
}


class Server:
    """Everything that happens on the gateway's sockets."""

    def __init__(
        self,
        requests: Listener,
        publications: Listener,
        control_service: ControlService,
        terminal: Terminal,
        outbox: Outbox,
        stream: Stream,
        metrics: GatewayMetrics,
        access: Callable[[], Access],
        connection_guard: ConnectionGuard,
        quota: Quota,
        bar: Callable[[str], None],
        *,
        subscriptions: int,
        heartbeat_interval_s: float,
        legacy: LegacyAdapter | None,
        every_second: Callable[[], None],
        note: Callable[..., None],
        note_bounded: Callable[..., None],
    ) -> None:
        """`access` gives the clients as of now; `bar` keeps a key out for a while; `subscriptions`: most of
        one connection; `every_second` is run about once a second on this thread.
        """
        self._requests = requests
        self._publications = publications
        self._control_service = control_service
        self._terminal = terminal
        self._outbox = outbox
        self._stream = stream
        self._metrics = metrics
        self._access = access
        self._connection_guard = connection_guard
        self._quota, self._pings = quota, quota.times(_PINGS)
        self._bar = bar
        self._subscriptions = subscriptions
        self._heard = connection_guard.connections.heard
        self._replied = connection_guard.connections.replied
        self._routes: dict[int, bytes] = {}
        """Routing id of the last one that spoke, by connection; and the other way round."""
        self._came_by: dict[bytes, int] = {}
        self._subscribed = connection_guard.connections.subscribed
        self._heartbeat_interval_s = heartbeat_interval_s
        self._legacy = legacy
        self._every_second = every_second
        self._note = note
        self._note_bounded = note_bounded
        self._encode = ReplyEncoder()
        self._stopping = threading.Event()
        self._stop_heard, self._stop_bell = socket.socketpair()
        self._kick = threading.Event()
        self._arrivals = Arrivals()

    def stop(self) -> None:
        """End `run` soon. Safe from a signal handler or another thread."""
        self._stopping.set()
        self._stop_bell.send(b"x")

    def kick(self) -> None:
        """Drop all connections before anything else is read; the welcome ones come back."""
        self._kick.set()

    def run(self) -> None:
        """Serve until stopped."""
        router, outbox = self._requests.socket, self._outbox
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        waker = outbox.waker.fileno()
        poller.register(waker, zmq.POLLIN)
        poller.register(self._stop_heard, zmq.POLLIN)
        if self._legacy is not None:
            poller.register(self._legacy.socket, zmq.POLLIN)
        next_heartbeat = next_tick = next_second = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= next_heartbeat:
                self._heartbeat()
                next_heartbeat = now + self._heartbeat_interval_s
            if now >= next_second:
                self._every_second()
                next_second = now + 1.0
            if now >= next_tick:
                self._tell_overdue()
                # In force already; not polled for: one more socket to poll costs every request time.
                self._take_subscriptions(self._publications.socket)
                next_tick = now + _TICK_S
            if self._kick.is_set():
                self._kick.clear()
                self._requests.kick()
                self._publications.kick()
                if self._legacy is not None:
                    self._legacy.kick()
            due = min(next_heartbeat, next_second, next_tick if self._terminal.occupied() else now + _LOOK_S)
            pause = 0 if outbox.filled() else max(0, int((due - time.monotonic()) * 1000) + 1)
            self._arrivals.turn(pause / 1000)
            ready = dict(poller.poll(pause))
            self._arrivals.turn()
            outbox.drain(self._deliver, self._publish)
            if waker in ready:
                outbox.waker.wait()  # an item that came in between the two lines is seen by `filled`
            if router in ready:
                self._take(router)
            if self._legacy is not None and self._legacy.socket in ready:
                self._take_legacy(self._legacy)
            # the terminal's thread may have answered while this one waited for the interpreter's lock
            outbox.drain(self._deliver, self._publish)

    def drain(self, timeout_s: float) -> None:
        """Answer every request that has arrived, at most for `timeout_s`.

        A client whose request comes later sees its connection end, and asks again at the next gateway.
        (Unbinding first would end every connection at once.)
        """
        router = self._requests.socket
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            arrived = bool(router.poll(0))
            if arrived:
                self._take(router)
            if self._legacy is not None and self._legacy.socket.poll(0):
                self._take_legacy(self._legacy)
                arrived = True
            self._outbox.drain(self._deliver, self._publish)
            if arrived or self._outbox.filled():
                continue
            if not self._terminal.occupied():
                return
            self._outbox.waker.wait()

    def finish(self) -> None:
        """Send what is still in the outbox (the terminal has stopped), and let go of the connections."""
        self._outbox.drain(self._deliver, self._publish)
        for listener in (self._requests, self._publications):
            # Answers are on their way for a moment; a client that does not read is not waited for.
            listener.socket.close(linger=_LINGER_MS)

    # --- requests ------------------------------------------------------------------------------------------

    def _take(self, router: "zmq.Socket[Any]") -> None:
        for _ in range(_BATCH):
            # [routing id, payload] from a DEALER, [routing id, empty, payload] from a REQ
            try:
                envelope = [router.recv(_NOBLOCK)]
            except zmq.Again:  # readable a moment ago, but its sender has gone
                return
            frame = router.recv(_NOBLOCK, copy=False)
            if frame.more and not len(frame):
                envelope.append(b"")
                frame = router.recv(_NOBLOCK, copy=False)
            if not frame.more:
                self._handle(router, envelope, frame)
            else:
                self._refuse_parts(router, frame)
            if self._terminal.occupied() or self._outbox.filled():
                return  # let it work, or send what it has done
            # asked, not tried: an exception on every request costs a tenth of a PING
            if not router.getsockopt(zmq.EVENTS) & _READABLE:  # type: ignore[operator]
                return

    def _refuse_parts(self, router: "zmq.Socket[Any]", frame: zmq.Frame) -> None:
        """A message of more frames than any request has; of very many, and it was no mistake."""
        parts = 1
        while frame.more:  # one at a time: however many there are, they are not kept
            frame = router.recv(_NOBLOCK, copy=False)
            parts += 1
        fd = self._hear(frame)
        self._metrics.refused.inc("BAD_MESSAGE")
        if parts > _MOST_PARTS:
            self._cut(fd, "frames", _user_id(frame))

    def _cut(self, fd: int, reason: str, key: str) -> None:
        """End a connection and keep its key out for a while."""
        self._bar(key)
        self._connection_guard.cut(fd, reason)

    def _handle(self, router: "zmq.Socket[Any]", envelope: list[bytes], frame: zmq.Frame) -> None:
        fd = self._hear(frame)
        if self._came_by.get(envelope[0]) != fd:
            self._came_by.pop(self._routes.get(fd, b""), None)
            self._routes[fd], self._came_by[envelope[0]] = envelope[0], fd
        payload = frame.bytes
        key = _user_id(frame)
        peer = self._access().by_key.get(key)
        if peer is None:  # revoked after the handshake
            self._metrics.refused.inc("revoked")
            refusal = Refusal(
                "FORBIDDEN",
                "client",
                "this key is no longer listed",
                "ask the gateway's administrator for access",
            )
            self._send(router, [*envelope, encode(refusal.reply(""))])
            return
        if payload.startswith(PLAIN_PING):
            if not self._pings.take(peer.name):  # there is no word for "too often": it is not answered
                self._metrics.clients_refused.inc(peer.name, "rate")
                if self._pings.exhausted(peer.name):
                    self._cut(fd, "rate", key)
                return
            self._metrics.requests.inc("PING", "text")
            self._send(router, [*envelope, PLAIN_PONG + str(time.time_ns() // 1_000_000).encode()])
            return
        self._answer(router, envelope, payload, peer, (fd, key))

    def _hear(self, frame: zmq.Frame) -> int:
        """Count a message for the connection that it came by; returns that connection's descriptor."""
        fd = int(frame.get(zmq.SRCFD))
        self._heard[fd] = self._heard.get(fd, 0) + 1
        return fd

    def _answer(
        self,
        router: "zmq.Socket[Any]",
        envelope: list[bytes],
        payload: bytes,
        peer: Peer,
        source: tuple[int, str],
    ) -> None:
        try:
            request = decode_request(payload)
        except ProtocolError as error:
            refusal = Refusal(
                error.code, error.field, error.message, _REMEDIES.get(error.code, "see docs/protocol.md")
            )
            self._finish(router, envelope, "?", refusal.reply(error.request_id))
            return
        kind = _KINDS[type(request)]
        try:
            authorise(peer, request)
            self._metrics.clients.inc(peer.name)
            operator = is_operator(peer, request)
            free = isinstance(request, _UNCOUNTED_OF_OPERATORS if operator else _NEVER_COUNTED)
            if not (self._quota.take(peer.name) or free):
                self._too_often(peer, *source)
            if isinstance(request, _OFFICE):
                self._finish(router, envelope, kind, self._control_service.answer(request, peer))
                return
            self._terminal.submit(
                Job(
                    request=request,
                    reply_to=router,
                    encode=lambda reply: [*envelope, self._counted(kind, reply, request)],
                    received=elapsed_s(),
                    since=self._arrivals.since(),
                    operator=operator,
                )
            )
        except Refusal as refusal:
            if refusal.field == "queue":
                self._metrics.clients_refused.inc(peer.name, "queue")
            self._send(router, [*envelope, self._counted(kind, refusal.reply(request.id), request)])

    def _too_often(self, peer: Peer, fd: int, key: str) -> NoReturn:
        """Refuse what is over a client's share of the gateway's time, and cut off who does not heed it."""
        self._metrics.clients_refused.inc(peer.name, "rate")
        if self._quota.exhausted(peer.name):
            self._cut(fd, "rate", key)
        raise Refusal(
            "BUSY",
            "client",
            f"{peer.name} asks more often than CLIENT_REQUESTS_PER_S allows",
            "ask less often; give each program its own key",
            retry_ms=1000,
        )

    def _take_subscriptions(self, publisher: "zmq.Socket[Any]") -> None:
        """Count each connection's subscriptions: libzmq would keep any number of any length."""
        for _ in range(_SUBSCRIPTIONS):
            try:
                frame = publisher.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                return
            parts = 1
            while frame.more:
                frame = publisher.recv(_NOBLOCK, copy=False)
                parts += 1
            try:
                fd = self._hear(frame)
            except zmq.ZMQError:
                continue  # libzmq itself, for a connection that has ended
            said, topic = frame.bytes[:1], frame.bytes[1:]
            count = self._subscribed.get(fd, 0) + (1 if said == b"\x01" else -1)
            self._subscribed[fd] = max(0, count)
            if (
                parts > 1
                or said not in (b"\0", b"\x01")
                or len(topic) > _MAX_TOPIC_BYTES
                or count > self._subscriptions
            ):
                self._cut(fd, "subscriptions", _user_id(frame))
            elif said == b"\x01" and not self._may_have(_user_id(frame), topic):
                self._cut(fd, "forbidden", _user_id(frame))

    def _may_have(self, key: str, topic: bytes) -> bool:
        """Whether the holder of a key may receive a topic; who was revoked meanwhile is cut off anyway."""
        peer = self._access().by_key.get(key)
        return peer is None or may_subscribe(peer, topic.decode(errors="replace"))

    def _finish(self, router: "zmq.Socket[Any]", envelope: list[bytes], kind: str, reply: Reply) -> None:
        self._send(router, [*envelope, self._counted(kind, reply, None)])

    def _counted(self, kind: str, reply: Reply, request: AnyRequest | None) -> bytes:
        """Encode a reply and count it. Called by both threads; the metrics lock."""
        if isinstance(request, Submission):
            self._metrics.count_order(request.magic, reply, self._access().limits)
        if isinstance(reply, Error):
            self._metrics.requests.inc(kind, reply.code)
            self._metrics.refused.inc(reply.code)
            client = request.client if request is not None else ""
            self._note_bounded(
                (kind, reply.code, client),
                "refused",
                kind=kind,
                code=reply.code,
                field=reply.field,
                message=reply.message,
                client=client,
            )
        else:
            self._metrics.requests.inc(kind, "ok")
            if isinstance(reply, OrderResult) and request is not None and kind != "ORDER_QUERY":
                self._note(
                    "order",
                    kind=kind,
                    magic=request.magic,
                    client=request.client,
                    client_order_id=reply.client_order_id,
                    outcome=reply.outcome,
                    retcode=reply.retcode,
                    order=reply.order,
                    volume=reply.volume,
                    epoch=reply.epoch,
                    replayed=reply.replayed,
                )
        return self._encode(reply)

    def _take_legacy(self, adapter: LegacyAdapter) -> None:
        for _ in range(_BATCH):
            send = functools.partial(self._send, adapter.socket)
            if not adapter.take(self._access(), self._terminal, self._arrivals.since(), send):
                return

    def _tell_overdue(self) -> None:
        for job, refusal in self._terminal.overdue():
            self._send(job.reply_to, job.encode(refusal.reply(job.request.id)))  # type: ignore[arg-type]

    # --- out -----------------------------------------------------------------------------------------------

    def _deliver(self, delivery: Delivery) -> None:
        self._send(delivery.reply_to, delivery.frames)  # type: ignore[arg-type]

    def _send(self, router: "zmq.Socket[Any]", frames: list[bytes]) -> None:
        try:
            for frame in frames[:-1]:
                router.send(frame, _MORE)
            router.send(frames[-1], _NOBLOCK)
        except zmq.ZMQError:
            # gone (EHOSTUNREACH) or not reading (EAGAIN): it will ask again
            self._metrics.dropped.inc()
            return
        size = len(frames[-1])
        if size >= COUNTED_REPLY_BYTES and router is self._requests.socket:
            fd = self._came_by.get(frames[0])
            if fd is not None:
                self._replied[fd] = self._replied.get(fd, 0) + size

    def _publish(self, publication: Publication) -> None:
        self._metrics.events.inc()
        try:
            self._publications.socket.send_multipart(
                [publication.topic.encode(), publication.payload], zmq.NOBLOCK
            )
        except zmq.ZMQError:
            self._metrics.dropped.inc()  # subscribers notice the gap
        if self._legacy is not None:
            self._legacy.publish(publication)

    def _heartbeat(self) -> None:
        topic = events.HEARTBEAT_TOPIC
        state, _ = self._control_service.state()
        event = events.Heartbeat(
            v=VERSION,
            stream=self._stream.name,
            seq=self._stream.next(topic),
            time_msc=time.time_ns() // 1_000_000,
            interval_ms=int(self._heartbeat_interval_s * 1000),
            state=state,
            seqs=self._stream.seqs(),
        )
        self._publish(Publication(topic, encode(event)))


def _user_id(frame: zmq.Frame) -> str:
    """Public key (hex) that the authenticator tied to the connection; empty when there is none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
