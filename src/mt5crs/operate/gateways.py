"""Which gateways a command is for: the one of an `.env`, or all of a fleet with an operator's key.

`mt5crs --inventory inventory/<environment>.yml halt …` works on the controller: addresses, ports and the key
come from the inventory and its vault. All gateways are asked at once, and one that does not answer keeps no
other from being asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click
import msgspec

import mt5crs
from mt5crs.client.errors import GatewayError, GatewayUnreachableError, KeyRefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.connection import ConnectionSettings, load_connection
from mt5crs.settings.schema import SettingsError, load

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """What `mt5crs` itself was told: the fleet's inventory, and who acts."""

    inventory: Path
    operator: str | None = None


@dataclass(frozen=True, repr=False)
class Target:
    """A gateway and the way to it. `name`: its host in the inventory; empty for the one of an `.env`."""

    name: str
    connection: ConnectionSettings
    magics: frozenset[int] | None = None
    """Magic numbers of the Inf hosts that trade through it; None: not known."""
    formers: tuple[ConnectionSettings, ...] = ()
    """The same with keys of before a rotation, which count there until it is deployed, and, while the gateway
    moves, at its other address."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a gateway said, or why it did not."""

    name: str
    value: T | None
    error: str = ""


def targets(env_file: Path | None, magic: int | None = None) -> list[Target]:
    """The gateways that the command line names.

    magic: only the one through which this magic number is traded. Exits with 2 or 78 and the reason.
    """
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        return [Target("", load_connection(env_file))]
    if env_file is not None:
        raise click.UsageError("--inventory and --env-file are two ways to say the same; name one")
    fleet = fleet_of(chosen.inventory)
    found = of_fleet(fleet, chosen.operator)
    if magic is None:
        return found
    fitting = [target for target in found if magic in (target.magics or ())]
    if not fitting:
        known = ", ".join(str(number) for target in found for number in sorted(target.magics or ()))
        raise click.UsageError(
            f"no Inf host of {chosen.inventory} trades {magic}; there are {known or 'none'}"
        )
    return fitting


def inventory_named() -> Path:
    """The inventory that `mt5crs --inventory` names; only below a group that has seen to it."""
    chosen = click.get_current_context().find_root().obj
    assert isinstance(chosen, Chosen)  # noqa: S101
    return chosen.inventory


def on_the_controller() -> None:
    """Make the project's own modules importable. UsageError where they are not, as on a host."""
    root = Path(mt5crs.__file__).resolve().parents[2]
    if not (root / "deploy" / "fleet" / "inventory.py").is_file():
        raise click.UsageError("--inventory works on the controller, with the project's own mt5crs")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def chosen_fleet(words: str) -> Chosen:
    """The fleet that `mt5crs --inventory … <words>` names. UsageError without one, and on a host."""
    on_the_controller()
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        raise click.UsageError(f"name the fleet: mt5crs --inventory inventory/<environment>.yml {words}")
    return chosen


def fleet_of(inventory: Path) -> Fleet:
    """The resolved fleet; only on the controller, in the project's directory."""
    on_the_controller()
    from deploy.fleet.inventory import InventoryError, resolve

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
    from deploy.migration import journal

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


def ask(of: Sequence[Target], call: Callable[[GatewayClient, ConnectionSettings], T]) -> list[Answer[T]]:
    """Ask every gateway, all at once; a failed call is an answer too.

    Where a key was rotated and that is not deployed yet, the one of before is tried; while a gateway moves,
    its other address: a halt gets through.
    """

    def one(target: Target) -> Answer[T]:
        first, silent = "", set[str]()
        for connection in (target.connection, *target.formers):
            if connection.gateway_host in silent:
                continue
            try:
                with connection.client() as client:
                    return Answer(target.name, call(client, connection))
            except GatewayUnreachableError as error:  # nothing was sent
                first = first or str(error)
                if not isinstance(error, KeyRefusedError):
                    silent.add(connection.gateway_host)
            except GatewayError as error:
                return Answer(target.name, None, str(error))
        return Answer(target.name, None, first)

    with ThreadPoolExecutor(len(of)) as pool:
        return list(pool.map(one, of))


def show(
    answers: Sequence[Answer[T]],
    text: Callable[[T], str],
    *,
    as_json: bool,
    plain: Callable[[T], Any] = lambda value: value,
) -> int:
    """Print what every gateway said; the exit status is 1 when one did not answer.

    As JSON: the answer itself for the one gateway of an `.env`, for a fleet one object by host.
    """
    alone = [answer for answer in answers if not answer.name]
    if as_json:
        told: Mapping[str, Any] | Any = {
            answer.name: {"error": answer.error} if answer.value is None else plain(answer.value)
            for answer in answers
        }
        if alone and alone[0].value is not None:
            told = plain(alone[0].value)
        if not alone or alone[0].value is not None:
            click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    for answer in answers:
        if answer.value is None:
            who = f"{answer.name}: " if answer.name else ""
            click.echo(f"error: {who}{answer.error}", err=True)
        elif not as_json:
            if answer.name:
                click.secho(answer.name, bold=True)
            click.echo(text(answer.value))
    return int(any(answer.value is None for answer in answers))
