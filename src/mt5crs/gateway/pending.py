"""What has happened at the broker and its books do not show yet. Used by the terminal's thread.

A terminal's lists are filled in one by one, some of them seconds after the reply to an order. Until
positions, orders and deals tell the same story, the view of the account is the books plus what is known
beyond them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from mt5crs.broker.interface import Books, Broker
from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Deal, Order, Position
from mt5crs.protocol.replies import OrderResult
from mt5crs.protocol.requests import OrderCancel, OrderSend, PositionClose
from mt5crs.service.elapsed import elapsed_s

from .journal import Entry
from .ledger import JUST_NOW_MS, SEARCHED_BACK_MS

_EPSILON = 1e-9
_LOADS_AT_MOST_S = 600.0
"""For so long a terminal that lists nothing is not believed about working orders."""


class Seen(Struct, frozen=True):
    """One reading of the books and of the history that goes with it."""

    books: Books
    closed: Sequence[Order]
    deals: Sequence[Deal]


class Effect(Struct, kw_only=True):
    """Something that happened. `missing` and `rest_missing` are lots that the positions and the orders do not
    show; both are 0 once only deals are waited for.
    """

    id: str
    magic: int
    symbol: str
    side: Side
    since: float
    """Monotonic seconds when it became known."""
    from_msc: int
    """Broker time from which the history is searched."""
    comment: str = ""
    order: int = 0
    deals: tuple[int, ...] = ()
    filled: float = 0.0
    """Lots that are known to be filled."""
    rest: float = 0.0
    """Lots that an order should still be working for."""
    gone: bool = False
    """A working order that left the book: how it ended is not known."""
    position: int = 0
    """Identifier of the position it changed, if that is known."""
    expected: float | None = None
    """That position's volume afterwards; negative for a sell."""
    held: float = 0.0
    """Open result of what the position lost, which no deal shows yet."""
    entry: Entry | None = None
    """The submission behind it; None for what an order or the broker did by itself."""
    missing: float = 0.0
    rest_missing: float = 0.0
    taken_back: float = 0.0
    """Lots by which the position is shown too large."""


