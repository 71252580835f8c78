"""Whether the `.env` files of a fleet's hosts can be read by their owner only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from deploy.fleet.inventory import Fleet
from deploy.fleet.services import MACHINES
from deploy.remote import ssh
from mt5crs.operate.env_modes import WANTED

_ON_A_HOST = 'for file in /opt/mt5crs/*/current/.env; do [ ! -e "$file" ] || stat -Lc \'%a %n\' "$file"; done'
_TIMEOUT_S = 20


def readable_by_others_in_the_fleet(fleet: Fleet) -> tuple[int, list[str]]:
    """How many `.env` files the Linux hosts have, and what is wrong with one or could not be looked at.

    All hosts are asked at once, over SSH.
    """
    hosts = [host for host in fleet.in_group(MACHINES) if host not in fleet.in_group("windows")]

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
            if int(mode, 8) != WANTED:
                wrong.append(f"{path} of {host} has mode {int(mode, 8):04o}, must be 0600; deploy again")
    return files, wrong
