"""A new strategy in the shadow of the old one, on real hosts: what differs is found, and nothing is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import strategy_bundle, strategy_definition
from lab.handle import wait_until
from lab.state import PROJECT
from mt5crs.develop import project
from tests.lab.engines import Fleet, Ran, run
from tests.lab.test_blue_green import HOST, Node

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

UNIT = "mt5crs-strategy-shadow.service"
SEEDED = {"strategy_volume": 0.02, "strategy_strategy_options": {"positions": 1.5}}
"""Buys when the lab's strategy does, but twice as much."""


def key_of(node: Node, process: str) -> str:
    """The secret key in a process' environment."""
    read = f"tr '\\0' '\\n' </proc/{process}/environ | sed -n 's/^CLIENT_SECRET_KEY=//p'"
    return node.lab.exec(HOST, ["sh", "-c", read], check=False).stdout.strip()


def process_of(node: Node, unit: str) -> str:
    """The main process of a unit; nothing while there is none."""
    show = ["systemctl", "show", "-p", "MainPID", "--value", unit]
    found = node.lab.exec(HOST, show, check=False).stdout.strip()
    return "" if found == "0" else found


def awaited_key(node: Node, unit: str) -> str:
    """The secret key of a unit that is about to start.

    systemd tells a main process before that process has its own environment.
    """
    found = [""]

    def read() -> bool:
        process = process_of(node, unit)
        found[0] = key_of(node, process) if process else ""
        return bool(found[0])

    wait_until(read, 40, f"{unit} with its key")
    return found[0]


def assert_nothing_is_left(node: Node) -> None:
    node.assert_nothing_is_left()
    script = "ls -d /run/mt5crs-strategy-shadow /var/lib/mt5crs/strategy/decisions.jsonl* 2>/dev/null; true"

    def left() -> str:
        return node.lab.exec(HOST, ["sh", "-c", script]).stdout

    wait_until(lambda: not left(), 5, "the tape to go", seen=left)


def test_a_strategy_that_decides_otherwise_is_taken_back(fleet: Fleet) -> None:
    node = Node(fleet)
    node.wait_for_trades(1)
    before, pids = node.service("strategy")["current"], fleet.pids()
    node.stage("strategy", **SEEDED)
    arguments = ("--standby", "--shadow", "9", "--agreement", "95")
    with ThreadPoolExecutor(1) as pool:
        activated = pool.submit(node.tool, "activate", "strategy", *arguments)
        shadows = awaited_key(node, UNIT)
        status, answer = activated.result()
    own = {
        name: key_of(node, process_of(node, f"mt5crs-{name}.service")) for name in ("reconciler", "strategy")
    }
    assert shadows == own["reconciler"] != own["strategy"], "it has a key that may trade"
    assert status == 1, answer
    assert "turned away in the shadow" in answer["error"]["message"]
    found = node.tool("shadow", "strategy", "show")[1]["shadow"]
    assert (found["state"], found["promoted"]) == ("ended", False)
    assert found["volume"] > 0, found
    assert found["agreement"] < 0.95
    assert found["replayed"] == found["calls"] > 3, found
    assert node.service("strategy")["current"] == before
    assert fleet.pids() == pids, "a service was restarted"
    assert_nothing_is_left(node)
    node.wait_for_trades(1)
    node.assert_nothing_doubled()


VERSION = '''
"""Buys when it has nothing, and sells it again: version {name}."""
from mt5crs.strategy.api import Strategy

class Flip(Strategy):
    def on_timer(self, trading):
        for position in trading.positions():
            trading.close(position)
            return
        tick = trading.quote(trading.symbol)
        trading.market("BUY", trading.volume, sl=round(tick.bid - {distance}, 5))
'''


