"""Rolling a whole fleet back: which deployment is undone, on which hosts, and whether that fits; pure.

A fleet goes back by undoing a deployment, not by taking every service a generation back: what that deployment
did not change stays. Each host knows which deployment brought what it runs (`mt5crs-release status`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.rollout.batches import GATEWAY, INF, KINDS, Link, Spoken, fit

_LAST = "~"
"""After every time stamp: what is held is the newest that runs, or will run again."""
Statuses = Mapping[str, Mapping[str, Any]]
Answers = Mapping[str, Mapping[str, Any]]


class NothingToUndoError(ValueError):
    """No deployment can be undone; the text names cause and remedy, and nothing was changed."""


def chosen(statuses: Statuses, named: str | None) -> str:
    """The deployment to undo: the one whose id begins with `named`, or the newest that still runs anywhere.

    Raises NothingToUndoError when there is none, or several begin alike.
    """
    running: dict[str, str] = {}
    for status in statuses.values():
        for now in status.get("services", {}).values():
            if deployment_of(now):
                running[deployment_of(now)] = _LAST if is_held(now) else str(now.get("deployed_at"))
    in_order = sorted(running, key=lambda one: running[one])
    if named is None and in_order:
        return in_order[-1]
    fitting = [one for one in in_order if named and one.startswith(named)]
    if len(fitting) != 1:
        there = ", ".join(reversed(in_order)) or "none"
        why = f"{named!r} names no deployment" if named else "no deployment is recorded"
        raise NothingToUndoError(
            f"{why} whose generations run on these hosts (newest first: {there}); name one of them, or roll "
            "single parts back. Nothing was changed"
        )
    return fitting[0]


def is_held(now: Mapping[str, Any]) -> bool:
    """Whether a service is on its way back in a rollback that nobody has confirmed: it returns from there."""
    return bool(now.get("pending") and now.get("undid"))


def deployment_of(now: Mapping[str, Any]) -> str:
    """The deployment that brought what a service runs, or will run again once it has returned."""
    return str((now["undid"] if is_held(now) else now.get("deployment")) or "")


def generation_of(now: Mapping[str, Any]) -> str:
    """The generation to go with it."""
    return str(now["previous"] if is_held(now) else now["current"])


def require_told(fleet: Fleet, statuses: Statuses) -> None:
    """NothingToUndoError when a Windows gateway said nothing of itself: it must not be left out unnoticed.

    The release tool runs there with the Python that the inventory pins, which a deployment brings.
    """
    hosts = {host for host in fleet.in_group(WINDOWS) if host in fleet.in_group(GATEWAY)}
    silent = ", ".join(host for host, status in statuses.items() if host in hosts and not status)
    if silent:
        raise NothingToUndoError(
            f"what runs on {silent} is not known: nothing was deployed there yet, or "
            "gateway_windows_python_sha256 pins a Python that is not on the host; pin the one that is, "
            "or leave the host out with --limit. Nothing was changed"
        )


def affected(statuses: Statuses, deployment: str) -> dict[str, tuple[str, ...]]:
    """Host → services that run what the deployment brought; hosts without any are left out."""
    found = {
        host: tuple(
            name for name, now in status.get("services", {}).items() if deployment_of(now) == deployment
        )
        for host, status in statuses.items()
    }
    return {host: services for host, services in found.items() if services}


def require_steps(statuses: Statuses, hosts: Iterable[str]) -> None:
    """NothingToUndoError when the release tool of a host is too old to go back step by step."""
    old = [
        host
        for host in hosts
        if any("undid" not in now for now in statuses[host].get("services", {}).values())
    ]
    if old:
        raise NothingToUndoError(
            f"the release tool of {', '.join(old)} is older than this one and cannot go back together with "
            "other hosts; deploy the baseline first (site.yml --tags baseline), which brings it. Nothing was "
            "changed"
        )


def waves(fleet: Fleet, hosts: Sequence[str]) -> list[tuple[str, ...]]:
    """Hosts that move together, the gateways first: who needs them would fail for a second otherwise.

    Nobody's health is waited for in between.
    """
    first = tuple(host for host in hosts if host in fleet.in_group(GATEWAY))
    rest = tuple(host for host in hosts if host not in first)
    return [wave for wave in (first, rest) if wave]


def require_fit(fleet: Fleet, statuses: Statuses, answers: Answers) -> None:
    """OrderError unless every Inf host and its gateway understand each other once all have gone back.

    answers: host → what `undo --dry-run` said.
    """
    fit(_links(fleet, statuses, answers))


def _links(fleet: Fleet, statuses: Statuses, answers: Answers) -> Iterator[Link]:
    for host in statuses:
        gateway = str(fleet.hosts[host].get("fleet_gateway"))
        if host not in fleet.in_group(INF) or gateway not in statuses:
            continue
        for service in KINDS[INF]:
            yield Link(
                f"{service} of {host}",
                gateway,
                _now(statuses, host, service),
                _then(statuses, answers, host, service),
                _now(statuses, gateway, GATEWAY),
                _then(statuses, answers, gateway, GATEWAY),
            )


def _now(statuses: Statuses, host: str, service: str) -> Spoken | None:
    return _spoken(statuses[host].get("services", {}).get(service, {}).get("protocol"))


def _then(statuses: Statuses, answers: Answers, host: str, service: str) -> Spoken | None:
    answer = answers.get(host, {}).get("services", {}).get(service)
    return _now(statuses, host, service) if answer is None else _spoken(answer.get("protocol"))


def _spoken(told: Mapping[str, Any] | None) -> Spoken | None:
    return Spoken(int(told["min"]), int(told["max"])) if told else None


def gives_back(access: str | None) -> bool:
    """Whether access lists go back as well. NothingToUndoError when what was given says neither."""
    if access in (None, "", "back"):
        return access == "back"
    raise NothingToUndoError(
        f"access={access} means nothing; access=back takes the gateways' access lists back as well, and "
        "without it they stay. Nothing was changed"
    )


def access_told(host: str, answer: Mapping[str, Any]) -> list[str]:
    """Who gains and who loses access by an undo on a host, a line each; `answer`: of `undo --dry-run`."""
    told = [entry["access"] for _, entry in outcomes(answer) if entry.get("access")]
    return [
        f"  {host}: {verb} access: {', '.join(access[part])}"
        for access in told
        for part, verb in (("gains", "gives"), ("loses", "takes"))
        if access[part]
    ]


def outcomes(answer: Mapping[str, Any]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """(service, what its rollback answered) of an `undo`."""
    return tuple((str(name), entry) for name, entry in answer.get("services", {}).items())
