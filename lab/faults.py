"""What goes wrong with machines and lines: reboot, power loss, cut connections. For tests and for drills.

Cuts are made on the machine's bridge, outside of the hosts: a host's own firewall knows nothing of them and
cannot lift them, and they outlast its reboot.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from lab.errors import LabError
from lab.handle import BOOT_TIMEOUT_S, Lab, wait_until
from lab.machine import program
from lab.plan import Plan
from lab.podman import last_line

CONTROLLER = "controller"
NFT_TIMEOUT_S = 10.0


def table_name(lab: str) -> str:
    """Name of the nftables bridge table that holds a lab's cuts."""
    return "mt5crs_lab_" + lab.replace("-", "_")


def cut_ruleset(lab: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return the nft script that drops all IPv4 packets, both ways, between the addresses of each pair.

    Cuts that are already there stay.
    """
    table = table_name(lab)
    elements = ", ".join(f"{a} . {b}, {b} . {a}" for a, b in pairs)
    hooks = "".join(
        f"add chain bridge {table} {hook} {{ type filter hook {hook} priority 0; policy accept; }}\n"
        f"flush chain bridge {table} {hook}\n"
        f"add rule bridge {table} {hook} ether type ip ip saddr . ip daddr @cut drop\n"
        for hook in ("input", "forward", "output")
    )
    return (
        f"add table bridge {table}\n"
        f"add set bridge {table} cut {{ type ipv4_addr . ipv4_addr; }}\n"
        f"{hooks}"
        f"add element bridge {table} cut {{ {elements} }}\n"
    )


def cut_pairs(plan: Plan, host: str, peers: Iterable[str]) -> list[tuple[str, str]]:
    """Return the address pairs that part `host` from `peers`; no peers means all other hosts.

    `controller` as a peer is the machine that deploys. LabError for unknown hosts, or a host and itself.
    """
    own = _address(plan, host)
    others = list(peers) or [other.name for other in plan.hosts if other.name != host]
    if host in others:
        raise LabError(f"{host} cannot be cut off from itself: name another host, or {CONTROLLER}")
    return [(own, _address(plan, other)) for other in others]


def _address(plan: Plan, name: str) -> str:
    return plan.controller_address if name == CONTROLLER else plan.host(name).address


def _nft(script: str) -> None:
    done = subprocess.run(
        [program("nft"), "-f", "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=NFT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"nft refused the cut ({last_line(done.stderr)}): the kernel needs nftables for bridges "
            "(CONFIG_NF_TABLES_BRIDGE)"
        )


def cut(lab: Lab, host: str, *peers: str) -> None:
    """Drop all packets between `host` and `peers` (none given: every other host), until `heal`.

    Open connections are not reset: they go silent, as when a cable is pulled.
    """
    _nft(cut_ruleset(lab.plan.name, cut_pairs(lab.plan, host, peers)))


def heal(name: str) -> None:
    """Lift every cut in the lab called `name`."""
    table = table_name(name)
    # `add` first, so that deleting works whether or not there was a cut.
    _nft(f"add table bridge {table}\ndelete table bridge {table}\n")


def reboot(lab: Lab, host: str, *, hard: bool = False, timeout_s: float = BOOT_TIMEOUT_S) -> None:
    """Reboot a host and wait until it can be logged in to again.

    `hard` is a power cut: nothing is stopped in order, nothing is synced. LabError after `timeout_s`.
    """
    container = lab.container(host)
    before = lab.boot_id(host)
    if hard:
        kill(lab, host)
        lab.podman.run("start", container, timeout_s=timeout_s)
    else:
        lab.podman.run("restart", container, timeout_s=timeout_s)
    wait_until(lambda: lab.boot_id(host) not in (None, before), timeout_s, f"the reboot of {host}")
    lab.wait_ready(host, timeout_s)


def kill(lab: Lab, host: str) -> None:
    """Take the power away from a host. It stays down until `start`."""
    container = lab.container(host)
    if lab.podman.containers(lab.plan.name)[container]["State"] == "running":
        lab.podman.run("kill", "--signal", "KILL", container)
    wait_until(
        lambda: lab.podman.containers(lab.plan.name)[container]["State"] != "running",
        10.0,
        f"the end of {host}",
    )


def start(lab: Lab, host: str, *, timeout_s: float = BOOT_TIMEOUT_S) -> None:
    """Switch a host on (nothing happens if it is) and wait until it can be logged in to."""
    lab.podman.run("start", lab.container(host), timeout_s=timeout_s)
    lab.wait_ready(host, timeout_s)
