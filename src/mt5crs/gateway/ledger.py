"""Deals as they appear: whose they are, and what each magic number earned today. Used by the terminal's
thread.
"""

from collections import OrderedDict
from collections.abc import Iterable

from mt5crs.broker.interface import Broker
from mt5crs.protocol.records import Deal

DAY_MS = 24 * 3600 * 1000
SEARCHED_BACK_MS = 5 * 60_000
"""How far before the moment of sending the history is searched; brokers' clocks in a reply and in the books
may differ.
"""
JUST_NOW_MS = 2000
"""So far back is looked first: all of five minutes is much to read for each order."""
_OVERLAP_MS = 60_000
"""Brokers may show a deal late with an earlier time; this far back is asked for again."""
_HISTORY_LOADS_MS = 60_000
"""So long after the start a terminal may still be loading its history: then the day is read once more."""
_OWNERS_KEPT = 50_000
_SET_BACK_MS = 10 * 60_000
"""A time that is so much before the last one: the broker's clock was set back (end of summer time)."""
_SEEN_FEW = 1000
_STEP_MS = 3 * 3600_000
"""By so much, at most, a clock is set: deals are known so long that none is taken for new after it."""


class Ledger:
    """Keeps deals' tickets for hours, and nothing else of them. What is asked for next follows from the times
    on the deals, not from any clock, unless that was set back; it says only which day is today.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._day = -1
        """Day of the last update: days since 1970 by the broker's clock."""
        self._read_from = 0
        self._read_at = 0
        self._reread = False
        self._newest = 0
        """Time of the newest deal seen."""
        self._newest_order = 0
        self._now = 0
        self._repeated_until = 0
        """Time of the latest deal before the broker's clock was set back: until then hours come again."""
        self._kept = _SEEN_FEW
        self._seen: dict[int, int] = {}
        self._realised: dict[tuple[int, int], float] = {}
        """By day and owner: a deal may be dated after midnight while the look at it is not."""
        self._owners: OrderedDict[int, int] = OrderedDict()

    def update(self, now_msc: int) -> list[Deal]:
        """Deals not seen before, oldest first; the first call only takes stock. Raises BrokerError."""
        day = now_msc // DAY_MS
        first = self._day < 0
        # the day begins anew: what was counted is forgotten, and all of it read again
        anew = first or day < self._day or self.due(now_msc)
        if self._is_back(now_msc):  # what comes is dated later than now, and earlier than what is known
            self._newest, self._newest_order = min(self._newest, now_msc), min(self._newest_order, now_msc)
        known = self._newest - _OVERLAP_MS
        since = day * DAY_MS if anew else max(self._read_from, known)
        deals = self._broker.deals(since)
        unseen = (deal for deal in deals if deal.ticket not in self._seen)
        fresh = [deal for deal in unseen if not anew or deal.time_msc >= known]
        counted = deals if anew else fresh
        owners = [(deal, self.owner(deal)) for deal in counted]  # may raise: before anything is changed
        if anew:
            self._reread = not first
            self._realised.clear()
            self._read_from = since
            self._read_at = now_msc
        elif day != self._day:
            self._realised = {key: earned for key, earned in self._realised.items() if key[0] >= day}
        self._day, self._now = day, now_msc
        for deal, owner in owners:
            key = (deal.time_msc // DAY_MS, owner)
            if key[0] >= day:
                earned = deal.profit + deal.commission + deal.fee + deal.swap
                self._realised[key] = self._realised.get(key, 0.0) + earned
            self._seen[deal.ticket] = deal.time_msc
            if deal.time_msc <= now_msc + DAY_MS:  # a date ahead must not hide what comes
                self._newest = max(self._newest, min(deal.time_msc, now_msc))
            if _SET_BACK_MS < deal.time_msc - now_msc <= _STEP_MS:
                self._repeated_until = max(self._repeated_until, deal.time_msc)
        if len(self._seen) > 2 * self._kept:
            oldest = self._newest - _OVERLAP_MS - _STEP_MS
            self._seen = {ticket: at for ticket, at in self._seen.items() if at >= oldest}
            self._kept = max(_SEEN_FEW, len(self._seen))
        return [] if first else fresh

    def saw_orders(self, times_msc: Iterable[int], now_msc: int) -> None:
        """Take note of when the broker says that orders were placed or ended: it may be long since the last
        deal. A date far ahead says nothing.
        """
        told = (min(at, now_msc) for at in times_msc if at <= now_msc + DAY_MS)
        self._newest_order = max((self._newest_order, *told))

    def since(self, moment_msc: int, margin_ms: int) -> int:
        """From when on the history is searched for what happened at a moment or later, though the clock that
        told the moment may be ahead: what comes is dated later than the newest deal or order known.
        """
        if self._day < 0:  # nothing is known yet
            return max(0, moment_msc - margin_ms)
        newest = max(self._newest, self._newest_order) or max(0, self._read_from - DAY_MS)
        return max(0, min(moment_msc, newest) - margin_ms)

    def realised_today(self, magic: int, now_msc: int) -> float:
        """Profit, commission, fee and swap of today's deals of a magic number, as of the last update.

        A day on which nothing was dealt yet starts at 0 without an update. When the clock was set back over
        midnight, what is dated tomorrow has happened already.
        """
        today = now_msc // DAY_MS
        earned = self._realised.get((today, magic), 0.0)
        if now_msc < self._repeated_until:
            earned += self._realised.get((today + 1, magic), 0.0)
        return earned

    def may_be_loading(self) -> bool:
        """Whether the history was read at the start only, when a terminal may show a part of it."""
        return not self._reread

    def due(self, now_msc: int) -> bool:
        """Whether it is time to read the day once more: a terminal has had time to load its history, or the
        clock was set back.
        """
        if self._day < 0:
            return False
        loaded = not self._reread and not 0 <= now_msc - self._read_at < _HISTORY_LOADS_MS
        return loaded or self._is_back(now_msc)

    def _is_back(self, now_msc: int) -> bool:
        return now_msc < self._now - _SET_BACK_MS

    def owner(self, deal: Deal) -> int:
        """The magic number a deal belongs to: that of the deal that opened the position, whoever closed it.

        Raises BrokerError.
        """
        position = deal.position_id
        if not position:
            return deal.magic
        known = self._owners.get(position)
        if known is None:
            if deal.entry == "IN" and deal.magic:
                known = deal.magic
            else:
                opening = self._broker.deals_of_position(position)
                found = next((d.magic for d in opening if d.entry == "IN"), None)
                if found is None:
                    return deal.magic  # its opening is not shown (yet)
                known = found
            self._owners[position] = known
            if len(self._owners) > _OWNERS_KEPT:
                self._owners.popitem(last=False)
        return known
