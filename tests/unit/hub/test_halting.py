"""An alert halts at the gateway: once, by its own key, whoever posts what, and whatever is down meanwhile."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.client.gateway import GatewayClient
from mt5crs.hub.halt_policy import Wanted
from mt5crs.hub.halting import Halt
from mt5crs.hub.posts import Posts
from mt5crs.protocol import requests
from mt5crs.protocol.replies import Error
from mt5crs.service.database import UnusableError
from mt5crs.service.endpoint import Request
from tests.unit.gateway.running import MAGIC, Running, eventually, running
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_pages import Monitoring

TOKEN = "t" * 64
BREAKER = {
    "alertname": "Mt5crsBreakerOpen",
    "host": "gtw-01",
    "magic": str(MAGIC),
    "code": "CIRCUIT_BREAKER_OPEN",
}


class Alerting(Monitoring):
    """A Prometheus with the alerts that a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.firing: list[dict[str, str]] = []
        self.since = "2026-01-02T03:04:05Z"
        self.asked = 0

    def answer(self, path: str) -> Any:
        if not path.startswith("/api/v1/alerts"):
            return [] if path.startswith("/api/v2/") else {"data": {"result": []}}
        self.asked += 1
        alerts = [
            {
                "labels": {"severity": "critical", **labels},
                "annotations": {"summary": "it is open"},
                "state": "firing",
                "activeAt": self.since,
                "value": "1",
            }
            for labels in self.firing
        ]
        return {"data": {"alerts": alerts}}


@pytest.fixture
def prometheus() -> Iterator[Alerting]:
    made = Alerting()
    yield made
    made.server.shutdown()
    made.server.server_close()


def started(gateway: Running, directory: Path, prometheus: Alerting, **settings: Any) -> Shown:
    told = {
        "prometheus_url": prometheus.url,
        "alerts_interval_s": 600.0,
        "halt_client_name": "halter",
        "halt_secret_key": gateway.secrets["halter"],
        "alerts_token": TOKEN,
    }
    return Shown(gateway, directory, **{**told, **settings})


@pytest.fixture
def hub(gateway: Running, tmp_path: Path, prometheus: Alerting) -> Iterator[Shown]:
    shown = started(gateway, tmp_path, prometheus)
    try:
        shown.listening()
        eventually(lambda: prometheus.asked)
        yield shown
    finally:
        shown.close()
        gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="the test is over")


def post(hub: Shown, token: str = TOKEN, body: bytes = b"{}", path: str = "/api/alerts/webhook") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", hub.hub.endpoint.port, timeout=5)
    try:
        connection.request("POST", path, body=body, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def halts(gateway: Running) -> list[tuple[int, str, str]]:
    status = gateway.client("ops").ask(requests.Status)
    return [(each.magic, each.client, each.reason) for each in status.halts]


def kept(directory: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(directory / "hub.db") as db:
        return [json.loads(row[0]) for row in db.execute("SELECT body FROM halt ORDER BY at")]


def test_an_alert_halts_within_a_second_of_the_post_and_it_is_recorded_who_and_why(
    hub: Shown, gateway: Running, prometheus: Alerting, tmp_path: Path
) -> None:
    prometheus.firing = [BREAKER]
    began = time.monotonic()
    assert post(hub) == 202
    ((magic, client, reason),) = eventually(lambda: halts(gateway))
    assert time.monotonic() - began < 1.0
    assert (magic, client) == (MAGIC, "halter")
    assert reason == "alert CIRCUIT_BREAKER_OPEN since 2026-01-02T03:04:05: it is open"
    (halt,) = eventually(lambda: [each for each in kept(tmp_path) if each["done"]])
    assert (halt["outcome"], halt["by"], halt["reason"]) == ("halted", "alert", reason)
    trader = gateway.client("strategy")
    assert not isinstance(trader.lease(), Error)
    assert trader.order().code == "HALTED"  # type: ignore[union-attr]


def test_what_a_person_has_lifted_comes_back_only_with_a_new_alert(
    hub: Shown, gateway: Running, prometheus: Alerting, tmp_path: Path
) -> None:
    prometheus.firing = [BREAKER]
    post(hub)
    eventually(lambda: halts(gateway))
    gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="looked")
    for _ in range(2):  # it still fires: Alertmanager repeats it, or somebody sends the post again
        before = prometheus.asked
        assert post(hub) == 202
        eventually(lambda before=before: prometheus.asked > before)  # type: ignore[misc]
    time_of_next = "2026-01-02T05:00:00Z"
    assert len(kept(tmp_path)) == 1
    assert halts(gateway) == []
    prometheus.since = time_of_next
    post(hub)
    assert eventually(lambda: halts(gateway))[0][2].startswith(
        "alert CIRCUIT_BREAKER_OPEN since 2026-01-02T05"
    )


def test_a_post_that_was_made_up_halts_nothing(hub: Shown, gateway: Running, prometheus: Alerting) -> None:
    forged = {"alerts": [{"status": "firing", "labels": {"severity": "critical", **BREAKER}}]}
    before = prometheus.asked
    assert post(hub, body=json.dumps(forged).encode()) == 202
    eventually(lambda: prometheus.asked > before)
    for token in ("", "wrong", TOKEN[:-1], "ü" * 64):
        assert post(hub, token.encode().decode("latin-1")) == 401
    assert post(hub, path="/api/halt-everything") == 404
    assert post(hub, body=b"x" * 65_537) == 413
    assert prometheus.asked == before + 1, "who may not post has nothing looked at"
    assert halts(gateway) == []
    assert '"post.refused"' in hub.log.getvalue()
    assert TOKEN not in hub.log.getvalue()


def test_a_post_from_elsewhere_is_refused_whatever_it_shows() -> None:
    rung: list[int] = []
    told: list[str] = []
    posts = Posts(lambda _: None, TOKEN, lambda: rung.append(1), lambda *said: told.append(said[1]))
    ask = Request("/api/alerts/webhook", "", "10.0.0.1", "POST", b"{}", TOKEN, here=False)
    assert posts(ask).status == "403 Forbidden"  # type: ignore[union-attr]
    assert posts(ask._replace(here=True)).status == "202 Accepted"  # type: ignore[union-attr]
    nobody = Posts(lambda _: None, "", lambda: rung.append(1), lambda *_: None)
    assert nobody(ask._replace(here=True, token="")).status == "401 Unauthorized"  # type: ignore[union-attr]
    assert (rung, told) == ([1], ["403", "202"])
    beside = Posts(lambda _: None, TOKEN, lambda: rung.append(1), lambda *_: None, alerts_from="10.0.0.1")
    assert beside(ask._replace(peer="10.0.0.1")).status == "202 Accepted"  # type: ignore[union-attr]
    for other in (ask, ask._replace(peer="10.0.0.2")):
        assert beside(other).status == "403 Forbidden"  # type: ignore[union-attr]
    assert beside(ask._replace(peer="10.0.0.1", token="")).status == "401 Unauthorized"  # type: ignore[union-attr]


def test_a_halt_that_is_in_force_is_no_second_one(
    hub: Shown, gateway: Running, prometheus: Alerting, tmp_path: Path
) -> None:
    gateway.client("ops").ask(requests.Halt, scope="FLEET", reason="a person was first")
    eventually(lambda: hub.gateway()["halts"])
    prometheus.firing = [BREAKER]
    post(hub)
    (halt,) = eventually(lambda: [each for each in kept(tmp_path) if each["done"]])
    assert halt["outcome"] == "already"
    assert [each[2] for each in halts(gateway)] == ["a person was first"]
    gateway.client("ops").ask(requests.Resume, scope="FLEET", reason="the test is over")


def test_without_a_post_the_next_look_halts_and_no_policy_halts_nothing(
    gateway: Running, tmp_path: Path, prometheus: Alerting
) -> None:
    prometheus.firing = [BREAKER]
    idle = started(gateway, tmp_path / "idle", prometheus, alerts_interval_s=0.2, halt_on=[])
    try:
        eventually(lambda: prometheus.asked >= 3)
        assert halts(gateway) == []
    finally:
        idle.close()
    hub = started(gateway, tmp_path / "hub", prometheus, alerts_interval_s=0.2, alerts_token="")
    try:
        eventually(lambda: halts(gateway))
        assert post(hub, "") == 401
    finally:
        hub.close()
        gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="the test is over")


