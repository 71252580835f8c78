"""The `Trading` that strategies get: state from the reconciler, orders through the execution adapter."""

from __future__ import annotations

import time
from typing import Any, Literal

from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient, R
from mt5crs.client.published import PublishedState
from mt5crs.protocol import replies, requests
from mt5crs.protocol.fields import Execution, Filling, Side
from mt5crs.protocol.records import Order, Position, SymbolSpec, Tick
from mt5crs.settings.strategy import StrategySettings
from mt5crs.strategy.api import OrderNotSentError, OrderRefusedError, Outcome, TradingSuspendedError
from mt5crs.strategy.execution import ExecutionAdapter
from mt5crs.strategy.reference import Leverage, ReferenceCache
from mt5crs.strategy.statefeed import StateFeed


class LiveTrading:
    """Implements `mt5crs.strategy.api.Trading`."""

    def __init__(
        self, settings: StrategySettings, client: GatewayClient, adapter: ExecutionAdapter, feed: StateFeed
    ) -> None:
        self._settings = settings
        self._client = client
        self._adapter = adapter
        self._feed = feed
        self._cache = ReferenceCache()

    @property
    def symbol(self) -> str:
        """The configured SYMBOL."""
        return self._settings.symbol

    @property
    def volume(self) -> float:
        """The configured VOLUME in lots."""
        return self._settings.volume

    def positions(self) -> tuple[Position, ...]:
        """Open positions, own outcomes included."""
        return self._known().positions or ()

    def orders(self) -> tuple[Order, ...]:
        """Working orders, own outcomes included."""
        return self._known().orders or ()

    def quote(self, symbol: str) -> Tick:
        """The current quote, asked for now."""
        return self._read(requests.TickQuery, replies.TickReply, symbol=symbol).tick

    def spec(self, symbol: str) -> SymbolSpec:
        """Contract specification, cached."""
        return self._cache.get(
            symbol,
            SymbolSpec,
            lambda: self._read(requests.SymbolQuery, replies.SymbolReply, symbol=symbol).spec,
        )

    def leverage(self) -> int:
        """Leverage limit of the account, cached."""
        return self._cache.get("account", Leverage, self._fetch_leverage).value

    def market(
        self,
        side: Side,
        volume: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        max_slippage_points: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Buy or sell at market; slippage is counted from the quote asked for at this moment."""
        symbol = symbol or self.symbol
        price = None
        if max_slippage_points is not None:
            tick = self.quote(symbol)
            price = tick.ask if side == "BUY" else tick.bid
        return self._adapter.submit(
            requests.OrderSend,
            symbol=symbol,
            side=side,
            type="MARKET",
            volume=volume,
            price=price,
            sl=sl,
            tp=tp,
            max_slippage_points=max_slippage_points,
            filling=self._filling(symbol, "MARKET"),
            expiration_msc=None,
            expected_profit=expected_profit,
        )

    def pending(
        self,
        kind: Literal["LIMIT", "STOP"],
        side: Side,
        volume: float,
        price: float,
        *,
        symbol: str | None = None,
        sl: float | None = None,
        tp: float | None = None,
        expiration_msc: int | None = None,
        expected_profit: float | None = None,
    ) -> Outcome:
        """Place a limit or stop order."""
        symbol = symbol or self.symbol
        return self._adapter.submit(
            requests.OrderSend,
            symbol=symbol,
            side=side,
            type=kind,
            volume=volume,
            price=price,
            sl=sl,
            tp=tp,
            max_slippage_points=None,
            filling=self._filling(symbol, kind),
            expiration_msc=expiration_msc,
            expected_profit=expected_profit,
        )

    def close(self, position: Position, volume: float | None = None) -> Outcome:
        """Close a position, or part of it."""
        return self._adapter.submit(
            requests.PositionClose, position=position.ticket, volume=volume, max_slippage_points=None
        )

    def cancel(self, order: Order) -> Outcome:
        """Cancel a working order."""
        return self._adapter.submit(requests.OrderCancel, order=order.ticket)

    def _known(self) -> PublishedState:
        """The reconciler's state, once it contains the effect of our last outcome."""
        deadline = time.monotonic() + self._settings.order_timeout_s
        while True:
            reason = self._feed.unfit()
            if reason is not None:
                raise TradingSuspendedError(reason)
            state = self._feed.state
            if self._adapter.contained_in(state.stream, state.seq):
                return state
            left = deadline - time.monotonic()
            if left <= 0:
                raise TradingSuspendedError("the reconciler does not show the last order's effect in time")
            self._feed.update(left)

    def _filling(self, symbol: str, kind: Execution) -> Filling:
        filling = self.spec(symbol).filling_for(kind)
        if filling is None:
            raise OrderRefusedError(
                "BROKER", "filling", f"{symbol} offers no filling mode; it cannot be traded"
            )
        return filling

    def _fetch_leverage(self) -> Leverage:
        return Leverage(self._read(requests.AccountQuery, replies.AccountState).account.leverage)

    def _read(self, request: type[requests.Request], reply: type[R], **fields: Any) -> R:
        try:
            return self._client.call(request, reply, magic=self._settings.magic_number, **fields)
        except RefusedError as error:
            answer = error.reply
            raise OrderRefusedError(answer.code, answer.field, f"{answer.message} {answer.remedy}") from error
        except GatewayError as error:
            raise OrderNotSentError(f"{request.__name__} got no answer: {error}") from error
