"""The HTTP end point of a service: `/metrics` for Prometheus and `/health` as JSON (200 healthy, 503 not).

A responder of its own, because http.server loads 40 ms of modules that a service never needs. What else a
service shows is a function of its own, `site`; an answer of it may stay open, as a feed, and it may take
posts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mt5crs.protocol.addresses import is_ipv6, with_port
from mt5crs.service.metrics import Registry

if TYPE_CHECKING:
    from mt5crs.service.tls import Tls

_MAX_REQUEST = 8192
_MAX_BODY = 65_536
"""Of what is posted."""
_TIMEOUT_S = 2.0
_MOST_PEERS = 64
"""More at once, and the oldest has to go."""
_PAUSE_S = 0.1
_PATIENCE_S = 20.0
"""For who takes what a site answers: it may be long, and the line slow."""
_MOST_FEEDS, _MOST_BEHIND = 16, 4 * 1024 * 1024
"""Open feeds; and bytes that the reader of one may be behind."""
HANDSHAKE = b"\x16"
"""The first byte of a client that wants TLS; no method of HTTP begins so."""
Health = Mapping[str, object]
"""At least `healthy` (bool) and `state` (str: starting, ready, unknown, halted, …)."""


class Request(NamedTuple):
    """What was asked. `host` is what the client calls us, without a port; empty if it does not say.

    `token`: that of the header `Authorization: Bearer`. `here`: it comes from this very host. `secret`: it
    came by TLS. `peer`: whose address.
    """

    path: str
    query: str
    host: str
    method: str = "GET"
    body: bytes = b""
    token: str = ""
    here: bool = False
    secret: bool = False
    peer: str = ""


class Answer(NamedTuple):
    """What a site answers. `feed`: the connection stays open, and gets all that is published from then on."""

    status: str
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    feed: bool = False
    who: str = ""
    """Whose token was shown."""


Site = Callable[[Request], "Answer | None"]
"""None: there is no such page."""


class Access(NamedTuple):
    """A request that was answered, for who keeps a log: once its connection has ended; of a feed also when it
    opens. `method` and `path` are as they came, of whatever characters.

    `peer`: whose address. `here`: of this very host. `tls`: its version, empty without. `who`: whose token.
    `size`: bytes of the answer that were sent. `took_s`: seconds since the connection began.
    """

    peer: str
    here: bool
    tls: str
    who: str
    method: str
    path: str
    status: str
    size: int
    took_s: float
    opened: bool = False


class _Peer:
    """A connection: what it has asked so far, and what of the answer it has yet to take."""

    def __init__(self, connection: socket.socket, address: str, deadline: float) -> None:
        self.connection = connection
        self.address, self.here, self.began = address, _from_here(connection), time.monotonic()
        self.who = self.status = ""
        self.size = 0
        self.deadline = deadline
        self.asked = b""
        self.answer: memoryview | None = None
        self.feed = False
        self.behind = bytearray()
        self.greeted = self.secret = self.shaking = False


class Endpoint:
    """Serves everybody at once on a daemon thread of its own, until closed: who is slow keeps nobody waiting,
    and has two seconds for everything.
    """

    def __init__(
        self,
        address: str,
        port: int,
        registry: Registry,
        health: Callable[[], Health],
        *,
        site: Site | None = None,
        posts: bool = False,
        tls: Tls | None = None,
        plain_for: Callable[[str], bool] | None = None,
        accessed: Callable[[Access], None] | None = None,
        settings: tuple[str, str] = ("METRICS_ADDRESS", "METRICS_PORT"),
    ) -> None:
        """Bind at once (port 0: any free one); raises OSError that names address and port if that fails.

        site: what is served beside metrics and health; posts: it takes POST as well. tls: for connections
        that begin with it; others, on the same port, stay plain. plain_for: whether an address of another
        host is answered without TLS, by default each; who is not, is told to come by TLS. accessed: hears of
        every request. settings: names of those for address and port.
        """
        self._registry = registry
        self._site = site
        self._posts, self._tls = posts, tls
        self._plain_for, self._accessed = plain_for, accessed
        self._published: deque[bytes] = deque(maxlen=10_000)
        self._health = health
        self._told: dict[str, Callable[[], object]] = {}
        self._closed = False
        family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address, port))
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise OSError(
                f"cannot serve metrics on {with_port(address, port)}: {error.strerror}; "
                f"set {settings[0]} to an address of this host and {settings[1]} to a free port"
            ) from error
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._stop_heard, self._stop_bell = socket.socketpair()
        self._stop_bell.setblocking(False)
        self._selector.register(self._stop_heard, selectors.EVENT_READ)
        self._peers: dict[socket.socket, _Peer] = {}
        self._spare = _spare()
        self._deaf_until = 0.0
        self._thread = threading.Thread(target=self._serve, name="endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # it rings already, or its thread has seen it and is gone
                self._stop_bell.send(b"x")
            self._thread.join(_TIMEOUT_S)

    def tell(self, name: str, source: Callable[[], object]) -> Registry:
        """Say something more on `/health` from now on; returns the registry, for its figures."""
        self._told[name] = source
        return self._registry

    @property
    def readers(self) -> int:
        """How many feeds are open."""
        return sum(peer.feed for peer in list(self._peers.values()))

    def publish(self, chunk: bytes) -> None:
        """Give something to every open feed. From any thread; who is too far behind is let go."""
        if self._closed:
            return
        self._published.append(chunk)
        with contextlib.suppress(BlockingIOError, OSError):  # it rings already, or has just been closed
            self._stop_bell.send(b"p")

    def _serve(self) -> None:
        try:
            while not self._closed:
                self._once()
        finally:
            for peer in list(self._peers.values()):
                self._part(peer)
            self._selector.close()
            for each in (self._socket, self._stop_heard, self._stop_bell):
                each.close()

    def _once(self) -> None:
        for key, _ in self._selector.select(self._pause()):
            if key.fileobj is self._socket:
                self._welcome()
            elif key.fileobj is self._stop_heard:
                self._stop_heard.recv(4096)
            elif peer := self._peers.get(key.fileobj):  # type: ignore[call-overload]
                self._attend(peer)
        self._feed()
        now = time.monotonic()
        for peer in list(self._peers.values()):
            if now >= peer.deadline:
                self._part(peer)
        if self._deaf_until and now >= self._deaf_until:
            self._deaf_until = 0.0
            self._selector.register(self._socket, selectors.EVENT_READ)

    def _pause(self) -> float | None:
        due = [peer.deadline for peer in self._peers.values() if peer.deadline != math.inf]
        if self._deaf_until:
            due.append(self._deaf_until)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _welcome(self) -> None:
        try:
            connection, source = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._spare is not None:
                # Whoever asks now is answered all the same, in place of a descriptor kept for that.
                os.close(self._spare)
                self._spare = None
            elif error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED):
                self._selector.unregister(
                    self._socket
                )  # it stays readable: waiting on it would not be waiting
                self._deaf_until = time.monotonic() + _PAUSE_S
            return
        connection.setblocking(False)
        if len(self._peers) >= _MOST_PEERS:
            self._part(next(peer for peer in self._peers.values() if not peer.feed))
        address = str(source[0]).partition("%")[0]
        self._peers[connection] = _Peer(connection, address, time.monotonic() + _TIMEOUT_S)
        self._selector.register(connection, selectors.EVENT_READ)

    def _part(self, peer: _Peer) -> None:
        del self._peers[peer.connection]
        self._selector.unregister(peer.connection)
        self._tell_access(peer)
        peer.connection.close()
        if self._spare is None:
            self._spare = _spare()

    def _tell_access(self, peer: _Peer, *, opened: bool = False) -> None:
        if self._accessed is None or not peer.status:
            return
        method, _, rest = peer.asked.partition(b"\r\n")[0].partition(b" ")
        version = peer.connection.version() if peer.secret else None  # type: ignore[attr-defined]
        self._accessed(
            Access(
                peer=peer.address,
                here=peer.here,
                tls=version or "",
                who=peer.who,
                method=method.decode("latin-1"),
                path=rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1"),
                status=peer.status[:3],
                size=peer.size,
                took_s=time.monotonic() - peer.began,
                opened=opened,
            )
        )

    def _greet(self, peer: _Peer) -> None:
        """Look at the first byte: it tells whether the client wants TLS."""
        first = peer.connection.recv(1, socket.MSG_PEEK)
        peer.greeted = True
        if self._tls is None or first != HANDSHAKE:
            return
        plain = peer.connection
        secret = self._tls.wrapped(plain.dup())
        self._selector.unregister(plain)
        del self._peers[plain]
        plain.close()
        peer.connection, peer.secret, peer.shaking = secret, True, True
        self._peers[secret] = peer
        self._selector.register(secret, selectors.EVENT_READ)

    def _shake(self, peer: _Peer) -> None:
        peer.connection.do_handshake()  # type: ignore[attr-defined]
        peer.shaking = False
        self._selector.modify(peer.connection, selectors.EVENT_READ)

    def _attend(self, peer: _Peer) -> None:
        try:
            if not peer.greeted:
                self._greet(peer)
            if peer.shaking:
                self._shake(peer)
            if peer.answer is None:
                chunk = peer.connection.recv(_MAX_REQUEST)
                if peer.feed:
                    if not chunk:
                        self._part(peer)
                    return
                peer.asked += chunk
                if self._whole(peer.asked):
                    peer.answer = memoryview(self._answer(peer))
                    self._selector.modify(peer.connection, selectors.EVENT_WRITE)
                elif not chunk:
                    self._part(peer)
                elif peer.secret and peer.connection.pending():  # type: ignore[attr-defined]
                    self._attend(peer)  # no socket tells of what TLS has read already
                return
            sent = peer.connection.send(peer.answer)
            peer.size += sent
            peer.answer = peer.answer[sent:]
            if peer.answer:
                return
            if not peer.feed:
                self._part(peer)
                return
            peer.answer = None
            self._go_on(peer)
        except BlockingIOError:
            return
        except OSError as error:
            waits = self._tls.awaited(error) if self._tls is not None and peer.secret else None
            if waits is None:
                self._part(peer)  # it went away; its loss
            else:
                self._selector.modify(peer.connection, waits)

    def _whole(self, asked: bytes) -> bool:
        """Whether it can be answered: all of it is there, or nothing that comes could make it good."""
        head, end, body = asked.partition(b"\r\n\r\n")
        if not end:
            return len(asked) >= _MAX_REQUEST
        if not self._posts or not head.startswith(b"POST "):
            return True
        length = _length(head)
        return length is None or length > _MAX_BODY or len(body) >= length

    def _feed(self) -> None:
        """Hand out what was published."""
        told = bytearray()
        while self._published:
            told += self._published.popleft()
        if not told:
            return
        for peer in [each for each in self._peers.values() if each.feed]:
            peer.behind += told
            if len(peer.behind) > _MOST_BEHIND:
                self._part(peer)
            elif peer.answer is None:
                self._go_on(peer)

    def _go_on(self, peer: _Peer) -> None:
        """Write what a feed is behind; without anything, wait for more as long as the reader is there."""
        if not peer.behind:
            peer.deadline = math.inf
            self._selector.modify(peer.connection, selectors.EVENT_READ)
            return
        peer.answer, peer.behind = memoryview(bytes(peer.behind)), bytearray()
        peer.deadline = time.monotonic() + _PATIENCE_S
        self._selector.modify(peer.connection, selectors.EVENT_WRITE)

    def _answer(self, peer: _Peer) -> bytes:
        method, _, rest = peer.asked.partition(b" ")
        target = rest.partition(b" ")[0]
        path = target.partition(b"?")[0]
        if self._plain_for and not (peer.secret or peer.here or self._plain_for(peer.address)):
            answer = self._by_tls(peer, method, target)
        elif method == b"POST" and self._posts:
            answer = self._posted(peer, target)
        elif method != b"GET":
            answer = Answer("405 Method Not Allowed", "text/plain", b"only GET\n")
        elif path == b"/metrics":
            kind = "text/plain; version=0.0.4; charset=utf-8"
            answer = Answer("200 OK", kind, self._registry.render().encode())
        elif path == b"/health":
            health = {**self._health(), **{name: told() for name, told in list(self._told.items())}}
            status = "200 OK" if health.get("healthy") else "503 Service Unavailable"
            answer = Answer(status, "application/json", (json.dumps(health, default=str) + "\n").encode())
        else:
            answer = self._from_site(peer, target) or Answer(
                "404 Not Found", "text/plain", b"try /metrics or /health\n"
            )
        peer.status, peer.who = answer.status, answer.who
        if answer.feed:
            self._tell_access(peer, opened=True)
        length = () if answer.feed else (("Content-Length", str(len(answer.body))),)
        head = "".join(
            f"{name}: {value}\r\n"
            for name, value in (
                ("Content-Type", answer.kind),
                *length,
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
                *answer.headers,
            )
        )
        return f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode() + answer.body

    def _by_tls(self, peer: _Peer, method: bytes, target: bytes) -> Answer:
        """Where to ask instead. A browser goes there by itself; what was posted is not asked for again."""
        if self._tls is None:
            said = "this is read by TLS alone, and there is no certificate: the journal of this host says why"
            return Answer("503 Service Unavailable", "application/json", _error(said))
        base = f"https://{with_port(peer.connection.getsockname()[0].partition('%')[0], self.port)}"
        body = _error(f"this is read by TLS alone: {base}/")
        if method != b"GET":
            return Answer("403 Forbidden", "application/json", body)
        where = base + (target.decode() if re.fullmatch(rb"/[!-~]*", target) else "/")
        return Answer("308 Permanent Redirect", "application/json", body, (("Location", where),))

    def _posted(self, peer: _Peer, target: bytes) -> Answer:
        head, end, body = peer.asked.partition(b"\r\n\r\n")
        length = _length(head) if end else None
        if length is None:
            return Answer("411 Length Required", "text/plain", b"say how long it is (Content-Length)\n")
        if length > _MAX_BODY or len(body) > length:
            return Answer("413 Content Too Large", "text/plain", f"at most {_MAX_BODY} bytes\n".encode())
        return self._from_site(peer, target) or Answer("404 Not Found", "text/plain", b"nothing to post to\n")

    def _from_site(self, peer: _Peer, target: bytes) -> Answer | None:
        if self._site is None:
            return None
        peer.deadline = time.monotonic() + _PATIENCE_S
        answer = self._site(_request(target, peer))
        if answer is not None and answer.feed:
            if self.readers >= _MOST_FEEDS:
                said = f"{_MOST_FEEDS} read along already; close a page\n".encode()
                return Answer("503 Service Unavailable", "text/plain", said)
            peer.feed = True
        return answer


def _request(target: bytes, peer: _Peer) -> Request:
    path, _, query = target.decode("ascii", "replace").partition("?")
    head, _, body = peer.asked.partition(b"\r\n\r\n")
    host = (_header(head, b"host") or "").lower()
    if not host.endswith("]"):
        host = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    scheme, _, token = (_header(head, b"authorization") or "").partition(" ")
    return Request(
        path,
        query,
        host.strip("[]"),
        "POST" if peer.asked.startswith(b"POST ") else "GET",
        body,
        token.strip() if scheme.lower() == "bearer" else "",
        peer.here,
        peer.secret,
        peer.address,
    )


def _header(head: bytes, wanted: bytes) -> str | None:
    """The first header of this name (lower case); None if there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == wanted:
            return value.strip().decode("ascii", "replace")
    return None


def _error(said: str) -> bytes:
    return json.dumps({"error": said}).encode() + b"\n"


def _length(head: bytes) -> int | None:
    """How long the body is said to be; None if that is not said, or cannot be read."""
    text = _header(head, b"content-length")
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None


def _from_here(connection: socket.socket) -> bool:
    """Whether who is connected is on this host: no other can have the address that it has itself."""
    try:
        there, own = connection.getpeername()[0], connection.getsockname()[0]
    except OSError:
        return False
    return bool(there == own)


def _spare() -> int | None:
    """A descriptor to give up when none is left; None while there is not even one."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
