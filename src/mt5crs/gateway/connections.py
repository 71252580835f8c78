"""Who is connected, and who has to go. Pure; the descriptors are libzmq's own."""

from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct

from mt5crs.protocol.fields import MAX_REPLY_BYTES
from mt5crs.service.elapsed import elapsed_s

MAX_INCOMPLETE_BYTES = 4 * 1024 * 1024
"""A connection may send this much before a message of it has been read: dozens of the largest requests."""

MAX_UNREAD_BYTES = MAX_REPLY_BYTES + 16 * 1024 * 1024
"""Replies that one address has asked for and not read may take this much: the largest one, and some more."""
COUNTED_REPLY_BYTES = 16 * 1024
"""Smaller replies are not counted: 64 of them, the most that wait on a connection, are a megabyte."""

PEAK_S = 15.0
"""For so long the most connections of one address are told: silent ones are ended between two scrapes."""

Peer = tuple[str, int]
"""Address and port of the other end."""


class Connection(Struct):
    """An accepted connection."""

    endpoint: str
    peer: Peer
    heard: int = 0
    """Messages of it that had been read at the last look."""
    received: int = 0
    """Bytes it had sent by then."""
    beside: int = 0
    """Bytes that its kernel has taken beside counted replies: encryption, handshake, small replies."""


class Connections:
    """Counts connections by address. Used by one thread, except `heard`, `subscribed` and `replied`."""

    def __init__(self, per_source: int, clock: Callable[[], float] = elapsed_s) -> None:
        """`per_source`: most connections from one address."""
        self._per_source = per_source
        self._clock = clock
        self._peak, self._peak_at = 0, float("-inf")
        self._open: dict[int, Connection] = {}
        self._sources: Counter[str] = Counter()
        self.heard: dict[int, int] = {}
        """Messages that were read, by connection; counted by the network thread."""
        self.replied: dict[int, int] = {}
        """Bytes of counted replies, by connection; counted by the network thread."""
        self.subscribed: dict[int, int] = {}
        """Subscriptions in force, by connection; counted by the network thread."""

    def accepted(self, fd: int, endpoint: str, peer: Peer) -> None:
        """A new connection. It may have been heard before this is told: then it is not silent."""
        heard = None if fd in self._open else self.heard.get(fd)
        self._forget(fd)  # its number was free, whatever was told of its end
        if heard is not None:
            self.heard[fd] = heard
        self._open[fd] = Connection(endpoint=endpoint, peer=peer)
        self._sources[peer[0]] += 1
        count = min(self._sources[peer[0]], self._per_source)  # one more is ended at once
        if count >= self._peak_of_late():
            self._peak, self._peak_at = count, self._clock()

    def closed(self, fd: int, endpoint: str) -> None:
        """A connection has ended; the number may be another endpoint's by now."""
        found = self._open.get(fd)
        if found is not None and found.endpoint == endpoint:
            self._forget(fd)

    def excess(self, source: str, most: int) -> tuple[int, str] | None:
        """Whom to shut down, and why, when `source` has too many or there are more than `most` in all.

        The oldest one that has not said a word: a peer with a key speaks within milliseconds.
        """
        if self._sources[source] > self._per_source:
            return self._oldest_silent(source), "source"
        if len(self._open) > most:
            return self._oldest_silent(None), "total"
        return None

    def incomplete(self, received: Callable[[int, Peer], int | None]) -> Iterator[int]:
        """Connections that have sent too much since a message of theirs was read last.

        `received` gives the bytes that a connection has sent so far, None when it is no longer there.
        """
        for fd, each in list(self._open.items()):
            total = received(fd, each.peer)
            if total is None:
                self._forget(fd)
            elif (count := self.heard.get(fd, 0)) != each.heard:
                each.heard, each.received = count, total
            elif total - each.received > MAX_INCOMPLETE_BYTES:
                yield fd

    def unread(self, taken: Callable[[int, Peer], int | None]) -> Iterator[int]:
        """Connections of addresses that ask for much and do not read it; those that owe most first.

        `taken` gives the bytes that the other end's kernel has taken so far, None where that is not known.
        """
        waiting: dict[str, list[tuple[int, int]]] = {}
        for fd, each in list(self._open.items()):
            replied = self.replied.get(fd)
            total = taken(fd, each.peer) if replied else None
            if replied and total is not None:
                each.beside = max(each.beside, total - replied)
                waiting.setdefault(each.peer[0], []).append((replied + each.beside - total, fd))
        for owed in waiting.values():
            left = sum(size for size, _ in owed)
            for size, fd in sorted(owed, reverse=True):
                if left <= MAX_UNREAD_BYTES:
                    break
                left -= size
                yield fd

    def peer(self, fd: int) -> Peer | None:
        """The other end of a connection; None when there is no such connection."""
        found = self._open.get(fd)
        return found.peer if found else None

    def drop(self, fd: int) -> None:
        """A connection was shut down, or is not there any more."""
        self._forget(fd)

    def count(self) -> int:
        """Open connections."""
        return len(self._open)

    def most_from_one(self) -> int:
        """How many the address has that has most, or had within the last `PEAK_S`."""
        return max([self._peak_of_late(), *list(self._sources.values())])

    def _peak_of_late(self) -> int:
        return self._peak if self._clock() - self._peak_at <= PEAK_S else 0

    def _oldest_silent(self, source: str | None) -> int:
        among = [fd for fd, each in self._open.items() if source in (None, each.peer[0])]
        # dictionaries keep the order of arrival: without a silent one the newest has to go
        return next((fd for fd in among if not self.heard.get(fd)), among[-1])

    def _forget(self, fd: int) -> None:
        self.heard.pop(fd, None)
        self.subscribed.pop(fd, None)
        self.replied.pop(fd, None)
        gone = self._open.pop(fd, None)
        if gone is not None:
            self._sources[gone.peer[0]] -= 1
            if not self._sources[gone.peer[0]]:
                del self._sources[gone.peer[0]]
