"""A host of the fleet under verification, asked over SSH with the inventory's own connection settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testinfra
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from deploy.fleet.connection import Connection, connection_of
from deploy.fleet.services import SERVICES
from deploy.fleet.settings import KNOWN_GROUPS
from deploy.remote import ssh


class FleetBackend(BaseBackend):  # type: ignore[misc]
    """testinfra's way to a host: the connection of the deployment, as root."""

    NAME = "fleet"

    def __init__(self, connection: Connection) -> None:
        """Use this connection."""
        super().__init__(connection.host, sudo=connection.become)
        self.connection = connection

    def run(self, command: str, *args: str, **_options: Any) -> CommandResult:
        """Run a command. RuntimeError says why the host could not be asked."""
        line = self.get_command(command, *args)
        reply = ssh.execute(self.connection, ssh.framed(line), timeout_s=_TIMEOUT_S)
        if reply.status is None:
            raise RuntimeError(f"{self.connection.host}: {reply.error}")
        return self.result(reply.status, line.encode(), reply.output.encode(), reply.error.encode())


_TIMEOUT_S = 60.0
PARTS = {
    group: tuple(service.name for service in SERVICES if service.group == group) for group in KNOWN_GROUPS
}


@dataclass(frozen=True, eq=False)
class Node:
    """One host of the inventory: its groups, its resolved variables, and ways to ask it."""

    name: str
    groups: tuple[str, ...]
    inventory: Path
    variables: Mapping[str, Any] = field(repr=False)  # has secrets: never in a failure message

    @property
    def address(self) -> str:
        return str(self.variables["ansible_host"])

    @property
    def is_windows(self) -> bool:
        """Whether it is a Windows host, asked by Ansible's modules (test_windows.py)."""
        return "windows" in self.groups

    @property
    def enforces_firewall(self) -> bool:
        """Whether its rules keep anyone out; not so those of a modelled host (tests/windows_model)."""
        return not self.is_windows or self.variables.get("ansible_shell_type") == "powershell"

    @property
    def services(self) -> tuple[str, ...]:
        """Our services that run on this host, in the order in which they start."""
        return tuple(part for group in PARTS if group in self.groups for part in PARTS[group])

    @property
    def is_machine(self) -> bool:
        """Whether it is a machine of its own, no further instance of Inf on one."""
        return not self.variables["fleet_instance"]

    def installed(self, service: str) -> str:
        """What a service is called there: with the name of the instance, if the host is one."""
        return f"{service}{self.variables['fleet_suffix']}"

    def run(self, *argv: str, stdin: str = "", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command as root. What is secret goes through `stdin`, never through `argv`."""
        reply = ssh.run(self.variables, argv, stdin=stdin, timeout_s=timeout_s)
        status = ssh.LOST if reply.status is None else reply.status
        return subprocess.CompletedProcess(argv, status, reply.output, reply.error)

    def connect(self) -> Host:
        """Return testinfra's host over the same connection, as root; for Windows one that Ansible asks."""
        if self.is_windows:
            # testinfra takes Ansible from PATH.
            os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
            name = f"ansible://{self.name}?ansible_inventory={self.inventory}&force_ansible=true"
            return testinfra.get_host(name)
        return Host(FleetBackend(connection_of(self.variables)))
