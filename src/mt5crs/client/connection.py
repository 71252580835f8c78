"""One CURVE-authenticated DEALER connection to the gateway: send a request, wait for its answer, once."""

from __future__ import annotations

import itertools
import math
import struct
import time

import msgspec
import zmq

from mt5crs.client.errors import (
    ConnectionLostError,
    GatewaySilentError,
    GatewayUnreachableError,
    KeyRefusedError,
    MalformedReplyError,
)
from mt5crs.client.server_key import ServerKey
from mt5crs.protocol import addresses, curve
from mt5crs.protocol.codec import ProtocolError, decode_reply, encode
from mt5crs.protocol.replies import AnyReply
from mt5crs.protocol.requests import Request

HANDSHAKE_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_CUT_HANDSHAKES = 3
"""As many handshakes in a row must be cut off, by each key, before it is blamed, not a gateway that ends."""

_numbers = itertools.count()


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway is and who we are. Its text form does not show the secret."""

    host: str
    port: int
    pub_port: int
    server_key: str
    client_name: str
    secret_key: str
    changing: ServerKey | None = None
    """The server's key together with the one of before, while a change of it is not confirmed."""

    @property
    def server(self) -> ServerKey:
        """By which key the gateway is known."""
        return self.changing or ServerKey(self.server_key)

    @property
    def request_url(self) -> str:
        """ZeroMQ address of the request socket."""
        return addresses.end_point(self.host, self.port)

    @property
    def event_url(self) -> str:
        """ZeroMQ address of the event socket."""
        return addresses.end_point(self.host, self.pub_port)

    @property
    def place(self) -> str:
        """Host and request port, for people."""
        return addresses.with_port(self.host, self.port)

    def __repr__(self) -> str:
        return f"Peer({self.client_name} -> {self.place}/{self.pub_port})"


def milliseconds(seconds: float) -> int:
    """Seconds as the whole milliseconds that ZeroMQ's poll takes, never negative, rounded up."""
    return max(0, math.ceil(seconds * 1000))


class Connection:
    """A socket that is thrown away after any failure; not for use by two threads at once.

    IMMEDIATE=1 keeps a request from queueing for a gateway that is not there, so "not connected" proves that
    nothing was sent.
    """

    def __init__(self, peer: Peer, context: curve.Context | None = None) -> None:
        self._peer = peer
        self._server = peer.server
        self._context = context
        self._open()
        self.late_replies = 0
        """Answers to earlier requests that were dropped."""

    def _open(self) -> None:
        peer = self._peer
        self._socket: curve.Socket = (self._context or zmq.Context.instance()).socket(zmq.DEALER)
        self._key = self._server.now
        curve.secure_client(self._socket, self._key, peer.secret_key)
        addresses.prepare(self._socket, peer.host)
        self._monitor = watch(self._socket, HANDSHAKE_FAILED | zmq.Event.DISCONNECTED)
        self._socket.connect(peer.request_url)
        self._connected = False

    def __del__(self) -> None:
        """In the right order also when nobody has closed it: see `watch`."""
        if hasattr(self, "_connected"):
            self.close()

    def close(self) -> None:
        """Throw the socket away; nothing lingers. Again is allowed."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(0)

    def lost(self) -> bool:
        """Whether the gateway has ended the connection since it was made."""
        return self._connected and bool(self._monitor.poll(0))

    def ask(self, request: Request, timeout_s: float) -> AnyReply:
        """Send one request and wait for the answer with its id.

        Raises GatewayUnreachableError (nothing sent), GatewaySilentError (sent, fate unknown), its kind
        ConnectionLostError (at once) or MalformedReplyError. After any of them the connection must be closed.
        """
        deadline = time.monotonic() + timeout_s
        self.connect(timeout_s)
        if not self._send(request):
            # The connection ended a moment ago, and nothing was sent: another one.
            self.close()
            self._open()
            self.connect(deadline - time.monotonic())
            if not self._send(request):
                raise GatewayUnreachableError(self._unreachable(timeout_s))
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            remaining = deadline - time.monotonic()
            ready = dict(poller.poll(milliseconds(remaining))) if remaining > 0 else {}
            if not ready:
                raise GatewaySilentError(
                    f"no answer from the gateway {self._peer.place} within {timeout_s:g} s; "
                    "look at its log and its /health"
                )
            if self._socket not in ready and not self._socket.poll(0):
                raise ConnectionLostError(
                    f"the gateway {self._peer.place} ended the connection before it "
                    "answered; it was restarted or has revoked our key: see its journal"
                )
            reply = self._decode(self._socket.recv_multipart())
            if reply.id == request.id:
                return reply
            if reply.id == "":
                raise MalformedReplyError(f"the gateway could not read our request: {reply}")
            self.late_replies += 1

    def _send(self, request: Request) -> bool:
        try:
            self._socket.send(encode(request), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _decode(self, frames: list[bytes]) -> AnyReply:
        if len(frames) != 1:
            raise MalformedReplyError(f"an answer of {len(frames)} frames; the protocol has one")
        try:
            return decode_reply(frames[0])
        except ProtocolError as error:
            raise MalformedReplyError(
                f"the answer of {self._peer.place} is not a protocol v1 message ({error}); "
                "check that GATEWAY_PORT is the request port of a gateway of this version"
            ) from error

    def connect(self, timeout_s: float) -> None:
        """Wait until TCP and the CURVE handshake are through. Raises GatewayUnreachableError."""
        if self._connected:
            return
        deadline = time.monotonic() + timeout_s
        cut, most = 0, _CUT_HANDSHAKES * (2 if self._server.two else 1)
        while True:
            remaining = deadline - time.monotonic()
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLOUT)
            poller.register(self._monitor, zmq.POLLIN)
            ready = dict(poller.poll(milliseconds(remaining)))
            if self._socket in ready:
                self._connected = True
                self._server.worked(self._key)
                return
            if self._monitor in ready:
                event = _event(self._monitor.recv_multipart()[0])
                if event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL and (cut := cut + 1) < most:
                    # Taken by a gateway that was ending: the next one is waiting for us. Or by one that has
                    # the other key.
                    self._server.refused(self._key)
                    self.close()
                    self._open()
                elif event != zmq.Event.DISCONNECTED:
                    self._raise_refused(event)
            if remaining <= 0:
                raise GatewayUnreachableError(self._unreachable(timeout_s))

    def _raise_refused(self, event: int) -> None:
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            raise KeyRefusedError(
                f"the gateway refuses the key of {self._peer.client_name}; add its public key to "
                "fleet_client_public_keys in the inventory and deploy the gateway"
            )
        raise KeyRefusedError(
            f"the handshake with {self._peer.place} failed; "
            "GATEWAY_PUBLIC_KEY is not the key of that gateway, or another program listens there"
        )

    def _unreachable(self, timeout_s: float) -> str:
        return (
            f"no connection to the gateway {self._peer.place} within {timeout_s:g} s; "
            "check that it runs, the address, and the firewall between"
        )


def watch(socket: curve.Socket, events: int) -> curve.Socket:
    """Where libzmq tells of a socket's connections; disable it before the socket closes.

    Its only I/O thread waits, for ever and with it every socket of the context, while nobody is at the other
    end or the queue there is full.
    """
    url = f"inproc://connection-{next(_numbers)}"
    socket.monitor(url, events)
    monitor: curve.Socket = socket.context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.connect(url)
    return monitor


def _event(frame: bytes) -> int:
    """The number of a socket event."""
    return int(struct.unpack("=HI", frame[:6])[0])
