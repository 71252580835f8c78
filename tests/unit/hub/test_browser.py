"""The page in a real browser: no violation of accessibility, and HALT and acknowledging by keyboard alone."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt5crs.protocol import requests
from tests.unit.gateway.running import Running, eventually
from tests.unit.hub.browser import CHROMIUM, Browser, browser
from tests.unit.hub.conftest import Shown
from tests.unit.hub.test_halting import BREAKER, Alerting, halts, kept, post, started
from tests.unit.hub.test_webhook import LETTERS, NOTIFICATIONS, Receiver, notification
from tests.unit.hub.test_webhook import started as with_webhook

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (package chromium)")

AXE = Path(__file__).parent / "axe" / "axe.min.js.gz"
TOKEN = "0123456789abcdef" * 4
OPERATORS = {"alice": hashlib.sha256(TOKEN.encode()).hexdigest()}
LOOKED = """axe.run(document, {resultTypes: ["violations"]}).then((found) => JSON.stringify(
  found.violations.map((each) => [
    each.id, each.impact, each.nodes.map((node) => node.html.slice(0, 200) + node.failureSummary)])))"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def fleet(gateway: Running, tmp_path: Path) -> Iterator[tuple[Shown, Alerting]]:
    asked = Alerting()
    hub = started(gateway, tmp_path, asked, operators=OPERATORS, halt_on=[], alerts_interval_s=0.2)
    try:
        hub.listening()
        yield hub, asked
    finally:
        hub.close()
        asked.server.shutdown()
        asked.server.server_close()
        gateway.client("ops").ask(requests.Resume, scope="MAGIC", reason="the test is over")


def url(hub: Shown) -> str:
    return f"https://127.0.0.1:{hub.hub.endpoint.port}/"


def violations(page: Browser) -> list[Any]:
    found: list[Any] = json.loads(page.run(LOOKED))
    return found


def shown(page: Browser, hub: Shown) -> None:
    page.open(url(hub))
    page.until("document.querySelector('#gateways section button.danger') !== null")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_nothing_keeps_anybody_out(
    fleet: tuple[Shown, Alerting],
    gateway: Running,
    chromium: Browser,
    tmp_path: Path,
    width: int,
    height: int,
) -> None:
    hub, asked = fleet
    asked.firing = [BREAKER]
    trader = gateway.client("strategy")
    trader.lease()
    position = trader.order().position  # type: ignore[union-attr]
    try:
        eventually(lambda: len(hub.gateway()["positions"]) == 1)
        chromium.size(width, height)
        shown(chromium, hub)
        chromium.until(
            "[...document.querySelectorAll('button')].some((each) => each.textContent === 'Acknowledge')"
        )
        chromium.run(gzip.decompress(AXE.read_bytes()).decode() + ";0")
        for dark in (False, True):
            chromium.dark(on=dark)
            assert violations(chromium) == []
        wide = chromium.run("document.documentElement.scrollWidth")
        assert wide <= width, "nothing has to be scrolled sideways but tables"
        chromium.run("document.querySelector('button.danger').click()")
        assert violations(chromium) == []
        chromium.picture(tmp_path / "page.png")
    finally:
        trader.close_position(position)


def test_halt_by_keyboard_asks_for_token_and_reason(
    fleet: tuple[Shown, Alerting], gateway: Running, chromium: Browser, tmp_path: Path
) -> None:
    hub, _ = fleet
    shown(chromium, hub)
    chromium.run("document.querySelector('button.danger').focus()")
    label = chromium.run("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Halt magic number 202401 at gtw-01")
    chromium.press("Enter")
    chromium.until("document.getElementById('ask').open && document.activeElement.id === 'ask-reason'")
    chromium.press("Escape")
    chromium.until("!document.getElementById('ask').open")
    back = f"document.activeElement.getAttribute('aria-label') === {json.dumps(label)}"
    chromium.until(back)  # the browser tells of the end a moment after it
    assert halts(gateway) == []

    def fill(reason: str, token: str) -> None:
        chromium.run("document.getElementById('ask-reason').focus()")
        chromium.type(reason)
        chromium.press("Tab")
        chromium.type(token)
        chromium.press("Enter")

    chromium.press("Enter")
    chromium.until("document.getElementById('ask').open")
    fill("spreads are wild", "wrong")
    told = chromium.until("document.getElementById('ask-told').textContent")
    assert "no operator has this token" in told
    assert chromium.run("document.getElementById('ask-token').value") == ""
    assert halts(gateway) == []
    chromium.run("document.getElementById('ask-token').focus()")
    chromium.type(TOKEN)
    chromium.press("Enter")
    ((_, client, reason),) = eventually(lambda: halts(gateway))
    assert (client, reason) == ("halter", "alice, on the page: spreads are wild")
    chromium.until("!document.getElementById('ask').open")
    chromium.until("document.getElementById('halts').textContent.includes('alice, on the page')")
    (halt,) = eventually(lambda: [each for each in kept(tmp_path) if each["done"]])
    assert (halt["by"], halt["outcome"]) == ("alice", "halted")
    assert TOKEN not in hub.log.getvalue()
    assert TOKEN not in (tmp_path / "events.jsonl").read_text()
    assert TOKEN not in chromium.run("document.documentElement.outerHTML")


