"""CURVE keys as 64 hex characters, and sockets that use them.

Hex survives an `.env` file and a shell; ZeroMQ's own Z85 does not.
"""

import re
import socket as plain
import sys
from typing import Any

import zmq

from .fields import MAX_REPLY_BYTES, MAX_REQUEST_BYTES

ZAP_DOMAIN = b"mt5crs"
_WINDOWS_TCP_MAXRT = 5
_HEX_KEY = re.compile(r"[0-9a-f]{64}\Z")

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


class KeyFormatError(ValueError):
    """Not a key of 64 hex characters. The message never shows the value."""


def key_bytes(key: str, what: str = "key") -> bytes:
    """The 32 bytes of a hex key. Raises KeyFormatError naming `what`, never the value."""
    if not _HEX_KEY.match(key):
        raise KeyFormatError(
            f"{what}: a CURVE key is 64 characters 0-9 a-f; make a pair with `mt5crs keys new`"
        )
    return bytes.fromhex(key)


def new_keypair() -> tuple[str, str]:
    """A fresh (public, secret) pair in hex."""
    public, secret = zmq.curve_keypair()
    return _z85_to_hex(public), _z85_to_hex(secret)


def public_of(secret: str) -> str:
    """Public key that belongs to a secret key, both hex."""
    return _z85_to_hex(zmq.curve_public(hex_to_z85(secret, "secret key")))


def hex_to_z85(key: str, what: str) -> bytes:
    """The form that libzmq's options take. Raises KeyFormatError naming `what`."""
    from zmq.utils import z85

    encoded: bytes = z85.encode(key_bytes(key, what))
    return encoded


def _z85_to_hex(key: bytes) -> str:
    from zmq.utils import z85

    return z85.decode(key).hex()


def common_options(socket: "zmq.Socket[Any]") -> None:
    """What every client that asks sets: no lingering, heartbeats that find a half-open connection in about
    6 s, at both ends: the server ends one that was silent for the TTL that heartbeats carry.
    """
    _without_heartbeats(socket)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 4000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 6000)


def server_options(socket: "zmq.Socket[Any]") -> None:
    """What every server and every subscriber sets. No heartbeats of its own: libzmq 4.3.5 aborts the process
    when one is due on a connection that has ended while its pipe was full (`!_io_error`): a server's that is
    flooded, a subscriber's that is behind. Peers that send none are found by TCP: probed after 4 s of
    silence, given up when nothing is acknowledged for 6 s (where the system has that).
    """
    _without_heartbeats(socket)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 4)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 2)
    if _gives_up_on_request():
        socket.setsockopt(zmq.TCP_MAXRT, 6000)


def _gives_up_on_request() -> bool:
    """Whether the system knows the option. libzmq sets it on each connection that it has accepted, and throws
    away, without a word, every one on which that fails: Wine does not know it.
    """
    if sys.platform != "win32":
        return True
    with plain.socket() as probe:
        try:
            probe.setsockopt(plain.IPPROTO_TCP, _WINDOWS_TCP_MAXRT, 6)
        except OSError:
            return False
    return True


def _without_heartbeats(socket: "zmq.Socket[Any]") -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)


def secure_server(socket: "zmq.Socket[Any]", secret: str) -> None:
    """Make a socket a CURVE server that refuses everyone unless a ZAP handler for our domain says yes
    (fail-closed).
    """
    server_options(socket)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, hex_to_z85(secret, "GATEWAY_SECRET_KEY"))
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # somewhat more, for what encryption adds and for a typed answer to a request that is slightly too large
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES + 1024)


def secure_client(socket: "zmq.Socket[Any]", server_public: str, secret: str) -> None:
    """Make a socket a CURVE client. No request queues for a dead peer (IMMEDIATE)."""
    if socket.type == zmq.SUB:  # it hears the gateway's own heartbeats, and notices when they stop
        server_options(socket)
    else:
        common_options(socket)
    socket.setsockopt(zmq.CURVE_SERVERKEY, hex_to_z85(server_public, "GATEWAY_PUBLIC_KEY"))
    socket.setsockopt(zmq.CURVE_SECRETKEY, hex_to_z85(secret, "CLIENT_SECRET_KEY"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, hex_to_z85(public_of(secret), "client public key"))
    if socket.type != zmq.SUB:
        # A subscriber queues nothing, and IMMEDIATE throws away what has arrived when a connection ends:
        # libzmq (issue 2163) aborts the process if that happens in the middle of a message.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_REPLY_BYTES)
