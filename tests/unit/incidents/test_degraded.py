"""Degraded mode at a real gateway: what opens is refused, what closes is not, who was missed is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.commands import named_fleet
from deploy.commands.named_fleet import of_fleet
from deploy.incidents.degraded import reduce, way_back
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.running import MAGIC, Running, running
from tests.unit.operate.operated import Operated, away, operated


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("degraded")) as started:
        yield started


@pytest.fixture
def ops(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Operated:
    return operated(gateway, monkeypatch)


@pytest.mark.parametrize("magic", [None, MAGIC])
def test_nothing_opens_what_is_open_can_be_closed_and_a_person_lifts_it(
    ops: Operated, magic: int | None
) -> None:
    trader = ops.trader()
    assert isinstance(trader.order(), OrderResult)
    ((position, *_), of) = ops.gateway.books("positions"), of_fleet(ops.fleet, None)
    (done,) = reduce(of, magic, "orders are slow")
    assert str(done) == f"gtw-01: {MAGIC} may only reduce"
    refused = trader.order()
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("LIMIT", "trading")
    assert "orders are slow" in refused.message
    (again,) = reduce(of, magic, "orders are slow")
    assert (again.already, str(again)) == (True, f"gtw-01: {MAGIC} only reduced already")
    trader.close_position(position)
    assert f"phase activate --magic {MAGIC}" in way_back([MAGIC])
    ops.tell(requests.PhaseTrading, state="ACTIVE", reason="quiet again")
    assert isinstance(trader.order(), OrderResult)
    for each in ops.gateway.books("positions"):
        trader.close_position(each)


def test_a_gateway_that_does_not_answer_is_said_to_trade_as_before(ops: Operated) -> None:
    (missed,) = reduce(named_fleet.of_fleet(away(ops.fleet), None), None, "orders are slow")
    assert missed.error
    assert "it may trade as before" in str(missed)
    assert ops.tell(requests.PhaseQuery, magic=MAGIC).trading == "ACTIVE"
