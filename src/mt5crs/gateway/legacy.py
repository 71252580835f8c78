"""The second door: plain JSON for clients that exist already, from listed addresses only.

Plain sockets of their own, because a CURVE socket refuses plain peers. Behind the door the same terminal,
limits, journal and lease: the gateway takes a lease in the client's name for each order, so an old and a new
program cannot both write.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from mt5crs.protocol.codec import PLAIN_PING, PLAIN_PONG, decode_event
from mt5crs.protocol.curve import common_options
from mt5crs.protocol.events import TickEvent
from mt5crs.protocol.fields import MAX_REQUEST_BYTES
from mt5crs.protocol.replies import Error, Reply

from . import legacy_format as old
from .access import Access, Peer
from .authenticator import LEGACY_DOMAIN
from .control import Control
from .listen import Listener
from .metrics import GatewayMetrics
from .outbox import Publication
from .refusal import Refusal
from .terminal import Job, Terminal

_LEASE_TTL_MS = 10_000
_INSTANCE = "legacy-door"


def plain_server(socket: "zmq.Socket[Any]") -> None:
    """Make a socket plain, open only to the addresses that the authenticator knows."""
    common_options(socket)
    socket.setsockopt(zmq.ZAP_DOMAIN, LEGACY_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)


class LegacyDoor:
    """Runs on the network thread."""

    def __init__(
        self,
        requests: Listener,
        publications: Listener | None,
        control: Control,
        metrics: GatewayMetrics,
        note: Callable[..., None],
    ) -> None:
        self.socket = requests.socket
        self._listeners = [requests] + ([publications] if publications else [])
        self._publications = publications
        self._control = control
        self._metrics = metrics
        self._note = note

    def kick(self) -> None:
        """Drop all connections; the welcome ones come back."""
        for listener in self._listeners:
            listener.kick()

    def take(self, access: Access, terminal: Terminal, send: Callable[[list[bytes]], None]) -> bool:
        """Handle one waiting message; False when there is none."""
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        if len(frames) not in (2, 3):
            self._metrics.refused.inc("BAD_MESSAGE")
            return True
        envelope, payload = [frame.bytes for frame in frames[:-1]], frames[-1].bytes
        try:
            peer = access.legacy.get(str(frames[-1].get("User-Id")))
        except zmq.ZMQError:
            peer = None
        if peer is None:
            self._metrics.refused.inc("revoked")
            send(
                [*envelope, _json(old.failure(None, "FORBIDDEN", "this address is not listed", time.time()))]
            )
            return True
        if payload.startswith(PLAIN_PING):
            self._metrics.requests.inc("LEGACY_PING", "text")
            send([*envelope, PLAIN_PONG + str(time.time_ns() // 1_000_000).encode()])
            return True
        self._answer(envelope, payload, peer, access, terminal, send)
        return True

    def publish(self, publication: Publication) -> None:
        """Pass a quote on, with the symbol as topic."""
        if self._publications is None or not publication.topic.startswith("tick."):
            return
        event = decode_event(publication.payload)
        if isinstance(event, TickEvent):
            tick = event.tick
            body = {"symbol": tick.symbol, "bid": tick.bid, "ask": tick.ask, "time": tick.time_msc / 1000}
            try:
                self._publications.socket.send_multipart([tick.symbol.encode(), _json(body)], zmq.NOBLOCK)
            except zmq.ZMQError:
                self._metrics.dropped.inc()

    def _answer(
        self,
        envelope: list[bytes],
        payload: bytes,
        peer: Peer,
        access: Access,
        terminal: Terminal,
        send: Callable[[list[bytes]], None],
    ) -> None:
        now, started = time.time(), time.monotonic()
        question: old.Question | None = None
        try:
            question = old.parse(payload)
            kind = f"LEGACY_{old.name_of(question)[:16]}"
            if old.name_of(question) == "PING":
                self._metrics.requests.inc("LEGACY_PING", "ok")
                send([*envelope, _json(old.pong(question, now))])
                return
            request = old.to_request(question, peer.name, peer.magics)
            instead: tuple[str, str] | None = None
            traded = request.magic if isinstance(request, old.Trade) else None
            if isinstance(request, old.Trade):
                try:
                    request = self._admitted(request, question, peer, now)
                except old.LegacyError as error:
                    request, instead = old.query_of(request), ("BAD_FIELD", str(error))
                except Refusal as refusal:
                    request, instead = old.query_of(request), (refusal.code, _text(refusal))
            asked = question

            def encode(reply: Reply) -> list[bytes]:
                if traded is not None:
                    self._metrics.count_order(traded, reply, access.limits)
                if instead is not None and isinstance(reply, Error) and reply.code == "UNKNOWN_ORDER":
                    return [*envelope, self._refusal(asked, *instead)]
                answer = old.to_answer(asked, reply, peer.magics, time.time(), time.monotonic() - started)
                self._metrics.requests.inc(kind, str(answer.get("status", answer.get("code", ""))))
                self._note(
                    "legacy", kind=kind, client=peer.name, status=answer.get("status", answer.get("code"))
                )
                return [*envelope, _json(answer)]

            job = Job(request=request, door=self.socket, encode=encode, received=started, plain=True)
            terminal.submit(job)
        except old.LegacyError as error:
            send([*envelope, self._refusal(question, "BAD_FIELD", str(error))])
        except Refusal as refusal:
            send([*envelope, self._refusal(question, refusal.code, _text(refusal))])

    def _refusal(self, question: old.Question | None, code: str, message: str) -> bytes:
        self._metrics.refused.inc(code)
        self._note("legacy.refused", code=code, message=message)
        return _json(old.failure(question, code, message, time.time()))

    def _admitted(self, trade: old.Trade, question: old.Question, peer: Peer, now: float) -> old.Trade:
        """The trade with an epoch, taken in the client's name. Raises LegacyError or Refusal.

        These refusals depend on the moment, so they must not be the answer to a repeated message: what was
        executed before would be called rejected.
        """
        if "trade" not in peer.permissions:
            raise Refusal("FORBIDDEN", "", f"{peer.name} may only read", "list it with permission `trade`")
        if question.action == "OPEN":
            old.check_signature(question.risk_signature, now)
        epoch = self._control.acquire(trade.magic, peer.name, _INSTANCE, _LEASE_TTL_MS)
        return msgspec.structs.replace(trade, lease_epoch=epoch)


def _text(refusal: Refusal) -> str:
    return f"{refusal.message}; {refusal.remedy}"


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)
