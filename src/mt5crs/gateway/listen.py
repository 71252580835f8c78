"""Sockets that systemd may hold open across restarts (socket activation), and that can be bound anew."""

import os
import socket as sockets
import time
from typing import Any

import zmq

_FIRST_FD = 3
_REBIND_S = 5.0


def inherited() -> dict[int, int]:
    """Listening TCP sockets that systemd passed on (LISTEN_FDS): port → file descriptor. Taken once."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.pop("LISTEN_FDS", "0") or 0)
    os.environ.pop("LISTEN_PID", None)
    found = {}
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(fd, False)
        with sockets.socket(fileno=os.dup(fd)) as peek:
            found[peek.getsockname()[1]] = fd
    return found


class Listener:
    """One bound socket."""

    def __init__(self, socket: "zmq.Socket[Any]", address: str, port: int, fd: int | None) -> None:
        """Bind. Raises OSError that names address and port."""
        self.socket = socket
        self._fd = fd
        host = f"[{address}]" if ":" in address else address
        self._endpoint = f"tcp://{host}:{port or '*'}"
        if ":" in address:
            socket.setsockopt(zmq.IPV6, 1)
        self._bind()
        if not port:
            self._endpoint = str(socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _bind(self) -> None:
        if self._fd is not None:
            # libzmq closes the descriptor on unbind: give it a copy and keep ours
            self.socket.setsockopt(zmq.USE_FD, os.dup(self._fd))
        try:
            self.socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            raise OSError(
                f"cannot listen on {self._endpoint}: {error.strerror}; set GATEWAY_BIND to an address of "
                "this host and use free ports"
            ) from error

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._endpoint.rsplit(":", 1)[1])

    def kick(self) -> None:
        """Drop every connection and listen again; clients that are still welcome reconnect by themselves."""
        endpoint = str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self.socket.unbind(endpoint)
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
