"""Checks every setting of every host before anything is touched, and says all that is wrong at once.

Both engines call `require` first; `python -m deploy.fleet.settings --inventory FILE` does it by hand.
"""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from deploy.fleet.connection import jumps, refusals
from deploy.fleet.inventory import WINDOWS, Fleet, InventoryError, Unresolved, resolve
from deploy.fleet.services import MACHINES, SERVICES
from deploy.fleet.vault_password import PROJECT
from mt5crs.settings.envfile import value_fits
from mt5crs.settings.options import complete, from_document
from mt5crs.settings.review import loopback
from mt5crs.settings.schema import (
    Field,
    Settings,
    SettingsError,
    build,
    check_value,
    did_you_mean,
    fields,
    to_env,
)
from mt5crs.strategy.example import PingPong

# Part → inventory groups whose hosts have it. `fleet` concerns every host but is nothing one deploys.
PARTS: Mapping[str, tuple[str, ...]] = {
    "fleet": ("all",),
    **{service.name: (service.group,) for service in SERVICES},
}
KNOWN_GROUPS = ("hub", "inf", "gateway")
OF_THE_WHOLE_FLEET = (
    "fleet_strategy",
    "fleet_canary_steps",
    "fleet_max_unavailable_percent",
    "fleet_step_pause_s",
    "fleet_alert_check_s",
    "fleet_alerts_firing",
    "fleet_alerts_unknown",
    "fleet_alerts_unknown_s",
    "fleet_store_port",
    "fleet_store_host_mb_s",
    "fleet_store_total_mb_s",
)
STRATEGIES = "dist/strategies"
"""Where the bundles of strategies are, below the project."""
_MOST_MEMORY = 90
"""Percent of a machine's memory that its strategies may have together."""
UNLOCKED_ALLOWED = ("lab", "dev", "test")
"""Environments that take a strategy whose dependencies nothing pins."""
_DOCUMENTATION = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)


@cache
def structs(part: str) -> tuple[type[Settings], ...]:
    """The settings classes of a part: what its service loads, then what only the deployment uses."""
    module = importlib.import_module(f"mt5crs.settings.{part}")
    names = (f"{part.capitalize()}Settings", f"{part.capitalize()}Deployment")
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


@cache
def variables_of(part: str) -> Mapping[str, Field]:
    """Inventory variable name → its declaration, for one part."""
    return {
        field.variable: field for cls in structs(part) for field in fields(cls) if field.variable is not None
    }


def declared(variable: str) -> Field | None:
    """The declaration of an inventory variable; None: no part has such a setting."""
    return next((of[variable] for of in map(variables_of, PARTS) if variable in of), None)


def check(fleet: Fleet) -> list[str]:
    """Every problem of a fleet's settings, one sentence each that names host, variable, cause and remedy."""
    return [*form_problems(fleet), *address_problems(fleet)]


def address_problems(fleet: Fleet) -> list[str]:
    """What is wrong with addresses: the hosts' own, and those of the legacy adapter's clients."""
    found = [
        *check_addresses(
            {host: fleet.hosts[host].get("fleet_address") for host in fleet.in_group(MACHINES)},
            {host: values.get("fleet_networks") for host, values in fleet.hosts.items()},
        ),
        *_check_plain_clients(fleet),
    ]
    return _merge(found, tuple(fleet.hosts))


def form_problems(fleet: Fleet) -> list[str]:
    """What is wrong with settings but for addresses."""
    found: list[str] = []
    found += _check_groups(fleet)
    for host, values in fleet.hosts.items():
        unresolved = {item.name: item for item in fleet.unresolved if item.host == host}
        for part, groups in PARTS.items():
            if any(host in fleet.in_group(group) for group in groups):
                found += [f"{host}: {text}" for text in _check_part(fleet, part, host, unresolved)]
        found += [f"{host}: {text}" for text in _unknown_names(fleet, host, {*values, *unresolved})]
        if host not in fleet.in_group(WINDOWS):
            found += [f"{host}: {_named(fleet, name, host)} {text}" for name, text in refusals(values)]
    found += _check_fleet(fleet)
    found += _check_instances(fleet)
    found += _check_jumps(fleet)
    found += _check_accounts(fleet)
    found += _check_wine(fleet)
    found += _check_rollout(fleet)
    found += _check_bundles(fleet)
    found += _check_reviews(fleet)
    return _merge(found, tuple(fleet.hosts))


