"""A host of the fleet under verification, asked over SSH with the inventory's own connection settings."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from deploy.programs import require


@cache
def control_directory() -> str:
    """Directory of this run's shared SSH connections; they close by themselves when nobody asks any more."""
    return tempfile.mkdtemp(prefix="verify-")


PARTS = {"gateway": ("gateway",), "inf": ("reconciler", "strategy"), "hub": ()}


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
    def ssh_arguments(self) -> list[str]:
        return [
            *shlex.split(str(self.variables.get("ansible_ssh_common_args", ""))),
            "-o", "BatchMode=yes",
            "-o", "ControlMaster=auto",
            "-o", "ControlPersist=30",
            "-o", f"ControlPath={control_directory()}/%C",
            "-i", str(self.variables["ansible_ssh_private_key_file"]),
            "-p", str(self.variables.get("ansible_port", 22)),
        ]  # fmt: skip

    def run(self, *argv: str, stdin: str = "", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command as root. What is secret goes through `stdin`, never through `argv`."""
        remote = f"sudo -n -- {shlex.join(argv)}"
        user = self.variables.get("ansible_user", "root")
        return subprocess.run(
            [require("ssh"), *self.ssh_arguments, f"{user}@{self.address}", remote],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def connect(self) -> Host:
        """Return testinfra's host over the same connection, as root; for Windows one that Ansible asks."""
        if self.is_windows:
            # testinfra takes Ansible from PATH.
            os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
            name = f"ansible://{self.name}?ansible_inventory={self.inventory}&force_ansible=true"
            return testinfra.get_host(name)
        user = self.variables.get("ansible_user", "root")
        host = testinfra.get_host(
            f"ssh://{user}@{self.address}:{self.variables.get('ansible_port', 22)}?sudo=true",
            ssh_extra_args=shlex.join(self.ssh_arguments),
        )
        # It would encode the command line of ssh here, paths included, as the host does there: ASCII.
        host.backend._encoding = "utf-8"
        return host
