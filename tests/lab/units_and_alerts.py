"""Units and alerts of a deployed lab, as tests ask for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lab.handle import Lab

# On the Hub, because Prometheus and Alertmanager answer on its own address only.
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


@dataclass(frozen=True)
class Unit:
    """A systemd unit on a host of the lab."""

    lab: Lab
    host: str
    name: str

    def state(self) -> str:
        """ActiveState: active, activating, inactive, failed …"""
        return self.lab.exec(
            self.host, ["systemctl", "show", "-p", "ActiveState", "--value", self.name]
        ).stdout.strip()

    def call(self, verb: str) -> None:
        """Ask systemd for something without waiting for it to be done."""
        self.lab.exec(self.host, ["systemctl", "--no-block", verb, self.name])

    def process(self) -> int:
        """Main process id, 0 for none."""
        return int(
            self.lab.exec(self.host, ["systemctl", "show", "-p", "MainPID", "--value", self.name]).stdout
        )


def asked(lab: Lab, expression: str) -> dict[str, float]:
    """Host → value of an expression in Prometheus."""
    address = lab.plan.host("hub-01").address
    url = f"http://{address}:9090/api/v1/query?query={quote(expression)}"
    answer = json.loads(lab.exec("hub-01", ["python3", "-c", FETCH, url]).stdout)
    return {found["metric"].get("host", ""): float(found["value"][1]) for found in answer["data"]["result"]}


def alerts(lab: Lab) -> set[tuple[str, str]]:
    """(alert, host) of every alert that Alertmanager has now, held back ones included."""
    address = lab.plan.host("hub-01").address
    answer = lab.exec("hub-01", ["python3", "-c", FETCH, f"http://{address}:9093/api/v2/alerts"]).stdout
    found: list[dict[str, Any]] = json.loads(answer)
    return {(alert["labels"]["alertname"], alert["labels"].get("host", "")) for alert in found}