def _check_groups(fleet: Fleet) -> Iterator[str]:
    if not fleet.hosts:
        yield f"{fleet.inventory} has no hosts; add some under hub, inf and gateway"
        return
    if not fleet.in_group("gateway"):
        yield f"{fleet.inventory} has no host in the group gateway; nothing can trade without one"
    for host in fleet.hosts:
        if not any(host in fleet.in_group(group) for group in KNOWN_GROUPS):
            yield f"{host}: is in none of the groups {', '.join(KNOWN_GROUPS)}; put it under one of them"


def _here(reviewer: object) -> bool:
    """Whether it is on the Hub itself, such as a proxy there."""
    return isinstance(reviewer, Mapping) and loopback(str(reviewer.get("endpoint")))


def _check_reviews(fleet: Fleet) -> Iterator[str]:
    """The queue of reviews is on the Hub, and reaches whom it is to ask."""
    for host in fleet.in_group("review"):
        values = fleet.hosts[host]
        if host not in fleet.in_group("hub"):
            yield f"{host}: is in the group review and not in hub; the queue of reviews is a part of the Hub"
        names = ("review_reviewer", "review_fallback")
        asked = [name for name in names if values.get(name) and not _here(values[name])]
        if asked and not values.get("review_provider_networks"):
            yield (
                f"{host}: {asked[0]} is set, but review_provider_networks is empty: nobody could be reached; "
                "list the networks of the endpoint (and the name server's)"
            )


def _check_part(fleet: Fleet, part: str, host: str, unresolved: Mapping[str, Unresolved]) -> Iterator[str]:
    """Types and ranges of one part's variables on one host, then what does not fit together."""
    values = fleet.hosts[host]
    for cls in structs(part):
        good: dict[str, Any] = {}
        complete = True
        for field in fields(cls):
            name = field.variable
            if name is None:
                continue
            if name in unresolved:
                complete = False
                if not _follows_from_missing(unresolved[name], values):
                    yield _missing(fleet, host, field, unresolved[name].reason)
            elif name not in values:
                if field.required:
                    complete = False
                    yield _missing(fleet, host, field, None)
            else:
                _, problem = check_value(field, values[name], _named(fleet, name, host))
                if problem is None and field.env is not None and not value_fits(to_env(values[name])):
                    problem = (
                        f"{_named(fleet, name, host)} holds a single quote, a backslash or a control "
                        "character, which cannot be written to .env; use other characters"
                    )
                if problem is None:
                    good[field.name] = values[name]
                else:
                    complete = False
                    yield problem
        if complete:
            try:
                build(cls, good, heading=part, label=lambda field: field.variable or field.name)
            except SettingsError as error:
                yield from error.problems


def _follows_from_missing(item: Unresolved, values: Mapping[str, Any]) -> bool:
    """Whether an expression failed only because of a variable that is reported as missing itself."""
    cause = item.reason.partition("'")[2].partition("'")[0]
    known = any(cause in variables_of(part) for part in PARTS)
    return item.reason.endswith("is undefined") and known and cause not in values


def _named(fleet: Fleet, name: str, host: str) -> str:
    origin = fleet.origins.get((host, name))
    return f"{name} ({origin})" if origin else name


_PLACE = "inventory/<environment>.yml"


def _shown_path(path: Path) -> str:
    whole = path.resolve()
    return str(whole.relative_to(PROJECT) if whole.is_relative_to(PROJECT) else path)


def _missing(fleet: Fleet, host: str, field: Field, reason: str | None) -> str:
    remedy = (
        f"create it with `{field.create.replace(_PLACE, _shown_path(fleet.inventory))}`"
        if field.create
        else "set it in group_vars/ or the inventory"
    )
    cause = f"cannot be resolved ({reason})" if reason and not field.secret else "is missing"
    return f"{_named(fleet, str(field.variable), host)} {cause}; {remedy}. {field.description}"


