"""A lab with the whole fleet deployed on it, and how to ask its Hub; `MT5CRS_LAB` names another lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import fleet
from lab.handle import Lab

PROJECT = Path(__file__).resolve().parents[2]
NAME = os.environ.get("MT5CRS_LAB", "default")
# On the Hub, because Prometheus and Alertmanager answer on its own address only.
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


def deployed() -> Lab:
    """Boot what is down and deploy (seconds when nothing changed)."""
    fleet.up(NAME, lambda _phase: None)
    lab = Lab.open(NAME)
    inventory = lab.directory.inventory.with_suffix(".py")
    command = [str(Path(sys.executable).with_name("pyinfra")), "-y", str(inventory), "deploy.py"]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return lab


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


def alerts(lab: Lab) -> set[tuple[str, str]]:
    """(alert, host) of every alert that Alertmanager has now, held back ones included."""
    address = lab.plan.host("hub-01").address
    answer = lab.exec("hub-01", ["python3", "-c", FETCH, f"http://{address}:9093/api/v2/alerts"]).stdout
    found: list[dict[str, Any]] = json.loads(answer)
    return {(alert["labels"]["alertname"], alert["labels"].get("host", "")) for alert in found}
