"""Leases where only their own file matters."""

from pathlib import Path

import pytest

from mt5crs.gateway.control import Control
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error, OrderResult
from tests.unit.gateway.running import Caller, Running


def test_a_longer_lease_made_by_asking_again_is_waited_for_after_a_restart(tmp_path: Path) -> None:
    now = 0.0

    def opened() -> Control:
        return Control(tmp_path / "control.db", "x", monotonic=lambda: now, durable=False)

    control = opened()
    epoch = control.acquire(7, "a", "run-a", 1_000)
    assert control.acquire(7, "a", "run-a", 60_000) == epoch
    control.close()
    control = opened()
    now = 59.0
    with pytest.raises(Refusal, match="LEASE_HELD"):
        control.acquire(7, "b", "run-b", 1_000)
    now = 61.0
    assert control.acquire(7, "b", "run-b", 1_000) == epoch + 1
    control.close()


@pytest.mark.parametrize("act", ["halt", "resume"])
def test_magic_0_is_not_the_fleet(tmp_path: Path, act: str) -> None:
    control = Control(tmp_path / "control.db", "x", durable=False)
    control.halt("FLEET", 0, "ops", "drill")
    with pytest.raises(Refusal, match="BAD_FIELD magic"):
        getattr(control, act)("MAGIC", 0, "ops", "a slip")
    assert [halt.magic for halt in control.halts()] == [0]
    control.close()


def test_leases_and_halts_that_were_lost_do_not_begin_at_nothing(gateway: Running, trader: Caller) -> None:
    assert isinstance(trader.order(), OrderResult)
    used = trader.epoch
    gateway.kill()
    (gateway.directory / "state" / "control.db").unlink()
    gateway.start()
    again = gateway.client("strategy")
    assert again.lease().epoch == used + 1
    refused = again.order()
    assert isinstance(refused, Error)
    assert refused.code == "HALTED"
    assert "control.db was missing" in refused.message
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="looked, no halt")
    assert isinstance(again.order(), OrderResult)
