"""What a roll-out does to those who trade: restarts, who gains or loses access, positions without a client.

From the plan and what the hosts said; pure. What is not known is called so, never none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.fleet.services import SERVICES, Entry
from deploy.rollout.batches import GATEWAY, INF
from deploy.rollout.generation import Shadow
from deploy.rollout.plan import NOTHING, Plan
from mt5crs_release.desired import access_list
from mt5crs_release.desired.access_list import AccessList

Member = tuple[str, str]
"""(host, service)"""
STRATEGY = "strategy"
Statuses = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Held:
    """What a gateway's account holds: open positions and working orders, both by magic number."""

    positions: Mapping[int, int]
    orders: Mapping[int, int]


@dataclass(frozen=True)
class Leaving:
    """Magic numbers that no client may trade any more at a gateway, each with who trades it now."""

    gateway: str
    magics: Mapping[int, tuple[str, ...]]


def leaving(plan: Plan, statuses: Statuses) -> tuple[Leaving, ...]:
    """Magic numbers that lose their last client: changed, or their host left the inventory or the gateway."""
    found = []
    for gateway, now, wanted in _lists(plan, statuses):
        if now is not None:
            then = _traded(wanted)
            gone = {magic: names for magic, names in _traded(now).items() if magic not in then}
            if gone:
                found.append(Leaving(gateway, gone))
    return tuple(found)


def shown(plan: Plan, statuses: Statuses, held: Mapping[str, Held | str]) -> list[str]:
    """The consequences in lines for people.

    held: gateway → what its account holds, or why that is not known; of those that :func:`leaving` names.
    """
    restarts = _restarts(plan)
    lines = [f"  restarts   {text}" for text in _together(restarts)]
    lines += [f"  live       {text}: no restart" for text in _together(_taken_over(plan, restarts))]
    lines += [f"  shadow     {text}" for text in _shadows(plan)]
    if plan.both_keys:
        hosts = ", ".join(plan.both_keys)
        lines.append(
            f"  keys       {hosts}: first, since a gateway gets another; until confirmed both are taken"
        )
    for gateway, now, wanted in _lists(plan, statuses):
        lines += [f"  access     {gateway} {text}" for text in _access(now, wanted)]
    for left in leaving(plan, statuses):
        holds = held.get(left.gateway, "it was not asked")
        lines += [
            f"  positions  {left.gateway}: magic number {magic} loses {' and '.join(names)}; "
            + _holds(holds, magic)
            for magic, names in sorted(left.magics.items())
        ]
    return ["consequences:", *lines] if lines else []


def _lists(plan: Plan, statuses: Statuses) -> Iterator[tuple[str, AccessList | None, AccessList]]:
    """(gateway, list in force, list wanted) of those to be activated; None: what is in force is not known."""
    for (host, service), work in plan.work.items():
        if service != GATEWAY or not work.todo.activate:
            continue
        specification = json.loads(work.want.specification)
        wanted = access_list.parse(specification["files"][specification["access"]]["content"])
        now = statuses[host].get("services", {}).get(GATEWAY, {})
        if not now.get("current"):
            yield host, access_list.empty(), wanted
        else:
            yield host, (now.get("access") or {}).get("list"), wanted


def _restarts(plan: Plan) -> list[Member]:
    """What becomes another process, also what goes down and up with another one."""
    activated = {member for member, work in plan.work.items() if work.todo.activate and not work.todo.live}
    return [
        (host, one.name)
        for host in dict.fromkeys(host for host, _ in plan.work)
        for one in SERVICES
        if (host, one.name) in activated or _goes_along(plan, host, one, activated)
    ]


def _taken_over(plan: Plan, restarts: Collection[Member]) -> list[Member]:
    """What takes its new generation over as it is."""
    return [member for member, work in plan.work.items() if work.todo.live and member not in restarts]


def _shadows(plan: Plan) -> Iterator[str]:
    """What happens before a new strategy trades, and how long that takes; hosts with the same together."""
    hosts: dict[Shadow, list[str]] = {}
    for host, terms in plan.shadows.items():
        if plan.observed.get(host, {}).get(STRATEGY, NOTHING) != NOTHING:
            hosts.setdefault(terms, []).append(host)
    for terms, of in hosts.items():
        steps = sum(1 for step in plan.steps if step.kind == INF and set(step.hosts) & set(of))
        last = f"; {steps} steps, {steps * terms.window_s} s in all" if steps > 1 else ""
        yield (
            f"the new strategy on {', '.join(of)} runs beside the old one for {terms.window_s} s first, and "
            f"its orders go nowhere{last}; the fleet's lock is held meanwhile"
        )
        if terms.promotion == "rule":
            yield (
                f"it goes on if {terms.agreement_percent:g} % of at least {terms.least_decisions} decisions "
                "agree, and all that this run did is taken back otherwise"
            )
        else:
            yield (
                "it goes on if somebody promotes it meanwhile (`mt5crs --inventory … shadow promote`), and "
                "all that this run did is taken back otherwise"
            )


def _together(members: Iterable[Member]) -> Iterator[str]:
    """`reconciler, strategy on inf-01, inf-02`: hosts with the same services together."""
    services: dict[str, list[str]] = {}
    for host, name in members:
        services.setdefault(host, []).append(name)
    hosts: dict[str, list[str]] = {}
    for host, names in services.items():
        hosts.setdefault(", ".join(names), []).append(host)
    return (f"{names} on {', '.join(of)}" for names, of in hosts.items())


def _goes_along(plan: Plan, host: str, service: Entry, activated: Collection[tuple[str, str]]) -> bool:
    """Whether a service that stays on its generation restarts with one that it is bound to."""
    runs = plan.observed.get(host, {}).get(service.name, NOTHING) != NOTHING
    return runs and (host, service.bound_to) in activated


def _access(now: AccessList | None, wanted: AccessList) -> Iterator[str]:
    if now is None:
        yield "does not say whom it lets in now, so who gains or loses access is not known"
        return
    if now == access_list.empty():
        return
    found = access_list.changes(now, wanted)
    for_good = access_list.changes(now, access_list.narrowed(now, wanted)).loses
    until = [text for text in found.loses if text not in for_good]
    if found.gains:
        yield f"gives: {', '.join(found.gains)}"
    if for_good:
        yield f"takes, also if the deployment fails: {', '.join(for_good)}"
    if until:
        yield f"takes once it is confirmed: {', '.join(until)}"
    if found.replaced:
        yield (
            f"refuses the former key or address of {', '.join(found.replaced)} from then on; a rollback of "
            "the fleet needs access=back"
        )


def _traded(access: AccessList) -> dict[int, tuple[str, ...]]:
    """Magic number → who may trade it."""
    found: dict[int, tuple[str, ...]] = {}
    for part in ("clients", "legacy"):
        for name, entry in sorted(access[part].items()):
            for magic in entry["magics"] if "trade" in entry["permissions"] else ():
                found[int(magic)] = (*found.get(int(magic), ()), name)
    return found


def _holds(held: Held | str, magic: int) -> str:
    if isinstance(held, str):
        return f"whether it holds positions is not known ({held})"
    positions, orders = held.positions.get(magic, 0), held.orders.get(magic, 0)
    if not positions and not orders:
        return "it holds no positions and no working orders"
    return (
        f"ITS {_counted(positions, 'OPEN POSITION')} AND {_counted(orders, 'WORKING ORDER')} ARE LEFT TO "
        "NOBODY: close them first, or give the magic number to another host"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'S'}"
