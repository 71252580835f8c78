"""The watchdog's question: does a request to ourselves, over the real socket and CURVE, get an answer?"""

import threading
import time
from collections.abc import Callable

import zmq

from mt5crs.protocol import addresses
from mt5crs.protocol.codec import decode_reply, encode
from mt5crs.protocol.curve import Context, Socket, secure_client
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.replies import Pong
from mt5crs.protocol.requests import Ping

SELF = "gateway-self"
"""Name under which the gateway knows itself; the key is made at start and never leaves the process."""

_AGAIN_S = 0.5
_STOP_LATENCY_S = 0.1
"""A question that nobody answers (a dead authenticator) must not hold up the gateway's end."""


class SelfTest:
    """Asks once per interval on a thread of its own; `passed` is called after each good answer."""

    def __init__(
        self,
        context: Context,
        bound: str,
        port: int,
        server_public: str,
        secret: str,
        interval_s: float,
        passed: Callable[[], object],
    ) -> None:
        """`bound`: the address that the request socket listens on."""
        self._context = context
        self._host = addresses.reached_from_here(bound)
        self._port = port
        self._server_public = server_public
        self._secret = secret
        self._interval_s = interval_s
        self._passed = passed
        self._stopping = threading.Event()
        self._death = ""
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="selftest", daemon=True)

    def start(self) -> None:
        """Start asking."""
        self._thread.start()

    def death(self) -> str:
        """Why the thread has ended by itself; empty if it has not."""
        return self._death

    def trouble(self) -> str:
        """Why the last question had no answer; empty if it had."""
        return self._trouble

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def once(self, timeout_s: float) -> bool:
        """One question on a fresh connection."""
        socket = self._context.socket(zmq.DEALER)
        try:
            secure_client(socket, self._server_public, self._secret)
            addresses.prepare(socket, self._host)
            socket.connect(addresses.from_itself(self._host, self._port))
            if not self._await(socket, zmq.POLLOUT, timeout_s):
                return False
            socket.send(encode(Ping(v=VERSION, id="self", client=SELF, magic=0)))
            if not self._await(socket, zmq.POLLIN, timeout_s):
                return False
            return isinstance(decode_reply(socket.recv()), Pong)
        finally:
            socket.close(0)

    def _await(self, socket: Socket, what: int, timeout_s: float) -> bool:
        """Wait until it can be sent to (POLLOUT) or read from (POLLIN): so long, but not when stopped."""
        deadline = time.monotonic() + timeout_s
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            if socket.poll(int(min(left, _STOP_LATENCY_S) * 1000) + 1, what):
                return True
        return False

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self._interval_s if self._asked() else min(self._interval_s, _AGAIN_S))
        except BaseException as error:
            self._death = f"the self-test's thread died: {error!r}"
            raise

    def _asked(self) -> bool:
        try:
            answered = self.once(self._interval_s)
        except zmq.ZMQError as error:  # no descriptor left for a connection
            self._trouble = f"the gateway cannot reach itself: {error.strerror}"
            return False
        self._trouble = "" if answered else f"the gateway did not answer itself in {self._interval_s:.0f} s"
        if answered:
            self._passed()
        return answered
