"""How an order may be filled is up to its symbol: at the simulated broker each offers something else."""

from pathlib import Path

import pytest

from mt5crs.protocol.fields import Filling
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import Counter

OFFERED: dict[str, Filling] = {"EURUSD": "IOC", "GBPUSD": "IOC", "USDJPY": "RETURN", "XAUUSD": "FOK"}


@pytest.mark.parametrize("symbol", OFFERED)
def test_a_position_is_closed_with_a_filling_that_its_symbol_offers(tmp_path: Path, symbol: str) -> None:
    counter = Counter(tmp_path, symbols=list(OFFERED))
    opened = counter.order(symbol=symbol, filling=OFFERED[symbol])
    assert isinstance(opened, OrderResult)
    assert opened.outcome == "FILLED"
    part = counter.close(opened.position, volume=0.05)
    rest = counter.close(opened.position)
    for closed in (part, rest):
        assert isinstance(closed, OrderResult)
        assert (closed.outcome, closed.retcode) == ("FILLED", 10009)
    assert counter.broker.books().positions == []


def test_a_filling_that_is_not_offered_is_refused_before_the_broker_is_asked(tmp_path: Path) -> None:
    counter = Counter(tmp_path, symbols=list(OFFERED))
    refused = counter.order(symbol="XAUUSD", filling="IOC")
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("BAD_FIELD", "filling")
    assert "XAUUSD does not take IOC for a MARKET order (offered: FOK)" in refused.message
    placed = counter.order(symbol="XAUUSD", type="LIMIT", price=1000.0, filling="RETURN")
    assert isinstance(placed, OrderResult)
    assert placed.outcome == "PLACED"
