"""What a stack is given: secrets of its own, an access list, and one place for addresses and ports."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.controller import programs
from images import build, checks, cli, stack
from images.errors import ImageError
from images.monitoring_files import OWN
from images.services import SERVICES, USER
from images.stack_files import DEFAULT_NAME, Stack, operator_settings, prepare
from lab import machine
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.protocol.curve import public_of
from mt5crs.settings import envfile
from mt5crs.settings.schema import load
from tests.unit.images.test_build import with_bundle
from tests.unit.release.test_provenance import Release

NETWORKS = ("10.203.9.0/24", "10.203.10.0/24")
OF_HUB = ("hub-alerts-token", "hub-webhook-url", "hub-webhook-secret")
SIGNING = f"whsec_{'Canary2s' * 5}"
OURS = {each.name for each in SERVICES if not each.package}


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Who the files are given to, in turn; who runs the tests may give nothing away."""
    given: list[int] = []
    monkeypatch.setattr(os, "fchown", lambda _file, user, _group: given.append(user))
    return given


def prepared(directory: Path, name: str = "mt5crs-x") -> Stack:
    own = Stack.of(directory, name)
    prepare(own, "1.2.3-abc", lambda taken: NETWORKS[len(taken)], lambda count: range(20_000, 20_000 + count))
    return own


def test_each_secret_is_private_and_given_to_who_reads_it(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    secrets = list((own.directory / "secrets").iterdir())
    # Alertmanager's is its configuration, which may hold tokens of webhooks.
    assert {path.name for path in secrets} == {*OURS, *OF_HUB, "alertmanager", "ops"}
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}
    assert owners.count(USER) == len(OURS) + len(OF_HUB) + 1
    assert {
        path.stat().st_mode & 0o777
        for path in (own.directory.parent, own.directory, own.directory / "secrets")
    } == {0o700}


