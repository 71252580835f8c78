"""Inventories of labs other than the default one, in the shape of `inventory/lab.yml`."""

from __future__ import annotations

from typing import Any

import yaml

from lab.plan import Plan

PYINFRA = '''"""pyinfra inventory of this lab: exactly what Ansible reads from inventory.yml."""

from deploy.inventory import hosts_of

lab = hosts_of(__file__)
'''
_GROUPS = ("hub", "inf", "gateway")


def render(plan: Plan) -> str:
    """Return the text of the YAML inventory of `plan`. Keys lie beside it."""
    groups: dict[str, Any] = {}
    for group in _GROUPS:
        hosts = {
            host.name: {"ansible_host": host.address} | ({"gateway_platform": "wine"} if host.wine else {})
            for host in plan.hosts
            if host.group == group
        }
        groups[group] = {"hosts": hosts}
    tree = {
        "lab": {
            "children": groups,
            "vars": {
                "fleet_environment": "lab",
                "fleet_networks": [plan.network],
                "fleet_ssh_key": "{{ inventory_dir }}/id_ed25519",
                "fleet_ssh_known_hosts": "{{ inventory_dir }}/known_hosts",
            },
        }
    }
    header = f"# Lab {plan.name!r}, written by `python -m lab up`; the next `up` overwrites it.\n"
    return header + yaml.safe_dump(tree, sort_keys=False, width=110)
