"""What the interface shows: plain values for JSON. Pure; None is always "not known", never "none".

Text of brokers and clients is shown with everything that steers a terminal or turns the writing as an escape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from mt5crs.foreign_text import shown_tree
from mt5crs.hub import alerts
from mt5crs.hub.listener import Known
from mt5crs.hub.picture import Picture
from mt5crs.hub.store import finite, plain
from mt5crs.hub.watch import Seen
from mt5crs.phases.profile import Profile, ProfileError, named
from mt5crs.protocol.records import GuardInfo
from mt5crs.protocol.replies import PhaseState
from mt5crs.settings.gateway import Limits

MOST_ROWS = 500
"""Positions, and orders, that one gateway shows; `positions_in_all` says how many there are."""


def shown(value: Mapping[str, Any]) -> dict[str, Any]:
    """Values whose texts are others'."""
    return dict(shown_tree(value))


class Trader(msgspec.Struct, frozen=True):
    """Who trades a magic number by the inventory, and within which limits."""

    host: str
    limits: Limits | None


def gateway(
    name: str,
    known: Known,
    traders: Mapping[int, Trader],
    *,
    now: float,
    today: tuple[float, int] | None,
    today_from_msc: int | None,
    gaps: Sequence[Mapping[str, Any]],
    first_heard: float | None,
    history_from_msc: int | None,
) -> dict[str, Any]:
    """One gateway. today: result and number of the broker's day's trades, None when not known."""
    picture, status = known.picture, known.status
    listening = known.state == "listening"
    view: dict[str, Any] = {
        "name": name,
        "listener": {
            "state": known.state,
            "reason": known.reason,
            "since": known.since,
            "event_age_s": _age(now, known.heard_at),
            "synced_age_s": _age(now, known.synced_at),
            "first_heard": first_heard,
            "history_from_msc": history_from_msc,
            "gaps": list(gaps),
        },
        "current": listening,
        "state": known.gateway_state if listening else None,
        "reason": status.reason if status else None,
        "version": status.version if status else None,
        "up_s": status.uptime_ms / 1000 if status else None,
        "halts": [_halt(each) for each in picture.halts] if picture and listening else None,
        "account": _account(picture, now),
        "today": {"net": today[0], "trades": today[1], "from_msc": today_from_msc} if today else None,
        "magics": list(_magics(known, picture, traders, now)),
        **_rows("positions", picture.positions.values() if picture else None),
        **_rows("orders", picture.orders.values() if picture else None),
        "read_age_s": _age(now, picture.read_at if picture else None),
    }
    return shown(view)


def money(name: str, known: Known, now: float) -> dict[str, Any]:
    """What moves all the time: the account, and when something was last heard."""
    age = _age(now, known.heard_at)
    return shown({"name": name, "event_age_s": age, "account": _account(known.picture, now)})


def day_start_msc(broker_time_msc: int) -> int:
    """Beginning of the broker's day, in its time."""
    return broker_time_msc - broker_time_msc % 86_400_000


def hosts(seen: Seen, listed: Iterable[str]) -> dict[str, Any]:
    """The fleet's hosts, and which of their services Prometheus reaches."""
    up = seen.hosts
    names = sorted({*listed, *(up or ())} - {""})
    return shown(
        {
            "known": up is not None,
            "reason": seen.reason,
            "hosts": {name: (dict(up.get(name, {})) if up is not None else None) for name in names},
            "order_p95_s": dict(seen.latency) if seen.latency is not None else None,
            "refused": None
            if seen.reason or seen.refused is None
            else [
                {"gateway": of, "magic": magic, "outcome": outcome, "count": count}
                for (of, magic, outcome), count in sorted(seen.refused.items())
            ],
        }
    )


