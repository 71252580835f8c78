"""A listening ZeroMQ socket that can be bound anew, over a socket of our own where systemd keeps one."""

import os
import time
from socket import socket as PlainSocket  # noqa: N812  (beside zmq's)
from typing import Any

import zmq

from mt5crs.protocol import addresses

_REBIND_S = 5.0


class Listener:
    """One socket, bound to a port, and to a second one while a deployment moves it."""

    def __init__(self, socket: "zmq.Socket[Any]", address: str, port: int, held: PlainSocket | None) -> None:
        """Bind; `held`: the socket that listens there already. Raises OSError that names address and port."""
        self.socket = socket
        self._held: dict[str, PlainSocket | None] = {}
        addresses.prepare(socket, address)
        self.port = self._add(addresses.end_point(address, port or "*"), held)
        """The port that is bound."""

    def also(self, address: str, port: int, held: PlainSocket | None) -> None:
        """Listen at this port as well. Raises OSError that names address and port."""
        self._add(addresses.end_point(address, port), held)

    def _add(self, endpoint: str, held: PlainSocket | None) -> int:
        self._bind(endpoint, held)
        bound = str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._held[bound] = held
        return int(bound.rsplit(":", 1)[1])

    def _bind(self, endpoint: str, held: PlainSocket | None) -> None:
        # libzmq closes the descriptor on unbind: give it a copy and keep ours
        self.socket.setsockopt(zmq.USE_FD, -1 if held is None else os.dup(held.fileno()))
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise cannot_listen(endpoint, error.strerror) from error

    def kick(self) -> None:
        """Drop every connection and listen again; clients that are still welcome reconnect by themselves."""
        for endpoint in self._held:
            self.socket.unbind(endpoint)
        deadline = time.monotonic() + _REBIND_S
        for endpoint, held in self._held.items():
            while True:  # unbind is carried out by libzmq's own thread; until then the port is taken
                try:
                    self._bind(endpoint, held)
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
                else:
                    break


def cannot_listen(where: str, why: str | None) -> OSError:
    """The error for an address that cannot be had."""
    return OSError(
        f"cannot listen on {where}: {why}; set GATEWAY_BIND to an address of this host and use free ports"
    )
