"""What the MetaTrader5 package would refuse, misread or raise, and what becomes of its own words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mt5crs.broker.interface import BrokerError
from mt5crs.broker.mt5 import Mt5Broker, Terminal
from mt5crs.broker.mt5_arguments import ArgumentError, checked
from tests.unit.broker import fake_metatrader5 as fake
from tests.unit.broker.test_behaviour import BUY, Market, mt5_market
from tests.windows_contract.ask import names
from tests.windows_contract.cases import CASES

TERMINAL = Terminal(
    path="C:/t/terminal64.exe", login=1, password="pw", server="s", timeout_s=5, portable=True
)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    found, _ = mt5_market(tmp_path)
    yield found
    found.sim.close()


def package_of(market: Market) -> Any:
    assert isinstance(market.broker, Mt5Broker)
    return market.broker._mt5


def taken(case: str) -> bool:
    """Whether the real package took the request of a case."""
    recorded = fake.RECORDED["answers"][case]
    return recorded["raised"] is None and list(recorded["error"]) == list(fake.NO_CONNECTION)


def test_what_is_sent_is_what_the_package_takes_and_does_not_misread() -> None:
    """Every request that was asked of the package: refused here if it is there, or if it would be misread."""
    known = names(fake.FakeMetaTrader5)
    for case in CASES:
        if not case.startswith("order_send({**REQUEST") or "numpy" in case:
            continue
        request = eval(case.removeprefix("order_send"), known)  # noqa: S307
        misread = any(word in case for word in ("nan", "inf", "nonsense", r"\ud800", r"\x00"))
        same_number = any(f"'{key}': {value}}}" in case for key in fake.FLOATS for value in (0, 1))
        try:
            sent = checked(request)
        except ArgumentError:
            assert misread or not taken(case), case
        else:
            assert not misread, case
            assert taken(case) or same_number, case
            assert all(isinstance(sent[key], float) for key in fake.FLOATS & sent.keys())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comment": "c" * 30}, "comment has 30 characters; the MetaTrader5 package takes at most 29"),
        ({"comment": "😀" * 15}, "comment has 30 characters"),
        ({"comment": "\ud800"}, "comment holds half of a character"),
        ({"comment": "a\0b"}, "comment holds a NUL"),
        ({"volume": math.nan}, "volume is nan, not a finite number"),
        ({"price": math.inf}, "price is inf, not a finite number"),
        ({"sl": math.nan}, "sl is nan, not a finite number"),
        ({"magic": -1}, "magic is outside 0 to 18446744073709551615"),
        ({"position": 2**64}, "position is outside 0 to 18446744073709551615"),
        ({"filling": None}, "names no filling"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_in_words(
    market: Market, changes: dict[str, Any], words: str
) -> None:
    package = package_of(market)
    package.order_send = package.order_check = None  # neither is called
    request = msgspec.structs.replace(BUY, **changes)
    sent, checked_ = market.broker.send(request), market.broker.check(request)
    assert sent is not None
    assert (sent.retcode, checked_.retcode) == (10013, 10013)
    assert words in sent.comment
    assert words in checked_.comment


def test_integers_for_prices_are_the_same_number(market: Market) -> None:
    sent = market.broker.send(msgspec.structs.replace(BUY, volume=1, tp=2))
    assert sent is not None
    assert sent.retcode == 10009


@pytest.mark.parametrize("quote", [0.0, math.nan])
def test_an_order_without_a_quote_is_not_sent(market: Market, quote: float) -> None:
    package = package_of(market)
    ask = package.symbol_info_tick
    package.symbol_info_tick = lambda name: ask(name)._replace(ask=quote)
    sent = market.broker.send(BUY)
    assert sent is not None
    assert sent.retcode == 10021
    assert "EURUSD has no quote" in sent.comment
    assert market.positions() == []


def test_a_symbol_that_cannot_be_asked_for_is_an_error_and_not_missing(market: Market) -> None:
    for ask in (market.broker.symbol, market.broker.tick):
        with pytest.raises(BrokerError, match="symbol has 30 characters"):
            ask("E" * 30)


def test_a_time_beyond_all_clocks_has_no_deals(market: Market) -> None:
    assert market.broker.deals(2**53) == market.broker.closed_orders(2**53) == []


def start(package: Any, **changes: Any) -> str:
    """Why the terminal does not start."""
    with pytest.raises(BrokerError) as caught:
        Mt5Broker(msgspec.structs.replace(TERMINAL, **changes), package=package).start()
    return str(caught.value)


def test_what_initialize_said_is_kept(market: Market) -> None:
    missing = fake.FakeMetaTrader5(market.sim, 1, "pw", installed=False)
    said = start(missing)
    assert r"initialize failed: IPC initialize failed, Process create failed 'C:\t\terminal64.exe'" in said
    assert "account_info failed: No IPC connection" in said
    assert "last_error -10003" in said
    wrong = fake.FakeMetaTrader5(market.sim, 1, "other", installed=True)
    assert "initialize failed: Terminal: Authorization failed" in start(wrong)


def test_a_reason_that_cannot_be_read_is_read_all_the_same(market: Market) -> None:
    missing = fake.FakeMetaTrader5(market.sim, 1, "pw", installed=False)
    assert r"Process create failed 'C:\Händler\terminal64.exe'" in start(
        missing, path="C:/Händler/terminal64.exe"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": "C:/" + "n" * 300}, "path has 303 characters"),
        ({"login": 2**64}, "login is outside"),
        ({"timeout_s": 1e7}, "timeout is outside"),
        ({"password": "se\0cret"}, "password holds a NUL"),
    ],
)
def test_a_start_that_the_package_would_refuse(market: Market, changes: dict[str, Any], words: str) -> None:
    said = start(package_of(market), **changes)
    assert words in said
    assert "cret" not in said


def test_no_reason_is_said_to_be_none(market: Market) -> None:
    package = package_of(market)
    package.positions_get = lambda: None
    package.last_error = lambda: (0, "")
    with pytest.raises(BrokerError, match="positions_get failed: the package gives no reason"):
        market.broker.books()


@pytest.mark.parametrize("function", ["account_info", "positions_get", "history_deals_get", "symbol_select"])
def test_a_function_that_raises_is_a_broker_that_could_not_be_asked(market: Market, function: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise SystemError("returned a result with an exception set")

    setattr(package_of(market), function, fail)
    with pytest.raises(BrokerError, match=f"{function} raised SystemError"):
        (market.broker.books(), market.broker.deals(0), market.broker.symbol("XAUUSD"))
