"""The simulated broker itself: what is asked of it, what is done to it from outside, and its faults."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mt5crs.broker.interface import (
    Books,
    BrokerError,
    Calculation,
    CheckOutcome,
    TooLateError,
    TradedSymbol,
    TradeRequest,
    TradeResult,
)
from mt5crs.broker.retcodes import DONE, name
from mt5crs.protocol.fields import Side
from mt5crs.protocol.records import Deal, Identity, Order, Position, Tick

from . import rules
from .clock import BrokerClock, broker_clock
from .execution import Execution, trade_result
from .faults import Faults, SendFault
from .holdings import FIRST_TICKET, Holdings
from .inbox import Inbox
from .market import Market
from .matching import REASON_CLIENT, profit
from .profile import Profile as Profile
from .store import Changes, Store
from .symbols import CONTRACTS
from .terminal import ODD_DEALS, ODD_ORDERS, ODD_POSITIONS, Past, Record
from .valuation import Valuation


class Command(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the outside world does to the broker: trades by hand, prices, deposits, faults; `clock` sets its
    clock by `shift_ms` from what it is (summer time).
    """

    do: Literal["trade", "close", "price", "free_price", "deposit", "faults", "cancel", "clock"]
    symbol: str = ""
    side: Side = "BUY"
    volume: float = 0.0
    magic: int = 0
    comment: str = ""
    position: int = 0
    order: int = 0
    bid: float = 0.0
    ask: float = 0.0
    amount: float = 0.0
    shift_ms: int = 0
    faults: Faults | None = None


