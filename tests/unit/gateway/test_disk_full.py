"""A disk that takes no more: what cannot be recorded is not sent."""

import pytest

from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, HaltState, OrderResult, Pong
from tests.unit.gateway.running import Caller, Running

resource = pytest.importorskip("resource", reason="not on Windows")
pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit (Linux)")


def fill_disk(gateway: Running, *, full: bool) -> None:
    """No file of the running gateway may grow any more, or all may again."""
    assert gateway.process is not None
    _, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    soft = 0 if full else hard
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def test_an_order_that_cannot_be_recorded_is_not_sent(gateway: Running, trader: Caller) -> None:
    first = trader.order()
    assert isinstance(first, OrderResult)
    fill_disk(gateway, full=True)
    refused = trader.order(client_order_id="later")
    assert isinstance(refused, Error)
    assert (refused.code, refused.field, refused.final) == ("INTERNAL", "journal", False)
    assert "free disk space" in refused.remedy
    assert len(gateway.books("positions")) == 1
    assert isinstance(trader.ask(requests.Ping), Pong)
    fill_disk(gateway, full=False)
    again = trader.order(client_order_id="later")
    assert isinstance(again, OrderResult)
    assert (again.outcome, again.replayed) == ("FILLED", False)
    assert len(gateway.books("positions")) == 2


def test_a_halt_holds_although_it_cannot_be_recorded_and_can_be_repeated(
    gateway: Running, trader: Caller
) -> None:
    ops = gateway.client("ops")
    fill_disk(gateway, full=True)
    told = ops.ask(requests.Halt, scope="FLEET", reason="the disk is full")
    assert isinstance(told, Error)
    assert (told.code, told.field) == ("INTERNAL", "control")
    assert "in force" in told.message
    fill_disk(gateway, full=False)
    assert halted(trader)
    assert isinstance(ops.ask(requests.Halt, scope="FLEET", reason="once more"), HaltState)
    gateway.restart()
    again = gateway.client("strategy")
    again.lease()
    assert halted(again)
    fill_disk(gateway, full=True)
    lifted = gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="all is well")
    assert isinstance(lifted, Error)
    fill_disk(gateway, full=False)
    assert halted(again)
    assert gateway.books("positions") == []


def halted(trader: Caller) -> bool:
    """Whether a new order is refused for a halt."""
    refused = trader.order()
    return isinstance(refused, Error) and refused.code == "HALTED"


def test_a_lease_that_cannot_be_recorded_is_not_given(gateway: Running) -> None:
    fill_disk(gateway, full=True)
    caller = gateway.client("strategy")
    refused = caller.ask(requests.LeaseAcquire, instance="run", ttl_ms=5000)
    assert isinstance(refused, Error)
    assert (refused.code, refused.field) == ("INTERNAL", "control")
    fill_disk(gateway, full=False)
    assert caller.lease().epoch == 1
