"""Was a gateway here before a journal that begins at nothing? Used by the terminal's thread."""

import time
from collections.abc import Callable

from mt5crs.broker.interface import Books, Broker, BrokerError
from mt5crs.protocol.identifiers import is_comment_id

from .journal import Journal, JournalError


class Beginning:
    """Until the books have said no, an unknown client order id is looked for there before it is sent."""

    def __init__(self, broker: Broker, journal: Journal, note: Callable[..., None]) -> None:
        self._broker = broker
        self._journal = journal
        self._note = note
        self._seen = not journal.doubts_its_beginning

    def look(self, books: Books) -> None:
        """Ask the books, once, before anything is sent; when they cannot be read, at the next look again."""
        if self._seen:
            return
        try:
            self._journal.began_at(books.time_msc)
            since = self._journal.restored_since(time.time_ns() // 1_000_000)
            before = since is not None and any(
                is_comment_id(comment) for _, comment in self.marks(books, since)
            )
            if not before:
                self._journal.nothing_was_before()
        except (BrokerError, JournalError) as error:
            self._note("evidence.unavailable", error=str(error))
            return  # until then nothing unknown is sent unless the books can be read
        self._seen = True
        if before:
            self._note("journal.lost", halted=False)

    def marks(self, books: Books, since_msc: int) -> set[tuple[int, str]]:
        """Magic number and comment of all that the broker shows since then. Raises BrokerError."""
        orders = (*books.orders, *self._broker.closed_orders(since_msc))
        marks = {(one.magic, one.comment) for one in orders}
        marks |= {(one.magic, one.comment) for one in books.positions}
        return marks | {(one.magic, one.comment) for one in self._broker.deals(since_msc)}
