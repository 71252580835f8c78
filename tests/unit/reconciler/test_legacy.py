"""A reconciler pointed at a gateway that speaks only the legacy format: read-only shadow run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mt5crs.checks.rehearsal import LOGIN, MAGIC, Fleet, free_ports
from mt5crs.client.errors import GatewayError, MalformedReplyError
from mt5crs.reconciler.legacy import legacy_evidence, parse_snapshot
from tests.unit.reconciler.books import NOW
from tests.unit.reconciler.trader import Trader

ACCOUNT = {
    "balance": 1.0,
    "equity": 1.0,
    "margin_free": 1.0,
    "margin_used": 0.0,
    "margin_level": 0.0,
    "leverage": 100,
}
POSITION = {
    "symbol": "EURUSD",
    "ticket": 5,
    "volume": 0.1,
    "profit": 0.0,
    "price_current": 1.1,
    "price_open": 1.1,
    "type": "BUY",
    "time_open": 1_700_000_000,
}


def frame(**changes: Any) -> bytes:
    body = {"status": "OK", "account": ACCOUNT, "positions": [POSITION], "message": ""} | changes
    return msgspec.json.encode({key: value for key, value in body.items() if value is not ...})


def test_shadow_run_on_the_legacy_door_of_a_real_gateway(fleet: Fleet) -> None:
    (port,) = free_ports(1)
    fleet.settings["gateway"]["LEGACY_PORT"] = port
    fleet.clients["legacy"] = {"old": {"address": "127.0.0.1", "permissions": ["observe"], "magics": [MAGIC]}}
    fleet.write_clients()
    fleet.start_ready("gateway")
    Trader(fleet).send("BUY", 0.3)
    fleet.settings["reconciler"] |= {
        "GATEWAY_PROTOCOL": "legacy",
        "GATEWAY_PORT": port,
        "GATEWAY_PUBLIC_KEY": "",
        "CLIENT_SECRET_KEY": "",
    }
    fleet.start_ready("reconciler")
    state = fleet.state()
    assert state.state == "shadow"
    assert [(p.symbol, p.volume) for p in state.positions or ()] == [("EURUSD", 0.3)]
    fleet.start("strategy")
    fleet.wait(lambda: "shadow" in str(fleet.health("strategy").get("reason")), "the strategy refusing")
    fleet.broker(do="trade", symbol="EURUSD", side="SELL", volume=0.2, magic=MAGIC)
    fleet.wait(lambda: len(fleet.state().positions or ()) == 2, "the change seen")
    with fleet.client() as client:
        ours = [d for d in client.snapshot(MAGIC, history_since_msc=0).deals if d.magic == MAGIC]
    assert len(ours) == 2  # the trader's and the broker's; none of the strategy


def test_no_legacy_gateway_means_halt(fleet: Fleet) -> None:
    fleet.settings["reconciler"] |= {
        "GATEWAY_PROTOCOL": "legacy",
        "GATEWAY_PUBLIC_KEY": "",
        "CLIENT_SECRET_KEY": "",
    }
    fleet.start("reconciler")
    assert fleet.wait_exit("reconciler") == 1
    assert "no connection to the legacy gateway" in fleet.tail("reconciler")


@pytest.mark.parametrize("key", ["account", "positions"])
def test_a_missing_key_is_an_error_and_not_an_empty_account(key: str) -> None:
    with pytest.raises(MalformedReplyError, match=key):
        parse_snapshot(frame(**{key: ...}))


@pytest.mark.parametrize(
    "bad",
    [
        {"positions": None},
        {"positions": {}},
        {"account": {}},
        {"positions": [{**POSITION, "type": "LONG"}]},
        {"positions": [{**POSITION, "volume": "much"}]},
    ],
)
def test_wrong_types_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(MalformedReplyError):
        parse_snapshot(frame(**bad))


def test_an_error_answer_is_an_error() -> None:
    with pytest.raises(GatewayError, match="terminal is away"):
        parse_snapshot(frame(status="ERROR", message="terminal is away", account={}, positions=[]))


@pytest.mark.parametrize(
    "positions", [[POSITION, POSITION], [{**POSITION, "ticket": 0}], [{**POSITION, "volume": -1.0}]]
)
def test_impossible_positions_are_refused(positions: list[dict[str, Any]]) -> None:
    with pytest.raises(GatewayError):
        legacy_evidence(parse_snapshot(frame(positions=positions)), MAGIC, LOGIN, NOW)
