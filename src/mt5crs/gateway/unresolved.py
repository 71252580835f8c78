"""Submissions whose fate is not known. Changed by the terminal's thread."""

from collections.abc import Callable

import msgspec

from mt5crs.broker.interface import Books
from mt5crs.protocol import requests as ask

from .journal import Entry, Journal
from .pending import Pending, market_order


class Unresolved:
    """What was recorded as sent and has no answer yet, and with it what the books are too late with."""

    def __init__(self, journal: Journal, pending: Pending, monotonic: Callable[[], float]) -> None:
        """Take what the last process left open."""
        self._pending = pending
        self._monotonic = monotonic
        self._began = monotonic()
        self._entries: dict[tuple[int, str], Entry] = {
            (entry.request.magic, entry.request.client_order_id): entry for entry in journal.unresolved()
        }
        self._sent_at: dict[tuple[int, str], float] = {}
        """When each unresolved submission was sent, if by this process."""
        self._in_hand: tuple[int, str] | None = None
        """The submission at the broker right now; it counts as unresolved once that is over."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    def entries(self) -> list[Entry]:
        """All of them, as recorded."""
        return list(self._entries.values())

    def of(self, magic: int) -> list[str]:
        """Client order ids of a magic number whose fate is not known, or whose effect the books do not show
        although they should by now. Safe to call from another thread.
        """
        return sorted(
            cid for owner, cid in (*list(self._entries), *self._pending.overdue()) if owner == magic
        )

    def unsettled(self, magic: int) -> list[str]:
        """The same, and what the books may still be late with: until it is empty, they are not the state."""
        return sorted({*self.of(magic), *self._pending.waiting(magic)})

    def by_magic(self) -> dict[int, int]:
        """How many submissions are unresolved, by magic number, but for one that is at the broker right now.

        Safe to call from another thread.
        """
        found: dict[int, int] = {}
        for key in (*list(self._entries), *self._pending.overdue()):
            if key != self._in_hand:
                found[key[0]] = found.get(key[0], 0) + 1
        return found

    def sending(self, entry: Entry) -> None:
        """It is about to be handed to the broker."""
        self._in_hand = key = (entry.request.magic, entry.request.client_order_id)
        self._entries[key] = entry
        self._sent_at[key] = self._monotonic()

    def out_of_hand(self) -> None:
        """Nothing is at the broker right now."""
        self._in_hand = None

    def add(self, entry: Entry) -> None:
        """Its fate is not known."""
        self._entries[entry.request.magic, entry.request.client_order_id] = entry

    def drop(self, request: ask.Submission) -> None:
        """Its fate is known and recorded."""
        key = (request.magic, request.client_order_id)
        self._entries.pop(key, None)
        self._sent_at.pop(key, None)

    def since_s(self, entry: Entry) -> float:
        """For how long it has been sent; if by another process, for how long this one has known of it."""
        key = (entry.request.magic, entry.request.client_order_id)
        # by this host's clock: the broker's may be set meanwhile; of another process's, since this one began
        return self._monotonic() - self._sent_at.get(key, self._began)

    def view(self, books: Books) -> Books:
        """The books, with what they do not show yet and what may be under way among the orders."""
        view = self._pending.view(books)
        sent = [
            market_order(r.magic, r.symbol, r.side, r.volume)
            for entry in self._entries.values()
            if isinstance(r := entry.request, ask.OrderSend)
        ]
        return msgspec.structs.replace(view, orders=[*view.orders, *sent]) if sent else view