def version(under: Path, name: str, distance: float) -> str:
    """Build a version of a strategy; its bundle's name."""
    directory = under / name
    directory.mkdir()
    project.make("flip", directory)
    text = VERSION.format(name=name, distance=distance)
    (directory / "flip/src/flip/__init__.py").write_text(text)
    built = strategy_bundle.build(strategy_definition.read("flip", directory), PROJECT / "dist")
    return str(built["file"])[len("strategy-") : -len(".tar")]


def shadow(fleet: Fleet, *words: str) -> Ran:
    return run("mt5crs", "--inventory", str(fleet.inventory), "shadow", *words)


def spans(ran: Ran) -> list[dict[str, Any]]:
    return [one for one in ran.record["spans"] if one["service"] == "strategy" and one.get("shadow")]


@pytest.mark.slow(
    reason="the same without engines and bundles is the test above; tests/unit/strategy/test_shadow.py"
)
def test_two_versions_by_both_engines(fleet: Fleet, tmp_path: Path) -> None:
    """The rule takes a seeded difference back, a word promotes it, an equal one is promoted by the rule."""
    old, same, other = (
        version(tmp_path, name, distance)
        for name, distance in (("old", 0.01), ("same", 0.01), ("other", 0.02))
    )
    settings = {
        "strategy_strategy": "flip",
        "strategy_tick_interval_s": 0.5,
        "fleet_shadow_window_s": 8,
        "fleet_max_unavailable_percent": 100,
    }
    fleet.override(strategy_bundle=old, **settings)
    ran = fleet.pyinfra("--data", "strategy=all_at_once")
    assert ran.status == 0, ran.output[-3000:]
    node = Node(fleet)
    node.wait_for_trades()

    fleet.override(strategy_bundle=other, **settings)
    dry = fleet.pyinfra("--dry", "--data", "strategy=shadow", yes=False)
    assert "runs beside the old one for 8 s first, and its orders go nowhere" in dry.output, dry.output[
        -3000:
    ]
    before, pids = fleet.generations(), fleet.pids()
    ran = fleet.pyinfra("--data", "strategy=shadow")
    assert ran.status == 1, ran.output[-3000:]
    assert "with another price" in ran.output, ran.output[-3000:]
    assert (fleet.generations(), fleet.pids()) == (before, pids)
    assert all(not one["shadow"]["promoted"] and one["shadow"]["decisions"] > 0 for one in spans(ran))
    page = tmp_path / "shadow.html"
    shown = shadow(fleet, "show", "--html", str(page))
    assert (shown.status, "another price" in shown.output) == (0, True), shown.output
    assert "<circle" in page.read_text()
    assert_nothing_is_left(node)

    fleet.override(
        strategy_bundle=other, **{**settings, "fleet_shadow_window_s": 300}, fleet_shadow_promotion="command"
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fleet.playbook, "site.yml", "--tags", "strategy", "-e", "fleet_strategy=shadow")
        for host in fleet.hosts("strategy"):

            def promoted(name: str = host) -> bool:
                return shadow(fleet, "promote", "--host", name, "--reason", "wanted").status == 0

            wait_until(promoted, 150, f"the shadow on {host}", seen=lambda: shadow(fleet, "show").output)
        ran = running.result()
    assert ran.status == 0, ran.output[-3000:]
    assert all("promoted by" in one["shadow"]["reason"] for one in spans(ran)), spans(ran)
    after = fleet.pids()
    assert {service for (host, service), pid in after.items() if pids[host, service] != pid} == {"strategy"}

    fleet.override(strategy_bundle=old, **settings)
    assert fleet.pyinfra("--data", "strategy=all_at_once").status == 0
    node.wait_for_trades()
    fleet.override(strategy_bundle=same, **settings)
    ran = fleet.playbook("site.yml", "--tags", "strategy", "-e", "fleet_strategy=shadow")
    assert ran.status == 0, ran.output[-3000:]
    assert [one["shadow"]["agreement"] for one in spans(ran)] == [1.0] * len(fleet.hosts("strategy"))
    assert fleet.running()
    assert_nothing_is_left(node)
    node.wait_for_trades()
    node.assert_nothing_doubled()