def _unknown_names(fleet: Fleet, host: str, names: set[str]) -> Iterator[str]:
    for part in PARTS:
        known = variables_of(part)
        for name in sorted(names):
            if name.startswith(f"{part}_") and name not in known:
                yield f"{_named(fleet, name, host)} is unknown{did_you_mean(name, known, f'{part}_')}"


def check_addresses(addresses: Mapping[str, Any], networks: Mapping[str, Any]) -> Iterator[str]:
    """Problems of the hosts' own addresses: unusable ones (RFC 919, 922), placeholders, duplicates.

    addresses: host → address. networks: host → networks it may be in.
    """
    seen: dict[Any, str] = {}
    for host, text in addresses.items():
        if not isinstance(text, str):
            continue  # reported as missing or mistyped already
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            yield f"{host}: ansible_host is {text!r}, expected an address (a name may move unseen)"
            continue
        if address in seen:
            yield f"{host}: ansible_host {text} is {seen[address]}'s already; give each host its own"
        seen.setdefault(address, host)
        yield from (f"{host}: {problem}" for problem in _address_problems(address, networks.get(host)))


def _check_plain_clients(fleet: Fleet) -> Iterator[str]:
    """Addresses of the legacy adapter's clients against the fleet's networks; form is checked before."""
    for host in fleet.in_group("gateway"):
        values = fleet.hosts[host]
        legacy, given = values.get("gateway_legacy"), values.get("fleet_networks")
        for name, client in legacy.items() if isinstance(legacy, dict) else ():
            try:
                address = ipaddress.ip_address(client["address"])
                networks = [ipaddress.ip_network(text) for text in given or ()]
            except (ValueError, TypeError, KeyError):
                continue  # said already
            shown = f"{host}: gateway_legacy: {name}'s address {address}"
            if any(address in network for network in _DOCUMENTATION):
                yield f"{shown} is a placeholder reserved for documentation; put its real address there"
            yield from (f"{shown} {problem}" for problem in _of_a_network(address, networks))


def _of_a_network(address: Any, networks: Iterable[Any]) -> Iterator[str]:
    for network in networks:
        if address not in network or network.num_addresses <= 2:
            continue
        if address == network.network_address:
            yield f"is the address of network {network} itself (RFC 922); use another"
        if address.version == 4 and address == network.broadcast_address:
            yield f"is the broadcast address of {network} (RFC 919); use another"


def _address_problems(address: Any, networks: Any) -> Iterator[str]:
    if any(address in network for network in _DOCUMENTATION):
        yield (
            f"ansible_host {address} is a placeholder reserved for documentation (RFC 5737, RFC 3849); "
            "put the host's real address into the inventory"
        )
        return
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or str(address) == "255.255.255.255"
    ):
        yield f"ansible_host {address} is no address of a single host; use one that other hosts can reach"
        return
    if not isinstance(networks, list):
        return
    inside = None
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            yield f"fleet_networks has {text!r}, expected a network such as 10.0.0.0/24"
            continue
        if address not in network:
            continue
        inside = network
        yield from (f"ansible_host {address} {problem}" for problem in _of_a_network(address, [network]))
    if inside is None:
        yield f"ansible_host {address} is in none of fleet_networks ({', '.join(networks)}); correct one"


def _check_fleet(fleet: Fleet) -> Iterator[str]:
    """What only shows across hosts: a magic number has one writer, a gateway that exists."""
    writers: dict[Any, str] = {}
    for host in fleet.in_group("inf"):
        values = fleet.hosts[host]
        magic = values.get("strategy_magic_number")
        gateway = values.get("fleet_gateway")
        if magic is not None:
            if (gateway, magic) in writers:
                yield (
                    f"{host}: strategy_magic_number {magic} is traded by {writers[gateway, magic]} already; "
                    "a magic number has one writer, give each host its own"
                )
            writers.setdefault((gateway, magic), host)
        if gateway is not None and gateway not in fleet.in_group("gateway"):
            known = ", ".join(fleet.in_group("gateway")) or "none"
            yield f"{host}: fleet_gateway is {gateway!r}, which is no host of the group gateway ({known})"


