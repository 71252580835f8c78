"""Answers to questions about the account: consistent snapshots, history, symbols. Used by the terminal's
thread.
"""

from mt5crs.broker.interface import Books, Broker, BrokerError
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import MAX_HISTORY, VERSION
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.protocol.replies import AccountState, HistoryState, Reply, Snapshot, SymbolReply, TickReply

from .control import Control
from .ledger import Ledger
from .order_manager import OrderManager
from .order_refusals import broker_failed
from .refusal import Refusal
from .stream import Stream
from .symbol_sync import SymbolSync
from .watch import Watch, order_shape, shape

_ATTEMPTS = 5
Query = ask.SyncAll | ask.AccountQuery | ask.SymbolQuery | ask.TickQuery | ask.HistoryQuery


class Reader:
    """Every answer raises Refusal when it cannot be given; nothing unknown is reported as empty."""

    def __init__(
        self,
        broker: Broker,
        order_manager: OrderManager,
        watch: Watch,
        ledger: Ledger,
        control: Control,
        stream: Stream,
    ) -> None:
        self._broker = broker
        self._order_manager = order_manager
        self._watch = watch
        self._ledger = ledger
        self._control = control
        self._stream = stream
        self._picked: tuple[list[Position], int, list[Position]] = ([], 0, [])

    def answer(self, request: Query) -> Reply:
        """The reply to a question. Raises Refusal."""
        try:
            if isinstance(request, SymbolSync):
                self._require_symbol(request.symbol)
            if isinstance(request, ask.SyncAll):
                return self._snapshot(request)
            if isinstance(request, ask.HistoryQuery):
                return self._history(request)
            if isinstance(request, ask.AccountQuery):
                books = self._order_manager.look()
                return AccountState(
                    v=VERSION,
                    id=request.id,
                    time_msc=books.time_msc,
                    identity=books.identity,
                    account=books.account,
                )
            return self._market(request)
        except BrokerError as error:
            raise broker_failed(error) from error

    def _market(self, request: ask.SymbolQuery | ask.TickQuery) -> Reply:
        if isinstance(request, ask.SymbolQuery):
            spec = self._broker.symbol(request.symbol)
            if spec is not None:
                return SymbolReply(v=VERSION, id=request.id, spec=spec.specification())
        else:
            tick = self._broker.tick(request.symbol)
            if tick is not None:
                return TickReply(v=VERSION, id=request.id, tick=tick)
        raise _unknown_symbol(request.symbol)

    def _require_symbol(self, symbol: str) -> None:
        if self._broker.symbol(symbol) is None:
            raise _unknown_symbol(symbol)

    def _snapshot(self, request: ask.SyncAll) -> Snapshot:
        books, deals, closed, complete = self._consistent(request)
        everything = request.whole_account
        positions = books.positions if everything else self._own(books.positions, request.magic)
        orders = books.orders if everything else [o for o in books.orders if o.magic == request.magic]
        return Snapshot(
            v=VERSION,
            id=request.id,
            magic=request.magic,
            whole_account=everything,
            stream=self._stream.name,
            seqs=self._stream.seqs(),
            time_msc=books.time_msc,
            identity=books.identity,
            account=books.account,
            positions=positions,
            orders=orders,
            deals=deals,
            closed_orders=closed,
            history_complete=complete,
            unresolved=self._order_manager.unsettled(request.magic),
            halts=self._control.halts(),
            digest=self._watch.digest(books, request.magic),
        )

    def _own(self, positions: list[Position], magic: int) -> list[Position]:
        """Positions of a magic number; the same list again for the same positions."""
        source, owner, picked = self._picked
        if source is not positions or owner != magic:
            picked = [position for position in positions if position.magic == magic]
            self._picked = (positions, magic, picked)
        return picked

    def _consistent(self, request: ask.SyncAll) -> tuple[Books, list[Deal], list[Order], bool]:
        """Books and history that belong together: read again while they change in between."""
        books = self._order_manager.look()
        self._order_manager.require_ready(books.identity)
        since = request.history_since_msc
        if since is None:
            return books, [], [], True
        for _ in range(_ATTEMPTS):
            deals, closed, complete = self._past(
                since, MAX_HISTORY, None if request.whole_account else request.magic
            )
            after = self._order_manager.look()
            if _same(books, after):
                return after, deals, closed, complete
            books = after
        raise Refusal(
            "BUSY",
            "",
            "the account changes faster than it can be read",
            "ask again",
            retry_ms=100,
        )

    def _history(self, request: ask.HistoryQuery) -> HistoryState:
        deals, closed, complete = self._past(request.since_msc, request.limit, request.magic or None)
        return HistoryState(
            v=VERSION,
            id=request.id,
            time_msc=self._broker.time_msc(),
            deals=deals,
            closed_orders=closed,
            complete=complete,
        )

    def _past(self, since: int, limit: int, magic: int | None) -> tuple[list[Deal], list[Order], bool]:
        """Oldest first, at most `limit` of each. A magic number's deals include those made by hand on its
        positions.
        """
        deals = self._broker.deals(since)
        closed = self._broker.closed_orders(since)
        if magic is not None:
            deals = [deal for deal in deals if self._ledger.owner(deal) == magic]
            closed = [order for order in closed if order.magic == magic]
        complete = len(deals) <= limit and len(closed) <= limit
        return deals[:limit], closed[:limit], complete


def _unknown_symbol(symbol: str) -> Refusal:
    return Refusal(
        "UNKNOWN_SYMBOL",
        "symbol",
        f"the broker has no symbol {symbol}",
        "use the broker's own name of the symbol",
    )


def _same(before: Books, after: Books) -> bool:
    if before.version is not None and after.version is not None:
        return before.version == after.version
    return {shape(p) for p in before.positions} == {shape(p) for p in after.positions} and {
        order_shape(o) for o in before.orders
    } == {order_shape(o) for o in after.orders}
