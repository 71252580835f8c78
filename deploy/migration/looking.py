"""Asks the host that is to move, at the address that it has and at the new one; changes nothing."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.fleet.connection import connection_of
from deploy.migration.decision import Interface, OnHost
from deploy.migration.known_hosts import named
from deploy.remote import ssh

_WITHIN_S = 30
_LOOK = """
set -e
echo "$(cat /etc/machine-id)"
ip -json address show scope global
for peer; do ip -json route get "$peer" 2>/dev/null || echo '[]'; done
"""


def of_host(variables: Mapping[str, Any], peers: Sequence[str]) -> OnHost | str:
    """The host's machine-id, its addresses and what it sends from to each peer; or why that is not known."""
    reply = ssh.run(variables, ["sh", "-c", _LOOK, "look", *peers], timeout_s=_WITHIN_S)
    if reply.status != 0:
        return reply.why
    lines = [line for line in reply.output.splitlines() if line.strip()]
    try:
        machine, told, *routes = lines
        return OnHost(machine.strip(), _interfaces(json.loads(told)), _sources(peers, routes))
    except (ValueError, KeyError, TypeError) as error:
        return f"its answer about its addresses cannot be read ({error})"


def _interfaces(told: Any) -> dict[str, list[Interface]]:
    return {
        str(device["ifname"]): [
            ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}")
            for one in device.get("addr_info") or ()
            if "local" in one
        ]
        for device in told
        if device.get("ifname")
    }


def _sources(peers: Sequence[str], routes: Sequence[str]) -> dict[str, str]:
    found = {}
    for number, peer in enumerate(peers):
        told = json.loads(routes[number]) if number < len(routes) else []
        found[peer] = str(told[0].get("prefsrc") or "no source in its route") if told else "it has no route"
    return found


def at_new(variables: Mapping[str, Any], new: str) -> tuple[str, str]:
    """machine-id of what answers at `new` with the key that the host is known by; or empty, and why not."""
    of = connection_of(variables)
    alias = f"-o HostKeyAlias={shlex.quote(named(of.host, of.port))}"
    # The first word of a kind counts, so ours stands before what the inventory says.
    common = f"{alias} {variables.get('ansible_ssh_args') or ''}".strip()
    asked = {**variables, "ansible_host": new, "ansible_ssh_args": common}
    asked.pop("ansible_ssh_host", None)
    reply = ssh.run(asked, ["cat", "/etc/machine-id"], timeout_s=_WITHIN_S)
    return (reply.output.strip(), "") if reply.status == 0 else ("", reply.why)
