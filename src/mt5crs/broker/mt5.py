"""A MetaTrader 5 terminal through the official `MetaTrader5` package (Windows). Imported only when it is
used.

`None` from a query means an error, never "nothing": it becomes BrokerError with the package's last_error.
The package is called in one place and its last_error is read in one, since both can raise; what it would
refuse or misread never reaches it (`mt5_arguments`).
Facts: https://www.mql5.com/en/docs/python_metatrader5
"""

from __future__ import annotations

import datetime
import importlib
import math
import ntpath
import time
from collections.abc import Callable, Iterable, Sized
from typing import Any, Literal, get_args

from msgspec import Struct

from mt5crs.broker.clock import QUOTE, BrokerClock
from mt5crs.broker.interface import (
    Books,
    BrokerError,
    Calculation,
    CheckOutcome,
    ExecutionMode,
    TradedSymbol,
    TradeRequest,
    TradeResult,
    TradingMode,
)
from mt5crs.broker.mt5_arguments import ArgumentError, checked, checked_symbol
from mt5crs.broker.retcodes import REQUOTE
from mt5crs.protocol.fields import (
    DealEntry,
    DealType,
    Execution,
    Filling,
    MarginMode,
    OrderState,
    OrderType,
    Side,
    TradeMode,
)
from mt5crs.protocol.records import Account, Deal, Identity, Order, Position, Tick
from mt5crs.service.elapsed import elapsed_s
from mt5crs.settings.gateway import GatewaySettings

_TRADE_MODES: tuple[TradeMode, ...] = get_args(TradeMode)
_MARGIN_MODES: tuple[MarginMode, ...] = get_args(MarginMode)
_ORDER_TYPES: tuple[OrderType, ...] = get_args(OrderType)
_ORDER_STATES: tuple[OrderState, ...] = get_args(OrderState)
_ENTRIES: tuple[DealEntry, ...] = get_args(DealEntry)
_FILLINGS: dict[Filling, int] = {"FOK": 0, "IOC": 1, "RETURN": 2}
_ACTIONS = {"DEAL": 1, "PENDING": 5, "REMOVE": 8}
_GTC, _SPECIFIED = 0, 2
_EXCHANGE, _FULL = 3, 4
_TRADING_MODES: tuple[TradingMode, ...] = get_args(TradingMode)
_EXECUTIONS: tuple[ExecutionMode, ...] = get_args(ExecutionMode)
_KINDS: dict[Execution, int] = {"MARKET": 1, "LIMIT": 2, "STOP": 4}
"""Bits of SYMBOL_ORDER_MODE; 16 and 32 are stop loss and take profit. Of SYMBOL_EXPIRATION_MODE 1 is until
cancelled, 4 until a time (https://www.mql5.com/en/docs/constants/environment_state/marketinfoconstants).
"""
_FAILED, _INVALID_PARAMS, _INTERNAL = -1, -2, -10000
_INVALID_REQUEST, _NO_QUOTES = 10013, 10021
_READS = 5
_QUARTER_MS = 15 * 60 * 1000
_WIDEST_OFFSET_MS = 14 * 3600 * 1000
_OFFSET_LIFE_MS = 10 * 60 * 1000
_LOADS_S = 60.0
"""For so long after it was started or connected anew a terminal's lists are compared with its own counts."""


class Terminal(Struct, frozen=True, kw_only=True):
    """How to start and log in the terminal."""

    path: str
    login: int
    password: str
    server: str
    timeout_s: float
    portable: bool


def terminal_of(settings: GatewaySettings) -> Terminal:
    """The terminal that the gateway's settings describe."""
    return Terminal(
        path=settings.mt5_path,
        login=settings.mt5_login,
        password=settings.mt5_password,
        server=settings.mt5_server,
        timeout_s=settings.mt5_timeout_s,
        portable=settings.mt5_portable,
    )


