"""A backup before a deployment: what it says, and whether the deployment may begin without it."""

from __future__ import annotations

from collections.abc import Collection

from deploy.backup import storing
from deploy.backup.copies import CopyError
from deploy.backup.storing import BackupError
from deploy.fleet.inventory import Fleet
from deploy.fleet.vault_password import VaultPasswordMissingError

_REMEDY = (
    "mend it, or deploy all the same with fleet_backup_before_deploy: warn (docs/backup.md). "
    "Nothing was changed"
)


def backed_up(fleet: Fleet, hosts: Collection[str], who: str) -> tuple[list[str], str]:
    """Lines to be said, and why the deployment must not begin; empty: it may.

    hosts: those of the run; one of them that is not in the backup counts as none. What to do then says
    `fleet_backup_before_deploy` of the first of them.
    """
    wanted = str(fleet.hosts[next(iter(hosts))]["fleet_backup_before_deploy"]) if hosts else "none"
    if wanted == "none":
        return [], ""
    said = []
    try:
        made = storing.run(fleet, who)
    except (BackupError, CopyError, VaultPasswordMissingError) as error:
        why = f"no backup was made: {error}"
    else:
        size = sum(of["bytes"] for of in made["hosts"].values()) / 1e6
        said.append(f"backup {made['id']}: {len(made['hosts'])} hosts, {size:.1f} MB, {made['seconds']} s")
        of_run = {host: reason for host, reason in made["missing"].items() if host in hosts}
        others = {host: reason for host, reason in made["missing"].items() if host not in hosts}
        said += [f"{host} is not in the backup: {reason}" for host, reason in others.items()]
        why = "; ".join(f"{host} is not in the backup: {reason}" for host, reason in of_run.items())
    if not why:
        return said, ""
    if wanted == "stop":
        return said, f"{why}; {_REMEDY}"
    return [*said, f"warning: {why}; the deployment goes on (fleet_backup_before_deploy)"], ""
