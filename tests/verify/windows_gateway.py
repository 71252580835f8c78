"""A Windows gateway under verification, asked by testinfra's Ansible backend over the inventory's connection.

Everything asked is read-only, and goes through modules and programs that every Windows has.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from mt5crs_release.systems.windows.rights import ADMINISTRATORS_SID, SYSTEM_SID
from tests.verify.node import Node

ROOT = "C:/ProgramData/mt5crs"
ACCOUNT = "mt5crs"


class WindowsGateway:
    """Ways to ask one host, each answer kept for the run."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._host = node.connect()

    def module(self, module: str, /, **options: Any) -> dict[str, Any]:
        """What a read-only module of `ansible.windows` answers."""
        found: dict[str, Any] = self._host.ansible(
            f"ansible.windows.{module}", json.dumps(options), check=False
        )
        return found

    def run(self, *argv: str) -> str:
        """Standard output of a program; it must succeed."""
        return str(self.module("win_command", argv=list(argv))["stdout"])

    def powershell(self, text: str) -> str:
        """What an expression of PowerShell gives, as text."""
        return self.run("powershell.exe", "-NoProfile", "-NonInteractive", "-Command", text).strip()

    @cached_property
    def status(self) -> dict[str, Any]:
        """What the release tool says of the gateway."""
        archive = str(self.node.variables["gateway_windows_python_sha256"])[:12]
        python = f"{ROOT}/python/{archive}/tools/python.exe"
        answer = self.run(python, f"{ROOT}/bin/mt5crs-release.pyz", "status", "gateway", "--json")
        found: dict[str, Any] = json.loads(answer)["services"]["gateway"]
        return found

    @property
    def generation(self) -> str:
        """Directory of the current generation."""
        return f"{ROOT}/gateway/generations/{self.status['current']}"

    def service(self, name: str) -> dict[str, Any]:
        """A Windows service: state, start_mode, username, path."""
        found = self.module("win_service_info", name=name)["services"]
        assert len(found) == 1, f"there is no service {name}"
        service: dict[str, Any] = found[0]
        return service

    @cached_property
    def readers(self) -> set[str]:
        """SIDs of those who may read secrets."""
        sid = self.powershell(f"(Get-LocalUser -Name '{ACCOUNT}').SID.Value")
        return {SYSTEM_SID, ADMINISTRATORS_SID, sid}

    def rights(self, path: str) -> str:
        """The rights of a file or directory in SDDL."""
        return self.powershell(f"(Get-Acl -LiteralPath '{path}').Sddl")
