"""Runs both engines against a lab fleet, as people do, and looks at what the hosts say afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.vault_password import read_password, vault_lib
from lab.handle import Lab
from lab.state import PROJECT

SERVICES = {"gateway": ("gtw",), "reconciler": ("inf",), "strategy": ("inf",)}
OVERRIDES = "zz_test.yml"
Statuses = dict[tuple[str, str], dict[str, Any]]
"""(host, service) → what the release tool says of it."""


@dataclass(frozen=True)
class Ran:
    """A finished run: exit status and everything it printed."""

    status: int
    output: str

    @property
    def record(self) -> dict[str, Any]:
        """The record that the run kept."""
        kept = re.findall(r"^report: (\S+)/report\.html$", self.output, re.MULTILINE)
        assert kept, self.output[-3000:]
        record: dict[str, Any] = json.loads((PROJECT / kept[-1] / "record.json").read_text())
        return record

    @property
    def changed(self) -> dict[str, int]:
        """Ansible's count of changes per host."""
        return {
            host: int(n) for host, n in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.M)
        }


class Fleet:
    """A booted lab and the engines' way to it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.plan = lab.plan
        """The hosts that the inventory names; the lab may have more."""
        self.inventory = lab.directory.inventory
        self.group_vars = self.inventory.parent / "group_vars" / "lab"

    def pyinfra(
        self,
        *arguments: str,
        file: str = "deploy.py",
        yes: bool = True,
        before: Sequence[str] = (),
        **environment: str,
    ) -> Ran:
        """`pyinfra [-y] inventory/….py deploy.py`; `before`: what runs that command."""
        words = [*(["-y"] if yes else []), *arguments, str(self.inventory.with_suffix(".py")), file]
        return run("pyinfra", *words, before=before, **environment)

    def rollback_with_pyinfra(self, part: str, *arguments: str) -> Ran:
        """`pyinfra -y inventory/….py rollback.py --data part=…`."""
        return self.pyinfra("--data", f"part={part}", *arguments, file="rollback.py")

    def playbook(self, playbook: str, *arguments: str, **environment: str) -> Ran:
        """`ansible-playbook -i inventory/….yml …`."""
        return run("ansible-playbook", "-i", str(self.inventory), playbook, *arguments, **environment)

    def override(self, **settings: Any) -> None:
        """Set variables of the environment, beside its keys; none: take them all back.

        Those of the project's own group_vars/lab win over them, so what is set there needs host_vars.
        With a secret among them the file is a vault, since the policy refuses secrets in plain files.
        """
        path = self.group_vars / OVERRIDES
        if not settings:
            path.unlink(missing_ok=True)
            return
        ours = yaml.safe_load((PROJECT / "group_vars" / "lab" / "main.yml").read_text())
        assert not settings.keys() & ours.keys(), "no effect: group_vars/lab/main.yml wins"
        text = "---\n" + yaml.safe_dump(settings)
        if any(name.startswith("vault_") for name in settings) or any(
            field.secret and name in settings for part in PARTS for name, field in variables_of(part).items()
        ):
            text = vault_lib(read_password(self.inventory)).encrypt(text.encode()).decode()
        path.write_text(text)

    def hosts(self, service: str) -> list[str]:
        """The hosts that run a service."""
        return [host.name for host in self.plan.hosts if host.name.startswith(SERVICES[service])]

    def pids(self) -> dict[tuple[str, str], str]:
        """Main process of every service on every host."""
        where = [(host, service) for service in SERVICES for host in self.hosts(service)]

        def process(host: str, service: str) -> str:
            show = ["systemctl", "show", "-p", "MainPID", "--value", f"mt5crs-{service}.service"]
            return self.lab.exec(host, show).stdout.strip()

        with ThreadPoolExecutor(len(where)) as pool:
            return dict(zip(where, pool.map(process, *zip(*where, strict=True)), strict=True))

    def status(self, host: str) -> dict[str, Any]:
        """What the release tool says of a host's services."""
        answer = self.lab.exec(host, ["/usr/local/sbin/mt5crs-release", "status", "--json"]).stdout
        services: dict[str, Any] = json.loads(answer)["services"]
        return services

    def statuses(self) -> Statuses:
        """What the release tool says of every service of every host, all asked at once."""
        hosts = [host.name for host in self.plan.hosts]
        with ThreadPoolExecutor(len(hosts)) as pool:
            answers = zip(hosts, pool.map(self.status, hosts), strict=True)
        return {(host, service): now for host, of in answers for service, now in of.items()}

    def generations(self) -> dict[tuple[str, str], str]:
        """Which generation every service of every host is on."""
        return generations_in(self.statuses())

    def running(self) -> bool:
        """Whether every service of every host is active and confirmed."""
        return running_in(self.statuses())


def generations_in(statuses: Statuses) -> dict[tuple[str, str], str]:
    """Which generation each service is on."""
    return {key: str(now["current"]) for key, now in statuses.items()}


def access_in(statuses: Statuses) -> dict[tuple[str, str], Any]:
    """Who may do what at each service that says so."""
    return {key: now["access"]["list"] for key, now in statuses.items() if now.get("access")}


def running_in(statuses: Statuses) -> bool:
    """Whether each service is active and confirmed."""
    return all(
        now["state"] == "confirmed" and set(now["units"].values()) == {"active"} for now in statuses.values()
    )


def run(program: str, *arguments: str, before: Sequence[str] = (), **environment: str) -> Ran:
    """Run a program of the virtual environment from the project's directory, output and errors together."""
    command = [*before, str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "PYINFRA_PROGRESS": "off", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return Ran(done.returncode, done.stdout)