class SimulatedBroker:
    """Implements `mt5crs.broker.interface.Broker`."""

    def __init__(
        self,
        directory: Path,
        profile: Profile,
        *,
        clock: Callable[[], int] = broker_clock,
        durable: bool = True,
        allow_faults: bool = False,
    ) -> None:
        """Open the books in `directory`, or start new ones. `allow_faults` false: the inbox is not read."""
        directory.mkdir(parents=True, exist_ok=True)
        self._profile = profile
        self._clock = BrokerClock(clock)
        self._store = Store(directory / "broker.db", durable=durable)
        self._inbox = Inbox(directory / "inbox") if allow_faults else None
        self.faults = Faults()
        self._market = Market(profile.seed, self._clock, lambda: self.faults)
        self._past = Past()
        self._late: list[tuple[int, TradeRequest]] = []
        self._crossed: list[tuple[int, Order]] = []
        """Cancelled orders that are filled at a time all the same."""
        self._faults_since = 0
        self._interrupted = ("", 0)
        """What is off, and until when."""
        self._holdings = Holdings(
            self._store,
            self._clock,
            lambda: self._note_past(self._clock.time),
            netting=profile.margin_mode == "NETTING",
        )
        self._positions, self._orders = self._holdings.positions, self._holdings.orders
        self._valuation = Valuation(self._holdings, self._market, self._clock, profile.leverage)
        self._execution = Execution(
            self._holdings,
            self._market,
            self._valuation,
            self._clock,
            profile.leverage,
            lambda: self.faults,
            self._switched_off,
        )
        if not self._holdings.load():
            self._holdings.deposit(profile.balance)
            self._holdings.commit()
        self._note_past(-(2**62))

    # --- the interface -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Nothing to start: the books are open."""

    def close(self) -> None:
        """Close the books."""
        self._store.close()

    def time_msc(self) -> int:
        """The broker's clock; goes back only when it is set."""
        return self._clock.advance() + self._clock.shift + self.faults.terminal.clock_ahead_ms

    def identity(self) -> Identity:
        """Account and flags, as the faults leave them."""
        self._advance()
        return self._identity()

    def books(self) -> Books:
        """Account, positions and working orders at one moment."""
        self._advance()
        if self.faults.fail_books:
            self.faults.fail_books -= 1
            raise BrokerError(-10002, "positions_get failed: no reply from the terminal")
        positions = self._valuation.positions()
        account = self._valuation.account(positions)
        orders = list(self._orders.values())
        terminal = self.faults.terminal
        if terminal.lags():
            positions, orders = self._shown_late()
            positions, orders = self._loaded(positions), self._loaded(orders)
        positions, orders = terminal.commented(positions), terminal.commented(orders)
        if terminal.odd_records and not terminal.loading:
            positions, orders = [*positions, *ODD_POSITIONS], [*orders, *ODD_ORDERS]
        return Books(
            time_msc=self._clock.stamp() + terminal.clock_ahead_ms,
            identity=self._identity(),
            account=account,
            positions=positions,
            orders=orders,
            version=self._holdings.version if terminal.plain() else None,
        )

    def totals(self) -> tuple[int, int]:
        """How many positions and working orders the terminal says it has, whatever it lists of them."""
        terminal = self.faults.terminal
        positions, orders = self._shown_late() if terminal.lags() else (self._positions, self._orders)
        odd = terminal.odd_records and not terminal.loading
        return (
            len(positions) + (len(ODD_POSITIONS) if odd else 0),
            len(orders) + (len(ODD_ORDERS) if odd else 0),
        )

    def _loaded(self, records: list[Record]) -> list[Record]:
        return self.faults.terminal.loaded(records, self._clock.time - self._faults_since)

    def _shown_late(self) -> tuple[list[Position], list[Order]]:
        terminal = self.faults.terminal
        if terminal.loading:
            return [], []
        positions = self._past.positions(self._clock.time - terminal.positions_lag_ms)
        orders = self._past.orders(self._clock.time - terminal.orders_lag_ms)
        return [self._valuation.valued(position) for position in positions], orders

    def deals(self, since_msc: int) -> list[Deal]:
        """Deals since a time."""
        return self._loaded(self.all_deals(since_msc))

    def all_deals(self, since_msc: int) -> list[Deal]:
        """The same, whatever part of the history has been loaded: what the terminal counts."""
        self._advance()
        self._query()
        terminal = self.faults.terminal
        odd = ODD_DEALS if terminal.odd_records and not terminal.loading and since_msc <= 0 else []
        return [*odd, *self._shown_deals(self._store.deals(since_msc))]

    def _shown_deals(self, deals: list[Deal]) -> list[Deal]:
        terminal = self.faults.terminal
        if terminal.loading:
            return []
        if terminal.deals_lag_ms:
            deals = [deal for deal in deals if not self._clock.is_late(deal.time_msc, terminal.deals_lag_ms)]
        return terminal.commented(deals)

    def closed_orders(self, since_msc: int) -> list[Order]:
        """Closed orders since a time."""
        return self._loaded(self.all_closed_orders(since_msc))

    def all_closed_orders(self, since_msc: int) -> list[Order]:
        """The same, whatever part of the history has been loaded."""
        self._advance()
        self._query()
        terminal = self.faults.terminal
        if terminal.loading:
            return []
        orders = self._store.closed_orders(since_msc)
        if terminal.history_lag_ms:
            lag_ms = terminal.history_lag_ms
            orders = [each for each in orders if not self._clock.is_late(each.time_done_msc, lag_ms)]
        return terminal.commented(orders)

    def deals_of_position(self, identifier: int) -> list[Deal]:
        """Deals of a position."""
        self._advance()
        self._query()
        return self._loaded(self._shown_deals(self._store.deals_of_position(identifier)))

    def symbol(self, name: str) -> TradedSymbol | None:
        """Contract specification."""
        self._advance()
        contract = CONTRACTS.get(name)
        return self.faults.terminal.spec(self._market.spec(contract)) if contract else None

    def tick(self, name: str) -> Tick | None:
        """Latest quote."""
        self._advance()
        contract = CONTRACTS.get(name)
        if contract is None:
            return None
        if name in self.faults.terminal.no_quote:
            raise BrokerError(-4, f"symbol_info_tick failed: no quote for {name}")
        tick = self._market.tick(contract)
        if name in self.faults.terminal.no_prices:
            return msgspec.structs.replace(tick, bid=0.0, ask=0.0, time_msc=0)
        return tick

    def check(self, request: TradeRequest) -> CheckOutcome:
        """What `send` would say, without doing it."""
        self._advance()
        retcode = self._execution.refusal(request)
        contract = CONTRACTS.get(request.symbol)
        margin = 0.0
        if contract and not request.position:
            margin = rules.margin_of(
                contract,
                request.volume,
                request.price or self._market.tick(contract).ask,
                self._profile.leverage,
            )
        return CheckOutcome(
            retcode=retcode,
            comment=name(retcode) if retcode else "done",
            margin=round(margin, 2),
            margin_free=self._valuation.account(self._valuation.positions()).margin_free,
        )

    def calculate(self, question: Calculation) -> float:
        """Margin or profit in US dollars."""
        self._advance()
        self._query()
        contract = CONTRACTS.get(question.symbol)
        if contract is None:
            raise BrokerError(-4, f"there is no symbol {question.symbol}")
        side, volume, price = question.side, question.volume, question.price
        if question.what == "margin":
            return rules.margin_of(contract, volume, price, self._profile.leverage)
        return profit(contract, side, volume, price, question.close)

    def send(self, request: TradeRequest) -> TradeResult | None:
        """Execute a request, subject to the faults in force."""
        self._advance()
        if self.faults.terminal.login_at_send:
            self.faults.login, self.faults.terminal.login_at_send = self.faults.terminal.login_at_send, 0
            return trade_result(
                DONE, order=FIRST_TICKET - 2, deal=FIRST_TICKET - 1, volume=request.volume, price=1.0
            )
        at_send, self.faults.terminal.at_send = self.faults.terminal.at_send, ""
        if at_send:
            self._interrupted = (at_send, self._clock.time + self.faults.terminal.at_send_ms)
        fault = self.faults.send.pop(0) if self.faults.send else None
        if fault is None:
            result = self._execution.execute(request)
            return None if at_send == "logged_out" else result
        return self._send_with_fault(request, fault)

    # --- the outside world ---------------------------------------------------------------------------------

    def command(self, command: Command) -> dict[str, Any]:
        """Do what a person at the broker could do. Returns what a test wants to know; raises ValueError."""
        self._advance()
        if command.do == "faults":
            if command.faults is None:
                raise ValueError("command faults needs the key `faults`")
            self.faults, self._faults_since = command.faults, self._clock.time
            self._market.version += 1  # quotes may stand still from now on
            return {}
        if command.do == "clock":
            self._clock.shift += command.shift_ms
            self._market.version += 1
            self._store.write(Changes(), self._holdings.meta())
            return {"shift_ms": self._clock.shift}
        if command.do in ("price", "free_price"):
            return self._set_price(command)
        if command.do == "deposit":
            self._holdings.deposit(command.amount)
            self._holdings.commit()
            return {"balance": self._holdings.balance}
        result = self._execution.execute(self._by_hand(command), reason=REASON_CLIENT)
        if result.retcode != DONE:
            raise ValueError(f"{command.do} refused: {result.retcode} {name(result.retcode)}")
        return msgspec.to_builtins(result)  # type: ignore[no-any-return]

    def _by_hand(self, command: Command) -> TradeRequest:
        if command.do == "cancel":
            return TradeRequest(action="REMOVE", magic=0, comment="", filling=None, order=command.order)
        if command.do == "trade":
            return TradeRequest(
                action="DEAL",
                magic=command.magic,
                comment=command.comment,
                filling=self._market.first_filling(command.symbol),
                symbol=command.symbol,
                type=command.side,
                volume=command.volume,
            )
        target = self._positions.get(command.position)
        if target is None:
            raise ValueError(f"no position {command.position}; open are {sorted(self._positions)}")
        return TradeRequest(
            action="DEAL",
            magic=command.magic,
            comment=command.comment,
            filling=self._market.first_filling(target.symbol),
            symbol=target.symbol,
            type="SELL" if target.type == "BUY" else "BUY",
            volume=command.volume or target.volume,
            position=target.ticket,
        )

    def _set_price(self, command: Command) -> dict[str, Any]:
        if command.symbol not in CONTRACTS:
            raise ValueError(f"no symbol {command.symbol!r}; there are {', '.join(CONTRACTS)}")
        if command.do == "price":
            self._market.fix(command.symbol, command.bid, command.ask)
        else:
            self._market.free(command.symbol)
        self._execution.match()
        return {}

    # --- faults --------------------------------------------------------------------------------------------

    def _send_with_fault(self, request: TradeRequest, fault: SendFault) -> TradeResult | None:
        if fault.kind == "too_late":
            raise TooLateError(-1, "it came to the terminal after its time was over")
        if fault.kind == "retcode":
            return trade_result(fault.retcode)
        if fault.kind == "late_fill":
            self._late.append((self._clock.time + fault.delay_ms, request))
            return trade_result(fault.retcode) if fault.retcode else None
        if fault.kind == "lose_request":
            return trade_result(fault.retcode) if fault.retcode else None
        order = self._orders.get(request.order)
        result = self._execution.execute(request)
        if fault.kind == "fill_after":
            if order is not None and result.retcode == DONE:
                self._crossed.append((self._clock.time + fault.delay_ms, order))
            return result
        if fault.kind == "hang":
            time.sleep(fault.delay_ms / 1000)
            return result
        return trade_result(fault.retcode) if fault.retcode else None

    def _query(self) -> None:
        if self.faults.fail_queries:
            self.faults.fail_queries -= 1
            raise BrokerError(-10002, "history query failed: no reply from the terminal")

    def _identity(self) -> Identity:
        switched = bool(self.faults.login)
        kind, until = self._interrupted
        interrupted = kind if self._clock.time < until else ""
        return Identity(
            login=0 if interrupted == "logged_out" else self.faults.login or self._profile.login,
            server=self._profile.server,
            trade_mode=self._profile.trade_mode,
            margin_mode=self._profile.margin_mode,
            currency="USD",
            connected=not (self.faults.disconnected or interrupted == "logged_out"),
            # the terminal switches auto-trading off when the account changes
            trade_allowed=not (self.faults.trade_disabled or switched or interrupted),
        )

    def _switched_off(self) -> bool:
        return not self._identity().trade_allowed and self._interrupted[0] != "logged_out"

    # --- time passes ---------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._clock.advance()
        if self.faults.hang_ms:
            pause, self.faults.hang_ms = self.faults.hang_ms, 0
            time.sleep(pause / 1000)
        if self._inbox is not None:
            for entry in self._inbox.pending():
                self._inbox.answer(entry, self._obey)
        if self._late or self._crossed:
            self._execute_late()
        self._execution.match()

    def _execute_late(self) -> None:
        due = [request for at, request in self._late if at <= self._clock.time]
        self._late = [(at, request) for at, request in self._late if at > self._clock.time]
        for request in due:
            self._execution.execute(request)
        crossed, self._crossed = self._crossed, [each for each in self._crossed if each[0] > self._clock.time]
        for at, order in crossed:
            if at <= self._clock.time:
                self._holdings.fill(order, order.volume_current, order.price_open, position=order.position_id)
                self._holdings.end(msgspec.structs.replace(order, volume_current=0.0), "FILLED")
                self._holdings.commit()

    def _obey(self, text: bytes) -> dict[str, Any]:
        return self.command(msgspec.json.decode(text, type=Command))

    def _note_past(self, now: int) -> None:
        self._past.note(
            now, list(self._positions.values()), list(self._orders.values()), self.faults.terminal
        )
