"""A canary in every secret of the fleet is found in no output, log, report, journal, diff, temporary file or
process list, while both engines deploy it."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from deploy.fleet.inventory import resolve
from deploy.fleet.settings import PARTS, variables_of
from lab.state import PROJECT
from tests.lab.engines import Fleet, Ran

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


# Runs on each host until its input ends: every command line and temporary file that was ever there.
LOOK = """
import os, select, sys
seen, looks = set(), 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    for directory in ("/tmp", "/var/tmp"):
        seen.update(os.listdir(directory))
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                seen.add(file.read().decode(errors="replace").replace("\\0", " "))
        except OSError:
            pass
    looks += 1
print(looks, *seen, sep="\\n")
"""


BEGINS = {"_url": "http://127.0.0.1:9/", "webhook_secret": "whsec_", "watch_secret": "whsec_"}
"""What a canary has to begin with, by the end of the setting's name."""


class Watch:
    """Context manager: reads the process lists of all hosts over and over while its body runs."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.seen: dict[str, list[str]] = {}

    def __enter__(self) -> Watch:
        lab, look = self.fleet.lab, ["python3", "-c", LOOK]
        self._processes = {
            host.name: subprocess.Popen(
                lab.podman.exec_argv(lab.container(host.name), look, tty=False),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
            )
            for host in lab.plan.hosts
        }
        return self

    def __exit__(self, *_of: object) -> None:
        for host, process in self._processes.items():
            self.seen[host] = process.communicate(timeout=60)[0].splitlines()


@pytest.fixture
def canaries(fleet: Fleet) -> tuple[Fleet, dict[str, str]]:
    """The fleet with a canary in every secret setting, and the canaries by name."""
    secret = {name: f for part in PARTS for name, f in variables_of(part).items() if f.secret}
    # Keys are random already and serve as their own canaries; all other secrets get one.
    planted = {
        name: next((begin for end, begin in BEGINS.items() if name.endswith(end)), "canary-")
        + uuid.uuid4().hex
        for name, field in secret.items()
        if field.kind != "curve_secret_key"
    }
    fleet.override(
        **planted,
        monitoring_webhook_networks=["127.0.0.1/32"],
        monitoring_hub_watch_networks=["127.0.0.1/32"],
        hub_webhook_networks=["127.0.0.1/32"],
    )
    resolved = resolve(fleet.inventory)
    found = {
        f"{host}: {name}": values[name]
        for host, values in resolved.hosts.items()
        for name in secret
        if values.get(name)
    }
    assert {key.partition(": ")[2] for key in found} == set(secret), "every secret setting has a canary"
    return fleet, found


def leaks(canaries: dict[str, str], places: dict[str, str]) -> list[str]:
    return [
        f"{name} in {place}"
        for place, text in places.items()
        for name, value in canaries.items()
        if value in text
    ]


def logs(fleet: Fleet) -> dict[str, str]:
    """Everything on the hosts that others than root, or a log reader, could see."""
    places = "/opt/mt5crs /etc /var/lib/mt5crs /run /tmp /var/tmp"
    find = f"find {places} -xdev -type f -perm -o=r -size -2M -print0"
    world = f"{find} | xargs -0 cat 2>/dev/null | tr -cd '[:print:]\\n'"
    found = {}
    for host in fleet.lab.plan.hosts:
        found[f"{host.name} journal"] = fleet.lab.exec(
            host.name, ["journalctl", "--no-pager", "-o", "verbose", "--since", "-20min"], timeout_s=120
        ).stdout
        found[f"{host.name} files that anyone reads"] = fleet.lab.exec(
            host.name, ["sh", "-c", world], timeout_s=120, check=False
        ).stdout
    return found


def reports() -> dict[str, str]:
    return {str(path): path.read_text() for path in (PROJECT / "reports").rglob("*") if path.is_file()}


def test_secrets_are_nowhere(canaries: tuple[Fleet, dict[str, str]]) -> None:
    fleet, values = canaries
    with Watch(fleet) as watch:
        runs: dict[str, Ran] = {
            "pyinfra --dry": fleet.pyinfra("--dry", yes=False),
            "ansible --check --diff -vvv": fleet.playbook("site.yml", "--check", "--diff", "-vvv"),
            "pyinfra -vvv": fleet.pyinfra("-vvv"),
        }
        planted = {key.partition(": ")[2]: value for key, value in values.items() if "_client_" not in key}
        planted.pop("gateway_secret_key")
        networks = ["127.0.0.1/32"]
        fleet.override(
            **planted,
            monitoring_webhook_networks=networks,
            monitoring_hub_watch_networks=networks,
            reconciler_log_level="DEBUG",
        )
        runs["ansible --diff -vvv"] = fleet.playbook("site.yml", "--diff", "-vvv")
        runs["pyinfra debug-inventory"] = fleet.pyinfra(file="debug-inventory", yes=False)
    for name, ran in runs.items():
        assert ran.status == 0, name + ran.output[-3000:]
    assert set(watch.seen) == {host.name for host in fleet.lab.plan.hosts}
    for looks, *command_lines in watch.seen.values():
        assert int(looks) > 100
        assert any("mt5crs-release" in line for line in command_lines), "it looked while something ran"

    places = {name: ran.output for name, ran in runs.items()}
    places |= {
        f"process lists and temporary directories of {host}": "\n".join(seen)
        for host, seen in watch.seen.items()
    }
    places |= logs(fleet) | reports()
    assert leaks(values, places) == []


def test_the_search_itself_finds_a_canary(canaries: tuple[Fleet, dict[str, str]]) -> None:
    fleet, values = canaries
    name, value = next(iter(values.items()))
    fleet.lab.exec("inf-01", ["sh", "-c", f"echo {value} > /tmp/leak && chmod 644 /tmp/leak; logger {value}"])
    try:
        found = leaks({name: value}, logs(fleet))
    finally:
        fleet.lab.exec(
            "inf-01", ["sh", "-c", "rm /tmp/leak; journalctl --rotate; journalctl --vacuum-time=1s"]
        )
    assert found == [f"{name} in inf-01 journal", f"{name} in inf-01 files that anyone reads"]
