"""What the Molecule scenario `windows` does besides converging: create, destroy, verify, releases.

On the modelled host, unless MT5CRS_WINDOWS_HOST is set. A real host needs further MT5CRS_WINDOWS_USER, …_KEY
(private SSH key), …_KNOWN_HOSTS, …_CONTROLLER (address the host sees the controller under), …_PYTHON (the
archive; its SHA-256 is computed) and a Windows bundle (`python -m deploy.bundle --platform windows`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy import keys
from deploy.fleet.inventory import resolve
from tests.windows_model import fleet

NAME = "winmol"
PROJECT = fleet.PROJECT
INVENTORY = fleet.directory(NAME) / "inventory.yml"
_RUN_TIMEOUT_S = 600


class ScenarioError(RuntimeError):
    """Something was not as it should be; the text says what."""


def real_inventory(given: Mapping[str, str]) -> dict[str, Any]:
    """The inventory of a real Windows host. ScenarioError lists every variable that is missing."""
    names = ("HOST", "USER", "KEY", "KNOWN_HOSTS", "CONTROLLER", "PYTHON")
    values = {name: given.get(f"MT5CRS_WINDOWS_{name}", "") for name in names}
    missing = [f"MT5CRS_WINDOWS_{name}" for name, value in values.items() if not value]
    if missing:
        raise ScenarioError(f"set {', '.join(missing)} too; docs/windows.md says what each is")
    archive = Path(values["PYTHON"])
    network = ".".join(values["HOST"].split(".")[:3]) + ".0/24"
    host = {
        "ansible_host": values["HOST"],
        "ansible_user": values["USER"],
        "gateway_windows_python_archive": os.path.relpath(archive, PROJECT),
        "gateway_windows_python_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "baseline_ssh_sources": [values["CONTROLLER"]],
        "baseline_ntp_servers": ["time.windows.com"],
    }
    return {
        "lab": {
            "children": {
                "hub": {"hosts": {}},
                "inf": {"hosts": {}},
                "gateway": {"hosts": {fleet.GATEWAY: host}},
                "windows": {"hosts": {fleet.GATEWAY: {}}},
            },
            "vars": {
                "fleet_environment": "lab",
                "fleet_networks": [network],
                "fleet_ssh_key": values["KEY"],
                "fleet_ssh_known_hosts": values["KNOWN_HOSTS"],
            },
        }
    }


def create() -> None:
    """Boot and model a host, or write the inventory of the real one."""
    if "MT5CRS_WINDOWS_HOST" not in os.environ:
        fleet.up(NAME, alone=True)
        return
    INVENTORY.parent.mkdir(parents=True, exist_ok=True)
    INVENTORY.write_text(yaml.safe_dump(real_inventory(os.environ), sort_keys=False))
    keys.make(INVENTORY)


def destroy() -> None:
    """Remove the modelled host."""
    if "MT5CRS_WINDOWS_HOST" not in os.environ:
        subprocess.run([sys.executable, "-m", "lab", "down", "--name", NAME], cwd=PROJECT, check=True)


def play(
    playbook: str, *words: str, name: str = NAME, inventory: Path = INVENTORY
) -> subprocess.CompletedProcess[str]:
    """Run a playbook against this fleet."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), playbook, *words]
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={**fleet.environment(name), "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )


def verify_suite(
    *words: str, name: str = NAME, inventory: Path = INVENTORY
) -> subprocess.CompletedProcess[str]:
    """Run tests/verify, with which any fleet is verified, against this one; `words` are for pytest."""
    command = [sys.executable, "-m", "pytest", "tests/verify", "--inventory", str(inventory)]
    return subprocess.run(
        [*command, "-q", "--color=no", *words],
        cwd=PROJECT,
        env={**fleet.environment(name), "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )


def running(*, name: str = NAME, inventory: Path = INVENTORY) -> dict[str, Any]:
    """What the release tool says of the gateway on the Windows host."""
    command = [str(Path(sys.executable).parent / "ansible"), "-i", str(inventory), "windows"]
    host = resolve(inventory).hosts[fleet.GATEWAY]
    python = f"C:/ProgramData/mt5crs/python/{host['gateway_windows_python_sha256'][:12]}/tools/python.exe"
    argv = {"argv": [python, "C:/ProgramData/mt5crs/bin/mt5crs-release.pyz", "status", "--json"]}
    answer = subprocess.run(
        [*command, "-m", "ansible.windows.win_command", "-a", json.dumps(argv)],
        cwd=PROJECT,
        env={**fleet.environment(name), "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    line = next((line for line in answer.stdout.splitlines() if line.startswith("{")), None)
    if line is None:
        raise ScenarioError(f"the release tool did not answer: {answer.stdout}{answer.stderr}")
    found: dict[str, Any] = json.loads(line)["services"]["gateway"]
    return found


def check(condition: object, what: str, answer: subprocess.CompletedProcess[str]) -> None:
    """ScenarioError with the end of the play's output unless ``condition``."""
    if not condition:
        raise ScenarioError(f"{what}\n{answer.stdout[-4000:]}{answer.stderr[-1000:]}")
    print(f"ok: {what}", flush=True)


def verify() -> None:
    """The gateway is confirmed and runs, both its ports answer a listed peer, the verify suite passes."""
    found = running()
    wanted = {"state": "confirmed", "intact": True, "pending": None}
    seen = {name: found[name] for name in wanted}
    if seen != wanted or set(found["units"].values()) != {"active"}:
        raise ScenarioError(f"the gateway is not as it should be: {found}")
    print(f"ok: {found['current']} is confirmed, unchanged and runs")
    host = resolve(INVENTORY).hosts[fleet.GATEWAY]
    for port in (host["gateway_port"], host["gateway_pub_port"]):
        with socket.create_connection((host["fleet_address"], port), timeout=10) as connection:
            connection.settimeout(10)
            if connection.recv(1) != b"\xff":
                raise ScenarioError(f"port {port} does not speak ZMTP")
        print(f"ok: port {port} greets as ZeroMQ does")
    suite = verify_suite()
    check(suite.returncode == 0, "the verify suite finds nothing wrong", suite)
    print(suite.stdout.splitlines()[-1])


def releases() -> None:
    """A second release, a rollback to the first, and a failing one, which must leave the first running."""
    first = running()
    done = play("site.yml", "--tags", "gateway", "-e", '{"gateway_poll_interval_s": 0.3}')
    second = running()
    check(done.returncode == 0, "the second release is deployed", done)
    check(second["current"] != first["current"], "another generation runs", done)
    check(second["state"] == "confirmed", "it is confirmed", done)
    done = play("rollback.yml", "--tags", "gateway")
    check(done.returncode == 0, "the rollback succeeds", done)
    check(running()["current"] == first["current"], "the first generation runs again", done)
    done = play("site.yml", "--tags", "gateway", "-e", "gateway_bind=192.0.2.1")
    check(done.returncode != 0, "a release that cannot bind its port fails", done)
    after = running()
    check(after["current"] == first["current"], "and the old generation runs again", done)
    check(set(after["units"].values()) == {"active"}, "healthy", done)
    check(re.search(r"FAILED\s+gtw-02", done.stdout), "the output names host and cause", done)
    secrets = secrets_of(INVENTORY)
    check(len(secrets) >= 2 and not any(s in done.stdout for s in secrets), "no secret is in it", done)


def secrets_of(inventory: Path) -> list[str]:
    """Every secret of the Windows host."""
    host = resolve(inventory).hosts[fleet.GATEWAY]
    return [host["gateway_secret_key"], host["baseline_windows_account_password"]]


if __name__ == "__main__":
    try:
        {"create": create, "destroy": destroy, "verify": verify, "releases": releases}[sys.argv[1]]()
    except ScenarioError as problem:
        sys.exit(str(problem))
