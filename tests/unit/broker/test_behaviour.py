"""What a broker must do, the same for the simulated one and for MetaTrader 5 (over a strict fake of its
package).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from mt5crs.broker.interface import Broker, BrokerError, Calculation, TradeRequest, TradeResult
from mt5crs.broker.mt5 import Mt5Broker, Terminal
from mt5crs.broker.retcodes import DONE, DONE_PARTIAL, certainly_not_executed
from mt5crs.broker.sim.backend import Command, Profile, SimulatedBroker
from mt5crs.broker.sim.faults import Faults, Rules, SendFault
from mt5crs.broker.sim.terminal import Part, Showing
from mt5crs.protocol.fields import Filling, MarginMode
from tests.unit.broker.fake_metatrader5 import FakeMetaTrader5

START = 1_700_000_000_000
BUY = TradeRequest(
    action="DEAL", magic=7, comment="c", filling="IOC", symbol="EURUSD", type="BUY", volume=0.1
)


class Market:
    """A broker under test, and the hands that move prices and time."""

    def __init__(self, kind: str, mode: MarginMode, directory: Path) -> None:
        self.kind, self.mode, self.directory = kind, mode, directory
        self.now = START
        self.open()

    def open(self) -> None:
        self.sim = SimulatedBroker(
            self.directory, Profile(margin_mode=self.mode, balance=1e6), clock=lambda: self.now, durable=False
        )
        self.broker: Broker = self.sim
        if self.kind == "mt5":
            terminal = Terminal(
                path="terminal64.exe",
                login=90_000_001,
                password="pw",
                server="Sim-Demo",
                timeout_s=5,
                portable=True,
            )
            fake = FakeMetaTrader5(self.sim, 90_000_001, "pw")
            self.broker = Mt5Broker(terminal, package=fake, wall_msc=lambda: self.now)
            self.broker.start()
            self.broker.tick("EURUSD")
        self.price(1.1)

    def price(self, bid: float) -> None:
        self.now += 300
        self.sim.command(Command(do="price", symbol="EURUSD", bid=bid, ask=round(bid + 0.0001, 5)))

    def send(self, **changes: Any) -> TradeResult:
        base: dict[str, Any] = {
            "action": "DEAL", "magic": 7, "comment": "c", "symbol": "EURUSD", "type": "BUY", "volume": 0.1,
            "filling": "IOC",
        }  # fmt: skip
        self.now += 1
        result = self.broker.send(TradeRequest(**{**base, **changes}))
        assert result is not None
        return result

    def positions(self) -> list[tuple[str, float]]:
        return sorted((p.type, p.volume) for p in self.broker.books().positions)


@pytest.fixture(params=["sim", "mt5"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hedging(kind: str, tmp_path: Path) -> Iterator[Market]:
    market = Market(kind, "HEDGING", tmp_path)
    yield market
    market.sim.close()


@pytest.fixture
def netting(kind: str, tmp_path: Path) -> Iterator[Market]:
    market = Market(kind, "NETTING", tmp_path)
    yield market
    market.sim.close()


def test_identity(hedging: Market) -> None:
    identity = hedging.broker.identity()
    assert (identity.login, identity.server, identity.trade_mode) == (90_000_001, "Sim-Demo", "DEMO")
    assert (identity.margin_mode, identity.connected, identity.trade_allowed) == ("HEDGING", True, True)


def test_hedging_keeps_each_order_as_a_position(hedging: Market) -> None:
    hedging.send()
    hedging.send(type="SELL", volume=0.3)
    assert hedging.positions() == [("BUY", 0.1), ("SELL", 0.3)]
    position = hedging.broker.books().positions[0]
    assert hedging.send(type="SELL", volume=0.04, position=position.ticket).retcode == DONE
    assert ("BUY", 0.06) in hedging.positions()
    assert hedging.send(type="SELL", volume=0.07, position=position.ticket).retcode == 10038
    assert hedging.send(type="SELL", volume=0.06, position=position.ticket).retcode == DONE
    assert hedging.positions() == [("SELL", 0.3)]
    assert hedging.send(type="SELL", volume=0.01, position=position.ticket).retcode == 10036
    assert [d.entry for d in hedging.broker.deals_of_position(position.identifier)] == ["IN", "OUT", "OUT"]


def test_netting_adds_reduces_and_reverses(netting: Market) -> None:
    netting.send(volume=0.2)
    netting.price(1.2)
    netting.send(volume=0.2)
    (position,) = netting.broker.books().positions
    assert position.volume == 0.4
    assert position.price_open == pytest.approx((1.1001 + 1.2001) / 2)
    netting.send(type="SELL", volume=0.1)
    assert netting.positions() == [("BUY", 0.3)]
    netting.send(type="SELL", volume=0.5)
    (reversed_,) = netting.broker.books().positions
    assert (reversed_.type, reversed_.volume) == ("SELL", 0.2)
    assert reversed_.identifier == position.identifier
    assert reversed_.ticket != position.ticket
    assert [d.entry for d in netting.broker.deals_of_position(position.identifier)] == [
        "IN",
        "IN",
        "OUT",
        "INOUT",
    ]


def test_pending_order_waits_fills_and_can_be_cancelled(hedging: Market) -> None:
    placed = hedging.send(action="PENDING", type="BUY_LIMIT", price=1.05, filling="RETURN")
    other = hedging.send(action="PENDING", type="SELL_STOP", price=1.04, filling="RETURN")
    assert placed.retcode == other.retcode == DONE
    assert [o.state for o in hedging.broker.books().orders] == ["PLACED", "PLACED"]
    assert hedging.send(action="REMOVE", order=other.order).retcode == DONE
    hedging.price(1.049)
    assert hedging.positions() == [("BUY", 0.1)]
    ended = {o.ticket: o.state for o in hedging.broker.closed_orders(START)}
    assert (ended[placed.order], ended[other.order]) == ("FILLED", "CANCELED")
    assert certainly_not_executed(hedging.send(action="REMOVE", order=placed.order).retcode)


def test_expiry(hedging: Market) -> None:
    expiration = (hedging.now // 1000 + 2) * 1000
    placed = hedging.send(action="PENDING", type="BUY_LIMIT", price=1.0, expiration_msc=expiration)
    hedging.now += 5000
    assert hedging.broker.books().orders == []
    assert {o.ticket: o.state for o in hedging.broker.closed_orders(START)}[placed.order] == "EXPIRED"


@pytest.mark.parametrize(("bid", "reason", "sign"), [(1.0899, 4, -1), (1.1200, 5, 1)])
def test_stop_loss_and_take_profit(hedging: Market, bid: float, reason: int, sign: int) -> None:
    hedging.send(sl=1.09, tp=1.12)
    before = hedging.broker.books().account.balance
    hedging.price(bid)
    assert hedging.positions() == []
    out = hedging.broker.deals(START)[-1]
    assert (out.entry, out.reason, out.magic) == ("OUT", reason, 7)
    assert out.profit * sign > 0
    assert hedging.broker.books().account.balance == pytest.approx(before + out.profit + out.commission)


@pytest.mark.parametrize("symbol", ["EURUSD", "GBPUSD", "USDJPY", "XAUUSD"])
def test_a_filling_that_a_symbol_does_not_offer_is_refused(hedging: Market, symbol: str) -> None:
    spec, tick = hedging.broker.symbol(symbol), hedging.broker.tick(symbol)
    assert spec is not None
    assert tick is not None
    for filling in get_args(Filling):
        checked = hedging.broker.check(msgspec.structs.replace(BUY, symbol=symbol, filling=filling))
        assert checked.retcode == (0 if filling in spec.fillings else 10030)
    own = {"symbol": symbol, "filling": spec.filling_for("MARKET")}
    bought = hedging.send(**own)
    closed = hedging.send(**own, type="SELL", position=bought.order)
    placed = hedging.send(symbol=symbol, action="PENDING", type="BUY_LIMIT", price=1.0, filling="RETURN")
    assert (bought.retcode, closed.retcode, placed.retcode) == (DONE, DONE, DONE)


@pytest.mark.parametrize(
    ("mode", "execution", "fillings"),
    [
        (1, 2, ["FOK"]),
        (2, 2, ["IOC"]),
        (3, 2, ["FOK", "IOC"]),
        (0, 2, ["RETURN"]),
        (4, 2, ["RETURN"]),
        (1, 3, ["FOK", "RETURN"]),
        (0, 3, ["RETURN"]),
        (1, 1, ["FOK"]),
        (0, 0, ["RETURN"]),
    ],
)
def test_mt5_fillings_follow_the_symbols_modes(
    tmp_path: Path, mode: int, execution: int, fillings: list[Filling]
) -> None:
    market, package = mt5_market(tmp_path)
    ask = package.symbol_info
    package.symbol_info = lambda name: ask(name)._replace(filling_mode=mode, trade_exemode=execution)
    spec = market.broker.symbol("EURUSD")
    assert spec is not None
    assert spec.fillings == fillings
    market.sim.close()


def test_partial_fill(hedging: Market) -> None:
    hedging.sim.faults = Faults(liquidity=0.3)
    taken = hedging.send(volume=1.0)
    assert (taken.retcode, taken.volume) == (DONE_PARTIAL, 0.3)
    assert hedging.broker.books().orders == []
    assert hedging.send(volume=1.0, filling="FOK").retcode == 10006
    rest = hedging.send(volume=0.5, filling="RETURN")
    assert [(o.ticket, o.state, o.volume_current) for o in hedging.broker.books().orders] == [
        (rest.order, "PARTIAL", 0.2)
    ]
    hedging.now += 300
    assert hedging.broker.books().orders == []
    assert sum(d.volume for d in hedging.broker.deals(START) if d.order == rest.order) == pytest.approx(0.5)
    assert len([p for p in hedging.broker.books().positions if p.ticket == rest.order]) == 1


@pytest.mark.parametrize(
    ("changes", "retcode"),
    [
        ({"volume": 0.015}, 10014),
        ({"volume": 1000.0}, 10014),
        ({"volume": 90.0, "symbol": "EURUSD"}, 0),
        ({"sl": 1.2}, 10016),
        ({"action": "PENDING", "type": "BUY_LIMIT", "price": 1.2}, 10015),
        ({"price": 1.05, "deviation": 10}, 10004),
    ],
)
def test_refusals(hedging: Market, changes: dict[str, Any], retcode: int) -> None:
    result = hedging.send(**changes)
    assert result.retcode == (retcode or DONE)
    assert bool(hedging.broker.books().positions) is (retcode == 0)


def test_not_enough_money(hedging: Market) -> None:
    for _ in range(9):
        hedging.send(volume=90.0)
    assert hedging.send(volume=100.0).retcode == 10019


def test_market_closed_disconnected_and_trading_off(hedging: Market) -> None:
    for faults, retcode in (
        (Faults(market_closed=True), 10018),
        (Faults(disconnected=True), 10031),
        (Faults(trade_disabled=True), 10027),
    ):
        hedging.sim.faults = faults
        assert hedging.send().retcode == retcode
    assert hedging.positions() == []


def test_no_result_means_unknown_not_refused(hedging: Market) -> None:
    hedging.sim.faults = Faults(send=[SendFault(kind="lose_reply")])
    assert hedging.broker.send(BUY) is None
    assert hedging.positions() == [("BUY", 0.1)]


def test_failed_queries_are_errors_not_empty(hedging: Market) -> None:
    hedging.send()
    hedging.sim.faults = Faults(fail_books=1)
    with pytest.raises(BrokerError):
        hedging.broker.books()
    hedging.sim.faults = Faults(fail_queries=1)
    with pytest.raises(BrokerError):
        hedging.broker.deals(START)
    assert len(hedging.broker.deals(START)) == 2


def test_unknown_symbol_is_none(hedging: Market) -> None:
    assert hedging.broker.symbol("NOPE") is None
    assert hedging.broker.tick("NOPE") is None


def test_check_does_nothing(hedging: Market) -> None:
    assert hedging.broker.check(BUY).retcode == 0
    assert hedging.positions() == []


def test_books_survive_a_restart(hedging: Market) -> None:
    hedging.send(comment="kept")
    hedging.send(action="PENDING", type="BUY_LIMIT", price=1.0)
    before = hedging.broker.books()
    hedging.sim.close()
    hedging.open()
    after = hedging.broker.books()
    assert [(p.identifier, p.comment) for p in after.positions] == [
        (p.identifier, "kept") for p in before.positions
    ]
    assert after.orders == before.orders
    assert hedging.send().order > max(o.ticket for o in before.orders)


def test_time_is_the_brokers(hedging: Market) -> None:
    assert abs(hedging.broker.time_msc() - hedging.now) < 1000


def test_terminal_that_was_not_started(tmp_path: Path) -> None:
    market = Market("sim", "HEDGING", tmp_path)
    fake = FakeMetaTrader5(market.sim, 1, "right")
    terminal = Terminal(path="t", login=1, password="wrong", server="s", timeout_s=1, portable=True)
    with pytest.raises(BrokerError, match="Authorization failed; account_info") as refused:
        Mt5Broker(terminal, package=fake).start()
    assert refused.value.code == -6
    market.sim.close()


def mt5_market(directory: Path) -> tuple[Market, Any]:
    """A market behind the fake package, and that package."""
    market = Market("mt5", "HEDGING", directory)
    assert isinstance(market.broker, Mt5Broker)
    return market, market.broker._mt5


def trade_by_hand(market: Market) -> None:
    market.sim.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=7))


@pytest.mark.parametrize("function", ["positions_get", "orders_get", "account_info"])
def test_mt5_books_are_read_until_their_parts_belong_together(tmp_path: Path, function: str) -> None:
    market, package = mt5_market(tmp_path)
    ask, trades = getattr(package, function), [1]

    def changing() -> Any:
        answer = ask()
        if trades.pop() if trades else 0:
            trade_by_hand(market)
        return answer

    setattr(package, function, changing)
    books = market.broker.books()
    assert [p.volume for p in books.positions] == [0.1]
    assert books.account.margin > 0
    market.sim.close()


def test_mt5_books_that_never_stand_still_are_an_error(tmp_path: Path) -> None:
    market, package = mt5_market(tmp_path)
    ask = package.orders_get

    def changing() -> Any:
        trade_by_hand(market)
        return ask()

    package.orders_get = changing
    with pytest.raises(BrokerError, match="change faster"):
        market.broker.books()
    market.sim.close()


def test_what_a_symbol_takes_is_read(hedging: Market) -> None:
    taken = Rules(
        mode="LONG_ONLY", execution="INSTANT", kinds=["LIMIT"], gtc=False, specified=True, sl=True, tp=False,
        stops_level=7, freeze_level=9, fillings=["FOK"],
    )  # fmt: skip
    whole = hedging.broker.symbol("GBPUSD")
    assert whole is not None
    assert (whole.mode, whole.kinds, whole.gtc, whole.specified) == (
        "FULL", ["MARKET", "LIMIT", "STOP"], True, True,
    )  # fmt: skip
    hedging.sim.command(Command(do="faults", faults=Faults(rules={"GBPUSD": taken})))
    spec = hedging.broker.symbol("GBPUSD")
    assert spec is not None
    assert {name: getattr(spec, name) for name in taken.__struct_fields__} == msgspec.structs.asdict(taken)
    assert spec.trade_allowed is False


def test_a_requote_says_the_new_price(hedging: Market) -> None:
    hedging.price(1.2)
    refused = hedging.send(price=1.1, deviation=10)
    assert (refused.retcode, refused.price) == (10004, 1.2001)


@pytest.mark.parametrize("what", ["positions", "orders", "deals", "closed_orders"])
def test_mt5_lists_that_are_partly_loaded_are_an_error_until_they_are_whole(
    tmp_path: Path, what: str
) -> None:
    market, _ = mt5_market(tmp_path)
    market.send()
    market.send(action="PENDING", type="BUY_LIMIT", price=1.0, filling="RETURN")
    market.send(action="REMOVE", order=market.broker.books().orders[0].ticket)
    if what == "orders":
        market.send(action="PENDING", type="BUY_LIMIT", price=1.0, filling="RETURN")
    if what != "positions":
        market.sim.command(Command(do="close", position=market.broker.books().positions[0].ticket))

    def read() -> Any:
        if what in ("positions", "orders"):
            return getattr(market.broker.books(), what)
        return getattr(market.broker, what)(0)

    whole = read()
    assert whole
    part = Showing(part=Part(shown=len(whole) - 1, for_ms=1000))
    market.broker.start()
    market.sim.command(Command(do="faults", faults=Faults(terminal=part)))
    with pytest.raises(BrokerError, match="is loading"):
        read()
    market.now += 1001
    assert len(read()) == len(whole)
    market.sim.close()


def test_mt5_lists_are_counted_again_after_the_terminal_was_not_connected(tmp_path: Path) -> None:
    market, package = mt5_market(tmp_path)
    market.send()
    market.now += 61_000
    counted: list[int] = []
    total = package.positions_total
    package.positions_total = lambda: counted.append(1) or total()
    market.broker.books()
    assert not counted  # an order costs no call more
    market.sim.command(Command(do="faults", faults=Faults(disconnected=True)))
    market.broker.books()
    market.sim.command(Command(do="faults", faults=Faults(terminal=Showing(part=Part(shown=0)))))
    with pytest.raises(BrokerError, match=r"lists 0 of what positions_total says are 1"):
        market.broker.books()
    market.sim.close()


def test_mt5_login_and_balance_are_of_the_same_account(tmp_path: Path) -> None:
    market, package = mt5_market(tmp_path)
    ask, logins = package.account_info, iter(range(1, 100))

    def switching() -> Any:
        login = next(logins)
        return ask()._replace(login=login, balance=float(login))

    package.account_info = switching
    books = market.broker.books()
    assert books.identity.login == books.account.balance
    market.sim.close()


def test_same_seed_same_prices(tmp_path: Path) -> None:
    def prices(name: str, seed: int) -> list[float]:
        now = START
        broker = SimulatedBroker(tmp_path / name, Profile(seed=seed), clock=lambda: now, durable=False)
        found = []
        for _ in range(20):
            now += 1000
            tick = broker.tick("EURUSD")
            assert tick is not None
            found.append(tick.bid)
        broker.close()
        return found

    assert prices("a", 1) == prices("b", 1) != prices("c", 2)


@pytest.mark.parametrize(
    ("question", "worth"),
    [
        ({"what": "margin", "price": 1.1}, 1100.0),  # a lot of 100 000 at 1:100
        ({"what": "margin", "price": 1.1, "volume": 0.01, "side": "SELL"}, 11.0),
        ({"what": "profit", "price": 1.1, "close": 1.101}, 100.0),
        ({"what": "profit", "price": 1.1, "close": 1.101, "side": "SELL"}, -100.0),
        ({"what": "margin", "symbol": "USDJPY", "price": 150.0}, 1000.0),  # a lot of dollars
    ],
)
def test_what_a_deal_would_mean_in_account_currency(
    hedging: Market, question: dict[str, Any], worth: float
) -> None:
    usual: dict[str, Any] = {"symbol": "EURUSD", "side": "BUY", "volume": 1.0}
    assert hedging.broker.calculate(Calculation(**{**usual, **question})) == pytest.approx(worth)


def test_what_cannot_be_reckoned_is_an_error_and_not_zero(hedging: Market) -> None:
    for symbol in ("NOTHING", "EURUSD"):
        if symbol == "EURUSD":
            hedging.sim.command(Command(do="faults", faults=Faults(fail_queries=1)))
        with pytest.raises(BrokerError):
            hedging.broker.calculate(
                Calculation(what="margin", symbol=symbol, side="BUY", volume=1.0, price=1.1)
            )
