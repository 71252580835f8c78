"""Whatever a deployment brings to an Inf host leaves with it: a service that is added has to leave, too."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from deploy.baseline.host_files import KEPT
from deploy.decommission import on_host
from deploy.fleet.inventory import resolve
from deploy.fleet.rendering import render
from deploy.fleet.services import MACHINES, SERVICES
from tests.unit.fleets import EXTRA, make_inventory

BROUGHT = [
    service.name for service in SERVICES if service.group in ("inf", MACHINES) and service.name != "baseline"
]


def test_what_trades_stops_from_the_top() -> None:
    assert [service.name for service in reversed(SERVICES) if service.group == "inf"] == [*on_host.TRADING]
    assert sorted(on_host.SERVICES) == sorted(BROUGHT)


def _run_below(root: Path, script: str) -> None:
    """Run a script's commands on files below a directory; systemd is not asked."""
    text = script
    for top in ("/etc/", "/opt/", "/var/"):
        text = text.replace(top, f"{root}{top}")
    subprocess.run(["sh", "-c", f"systemctl() {{ :; }}\n{text}"], check=True)


@pytest.mark.parametrize(
    ("service", "instance"),
    [*((service, "") for service in BROUGHT), *((service, "trend") for service in on_host.TRADING)],
)
def test_every_unit_that_is_brought_stops_and_leaves(service: str, instance: str, tmp_path: Path) -> None:
    fleet = resolve(make_inventory(tmp_path), EXTRA)
    settings = dict(fleet.hosts["inf-01"])
    watchers = {"inf-01": settings["fleet_address"]}
    settings |= {"monitoring_hub_watchers": watchers, "monitoring_hub_watch_url": "https://x.example/hook"}
    suffix = f"@{instance}" if instance else ""
    settings |= {"fleet_instance": instance, "fleet_suffix": suffix}
    wanted = json.loads(render(f"release/{service}.json.j2", settings))
    stopped, _, removed = on_host.remove_script(suffix).partition("done")
    for unit in [
        *wanted["start"],
        *(one for key in ("standby", "shadow") for one in wanted.get(key, {}).get("start", ())),
    ]:
        assert unit in re.findall(r"[\w@.-]+", stopped), unit  # none goes on once its settings are gone
    there = tmp_path / "root"
    others = [there / f"opt/mt5crs/{name}" for name in ("runtimes", f"{service}@other", "baseline")]
    gone = [there / f"{of}/{service}{suffix}" for of in ("opt/mt5crs", "var/lib/mt5crs")]
    gone += [there / "etc/systemd/system" / unit for unit in wanted["units"]]
    for path in (*others, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (there / "etc/issue").write_text("ours")
    (there / f"etc/issue{KEPT}").write_text("Debian")
    _run_below(there, removed)
    assert (there / "etc/issue").read_text() == ("ours" if suffix else "Debian")
    assert [path for path in gone if path.exists()] == []
    assert [path.name for path in others if path.exists()] == (
        ["runtimes", f"{service}@other", "baseline"] if suffix else [f"{service}@other", "baseline"]
    )
