"""Which magic numbers an alert halts, by the policy of the fleet. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from mt5crs.hub.alerts import Fired, key_of

Trader = tuple[str, int]
"""A gateway, and a magic number that is traded there."""
LONGEST_REASON = 256
"""What a gateway takes as the reason of a halt."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A halt that is to be in force. `id` is that of its cause: the same cause asks for it once."""

    id: str
    gateway: str
    magic: int
    by: str
    reason: str


def halts(
    fired: Iterable[Fired],
    policy: Collection[str],
    traders: Collection[Trader],
    hosts: Mapping[str, Trader],
    spared: Collection[Trader] = (),
) -> list[Wanted]:
    """What the alerts that fire ask for.

    policy: codes and names of the alerts that halt. traders: all there are. hosts: whom an Inf host trades
    for. spared: those whose orders never reach the broker. An alert about a magic number halts that one,
    about an Inf host the one it trades, about a gateway all that are traded there.
    """
    found = []
    for each in fired:
        if each.state != "firing" or policy_name(each.labels, policy) is None:
            continue
        for gateway, magic in sorted(_concerned(each.labels, traders, hosts) - set(spared)):
            found.append(
                Wanted(
                    id=f"{key_of(each.labels)}@{each.since}@{gateway}@{magic}",
                    gateway=gateway,
                    magic=magic,
                    by="alert",
                    reason=_reason(each, policy),
                )
            )
    return found


def policy_name(labels: Mapping[str, str], policy: Collection[str]) -> str | None:
    """By which of its two names, code or alert name, an alert halts; None if it does not."""
    return next((name for of in ("code", "alertname") if (name := labels.get(of)) in policy and name), None)


def _concerned(
    labels: Mapping[str, str], traders: Collection[Trader], hosts: Mapping[str, Trader]
) -> set[Trader]:
    host = labels.get("host", "")
    if host in hosts:
        return {hosts[host]} & set(traders)
    there = {each for each in traders if each[0] == host}
    # A magic number that the inventory does not have may be one of these under a name of before: all of them.
    return {each for each in there if str(each[1]) == labels.get("magic")} or there


def _reason(alert: Fired, policy: Collection[str]) -> str:
    name = policy_name(alert.labels, policy) or ""
    text = f"alert {name} since {alert.since[:19]}: {alert.summary}"
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
