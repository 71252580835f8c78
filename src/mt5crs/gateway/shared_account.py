"""Whether another gateway trades the same magic numbers on this account. Used by the terminal's thread."""

from collections import deque
from collections.abc import Callable, Container, Iterable

from mt5crs.protocol.identifiers import is_comment_id
from mt5crs.protocol.records import Deal

from .journal import Journal

_SENT_KEPT = 64


class SharedAccount:
    """Looks for deals that no order of this gateway has made."""

    def __init__(
        self, journal: Journal, magics: Callable[[], Container[int]], note: Callable[..., None]
    ) -> None:
        """`magics`: magic numbers with limits."""
        self._journal = journal
        self._magics = magics
        self._note = note
        self._sent: deque[str] = deque(maxlen=_SENT_KEPT)
        """Comments of the latest orders, so that the journal need not be searched for their deals."""

    def sending(self, comment: str) -> None:
        """An order with this comment is handed to the broker."""
        self._sent.append(comment)

    def look_for_others(self, fresh: Iterable[Deal]) -> None:
        """Tell of deals of our magic numbers with a gateway's comment whose order is not in the journal."""
        magics = self._magics()
        for deal in fresh:
            if deal.magic not in magics or not is_comment_id(deal.comment) or deal.comment in self._sent:
                continue
            if not self._journal.belongs(deal.magic, deal.comment, deal.order):
                self._note("account.shared", magic=deal.magic, deal=deal.ticket, order=deal.order)
