"""What a changed setting would do to a fleet: whose generation becomes another one. Pure; no host is asked.

A deployment activates exactly those generations anew that differ, so this is what it would restart; what
differs only in settings that services read again is taken over without a restart.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from deploy.fleet.inventory import Fleet
from deploy.fleet.services import NAMES, SERVICES
from deploy.rollout.generation import desired
from deploy.rollout.plan import has_service, settings_digest

BOUND_TO = {service.name: service.bound_to for service in SERVICES if service.bound_to}


@dataclass(frozen=True)
class Impact:
    """What a deployment would activate anew, and hosts whose settings outside of generations differ."""

    services: tuple[tuple[str, str], ...]
    """(host, service), hosts in the inventory's order."""
    hosts: tuple[str, ...]
    live: tuple[tuple[str, str], ...] = ()
    """Those of the services that take the change over without a restart."""
    restarts: tuple[tuple[str, str], ...] = ()
    """What becomes another process: the other services, and what is bound to one of them."""

    @property
    def nothing(self) -> bool:
        """Whether a deployment would do the same as without the change."""
        return not (self.services or self.hosts)


def impact(before: Fleet, after: Fleet) -> Impact:
    """Compare the fleet that is wanted with the one that would be. BundleError when there is no bundle."""
    wanted = {
        (host, name): (desired(name, before.hosts[host]), desired(name, after.hosts[host]))
        for host, name in _services(after)
    }
    changed = tuple(member for member, (now, then) in wanted.items() if now.digest != then.digest)
    kept = {member for member, (now, then) in wanted.items() if now.taken_over_by(then)}
    anew = {*changed} - kept
    restarts = tuple(
        (host, name) for host, name in wanted if (host, name) in anew or (host, BOUND_TO.get(name)) in anew
    )
    live = tuple(member for member in wanted if member in kept and member not in restarts)
    outside = tuple(
        host
        for host in after.hosts
        if settings_digest(before.hosts[host]) != settings_digest(after.hosts[host])
    )
    return Impact(changed, outside, live, restarts)


def identity(fleet: Fleet) -> str:
    """Twelve hexadecimal digits for all that is wanted: code and settings. BundleError without a bundle."""
    wanted = {f"{host} {name}": desired(name, fleet.hosts[host]).digest for host, name in _services(fleet)}
    settings = {host: settings_digest(of) for host, of in fleet.hosts.items()}
    told = json.dumps([fleet.environment, wanted, settings], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _services(fleet: Fleet) -> list[tuple[str, str]]:
    return [(host, name) for host in fleet.hosts for name in NAMES if has_service(fleet, host, name)]
