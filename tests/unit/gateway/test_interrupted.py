"""Auto-trading goes off, or the login is lost, in the middle of an order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.counter import MAGIC, Counter
from tests.unit.gateway.test_lag import pass_time, really_open
from tests.unit.gateway.test_limits import filled


def test_auto_trading_that_goes_off_during_an_order_refuses_it_and_blocks_nothing(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    for _ in range(3):  # it flaps
        counter.showing(at_send="trade_off", at_send_ms=500)
        refused = counter.order(client_order_id=f"at {counter.now}".replace(" ", "-"))
        assert isinstance(refused, OrderResult)
        assert (refused.outcome, refused.retcode) == ("REJECTED", 10027)
        told = counter.close(position)
        assert isinstance(told, Error)
        assert (told.code, told.field, told.final) == ("NOT_READY", "trade_allowed", False)
        pass_time(counter, 501)
    filled(counter.close(position))
    assert really_open(counter) == 0.0


def test_auto_trading_that_goes_off_during_a_close_leaves_it_to_be_sent_again(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    position = filled(counter.order()).position
    counter.showing(at_send="trade_off", at_send_ms=500)
    refused = counter.close(position)
    assert isinstance(refused, OrderResult)
    assert (refused.outcome, refused.retcode) == ("REJECTED", 10027)
    pass_time(counter, 501)
    filled(counter.close(position))


@pytest.mark.parametrize("restart", [False, True])
def test_an_order_during_which_the_login_is_lost_is_found_when_it_is_back(
    tmp_path: Path, restart: bool
) -> None:
    counter = Counter(tmp_path)
    counter.showing(at_send="logged_out", at_send_ms=5000)
    lost = counter.order(client_order_id="lost")
    assert isinstance(lost, OrderResult)
    assert lost.outcome == "UNRESOLVED"
    with pytest.raises(Refusal, match="shows 0@"):
        counter.order_manager.look()
    blocked = counter.order()
    assert isinstance(blocked, Error)
    assert blocked.code == "UNRESOLVED"
    if restart:
        counter = counter.restarted(look=False)
    counter.now += 5001
    pass_time(counter, 1)
    assert counter.order_manager.unresolved(MAGIC) == []
    assert filled(counter.order(client_order_id="lost")).replayed
    assert really_open(counter) == pytest.approx(0.1)
