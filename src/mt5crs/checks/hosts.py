"""What the release tools of a fleet's hosts say, asked from the controller, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

_LEFT_OUT = "Windows hosts are not asked here; `site.yml --check` does"
_TIMEOUT_S = 30


def statuses(fleet: Fleet) -> dict[str, dict[str, Any] | str]:
    """Host → its release tool's status (`{}`: no tool there yet), or why it is not known."""
    from deploy.fleet.inventory import WINDOWS

    windows = fleet.in_group(WINDOWS)

    def one(host: str) -> dict[str, Any] | str:
        return _LEFT_OUT if host in windows else _status_of(fleet.hosts[host])

    with ThreadPoolExecutor(max(1, len(fleet.hosts))) as pool:
        return dict(zip(fleet.hosts, pool.map(one, fleet.hosts), strict=True))


def _status_of(variables: Mapping[str, Any]) -> dict[str, Any] | str:
    from deploy.remote import ssh

    reply = ssh.run(variables, ssh.STATUS, timeout_s=_TIMEOUT_S)
    document = reply.document
    return document if reply.status == 0 and document is not None else reply.why
