"""From a submission to the request that goes to the broker. Used by the terminal's thread."""

import math

import msgspec

from mt5crs.broker.interface import Books, Broker, BrokerError, TradeRequest
from mt5crs.protocol import requests as ask
from mt5crs.protocol.fields import Execution, Filling
from mt5crs.protocol.records import Position
from mt5crs.settings.gateway import Limits

from . import risk
from .journal import new_entry
from .order_checks import OrderChecks
from .order_refusals import no_position, not_loaded
from .pending import Pending
from .refusal import Refusal
from .trade_requests import cancel_request, own_position, trade_request

_EPSILON = 1e-9


class Preparation:
    """Fills in what the client left open, and finds what is to be closed or cancelled."""

    def __init__(self, broker: Broker, pending: Pending, checks: OrderChecks) -> None:
        self._broker = broker
        self._pending = pending
        self._checks = checks

    def priced(self, request: ask.Submission, limits: Limits) -> ask.Submission:
        """A market order whose client named no price gets the quote of this moment, so that its slippage is
        bounded and measured too, after a restart as well. Raises BrokerError.
        """
        if not isinstance(request, ask.OrderSend) or request.type != "MARKET" or request.price is not None:
            return request
        if risk.slippage_points(request.max_slippage_points, limits) is None:
            return request
        tick = self._broker.tick(request.symbol)
        quote = 0.0 if tick is None else tick.ask if request.side == "BUY" else tick.bid
        return msgspec.structs.replace(request, price=quote) if 0 < quote < math.inf else request

    def filled(self, request: ask.Submission) -> ask.Submission:
        """The order with the symbol's own filling, for clients that name none. Raises BrokerError."""
        if not isinstance(request, ask.OrderSend):
            return request
        filling = self._filling_for(request.symbol, request.type)
        return msgspec.structs.replace(request, filling=filling or request.filling)

    def prepare(self, request: ask.Submission, books: Books, limits: Limits) -> TradeRequest:
        """The checked request to the broker. Raises Refusal and BrokerError."""
        if isinstance(request, ask.OrderSend):
            self._checks.check_order(request, books, limits)
            return trade_request(request, new_entry(request, "sent", 0).comment_id, limits)
        if isinstance(request, ask.OrderCancel):
            return cancel_request(request, books)
        return self._close_request(request, books, limits)

    def target(self, request: ask.PositionClose, books: Books) -> Position:
        """The position to close. Raises Refusal, a final one only when it is not there for sure."""
        shown = any(request.position in (p.identifier, p.ticket) for p in books.positions)
        if not shown and self._pending.hides(request.position):
            raise not_loaded("the position should be open, and the terminal does not list it (yet)")
        return own_position(request, books)

    def _close_request(self, request: ask.PositionClose, books: Books, limits: Limits) -> TradeRequest:
        position = self.target(request, books)
        left = self._pending.left_of(position, netting=books.identity.margin_mode != "HEDGING")
        if left <= _EPSILON:
            raise no_position(request.position)
        volume = request.volume if request.volume is not None else left
        if not volume <= left + _EPSILON:
            raise Refusal(
                "BAD_FIELD",
                "volume",
                f"volume {volume} is more than the position's {left}",
                "close at most what is open",
                final=True,
            )
        filling = self._filling_for(position.symbol, "MARKET")
        if filling is None:
            raise BrokerError(-4, f"{position.symbol} has a position but offers no filling to close it with")
        return TradeRequest(
            action="DEAL",
            magic=request.magic,
            comment=new_entry(request, "sent", 0).comment_id,
            filling=filling,
            symbol=position.symbol,
            type="SELL" if position.type == "BUY" else "BUY",
            volume=volume,
            deviation=risk.slippage_points(request.max_slippage_points, limits),
            position=position.ticket,
        )

    def _filling_for(self, symbol: str, kind: Execution) -> Filling | None:
        """The symbol's own filling; None when the broker has no such symbol or it cannot be traded."""
        spec = self._broker.symbol(symbol)
        return spec.filling_for(kind) if spec is not None else None