def test_the_access_list_has_public_keys_and_where_they_are_used(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    told = json.loads((own.directory / "access/access.json").read_text())
    for name, client in told["clients"].items():
        assert client["key"] == public_of((own.directory / "secrets" / name).read_text().strip())
    assert {name: client.get("addresses") for name, client in told["clients"].items()} == {
        "reconciler": ["10.203.9.3"], "strategy": ["10.203.9.4"], "hub": ["10.203.9.5"], "ops": None,
    }  # fmt: skip
    permissions = {name: client["permissions"] for name, client in told["clients"].items()}
    assert permissions == {
        "reconciler": ["observe"], "strategy": ["trade"], "hub": ["observe"],
        "ops": ["observe", "administer"],
    }  # fmt: skip


def test_a_second_start_keeps_keys_network_ports_and_own_settings(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    (own.directory / "gateway.env").write_text("LOG_LEVEL=DEBUG\n")
    before = {path: path.read_text() for path in own.directory.rglob("*") if path.is_file()}
    prepare(own, "1.2.4-def", lambda _: pytest.fail("a network again"), lambda _: pytest.fail("ports again"))
    after = {path: path.read_text() for path in own.directory.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == {"stack.env"}
    assert after[own.settings] == before[own.settings].replace("1.2.3-abc", "1.2.4-def")


def test_only_the_stack_of_the_documentation_has_the_usual_ports(tmp_path: Path, owners: list[int]) -> None:
    assert prepared(tmp_path, DEFAULT_NAME).values()["MT5CRS_PORT"] == "5555"
    assert prepared(tmp_path).values()["MT5CRS_PORT"] == "20000"


def test_an_operators_settings_are_what_commands_read(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    assert envfile.read(own.operator) == operator_settings(own, own.values())
    made = load(ConnectionSettings, envfile.read(own.operator))
    assert (made.gateway_host, made.gateway_port, made.client_name) == ("127.0.0.1", 20_000, "ops")
    assert made.client_secret_key == (own.directory / "secrets/ops").read_text().strip()


def test_compose_yml_finds_all_that_it_asks_for(tmp_path: Path, owners: list[int]) -> None:
    """And what it runs is confined in every service."""
    text = stack.COMPOSE.read_text()
    asked = set(re.findall(r"\$\{(MT5CRS_\w+)", text))
    assert asked == set(prepared(tmp_path).values())
    services = yaml.safe_load(text)["services"]
    assert set(services) == {each.name for each in SERVICES}
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"], service["user"]) == (
            True,
            ["ALL"],
            f"{USER}:{USER}",
        )
        assert service["security_opt"] == ["no-new-privileges:true"]
        more = OF_HUB if name == "hub" else ()
        assert service.get("secrets", []) == ([] if name == "prometheus" else [name, *more])
        assert {"mem_limit", "cpus", "pids_limit"} <= set(service)
        assert [port for port in service["ports"] if not port.startswith("127.0.0.1:")] == []
    healthy = {"condition": "service_healthy"}
    depends = {name: service.get("depends_on") for name, service in services.items()}
    assert depends == {
        "gateway": None,
        "reconciler": {"gateway": healthy},
        "strategy": {"gateway": healthy, "reconciler": healthy},
        "alertmanager": None,
        "prometheus": {"alertmanager": healthy},
        "hub": {"prometheus": healthy},
    }
    # Alertmanager posts to whom a person names: it is in no network with a gateway.
    assert [name for name, service in services.items() if "trading" not in service["networks"]] == [
        "alertmanager"
    ]


def test_a_stack_of_an_older_release_gets_what_it_lacks_and_keeps_the_rest(
    tmp_path: Path, owners: list[int]
) -> None:
    own = prepared(tmp_path)
    before = own.values()
    new = {
        name for name in before if re.search("HUB|PROMETHEUS|ALERTMANAGER|WATCHING|RETENTION|LIMITS", name)
    }
    own.settings.write_text("".join(f"{name}='{before[name]}'\n" for name in set(before) - new))
    prepare(own, "1.2.3-abc", lambda taken: NETWORKS[len(taken)], lambda count: range(30_000, 30_000 + count))
    assert own.values() == before | {
        "MT5CRS_HUB_PORT": "30000", "MT5CRS_PROMETHEUS_PORT": "30001", "MT5CRS_ALERTMANAGER_PORT": "30002",
        "MT5CRS_PROMETHEUS_FILES": own.values()["MT5CRS_PROMETHEUS_FILES"],  # its links have the port
    }  # fmt: skip


def test_every_place_in_a_network_has_a_hardware_address_of_its_own(
    tmp_path: Path, owners: list[int]
) -> None:
    """That stays: else who has just spoken with a container does not find it when it is back."""
    values = prepared(tmp_path).values()
    places = {
        network["mac_address"]
        for service in yaml.safe_load(stack.COMPOSE.read_text())["services"].values()
        for network in service["networks"].values()
    }
    found = {name: value for name, value in values.items() if name.endswith("_MAC")}
    assert {f"${{{name}}}" for name in found} == places
    assert len(set(found.values())) == len(places) == 8
    assert found["MT5CRS_GATEWAY_MAC"] == "02:00:0a:cb:09:02"  # of 10.203.9.2


def test_prometheus_scrapes_every_service_where_it_is(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    told = yaml.safe_load((own.directory / "monitoring/prometheus.yml").read_text())
    targets = {
        job["job_name"]: [(entry["targets"], entry["labels"]["host"]) for entry in job["static_configs"]]
        for job in told["scrape_configs"]
    }
    assert targets == {
        "gateway": [(["10.203.9.2:9101"], "gateway")],
        # One host, as alerts and the Hub's page have it.
        "reconciler": [(["10.203.9.3:9102"], "inf")],
        "strategy": [(["10.203.9.4:9103"], "inf")],
        "hub": [(["10.203.10.2:8083"], "hub")],
        "prometheus": [(["10.203.10.3:9090"], "hub")],
        "alertmanager": [(["10.203.10.4:9093"], "hub")],
    }
    (manager,) = told["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["10.203.10.4:9093"]}]
    rules = yaml.safe_load((own.directory / "monitoring/alerts.yml").read_text())
    links = {
        rule["annotations"]["runbook_url"].partition("#")[0]
        for each in rules["groups"]
        for rule in each["rules"]
    }
    assert links == {"http://127.0.0.1:20006/consoles/runbook.html"}


def test_own_settings_of_monitoring_replace_the_containers_that_read_them(
    tmp_path: Path, owners: list[int]
) -> None:
    own = prepared(tmp_path)
    before = own.values()
    (own.directory / OWN).write_text(
        "monitoring_webhook_url: http://hooks.example/t0ken\nmonitoring_retention_days: 7\n"
    )
    after = prepared(tmp_path).values()
    assert {name for name in before if before[name] != after[name]} == {
        "MT5CRS_ALERTMANAGER_FILES", "MT5CRS_RETENTION_DAYS",
    }  # fmt: skip
    files = [path for path in own.directory.rglob("*") if path.is_file() and "t0ken" in path.read_text()]
    assert {str(path.relative_to(own.directory)): path.stat().st_mode & 0o777 for path in files} == {
        OWN: 0o600, "secrets/alertmanager": 0o600,
    }  # fmt: skip


def test_with_a_receiver_the_hub_signs_what_alertmanager_tells_it(tmp_path: Path, owners: list[int]) -> None:
    own = prepared(tmp_path)
    before = own.values()
    assert {before[f"MT5CRS_{name.upper().replace('-', '_')}_FILE"] for name in OF_HUB} == {""}
    assert "notifications" not in (own.directory / "secrets/alertmanager").read_text()
    url = "https://hooks.example/t0ken"
    (own.directory / OWN).write_text(f"hub_webhook_url: {url}\nhub_webhook_secret: {SIGNING}\n")
    after = prepared(tmp_path).values()
    read = {name: f"MT5CRS_{name.upper().replace('-', '_')}_FILE" for name in OF_HUB}
    assert {name: after[variable] for name, variable in read.items()} == {
        name: f"/run/secrets/{name}" for name in OF_HUB
    }
    assert {name for name in before if before[name] != after[name]} == {
        *read.values(), "MT5CRS_HUB_FILES", "MT5CRS_ALERTMANAGER_FILES",
    }  # fmt: skip
    told = {name: (own.directory / "secrets" / name).read_text().strip() for name in OF_HUB}
    assert (told["hub-webhook-url"], told["hub-webhook-secret"]) == (url, SIGNING)
    config = yaml.safe_load((own.directory / "secrets/alertmanager").read_text())
    (of,) = (each for each in config["receivers"] if each["name"] == "fleet")
    (post,) = of["webhook_configs"]
    assert post["url"] == "http://10.203.10.2:8083/api/alerts/notifications"
    assert post["http_config"]["authorization"]["credentials"] == told["hub-alerts-token"]
    files = [path for path in own.directory.rglob("*") if path.is_file() and "t0ken" in path.read_text()]
    assert {str(path.relative_to(own.directory)) for path in files} == {OWN, "secrets/hub-webhook-url"}
    hub = yaml.safe_load(stack.COMPOSE.read_text())["services"]["hub"]["environment"]
    secrets = {name: name.removeprefix("hub-").upper().replace("-", "_") for name in OF_HUB}
    assert {name: hub[f"{setting}_FILE"] for name, setting in secrets.items()} == {
        name: f"${{{variable}}}" for name, variable in read.items()
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"hub_webhook_secret: {SIGNING}", "hub_webhook_url and hub_webhook_secret belong together"),
        (f"hub_webhook_url: ftp://t0ken\nhub_webhook_secret: {SIGNING}", "hub_webhook_url is no http"),
        ("hub_webhook_url: https://t0ken\nhub_webhook_secret: t0ken", "hub_webhook_secret is <hidden>"),
        (
            "monitoring_webhok_url: http://x",
            "monitoring_webhok_url, which a stack does not use; did you mean ",
        ),
        ("monitoring_node_port: 9100", "monitoring_node_port, which a stack does not use"),
        ("monitoring_retention_days: soon", "monitoring_retention_days is 'soon', expected a whole number"),
        ("- a\n", "holds no `monitoring_…: value` lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_settings_of_monitoring_that_cannot_be_used_start_nothing(
    text: str, said: str, tmp_path: Path, owners: list[int]
) -> None:
    own = prepared(tmp_path)
    before = own.settings.read_text()
    (own.directory / OWN).write_text(text)
    with pytest.raises(ImageError) as refused:
        prepared(tmp_path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert OWN in str(refused.value)
    assert "t0ken" not in str(refused.value)
    assert own.settings.read_text() == before


def test_a_target_that_is_down_or_missing_is_said() -> None:
    up: list[dict[str, Any]] = [
        {"labels": {"job": name}, "health": "up", "lastError": ""} for name in checks.SCRAPED
    ]
    assert checks.scrape_problems(up) == []
    down = [each | {"health": "down", "lastError": "connection refused"} for each in up[:1]]
    assert checks.scrape_problems([*up[1:], *down]) == [f"{up[0]['labels']['job']}: connection refused"]
    assert checks.scrape_problems(up[1:]) == [f"no target of {up[0]['labels']['job']}"]


GOOD = {
    "uid": ["10001"] * 4, "capabilities": [0, 0, 0], "privileges": "1", "written": [], "read_only": True,
    "secrets": {"gateway": ["0o600", USER]}, "programs": ["mt5crs", "python3", "python3.13"],
    "environment": ["GATEWAY_SECRET_KEY_FILE=/run/secrets/gateway", "LC_ALL=C.UTF-8", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"uid": ["0", "0", "0", "0"]}, "runs as user 0"),
        ({"capabilities": [0, 0, 1024]}, "has capabilities"),
        ({"privileges": "0"}, "may gain privileges"),
        ({"read_only": False}, "root file system can be written"),
        ({"written": ["/etc"]}, "can write to /etc"),
        ({"secrets": {"gateway": ["0o644", USER]}}, "not one of mode 0600"),
        ({"secrets": {"gateway": ["0o600", USER], "strategy": ["0o600", USER]}}, "not one of mode 0600"),
        ({"programs": ["mt5crs", "python3", "python3.13", "sh"]}, "has programs"),
        ({"secrets": {}}, "not one of mode 0600"),
        ({"environment": ["GATEWAY_SECRET_KEY=abc"]}, "environment holds GATEWAY_SECRET_KEY"),
    ],
)
def test_what_a_container_may_not_is_said(wrong: dict[str, object], said: str) -> None:
    assert checks.confinement_problems(GOOD, "gateway") == []
    (problem,) = checks.confinement_problems(GOOD | wrong, "gateway")
    assert said in problem


@pytest.mark.parametrize("name", ["stack", "mt5crs-", "mt5crs-A", "mt5crs-../x"])
def test_a_name_that_podman_would_not_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="no name of a stack"):
        Stack.of(tmp_path, name)


def test_a_stack_that_was_never_started_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down", "--name", "mt5crs-never"]) == 1
    assert "mt5crs-never was never started" in capsys.readouterr().err


def test_images_that_were_tampered_with_are_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    release.images.write_bytes(b"other" * 100)
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setattr(build, "signing_key", lambda _root: release.key)
    monkeypatch.setattr(stack, "_connected", lambda _stack: pytest.fail("podman was asked"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    said = capsys.readouterr().err
    assert "images.tar is not the file that was signed" in said
    assert "do not use it" in said


def test_without_podman_it_says_what_brings_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setattr(build, "signing_key", lambda _root: release.key)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "require", lambda name: programs.require(f"{name}-that-is-missing"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("images: podman-that-is-missing is missing: ")
    assert said.count("\n") == 1


def test_a_signing_key_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(with_bundle(tmp_path))
    (tmp_path / build.LATEST).write_text(json.dumps({"file": release.images.name, "tag": "t"}))
    monkeypatch.setenv("MT5CRS_SIGNING_KEY", str(tmp_path / "missing"))
    assert cli.main(["--out", str(tmp_path), "up", "--name", "mt5crs-x"]) == 1
    assert "names" in (said := capsys.readouterr().err)
    assert "which is no file. Put the release key there" in said
