"""The watchdog's question: does a request to ourselves, over the real socket and CURVE, get an answer?"""

import threading
from collections.abc import Callable

import zmq

from mt5crs.protocol.codec import decode_reply, encode
from mt5crs.protocol.curve import Context, secure_client
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.replies import Pong
from mt5crs.protocol.requests import Ping

SELF = "gateway-self"
"""Name under which the gateway knows itself; the key is made at start and never leaves the process."""


class SelfTest:
    """Asks once per interval on a thread of its own; `passed` is called after each good answer."""

    def __init__(
        self,
        context: Context,
        endpoint: str,
        server_public: str,
        secret: str,
        interval_s: float,
        passed: Callable[[], object],
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._server_public = server_public
        self._secret = secret
        self._interval_s = interval_s
        self._passed = passed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="selftest", daemon=True)

    def start(self) -> None:
        """Start asking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()
        self._thread.join(5)

    def once(self, timeout_s: float) -> bool:
        """One question on a fresh connection."""
        socket = self._context.socket(zmq.DEALER)
        try:
            secure_client(socket, self._server_public, self._secret)
            socket.connect(self._endpoint)
            if not socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
                return False
            socket.send(encode(Ping(v=VERSION, id="self", client=SELF, magic=0)))
            if not socket.poll(int(timeout_s * 1000)):
                return False
            return isinstance(decode_reply(socket.recv()), Pong)
        finally:
            socket.close(0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self.once(self._interval_s):
                self._passed()
            self._stopping.wait(self._interval_s)
