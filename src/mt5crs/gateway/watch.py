"""Turns successive looks at the broker's books into events. Used by the terminal's thread."""

from collections.abc import Callable, Hashable, Iterable

from mt5crs.broker.interface import Books, Broker, BrokerError
from mt5crs.protocol import events
from mt5crs.protocol.digest import state_digest
from mt5crs.protocol.fields import VERSION
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.service.elapsed import elapsed_s

from .ledger import JUST_NOW_MS, Ledger
from .skew import Skew
from .stream import Stream

ACCOUNT_EVENT_INTERVAL_MS = 1000


class Watch:
    """Remembers the last look and publishes what changed."""

    def __init__(
        self,
        broker: Broker,
        stream: Stream,
        ledger: Ledger,
        monotonic: Callable[[], float] = elapsed_s,
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._ledger = ledger
        self._positions: dict[int, Position] | None = None
        self._orders: dict[int, Order] = {}
        self._version: int | None = None
        self._account: Hashable = None
        self._account_at = 0
        self._deals_due = True
        self._changed = False
        self._digests: dict[int, str] = {}
        self._ticks: dict[str, int] = {}
        self.skew = Skew(monotonic)
        """How far the broker's time that the gateway goes by is from what has just happened there."""

    def observe(self, books: Books) -> tuple[bool, list[Deal]]:
        """Publish what changed since the last look. Raises BrokerError when the deals could not be read.

        Returns whether anything but prices has changed, and the deals that came with it.
        """
        self._observe_account(books)
        if books.version is None or books.version != self._version or self._positions is None:
            self._observe_changes(books)
        fresh = self._observe_deals(books.time_msc) if self._deals_due else []
        changed, self._changed = self._changed, False
        return changed, fresh

    def _observe_changes(self, books: Books) -> None:
        positions = {p.identifier: p for p in books.positions}
        orders = {o.ticket: o for o in books.orders}
        changed = self._positions is None or (
            _shapes(self._positions.values()) != _shapes(positions.values())
            or _order_shapes(self._orders.values()) != _order_shapes(orders.values())
        )
        if changed:
            self._digests = {}
            self._deals_due = self._changed = True
            if self._positions is not None:
                self._publish_orders(orders, books.time_msc)
                self._publish_positions(self._positions, positions)
            self._positions, self._orders = positions, orders
        self._version = books.version

    def _observe_deals(self, now_msc: int) -> list[Deal]:
        fresh = self._ledger.update(now_msc)
        for deal in fresh:
            self._trade(self._ledger.owner(deal), deal)
        self._deals_due = False
        return fresh

    def magics(self) -> list[int]:
        """Magic number of every position open at the last look. Safe to call from another thread."""
        return [position.magic for position in (self._positions or {}).values()]

    def look_for_deals(self) -> None:
        """Look for deals at the next observation even if nothing else changed (after a submission)."""
        self._deals_due = True

    def digest(self, books: Books, magic: int) -> str:
        """State digest of a magic number, kept as long as nothing but prices changes."""
        if books.version is None or books.version != self._version:
            return state_digest(books.positions, books.orders, magic)
        found = self._digests.get(magic)
        if found is None:
            found = self._digests[magic] = state_digest(books.positions, books.orders, magic)
        return found

    def observe_ticks(self, symbols: Iterable[str]) -> dict[str, str]:
        """Publish quotes that are new. Returns why a symbol has none, by symbol: it concerns no other."""
        missing: dict[str, str] = {}
        for symbol in symbols:
            try:
                tick = self._broker.tick(symbol)
            except BrokerError as error:
                missing[symbol] = str(error)
                continue
            if tick is None:
                missing[symbol] = "the broker has no such symbol"
                continue
            if self._ticks.get(symbol) == tick.time_msc:
                continue
            if symbol in self._ticks:  # it has moved since the last look
                self.skew.happened(self._broker.time_msc(), tick.time_msc)
            self._ticks[symbol] = tick.time_msc
            topic = events.tick_topic(symbol)
            event = events.TickEvent(
                v=VERSION, stream=self._stream.name, seq=self._stream.next(topic), tick=tick
            )
            self._stream.publish(topic, event)
        return missing

    def _observe_account(self, books: Books) -> None:
        account = books.account
        hard = (account.balance, account.leverage, account.currency, books.identity)
        pause = abs(books.time_msc - self._account_at)  # the broker's clock may have been set back
        soft_due = (hard, account) != self._account and pause >= ACCOUNT_EVENT_INTERVAL_MS
        previous = self._account
        if soft_due or not isinstance(previous, tuple) or previous[0] != hard:
            self._account, self._account_at = (hard, account), books.time_msc
            if isinstance(previous, tuple) and previous[0] != hard:
                self._deals_due = True
            topic = events.ACCOUNT_TOPIC
            self._stream.publish(
                topic,
                events.AccountEvent(
                    v=VERSION,
                    stream=self._stream.name,
                    seq=self._stream.next(topic),
                    time_msc=books.time_msc,
                    identity=books.identity,
                    account=account,
                ),
            )

    def _publish_orders(self, orders: dict[int, Order], now_msc: int) -> None:
        for ticket, order in orders.items():
            old = self._orders.get(ticket)
            if old is None or order_shape(old) != order_shape(order):
                self._trade(order.magic, order)
        gone = {ticket: order for ticket, order in self._orders.items() if ticket not in orders}
        for ended in self._ended(gone, now_msc):
            self._trade(ended.magic, ended)

    def _ended(self, gone: dict[int, Order], now_msc: int) -> list[Order]:
        """How orders ended that are gone, as far as the history shows it: of the others, subscribers see the
        end from the position and deal events, or resync.
        """
        if not gone:
            return []
        placed = min(order.time_setup_msc for order in gone.values())
        ended: dict[int, Order] = {}
        try:
            # the latest first: an order can have been there for long, and much to read since
            for since in (max(placed, self._ledger.since(now_msc, JUST_NOW_MS)), placed):
                ended = {each.ticket: each for each in self._broker.closed_orders(since)}
                if gone.keys() <= ended.keys():
                    break
        except BrokerError:
            pass
        return [ended[ticket] for ticket in gone if ticket in ended]

    def _publish_positions(self, before: dict[int, Position], after: dict[int, Position]) -> None:
        for identifier, position in after.items():
            old = before.get(identifier)
            if old is None or shape(old) != shape(position):
                self._trade(position.magic, position)
        for identifier, position in before.items():
            if identifier not in after:
                self._trade(position.magic, identifier)

    def _trade(self, magic: int, what: Order | Deal | Position | int) -> None:
        topic = events.trade_topic(magic)
        stream, seq = self._stream.name, self._stream.next(topic)
        event: events.Event
        if isinstance(what, Order):
            event = events.OrderEvent(v=VERSION, stream=stream, seq=seq, order=what)
        elif isinstance(what, Deal):
            event = events.DealEvent(v=VERSION, stream=stream, seq=seq, deal=what)
        elif isinstance(what, Position):
            event = events.PositionEvent(v=VERSION, stream=stream, seq=seq, position=what)
        else:
            event = events.PositionClosedEvent(
                v=VERSION, stream=stream, seq=seq, magic=magic, identifier=what
            )
        self._stream.publish(topic, event)


def shape(p: Position) -> Hashable:
    """A position without what moves with the market."""
    figures = tuple(map(_comparable, (p.volume, p.price_open, p.sl, p.tp)))
    return (p.identifier, p.ticket, p.type, p.magic, figures, p.comment)


def order_shape(order: Order) -> Hashable:
    """All of an order, as something that is equal to itself."""
    return tuple(_comparable(getattr(order, name)) for name in order.__struct_fields__)


def _order_shapes(orders: Iterable[Order]) -> set[Hashable]:
    return {order_shape(order) for order in orders}


def _comparable(value: object) -> object:
    """The value, or for what is no number (and not equal to itself) something that is."""
    return value if value == value else "nan"


def _shapes(positions: Iterable[Position]) -> set[Hashable]:
    return {shape(p) for p in positions}
