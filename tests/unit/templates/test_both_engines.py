"""pyinfra and Ansible put the same bytes on a host, and the units they put there are sandboxed."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.fleet import services
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render
from deploy.fleet.services import MACHINES
from deploy.fleet.settings import structs
from deploy.rollout import generation
from mt5crs.settings.envfile import load_env_text, parse
from mt5crs.settings.gateway import ClientsFile, GatewaySettings
from mt5crs.settings.schema import fields
from mt5crs.settings.services import programs, settings_of
from mt5crs_release.desired.spec import read_spec
from tests.unit.fleets import EXTRA, SIGNER, add_beside, ansible, make_inventory

SERVICES = {service.name: service.group for service in services.SERVICES}
LOADED = {name: settings_of(name) for name in programs()}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_inventory(tmp_path_factory.mktemp("templates"))
    text = json.loads(made.read_text())
    # Values that a renderer could get wrong: text with signs, nested values, booleans, floats.
    text["lab"]["vars"] |= {
        "strategy_strategy_options": {"b": [1, 2.5, True, None], "a": "x y/z"},
        "gateway_sim_server": "Demo #1 (EU), 100%",
        "gateway_sim_faults": True,
        "strategy_volume": 1.0,
        "fleet_review_required": True,
        "fleet_phases": True,
        "fleet_phase_signers": {"alice": SIGNER},
        "review_provider_networks": ["203.0.113.0/28"],
        "review_signing_key": "c2VjcmV0",
        "review_api_key": "the-key",
        "review_reviewer": {
            "provider": "anthropic",
            "endpoint": "https://api.example.org",
            **{
                name: {"name": name, "input_price": 1.5, "output_price": 2}
                for name in ("strong", "medium", "cheap")
            },
        },
        "hub_readers": ["10.9.9.200", "10.8.0.0/16"],
        "gateway_profile_names": {"202401": "live_safe_atomic_v1"},
    }
    text["lab"]["children"]["review"] = {"hosts": {"hub-01": {}}}
    # One host whose strategy has a bundle of its own, one whose strategy comes with the core.
    text["lab"]["children"]["inf"]["hosts"]["inf-01"]["strategy_built"] = {
        "name": "mine",
        "version": "1.0",
        "file": "strategy-mine-1.0.tar",
        "content": "a" * 64,
        "code": None,
        "data": "b" * 64,
        "strategies": ["mine"],
        "unlocked": [],
    }
    override = {"by": "ann", "reason": 'no "key"', "until": "2999-01-01T00:00:00Z"}
    text["lab"]["children"]["inf"]["vars"] = {"fleet_review_override": override}  # the gateway has none
    made.write_text(json.dumps(text))
    add_beside(made)
    return made


@pytest.fixture(scope="module")
def fleet(inventory: Path) -> Fleet:
    return resolve(inventory, EXTRA)


def hosts_of(fleet: Fleet, service: str) -> list[str]:
    group = SERVICES[service]
    return list(fleet.in_group(group))


@pytest.fixture(scope="module")
def of_ansible(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each host: what Ansible renders for its services, in one run."""
    directory = tmp_path_factory.mktemp("ansible")
    rendered = (
        f"'{service}': (lookup('ansible.builtin.template', 'release/{service}.json.j2') | string | b64encode)"
        f" if '{group}' in group_names + ['{MACHINES}'] else ''"
        for service, group in SERVICES.items()
    )
    text = f"{{{{ {{ {', '.join(rendered)} }} | to_json }}}}"
    arguments = json.dumps({"content": text, "dest": str(directory / "{{ inventory_hostname }}")})
    ran = ansible(inventory, "all", "-m", "ansible.builtin.copy", "-a", arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return directory


@pytest.mark.parametrize("service", SERVICES)
def test_byte_identical(fleet: Fleet, of_ansible: Path, service: str) -> None:
    for host in hosts_of(fleet, service):
        theirs = base64.b64decode(json.loads((of_ansible / host).read_text())[service]).decode()
        ours = render(f"release/{service}.json.j2", fleet.hosts[host])
        assert ours == theirs, host
        read_spec(ours)


@pytest.mark.parametrize("service", LOADED)
def test_every_setting_reaches_its_service(fleet: Fleet, service: str) -> None:
    host = hosts_of(fleet, service)[0]
    files = json.loads(render(f"release/{service}.json.j2", fleet.hosts[host]))["files"]
    text = "\n".join(files[name]["content"] for name in (".env", "live.env"))
    assert set(parse(files["live.env"]["content"])) == {
        field.env for field in fields(LOADED[service]) if field.live
    }
    loaded = load_env_text(LOADED[service], text)
    assert set(parse(text)) == {field.env for field in fields(LOADED[service])}
    for field in fields(LOADED[service]):
        if field.variable is not None and field.variable in fleet.hosts[host]:
            wanted = msgspec.convert(fleet.hosts[host][field.variable], field.base_type)
            assert getattr(loaded, field.name) == wanted, field.name


def test_a_windows_gateway_reads_nothing_again_and_has_all_its_settings(fleet: Fleet) -> None:
    of = fleet.hosts["gtw-01"]
    made = json.loads(render("release/gateway.json.j2", {**of, "group_names": ["gateway", "windows"]}))
    assert ("live" in made, "live.env" in made["files"]) == (False, False)
    loaded = load_env_text(GatewaySettings, made["files"][".env"]["content"])
    assert (loaded.log_level, loaded.live_settings_file) == (of["gateway_log_level"], "")
    assert "--settings" not in made["health"]["command"]


def test_env_files_are_private_and_nothing_else_holds_a_secret(fleet: Fleet) -> None:
    for service in LOADED:
        for host in hosts_of(fleet, service):
            specification = json.loads(render(f"release/{service}.json.j2", fleet.hosts[host]))
            env = specification["files"].pop(".env")
            assert (env["mode"], env["owner"], env["group"]) == ("0600", "root", "root")
            for cls in structs(service):
                for field in fields(cls):
                    if field.secret and field.variable and fleet.hosts[host].get(field.variable):
                        assert str(fleet.hosts[host][field.variable]) not in json.dumps(specification)


def test_clients_of_the_gateway(fleet: Fleet) -> None:
    specification = json.loads(render("release/gateway.json.j2", fleet.hosts["gtw-01"]))
    clients = msgspec.json.decode(specification["files"]["clients.json"]["content"], type=ClientsFile)
    assert set(clients.clients) == {
        *(f"{name}-{service}" for name in fleet.in_group("inf") for service in ("reconciler", "strategy")),
        "hub-01-monitor",
        "hub-01-halt",
        "ops",
    }
    halting = clients.clients["hub-01-halt"]
    assert (halting.permissions, halting.magics) == (["halt"], [202401, 202402, 202403])
    assert clients.clients["inf-02-strategy"].magics == [202402]
    assert "trade" not in clients.clients["inf-02-reconciler"].permissions
    assert clients.clients["hub-01-monitor"].permissions == ["observe"]
    for name, client in clients.clients.items():
        host = name.rpartition("-")[0]
        of_operators = [
            *fleet.hosts["gtw-01"]["baseline_ssh_sources"],
            fleet.hosts["hub-01"]["fleet_address"],
        ]
        assert client.addresses == ([fleet.hosts[host]["fleet_address"]] if host else of_operators)
    assert set(clients.limits) == {"202401", "202402", "202403"}
    secrets = {
        fleet.hosts["inf-01"]["strategy_client_secret_key"],
        fleet.hosts["gtw-01"]["gateway_secret_key"],
    }
    assert not any(secret in json.dumps(specification["files"]["clients.json"]) for secret in secrets)


@pytest.mark.parametrize("service", [*LOADED, "monitoring"])
def test_ansible_gives_every_setting_that_a_generation_is_decided_by(
    fleet: Fleet, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the values of a task, which are worked out one by one, not those of the whole inventory."""
    monkeypatch.setattr(generation, "find_bundle", lambda name: generation.Bundle(Path(name), "0" * 64))
    settings = fleet.hosts["hub-01" if service == "monitoring" else hosts_of(fleet, service)[0]]
    text = render(f"release/{service}.json.j2", settings)
    given = {name: settings[name] for name in generation.READ}
    assert generation.desired_by(text, given).digest == generation.desired(service, settings).digest


def units_of(specification: dict[str, Any]) -> dict[str, str]:
    """Its own units and those that run beside another generation."""
    beside = [(specification.get(key) or {"units": {}})["units"] for key in ("standby", "shadow")]
    return {**specification["units"], **beside[0], **beside[1]}


def test_a_shadow_has_the_key_that_observes_and_the_strategys_settings(fleet: Fleet) -> None:
    """Its unit reads the reconciler's `.env` after the strategy's; what else both have is put right again."""
    settings = fleet.hosts["inf-01"]
    specification = json.loads(render("release/strategy.json.j2", settings))
    unit = specification["shadow"]["units"]["mt5crs-strategy-shadow.service"]
    assert re.findall(r"^EnvironmentFile=(.*)$", unit, re.MULTILINE) == [
        "/opt/mt5crs/strategy/standby/.env",
        "/opt/mt5crs/reconciler/current/.env",
        "/opt/mt5crs/strategy/standby/shadow.env",
    ]

    def read(text: str) -> dict[str, str]:
        return dict(re.findall(r"^([A-Z_]+)='(.*)'$", text, re.MULTILINE))

    own = read(render("env/strategy.env.j2", settings))
    seen = own | read(render("env/reconciler.env.j2", settings))
    seen |= read(specification["files"]["shadow.env"]["content"])
    assert seen["CLIENT_SECRET_KEY"] == settings["reconciler_client_secret_key"] != own["CLIENT_SECRET_KEY"]
    assert seen["CLIENT_NAME"] == "inf-01-reconciler"
    other = {name for name, value in own.items() if seen[name] != value}
    of_the_process = {"METRICS_ADDRESS", "METRICS_PORT", "DATA_DIR", "LIVE_SETTINGS_FILE"}
    assert other == {"CLIENT_NAME", "CLIENT_SECRET_KEY"} | of_the_process
    assert seen["LIVE_SETTINGS_FILE"] == "/opt/mt5crs/strategy/standby/live.env"


@pytest.mark.parametrize("service", LOADED)
def test_unit_is_sandboxed(fleet: Fleet, service: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    host = hosts_of(fleet, service)[0]
    specification = json.loads(render(f"release/{service}.json.j2", fleet.hosts[host]))
    units = units_of(specification)
    assert len(units) == {"reconciler": 2, "strategy": 3}.get(service, 1)
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=15",
        "--no-pager",
        *(tmp_path / name for name in units),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout[-300:] + ran.stderr


@pytest.mark.parametrize("service", [*LOADED, "monitoring"])
def test_unit_has_bounds(fleet: Fleet, service: str) -> None:
    """Memory, threads and descriptors are bounded, and no dump of memory with keys in it is written."""
    host = "hub-01" if service == "monitoring" else hosts_of(fleet, service)[0]
    specification = json.loads(render(f"release/{service}.json.j2", fleet.hosts[host]))
    units = units_of(specification)
    for name, text in units.items():
        named = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")
        assert named["LimitCORE"] == "0", name
        assert {"MemoryMax", "MemoryHigh", "TasksMax", "LimitMEMLOCK"} <= set(named), name


def test_the_gateways_bounds_grow_with_the_fleet(fleet: Fleet) -> None:
    settings = fleet.hosts["gtw-01"]
    many = {f"inf-{number}": f"10.9.8.{number}" for number in range(245)}
    larger = {**settings, "fleet_members": {**settings["fleet_members"], "inf": many}}

    def bound(settings: Any, name: str) -> int:
        unit = json.loads(render("release/gateway.json.j2", settings))["units"]["mt5crs-gateway.service"]
        found = re.search(rf"^{name}=(\d+)", unit, re.MULTILINE)
        assert found is not None
        return int(found.group(1))

    assert bound(settings, "LimitNOFILE") == 4096
    assert bound(larger, "LimitNOFILE") > 245 * settings["gateway_connections_per_address"]
    assert bound(larger, "MemoryMax") > bound(settings, "MemoryMax")


def test_units_let_in_only_the_fleet(fleet: Fleet) -> None:
    units = json.loads(render("release/reconciler.json.j2", fleet.hosts["inf-01"]))["units"]
    allowed = re.findall(r"^IPAddressAllow=(.*)$", units["mt5crs-reconciler.service"], re.MULTILINE)
    assert set(" ".join(allowed).split()) == {"localhost", "10.9.9.12", "10.9.9.14", "10.9.9.11"}
    assert "IPAddressDeny=any" in units["mt5crs-reconciler.service"]


@pytest.mark.parametrize("port", [0, 5655])
def test_gateway_lets_in_plain_clients_exactly_when_their_door_is_on(fleet: Fleet, port: int) -> None:
    plain = {"old": {"address": "10.9.9.77", "permissions": ["observe"], "magics": []}}
    settings = {**fleet.hosts["gtw-01"], "gateway_legacy_port": port, "gateway_legacy": plain}
    unit = json.loads(render("release/gateway.json.j2", settings))["units"]["mt5crs-gateway.service"]
    # systemd keeps the sockets by this list, so that they are made anew when it changes
    held = re.findall(r'^Environment="HOLD_SOCKETS_FOR=(.*)"$', unit, re.MULTILINE)
    allowed = re.findall(r"^IPAddressAllow=(.*)$", unit, re.MULTILINE)
    for addresses in (" ".join(allowed).split(), held[0].split()):
        assert ("10.9.9.77" in addresses) == bool(port)
        assert {"10.9.9.11", "10.9.9.12"} <= set(addresses)


def test_strategy_is_bound_to_its_reconciler(fleet: Fleet) -> None:
    unit = json.loads(render("release/strategy.json.j2", fleet.hosts["inf-01"]))["units"][
        "mt5crs-strategy.service"
    ]
    for line in (
        "BindsTo=mt5crs-reconciler.service",
        "After=mt5crs-reconciler.service",
        "WantedBy=mt5crs-reconciler.service",
    ):
        assert line in unit.splitlines()
