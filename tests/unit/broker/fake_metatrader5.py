"""The MetaTrader5 package's functions over the simulated broker, strict about what they are given.

Names of functions, keys and fields as documented (https://www.mql5.com/en/docs/python_metatrader5). Wrong
arguments are answered as the package does: None and last_error -2. Anything the documentation does not know
is an AttributeError.
"""

import datetime
from collections import namedtuple
from typing import Any, get_args

from mt5crs.broker.interface import BrokerError, TradeRequest
from mt5crs.broker.sim.backend import SimulatedBroker
from mt5crs.broker.sim.symbols import CONTRACTS
from mt5crs.protocol.fields import DealEntry, Filling, MarginMode, OrderState, OrderType, TradeMode
from mt5crs.protocol.records import Deal, Order

AccountInfo = namedtuple(
    "AccountInfo",
    "login trade_mode leverage limit_orders margin_so_mode trade_allowed trade_expert margin_mode "
    "currency_digits fifo_close balance credit profit equity margin margin_free margin_level "
    "margin_so_call margin_so_so margin_initial margin_maintenance assets liabilities "
    "commission_blocked name server currency company",
)
TerminalInfo = namedtuple(
    "TerminalInfo",
    "community_account community_connection connected dlls_allowed trade_allowed tradeapi_disabled "
    "email_enabled ftp_enabled notifications_enabled mqid build maxbars codepage ping_last "
    "community_balance retransmission company name language path data_path commondata_path",
)
TradePosition = namedtuple(
    "TradePosition",
    "ticket time time_msc time_update time_update_msc type magic identifier reason volume price_open sl "
    "tp price_current swap profit symbol comment external_id",
)
TradeOrder = namedtuple(
    "TradeOrder",
    "ticket time_setup time_setup_msc time_done time_done_msc time_expiration type type_time "
    "type_filling state magic position_id position_by_id reason volume_initial volume_current "
    "price_open sl tp price_current price_stoplimit symbol comment external_id",
)
TradeDeal = namedtuple(
    "TradeDeal",
    "ticket order time time_msc type entry magic position_id reason volume price commission swap profit "
    "fee symbol comment external_id",
)
TickTuple = namedtuple("TickTuple", "time bid ask last volume time_msc flags volume_real")
SymbolInfo = namedtuple(
    "SymbolInfo",
    "name description digits point trade_contract_size volume_min volume_max volume_step "
    "trade_stops_level trade_tick_size trade_tick_value currency_profit margin_initial trade_mode "
    "filling_mode trade_exemode select",
)
OrderSendResult = namedtuple(
    "OrderSendResult", "retcode deal order volume price bid ask comment request_id retcode_external request"
)
OrderCheckResult = namedtuple(
    "OrderCheckResult", "retcode balance equity profit margin margin_free margin_level comment request"
)
KEYS = {
    "action", "magic", "order", "symbol", "volume", "price", "stoplimit", "sl", "tp", "deviation", "type",
    "type_filling", "type_time", "expiration", "comment", "position", "position_by",
}  # fmt: skip
INTEGERS = {
    "action",
    "magic",
    "order",
    "type",
    "type_filling",
    "type_time",
    "deviation",
    "position",
    "expiration",
}


