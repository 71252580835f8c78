"""A listening ZeroMQ socket that can be bound anew, over a socket of our own where systemd keeps one."""

import os
import time
from socket import socket as PlainSocket  # noqa: N812  (beside zmq's)
from typing import Any

import zmq

from mt5crs.protocol import addresses

_REBIND_S = 5.0


class Listener:
    """One bound socket."""

    def __init__(self, socket: "zmq.Socket[Any]", address: str, port: int, held: PlainSocket | None) -> None:
        """Bind; `held`: the socket that listens there already. Raises OSError that names address and port."""
        self.socket = socket
        self._held = held
        self._endpoint = addresses.end_point(address, port or "*")
        addresses.prepare(socket, address)
        self._bind()
        if not port:
            self._endpoint = str(socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _bind(self) -> None:
        if self._held is not None:
            # libzmq closes the descriptor on unbind: give it a copy and keep ours
            self.socket.setsockopt(zmq.USE_FD, os.dup(self._held.fileno()))
        try:
            self.socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            raise cannot_listen(self._endpoint, error.strerror) from error

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._endpoint.rsplit(":", 1)[1])

    def kick(self) -> None:
        """Drop every connection and listen again; clients that are still welcome reconnect by themselves."""
        self.socket.unbind(str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT)))
        deadline = time.monotonic() + _REBIND_S
        while True:  # unbind is carried out by libzmq's own thread; until then the port is taken
            try:
                self._bind()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return


def cannot_listen(where: str, why: str | None) -> OSError:
    """The error for an address that cannot be had."""
    return OSError(
        f"cannot listen on {where}: {why}; set GATEWAY_BIND to an address of this host and use free ports"
    )
