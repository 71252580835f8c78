"""Prometheus on the Hub scrapes everything that the inventory has, and nothing is alarming."""

import json

from tests.verify.node import Node

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def ask(hub: Node, path: str) -> dict[str, object]:
    port = hub.variables["monitoring_prometheus_port"]
    answer = hub.run("python3", "-c", FETCH, f"http://{hub.address}:{port}/api/v1/{path}")
    assert answer.returncode == 0, answer.stderr
    data = json.loads(answer.stdout)["data"]
    assert isinstance(data, dict)
    return data


def test_every_service_of_the_inventory_is_scraped(hub: Node, fleet: tuple[Node, ...]) -> None:
    targets = ask(hub, "targets?state=active")["activeTargets"]
    assert isinstance(targets, list)
    down = {target["scrapeUrl"]: target["lastError"] for target in targets if target["health"] != "up"}
    assert down == {}
    scraped = {(target["labels"]["host"], target["labels"]["job"]) for target in targets}
    expected = {(node.name, job) for node in fleet for job in node.services}
    expected |= {(node.name, "node") for node in fleet if not node.is_windows}
    expected |= {(hub.name, "prometheus"), (hub.name, "alertmanager")}
    assert scraped == expected


def test_alert_rules_are_loaded(hub: Node) -> None:
    groups = ask(hub, "rules?type=alert")["groups"]
    assert isinstance(groups, list)
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
