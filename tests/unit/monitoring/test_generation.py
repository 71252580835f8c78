"""The generation of monitoring: scrapes the whole inventory, keeps its secret, is sandboxed."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render
from deploy.fleet.settings import check
from mt5crs.settings import envfile
from mt5crs.settings.monitoring import MonitoringSettings
from tests.unit.fleets import EXTRA, TREND, add_beside, make_inventory

from .conftest import PROJECT, specification

LAB = PROJECT / "inventory" / "lab.yml"
MODULES = PROJECT / "templates" / "monitoring" / "hub_watch"
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


def test_a_further_inf_on_a_machine_is_scraped_for_itself(tmp_path: Path) -> None:
    inventory = make_inventory(tmp_path)
    alone = specification(resolve(inventory, EXTRA).hosts["inf-01"])
    add_beside(inventory, fleet_magic_number=7)
    fleet = resolve(inventory, EXTRA)
    hub = specification(fleet.hosts["hub-01"])
    of = {(job, address.rpartition(":")[2]) for job, host, address in scraped(hub) if host == TREND}
    assert of == {("reconciler", "9202"), ("strategy", "9203")}
    # One node exporter tells of both; Prometheus says whose it is (tests/lab has it do so).
    (node,) = [
        job
        for job in yaml.safe_load(hub["files"]["prometheus.yml"]["content"])["scrape_configs"]
        if job["job_name"] == "node"
    ]
    moved = [rule["regex"] for rule in node["metric_relabel_configs"] if rule["target_label"] == "host"]
    assert moved == ["inf-01;mt5crs-.+@trend[.]service", "inf-01;7"]
    assert specification(fleet.hosts["inf-01"]) == alone, "the machine's own monitoring stays as it is"


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


TOKEN = "of Alertmanager's own"


def test_what_is_critical_has_the_hub_look_at_once(fleet: Fleet) -> None:
    made = specification(fleet.hosts["hub-01"], hub_alerts_token=TOKEN)
    config = yaml.safe_load(made["files"]["alertmanager.yml"]["content"])
    first, receiver = config["route"]["routes"][0], next(r for r in config["receivers"] if r["name"] == "hub")
    assert (first["receiver"], first["matchers"], first["group_wait"]) == (
        "hub",
        ['severity="critical"'],
        "0s",
    )
    assert first["continue"], "people hear of it, too"
    (post,) = receiver["webhook_configs"]
    assert post["url"].endswith("/api/alerts/webhook")
    assert post["http_config"]["authorization"]["credentials"] == TOKEN


def test_what_is_signed_goes_over_the_hub_and_past_it(fleet: Fleet) -> None:
    of = {"hub_webhook_url": "https://x/canary", "monitoring_webhook_url": WEBHOOK, "hub_alerts_token": TOKEN}
    made = specification(fleet.hosts["hub-01"], **of)
    receivers = {
        each["name"]: each.get("webhook_configs", [])
        for each in yaml.safe_load(made["files"]["alertmanager.yml"]["content"])["receivers"]
    }
    for name, resolved in (("fleet", True), ("information", False)):
        direct, signed = receivers[name]
        assert (direct["url"], direct["send_resolved"]) == (WEBHOOK, resolved)
        assert signed["url"].endswith("/api/alerts/notifications")
        assert (signed["send_resolved"], signed["max_alerts"]) == (resolved, 20)
        assert signed["http_config"]["authorization"]["credentials"] == TOKEN
    assert [len(receivers[name]) for name in ("hub", "watchdog")] == [1, 0]
    alone = yaml.safe_load(
        specification(fleet.hosts["hub-01"], **{**of, "monitoring_webhook_url": ""})["files"][
            "alertmanager.yml"
        ]["content"]
    )
    assert [len(each.get("webhook_configs", [])) for each in alone["receivers"]] == [1, 1, 1, 0]


def test_a_sign_of_life_goes_to_the_watchdog_alone(fleet: Fleet) -> None:
    made = specification(fleet.hosts["hub-01"], monitoring_watchdog_url=WEBHOOK)
    config = yaml.safe_load(made["files"]["alertmanager.yml"]["content"])
    posting = [receiver["name"] for receiver in config["receivers"] if "webhook_configs" in receiver]
    assert posting == ["watchdog"]
    first = next(route for route in config["route"]["routes"] if "critical" not in str(route))
    assert (first["matchers"], first["receiver"]) == (['alertname="Mt5crsWatchdog"'], "watchdog")


NETWORKS = {"monitoring_hub_watch_networks": ["192.0.2.9"]}
ADDRESS = "https://ops:x@elsewhere.example/hook?token=canary"
SIGNING = f"whsec_{'Canary2s' * 5} whsec_{'Former2s' * 5}"


@pytest.fixture(scope="module")
def watched() -> Fleet:
    """A fleet whose Hub is watched."""
    signing = {"monitoring_hub_watch_secret": SIGNING}
    return resolve(LAB, {"monitoring_hub_watch_url": ADDRESS, **NETWORKS, **signing})


def test_the_first_two_inf_hosts_watch_the_hub(watched: Fleet) -> None:
    infs = sorted(watched.in_group("inf"))
    watchers = [
        host
        for host in watched.hosts
        if "mt5crs-hub-watch.service" in specification(watched.hosts[host])["start"]
    ]
    assert watchers == infs[:2]
    hub = specification(watched.hosts["hub-01"])
    assert {(host, address) for job, host, address in scraped(hub) if job == "hub_watch"} == {
        (host, f"{watched.hosts[host]['fleet_address']}:9105") for host in watchers
    }
    config = yaml.safe_load(hub["files"]["alertmanager.yml"]["content"])
    (receiver,) = (one for one in config["receivers"] if one["name"] == "hub_watch")
    assert [one["api_url"] for one in receiver["slack_configs"]] == [
        f"http://{watched.hosts[host]['fleet_address']}:9105/alive" for host in watchers
    ]
    first = next(route for route in config["route"]["routes"] if "Watchdog" in str(route))
    assert (first["receiver"], first["continue"]) == ("hub_watch", True)


def test_a_watcher_has_all_modules_of_its_program(watched: Fleet) -> None:
    made = specification(watched.hosts["inf-01"])
    modules = {path.relative_to(MODULES.parent).as_posix(): path.read_text() for path in MODULES.glob("*.py")}
    there = {name: file for name, file in made["files"].items() if name.startswith("hub_watch/")}
    assert {name: file["content"].strip() for name, file in there.items()} == {
        name: text.strip() for name, text in modules.items()
    }


def test_the_address_of_the_watchers_is_in_their_env_alone(watched: Fleet) -> None:
    made = specification(watched.hosts["inf-01"])
    file = made["files"].pop(".env")
    assert (file["mode"], file["owner"], file["group"]) == ("0600", "root", "root")
    env = envfile.parse(file["content"])
    assert (env["URL"], env["SECRET"]) == (ADDRESS, SIGNING)
    assert env["GATEWAYS"] == json.dumps([[watched.hosts["gtw-01"]["fleet_address"], 5555]])
    assert (env["HUB"], env["WATCHER"]) == ("hub-01", "inf-01")
    assert "canary" not in str(made).lower()
    others = set(watched.hosts) - set(watched.hosts["hub-01"]["monitoring_hub_watchers"])
    assert others
    assert not [host for host in others if "canary" in str(specification(watched.hosts[host])).lower()]


def test_only_the_hub_reaches_a_watcher(watched: Fleet) -> None:
    hub = watched.hosts["hub-01"]["fleet_address"]
    for host in watched.hosts:
        text = render("baseline/nftables.conf.j2", watched.hosts[host])
        rules = [line for line in text.splitlines() if "{ 9105 }" in line]
        watches = host in watched.hosts["hub-01"]["monitoring_hub_watchers"]
        assert len(rules) == watches
        assert all(f"saddr {hub} " in rule for rule in rules)


def test_the_rules_name_their_own_digest_and_prometheus_takes_them(fleet: Fleet, tmp_path: Path) -> None:
    made = specification(fleet.hosts["hub-01"])
    assert made["live"] == {"alerts.yml": ["prometheus.service"]}
    text = made["files"]["alerts.yml"]["content"]
    groups = yaml.safe_load(text)["groups"]
    (rule,) = next(group["rules"] for group in groups if group["name"] == "rules in force")
    above = text[: text.index("\n  # Which of these files Prometheus has read")]
    assert rule["labels"]["digest"] == hashlib.sha256(above.encode()).hexdigest()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; the lab's hosts have it")
    (tmp_path / "alerts.yml").write_text(text)
    checked = subprocess.run([promtool, "check", "rules", str(tmp_path / "alerts.yml")], check=False)
    assert checked.returncode == 0


def test_without_an_address_nobody_watches(fleet: Fleet) -> None:
    assert {str(of["monitoring_hub_watchers"]) for of in fleet.hosts.values()} == {"{}"}
    assert fleet.hosts["hub-01"]["monitoring_scrape_ports"]["hub_watch"] == {}, (
        "nobody misses what is not there"
    )
    rendered = [
        render("baseline/nftables.conf.j2", of) + str(specification(of)) for of in fleet.hosts.values()
    ]
    assert not [text for text in rendered if "mt5crs-hub-watch.service" in text or "9105" in text]


def test_alertmanager_takes_the_configuration(watched: Fleet, tmp_path: Path) -> None:
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("no amtool here; the lab's hosts have it")
    path = tmp_path / "alertmanager.yml"
    path.write_text(specification(watched.hosts["hub-01"])["files"]["alertmanager.yml"]["content"])
    done = subprocess.run([amtool, "check-config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hub_watch_url": ADDRESS}, "monitoring_hub_watch_networks"),
        ({"hub_watch_url": "ftp://x/canary", "hub_watch_networks": ["192.0.2.9"]}, "no http://"),
        ({"hub_watch_url": "http://x:port/canary", "hub_watch_networks": ["192.0.2.9"]}, "no http://"),
        ({"hub_watch_url": "http://x/canary'", "hub_watch_networks": ["192.0.2.9"]}, "write it as %XX"),
        ({"hub_watch_url": "http://x/canary\n", "hub_watch_networks": ["192.0.2.9"]}, "write it as %XX"),
        ({"runbook_url": "http://x/'"}, "monitoring_runbook_url has a character"),
        ({"hub_watch_networks": ["elsewhere"]}, "monitoring_hub_watch_networks has 'elsewhere'"),
        ({"hub_watch_port": 9100}, "must differ"),
    ],
)
def test_what_a_watcher_could_not_use_is_refused(given: dict[str, Any], said: str) -> None:
    (problem,) = MonitoringSettings(**given).problems()
    assert said in problem
    assert "canary" not in problem


def test_a_watcher_is_sandboxed(watched: Fleet, tmp_path: Path) -> None:
    text = specification(watched.hosts["inf-01"])["units"]["mt5crs-hub-watch.service"]
    assert "IPAddressAllow=192.0.2.9\n" in text
    path = tmp_path / "mt5crs-hub-watch.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


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