def test_an_alert_is_acknowledged_by_name_until_it_fires_anew(
    fleet: tuple[Shown, Alerting], chromium: Browser
) -> None:
    hub, asked = fleet
    asked.firing = [BREAKER]
    shown(chromium, hub)
    wanted = "[...document.querySelectorAll('button')].find((each) => each.textContent === 'Acknowledge')"
    chromium.until(f"!!{wanted}")
    chromium.run(f"{wanted}.click()")
    chromium.type("on it")
    chromium.press("Tab")
    chromium.type(TOKEN)
    chromium.press("Enter")
    chromium.until("document.getElementById('alerts').textContent.includes('alice: on it')")
    (alert,) = hub.get("/api/alerts/state")[1]["alerts"]
    assert (alert["acknowledged"]["by"], alert["acknowledged"]["reason"]) == ("alice", "on it")
    asked.since = "2026-01-02T09:00:00Z"
    again = eventually(lambda: [of for of in hub.get("/api/alerts/state")[1]["alerts"] if of["count"] == 2])
    assert again[0]["acknowledged"] is None


def test_dead_letters_are_shown_with_their_reason_as_text(
    gateway: Running, tmp_path: Path, chromium: Browser
) -> None:
    receiver = Receiver(500)
    hub = with_webhook(gateway, tmp_path, receiver.url, webhook_tries=1)
    try:
        hub.listening()
        chromium.open(f"http://127.0.0.1:{hub.hub.endpoint.port}/")
        chromium.until("document.getElementById('letters') !== null")
        chromium.until("document.getElementById('letters').textContent.includes('nothing undelivered')")
        post(hub, path=NOTIFICATIONS, body=notification("<b>Mt5crsHalted</b>"))
        chromium.until("document.getElementById('letters').textContent.includes('1 dead letter')")
        text = chromium.run("document.getElementById('letters').textContent")
        assert "firing: <b>Mt5crsHalted</b> gtw-01" in text
        assert "it answers 500" in text
        chromium.run(gzip.decompress(AXE.read_bytes()).decode())
        assert violations(chromium) == []
        post(hub, path=LETTERS, body=b'{"act": "retry", "ids": null}')
        chromium.until("document.getElementById('letters').textContent.includes('the last one was accepted')")
    finally:
        hub.close()
        receiver.close()


def test_deployments_have_their_steps_and_a_restore_that_was_proven_its_age(
    gateway: Running, tmp_path: Path, chromium: Browser
) -> None:
    told = tmp_path / "deployments.json"
    hub = Shown(gateway, tmp_path / "hub", deployments_file=str(told))
    try:
        hub.listening()
        chromium.open(url(hub))
        chromium.until("document.getElementById('deployments') !== null")
        chromium.until(
            "document.getElementById('deployments').textContent.includes('Deployments are unknown')"
        )
        steps = [{"name": "Stage", "hosts": 1, "changed": 1, "failed": 0, "seconds": 4.0}]
        of = {"id": "one", "started": "2026-01-02T03:04:05Z", "outcome": "failed", "phases": steps}
        told.write_text(json.dumps({"deployments": [{**of, "sentence": "<b>failed</b>", "seconds": 5}]}))
        hub.hub._alerts_told()
        chromium.until("document.querySelector('#deployments details') !== null")
        text = chromium.run("document.getElementById('deployments').textContent")
        assert "Stage 4.0 s" in text
        assert "<b>failed</b>" in text
        assert "last restore that was provenunknown" in text
    finally:
        hub.close()
