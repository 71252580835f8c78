"""Orders at the simulated broker: refused, dealt, placed, triggered, stopped."""

from collections.abc import Callable

import msgspec

from mt5crs.broker.interface import TradeRequest, TradeResult
from mt5crs.broker.retcodes import DONE, DONE_PARTIAL, REQUOTE, name
from mt5crs.protocol.records import Order, Position

from . import rules
from .clock import BrokerClock
from .faults import Faults
from .feed import STEP_MS
from .holdings import Holdings
from .market import Market
from .matching import EPSILON, REASON_EXPERT, lots, stop_hit, triggered
from .symbols import CONTRACTS
from .valuation import Valuation


class Execution:
    """Changes the books, one commit for each request and for each step of the market."""

    def __init__(
        self,
        holdings: Holdings,
        market: Market,
        valuation: Valuation,
        clock: BrokerClock,
        leverage: int,
        faults: Callable[[], Faults],
        switched_off: Callable[[], bool],
    ) -> None:
        """`switched_off`: whether the terminal does not let programs trade."""
        self._holdings = holdings
        self._market = market
        self._valuation = valuation
        self._clock = clock
        self._leverage = leverage
        self._faults = faults
        self._switched_off = switched_off
        self._matched: tuple[int, int, int] = (0, 0, 0)

    def refusal(self, request: TradeRequest) -> int:
        """The code by which a request is refused; 0: it is not."""
        if self._faults().disconnected:
            return 10031
        if self._switched_off():
            return 10027
        order = self._holdings.orders.get(request.order)
        if (self._faults().market_closed and request.action != "REMOVE") or (
            (order.symbol if order else request.symbol) in self._faults().closed
        ):
            return 10018
        contract = CONTRACTS.get(order.symbol if order else request.symbol)
        refused = 0
        if contract is not None and contract.name in self._faults().rules:
            held = next((p for p in self._holdings.positions.values() if p.ticket == request.position), None)
            refused = rules.not_taken(
                request, self._market.spec(contract), self._market.tick(contract), order, held
            )
        return refused or rules.refusal(
            request,
            contract,
            self._market.tick(contract) if contract else None,
            list(self._holdings.positions.values()),
            list(self._holdings.orders.values()),
            self._valuation.account(self._valuation.positions()).margin_free,
            self._leverage,
            self._clock.stamp(),
        )

    def execute(self, request: TradeRequest, reason: int = REASON_EXPERT) -> TradeResult:
        """Carry out a request."""
        retcode = self.refusal(request)
        if retcode == REQUOTE:
            tick = self._market.tick(CONTRACTS[request.symbol])
            return trade_result(retcode, price=tick.ask if request.type == "BUY" else tick.bid)
        if retcode:
            return trade_result(retcode)
        if request.action == "REMOVE":
            self._holdings.end(self._holdings.orders[request.order], "CANCELED")
            self._holdings.commit()
            return trade_result(DONE, order=request.order)
        if request.action == "PENDING":
            order = self._holdings.new_order(request, reason)
            self._holdings.put(order)
            self._holdings.commit()
            return trade_result(DONE, order=order.ticket, volume=request.volume, price=request.price)
        return self._deal(request, reason)

    def _deal(self, request: TradeRequest, reason: int) -> TradeResult:
        contract = CONTRACTS[request.symbol]
        tick = self._market.tick(contract)
        price = tick.ask if request.type == "BUY" else tick.bid
        volume = self._fillable(request.volume)
        left = lots(request.volume - volume)
        if left > EPSILON and request.filling == "FOK":
            return trade_result(10006)
        order = self._holdings.new_order(request, reason)
        deal = self._holdings.fill(order, volume, price, position=request.position)
        rest = msgspec.structs.replace(order, volume_current=left, position_id=deal.position_id)
        if left > EPSILON and request.filling == "RETURN":
            self._holdings.filled_at[order.ticket] = self._clock.time
            self._holdings.put(msgspec.structs.replace(rest, state="PARTIAL"))
        else:
            self._holdings.end(rest, "FILLED" if left <= EPSILON else "CANCELED")
        self._holdings.commit()
        retcode = DONE if left <= EPSILON else DONE_PARTIAL
        return trade_result(retcode, order=order.ticket, deal=deal.ticket, volume=volume, price=price)

    def match(self) -> None:
        """What the market does to orders and stops at the quotes of now."""
        key = (self._clock.time // STEP_MS, self._market.version, self._holdings.version)
        if key == self._matched:
            return
        for order in list(self._holdings.orders.values()):
            if order.expiration_msc and order.expiration_msc <= self._clock.stamp():
                self._holdings.end(order, "EXPIRED")
                continue
            price = triggered(order, self._market.tick(CONTRACTS[order.symbol]))
            # the rest of an order filled in part waits for the next quote: that liquidity is gone
            fresh = self._holdings.filled_at.get(order.ticket, -1) < key[0] * STEP_MS
            if price is not None and fresh and not self._market.closed(order.symbol):
                self._fill_working(order, price)
        for position in list(self._holdings.positions.values()):
            hit = stop_hit(position, self._market.tick(CONTRACTS[position.symbol]))
            if hit and not self._market.closed(position.symbol):
                self._close_at(position, *hit)
        self._holdings.commit()
        self._matched = (key[0], key[1], self._holdings.version)

    def _fill_working(self, order: Order, price: float) -> None:
        volume = self._fillable(order.volume_current)
        left = lots(order.volume_current - volume)
        deal = self._holdings.fill(order, volume, price, position=order.position_id)
        rest = msgspec.structs.replace(order, volume_current=left, position_id=deal.position_id)
        if left > EPSILON:
            self._holdings.filled_at[order.ticket] = self._clock.time
            self._holdings.put(msgspec.structs.replace(rest, state="PARTIAL"))
        else:
            self._holdings.end(rest, "FILLED")

    def _close_at(self, position: Position, price: float, reason: int) -> None:
        order = self._holdings.new_order(
            TradeRequest(
                action="DEAL",
                magic=position.magic,
                comment=f"[{'sl' if reason == 4 else 'tp'} {price}]",
                filling=self._market.first_filling(position.symbol),
                symbol=position.symbol,
                type="SELL" if position.type == "BUY" else "BUY",
                volume=position.volume,
                position=position.ticket,
            ),
            reason,
        )
        self._holdings.fill(order, position.volume, price, position=position.ticket)
        self._holdings.end(
            msgspec.structs.replace(order, volume_current=0.0, position_id=position.identifier), "FILLED"
        )

    def _fillable(self, volume: float) -> float:
        return min(volume, self._faults().liquidity) if self._faults().liquidity else volume


def trade_result(
    retcode: int, *, order: int = 0, deal: int = 0, volume: float = 0.0, price: float = 0.0
) -> TradeResult:
    """The broker's reply with the words for its code."""
    return TradeResult(
        retcode=retcode, order=order, deal=deal, volume=volume, price=price, comment=name(retcode)
    )
