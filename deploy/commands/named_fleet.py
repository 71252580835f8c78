"""The fleet that `mt5crs --inventory` names, as its controller knows it: inventory, vault, SSH, audit log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from deploy.commands import hosts
from deploy.commands.env_modes import readable_by_others_in_the_fleet
from deploy.coordination import audit_log
from deploy.coordination.fleet_lock import hub_of
from deploy.fleet.inventory import Fleet, InventoryError, resolve
from deploy.migration import journal
from deploy.remote import ssh
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Chosen, Target
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.settings.schema import SettingsError, load

_PROGRAM = "/usr/local/bin/mt5crs"
_WITHIN_S = 90
"""For a reconciler that starts, which a strategy that stops may have to wait for."""
_HUB_S = 30


def inventory_named() -> Path:
    """The inventory that `mt5crs --inventory` names; only below a group that has seen to it."""
    chosen = click.get_current_context().find_root().obj
    assert isinstance(chosen, Chosen)  # noqa: S101
    return chosen.inventory


def chosen_fleet(words: str) -> Chosen:
    """The fleet that `mt5crs --inventory … <words>` names. UsageError without one."""
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        raise click.UsageError(f"name the fleet: mt5crs --inventory inventory/<environment>.yml {words}")
    return chosen


def fleet_of(inventory: Path) -> Fleet:
    """The resolved fleet."""
    try:
        return resolve(inventory)
    except InventoryError as error:
        raise click.ClickException(str(error)) from None


def of_fleet(fleet: Fleet, operator: str | None) -> list[Target]:
    """Every gateway of the fleet, with the key of `operator` (None: the first of fleet_operators)."""
    hosts = fleet.in_group("gateway")
    if not hosts:
        raise click.UsageError(f"{fleet.inventory} has no host in the group gateway")
    found = []
    for host in hosts:
        variables = fleet.hosts[host]
        names = [str(entry["name"]) for entry in variables["fleet_operators"]]
        name = operator or next(iter(names), "")
        if name not in names:
            known = ", ".join(names) or "none"
            raise click.UsageError(f"fleet_operators of {host} has no {name!r}; there are {known}")
        secret = variables.get("vault_client_secret_keys", {}).get(name)
        if not secret:
            raise click.ClickException(
                f"the vault has no secret key of the operator {name}; "
                f"make it with `python -m deploy.keys --inventory {fleet.inventory}`, then deploy"
            )
        values = {
            "GATEWAY_HOST": str(variables["fleet_address"]),
            "GATEWAY_PORT": str(variables["gateway_port"]),
            "GATEWAY_PUB_PORT": str(variables["gateway_pub_port"]),
            "GATEWAY_PUBLIC_KEY": str(variables["fleet_gateway_public_keys"][host]),
            "CLIENT_NAME": name,
            "CLIENT_SECRET_KEY": str(secret),
        }
        try:
            connection = load(ConnectionSettings, values)
        except SettingsError as error:
            raise click.ClickException(f"{host}: {error}") from None
        formers = tuple(_formers(connection, variables, host, name))
        formers += tuple(_elsewhere(fleet.inventory, host, (connection, *formers)))
        found.append(Target(host, connection, _magics(fleet, host), formers))
    return found


def _formers(
    connection: ConnectionSettings, variables: Mapping[str, Any], host: str, operator: str
) -> Iterator[ConnectionSettings]:
    """The keys of before rotations: the operator's, the gateway's, and what they make together."""
    secrets = str(variables.get("vault_client_former_secret_keys", {}).get(operator, "")).split()
    publics = str(variables.get("fleet_gateway_former_public_keys", {}).get(host, "")).split()
    for public in (connection.gateway_public_key, *publics):
        for secret in (connection.client_secret_key, *secrets):
            one = msgspec.structs.replace(connection, client_secret_key=secret, gateway_public_key=public)
            if one != connection:
                yield one


def _elsewhere(
    inventory: Path, host: str, connections: Sequence[ConnectionSettings]
) -> Iterator[ConnectionSettings]:
    """The same at the other address of a gateway that moves: until its step it listens at the former one."""
    try:
        moving = journal.found(inventory)
    except journal.JournalError:
        return
    if moving is None or moving.host != host:
        return
    for connection in connections:
        other = moving.new if connection.gateway_host == moving.old else moving.old
        yield msgspec.structs.replace(connection, gateway_host=other)


def _magics(fleet: Fleet, gateway: str) -> frozenset[int]:
    inf = (fleet.hosts[host] for host in fleet.in_group("inf"))
    return frozenset(int(of["fleet_magic_number"]) for of in inf if of["fleet_gateway"] == gateway)


class NamedFleet:
    """The :class:`mt5crs.operate.chosen.Controller` of this project."""

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._fleet = fleet_of(chosen.inventory)

    def targets(self) -> list[Target]:
        """Every gateway of the fleet, with the key of whoever acts."""
        return of_fleet(self._fleet, self._chosen.operator)

    def record(self, what: str, told: Mapping[str, Any]) -> str:
        """Add an act to the fleet's audit log; why it is not in there, or nothing."""
        operators = self._fleet.hosts[next(iter(self._fleet.hosts))].get("fleet_operators") or [{}]
        operator = self._chosen.operator or operators[0].get("name")
        known = {name: value for name, value in told.items() if value is not None}
        return audit_log.add(
            audit_log.reach_of(self._fleet),
            [audit_log.act(what, **known, **({"operator": operator} if operator else {}))],
        )

    def wrong_env_modes(self) -> tuple[int, list[str]]:
        """How many `.env` files the hosts have, and what is wrong with one or could not be looked at."""
        return readable_by_others_in_the_fleet(self._fleet)

    def accept(self, host: str | None, reason: str, words: Sequence[str]) -> None:
        """Run `mt5crs accept` on an Inf host, then start its reconciler. ClickException."""
        there = self._fleet.in_group("inf")
        if host not in there:
            raise click.UsageError(
                f"name an Inf host of {self._chosen.inventory}: {', '.join(there) or 'it has none'}"
            )
        variables, service = self._fleet.hosts[host], self._fleet.service_on(host, "reconciler")
        unit = f"mt5crs-{service}.service"
        runs = ssh.run(variables, ["systemctl", "is-active", unit], timeout_s=_WITHIN_S)
        if runs.status is None:
            raise click.ClickException(f"{host}: nothing was accepted: {runs.why}")
        if runs.status == 0:
            raise click.ClickException(
                f"{host}: its reconciler runs, so it agrees with the broker and nothing is to be accepted; "
                "nothing was done"
            )
        asked = [_PROGRAM, "accept", "--state-dir", f"/var/lib/mt5crs/{service}", "--reason", reason, *words]
        accepted = ssh.run(variables, asked, timeout_s=_WITHIN_S)
        if accepted.status != 0:
            raise click.ClickException(f"{host}: nothing was accepted: {accepted.why}")
        acted("broker.accepted", host=host, reason=reason)
        # It refused so often that systemd may have given it up, and would refuse a start for up to a minute.
        ssh.run(variables, ["systemctl", "reset-failed", unit], timeout_s=_WITHIN_S)
        started = ssh.run(variables, ["systemctl", "restart", unit], timeout_s=_WITHIN_S)
        if started.status != 0:
            why = hosts.why_it_ended(variables, unit) or f"{started.why}; see its journal"
            raise click.ClickException(
                f"{host}: accepted for its next start, but its reconciler did not get ready: {why}"
            )
        click.echo(f"{host}: accepted; its reconciler has taken over the broker's state")

    def ask_hub(self, command: Sequence[str]) -> tuple[str, str]:
        """Run a command on the fleet's Hub; what it wrote to each of its outputs. ClickException."""
        hub = hub_of(self._fleet)
        if hub is None:
            raise click.ClickException(
                f"{self._chosen.inventory} has no group hub, so no host keeps records; use --reports reports"
            )
        reply = ssh.run(hub, command, timeout_s=_HUB_S)
        return reply.output, reply.error
