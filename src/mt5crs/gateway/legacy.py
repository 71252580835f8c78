"""The second entry: plain JSON for clients that exist already, from listed addresses only.

Plain sockets of their own, because a CURVE socket refuses plain peers. Behind it are the same terminal,
limits, journal and lease: the gateway takes a lease in the client's name for each order, so an old and a new
program cannot both write (`legacy_lease.py`).
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from mt5crs.protocol import requests as ask
from mt5crs.protocol.codec import PLAIN_PING, PLAIN_PONG, decode_event
from mt5crs.protocol.curve import server_options
from mt5crs.protocol.events import TickEvent
from mt5crs.protocol.fields import MAX_REQUEST_BYTES
from mt5crs.protocol.replies import Error, Reply
from mt5crs.service.elapsed import elapsed_s

from . import legacy_answer as told
from . import legacy_format as old
from .access import Access, Peer
from .authenticator import LEGACY_DOMAIN
from .control import Control
from .job import Job
from .legacy_lease import LegacyLease, LegacyLeases
from .listen import Listener
from .metrics import GatewayMetrics
from .outbox import Publication
from .refusal import Refusal
from .terminal import Terminal

_ONE_FRAME = b"{"
"""What our plain quotes without a topic begin with."""


def plain_server(socket: "zmq.Socket[Any]") -> None:
    """Make a socket plain, open only to the addresses that the authenticator knows."""
    server_options(socket)
    socket.setsockopt(zmq.ZAP_DOMAIN, LEGACY_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)


def plain_publisher(context: zmq.Context[Any]) -> "zmq.Socket[Any]":
    """The socket of plain quotes; it is told of subscriptions, whose form says what a client reads."""
    socket: zmq.Socket[Any] = context.socket(zmq.XPUB)
    plain_server(socket)
    socket.setsockopt(zmq.XPUB_MANUAL, 1)
    return socket


class LegacyAdapter:
    """Runs on the network thread."""

    def __init__(
        self,
        requests: Listener,
        publications: Listener | None,
        control: Control,
        unresolved: Callable[[int], list[str]],
        metrics: GatewayMetrics,
        note: Callable[..., None],
    ) -> None:
        """`unresolved`: client order ids of a magic number whose fate is not known; asked by both threads."""
        self.socket = requests.socket
        self._listeners = [requests] + ([publications] if publications else [])
        self._publications = publications
        self._leases = LegacyLeases(control, note)
        self._unresolved = unresolved
        self._metrics = metrics
        self._note = note

    def kick(self) -> None:
        """Drop all connections; the welcome ones come back."""
        for listener in self._listeners:
            listener.kick()

    def take(
        self, access: Access, terminal: Terminal, since: float, send: Callable[[list[bytes]], None]
    ) -> bool:
        """Handle one message, which counts as waiting since then; False when there is none."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        # [routing id, payload] from a DEALER, [routing id, empty, payload] from a REQ
        cut = 2 if len(frames) > 2 and not len(frames[1]) else 1
        envelope, payload = [frame.bytes for frame in frames[:cut]], frames[-1].bytes
        try:
            peer = access.legacy.get(str(frames[-1].get("User-Id")))
        except zmq.ZMQError:
            peer = None
        if peer is None:
            self._metrics.refused.inc("revoked")
            send(
                [*envelope, _json(told.failure(None, "FORBIDDEN", "this address is not listed", time.time()))]
            )
            return True
        if len(frames) != cut + 1:
            why = f"a message is one frame, this one has {len(frames) - cut}"
            send([*envelope, self._refusal(None, "BAD_MESSAGE", why)])
            return True
        if payload.startswith(PLAIN_PING):
            self._metrics.requests.inc("LEGACY_PING", "text")
            send([*envelope, PLAIN_PONG + str(time.time_ns() // 1_000_000).encode()])
            return True
        self._answer(envelope, payload, peer, access, terminal, since, send)
        return True

    def publish(self, publication: Publication) -> None:
        """Pass a quote on: in one frame to who subscribed to everything, after the symbol as topic to who
        subscribed to symbols.
        """
        if self._publications is None:
            return
        socket = self._publications.socket
        self._take_subscriptions(socket)
        if not publication.topic.startswith("tick."):
            return
        event = decode_event(publication.payload)
        if isinstance(event, TickEvent):
            body = _json(told.quote(event.tick))
            try:
                socket.send(body, zmq.NOBLOCK)
                socket.send_multipart([event.tick.symbol.encode(), body], zmq.NOBLOCK)
            except zmq.ZMQError:
                self._metrics.dropped.inc()

    @staticmethod
    def _take_subscriptions(socket: "zmq.Socket[Any]") -> None:
        """Grant what was subscribed to; everything stands for the quotes in one frame."""
        while True:
            try:
                asked = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if asked[:1] in (b"\0", b"\1"):
                option = zmq.SUBSCRIBE if asked[:1] == b"\1" else zmq.UNSUBSCRIBE
                socket.setsockopt(option, asked[1:] or _ONE_FRAME)

    def _answer(
        self,
        envelope: list[bytes],
        payload: bytes,
        peer: Peer,
        access: Access,
        terminal: Terminal,
        since: float,
        send: Callable[[list[bytes]], None],
    ) -> None:
        now, started = time.time(), elapsed_s()
        question: old.Question | None = None
        try:
            question = old.parse(payload)
            if old.name_of(question) == "PING":
                self._metrics.requests.inc("LEGACY_PING", "ok")
                view = terminal.view()
                why = "" if view.ready and not terminal.hung() else view.reason or "the terminal hangs"
                send([*envelope, _json(told.pong(question, now, elapsed_s() - started, why))])
                return
            request = old.to_request(question, peer.name, peer.magics)
            if isinstance(request, old.Trade):
                self._trade(envelope, question, request, peer, access, terminal, since)
                return
            asked = question

            def encode(reply: Reply) -> list[bytes]:
                return [*envelope, self._told(asked, reply, peer, access, started)]

            job = Job(
                request=request,
                reply_to=self.socket,
                encode=encode,
                received=started,
                since=since,
                plain=True,
            )
            terminal.submit(job)
        except old.LegacyError as error:
            send([*envelope, self._refusal(question or error.question, "BAD_FIELD", str(error))])
        except Refusal as refusal:
            send([*envelope, self._refusal(question, refusal.code, _text(refusal))])

    def _trade(
        self,
        envelope: list[bytes],
        question: old.Question,
        trade: old.Trade,
        peer: Peer,
        access: Access,
        terminal: Terminal,
        since: float,
    ) -> None:
        """Hand a trade to the terminal under a lease; or, when the moment forbids it, ask what became of it.

        Refusals that depend on the moment must not be the answer to a repeated message: what was executed
        before would be called rejected. Raises Refusal.
        """
        started = elapsed_s()
        request: old.Trade | ask.OrderQuery = trade
        instead: tuple[str, str] | None = None
        lease = None
        try:
            lease = self._admit(trade, question, peer)
            request = msgspec.structs.replace(trade, lease_epoch=lease.epoch)
        except old.LegacyError as error:
            request, instead = old.query_of(trade), ("BAD_FIELD", str(error))
        except Refusal as refusal:
            request, instead = old.query_of(trade), (refusal.code, _text(refusal))

        def encode(reply: Reply) -> list[bytes]:
            self._metrics.count_order(trade.magic, reply, access.limits)
            if lease is not None:
                self._leases.answered(lease, reply, never_done=job.state == "abandoned")
            if instead is not None and isinstance(reply, Error) and reply.code == "UNKNOWN_ORDER":
                return [*envelope, self._refusal(question, *instead)]
            return [*envelope, self._told(question, reply, peer, access, started)]

        job = Job(
            request=request, reply_to=self.socket, encode=encode, received=started, since=since, plain=True
        )
        try:
            terminal.submit(job)
        except Refusal as refusal:
            if lease is not None:
                self._leases.answered(lease, refusal.reply(trade.id), never_done=True)
            raise

    def _admit(self, trade: old.Trade, question: old.Question, peer: Peer) -> LegacyLease:
        """A lease in the client's name. Raises LegacyError or Refusal."""
        if "trade" not in peer.permissions:
            raise Refusal("FORBIDDEN", "", f"{peer.name} may only read", "list it with permission `trade`")
        if question.action == "OPEN":
            old.check_signature(question.risk_signature, time.time())
        return self._leases.take(trade.magic, peer.name)

    def _told(
        self, question: old.Question, reply: Reply, peer: Peer, access: Access, started: float
    ) -> bytes:
        magics = peer.magics or access.limits
        unresolved = [each for magic in sorted(magics) for each in self._unresolved(magic)]
        now, took_s = time.time(), elapsed_s() - started
        answer = told.to_answer(question, reply, peer.magics, unresolved, now, took_s)
        kind = f"LEGACY_{old.name_of(question)[:16]}"
        status = answer.get("status", answer.get("code", ""))
        self._metrics.requests.inc(kind, str(status))
        self._note("legacy", kind=kind, client=peer.name, status=status)
        return _json(answer)

    def _refusal(self, question: old.Question | None, code: str, message: str) -> bytes:
        self._metrics.refused.inc(code)
        self._note("legacy.refused", code=code, message=message)
        return _json(told.failure(question, code, message, time.time()))


def _text(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.remedy}"


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)
