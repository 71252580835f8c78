"""What Prometheus would scrape: our services as they run here, Debian's programs as a lab's were recorded.

recorded/<job>-<host>.prom: the lines of `curl http://<host>:<port>/metrics` there that the rules name.
"""

from __future__ import annotations

import io
import subprocess
import urllib.request
from pathlib import Path

from mt5crs.hub.service import Hub
from mt5crs.local_fleet.rehearsal import Fleet
from mt5crs.review import figures, making
from mt5crs.review.decision import Policy
from mt5crs.review.rehearsal import ProviderServer
from mt5crs.review.tree import tree_of
from mt5crs.service.logs import Log
from mt5crs.settings.hub import HubSettings
from tests.promql import Series, samples
from tests.unit.hub_watch.running import Receiver, watching

RECORDED = Path(__file__).resolve().parent / "recorded"
HOSTS = {"gateway": "gtw-01", "reconciler": "inf-01", "strategy": "inf-01"}
_TEXT_FILE = "reconciler/metrics/reconciler.prom"
WATCHER = "inf-01"
_HUB, _NODES = "hub-01", ("gtw-01", "hub-01", "inf-01")
UP = [
    *(("node", host) for host in _NODES),
    *HOSTS.items(),
    ("prometheus", _HUB),
    ("alertmanager", _HUB),
    ("hub_watch", WATCHER),
]


def metrics(port: int) -> str:
    """What a service on loopback serves under /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def of_services(fleet: Fleet) -> list[Series]:
    """Everything that the running services export, the file for the node exporter included."""
    found = [
        series
        for service, port in fleet.metrics_ports.items()
        if service in fleet.processes
        for series in samples(metrics(port), job=service, host=HOSTS[service])
    ]
    left = fleet.directory / _TEXT_FILE
    if left.exists():
        found += samples(left.read_text(), job="node", host=HOSTS["reconciler"])
    return found


def of_review(directory: Path) -> list[Series]:
    """What a review leaves for the node exporter of the Hub: made here, of a change to one document."""
    repository = directory / "reviewed"
    repository.mkdir()
    (repository / "a.md").write_text("Text.\n")
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    with ProviderServer() as server:
        settings = server.settings(metrics_file=str(directory / "review.prom"))
        gate = making.external_gate(settings, directory / "cache")
        made = making.make(tree_of(repository), None, Policy(), directory / "cache", gate.ask)
        figures.keep(made, settings, directory / "cache", making.budget(settings, directory / "cache"))
    return list(samples((directory / "review.prom").read_text(), job="node", host=_HUB))


def of_hub_watch(directory: Path) -> list[Series]:
    """What a watcher of the Hub exports."""
    directory = directory / "hub_watch"
    directory.mkdir()
    with watching(directory, Receiver(), silence_s=3600) as watcher:
        return list(samples(watcher.scrape(), job="hub_watch", host=WATCHER))


def of_hub(directory: Path) -> list[Series]:
    """What the Hub's service exports; it need not run for that, only be made."""
    settings = HubSettings(
        gateways={},
        gateway_ports={},
        gateway_pub_ports={},
        gateway_public_keys={},
        client_name="watcher",
        client_secret_key="1" * 64,
        http_port=0,
        state_dir=str(directory / "hub"),
    )
    hub = Hub(settings, Log("hub", stream=io.StringIO()))
    try:
        return list(samples(metrics(hub.endpoint.port), job="hub", host=_HUB))
    finally:
        hub.close()


def of_debian() -> list[Series]:
    """What node exporter and Alertmanager export, and `up` of every target, which Prometheus itself makes."""
    found = [Series("up", {"job": job, "host": host}, 1.0) for job, host in UP]
    for path in sorted(RECORDED.glob("*.prom")):
        job, _, host = path.stem.partition("-")
        found += samples(path.read_text(), job=job, host=host)
    return found