_OF_A_MACHINE = (
    "reconciler_metrics_port",
    "reconciler_standby_metrics_port",
    "strategy_metrics_port",
    "strategy_standby_metrics_port",
)
"""Ports that the services of several instances would want on the same machine."""


def _check_instances(fleet: Fleet) -> Iterator[str]:
    """Several Inf on one machine: each is an instance of it, with a name, ports and a share of its own."""
    for host, values in fleet.hosts.items():
        instance, machine = values.get("fleet_instance"), fleet.machine_of(host)
        if not instance:
            continue
        named = _named(fleet, "fleet_instance", host)
        if host not in fleet.in_group("inf") or any(host in fleet.in_group(of) for of in ("hub", "gateway")):
            yield f"{host}: {named} is {instance!r}, but only hosts of the group inf have instances"
        elif machine == host or machine not in fleet.in_group("inf"):
            yield (
                f"{host}: {named} is {instance!r}, so ansible_host must be the address of an Inf host that "
                "has none, beside which it runs"
            )
    for machine in fleet.in_group("inf"):
        if len(there := fleet.on_machine(machine)) > 1:
            yield from _of_one_machine(fleet, there)


def _of_one_machine(fleet: Fleet, hosts: tuple[str, ...]) -> Iterator[str]:
    """What Inf hosts that share a machine may not share."""
    names: dict[Any, str] = {}
    ports: dict[Any, str] = {}
    for host in hosts:
        values = fleet.hosts[host]
        owner = names.setdefault(values.get("fleet_instance"), host)
        if owner != host:
            yield f"{host}: fleet_instance is that of {owner} on the same machine; give each its own"
        taken = {
            f"{setting} {port}": owner
            for setting in _OF_A_MACHINE
            if (port := values.get(setting)) and (owner := ports.setdefault(port, host)) != host
        }
        if taken:
            yield (
                f"{host}: {', '.join(taken)}: {', '.join(sorted(set(taken.values())))} on that machine has "
                f"{'it' if len(taken) == 1 else 'them'}; set fleet_port_offset of {host} to a number that no "
                f"other Inf there has, such as {100 * hosts.index(host)}"
            )
    given = {host: fleet.hosts[host].get("strategy_memory_percent") for host in hosts}
    shares = {host: share for host, share in given.items() if isinstance(share, int)}
    if sum(shares.values()) > _MOST_MEMORY:
        told = ", ".join(f"{share} of {host}" for host, share in shares.items())
        yield (
            f"{hosts[0]}: strategy_memory_percent of all on the machine is over {_MOST_MEMORY} ({told}), "
            "so that one could take the memory of the others; give each less"
        )


def _check_jumps(fleet: Fleet) -> Iterator[str]:
    """A host over which others are reached must go on forwarding connections."""
    for host, values in fleet.hosts.items():
        try:
            over = jumps(values)
        except ValueError:  # told with the connection's variables
            continue
        for jump, its in fleet.hosts.items():
            known = {jump, str(its.get("ansible_host")), str(its.get("fleet_address"))}
            if known & set(over) and not its.get("baseline_ssh_tcp_forwarding"):
                yield (
                    f"{jump}: {host} is reached over it (ProxyJump), but its sshd would not forward "
                    "connections; set baseline_ssh_tcp_forwarding: true for it"
                )


def _check_accounts(fleet: Fleet) -> Iterator[str]:
    """One account, one gateway: limits, leases and halts are kept by each gateway for itself."""
    owners: dict[tuple[Any, str], str] = {}
    for host in fleet.in_group("gateway"):
        values = fleet.hosts.get(host, {})
        account = (values.get("gateway_mt5_login"), str(values.get("gateway_mt5_server", "")).casefold())
        if values.get("gateway_backend") != "mt5" or not account[0]:
            continue
        owner = owners.setdefault(account, host)
        if owner != host:
            yield (
                f"{host}: {_named(fleet, 'gateway_mt5_login', host)} is the account of {owner}, too; "
                "an account has one gateway, give this one another account or take it out of the group"
            )


def _check_wine(fleet: Fleet) -> Iterator[str]:
    """Wine is for Linux hosts."""
    for host in fleet.in_group(WINDOWS):
        if fleet.hosts.get(host, {}).get("gateway_platform") == "wine":
            yield (
                f"{host}: {_named(fleet, 'gateway_platform', host)} is wine on a Windows host; "
                "set it to native, or take the host out of the group windows"
            )