def test_what_is_due_outlives_the_gateways_and_the_hubs_death(tmp_path: Path, prometheus: Alerting) -> None:
    (tmp_path / "gateway").mkdir()
    with running(tmp_path / "gateway") as gateway:
        hub = started(gateway, tmp_path / "hub", prometheus)
        hub.listening()
        gateway.kill()
        prometheus.firing = [
            {"alertname": "Mt5crsGatewaySilent", "host": "gtw-01", "code": "WS_DISCONNECTED"}
        ]
        post(hub)
        eventually(lambda: "mt5crs_hub_halts_due 1" in hub.get("/metrics")[1])
        hub.close()
        prometheus.firing = []  # over before anybody could be told
        again = started(gateway, tmp_path / "hub", prometheus)
        try:
            assert "mt5crs_hub_halts_due 1" in again.get("/metrics")[1]
            gateway.start()
            ((_, client, reason),) = eventually(lambda: halts(gateway))
            assert (client, reason[:21]) == ("halter", "alert WS_DISCONNECTED")
        finally:
            again.close()


def test_a_full_disk_delays_no_halt(
    hub: Shown, gateway: Running, prometheus: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UnusableError("no space")

    monkeypatch.setattr(hub.hub._store, "keep_halt", full)
    monkeypatch.setattr(hub.hub._store, "has_halt", full)
    prometheus.firing = [BREAKER]
    post(hub)
    eventually(lambda: halts(gateway))
    gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="looked")
    before = prometheus.asked
    post(hub)
    eventually(lambda: prometheus.asked > before)
    assert halts(gateway) == [], "it is known to have been acted on all the same"


def test_two_alerts_about_one_magic_number_are_one_halt(
    hub: Shown, gateway: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    halting = hub.hub._halting
    monkeypatch.setattr(halting, "_halted", lambda *_: False)  # as while the gateway is not heard yet
    before = gateway.log().count('"event":"halt"')
    in_force: set[int] = set()
    with GatewayClient(halting._peers["gtw-01"]) as client:
        for name in ("one", "two"):
            wanted = Wanted(id=name, gateway="gtw-01", magic=MAGIC, by="alert", reason=f"alert {name}")
            assert halting._once(client, Halt(wanted=wanted, at=1.0), in_force)
    assert sorted((each["id"], each["outcome"]) for each in kept(tmp_path)) == [
        ("one", "halted"),
        ("two", "already"),
    ]
    assert [each[2] for each in halts(gateway)] == ["alert one"]
    assert gateway.log().count('"event":"halt"') == before + 1
