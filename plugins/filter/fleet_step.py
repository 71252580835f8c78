"""Filters that say which hosts a play is for: those that have something to do, so that nobody else is asked.

    hosts: "{{ (hostvars | default({}) | fleet_step('inf')).hosts }}"
    hosts: "{{ hostvars | default({}) | fleet_work('reconciler', 'strategy') }}"

`plan_rollout` or `plan_undo` has noted on every host of the run what is to be done; the tasks of the role
`release` note what waits for its confirmation and what has failed. A play without anything to do has no host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HostVars = Mapping[str, Mapping[str, Any]]
NO_HOST = "all:!all"
NOBODY = {"hosts": NO_HOST, "serial": [1]}
"""A play needs a pattern and a size also when it has no host."""


def fleet_step(hostvars: HostVars, kind: str) -> Mapping[str, Any]:
    """`hosts` and `serial` of a kind of step: `gateway`, `inf`, `inf_first`, `hub`, `review`,
    `monitoring`, `undo`.
    """
    batches: Mapping[str, Mapping[str, Any]] = _plan(hostvars).get("batches", {})
    return batches[kind] if kind in batches and batches[kind]["hosts"] else NOBODY


def fleet_work(hostvars: HostVars, *services: str) -> list[str] | str:
    """Hosts on which the plan has something to do for one of the services."""
    busy: Mapping[str, list[str]] = _plan(hostvars).get("busy", {})
    return _pattern(host for host in hostvars if any(host in busy.get(name, ()) for name in services))


def fleet_lacking(hostvars: HostVars) -> list[str] | str:
    """Hosts that lack a bundle."""
    lacking: Mapping[str, Any] = _plan(hostvars).get("lacking", {})
    return _pattern(host for host in hostvars if host in lacking)


def fleet_waiting(hostvars: HostVars, *services: str) -> list[str] | str:
    """Hosts on which this run has activated one of the services: it waits, or was confirmed since."""
    return _pattern(
        host
        for host, known in hostvars.items()
        if any(name in known.get("release_provisional", {}) for name in services)
    )


def fleet_failed(hostvars: HostVars, *services: str) -> list[str] | str:
    """Once anything has failed: hosts where one of the services has to go back; without services, all those
    that have changed or failed.
    """
    if not any("release_failure" in known for known in hostvars.values()):
        return NO_HOST
    if services:
        return fleet_waiting(hostvars, *services)
    told = ("release_failure", "release_provisional")
    return _pattern(host for host, known in hostvars.items() if any(name in known for name in told))


def _plan(hostvars: HostVars) -> Mapping[str, Any]:
    plans = (known["fleet_plan"] for known in hostvars.values() if "fleet_plan" in known)
    plan: Mapping[str, Any] = next(plans, {})
    return plan


def _pattern(hosts: Any) -> list[str] | str:
    return list(hosts) or NO_HOST


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name → function."""
        return {
            "fleet_step": fleet_step,
            "fleet_work": fleet_work,
            "fleet_lacking": fleet_lacking,
            "fleet_waiting": fleet_waiting,
            "fleet_failed": fleet_failed,
        }
