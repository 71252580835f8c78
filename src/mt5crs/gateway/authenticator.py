"""ZAP (RFC 27): decides at the handshake whose key may connect. A thread of its own.

Fail-closed: the sockets enforce the domain, so without this thread nobody gets in.
"""

import threading
from collections.abc import Callable

import zmq

from mt5crs.protocol.addresses import canonical
from mt5crs.protocol.curve import ZAP_DOMAIN, Context, Socket

from .clients import BARRED

LEGACY_DOMAIN = b"mt5crs-legacy"
"""Domain of the legacy adapter, where the source address decides."""

_ENDPOINT = "inproc://zeromq.zap.01"
_STOP = "inproc://authenticator-stop"


class Authenticator:
    """Answers ZAP requests until stopped."""

    def __init__(
        self,
        context: Context,
        objection: Callable[[str, str], str],
        known_address: Callable[[str], bool],
        refused: Callable[[str, str], None],
    ) -> None:
        """`objection` says why a hex key may not connect from an address (empty: it may), `known_address` who
        may use the legacy adapter.

        `refused(address, reason)` is told of each refusal; its failures are swallowed on purpose.
        """
        self._objection = objection
        self._known_address = known_address
        self._refused = refused
        self._death = ""
        self._waker: Socket = context.socket(zmq.PAIR)
        self._waker.bind(_STOP)
        self._stop: Socket = context.socket(zmq.PAIR)
        self._stop.connect(_STOP)
        self._socket: Socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="authenticator", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def alive(self) -> bool:
        """Whether handshakes are answered."""
        return self._thread.is_alive()

    def death(self) -> str:
        """Why it has ended by itself; empty if it has not."""
        return self._death

    def stop(self) -> None:
        """Stop answering: from now on every handshake fails."""
        if self._thread.is_alive():
            self._stop.send(b"")
            self._thread.join(5)
        self._stop.close(0)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker, zmq.POLLIN)
        try:
            while self._waker not in (ready := dict(poller.poll())):
                if self._socket in ready:
                    self._answer(self._socket.recv_multipart())
        except BaseException as error:
            self._death = f"the authenticator's thread died: {error!r}"
            raise
        finally:
            self._socket.close()
            self._waker.close(0)

    def _answer(self, frames: list[bytes]) -> None:
        """One reply per request, whatever it looks like; never raises."""
        cut = frames.index(b"") if b"" in frames else 0
        envelope, body = frames[: cut + 1], frames[cut + 1 :]
        sequence = body[1] if len(body) > 1 else b""
        user, reason = self._decide(body)
        # 300: not now. The peer's libzmq hears nothing but the end of the connection, and tries again.
        code = b"200" if user else b"300" if reason == BARRED else b"400"
        status = (code, reason.encode() or b"OK")
        try:
            self._socket.send_multipart(
                [*envelope, b"1.0", sequence, *status, user.encode(), b""], zmq.NOBLOCK
            )
        except zmq.ZMQError:
            return  # the peer is gone; unanswered means refused
        if not user:
            self._tell(body[3].decode(errors="replace") if len(body) > 3 else "?", reason)

    def _decide(self, body: list[bytes]) -> tuple[str, str]:
        """(user id, "") to let in, ("", reason) to refuse. The user id is the key in hex, or the address."""
        try:
            version, _, domain, address, _, mechanism, *credentials = body
            if version == b"1.0" and domain == LEGACY_DOMAIN and mechanism == b"NULL":
                source = canonical(address.decode())
                return (source, "") if self._known_address(source) else ("", "unlisted address")
            if version != b"1.0" or domain != ZAP_DOMAIN or mechanism != b"CURVE" or len(credentials) != 1:
                return "", "only CURVE in domain mt5crs"
            key = credentials[0].hex()
            objection = self._objection(key, canonical(address.decode()))
            return ("", objection) if objection else (key, "")
        except Exception as error:
            return "", f"malformed request: {type(error).__name__}"

    def _tell(self, address: str, reason: str) -> None:
        try:
            self._refused(address, reason)
        except Exception:
            return  # telling is a courtesy; the refusal stands