class Mt5Broker:
    """Implements `mt5crs.broker.interface.Broker`. One thread only: the package keeps one connection per
    process.
    """

    def __init__(
        self,
        terminal: Terminal,
        *,
        package: Any = None,
        wall_msc: Callable[[], int] | None = None,
    ) -> None:
        """`package` is the MetaTrader5 module; it is imported at `start` when not given. `wall_msc` stands
        for all clocks of this host.
        """
        self._terminal = terminal
        self._mt5 = package
        self._wall_msc = wall_msc or (lambda: time.time_ns() // 1_000_000)
        self._elapsed_s = elapsed_s if wall_msc is None else lambda: wall_msc() / 1000
        self._clock = BrokerClock(self._elapsed_s)
        self._estimate: tuple[int, int] | None = None
        """When the broker's time was last estimated, and how far it was ahead: both by the clock that no one
        sets.
        """
        self._ahead_msc: int | None = None
        """How far, when a quote was last seen that is young enough to show it."""
        self._loads_until_s = -math.inf
        self._selected: set[str] = set()

    # --- connection ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the terminal and log in; True or False of `initialize` counts less than what the account
        says.
        """
        if self._mt5 is None:
            try:
                self._mt5 = importlib.import_module("MetaTrader5")
            except ImportError as error:
                raise BrokerError(
                    -10003, "the MetaTrader5 package is not installed (it exists for Windows only)"
                ) from error
        wanted = self._terminal
        try:
            options = checked(
                {
                    "path": ntpath.normpath(wanted.path),  # written with forward slashes in `.env`
                    "login": wanted.login,
                    "password": wanted.password,
                    "server": wanted.server,
                    "timeout": int(wanted.timeout_s * 1000),
                    "portable": wanted.portable,
                }
            )
        except ArgumentError as error:
            raise BrokerError(_INVALID_PARAMS, f"the terminal cannot be started: {error}") from error
        begun = self._call("initialize", options.pop("path"), **options)
        self._begin_to_load()
        code, text = (1, "") if begun else self._last_error()
        self._selected.clear()
        try:
            self._ask("account_info")
            self._ask("terminal_info")
        except BrokerError as error:
            if begun:
                raise
            raise BrokerError(code, f"initialize failed: {text}; {error.message}") from error

    def close(self) -> None:
        """Let go of the terminal; it keeps running."""
        if self._mt5 is not None:
            self._call("shutdown")

    def _ask(self, function: str, *arguments: Any, **options: Any) -> Any:
        """Call the package. Raises BrokerError on None: unknown must not be taken for empty."""
        answer = self._call(function, *arguments, **options)
        if answer is None:
            raise self._failed(function)
        return answer

    def _call(self, function: str, *arguments: Any, **options: Any) -> Any:
        """What the package answers, None included. Raises BrokerError when it raises."""
        if self._mt5 is None:
            raise BrokerError(-10003, "the terminal has not been started")
        try:
            return getattr(self._mt5, function)(*arguments, **options)
        except Exception as error:  # SystemError above all, and nothing documents which
            raise BrokerError(_INTERNAL, f"{function} raised {type(error).__name__}: {error}") from error

    def _last_error(self) -> tuple[int, str]:
        """Code and text of the last failure. The text can be missing, or hold a path that is no UTF-8."""
        try:
            code, text = self._mt5.last_error()
        except UnicodeDecodeError as error:
            return _FAILED, _windows_text(error.object)
        except Exception as error:
            return _FAILED, f"last_error raised {type(error).__name__}: {error}"
        return int(code), text or "the package gives no reason"

    def _failed(self, function: str) -> BrokerError:
        code, text = self._last_error()
        return BrokerError(code, f"{function} failed: {text}")

    # --- the interface -------------------------------------------------------------------------------------

    def time_msc(self) -> int:
        """The broker's clock, as what has just happened there shows it (`clock.py`).

        The package has no call for the server's time. Before anything has happened it is this host's clock
        plus the offset seen in the newest quote, rounded to a quarter of an hour as time zones are; where
        that is no offset, an earlier time, so that searches miss nothing.
        """
        measured = self._clock.now_msc()
        if measured is not None:
            return measured
        now = int(self._elapsed_s() * 1000)
        if self._estimate is None or now - self._estimate[0] >= _OFFSET_LIFE_MS:
            self._estimate = now, self._estimated(now) - now
        return now + self._estimate[1]

    def identity(self) -> Identity:
        """Account and terminal flags."""
        return self._identity_of(self._ask("account_info"))

    def _identity_of(self, account: Any) -> Identity:
        terminal = self._ask("terminal_info")
        allowed = account.trade_allowed and account.trade_expert and terminal.trade_allowed
        return Identity(
            login=account.login,
            server=account.server,
            trade_mode=_TRADE_MODES[account.trade_mode],
            margin_mode=_MARGIN_MODES[account.margin_mode],
            currency=account.currency,
            connected=bool(terminal.connected),
            trade_allowed=bool(allowed and not terminal.tradeapi_disabled),
        )

    def books(self) -> Books:
        """Read until two readings agree: the package has no call that reads positions and orders together."""
        before, missing = self._positions_and_orders(), ""
        for _ in range(_READS):
            account = self._ask("account_info")  # once: login and balance are of the same account
            identity = self._identity_of(account)
            if not identity.connected:
                self._begin_to_load()
            after = self._positions_and_orders()
            agree = _keys(before) == _keys(after)
            missing = self._not_listed(*after) if agree else ""
            if agree and not missing:
                return Books(
                    time_msc=self.time_msc(),
                    identity=identity,
                    account=_account(account),
                    positions=[_position(p) for p in after[0]],
                    orders=[_order(o) for o in after[1]],
                    version=None,
                )
            before = after
        raise BrokerError(_INTERNAL, missing or "positions and orders change faster than they can be read")

    def _not_listed(self, positions: Sized, orders: Sized) -> str:
        return self._missing("positions_total", positions) or self._missing("orders_total", orders)

    def _begin_to_load(self) -> None:
        self._loads_until_s = self._elapsed_s() + _LOADS_S

    def _missing(self, function: str, rows: Sized, *span: datetime.datetime) -> str:
        """Why a list cannot be the whole of it: while the terminal may be loading, it is counted as well."""
        if self._elapsed_s() >= self._loads_until_s:
            return ""
        count = int(self._ask(function, *span))
        if count <= len(rows):
            return ""
        return f"the terminal is loading: it lists {len(rows)} of what {function} says are {count}"

    def deals(self, since_msc: int) -> list[Deal]:
        """Deals since a broker time."""
        rows = self._history("deals", since_msc)
        self._clock.saw("deals", max((int(d.time_msc) for d in rows), default=0))
        return sorted(
            (_deal(d) for d in rows if d.time_msc >= since_msc), key=lambda d: (d.time_msc, d.ticket)
        )

    def closed_orders(self, since_msc: int) -> list[Order]:
        """Orders that ended since a broker time."""
        rows = self._history("orders", since_msc)
        found = (_order(o) for o in rows if o.time_done_msc >= since_msc)
        return sorted(found, key=lambda o: (o.time_done_msc, o.ticket))

    def _history(self, what: Literal["deals", "orders"], since_msc: int) -> Any:
        span = self._span(since_msc)
        rows = self._ask(f"history_{what}_get", *span)
        missing = self._missing(f"history_{what}_total", rows, *span)
        if missing:
            raise BrokerError(_INTERNAL, missing)
        return rows

    def deals_of_position(self, identifier: int) -> list[Deal]:
        """Deals of a position."""
        return [_deal(d) for d in self._ask("history_deals_get", position=identifier)]

    def symbol(self, name: str) -> TradedSymbol | None:
        """Contract specification."""
        if not self._select(name):
            return None
        info = self._ask("symbol_info", name)
        return TradedSymbol(
            symbol=info.name,
            description=info.description[:256],
            digits=info.digits,
            point=info.point,
            contract_size=info.trade_contract_size,
            volume_min=info.volume_min,
            volume_max=info.volume_max,
            volume_step=info.volume_step,
            stops_level=info.trade_stops_level,
            tick_size=info.trade_tick_size,
            tick_value=info.trade_tick_value,
            currency_profit=info.currency_profit,
            margin_initial=info.margin_initial,
            trade_allowed=info.trade_mode == _FULL,
            fillings=_fillings(info.filling_mode, info.trade_exemode),
            sessions=None,
            mode=_TRADING_MODES[info.trade_mode],
            execution=_EXECUTIONS[info.trade_exemode],
            kinds=[kind for kind, bit in _KINDS.items() if info.order_mode & bit],
            gtc=bool(info.expiration_mode & 1),
            specified=bool(info.expiration_mode & 4),
            sl=bool(info.order_mode & 16),
            tp=bool(info.order_mode & 32),
            freeze_level=info.trade_freeze_level,
        )

    def tick(self, name: str) -> Tick | None:
        """Latest quote."""
        if not self._select(name):
            return None
        tick = self._ask("symbol_info_tick", name)
        self._clock.saw(f"{QUOTE}{name}", int(tick.time_msc))
        return Tick(symbol=name, bid=tick.bid, ask=tick.ask, time_msc=tick.time_msc)

    def check(self, request: TradeRequest) -> CheckOutcome:
        """order_check."""
        try:
            form = self._form(request)
        except _RefusedError as refused:
            return CheckOutcome(retcode=refused.retcode, comment=str(refused), margin=0.0, margin_free=0.0)
        result = self._ask("order_check", form)
        return CheckOutcome(
            retcode=result.retcode,
            comment=str(result.comment)[:256],
            margin=max(0.0, result.margin),
            margin_free=result.margin_free,
        )

    def calculate(self, question: Calculation) -> float:
        """order_calc_margin or order_calc_profit."""
        if not self._select(question.symbol):
            raise BrokerError(-4, f"there is no symbol {question.symbol}")
        of = (
            _ORDER_TYPES.index(question.side),
            question.symbol,
            float(question.volume),
            float(question.price),
        )
        if question.what == "margin":
            return float(self._ask("order_calc_margin", *of))
        return float(self._ask("order_calc_profit", *of, float(question.close)))

    def send(self, request: TradeRequest) -> TradeResult | None:
        """order_send, once. None stays None: it may have been executed. What cannot be sent is answered as
        the trade server would refuse it.
        """
        try:
            form = self._form(request)
        except _RefusedError as refused:
            return TradeResult(
                retcode=refused.retcode, order=0, deal=0, volume=0.0, price=0.0, comment=str(refused)
            )
        result = self._call("order_send", form)
        if result is None:
            return None
        price = result.price
        if result.retcode == REQUOTE and not price:
            price = result.ask if request.type.startswith("BUY") else result.bid
        return TradeResult(
            retcode=result.retcode,
            order=result.order,
            deal=result.deal,
            volume=result.volume,
            price=price,
            comment=str(result.comment),
        )

    # --- details -------------------------------------------------------------------------------------------

    def _form(self, request: TradeRequest) -> dict[str, Any]:
        """The package's form of a request; keys that do not apply are left out, as its documentation does.

        Raises _RefusedError when it cannot be sent.
        """
        try:
            return checked(self._request_keys(request))
        except ArgumentError as error:
            raise _RefusedError(_INVALID_REQUEST, str(error)) from error
        except BrokerError as error:
            raise _RefusedError(_NO_QUOTES, str(error)) from error

    def _request_keys(self, request: TradeRequest) -> dict[str, Any]:
        form: dict[str, Any] = {"action": _ACTIONS[request.action], "magic": request.magic}
        if request.action == "REMOVE":
            return {**form, "order": request.order}
        if request.filling is None:
            raise ArgumentError(f"an order for {request.symbol} names no filling")
        form |= {
            "symbol": request.symbol,
            "volume": request.volume,
            "type": _ORDER_TYPES.index(request.type),
            "price": request.price or self._market_price(request),
            "type_filling": _FILLINGS[request.filling],
            "type_time": _SPECIFIED if request.expiration_msc else _GTC,
            "comment": request.comment,
        }
        optional = {
            "sl": request.sl,
            "tp": request.tp,
            "deviation": request.deviation,
            "position": request.position,
            "expiration": request.expiration_msc // 1000,
        }
        given = {name: value for name, value in optional.items() if value}
        if request.deviation is not None:
            given["deviation"] = request.deviation  # 0 is a bound too
        return form | given

    def _market_price(self, request: TradeRequest) -> float:
        tick = self.tick(request.symbol)
        price = 0.0 if tick is None else tick.ask if request.type.startswith("BUY") else tick.bid
        if not price > 0:
            raise BrokerError(_INVALID_PARAMS, f"{request.symbol} has no quote")
        return price

    def _select(self, name: str) -> bool:
        """Have the symbol in Market Watch (else no quotes); False when the broker has no such symbol."""
        try:
            checked_symbol(name)
        except ArgumentError as error:
            raise BrokerError(_INVALID_PARAMS, str(error)) from error
        if name not in self._selected:
            if self._call("symbol_info", name) is None:
                failed = self._failed("symbol_info")
                if failed.code in (-4, 1):
                    return False
                raise failed
            if not self._call("symbol_select", name, True):
                raise self._failed("symbol_select")
            self._selected.add(name)
        return True

    def _positions_and_orders(self) -> tuple[Any, Any]:
        return self._ask("positions_get"), self._ask("orders_get")

    def _span(self, since_msc: int) -> tuple[datetime.datetime, datetime.datetime]:
        """From and to for a history query, in broker time written as UTC; to a day ahead, to miss nothing."""
        latest = max(self.time_msc(), self._wall_msc() + _WIDEST_OFFSET_MS)
        end = latest // 1000 + 24 * 3600
        start = min(max(0, since_msc // 1000), end)
        zone = datetime.timezone.utc
        return datetime.datetime.fromtimestamp(start, zone), datetime.datetime.fromtimestamp(end, zone)

    def _estimated(self, now: int) -> int:
        """The broker's time before anything has happened there; `now`: by the clock that no one sets."""
        wall = self._wall_msc()
        newest = max((int(tick.time_msc) for tick in self._watched_ticks()), default=0)
        offset = math.floor((newest - wall) / _QUARTER_MS + 0.5) * _QUARTER_MS
        if abs(offset) <= _WIDEST_OFFSET_MS:
            self._ahead_msc = wall + offset - now
        if self._ahead_msc is not None:
            return now + self._ahead_msc
        # a weekend, or a clock here that is wrong by days: no stamp is ahead of the broker's clock
        return newest or wall - _WIDEST_OFFSET_MS

    def _watched_ticks(self) -> Iterable[Any]:
        for info in self._ask("symbols_get"):
            if info.select:
                tick = self._call("symbol_info_tick", info.name)
                if tick is not None and tick.time_msc:
                    self._clock.saw(f"{QUOTE}{info.name}", int(tick.time_msc))
                    yield tick


class _RefusedError(Exception):
    """A request that cannot be sent. `retcode` is what the trade server would answer."""

    def __init__(self, retcode: int, text: str) -> None:
        super().__init__(text)
        self.retcode = retcode


def _windows_text(text: bytes) -> str:
    """A text in the code page of this Windows, which only Windows knows."""
    try:
        return text.decode("mbcs", "replace")
    except LookupError:
        return text.decode("latin-1")


def _keys(books: tuple[Any, Any]) -> tuple[set[Any], set[Any]]:
    positions, orders = books
    return (
        {(p.ticket, p.identifier, p.type, p.volume, p.sl, p.tp) for p in positions},
        {(o.ticket, o.state, o.volume_current, o.sl, o.tp) for o in orders},
    )


def _fillings(mode: int, execution: int) -> list[Filling]:
    """Fillings of a market order: the bits of SYMBOL_FILLING_MODE, and RETURN in exchange execution or where
    no bit is set (https://www.mql5.com/en/docs/constants/tradingconstants/orderproperties, "Filling policy").
    """
    found: list[Filling] = []
    if mode & 1:
        found.append("FOK")
    if mode & 2:
        found.append("IOC")
    if execution == _EXCHANGE or not found:
        found.append("RETURN")
    return found


def _side(kind: int) -> Side:
    return "BUY" if kind == 0 else "SELL"


def _account(a: Any) -> Account:
    return Account(
        balance=a.balance,
        equity=a.equity,
        profit=a.profit,
        margin=a.margin,
        margin_free=a.margin_free,
        margin_level=a.margin_level,
        leverage=a.leverage,
        currency=a.currency,
    )


def _position(p: Any) -> Position:
    return Position(
        identifier=p.identifier,
        ticket=p.ticket,
        symbol=p.symbol,
        type=_side(p.type),
        magic=p.magic,
        volume=p.volume,
        price_open=p.price_open,
        price_current=p.price_current,
        sl=p.sl,
        tp=p.tp,
        profit=p.profit,
        swap=p.swap,
        time_msc=p.time_msc,
        time_update_msc=p.time_update_msc,
        reason=p.reason,
        comment=p.comment,
    )


def _order(o: Any) -> Order:
    return Order(
        ticket=o.ticket,
        symbol=o.symbol,
        type=_ORDER_TYPES[o.type],
        state=_ORDER_STATES[o.state],
        magic=o.magic,
        position_id=o.position_id,
        volume_initial=o.volume_initial,
        volume_current=o.volume_current,
        price_open=o.price_open,
        sl=o.sl,
        tp=o.tp,
        time_setup_msc=o.time_setup_msc,
        time_done_msc=o.time_done_msc,
        expiration_msc=o.time_expiration * 1000,
        reason=o.reason,
        comment=o.comment,
    )


def _deal(d: Any) -> Deal:
    kinds: dict[int, DealType] = {0: "BUY", 1: "SELL", 2: "BALANCE"}
    return Deal(
        ticket=d.ticket,
        order=d.order,
        position_id=d.position_id,
        symbol=d.symbol,
        type=kinds.get(d.type, "OTHER"),
        entry=_ENTRIES[d.entry],
        magic=d.magic,
        volume=d.volume,
        price=d.price,
        commission=d.commission,
        fee=d.fee,
        swap=d.swap,
        profit=d.profit,
        time_msc=d.time_msc,
        reason=d.reason,
        comment=d.comment,
    )
