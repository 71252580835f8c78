"""The generation of monitoring: scrapes the whole inventory, keeps its secret, is sandboxed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.settings import check
from mt5crs.settings.monitoring import MonitoringSettings
from tests.unit.fleets import EXTRA, make_inventory

from .conftest import specification

WEBHOOK = "https://alerts.example/hook?token=canary'\"&<x"


def scraped(hub: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(job, host, address) of everything that is scraped."""
    jobs = yaml.safe_load(hub["files"]["prometheus.yml"]["content"])["scrape_configs"]
    return {
        (job["job_name"], target["labels"]["host"], target["targets"][0])
        for job in jobs
        for target in job["static_configs"]
    }


def test_what_changes_something_over_http_is_not_switched_on(hub: dict[str, Any]) -> None:
    """Reloading, deleting and writing series ask for no password in Prometheus: off, as by default."""
    started = "".join(hub["units"].values())
    assert "/usr/bin/prometheus \\" in started
    switches = ("--web.enable-lifecycle", "--web.enable-admin-api", "--web.enable-remote-write-receiver")
    assert [switch for switch in switches if switch in started] == []


def test_everything_in_the_inventory_is_scraped(fleet: Fleet, hub: dict[str, Any]) -> None:
    services = {
        "node": (("hub", "inf", "gateway"), 9100),
        "gateway": (("gateway",), 9101),
        "reconciler": (("inf",), 9102),
        "strategy": (("inf",), 9103),
        "hub": (("hub",), 8083),
        "prometheus": (("hub",), 9090),
        "alertmanager": (("hub",), 9093),
    }
    assert scraped(hub) == {
        (job, host, f"{fleet.hosts[host]['fleet_address']}:{port}")
        for job, (groups, port) in services.items()
        for group in groups
        for host in fleet.in_group(group)
    }


def test_a_host_is_scraped_on_its_own_ports(tmp_path: Path) -> None:
    """Those of the Hub were taken for everybody's."""
    inventory = make_inventory(tmp_path)
    text = json.loads(inventory.read_text())
    groups = text["lab"]["children"]
    groups["inf"]["hosts"]["inf-02"] |= {"reconciler_metrics_port": 9222, "monitoring_node_port": 9200}
    groups["gateway"]["hosts"]["gtw-01"]["gateway_metrics_port"] = 9111
    inventory.write_text(json.dumps(text))
    fleet = resolve(inventory, EXTRA)
    assert check(fleet) == []
    targets = scraped(specification(fleet.hosts["hub-01"]))
    ports = {(job, host): address.rpartition(":")[2] for job, host, address in targets}
    assert ports["reconciler", "inf-02"] == "9222"
    assert ports["node", "inf-02"] == "9200"
    assert ports["gateway", "gtw-01"] == "9111"
    assert (ports["reconciler", "inf-01"], ports["node", "inf-01"], ports["node", "gtw-01"]) == (
        "9102",
        "9100",
        "9100",
    )


def test_hosts_that_set_their_clock_are_asked_about_it(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    text = json.loads(inventory.read_text())
    assert '{host=~""}' in rules_of(resolve(inventory, EXTRA))
    text["lab"]["children"]["inf"]["hosts"]["inf-02"]["baseline_clock_control"] = True
    inventory.write_text(json.dumps(text))
    assert '{host=~"inf-02"}' in rules_of(resolve(inventory, EXTRA))


def rules_of(fleet: Fleet) -> str:
    return str(specification(fleet.hosts["hub-01"])["files"]["alerts.yml"]["content"])


def test_ipv6_addresses_are_put_in_brackets(fleet: Fleet) -> None:
    settings = fleet.hosts["hub-01"]
    members = {**settings["fleet_members"], "gateway": {"gtw-01": "2001:db8::31"}}
    made = specification(settings, fleet_members=members, fleet_address="2001:db8::11")
    assert '"[2001:db8::31]:9101"' in made["files"]["prometheus.yml"]["content"]
    assert "http://[2001:db8::11]:9090/-/ready" in made["health"]["command"]


@pytest.mark.parametrize("host", ["inf-01", "gtw-01"])
def test_other_hosts_have_the_node_exporter_only(fleet: Fleet, host: str) -> None:
    made = specification(fleet.hosts[host])
    assert made["start"] == ["prometheus-node-exporter.service"]
    assert set(made["files"]) == {"ready.py"}


def test_the_webhook_is_a_secret_of_alertmanager_alone(fleet: Fleet) -> None:
    made = specification(fleet.hosts["hub-01"], monitoring_webhook_url=WEBHOOK)
    file = made["files"].pop("alertmanager.yml")
    assert (file["mode"], file["owner"], file["group"]) == ("0640", "root", "prometheus")
    receiver = yaml.safe_load(file["content"])["receivers"][0]
    assert receiver["webhook_configs"][0]["url"] == WEBHOOK
    assert "canary" not in str(made)


def test_without_a_webhook_alerts_are_only_shown(hub: dict[str, Any]) -> None:
    receivers = yaml.safe_load(hub["files"]["alertmanager.yml"]["content"])["receivers"]
    assert receivers == [{"name": "fleet"}, {"name": "information"}, {"name": "watchdog"}]


def test_a_sign_of_life_goes_to_the_watchdog_alone(fleet: Fleet) -> None:
    made = specification(fleet.hosts["hub-01"], monitoring_watchdog_url=WEBHOOK)
    config = yaml.safe_load(made["files"]["alertmanager.yml"]["content"])
    posting = [receiver["name"] for receiver in config["receivers"] if "webhook_configs" in receiver]
    assert posting == ["watchdog"]
    first = next(route for route in config["route"]["routes"] if "critical" not in str(route))
    assert (first["matchers"], first["receiver"]) == (['alertname="Mt5crsWatchdog"'], "watchdog")


def test_a_webhook_that_the_sandbox_would_cut_off_is_refused() -> None:
    problems = list(MonitoringSettings(webhook_url=WEBHOOK).problems())
    assert [("monitoring_webhook_networks" in text, "canary" in text) for text in problems] == [(True, False)]
    assert list(MonitoringSettings(webhook_url=WEBHOOK, webhook_networks=["192.0.2.9"]).problems()) == []


def test_ports_that_collide_are_refused() -> None:
    assert "differ" in "".join(MonitoringSettings(node_port=9090).problems())


@pytest.mark.parametrize("unit", ["prometheus", "prometheus-alertmanager", "prometheus-node-exporter"])
def test_exposure_is_at_most_1_5(hub: dict[str, Any], tmp_path: Path, unit: str) -> None:
    drop_in = hub["units"][f"{unit}.service.d/50-mt5crs.conf"]
    path = tmp_path / f"{unit}.service"
    # Of Debian's unit only the account counts here; everything else comes from the drop-in.
    path.write_text(drop_in.replace("[Service]\n", "[Service]\nUser=prometheus\n", 1))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr
