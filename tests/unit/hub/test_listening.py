"""What the Hub keeps of a gateway equals the broker's books, whatever was missed in between."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.gateway.running import MAGIC, Running, eventually, running
from tests.unit.hub.conftest import Shown


def of_books(gateway: Running) -> set[str]:
    return {str(deal.ticket) for deal in gateway.books("deals")}


def test_books_are_shown_and_events_change_them(hub: Shown, gateway: Running) -> None:
    shown = hub.listening()
    assert shown["account"]["currency"] == "USD"
    assert shown["account"]["balance"] == 1_000_000
    trader = gateway.client("strategy")
    trader.lease()
    trader.order()
    position = eventually(lambda: hub.gateway()["positions"])[0]
    assert (position["symbol"], position["magic"]) == ("EURUSD", str(MAGIC))
    eventually(lambda: {trade["ticket"] for trade in hub.trades()} == of_books(gateway))
    volume = hub.gateway()["magics"][0]["gauges"][0]
    assert (volume["name"], volume["used"], volume["most"]) == ("open volume, lots", position["volume"], 20.0)
    trader.close_position(int(position["identifier"]))
    eventually(lambda: hub.gateway()["positions"] == [])
    eventually(lambda: {trade["ticket"] for trade in hub.trades()} == of_books(gateway))
    assert hub.gateway()["listener"]["gaps"] == []


def test_nothing_is_missing_after_the_hub_was_down(gateway: Running, tmp_path: Path) -> None:
    first = Shown(gateway, tmp_path)
    try:
        first.listening()
    finally:
        first.close()
    trader = gateway.client("strategy")
    trader.lease()
    trader.close_position(trader.order().position)  # type: ignore[union-attr]
    again = Shown(gateway, tmp_path)
    try:
        shown = again.listening()
        assert {trade["ticket"] for trade in again.trades()} == of_books(gateway)
        assert len(again.trades()) == len(of_books(gateway))
        (gap,) = shown["listener"]["gaps"]
        assert gap["reason"] == "the Hub was not running"
        assert gap["until"] > gap["since"]
    finally:
        again.close()
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert kinds.count("deal") == len(of_books(gateway))
    assert kinds.count("gap") == 1


def test_a_gateway_that_dies_is_unknown_and_its_trades_are_read_when_it_is_back(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    with running(tmp_path / "gateway") as gateway:
        hub = Shown(gateway, tmp_path / "hub")
        try:
            hub.listening()
            trader = gateway.client("strategy")
            trader.lease()
            trader.order()
            eventually(lambda: len(hub.gateway()["positions"]) == 1)
            gateway.kill()
            dead = eventually(lambda: not (of := hub.gateway())["current"] and of)
            assert (dead["state"], dead["halts"], dead["version"]) == (None, None, None)
            assert dead["magics"][0]["gauges"][0]["used"] is None
            assert len(dead["positions"]) == 1  # as it was, and said to be not current
            assert hub.get("/health")[0] == 200  # no fault of the Hub
            gateway.start()
            back = hub.listening()
            assert len(back["listener"]["gaps"]) == 1
            eventually(lambda: {trade["ticket"] for trade in hub.trades()} == of_books(gateway))
        finally:
            hub.close()


def test_a_refused_key_is_said(gateway: Running, tmp_path: Path) -> None:
    hub = Shown(gateway, tmp_path, client_secret_key="1" * 64)
    try:
        refused = eventually(lambda: (of := hub.gateway())["listener"]["state"] == "refused" and of)
        assert "fleet_client_public_keys" in refused["listener"]["reason"]
        assert (refused["positions"], refused["orders"], refused["account"]) == (None, None, None)
    finally:
        hub.close()


def test_metrics_and_health(hub: Shown) -> None:
    hub.listening()
    status, health = hub.get("/health")
    assert (status, health["state"], health["gateways"]) == (200, "ready", {"gtw-01": "listening"})
    metrics = hub.get("/metrics")[1]
    assert 'mt5crs_hub_listening{gateway="gtw-01"} 1' in metrics
    assert "mt5crs_hub_alerts_known 0" in metrics
