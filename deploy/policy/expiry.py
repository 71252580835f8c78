"""When secrets end: dates that are known, and how old each kind may become. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

MAX_AGE_DAYS, WARN_DAYS = 365, 30
VAULT_PASSWORD = "vault password"  # noqa: S105 -- what the audit log calls it
_KINDS = {
    "gateway_mt5_password": "broker",
    "monitoring_webhook_url": "webhook",
    "monitoring_watchdog_url": "watchdog",
    "monitoring_hub_watch_url": "hub-watch",
    "monitoring_hub_watch_secret": "hub-watch-secret",
    "hub_webhook_url": "signed-webhook",
    "hub_webhook_secret": "webhook-secret",
    "baseline_windows_account_password": "windows-account",
    VAULT_PASSWORD: "vault",
}


@dataclass(frozen=True)
class Due:
    """A secret whose date has passed, or will."""

    name: str
    passed: bool
    text: str


def dates(settings: Iterable[Mapping[str, Any]]) -> dict[str, date]:
    """Secret → its date, by the hosts' `fleet_secret_expiry`; the earliest where they differ."""
    found: dict[str, date] = {}
    for of in settings:
        for name, text in (of.get("fleet_secret_expiry") or {}).items():
            try:
                when = date.fromisoformat(str(text))
            except ValueError:
                continue  # the check of settings says it
            found[str(name)] = min(when, found.get(str(name), when))
    return found


def due(settings: Iterable[Mapping[str, Any]], today: date) -> list[Due]:
    """Every secret that has reached its date, or will within `fleet_secret_warn_days`."""
    every = list(settings)
    warn = max((int(of.get("fleet_secret_warn_days", WARN_DAYS)) for of in every), default=WARN_DAYS)
    return list(_due(dates(every), today, warn))


def _due(of: Mapping[str, date], today: date, warn: int) -> Iterator[Due]:
    for name, when in sorted(of.items()):
        left = (when - today).days
        if left <= 0:
            yield Due(name, True, f"{name} was to be replaced by {when} (fleet_secret_expiry)")
        elif left <= warn:
            yield Due(name, False, f"{name} is to be replaced by {when}, in {left} days")


def max_age(settings: Iterable[Mapping[str, Any]], variable: str) -> int:
    """How many days a secret may be used, by its name in the audit log: what its kind has, else 365."""
    kind = _KINDS.get(variable) or {
        "vault_gateway_secret_keys": "gateway",
        "vault_client_secret_keys": "client",
    }.get(variable.partition(".")[0], "")
    ages = [(of.get("fleet_secret_max_age_days") or {}).get(kind, MAX_AGE_DAYS) for of in settings]
    return min((int(age) for age in ages), default=MAX_AGE_DAYS)
