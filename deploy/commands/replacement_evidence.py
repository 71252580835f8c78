"""What is looked at before another machine takes a gateway's place: files, backup, hosts and ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.hosts import deploying

if TYPE_CHECKING:
    from deploy.decommission.renaming import Renaming
    from deploy.fleet.inventory import Fleet

ANSWER_WITHIN_S = 20
_PORT_WITHIN_S = 3
_KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
except OSError:
    print("silent")
else:
    print("answers")
"""
_OCCUPIED = """
test ! -e /opt/mt5crs/gateway/current || { echo /opt/mt5crs/gateway; exit 0; }
test "$(systemctl is-active mt5crs-gateway.service)" != active || echo mt5crs-gateway.service
"""


class ReplacingError(click.ClickException):
    """It cannot go on; the text says why, and what was done."""


def own_files(fleet: Fleet, former: str, new: str) -> Iterator[str]:
    """Variables of the former alone, of which the new has none."""
    from deploy.fleet.vault_password import PROJECT

    for directory in dict.fromkeys((fleet.inventory.resolve().parent, PROJECT)):
        for suffix in ("", ".yml", ".yaml", ".json"):
            one = directory / "host_vars" / f"{former}{suffix}"
            if one.exists() and not one.with_name(f"{new}{suffix}").exists():
                yield str(one)


def files_naming(inventory: Path, renaming: Renaming) -> dict[Path, str]:
    """Every file that names the former as a gateway → its text then. ReplacingError: by hand."""
    from deploy.decommission.inventory_file import NotEditableError
    from deploy.decommission.renaming import REFERENCE
    from deploy.fleet.layers import layers
    from deploy.fleet.vault_password import PROJECT

    whole = inventory.resolve()
    named = {
        (PROJECT / layer.file).resolve(): layer.encrypted
        for of in layers(inventory).values()
        for layer in of
        if layer.values.get(REFERENCE) == renaming.former
    }
    found: dict[Path, str] = {}
    for path in (whole, *sorted(named.keys() - {whole})):
        try:
            if named.get(path):
                raise NotEditableError(f"it is encrypted; write {renaming.new} for {REFERENCE} yourself")
            text = path.read_text(encoding="utf-8")
            found[path] = renaming.in_inventory(text) if path == whole else renaming.in_variables(text)
        except (OSError, UnicodeDecodeError, NotEditableError) as error:
            raise ReplacingError(f"{path}: {error}; nothing was changed") from None
    return found


def as_it_would_be(fleet: Fleet, files: Mapping[Path, str]) -> Fleet:
    """The fleet as it would be, keys included; ReplacingError with all that a deployment would refuse."""
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.settings import check
    from deploy.keys import KeysError, would_make
    from deploy.policy.enforcing import verdict_of

    try:
        keys = would_make(fleet.inventory, files[fleet.inventory.resolve()]).after
        after = resolve(fleet.inventory, instead={**files, **keys})
        problems = check(after) or verdict_of(after, identified=False).refusing
    except (InventoryError, KeysError) as error:
        problems = [str(error)]
    if problems:
        raise ReplacingError("; ".join(problems) + "; nothing was changed")
    return after


def backup_of(fleet: Fleet, former: str, name: str | None) -> tuple[dict[str, Any] | None, str]:
    """The newest backup with a copy of the former, or that of this name; or none, and why."""
    from deploy.backup import storing

    try:
        if name:
            one = storing.chosen(fleet, name)
            if former not in one["hosts"]:
                return None, f"{one['id']} has none"
            return one, ""
        fitting = [one for one in storing.listed(fleet)["backups"] if former in one["hosts"]]
    except storing.BackupError as error:
        return None, str(error)
    return (fitting[-1], "") if fitting else (None, "the Hub keeps none")


def look(
    fleet: Fleet,
    after: Fleet | None,
    renaming: Renaming,
    *,
    lost: bool,
    own: list[str],
    backup: Mapping[str, Any] | None,
    not_backup: str,
) -> Any:
    """What hosts say, of which some may stand against it."""
    from deploy.decommission.replacing import Seen
    from deploy.remote import ssh

    there = ssh.run(fleet.hosts[renaming.former], ["true"], timeout_s=ANSWER_WITHIN_S)
    not_new, occupied = None, ""
    if after is not None:
        reply = ssh.run(after.hosts[renaming.new], ["sh", "-c", _OCCUPIED], timeout_s=ANSWER_WITHIN_S)
        not_new = None if reply.status == 0 else reply.why
        occupied = reply.output.strip() if reply.status == 0 else ""
    return Seen(
        former=renaming.former,
        new=renaming.new,
        address=renaming.address,
        not_former=None if there.status == 0 else there.why,
        ports=_ports(fleet, renaming.former) if lost else {},
        not_new=not_new,
        occupied=occupied,
        backup=str(backup["id"]) if backup else None,
        not_backup=not_backup,
        deploying=deploying(fleet),
        own_files=own,
    )


def _ports(fleet: Fleet, former: str) -> dict[str, bool | str]:
    """Who asks → whether anything answers there at the former gateway's port; the controller and its Inf."""
    from deploy.remote import ssh

    of = fleet.hosts[former]
    address, port = str(of["fleet_address"]), str(of["gateway_port"])

    def ask(host: str) -> bool | str:
        words = ["python3", "-c", _KNOCK, address, port, str(_PORT_WITHIN_S)]
        reply = ssh.run(fleet.hosts[host], words, timeout_s=ANSWER_WITHIN_S)
        return reply.output.strip() == "answers" if reply.status == 0 else reply.why

    hosts = [host for host in fleet.in_group("inf") if fleet.hosts[host]["fleet_gateway"] == former]
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        told = dict(zip((f"to {host}" for host in hosts), pool.map(ask, hosts), strict=True))
    try:
        socket.create_connection((address, int(port)), _PORT_WITHIN_S).close()
        return {"from here": True, **told}
    except OSError:
        return {"from here": False, **told}
