"""The MetaTrader5 package's functions over the simulated broker, strict about what they are given.

Types and their fields are those that the real package has, and what it refuses is refused in its words. Both
are compared with `recorded/metatrader5.json`, which `make windows-contract` asks of the package itself
(`test_contract.py`). What it answers with a terminal is not recorded; that is the simulated broker's.
"""

import datetime
import json
from collections import namedtuple
from pathlib import Path
from typing import Any, get_args

from mt5crs.broker.interface import BrokerError, Calculation, ExecutionMode, TradeRequest, TradingMode
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.broker.sim.symbols import CONTRACTS
from mt5crs.protocol.fields import DealEntry, Filling, MarginMode, OrderState, OrderType, TradeMode
from mt5crs.protocol.records import Deal, Order

RECORDED = json.loads((Path(__file__).parent / "recorded/metatrader5.json").read_text(encoding="utf-8"))
TYPES: dict[str, Any] = {name: namedtuple(name, fields) for name, fields in RECORDED["types"].items()}  # type: ignore[misc]
NO_CONNECTION = (-10004, "No IPC connection")
TEXT = 29
"""Longest symbol and comment, in UTF-16 units."""
KINDS = {"MARKET": 1, "LIMIT": 2, "STOP": 4}
UNSIGNED, UNSIGNED_LONG, LONG = (0, 2**32 - 1), (0, 2**64 - 1), (-(2**63), 2**63 - 1)
LAST_SECOND = 2**31 - 1
"""Latest time that may be given as a number; a datetime may be later."""
INTEGERS = {
    "action": UNSIGNED,
    "magic": UNSIGNED_LONG,
    "order": UNSIGNED_LONG,
    "position": UNSIGNED_LONG,
    "position_by": UNSIGNED_LONG,
    "deviation": UNSIGNED_LONG,
    "type": UNSIGNED,
    "type_filling": UNSIGNED,
    "type_time": UNSIGNED,
    "expiration": LONG,
}
FLOATS = {"volume", "price", "stoplimit", "sl", "tp"}
TEXTS = {"symbol", "comment"}


class InvalidError(Exception):
    """An argument that the package refuses with -2."""


def filled(name: str, /, **fields: Any) -> Any:
    """A tuple of the package, with 0 in the fields that nobody reads."""
    kind = TYPES[name]
    return kind(**(dict.fromkeys(kind._fields, 0) | fields))


def integer(name: str, value: Any, bounds: tuple[int, int]) -> None:
    if not isinstance(value, int):
        raise InvalidError(f'Invalid "{name}" argument')
    if not bounds[0] <= value <= bounds[1]:
        raise SystemError(f'Invalid "{name}" argument')


def is_text(value: Any, longest: int = TEXT) -> bool:
    return isinstance(value, str) and len(value.encode("utf-16-le", "surrogatepass")) // 2 <= longest


