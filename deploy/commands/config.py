"""`mt5crs --inventory … config`: where settings come from, what a change would restart, what differs.

Works on the controller and changes nothing. `impact` asks gateways for positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.commands.config_drift import drift
from deploy.commands.config_exchange import export, import_
from deploy.commands.config_history import history, rollback
from deploy.commands.named_fleet import chosen_fleet, fleet_of, inventory_named, of_fleet
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.connection import ConnectionSettings, json_option
from mt5crs.operate.gateways import ask
from mt5crs.operate.report import table
from mt5crs.protocol import replies
from mt5crs.settings.schema import instead

if TYPE_CHECKING:
    from deploy.fleet.inventory import Fleet

SAME, DIFFERS = 0, 2
_WIDTH = 60


@click.group()
def config() -> None:
    """Explain settings: where a value comes from, what changing it would do.

    On the controller: `mt5crs --inventory inventory/<environment>.yml config explain inf-01 gateway_port`.
    """
    chosen_fleet("config …")


config.add_command(drift)
config.add_command(history)
config.add_command(rollback)
config.add_command(export)
config.add_command(import_)


@config.command()
@click.argument("host")
@click.argument("key", required=False)
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Instead: what deploying with this on HOST would do, as `config impact --host HOST` tells it.",
)
@json_option
@click.pass_context
def explain(
    context: click.Context, host: str, key: str | None, changes: tuple[str, ...], as_json: bool
) -> None:
    """Show where HOST has a setting from: the value that wins and every one that loses, with file and line.

    Without KEY all settings of the host. Secrets are never shown.
    """
    if changes:
        context.invoke(impact, changes=changes, host=host, as_json=as_json)
    from deploy.fleet import layers
    from deploy.fleet.inventory import InventoryError

    fleet = fleet_of(inventory_named())
    _require(host, fleet.hosts, "host", str(fleet.inventory))
    try:
        of_all = layers.layers(inventory_named())
        of = of_all[host]
    except InventoryError as error:
        raise click.ClickException(str(error)) from None
    names = layers.names(of)
    if key is not None:
        _require(key, names, "setting", host)
    histories = [layers.history(of, name) for name in ([key] if key else names)]
    values = layers.shown(of, fleet.hosts[host])
    if as_json:
        told = [
            {
                "name": found[0].name,
                "value": values[found[0].name],
                "live": _live(fleet, host, found[0].name),
                **({"restarts": _restarts(fleet, of_all, host, key)} if key else {}),
                "layers": list(map(asdict, found)),
            }
            for found in histories
        ]
        click.echo(json.dumps(told[0] if key else told))
        return
    if key is None:
        rows = [
            (
                found[0].name,
                _short(values[found[0].name]),
                found[0].kind,
                found[0].origin,
                f"{len(found) - 1}",
            )
            for found in histories
        ]
        click.echo(table(("SETTING", "VALUE", "LAYER", "WHERE", "OVERRIDES"), rows))
        return
    (found,) = histories
    click.echo(f"{key} on {host} is {values[key]}")
    rows = [
        ("wins" if n == 0 else "loses", one.kind, one.owner, one.origin, one.value)
        for n, one in enumerate(found)
    ]
    click.echo(table(("", "LAYER", "OF", "WHERE", "WRITTEN"), rows))
    click.echo(f"why: {layers.RULE}" if len(found) > 1 else "why: no other layer sets it")
    click.echo(_consequence(fleet, of_all, host, key))


def _consequence(fleet: Fleet, layers: Mapping[str, Any], host: str, key: str) -> str:
    """What a change where the setting is written would restart, and where."""
    if _live(fleet, host, key):
        return "changing it restarts nothing: what runs reads it again, or only the controller uses it"
    ask = f"`config impact {key}=VALUE`"
    found = _restarts(fleet, layers, host, key)
    if found is None:
        return f"what changing it restarts: {ask}"
    if not found:
        return f"changing it there restarts nothing ({ask} tells it for a value)"
    where: dict[str, list[str]] = {}
    for member, service in found:
        where.setdefault(service, []).append(member)
    told = "; ".join(f"{service} on {', '.join(hosts)}" for service, hosts in where.items())
    return f"changing it there restarts {told} (positions they concern: {ask})"


def _restarts(
    fleet: Fleet, layers: Mapping[str, Any], host: str, key: str
) -> Sequence[tuple[str, str]] | None:
    """(host, service) that another value restarts, on all hosts that have it from there; None: not known."""
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.layers import history
    from deploy.fleet.settings import declared
    from deploy.rollout.generation import BundleError
    from deploy.rollout.impact import impact as compare
    from mt5crs.settings.schema import another

    field = declared(key)
    value = another(field, fleet.hosts[host].get(key)) if field is not None else None
    if value is None or fleet.unresolved:
        return None
    origin = history(layers[host], key)[0].origin
    same = [name for name, of in layers.items() if (found := history(of, key)) and found[0].origin == origin]
    try:
        return compare(fleet, resolve(fleet.inventory, None, {name: {key: value} for name in same})).restarts
    except (InventoryError, BundleError):
        return None


def _live(fleet: Fleet, host: str, name: str) -> bool:
    """Whether a change of this setting is taken over by what runs; Windows services are restarted for it."""
    from deploy.fleet.inventory import WINDOWS
    from deploy.fleet.settings import declared

    field = declared(name)
    return field is not None and field.live and host not in fleet.in_group(WINDOWS)


@config.command()
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE…")
@click.option("--host", help="The change is for this host alone; without it for every host (as -e is).")
@json_option
def impact(changes: Sequence[str], host: str | None, as_json: bool) -> None:
    """Tell what deploying with KEY=VALUE would restart, and which positions that concerns. Changes nothing.

    VALUE is read as YAML. Compared with what the inventory wants now, not with what runs: `--dry` does that.
    Exit status 0: it would restart nothing and set up no host otherwise; 2: it would.
    """
    from deploy.fleet.inventory import InventoryError, resolve
    from deploy.fleet.settings import check
    from deploy.rollout.generation import BundleError
    from deploy.rollout.impact import impact as compare

    before = fleet_of(inventory_named())
    values = dict(_change(word) for word in changes)
    if host is not None:
        _require(host, before.hosts, "host", str(before.inventory))
    known = sorted({name for of in before.hosts.values() for name in of})
    for name in values:
        _require(name, known, "setting", str(before.inventory))
    try:
        after = resolve(inventory_named(), None if host else values, {host: values} if host else None)
        problems = check(after)
        if problems:
            raise click.ClickException("a deployment would refuse it:\n  " + "\n  ".join(problems))
        found = compare(before, after)
    except (InventoryError, BundleError) as error:
        raise click.ClickException(str(error)) from None
    affected = tuple(dict.fromkeys([name for name, _ in found.restarts]))
    books = books_of(before, affected)
    if as_json:
        told = {
            "services": found.services,
            "restarts": found.restarts,
            "live": found.live,
            "hosts": found.hosts,
            "positions": books,
        }
        click.echo(json.dumps(told))
    elif found.nothing:
        click.echo("nothing on any host: no service would be activated anew, no host set up otherwise")
    else:
        rows = [
            (name, *(_services(of, name) for of in (found.restarts, found.live)))
            for name in before.hosts
            if name in {*(host for host, _ in (*found.services, *found.restarts)), *found.hosts}
        ]
        click.echo(table(("HOST", "RESTARTED", "WITHOUT A RESTART"), rows))
        for name in found.hosts:
            click.echo(f"{name}: settings of the host itself differ, outside of any generation")
        for name, text in books.items():
            click.echo(f"{name}: {text}")
    raise SystemExit(DIFFERS if found.restarts or found.hosts else SAME)


def _services(members: Sequence[tuple[str, str]], host: str) -> str:
    return ", ".join(service for of, service in members if of == host) or "nothing"


@config.command()
@click.argument("other", type=click.Path(path_type=Path))
@json_option
def diff(other: Path, as_json: bool) -> None:
    """Show which settings have other values in the environment of the inventory OTHER.

    A host's own settings, such as its address, are left out where hosts differ among themselves. Exit status
    0: the same, 2: they differ.
    """
    first, second = fleet_of(inventory_named()), fleet_of(other)
    rows = _differences(first, second)
    if as_json:
        click.echo(json.dumps([dict(zip(("name", "first", "second"), row, strict=True)) for row in rows]))
    elif rows:
        short = [(name, *map(_short, values)) for name, *values in rows]
        click.echo(table(("SETTING", first.inventory.stem, second.inventory.stem), short))
    else:
        click.echo("no difference")
    raise SystemExit(DIFFERS if rows else SAME)


def _differences(first: Fleet, second: Fleet) -> list[tuple[str, str, str]]:
    """(setting, value, other value) for all that differs; of secrets only that they do."""
    from deploy.fleet.layers import HIDDEN, layers, shown
    from deploy.fleet.settings import PARTS, variables_of

    texts = [
        {host: shown(of, fleet.hosts[host]) for host, of in layers(fleet.inventory).items()}
        for fleet in (first, second)
    ]
    found = []
    for part, groups in PARTS.items():
        for name in variables_of(part):
            one, two = (_common(fleet.hosts, fleet, groups, name) for fleet in (first, second))
            if one == two:
                continue
            told = [
                _common(text, fleet, groups, name) for text, fleet in zip(texts, (first, second), strict=True)
            ]
            found.append((name, told[0], told[1] if told[1] != HIDDEN else f"{HIDDEN}, another one"))
    return found


def _common(of: Mapping[str, Mapping[str, Any]], fleet: Fleet, groups: Sequence[str], name: str) -> str:
    """The value that all hosts of these groups share, as text; what they do not share is said to be so."""
    hosts = {host for group in groups for host in (fleet.hosts if group == "all" else fleet.in_group(group))}
    values = {str(of[host].get(name, "not set")) for host in hosts}
    return values.pop() if len(values) == 1 else "differs by host" if values else "no such host"


def books_of(fleet: Fleet, hosts: Sequence[str]) -> dict[str, str]:
    """Host → positions and working orders of its magic number, for Inf hosts and gateways among `hosts`."""
    gateways = set(fleet.in_group("gateway"))
    concerned = [
        host for host in fleet.in_group("inf") if host in hosts or fleet.hosts[host]["fleet_gateway"] in hosts
    ]
    if not concerned:
        return {}

    def snapshot(client: GatewayClient, _connection: ConnectionSettings) -> replies.Snapshot:
        return client.snapshot(0, history_since_msc=None, whole_account=True)

    answers = {answer.name: answer for answer in ask(of_fleet(fleet, None), snapshot)}
    told = {}
    for host in concerned:
        magic, gateway = int(fleet.hosts[host]["fleet_magic_number"]), str(fleet.hosts[host]["fleet_gateway"])
        answer = answers[gateway] if gateway in gateways else None
        if answer is None or answer.value is None:
            why = answer.error if answer is not None else f"{gateway} is no gateway of this fleet"
            told[host] = f"positions of magic {magic} unknown ({why})"
            continue
        positions = sum(one.magic == magic for one in answer.value.positions)
        orders = sum(one.magic == magic for one in answer.value.orders)
        told[host] = f"magic {magic} holds {positions} positions and {orders} working orders now"
    return told


def _change(word: str) -> tuple[str, Any]:
    import yaml  # the controller has it; hosts, where every module is imported by the audit, do not

    name, equals, text = word.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{word!r} is no KEY=VALUE")
    try:
        return name, yaml.safe_load(text)
    except yaml.YAMLError:
        raise click.UsageError(
            f"the value of {name} is no YAML; quote it, such as {name}='\"text\"'"
        ) from None


def _require(name: str, known: Sequence[str] | Mapping[str, Any], what: str, where: str) -> None:
    if name not in known:
        raise click.UsageError(f"{where} has no {what} {name}{instead(name, known)}")


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
