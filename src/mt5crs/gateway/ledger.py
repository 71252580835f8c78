"""Deals as they appear: whose they are, and what each magic number earned today. Used by the terminal's
thread.
"""

from collections import OrderedDict

from mt5crs.broker.interface import Broker
from mt5crs.protocol.records import Deal

DAY_MS = 24 * 3600 * 1000
_OVERLAP_MS = 60_000
"""Brokers may show a deal late with an earlier time; this far back is asked for again."""
_OWNERS_KEPT = 50_000


class Ledger:
    """Keeps no deal longer than the overlap."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._day = -1
        """Day of the last update: days since 1970 by the broker's clock."""
        self._watermark = 0
        self._seen: dict[int, int] = {}
        self._realised: dict[tuple[int, int], float] = {}
        """By day and owner: a deal may be dated after midnight while the look at it is not."""
        self._owners: OrderedDict[int, int] = OrderedDict()

    def update(self, now_msc: int) -> list[Deal]:
        """Deals not seen before, oldest first; the first call only takes stock. Raises BrokerError."""
        day = now_msc // DAY_MS
        first = self._day < 0
        start = day * DAY_MS if day != self._day else self._watermark - _OVERLAP_MS
        deals = self._broker.deals(start if first else min(start, self._watermark - _OVERLAP_MS))
        fresh = [deal for deal in deals if deal.ticket not in self._seen]
        owners = [(deal, self.owner(deal)) for deal in fresh]  # may raise: before anything is changed
        if day != self._day:
            self._day = day
            self._realised = {key: earned for key, earned in self._realised.items() if key[0] >= day}
        for deal, owner in owners:
            key = (deal.time_msc // DAY_MS, owner)
            if key[0] >= day:
                earned = deal.profit + deal.commission + deal.fee + deal.swap
                self._realised[key] = self._realised.get(key, 0.0) + earned
            self._seen[deal.ticket] = deal.time_msc
            self._watermark = max(self._watermark, deal.time_msc)
        if first:
            self._watermark = max(self._watermark, now_msc)
        oldest = self._watermark - _OVERLAP_MS
        self._seen = {ticket: at for ticket, at in self._seen.items() if at >= oldest}
        return [] if first else fresh

    def realised_today(self, magic: int, now_msc: int) -> float:
        """Profit, commission, fee and swap of today's deals of a magic number, as of the last update.

        A day on which nothing was dealt yet starts at 0 without an update.
        """
        return self._realised.get((now_msc // DAY_MS, magic), 0.0)

    def owner(self, deal: Deal) -> int:
        """The magic number a deal belongs to: its own, or (0: closed by hand) that of the deal that opened
        the position.

        Raises BrokerError.
        """
        if deal.magic or not deal.position_id:
            if deal.magic and deal.position_id and deal.entry == "IN":
                self._remember(deal.position_id, deal.magic)
            return deal.magic
        known = self._owners.get(deal.position_id)
        if known is None:
            opening = self._broker.deals_of_position(deal.position_id)
            known = next((d.magic for d in opening if d.entry == "IN"), 0)
            self._remember(deal.position_id, known)
        return known

    def _remember(self, position: int, magic: int) -> None:
        self._owners[position] = magic
        if len(self._owners) > _OWNERS_KEPT:
            self._owners.popitem(last=False)
