"""What each magic number has earned today. Used by the terminal's thread."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from mt5crs.broker.interface import Books
from mt5crs.protocol.records import Position

from .last_seen import LastSeen
from .ledger import Ledger
from .pending import Pending


class DayResults:
    """Realised by deals, open in positions, and held by what the books do not show yet."""

    def __init__(
        self,
        ledger: Ledger,
        last_seen: LastSeen,
        pending: Pending,
        magics: Callable[[], Iterable[int]],
    ) -> None:
        """`magics`: magic numbers with limits."""
        self._ledger = ledger
        self._last_seen = last_seen
        self._pending = pending
        self._magics = magics
        self._open_of: list[Position] = []
        self._open: defaultdict[int, float] = defaultdict(float)
        """Open results by magic number, of the list of positions above."""

    def realised(self, magic: int, now_msc: int) -> float:
        """What a magic number's deals have earned today. Right after the start the terminal may show some of
        them: then what was known before it counts, if that is less.
        """
        earned = self._ledger.realised_today(magic, now_msc)
        if not self._ledger.may_be_loading():
            return earned
        known = self._last_seen.earned(magic, now_msc)
        return earned if known is None else min(earned, known)

    def today(self, books: Books) -> dict[int, float]:
        """What each magic number with limits has earned today, open positions included."""
        if self._open_of is not books.positions:  # the same list again holds the same results
            self._open.clear()
            for position in books.positions:
                self._open[position.magic] += position.profit + position.swap
            self._open_of = books.positions
        found = {
            magic: self.realised(magic, books.time_msc) + self._open.get(magic, 0.0)
            for magic in self._magics()
        }
        for magic, held in self._pending.held().items():
            if magic in found:
                found[magic] += held
        return found

    def realised_by_magic(self, now_msc: int) -> dict[int, float]:
        """What the deals of each magic number with limits have earned today."""
        return {magic: self.realised(magic, now_msc) for magic in self._magics()}