class FakeMetaTrader5:
    def __init__(self, broker: SimulatedBroker, login: int, password: str) -> None:
        self.broker = broker
        self._login, self._password = login, password
        self._error = (1, "Success")
        self._selected: set[str] = set()
        self.started = False

    # --- connection ---

    def initialize(
        self, path: str, *, login: int, password: str, server: str, timeout: int, portable: bool
    ) -> bool:
        if not (isinstance(path, str) and isinstance(timeout, int) and isinstance(portable, bool)):
            return self._fail(-2, "Invalid arguments", False)
        if (login, password, server) != (self._login, self._password, self.broker.identity().server):
            return self._fail(-6, "Terminal: Authorization failed", False)
        self.started = True
        return True

    def shutdown(self) -> None:
        self.started = False

    def last_error(self) -> tuple[int, str]:
        return self._error

    def _fail(self, code: int, text: str, result: Any = None) -> Any:
        self._error = (code, text)
        return result

    def _guard(self) -> bool:
        if not self.started:
            self._fail(-10004, "No IPC connection")
            return False
        self._error = (1, "Success")
        return True

    # --- account ---

    def account_info(self) -> Any:
        if not self._guard():
            return None
        identity, account = self.broker.identity(), self.broker.books().account
        fields = dict.fromkeys(AccountInfo._fields, 0) | {
            "login": identity.login,
            "server": identity.server,
            "trade_mode": get_args(TradeMode).index(identity.trade_mode),
            "margin_mode": get_args(MarginMode).index(identity.margin_mode),
            "currency": "USD",
            "trade_allowed": True,
            "trade_expert": identity.trade_allowed,
            **{name: getattr(account, name) for name in account.__struct_fields__},
        }
        return AccountInfo(**fields)

    def terminal_info(self) -> Any:
        if not self._guard():
            return None
        fields = dict.fromkeys(TerminalInfo._fields, 0) | {
            "connected": self.broker.identity().connected,
            "trade_allowed": True,
            "tradeapi_disabled": False,
        }
        return TerminalInfo(**fields)

    # --- books ---

    def positions_get(self) -> Any:
        books = self._books()
        return None if books is None else tuple(_position(p) for p in books.positions)

    def orders_get(self) -> Any:
        books = self._books()
        return None if books is None else tuple(_order(o) for o in books.orders)

    def _books(self) -> Any:
        if not self._guard():
            return None
        try:
            return self.broker.books()
        except BrokerError as error:
            return self._fail(error.code, "Receive failed")

    def history_deals_get(self, *span: datetime.datetime, position: int | None = None) -> Any:
        return self._history(self.broker.deals, self.broker.deals_of_position, _deal, span, position)

    def history_orders_get(self, *span: datetime.datetime) -> Any:
        return self._history(self.broker.closed_orders, None, _order, span, None)

    def _history(self, by_time: Any, by_position: Any, form: Any, span: Any, position: int | None) -> Any:
        if not self._guard():
            return None
        try:
            if position is not None:
                return tuple(form(row) for row in by_position(position))
            start, end = span
            rows = by_time(int(start.timestamp() * 1000))
        except BrokerError as error:
            return self._fail(error.code, "Receive failed")
        except (TypeError, ValueError, AttributeError):
            return self._fail(-2, "Invalid arguments")
        return tuple(form(row) for row in rows if row_time(row) <= end.timestamp() * 1000)

    # --- symbols ---

    def symbols_get(self) -> Any:
        return tuple(self.symbol_info(name) for name in CONTRACTS) if self._guard() else None

    def symbol_info(self, name: str) -> Any:
        if not self._guard():
            return None
        spec = self.broker.symbol(name)
        if spec is None:
            return self._fail(-4, "Terminal: Not found")
        return SymbolInfo(
            name, spec.description, spec.digits, spec.point, spec.contract_size, spec.volume_min,
            spec.volume_max, spec.volume_step, spec.stops_level, spec.tick_size, spec.tick_value, spec.currency_profit, 0.0, 4,  # noqa: E501
            ("FOK" in spec.fillings) + 2 * ("IOC" in spec.fillings), 3 if len(spec.fillings) == 3 else 2,
            name in self._selected,
        )  # fmt: skip

    def symbol_select(self, name: str, enable: bool) -> bool:
        if name in CONTRACTS and enable is True:
            self._selected.add(name)
            return True
        return False

    def symbol_info_tick(self, name: str) -> Any:
        if not self._guard():
            return None
        if name not in self._selected:
            return self._fail(-4, "Terminal: Not found")
        tick = self.broker.tick(name)
        assert tick is not None
        return TickTuple(tick.time_msc // 1000, tick.bid, tick.ask, 0.0, 0, tick.time_msc, 6, 0.0)

    # --- trading ---

    def order_send(self, request: dict[str, Any]) -> Any:
        parsed = self._parse(request)
        if parsed is None:
            return None
        result = self.broker.send(parsed)
        if result is None:
            return self._fail(-10005, "Internal timeout")
        return OrderSendResult(
            result.retcode,
            result.deal,
            result.order,
            result.volume,
            result.price,
            0.0,
            0.0,
            result.comment,
            1,
            0,
            request,
        )

    def order_check(self, request: dict[str, Any]) -> Any:
        parsed = self._parse(request)
        if parsed is None:
            return None
        outcome = self.broker.check(parsed)
        return OrderCheckResult(
            outcome.retcode, 0.0, 0.0, 0.0, outcome.margin, outcome.margin_free, 0.0, outcome.comment, request
        )

    def _parse(self, r: dict[str, Any]) -> TradeRequest | None:
        if not self._guard():
            return None
        strict = set(r) <= KEYS and all(
            isinstance(value, int if key in INTEGERS else (str if key in ("symbol", "comment") else float))
            for key, value in r.items()
        )
        if not strict or "action" not in r or (r["action"] in (1, 5) and not r.get("price")):
            self._fail(-2, 'Invalid "request" argument')
            return None
        if r["action"] == 8:
            return TradeRequest(action="REMOVE", magic=r["magic"], comment="", filling=None, order=r["order"])
        if r["action"] not in (1, 5) or (r.get("type_time") == 2) != ("expiration" in r):
            self._fail(-2, 'Invalid "request" argument')
            return None
        return TradeRequest(
            action="DEAL" if r["action"] == 1 else "PENDING",
            magic=r["magic"],
            comment=r["comment"],
            symbol=r["symbol"],
            type=get_args(OrderType)[r["type"]],
            volume=r["volume"],
            price=r["price"],
            sl=r.get("sl", 0.0),
            tp=r.get("tp", 0.0),
            deviation=r.get("deviation"),
            filling=get_args(Filling)[r["type_filling"]],
            expiration_msc=r.get("expiration", 0) * 1000,
            position=r.get("position", 0),
        )


def row_time(row: Deal | Order) -> int:
    return row.time_msc if isinstance(row, Deal) else row.time_done_msc


def _position(p: Any) -> Any:
    fields = {name: getattr(p, name) for name in p.__struct_fields__}
    fields |= {"time": p.time_msc // 1000, "time_update": p.time_update_msc // 1000, "external_id": ""}
    return TradePosition(**{**fields, "type": 0 if p.type == "BUY" else 1})


def _order(o: Any) -> Any:
    return TradeOrder(
        o.ticket, o.time_setup_msc // 1000, o.time_setup_msc, o.time_done_msc // 1000, o.time_done_msc,
        o.expiration_msc // 1000, get_args(OrderType).index(o.type), 0, 1, get_args(OrderState).index(o.state),  # noqa: E501
        o.magic, o.position_id, 0, o.reason, o.volume_initial, o.volume_current, o.price_open, o.sl, o.tp, 0.0,  # noqa: E501
        0.0, o.symbol, o.comment, "",
    )  # fmt: skip


def _deal(d: Any) -> Any:
    kind = {"BUY": 0, "SELL": 1, "BALANCE": 2}[d.type]
    return TradeDeal(
        d.ticket, d.order, d.time_msc // 1000, d.time_msc, kind, get_args(DealEntry).index(d.entry), d.magic,
        d.position_id, d.reason, d.volume, d.price, d.commission, d.swap, d.profit, d.fee, d.symbol, d.comment, "",  # noqa: E501
    )  # fmt: skip
