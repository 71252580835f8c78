"""Contract tests: what each kind of existing client makes of the gateway's answers when something is amiss.

Real gateway process, simulated broker, clients written from the dialects' description.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mt5crs.protocol import requests
from tests.unit.gateway.existing_clients import (
    CommandClient,
    Door,
    Plain,
    StateUnknownError,
    SyncClient,
    UuidClient,
    needs_addresses,
)
from tests.unit.gateway.running import eventually

pytestmark = needs_addresses
Reading = Callable[[Plain], Any]
READINGS: list[Any] = [
    pytest.param(lambda plain: SyncClient(plain).start(), id="SYNC_ALL"),
    pytest.param(lambda plain: UuidClient(plain).positions(), id="GET_POSITIONS"),
    pytest.param(lambda plain: CommandClient(plain).position(), id="GET_POSITION"),
]
MONEY: list[Any] = [
    pytest.param(lambda plain: UuidClient(plain).money(), id="GET_ACCOUNT"),
    pytest.param(lambda plain: CommandClient(plain).money(), id="GET_BALANCE"),
]


@pytest.mark.parametrize("read", READINGS)
def test_nothing_open_reads_as_flat(plain: Plain, read: Reading) -> None:
    assert not read(plain)


@pytest.mark.parametrize("read", READINGS)
def test_error_never_reads_as_flat(plain: Plain, read: Reading) -> None:
    plain.gateway.fault(fail_books=1000)
    with pytest.raises(StateUnknownError):
        read(plain)


@pytest.mark.parametrize("read", [*READINGS, *MONEY])
def test_disconnected_is_told(plain: Plain, read: Reading) -> None:
    """The books that the terminal still holds are of an unknown age."""
    plain.gateway.fault(disconnected=True)
    with pytest.raises(StateUnknownError, match="connected"):
        read(plain)
    eventually(lambda: plain.ask({"action": "PING"})["ready"] is False)
    assert "connected" in plain.ask({"command": "PING"})["reason"]


def test_unknown_symbol_is_an_error(plain: Plain) -> None:
    with pytest.raises(StateUnknownError, match="no symbol EURUSDX"):
        CommandClient(plain).position("EURUSDX")
    with pytest.raises(StateUnknownError, match="no symbol EURUSDX"):
        UuidClient(plain).positions("EURUSDX")
    assert CommandClient(plain).position("XAUUSD") is None


def test_several_positions_are_all_told(plain: Plain) -> None:
    for volume in (0.1, 0.3):
        plain.trade_by_hand("EURUSD", "BUY", volume)
    assert SyncClient(plain).start() == [("BUY", 0.1), ("BUY", 0.3)]
    assert UuidClient(plain).positions("EURUSD") == [("BUY", 0.1), ("BUY", 0.3)]
    assert CommandClient(plain).position() == ("BUY", 0.4)
    answer = plain.ask({"command": "GET_POSITION", "symbol": "EURUSD"})
    tickets = [p["ticket"] for p in answer["positions"]]
    assert answer["position"]["ticket"] == min(tickets)
    prices = [p["open_price"] for p in answer["positions"]]
    assert min(prices) <= answer["position"]["open_price"] <= max(prices)


def test_long_and_short_are_not_one_position(plain: Plain) -> None:
    plain.trade_by_hand("EURUSD", "BUY", 0.1)
    plain.trade_by_hand("EURUSD", "SELL", 0.1)
    with pytest.raises(StateUnknownError, match="long and short"):
        CommandClient(plain).position()
    answer = plain.ask({"command": "GET_POSITION", "symbol": "EURUSD"})
    assert (answer["code"], len(answer["positions"])) == (500, 2)
    assert UuidClient(plain).positions() == [("BUY", 0.1), ("SELL", 0.1)]


def test_partial_fill_is_told_as_it_is(plain: Plain) -> None:
    plain.gateway.fault(liquidity=0.04)
    assert UuidClient(plain).open(volume=0.1) == ("FILLED", 0.04)
    answer = CommandClient(plain).order(volume=0.1)
    assert (answer["code"], answer["volume"], answer["volume_requested"]) == (200, 0.04, 0.1)
    assert (answer["status"], answer["partial"]) == ("PARTIAL", True)
    assert CommandClient(plain).position() == ("BUY", 0.08)


@pytest.fixture
def unresolved(plain: Plain) -> Iterator[Plain]:
    """A client one of whose orders nobody knows the fate of."""
    plain.gateway.fault({"kind": "lose_request"})
    assert UuidClient(plain).open(uuid=f"lost-{plain.magic}") == ("UNRESOLVED", 0.0)
    yield plain
    operator = plain.gateway.client("ops", magic=plain.magic)
    operator.ask(requests.OrderResolve, client_order_id=f"lost-{plain.magic}", reason="end of the test")


@pytest.mark.parametrize("read", READINGS)
def test_unresolved_never_reads_as_flat(unresolved: Plain, read: Reading) -> None:
    with pytest.raises(StateUnknownError, match=f"lost-{unresolved.magic}"):
        read(unresolved)
    refused = CommandClient(unresolved).order()
    assert (refused["code"], refused["error"]) == (504, "UNRESOLVED")


def test_beside_what_is_unresolved_the_known_shows(unresolved: Plain) -> None:
    unresolved.trade_by_hand("EURUSD", "BUY", 0.1)
    synced = unresolved.ask({"action": "SYNC_ALL"})
    assert (synced["status"], len(synced["positions"])) == ("UNRESOLVED", 1)
    assert synced["unresolved"] == [f"lost-{unresolved.magic}"]
    assert "orders" not in synced, "one may be among them that does not show yet"
    assert UuidClient(unresolved).positions() == [("BUY", 0.1)]


@pytest.fixture
def halted(plain: Plain, door: Door) -> Iterator[Plain]:
    """A client with a position, whose magic number is halted."""
    plain.trade_by_hand("EURUSD", "BUY", 0.1)
    operator = door.client("ops", magic=plain.magic)
    operator.ask(requests.Halt, scope="MAGIC", reason="a drill")
    yield plain
    operator.ask(requests.Resume, scope="MAGIC", reason="end of the test")


def test_halted_is_told_and_hides_nothing(halted: Plain) -> None:
    with pytest.raises(StateUnknownError, match="halted by ops: a drill"):
        SyncClient(halted).start()
    synced = halted.ask({"action": "SYNC_ALL"})
    assert (synced["status"], len(synced["positions"])) == ("HALTED", 1)
    assert [halt["reason"] for halt in synced["halts"]] == ["a drill"]
    assert UuidClient(halted).positions() == [("BUY", 0.1)]
    assert CommandClient(halted).position() == ("BUY", 0.1)
    refused = CommandClient(halted).order()
    assert (refused["code"], refused["error"]) == (400, "HALTED")
    assert UuidClient(halted).open()[0] == "REJECTED"
    halted.successor().lease()  # a refused order leaves no lease behind
