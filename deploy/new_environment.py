"""Makes a new environment: `python -m deploy.new_environment NAME --hub ADDRESS --gateway … --inf …`.

Inventory, a first `group_vars/NAME/main.yml` (orders are checked, none is sent), key pairs, vault and vault
password. All of it is made aside and checked as a deployment would, and every host is asked whether SSH lets
in; what is wrong is told all at once. Only what is good gets its place, the inventory last. Nothing that
exists is replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy import keys
from deploy.fleet import settings
from deploy.fleet.inventory import InventoryError, resolve
from deploy.fleet.vault_password import PROJECT, password_file
from deploy.remote import ssh
from deploy.vaults import signers
from deploy.vaults.store import VaultError

_CHOSEN = "ANSIBLE_VAULT_PASSWORD_FILE"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")
_TAKEN = frozenset(("all", "ungrouped", "lab", *settings.KNOWN_GROUPS, "windows"))
_FIRST_MAGIC = 202401
_ANSWER_WITHIN_S = 15
_PYINFRA = '''"""pyinfra inventory of {name}: exactly what Ansible reads from {name}.yml."""

from deploy.inventory import hosts_of

{name} = hosts_of(__file__)
'''


class NewEnvironmentError(RuntimeError):
    """It was not made; the text has every reason, one a line."""


@dataclass(frozen=True)
class Wanted:
    """What the environment is to be. Addresses as they were typed."""

    name: str
    hub: Sequence[str]
    gateway: Sequence[str]
    inf: Sequence[str]
    networks: Sequence[str]
    controllers: Sequence[str]
    login: int
    symbols: Sequence[str]
    ssh_key: str
    known_hosts: str
    signers: Sequence[Path]

    def inventory(self) -> str:
        """The text of `inventory/<name>.yml`."""
        groups: dict[str, dict[str, dict[str, Any]]] = {}
        for group, short in (("hub", "hub"), ("inf", "inf"), ("gateway", "gtw")):
            addresses: Sequence[str] = getattr(self, group)
            groups[group] = {
                f"{self.name}-{short}-{number:02}".replace("_", "-"): {"ansible_host": address}
                for number, address in enumerate(addresses, 1)
            }
        for number, variables in enumerate(groups["inf"].values()):
            variables["fleet_magic_number"] = _FIRST_MAGIC + number
        tree = {
            self.name: {
                "children": {group: {"hosts": hosts} for group, hosts in groups.items()},
                "vars": {
                    "fleet_environment": self.name,
                    "fleet_networks": list(self.networks),
                    "fleet_ssh_key": self.ssh_key,
                    "fleet_ssh_known_hosts": self.known_hosts,
                },
            }
        }
        return _yaml("Hosts and addresses: written in this file and nowhere else.", tree)

    def variables(self, signers: Sequence[str]) -> str:
        """The text of the first `group_vars/<name>/main.yml`."""
        return _yaml(
            "Orders are checked, none is sent, until dry_run is false. See docs/reference/settings.md.",
            {
                "fleet_account_login": self.login,
                "fleet_limits": {
                    "dry_run": True,
                    "symbols": list(self.symbols),
                    "max_order_volume": 0.01,
                    "max_position_volume": 0.1,
                    "max_daily_loss": 3.0,
                    "max_slippage_points": 20,
                    "max_consecutive_failures": 3,
                },
                "baseline_ssh_sources": list(self.controllers),
                "baseline_release_signers": list(signers),
            },
        )


def _yaml(comment: str, tree: Mapping[str, Any]) -> str:
    return f"---\n# {comment}\n" + yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=False)


def make(wanted: Wanted, project: Path = PROJECT, *, reach: bool = True) -> list[Path]:
    """Make it; returns what there is now. NewEnvironmentError with every reason when nothing was made.

    reach: also ask every host whether SSH lets in.
    """
    places = _places(wanted.name, project)
    wrong = [
        *_of_words(wanted),
        *(f"{path} exists already; nothing is replaced" for path in places.values() if path.exists()),
    ]
    admitted, unread = _signers(wanted.signers)
    wrong += unread
    if wrong:
        raise NewEnvironmentError("\n".join(wrong))
    with tempfile.TemporaryDirectory(prefix=".new-environment-", dir=project) as scratch:
        aside = {kind: Path(scratch) / path.name for kind, path in places.items()}
        aside["variables"] = Path(scratch) / "group_vars" / wanted.name
        aside["variables"].mkdir(parents=True)
        aside["inventory"].write_text(wanted.inventory())
        aside["pyinfra"].write_text(_PYINFRA.format(name=wanted.name))
        (aside["variables"] / "main.yml").write_text(wanted.variables(admitted))
        with _password_at(aside.get("password")):
            wrong = list(_of_fleet(aside["inventory"], aside["variables"], reach=reach))
        if wrong:
            raise NewEnvironmentError("\n".join(wrong))
        _place(aside, places)
    return list(places.values())


def _places(name: str, project: Path) -> dict[str, Path]:
    """Where all of it belongs, in the order in which it gets there: without inventory it is none."""
    inventory = project / "inventory" / f"{name}.yml"
    password = {} if os.environ.get(_CHOSEN) else {"password": password_file(inventory)}
    return {
        **password,
        "variables": project / "group_vars" / name,
        "pyinfra": inventory.with_suffix(".py"),
        "inventory": inventory,
    }


def _of_words(wanted: Wanted) -> Iterator[str]:
    if not _NAME.match(wanted.name) or wanted.name in _TAKEN:
        yield (
            f"{wanted.name!r} is no name for an environment: small letters, digits and _, first a letter; "
            f"taken are {', '.join(sorted(_TAKEN))}"
        )
    for what, given in (("--network", wanted.networks), ("--controller", wanted.controllers)):
        for text in given:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                yield f"{what} {text}: {error}"
    for what, file in (("--ssh-key", wanted.ssh_key), ("--known-hosts", wanted.known_hosts)):
        if not Path(file).expanduser().is_file():
            yield f"{what} {file}: there is no such file"
    if len(wanted.hub) > 1:
        yield "--hub: a fleet has one Hub"
    if len(wanted.gateway) > 1:
        yield "--gateway: name one; with several, which is whose has to be said by hand (fleet_gateway)"


def _signers(files: Iterable[Path]) -> tuple[list[str], list[str]]:
    """The public keys in these files, and what is wrong with them."""
    found, wrong = [], []
    for file in files:
        try:
            found.append(signers.public_key(file))
        except VaultError as error:
            wrong.append(f"--signer {str(error).replace(f'{file} ', f'{file}: it ', 1)}")
    return found, wrong


def _of_fleet(inventory: Path, variables: Path, *, reach: bool) -> Iterator[str]:
    """What a deployment would say of it, and hosts that SSH does not let into."""
    try:
        keys.make(inventory, directory=variables)
        # Whether there is a bundle yet is for a deployment to say.
        fleet = resolve(inventory, {"fleet_bundle": str(inventory)})
    except (keys.KeysError, InventoryError) as error:
        yield str(error).replace(f"{inventory.parent}/", "")
        return
    problems = settings.check(fleet)
    yield from (problem.replace(f"{inventory.parent}/", "") for problem in problems)
    if not reach or problems:
        return
    with ThreadPoolExecutor(len(fleet.hosts)) as pool:
        replies = pool.map(lambda of: ssh.run(of, ["true"], timeout_s=_ANSWER_WITHIN_S), fleet.hosts.values())
        for host, reply in zip(fleet.hosts, replies, strict=True):
            if reply.status != 0:
                yield f"{host} ({fleet.hosts[host]['ansible_host']}) does not let in: {reply.why}"


@contextlib.contextmanager
def _password_at(path: Path | None) -> Iterator[None]:
    """Have the vault password made and read here; None: where the variable says already."""
    if path is None:
        yield
        return
    os.environ[_CHOSEN] = str(path)
    try:
        yield
    finally:
        del os.environ[_CHOSEN]


def _place(aside: Mapping[str, Path], places: Mapping[str, Path]) -> None:
    """Give everything its place; what has got one is taken back when something fails."""
    done: list[Path] = []
    try:
        for kind, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if kind == "password" else 0o755)
            done.append(place)
            shutil.move(aside[kind], place)
    except BaseException:
        for place in reversed(done):
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        raise


def _from_anywhere(file: str) -> str:
    """A path for the inventory, which counts in whatever directory."""
    return file if file.startswith("~") else str(Path(file).absolute())


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0, or 1 with every reason on standard error and nothing made."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.new_environment", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("name", metavar="NAME")
    for group, what in (("hub", "the Hub"), ("gateway", "the gateway"), ("inf", "an Inf host (repeatable)")):
        parser.add_argument(
            f"--{group}", action="append", required=True, metavar="ADDRESS", help=f"address of {what}"
        )
    parser.add_argument(
        "--network", action="append", required=True, metavar="CIDR", help="where the hosts are"
    )
    parser.add_argument(
        "--controller",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="whence SSH comes, as the hosts see it: all others are shut out",
    )
    parser.add_argument("--login", type=int, required=True, help="account at the broker")
    parser.add_argument("--symbol", action="append", required=True, metavar="NAME", help="what may be traded")
    parser.add_argument(
        "--ssh-key", required=True, metavar="FILE", help="the controller's key for the user ops"
    )
    parser.add_argument("--known-hosts", required=True, metavar="FILE", help="the hosts' own keys")
    parser.add_argument(
        "--signer",
        action="append",
        type=Path,
        required=True,
        metavar="FILE.pub",
        help="whose signature on a bundle counts (`make bundle` signs with .keys/release_ed25519)",
    )
    parser.add_argument("--unreached", action="store_true", help="do not ask the hosts whether SSH lets in")
    given = parser.parse_args(arguments)
    wanted = Wanted(
        given.name,
        given.hub,
        given.gateway,
        given.inf,
        given.network,
        given.controller,
        given.login,
        given.symbol,
        _from_anywhere(given.ssh_key),
        _from_anywhere(given.known_hosts),
        given.signer,
    )
    try:
        made = make(wanted, reach=not given.unreached)
    except NewEnvironmentError as error:
        for line in str(error).splitlines():
            print(f"new environment: {line}", file=sys.stderr)
        print("nothing was made", file=sys.stderr)
        return 1
    for path in made:
        print(f"made {path}")
    print(f"next: pyinfra --dry inventory/{wanted.name}.py deploy.py; keep the vault password in your safe")
    return 0


if __name__ == "__main__":
    sys.exit(main())
