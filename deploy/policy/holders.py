"""Who holds which secret of a fleet and what it lets them do, by its settings; and how old each is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.fleet.inventory import Fleet
from deploy.policy.expiry import VAULT_PASSWORD

CONTROLLER = "the controller"
_PASSWORDS = {
    "gateway_mt5_password": "trade the whole account, past every limit",
    "monitoring_webhook_url": "post into the channel of alerts",
    "monitoring_watchdog_url": "pretend that the Hub is alive",
    "hub_webhook_url": "post to the receiver of signed alerts, which believes no post without a signature",
    "hub_webhook_secret": "sign alerts that their receiver believes",
    "review_api_key": "ask the reviewer at our cost",
    "review_fallback_api_key": "ask the fall-back reviewer at our cost",
    "review_signing_key": "sign verdicts that hosts accept",
    "monitoring_hub_watch_url": "pretend that the Hub is dead",
    "monitoring_hub_watch_secret": "sign that the Hub is dead, so that the receiver believes it",
    "baseline_windows_account_password": "log in as the gateway's account",
}
"""Secrets that are no keys, and what who has one may do."""
_GROUP_OF = {
    "gateway_mt5_password": "gateway",
    "monitoring_webhook_url": "hub",
    "monitoring_watchdog_url": "hub",
    "hub_webhook_url": "hub",
    "hub_webhook_secret": "hub",
    "review_api_key": "review",
    "review_fallback_api_key": "review",
    "review_signing_key": "review",
    "monitoring_hub_watch_url": "inf",
    "monitoring_hub_watch_secret": "inf",
    "baseline_windows_account_password": "windows",
}


@dataclass(frozen=True)
class Holder:
    """One secret. held: where its secret part is, besides the vault. variable: its name in the audit log."""

    name: str
    kind: str
    held: str
    may: str
    accepted_from: str
    variable: str


@dataclass(frozen=True)
class Age:
    """Since when a secret has been what it is; `exact` False: at least since then, nobody knows longer."""

    since: datetime
    exact: bool


def holders(fleet: Fleet) -> list[Holder]:
    """Every secret that lets somebody in, and who has it."""
    parts = (_gateways, _clients, _passwords, _operators, _signers)
    return list(dict.fromkeys(holder for part in parts for holder in part(fleet)))


def _gateways(fleet: Fleet) -> Iterator[Holder]:
    for host in fleet.in_group("gateway"):
        may = "be the gateway for its clients"
        yield Holder(host, "gateway key", host, may, "", f"vault_gateway_secret_keys.{host}")


def _clients(fleet: Fleet) -> Iterator[Holder]:
    held = {
        str(client["name"]): host
        for host, variables in fleet.hosts.items()
        for client in variables.get("fleet_clients") or ()
    }
    for host in fleet.in_group("gateway"):
        variables = fleet.hosts[host]
        for client in variables.get("gateway_clients") or ():
            name = str(client["name"])
            where = ", ".join(client.get("addresses") or ()) or "everywhere that the firewall lists"
            variable = f"vault_client_secret_keys.{name}"
            yield Holder(name, "client key", held.get(name, CONTROLLER), _may(client), where, variable)
        for name, client in (variables.get("gateway_legacy") or {}).items():
            yield Holder(str(name), "legacy adapter, no key", "", _may(client), str(client["address"]), "")


def _may(client: Mapping[str, Any]) -> str:
    of = ", ".join(map(str, client.get("magics") or ()))
    return f"{', '.join(client['permissions'])}{f' ({of})' if of else ''}"


def _passwords(fleet: Fleet) -> Iterator[Holder]:
    for host, variables in fleet.hosts.items():
        groups = {group for group, members in fleet.groups.items() if host in members}
        for name, may in _PASSWORDS.items():
            if name.startswith("monitoring_hub_watch_") and host not in (
                variables.get("monitoring_hub_watchers") or ()
            ):
                continue
            if variables.get(name) and _GROUP_OF[name] in groups:
                yield Holder(name, "password", host, may, "", name)


def _operators(fleet: Fleet) -> Iterator[Holder]:
    """Who has a token for the page of the Hub; the inventory has its digest alone, which opens nothing."""
    for host in fleet.in_group("hub"):
        variables = fleet.hosts[host]
        names = ("baseline_ssh_sources", "hub_readers")
        near = [str(each) for name in names for each in variables.get(name) or ()]
        where = ", ".join(dict.fromkeys([*near, str(variables["fleet_address"])]))
        for name in variables.get("hub_operators") or {}:
            may = "halt and acknowledge on the Hub's page"
            yield Holder(str(name), "operator's token", "that person", may, where, "")


def _signers(fleet: Fleet) -> Iterator[Holder]:
    for variables in fleet.hosts.values():
        for name, kind, may in (
            ("baseline_release_signers", "release signer", "sign code that hosts accept"),
            ("baseline_review_signers", "review signer", "sign verdicts that hosts accept"),
        ):
            for line in variables.get(name) or ():
                words = str(line).split()
                comment = " ".join(words[2:]) or words[-1][-12:]
                yield Holder(comment, kind, "not on the fleet", may, "", "")
        for name in variables.get("fleet_phase_signers") or {}:
            yield Holder(str(name), "phase signer", "not on the fleet", "promote phases", "", "")
        key = variables.get("fleet_ssh_key")
        if key:
            yield Holder(str(key), "SSH key", CONTROLLER, "everything, on every host", "", "")


def ages(records: Sequence[Mapping[str, Any]], snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Age]:
    """Secret → its age, by what the audit log recorded."""
    found: dict[str, Age] = {}
    if snapshots:
        began = _time(snapshots[0].get("at"))
        if began is not None:
            names = [*(snapshots[0].get("settings") or ()), VAULT_PASSWORD]
            found = {str(name): Age(began, exact=False) for name in names}
    for record in records:
        when = _time(record.get("at"))
        if record.get("what") == "secret.changed" and when is not None:
            found |= {str(name): Age(when, exact=True) for name in record.get("changed") or ()}
    return found


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