class Pending:
    """The effects that are waited for, by id."""

    def __init__(
        self,
        broker: Broker,
        bound_s: float,
        note: Callable[..., None],
        on_shown: Callable[[Entry], None],
        since: Callable[[int, int], int],
        monotonic: Callable[[], float] = elapsed_s,
    ) -> None:
        """After `bound_s` an effect of a submission counts as unresolved. `on_shown(entry)` hears when the
        books show all of one. `since` says from when on the history is searched (Ledger.since).
        """
        self._broker = broker
        self._bound_s = bound_s
        self._note = note
        self._on_shown = on_shown
        self._since = since
        self._monotonic = monotonic
        self._effects: dict[tuple[int, str], Effect] = {}
        self._told: set[tuple[int, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._effects)

    # --- what happened -------------------------------------------------------------------------------------

    def effect_of(self, entry: Entry, answer: OrderResult, before: Books | None) -> Effect | None:
        """What a submission with this answer did to the books; None for nothing. `before`: the view it was
        decided on, None when that is not known any more (after a restart).
        """
        request = entry.request
        if isinstance(request, OrderCancel) or answer.outcome not in ("FILLED", "PARTIAL", "PLACED"):
            return None
        effect = Effect(
            id=request.client_order_id,
            magic=request.magic,
            symbol="",
            side="BUY",
            since=self._monotonic(),
            from_msc=self._since(entry.sent_msc, SEARCHED_BACK_MS),
            comment=entry.comment_id,
            order=answer.order,
            deals=tuple(answer.deals),
            filled=answer.volume,
            entry=entry,
        )
        if isinstance(request, OrderSend):
            effect.symbol, effect.side = request.symbol, request.side
            if answer.outcome == "PLACED" or (answer.outcome == "PARTIAL" and request.filling == "RETURN"):
                effect.rest = request.volume - answer.volume
            if before is not None and before.identity.margin_mode == "HEDGING":
                effect.position, effect.expected = answer.order, _signed(request.side, answer.volume)
            elif before is not None:
                self._expect_on(
                    effect, next((p for p in before.positions if p.symbol == request.symbol), None)
                )
        else:
            self._expect_close(effect, request, before)
        return effect

    def _expect_close(self, effect: Effect, request: PositionClose, before: Books | None) -> None:
        effect.position = request.position
        positions = before.positions if before is not None else []
        target = next((p for p in positions if request.position in (p.identifier, p.ticket)), None)
        if target is not None:
            effect.symbol, effect.side = target.symbol, "SELL" if target.type == "BUY" else "BUY"
            self._expect_on(effect, target)

    def _expect_on(self, effect: Effect, target: Position | None) -> None:
        if any(other.symbol == effect.symbol for other in self._effects.values()):
            return  # what it will be is not sure: the deals decide
        effect.position = target.identifier if target is not None else effect.order
        effect.expected = (volume_of(target) if target is not None else 0.0) + _signed(
            effect.side, effect.filled
        )

    def wait_for(self, effect: Effect) -> None:
        """Count it until the books show it."""
        self._effects[effect.magic, effect.id] = effect

    def notice(self, before: Books, after: Books, fresh: Iterable[Deal], magics: Iterable[int]) -> None:
        """Find what changed between two looks and is not explained by the deals that came with it."""
        ours = frozenset(magics)
        by_position: dict[int, float] = defaultdict(float)
        by_order: dict[int, float] = defaultdict(float)
        known: dict[int, Deal] = {}
        for deal in fresh:
            by_position[deal.position_id] += _signed(deal.type, deal.volume)
            by_order[deal.order] += deal.volume
            known[deal.position_id] = deal
        old = {p.identifier: p for p in before.positions}
        new = {p.identifier: p for p in after.positions}
        for identifier in {*old, *new, *known} - {0}:
            was, now = old.get(identifier), new.get(identifier)
            like: Position | Deal | None = now or was or known.get(identifier)
            dealt = by_position.get(identifier, 0.0)
            if like is None or like.magic not in ours:
                continue
            if not _equal(volume_of(now) - volume_of(was), dealt):
                self._notice_position(identifier, was, now, dealt, like, after)
        working = {order.ticket: order for order in after.orders}
        for order in before.orders:
            now_left = working[order.ticket].volume_current if order.ticket in working else 0.0
            lost = order.volume_current - now_left
            if order.magic in ours and lost > _EPSILON and not _equal(lost, by_order.get(order.ticket, 0.0)):
                self._notice_order(order, lost, gone=order.ticket not in working, after=after)

    def _notice_position(
        self,
        identifier: int,
        was: Position | None,
        now: Position | None,
        dealt: float,
        like: Position | Deal,
        after: Books,
    ) -> None:
        # deals without a change: the position will follow; a change without deals: they will
        before, current = volume_of(was), volume_of(now)
        expected = before + dealt if dealt else max(before, current, key=abs)
        lost = 0.0
        if was is not None and abs(current) < abs(before):
            lost = (was.profit + was.swap) * (1 - abs(current) / abs(before))
        known = self._effects.get((like.magic, f"position-{identifier}"))
        self.wait_for(
            Effect(
                id=f"position-{identifier}",
                magic=like.magic,
                symbol=like.symbol,
                side="BUY" if expected >= 0 else "SELL",
                since=known.since if known is not None else self._monotonic(),
                from_msc=self._since(after.time_msc, SEARCHED_BACK_MS),
                position=identifier,
                expected=expected,
                held=lost + (known.held if known is not None else 0.0),
            )
        )

    def _notice_order(self, order: Order, lost: float, *, gone: bool, after: Books) -> None:
        name = f"order-{order.ticket}"
        known = self._effects.get((order.magic, name))
        self.wait_for(
            Effect(
                id=name,
                magic=order.magic,
                symbol=order.symbol,
                side="BUY" if order.type.startswith("BUY") else "SELL",
                since=known.since if known is not None else self._monotonic(),
                from_msc=self._since(min(after.time_msc, order.time_setup_msc), SEARCHED_BACK_MS),
                order=order.ticket,
                position=order.ticket if after.identity.margin_mode == "HEDGING" else 0,
                filled=0.0 if gone else order.volume_initial - order.volume_current + lost,
                rest=order.volume_current,
                gone=gone,
            )
        )

    # --- what the books show -------------------------------------------------------------------------------

    def look(self, books: Books) -> None:
        """Let go of what the books show by now. Raises BrokerError."""
        if not self._effects:
            return
        # first what happened just now: the whole past of an order can be much to read
        self._let_go(books, self._since(books.time_msc, JUST_NOW_MS))
        if not self._effects:
            return
        self._let_go(books, min(effect.from_msc for effect in self._effects.values()))
        for key, effect in list(self._effects.items()):
            if not self._overdue(effect):
                continue
            if key not in self._told:
                self._told.add(key)
                self._note("books.behind", magic=effect.magic, client_order_id=effect.id)
            if effect.entry is None and self._believed(effect, books):
                self._drop(key)  # the reconciler halts on it; here the books are believed again

    def _let_go(self, books: Books, since: int) -> None:
        seen = Seen(books, self._broker.closed_orders(since), self._broker.deals(since))
        for key, effect in list(self._effects.items()):
            if self.shown(effect, seen):
                self._drop(key)

    def shown(self, effect: Effect, seen: Seen) -> bool:
        """Whether positions, orders and deals all show an effect; brings up to date what they do not.

        Raises BrokerError.
        """
        if effect.order == 0 and not effect.deals and not effect.comment:
            return self._position_shown(effect, seen)
        working = next((o for o in seen.books.orders if o.ticket == effect.order), None)
        ended = next((o for o in seen.closed if o.ticket == effect.order), None)
        mine = [d for d in seen.deals if self._belongs(d, effect)]
        dealt = sum(deal.volume for deal in mine)
        order = ended or working
        if order is not None:
            effect.filled = max(effect.filled, order.volume_initial - order.volume_current)
        placed = order is not None or effect.rest <= _EPSILON
        if effect.gone:
            placed = order is not None or dealt >= effect.rest - _EPSILON  # or it is listed again
        effect.rest_missing = 0.0 if placed else effect.rest
        dealt_all = dealt >= effect.filled - _EPSILON
        if effect.filled > _EPSILON or dealt > _EPSILON:
            effect.filled = max(effect.filled, dealt)
            in_positions = self._as_expected(effect, seen.books) or (
                dealt_all and all(self._agrees(i, seen.books) for i in {d.position_id for d in mine})
            )
            effect.missing = 0.0 if in_positions else effect.filled
        return placed and dealt_all and effect.missing <= _EPSILON

    def _position_shown(self, effect: Effect, seen: Seen) -> bool:
        current = signed_volume(seen.books.positions, effect.position)
        deals = self._broker.deals_of_position(effect.position)
        expected = effect.expected or 0.0
        effect.missing = max(0.0, abs(expected) - abs(current))
        effect.taken_back = max(0.0, abs(current) - abs(expected))
        return bool(deals) and _equal(current, _dealt(deals))

    @staticmethod
    def _belongs(deal: Deal, effect: Effect) -> bool:
        if effect.order and deal.order == effect.order:
            return True
        marked = bool(effect.comment) and deal.comment == effect.comment and deal.magic == effect.magic
        return marked or deal.ticket in effect.deals

    @staticmethod
    def _as_expected(effect: Effect, books: Books) -> bool:
        if effect.expected is None:
            return False
        return _equal(signed_volume(books.positions, effect.position), effect.expected)

    def _agrees(self, identifier: int, books: Books) -> bool:
        dealt = _dealt(self._broker.deals_of_position(identifier))
        return _equal(signed_volume(books.positions, identifier), dealt)

    def _drop(self, key: tuple[int, str]) -> None:
        effect = self._effects.pop(key)
        self._told.discard(key)
        if effect.entry is not None:
            self._on_shown(effect.entry)

    def _believed(self, effect: Effect, books: Books) -> bool:
        """Whether the books are taken for the truth about what nobody explains. A terminal that lists nothing
        may be loading: money that is bound tells of positions (`AccountView`), but of working orders nothing.
        """
        listed = bool(books.positions or books.orders)
        return listed or not effect.gone or self._monotonic() - effect.since > _LOADS_AT_MOST_S

    def _overdue(self, effect: Effect) -> bool:
        return self._monotonic() - effect.since > self._bound_s

    # --- what it means -------------------------------------------------------------------------------------

    def view(self, books: Books) -> Books:
        """The books, with what they do not show yet among the orders. Nothing is taken away."""
        if not self._effects:
            return books
        hedging = books.identity.margin_mode == "HEDGING"
        extra: list[Order] = []
        covered = {e.position for e in self._effects.values() if e.order}
        for effect in self._effects.values():
            closes = hedging and effect.entry is not None and isinstance(effect.entry.request, PositionClose)
            volume = effect.rest_missing + (0.0 if closes else effect.missing)
            if volume > _EPSILON and (effect.order or effect.position not in covered):
                extra += _phantom(effect, volume, books.positions)
        return msgspec.structs.replace(books, orders=[*books.orders, *extra]) if extra else books

    def left_of(self, position: Position, *, netting: bool) -> float:
        """Lots of a position that are still open, less what was closed and is shown nevertheless."""
        gone = 0.0
        for effect in self._effects.values():
            concerns = effect.position in (position.identifier, position.ticket) or (
                netting and effect.symbol == position.symbol
            )
            request = effect.entry.request if effect.entry is not None else None
            closes = isinstance(request, PositionClose) or (
                isinstance(request, OrderSend) and effect.side != position.type
            )
            if concerns:
                gone += effect.missing if closes else effect.taken_back
        return max(0.0, round(position.volume - gone, 8))

    def waiting(self, magic: int) -> list[str]:
        """Ids of what the books do not show yet of a magic number."""
        return [name for owner, name in list(self._effects) if owner == magic]

    def overdue(self) -> list[tuple[int, str]]:
        """Submissions that the books should have shown by now. Safe to call from another thread."""
        return [
            key
            for key, effect in list(self._effects.items())
            if effect.entry is not None and self._overdue(effect)
        ]

    def hides(self, position: int) -> bool:
        """Whether a position that the books do not show may be open all the same."""
        return any(
            effect.missing > _EPSILON
            and position in (effect.position, effect.order)
            and not (effect.entry is not None and isinstance(effect.entry.request, PositionClose))
            for effect in self._effects.values()
        )

    def held(self) -> Mapping[int, float]:
        """Open results of positions that vanished without their deals, by magic number."""
        found: dict[int, float] = defaultdict(float)
        for effect in self._effects.values():
            found[effect.magic] += effect.held
        return found

    def accept(self, magic: int, client_order_id: str) -> bool:
        """Believe the books as they are; whether there was an overdue effect to give up."""
        if (magic, client_order_id) not in self.overdue():
            return False
        self._drop((magic, client_order_id))
        return True


def _phantom(effect: Effect, volume: float, positions: Iterable[Position]) -> list[Order]:
    symbol, side = effect.symbol, effect.side
    if not symbol:  # a close from before a restart: its position says of what
        target = next((p for p in positions if effect.position in (p.identifier, p.ticket)), None)
        if target is None:
            return []
        symbol, side = target.symbol, "SELL" if target.type == "BUY" else "BUY"
    return [market_order(effect.magic, symbol, side, volume)]


def market_order(magic: int, symbol: str, side: Side, volume: float) -> Order:
    """What may be filled at any moment, or is filled already, as a working order."""
    return Order(
        ticket=0,
        symbol=symbol,
        type=side,
        state="STARTED",
        magic=magic,
        position_id=0,
        volume_initial=volume,
        volume_current=volume,
        price_open=0.0,
        sl=0.0,
        tp=0.0,
        time_setup_msc=0,
        time_done_msc=0,
        expiration_msc=0,
        reason=0,
        comment="",
    )


def _dealt(deals: Iterable[Deal]) -> float:
    return sum(_signed(deal.type, deal.volume) for deal in deals)


def volume_of(position: Position | None) -> float:
    """Its volume, negative for a sell; 0 for none."""
    return 0.0 if position is None else _signed(position.type, position.volume)


def signed_volume(positions: Iterable[Position], identifier: int) -> float:
    """A position's volume, negative for a sell; 0 when it is not open. By identifier or ticket."""
    return volume_of(next((p for p in positions if identifier in (p.identifier, p.ticket)), None))


def _signed(kind: str, volume: float) -> float:
    return volume if kind == "BUY" else -volume if kind == "SELL" else 0.0


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=1e-7)