def alerts_state(
    seen: Seen, now: float, acknowledged: Mapping[tuple[str, int], Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """`/api/alerts/state`."""
    told = alerts.shown(seen.alerts.values(), seen.silences, seen.left_out, acknowledged)
    head = {"known": not seen.reason, "reason": seen.reason, "age_s": _age(now, seen.asked_at)}
    return shown({**head, **told})


def backups(seen: Seen) -> dict[str, Any]:
    """When the last backup was taken and when one was last restored for a proof, in Unix time."""
    known = seen.backups is not None
    return {
        "known": known,
        "reason": seen.reason,
        **{
            what: seen.backups.get(what) if seen.backups is not None else None for what in ("taken", "proven")
        },
    }


def _account(picture: Picture | None, now: float) -> dict[str, Any] | None:
    if picture is None:
        return None
    identity = picture.identity
    return {
        "login": str(identity.login),
        "server": identity.server,
        "trade_mode": identity.trade_mode,
        "connected": identity.connected,
        "trade_allowed": identity.trade_allowed,
        **plain(picture.account),
        "age_s": _age(now, picture.account_at),
        "broker_time_msc": picture.broker_time_msc,
    }


def _magics(
    known: Known, picture: Picture | None, traders: Mapping[int, Trader], now: float
) -> Iterable[dict[str, Any]]:
    guards = {guard.magic: guard for guard in known.status.guards} if known.status else {}
    for magic in sorted({*guards, *traders}):
        trader = traders.get(magic, Trader("", None))
        guard, phase = guards.get(magic), known.phases.get(magic)
        volume = (
            sum(each.volume for each in list(picture.positions.values()) if each.magic == magic)
            if picture and known.state == "listening"
            else None
        )
        yield {
            "magic": str(magic),
            "host": trader.host or None,
            "dry_run": guard.dry_run if guard else None,
            "breaker_open": guard.breaker_open if guard else None,
            "unresolved": guard.unresolved if guard else None,
            "daily_profit": finite(guard.daily_profit) if guard and guard.daily_profit is not None else None,
            "phase": _phase(phase),
            "gauges": list(_gauges(trader.limits, guard, phase, volume, picture)),
            "age_s": _age(now, known.status_at),
        }


def _phase(phase: PhaseState | None) -> dict[str, Any] | None:
    if phase is None:
        return None
    profile = _profile(phase)
    return {
        "enforced": phase.enforced,
        "profile": phase.profile,
        "phase": phase.phase if phase.enforced else None,
        "title": profile.title if profile else None,
        "trading": phase.trading,
        "why": phase.why,
        "expires_in_s": None if phase.expires_in_ms is None else phase.expires_in_ms / 1000,
        "obstacle": phase.obstacle,
        "limits": msgspec.to_builtins(profile.limits) if profile else None,
        "currency": profile.currency if profile else None,
    }


def _profile(phase: PhaseState) -> Profile | None:
    """The phase's profile as this release has it; None when it has another one, or none."""
    try:
        return named(phase.profile) if phase.enforced else None
    except ProfileError:
        return None


def _gauges(
    limits: Limits | None,
    guard: GuardInfo | None,
    phase: PhaseState | None,
    volume: float | None,
    picture: Picture | None,
) -> Iterable[dict[str, Any]]:
    """How much of each limit is used; `used` None is not known. What is not limited is not listed."""
    profit = guard.daily_profit if guard else None
    loss = None if profit is None else max(0.0, -profit)
    failures = guard.consecutive_failures if guard else None
    if limits is not None:
        yield _gauge("open volume, lots", volume, limits.max_position_volume)
        if limits.max_daily_loss is not None:
            yield _gauge("loss of the day", loss, limits.max_daily_loss)
        if limits.max_consecutive_failures is not None:
            yield _gauge("failures in a row", failures, limits.max_consecutive_failures)
    profile = _profile(phase) if phase else None
    if profile is not None and profile.limits.daily_loss is not None:
        same = picture is not None and picture.account.currency == profile.currency
        yield _gauge("loss of the day, phase", loss if same else None, profile.limits.daily_loss)
    if profile is not None:
        yield _gauge("failures in a row, phase", failures, profile.limits.max_consecutive_failures)
        # What the broker reckons as margin of one magic number, no reply tells.
        yield _gauge(f"margin, phase ({profile.currency})", None, profile.limits.position_limit)


def _gauge(name: str, used: float | None, most: float) -> dict[str, Any]:
    return {"name": name, "used": None if used is None else finite(used), "most": most}


def _halt(halt: Any) -> dict[str, Any]:
    return {**plain(halt), "scope": "fleet" if halt.magic == 0 else "magic"}


def _rows(name: str, records: Iterable[msgspec.Struct] | None) -> dict[str, Any]:
    if records is None:
        return {name: None, f"{name}_in_all": None}
    found = list(records)
    return {name: [plain(each) for each in found[:MOST_ROWS]], f"{name}_in_all": len(found)}


def _age(now: float, at: float | None) -> float | None:
    return None if at is None else round(max(0.0, now - at), 3)