class FakeMetaTrader5:
    def __init__(self, broker: SimulatedBroker, login: int, password: str, *, installed: bool = True) -> None:
        self.broker = broker
        self._login, self._password, self._installed = login, password, installed
        self._error: tuple[int, str] = (0, "")
        self._selected: set[str] = set()
        self.started = False

    # --- connection ---

    def initialize(self, *arguments: Any, **keywords: Any) -> bool:
        try:
            self._check_start(arguments, keywords)
        except (InvalidError, SystemError) as error:
            return bool(self._refuse(error, False))
        path = arguments[0]
        if not self._installed:
            return bool(self._fail(-10003, f"IPC initialize failed, Process create failed '{path}'", False))
        account = tuple(keywords.get(name) for name in ("login", "password", "server"))
        if account != (self._login, self._password, self.broker.identity().server):
            return bool(self._fail(-6, "Terminal: Authorization failed", False))
        self.started = True
        return bool(self._fail(1, "Success", True))

    def _check_start(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if len(arguments) != 1 or not is_text(arguments[0], 259):
            raise InvalidError("Invalid 1st unnamed argument")
        for name, bounds in (("login", UNSIGNED_LONG), ("timeout", UNSIGNED)):
            if name in keywords:
                integer(name, keywords[name], bounds)
        for name in ("password", "server"):
            if not isinstance(keywords.get(name, ""), str):
                raise InvalidError(f'Invalid "{name}" argument')

    def shutdown(self) -> bool:
        self.started = False
        return bool(self._fail(1, "Success", True))

    def last_error(self) -> tuple[int, str]:
        self._error[1].encode("cp1252").decode("utf-8")  # so the package reads its own text
        return self._error

    def _fail(self, code: int, text: str, result: Any = None) -> Any:
        self._error = (code, text)
        return result

    def _refuse(self, error: Exception, result: Any = None) -> Any:
        """What the package does with a refused argument: an integer out of range raises as well."""
        self._error = (-2, str(error))
        if isinstance(error, SystemError):
            raise error
        return result

    def _guard(self) -> bool:
        if not self.started:
            self._error = NO_CONNECTION
            return False
        self._error = (1, "Success")
        return True

    # --- account ---

    def account_info(self) -> Any:
        if not self._guard():
            return None
        identity, account = self.broker.identity(), self.broker.books().account
        fields = {
            "login": identity.login,
            "server": identity.server,
            "trade_mode": get_args(TradeMode).index(identity.trade_mode),
            "margin_mode": get_args(MarginMode).index(identity.margin_mode),
            "currency": "USD",
            "trade_allowed": True,
            "trade_expert": identity.trade_allowed,
            **{name: getattr(account, name) for name in account.__struct_fields__},
        }
        return filled("AccountInfo", **fields)

    def terminal_info(self) -> Any:
        if not self._guard():
            return None
        return filled(
            "TerminalInfo",
            connected=self.broker.identity().connected,
            trade_allowed=True,
            tradeapi_disabled=False,
        )

    # --- books ---

    def positions_get(self, *arguments: Any, **keywords: Any) -> Any:
        books = self._books(arguments, keywords)
        return None if books is None else tuple(_position(p) for p in books.positions)

    def orders_get(self, *arguments: Any, **keywords: Any) -> Any:
        books = self._books(arguments, keywords)
        return None if books is None else tuple(_order(o) for o in books.orders)

    def positions_total(self) -> Any:
        return self.broker.totals()[0] if self._guard() else None

    def orders_total(self) -> Any:
        return self.broker.totals()[1] if self._guard() else None

    def _books(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        assert not keywords.keys() & {"symbol", "group", "ticket"}, "the fake has no filters"
        if arguments:
            return self._fail(-2, "Unnamed arguments not allowed")
        if not self._guard():
            return None
        try:
            return self.broker.books()
        except BrokerError as error:
            return self._fail(error.code, "Receive failed")

    def history_deals_get(self, *span: Any, **keywords: Any) -> Any:
        return self._history(self.broker.deals, self.broker.deals_of_position, _deal, span, keywords)

    def history_orders_get(self, *span: Any, **keywords: Any) -> Any:
        return self._history(self.broker.closed_orders, None, _order, span, keywords)

    def history_deals_total(self, *span: Any) -> Any:
        rows = self._history(self.broker.all_deals, None, _deal, span, {})
        return None if rows is None else len(rows)

    def history_orders_total(self, *span: Any) -> Any:
        rows = self._history(self.broker.all_closed_orders, None, _order, span, {})
        return None if rows is None else len(rows)

    def _history(self, by_time: Any, by_position: Any, form: Any, span: Any, keywords: dict[str, Any]) -> Any:
        position = keywords.get("position")
        try:
            if position is not None:
                integer("position", position, UNSIGNED_LONG)
            elif len(span) != 2 or not all(isinstance(end, (int, float, datetime.datetime)) for end in span):
                raise InvalidError("Invalid arguments")
        except (InvalidError, SystemError) as error:
            return self._refuse(error)
        start, end = (
            each.timestamp() if isinstance(each, datetime.datetime) else each for each in span or (0, 0)
        )
        if any(isinstance(each, int) and each > LAST_SECOND for each in span):
            raise SystemError("a built-in function returned a result with an exception set")
        if not self._guard():
            return None
        try:
            if position is not None:
                return tuple(form(row) for row in by_position(position))
            rows = by_time(int(start * 1000))
        except BrokerError as error:
            return self._fail(error.code, "Receive failed")
        return tuple(form(row) for row in rows if row_time(row) <= end * 1000)

    # --- symbols ---

    def symbols_get(self) -> Any:
        if not self.started:
            text = "Incompatible versions, please install the latest version of Terminal and Python module"
            return self._fail(-5, f"Terminal: {text}")
        return tuple(self.symbol_info(name) for name in CONTRACTS)

    def _named(self, arguments: tuple[Any, ...]) -> bool:
        if not arguments or not is_text(arguments[0]):
            return bool(self._fail(-2, "Invalid arguments", False))
        return self._guard()

    def symbol_info(self, *arguments: Any) -> Any:
        if not self._named(arguments):
            return None
        (name,) = arguments
        spec = self.broker.symbol(name)
        if spec is None:
            return self._fail(-4, "Terminal: Not found")
        return filled(
            "SymbolInfo",
            name=name,
            description=spec.description,
            digits=spec.digits,
            point=spec.point,
            trade_contract_size=spec.contract_size,
            volume_min=spec.volume_min,
            volume_max=spec.volume_max,
            volume_step=spec.volume_step,
            trade_stops_level=spec.stops_level,
            trade_tick_size=spec.tick_size,
            trade_tick_value=spec.tick_value,
            currency_profit=spec.currency_profit,
            margin_initial=0.0,
            trade_mode=get_args(TradingMode).index(spec.mode),
            order_mode=sum(bit for kind, bit in KINDS.items() if kind in spec.kinds)
            + 16 * spec.sl
            + 32 * spec.tp,
            expiration_mode=spec.gtc + 4 * spec.specified,
            trade_freeze_level=spec.freeze_level,
            filling_mode=("FOK" in spec.fillings) + 2 * ("IOC" in spec.fillings),
            trade_exemode=3 if len(spec.fillings) == 3 else get_args(ExecutionMode).index(spec.execution),
            select=name in self._selected,
        )

    def symbol_select(self, *arguments: Any) -> bool:
        if not self._named(arguments):
            return False
        if arguments[0] in CONTRACTS and arguments[1] is True:
            self._selected.add(arguments[0])
            return True
        return False

    def symbol_info_tick(self, *arguments: Any) -> Any:
        if not self._named(arguments):
            return None
        if arguments[0] not in self._selected:
            return self._fail(-4, "Terminal: Not found")
        tick = self.broker.tick(arguments[0])
        assert tick is not None
        return filled(
            "Tick", time=tick.time_msc // 1000, bid=tick.bid, ask=tick.ask, time_msc=tick.time_msc, flags=6
        )

    # --- trading ---

    def order_send(self, *arguments: Any, **keywords: Any) -> Any:
        request = self._checked(arguments, keywords)
        if request is None:
            return None
        parsed = _trade(request)
        if isinstance(parsed, int):
            return filled("OrderSendResult", retcode=parsed, comment="Invalid request", request=request)
        result = self.broker.send(parsed)
        if result is None:
            return self._fail(-10005, "Internal timeout")
        requoted = result.retcode == 10004
        return filled(
            "OrderSendResult",
            retcode=result.retcode,
            deal=result.deal,
            order=result.order,
            volume=result.volume,
            price=0.0 if requoted else result.price,
            bid=result.price if requoted else 0.0,
            ask=result.price if requoted else 0.0,
            comment=result.comment,
            request_id=1,
            request=request,
        )

    def order_calc_margin(self, *arguments: Any) -> Any:
        return self._calculated("margin", arguments, 4)

    def order_calc_profit(self, *arguments: Any) -> Any:
        return self._calculated("profit", arguments, 5)

    def _calculated(self, what: Any, arguments: tuple[Any, ...], count: int) -> Any:
        action, symbol, *figures = arguments
        if len(arguments) != count or action not in (0, 1) or not all(type(f) is float for f in figures):
            return self._fail(-2, "Invalid arguments")
        if not self._guard():
            return None
        if symbol not in self._selected:
            return self._fail(-4, "Terminal: Not found")
        volume, price, close = [*figures, 0.0][:3]
        side: Any = "SELL" if action else "BUY"
        return self.broker.calculate(
            Calculation(what=what, symbol=symbol, side=side, volume=volume, price=price, close=close)
        )

    def order_check(self, *arguments: Any, **keywords: Any) -> Any:
        request = self._checked(arguments, keywords)
        if request is None:
            return None
        parsed = _trade(request)
        if isinstance(parsed, int):
            return filled("OrderCheckResult", retcode=parsed, comment="Invalid request", request=request)
        outcome = self.broker.check(parsed)
        return filled(
            "OrderCheckResult",
            retcode=outcome.retcode,
            margin=outcome.margin,
            margin_free=outcome.margin_free,
            comment=outcome.comment,
            request=request,
        )

    def _checked(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any] | None:
        """The request, if the package takes it and there is a terminal to hand it to."""
        request = arguments[0] if arguments else keywords.get("request", keywords)
        try:
            if not arguments and not keywords:
                raise InvalidError("Invalid number of arguments")
            if not isinstance(request, dict):
                raise InvalidError("Invalid arguments")
            for key, value in request.items():
                if key in INTEGERS:
                    integer(key, value, INTEGERS[key])
                elif (key in FLOATS and not isinstance(value, float)) or (
                    key in TEXTS and not is_text(value)
                ):
                    raise InvalidError(f'Invalid "{key}" argument')
        except (InvalidError, SystemError) as error:
            self._refuse(error)
            return None
        return request if self._guard() else None


def _trade(r: dict[str, Any]) -> TradeRequest | int:
    """The request as the simulated broker takes it, or a return code. Keys that are missing are 0."""
    if r.get("action") == 8:
        return TradeRequest(
            action="REMOVE", magic=r.get("magic", 0), comment="", filling=None, order=r.get("order", 0)
        )
    if r.get("action") not in (1, 5) or (r.get("type_time") == 2) != ("expiration" in r):
        return 10013
    if not r.get("price"):
        return 10015
    return TradeRequest(
        action="DEAL" if r["action"] == 1 else "PENDING",
        magic=r.get("magic", 0),
        comment=r.get("comment", ""),
        symbol=r.get("symbol", ""),
        type=get_args(OrderType)[r.get("type", 0)],
        volume=r.get("volume", 0.0),
        price=r["price"],
        sl=r.get("sl", 0.0),
        tp=r.get("tp", 0.0),
        deviation=r.get("deviation"),
        filling=get_args(Filling)[r.get("type_filling", 0)],
        expiration_msc=r.get("expiration", 0) * 1000,
        position=r.get("position", 0),
    )


def row_time(row: Deal | Order) -> int:
    return row.time_msc if isinstance(row, Deal) else row.time_done_msc


def _position(p: Any) -> Any:
    fields = {name: getattr(p, name) for name in p.__struct_fields__}
    fields |= {"time": p.time_msc // 1000, "time_update": p.time_update_msc // 1000, "external_id": ""}
    return filled("TradePosition", **{**fields, "type": 0 if p.type == "BUY" else 1})


def _order(o: Any) -> Any:
    fields = {name: getattr(o, name) for name in o.__struct_fields__ if name != "expiration_msc"}
    fields |= {
        "time_setup": o.time_setup_msc // 1000,
        "time_done": o.time_done_msc // 1000,
        "time_expiration": o.expiration_msc // 1000,
        "type": get_args(OrderType).index(o.type),
        "state": get_args(OrderState).index(o.state),
        "external_id": "",
    }
    return filled("TradeOrder", **fields)


def _deal(d: Any) -> Any:
    fields = {name: getattr(d, name) for name in d.__struct_fields__}
    fields |= {
        "time": d.time_msc // 1000,
        "type": {"BUY": 0, "SELL": 1, "BALANCE": 2}[d.type],
        "entry": get_args(DealEntry).index(d.entry),
        "external_id": "",
    }
    return filled("TradeDeal", **fields)
