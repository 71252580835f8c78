"""Whether the `.env` files of this host, or of a fleet's hosts, can be read by their owner only."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_WANTED = 0o600


def env_files_of_host(env_file: Path) -> list[Path]:
    """The `.env` of every service whose generations lie beside that one's (`…/SERVICE/current/.env`)."""
    found = {env_file.absolute()}
    if len(env_file.absolute().parents) > 2:
        found |= set(env_file.absolute().parents[2].glob("*/current/.env"))
    return sorted(found)


def readable_by_others(path: Path) -> str | None:
    """Name the wrong mode and its remedy; None when it is 0600, or where rights are not modes (Windows).

    OSError when there is no such file.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "posix" or mode == _WANTED:
        return None
    return f"{path} has mode {mode:04o}, must be 0600; deploy again or run `chmod 0600 {path}`"


_ON_A_HOST = 'for file in /opt/mt5crs/*/current/.env; do [ ! -e "$file" ] || stat -Lc \'%a %n\' "$file"; done'
_TIMEOUT_S = 20


def readable_by_others_in_the_fleet(fleet: Fleet) -> tuple[int, list[str]]:
    """How many `.env` files the Linux hosts have, and what is wrong with one or could not be looked at.

    All hosts are asked at once, over SSH.
    """
    from deploy.remote import ssh

    hosts = [host for host in fleet.hosts if host not in fleet.in_group("windows")]

    def look(host: str) -> ssh.Reply:
        return ssh.run(fleet.hosts[host], ["sh", "-c", _ON_A_HOST], timeout_s=_TIMEOUT_S)

    with ThreadPoolExecutor(len(hosts) or 1) as pool:
        replies = dict(zip(hosts, pool.map(look, hosts), strict=True))
    files, wrong = 0, []
    for host, reply in replies.items():
        if reply.status != 0:
            wrong.append(f"the .env files of {host} could not be looked at: {reply.why}")
        for line in reply.output.splitlines() if reply.status == 0 else ():
            mode, _, path = line.partition(" ")
            files += 1
            if int(mode, 8) != _WANTED:
                wrong.append(f"{path} of {host} has mode {int(mode, 8):04o}, must be 0600; deploy again")
    return files, wrong
