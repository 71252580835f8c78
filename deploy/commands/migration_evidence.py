"""What is looked at when a host has moved: each link in nine layers, what held before, the kill switch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from deploy.commands.named_fleet import of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.operate.gateways import ask
from mt5crs.protocol import replies, requests

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet
    from deploy.preflight.judging import Decision

_PROGRAM = "/usr/local/bin/mt5crs"
_LINK_S = 90
_AGAIN_S = 3.0
UNCHANGED: Final = ("G-SYS-01", "G-SYS-05", "G-SYS-06")
"""Checks of the go/no-go that have to pass before a move: all hosts answer, and run what is wanted."""
HOLDING: Final = (
    *UNCHANGED,
    *("G-SEC-01", "G-SEC-06", "G-SEC-08", "G-SYS-02"),
    *("G-DAT-01", "G-DAT-02", "G-DAT-04", "G-DAT-05", "G-DAT-06", "G-OPS-05"),
)
"""Those that an address has to do with: what of them held before a move has to hold after it."""
KILL_SWITCH: Final = ("G-DAT-02", "G-SEC-01", "G-SEC-08", "G-DAT-06", "G-OPS-10", "G-OPS-09")
"""Those that tell whether a halt gets through, and what it would meet."""
Layers = dict[str, list[dict[str, str]]]


def links_of(fleet: Fleet, host: str) -> list[str]:
    """Inf hosts whose link to their gateway has to do with a host. Pure."""
    inf = fleet.in_group("inf")
    if host in inf:
        return list(fleet.on_machine(host))
    return [one for one in inf if fleet.hosts[one]["fleet_gateway"] == host]


def links(fleet: Fleet, hosts: Sequence[str]) -> Layers:
    """Inf host → the layers of its link as `mt5crs link` there sees them; one that is broken if it cannot."""
    from deploy.remote import ssh

    def one(host: str) -> list[dict[str, str]]:
        env_file = f"/opt/mt5crs/{fleet.service_on(host, 'strategy')}/current/.env"
        link = [_PROGRAM, "link", "--env-file", env_file, "--json"]
        reply = ssh.run(fleet.hosts[host], link, timeout_s=_LINK_S)
        told = (reply.document or {}).get("findings")
        if reply.status is None or not told:
            return [{"name": "mt5crs link", "verdict": "FAIL", "detail": f"not known: {reply.why}"}]
        return [{name: str(layer[name]) for name in ("name", "verdict", "detail")} for layer in told]

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return dict(zip(hosts, pool.map(one, hosts), strict=True))


def broken(layers: Layers, address: str) -> Iterator[str]:
    """What is wrong with links that have to lead to, or come from, an address. Pure."""
    for host, of in layers.items():
        for layer in of:
            if layer["verdict"] == "FAIL":
                yield f"link of {host}, layer {layer['name']}: {layer['detail']}"
        route = of[0]["detail"] if of else ""
        if of and of[0]["verdict"] == "PASS" and address not in route.replace(",", " ").split():
            yield f"link of {host} does not use {address}: {route}"


def passing(decision: Decision, names: Iterable[str]) -> list[str]:
    """Which of these checks of a go/no-go passed. Pure."""
    wanted = set(names)
    return [one.check.id for one in decision.results if one.check.id in wanted and one.verdict == "PASS"]


def findings(decision: Decision, names: Iterable[str]) -> Iterator[str]:
    """What these checks of a go/no-go found. Pure."""
    wanted = set(names)
    for one in decision.results:
        if one.check.id in wanted and one.verdict != "PASS":
            yield from (f"{each.scope}: {each.text} ({one.check.id})" for each in one.findings)


def checklist(decision: Decision, inventory: str) -> list[dict[str, str]]:
    """The kill switch: what was seen of it, and the command. Pure."""
    states = {"PASS": "good", "WARN": "warning", "FAIL": "bad"}
    found = []
    for name in KILL_SWITCH:
        one = next((one for one in decision.results if one.check.id == name), None)
        if one is None:
            found.append({"state": "unknown", "what": name, "told": "it was not looked at"})
            continue
        unknown = any(each.unknown for each in one.findings)
        told = "; ".join(f"{each.scope}: {each.text}" for each in one.findings)
        state = "unknown" if unknown else states[one.verdict]
        found.append({"state": state, "what": f"{one.check.title} ({name})", "told": told or "so it is"})
    command = f'mt5crs --inventory {inventory} halt --reason "…"'
    found.append({"state": "command", "what": "No order any more, everywhere", "told": command})
    return found


def until_good(look: Callable[[], list[str]], within_s: float, again_s: float = _AGAIN_S) -> list[str]:
    """Look until nothing is wrong any more; what still is when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        wrong = look()
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(again_s)


# ---- what was traded meanwhile ----


def broker_times(fleet: Fleet, operator: str | None) -> dict[str, int]:
    """Gateway → its broker's time, of those that say it."""

    def now(client: GatewayClient, _connection: ConnectionSettings) -> int:
        return client.call(requests.AccountQuery, replies.AccountState, magic=0).time_msc

    answers = ask(of_fleet(fleet, operator), now)
    return {answer.name: answer.value for answer in answers if answer.value is not None}


def quiet(
    fleet: Fleet, operator: str | None, hosts: Sequence[str], began_msc: Mapping[str, int]
) -> dict[str, Any]:
    """`MAGIC on HOST` → longest time without a deal since then, by the broker's times; or why not known."""
    from deploy.migration.page import pauses

    found: dict[str, Any] = {}
    targets = {target.name: target for target in of_fleet(fleet, operator)}
    for host in hosts:
        gateway, magic = str(fleet.hosts[host]["fleet_gateway"]), int(fleet.hosts[host]["fleet_magic_number"])
        name = f"{magic} on {host}"
        if gateway not in began_msc:
            found[name] = f"{gateway} did not say when it began"
            continue
        times = _deals(targets[gateway], magic, began_msc[gateway])
        found[name] = times if isinstance(times, str) else pauses(times[0], began_msc[gateway], times[1])
    return {"value": found}


def _deals(target: Target, magic: int, since_msc: int) -> tuple[list[int], int] | str:
    def look(client: GatewayClient, _connection: ConnectionSettings) -> tuple[list[int], int]:
        times, since, complete, now = list[int](), since_msc, False, since_msc
        while not complete:
            page = client.call(
                requests.HistoryQuery, replies.HistoryState, magic=magic, since_msc=since, limit=1000
            )
            times += [deal.time_msc for deal in page.deals]
            newest = max((deal.time_msc for deal in page.deals), default=since)
            complete, now = page.complete or newest == since, page.time_msc
            since = newest
        return times, now

    (answer,) = ask([target], look)
    return answer.error if answer.value is None else answer.value


def as_json(document: Mapping[str, Any]) -> str:
    """A report as it is kept."""
    return json.dumps(document, indent=2)
