"""A small fleet with its own vault and keys, for tests that resolve or render; no host is contacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy import keys
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.vault_password import PROJECT

HOSTS = {"hub": ["hub-01"], "inf": ["inf-01", "inf-02"], "gateway": ["gtw-01"]}
SIGNER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA test"
# What a lab takes from `make bundle`; given here so that the tests need no bundle.
EXTRA: dict[str, Any] = {"fleet_bundle": "README.md", "baseline_release_signers": [SIGNER]}


def inventory_text(hosts: dict[str, list[str]] | None = None) -> str:
    """An inventory as `python -m lab up --name …` writes it."""
    children: dict[str, Any] = {}
    number = 10
    for group, names in (hosts or HOSTS).items():
        children[group] = {"hosts": {}}
        for name in names:
            number += 1
            children[group]["hosts"][name] = {"ansible_host": f"10.9.9.{number}"}
    variables = {
        "fleet_environment": "lab",
        "fleet_networks": ["10.9.9.0/24"],
        "fleet_ssh_key": "{{ inventory_dir }}/id_ed25519",
        "fleet_ssh_known_hosts": "{{ inventory_dir }}/known_hosts",
    }
    return json.dumps({"lab": {"children": children, "vars": variables}})


def make_inventory(directory: Path, hosts: dict[str, list[str]] | None = None) -> Path:
    """Inventory with vault password, vault and keys under `directory`."""
    inventory = directory / ".lab" / "unit" / "inventory.yml"
    inventory.parent.mkdir(parents=True)
    inventory.write_text(inventory_text(hosts))
    keys.make(inventory)
    return inventory


TREND = "inf-01-trend"


def add_beside(inventory: Path, **own: Any) -> None:
    """Have TREND, a further Inf, run on the machine of inf-01; it gets keys."""
    text = json.loads(inventory.read_text())
    hosts = text["lab"]["children"]["inf"]["hosts"]
    needed = {"fleet_instance": "trend", "fleet_port_offset": 100, "strategy_memory_percent": 10}
    hosts[TREND] = {"ansible_host": hosts["inf-01"]["ansible_host"], **needed, **own}
    inventory.write_text(json.dumps(text))
    keys.make(inventory)


def make_fleet(directory: Path) -> Fleet:
    """The fleet of `make_inventory`, resolved."""
    return resolve(make_inventory(directory), EXTRA)


def ansible(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ansible` itself on an inventory, on this machine, as the project's playbooks would see it."""
    command = [
        str(Path(sys.executable).with_name("ansible")),
        *("-i", str(inventory), "--playbook-dir", str(PROJECT), "--connection", "local"),
        *("-e", json.dumps(EXTRA), "-e", "ansible_become=false"),
        *("-e", f"ansible_python_interpreter={sys.executable}"),
        *arguments,
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(inventory.parent / "vault-password"),
        "ANSIBLE_DEPRECATION_WARNINGS": "false",
    }
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
