"""Prometheus on the Hub scrapes everything that the inventory has, and nothing is alarming."""

import json
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from tests.promql import selectors
from tests.verify.node import Node

# Whatever http_proxy says on the Hub.
FETCH = """
import sys, urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for path in sys.argv[2:]:
    print(direct.open(sys.argv[1] + path, timeout=10).read().decode())
"""


def ask(hub: Node, *paths: str) -> list[dict[str, Any]]:
    """What Prometheus answers, in this order."""
    base = f"http://{hub.address}:{hub.variables['monitoring_prometheus_port']}/api/v1/"
    answer = hub.run("python3", "-c", FETCH, base, *paths)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line)["data"] for line in answer.stdout.splitlines()]


def has(hub: Node, selectors: Iterable[str]) -> dict[str, bool]:
    """Of each selector whether there is a series."""
    asked = list(dict.fromkeys(selectors))
    found = ask(hub, *(f"query?query={quote(one)}" for one in asked))
    return {one: bool(data["result"]) for one, data in zip(asked, found, strict=True)}


def scraped_targets(hub: Node) -> list[dict[str, Any]]:
    """The targets, once each was scraped: a Prometheus that has just begun knows nothing of them yet.

    As they are when some were not scraped within three intervals.
    """
    end = time.monotonic() + 3 * float(hub.variables["monitoring_scrape_interval_s"])
    while True:
        targets: list[dict[str, Any]] = ask(hub, "targets?state=active")[0]["activeTargets"]
        if time.monotonic() > end or all(target["health"] != "unknown" for target in targets):
            return targets
        time.sleep(0.5)


def test_every_service_of_the_inventory_is_scraped(hub: Node, fleet: tuple[Node, ...]) -> None:
    targets = scraped_targets(hub)
    down = {target["scrapeUrl"]: target["lastError"] for target in targets if target["health"] != "up"}
    assert down == {}
    scraped = {(target["labels"]["host"], target["labels"]["job"]) for target in targets}
    expected = {(node.name, job) for node in fleet for job in node.services}
    expected |= {(node.name, "node") for node in fleet if node.is_machine and not node.is_windows}
    expected |= {(hub.name, "prometheus"), (hub.name, "alertmanager")}
    expected |= {(host, "hub_watch") for host in watchers(hub)}
    assert scraped == expected


def watchers(hub: Node) -> list[str]:
    """Hosts that watch the Hub; none where nobody is to be told of its silence."""
    return list(hub.variables.get("monitoring_hub_watchers") or ())


def alert_rules(hub: Node) -> list[dict[str, Any]]:
    return [rule for group in ask(hub, "rules?type=alert")[0]["groups"] for rule in group["rules"]]


OF_STRATEGIES = ("reconciler", "strategy", "breaker", "drawdown", "limit_used", "unfilled")
"""In the name or a condition of what is exported only where a strategy is deployed."""
FIRST_OF = {
    "mt5crs_review_": "mt5crs_review_runs_total",
    "mt5crs_backup_": "mt5crs_backup_timestamp_seconds",
    "mt5crs_restore_": "mt5crs_restore_proven_timestamp_seconds",
}


def test_alert_rules_are_loaded(hub: Node) -> None:
    rules = alert_rules(hub)
    assert rules
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_what_the_rules_look_at_is_there(hub: Node, fleet: tuple[Node, ...]) -> None:
    """A rule on a series that nobody exports never fires, and nobody sees it."""
    scraped_targets(hub)
    trading = any("strategy" in node.services for node in fleet)
    begun = has(hub, FIRST_OF.values())
    absent = [prefix for prefix, first in FIRST_OF.items() if not begun[first]]
    wanted = []
    for rule in alert_rules(hub):
        for selector in selectors(rule["query"]):
            if not trading and any(part in str(selector) for part in OF_STRATEGIES):
                continue
            if any(selector.name.startswith(prefix) for prefix in absent):
                continue  # before the first review, backup or drill on this Hub
            if "hub_watch" in str(selector) and not watchers(hub):
                continue
            if ("host", "=~", "") in selector.conditions:
                continue  # hosts of a kind that this fleet has not
            wanted.append((rule["name"], str(selector)))
    there = has(hub, (selector for _, selector in wanted))
    assert [(rule, selector) for rule, selector in wanted if not there[selector]] == []