def _check_rollout(fleet: Fleet) -> Iterator[str]:
    """How the fleet is rolled out is one decision for all hosts."""
    for name in OF_THE_WHOLE_FLEET:
        given = {host: values[name] for host, values in fleet.hosts.items() if name in values}
        if any(value != next(iter(given.values())) for value in given.values()):
            said = ", ".join(f"{value} for {host}" for host, value in given.items())
            yield f"{name} differs between hosts ({said}); set it once for the environment"


def _check_bundles(fleet: Fleet) -> Iterator[str]:
    for name in dict.fromkeys(values.get("fleet_bundle") for values in fleet.hosts.values()):
        if isinstance(name, str) and not (PROJECT / name).is_file():
            yield f"fleet_bundle {name} does not exist; build it with `make bundle`"
    for host in fleet.in_group("inf"):
        yield from (f"{host}: {text}" for text in _strategy_bundle_problems(fleet, fleet.hosts[host]))
        yield from (f"{host}: {text}" for text in _option_problems(fleet, host))


def _option_problems(fleet: Fleet, host: str) -> Iterator[str]:
    """What is wrong with the strategy's options, as far as its bundle, or the core, says which it knows."""
    values = fleet.hosts[host]
    wanted, given = values.get("strategy_strategy"), values.get("strategy_strategy_options")
    built = values.get("strategy_built")
    if not isinstance(given, dict) or not value_fits(to_env(given)):
        return  # said already
    document = built.get("options", {}).get(wanted) if isinstance(built, dict) and built else None
    declared = (
        PingPong.known_options
        if wanted == "example"
        else None
        if document is None
        else from_document(document)
    )
    if declared is not None:
        for problem in complete(declared, given)[1]:
            yield f"{_named(fleet, 'strategy_strategy_options', host)}: {problem}"


def _strategy_bundle_problems(fleet: Fleet, values: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a strategy's own bundle from being deployed to a host with these variables."""
    name, built = values.get("strategy_bundle"), values.get("strategy_built")
    if not name or not isinstance(built, dict):
        return
    if not built or not (PROJECT / STRATEGIES / str(built.get("file"))).is_file():
        yield f"strategy_bundle {name} is not built; build it with `make strategy-bundle NAME=<name>`"
        return
    wanted, offered = str(values.get("strategy_strategy")), built["strategies"]
    if ":" not in wanted and wanted not in (*offered, "example"):
        yield (
            f"strategy_strategy is {wanted!r}, but the bundle {name} offers "
            f"{', '.join(offered) or 'none by name'}; name one of them, or module:Class"
        )
    if built["unlocked"] and fleet.environment not in UNLOCKED_ALLOWED:
        yield (
            f"strategy_bundle {name} is not all locked, which only {', '.join(UNLOCKED_ALLOWED)} take: "
            f"{'; '.join(built['unlocked'])}"
        )


def _merge(problems: list[str], hosts: tuple[str, ...]) -> list[str]:
    """The same sentence about several hosts becomes one that lists them."""
    by_text: dict[str, list[str]] = {}
    for problem in problems:
        host, separator, text = problem.partition(": ")
        if separator and host in hosts:
            by_text.setdefault(text, []).append(host)
        else:
            by_text.setdefault(problem, [])
    merged = []
    for text, named in by_text.items():
        named = list(dict.fromkeys(named))
        who = "all hosts" if len(named) == len(hosts) > 1 else ", ".join(named)
        merged.append(f"{who}: {text}" if named else text)
    return merged


def require(fleet: Fleet) -> None:
    """SettingsError with every problem of the fleet's settings, if there is one."""
    problems = check(fleet)
    if problems:
        raise SettingsError(f"Settings of {fleet.inventory} (nothing was touched)", problems)


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 with every problem on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.fleet.settings", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--inventory", type=Path, default=Path("inventory/lab.yml"))
    options = parser.parse_args(arguments)
    try:
        fleet = resolve(options.inventory)
        require(fleet)
    except (InventoryError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"settings of {len(fleet.hosts)} hosts are good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
