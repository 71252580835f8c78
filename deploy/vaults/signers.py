"""Who signs releases: a new key is admitted beside the old one, then the old one removed; two deployments."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from deploy.fleet.inventory import WINDOWS, Fleet
from deploy.fleet.services import MACHINES
from deploy.fleet.settings import STRATEGIES
from deploy.fleet.vault_password import PROJECT
from deploy.remote import ssh
from deploy.vaults import store, text
from mt5crs_release.bundles.bundle import NAMESPACE, PRINCIPAL, Bundle
from mt5crs_release.errors import ReleaseError

SETTING = "baseline_release_signers"
_ON_HOST = "/etc/mt5crs/allowed_signers"
_ANSWER_WITHIN_S = 15


def public_key(file: Path) -> str:
    """The line of a public SSH key file. VaultError for anything else, above all a private key."""
    try:
        content = store.read(file.expanduser()).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise store.VaultError(f"{file} is no text; name the file that ends in .pub") from None
    if (
        "PRIVATE KEY" in content
        or len(content.splitlines()) != 1
        or not content.startswith(("ssh-", "sk-", "ecdsa-"))
        or len(content.split()) < 2
    ):
        raise store.VaultError(f"{file} is no public key of SSH; name the file that ends in .pub")
    return content


def listed(fleet: Fleet) -> tuple[Path, list[str]]:
    """The file that names the signers of all hosts, and them. VaultError when it is not one file's list."""
    places = {fleet.origins.get((host, SETTING), "").rpartition(":")[0] for host in fleet.hosts}
    lists = {tuple(map(str, of.get(SETTING) or ())) for of in fleet.hosts.values()}
    if len(places) != 1 or len(lists) != 1 or not (path := PROJECT / places.pop()).is_file():
        raise store.VaultError(
            f"{SETTING} of the hosts does not stand in one file; change it by hand, one deployment with both "
            "keys, one without the old one"
        )
    return path, list(lists.pop())


def same(one: str, other: str) -> bool:
    """Whether two lines are one key, whatever is said beside it."""
    return one.split()[:2] == other.split()[:2]


def fitting(signers: Sequence[str], named: str) -> str:
    """The signer that is meant, by its comment or the end of its key. VaultError: none, or several."""
    found = [
        each
        for each in signers
        if named in (each, " ".join(each.split()[2:])) or each.split()[1].endswith(named)
    ]
    if len(found) != 1:
        names = [" ".join(each.split()[2:]) or each.split()[1][-12:] for each in signers]
        many = f"{len(found)} signers are" if found else "no signer is"
        raise store.VaultError(f"{many} called {named}{text.nearest(named, names)}")
    return found[0]


def changed(content: str, *, add: str | None = None, remove: str | None = None) -> str:
    """The text of a variables file with one signer more or less; all else stays. VaultError: by hand.

    Pure.
    """
    wanted = text.values(content)
    lines = wanted.get(SETTING)
    found = text.nodes(content, (SETTING,))
    made = content
    if isinstance(lines, list) and found is not None and isinstance(found[1], yaml.SequenceNode):
        items = found[1].value
        if add is not None and items and not found[1].flow_style:
            last, column = items[-1], items[0].start_mark.column - 2
            at = content.find("\n", last.end_mark.index)
            at = len(content) if at < 0 else at
            made = f"{content[:at]}\n{' ' * column}- {add}{content[at:]}"
            wanted = {**wanted, SETTING: [*lines, add]}
        if remove is not None and len(items) > 1 and not found[1].flow_style:
            number = lines.index(remove)
            rows = content.splitlines(keepends=True)
            del rows[items[number].start_mark.line : items[number].end_mark.line + 1]
            made = "".join(rows)
            wanted = {**wanted, SETTING: [each for each in lines if each != remove]}
    try:
        good = made != content and text.values(made) == wanted
    except text.VaultTextError:
        good = False
    if not good:
        raise store.VaultError(
            f"{SETTING} is not written as one key a line below its name; change it by hand, one deployment "
            "with both keys, one without the old one"
        )
    return made


def unsigned(fleet: Fleet, signers: Sequence[str]) -> list[str]:
    """What is wrong with the bundles that are to be deployed, were these all who sign; a sentence each."""
    names = {str(of["fleet_bundle"]) for of in fleet.hosts.values() if of.get("fleet_bundle")}
    for of in fleet.hosts.values():
        built = of.get("strategy_built") or {}
        if built.get("file"):
            names.add(f"{STRATEGIES}/{built['file']}")
    if not names:
        return ["there is no bundle: `make bundle` with the new key first"]
    found = []
    with tempfile.TemporaryDirectory(prefix="mt5crs-signers-") as scratch:
        allowed = Path(scratch) / "allowed_signers"
        allowed.write_text("".join(f'{PRINCIPAL} namespaces="{NAMESPACE}" {each}\n' for each in signers))
        for name in sorted(names):
            try:
                with Bundle(PROJECT / name, allowed):
                    pass
            except ReleaseError as error:
                found.append(f"{name}: {error.message}")
    return found


def unaware(fleet: Fleet, signers: Sequence[str]) -> list[str]:
    """Linux hosts that do not accept one of these signers yet, or could not be asked; a sentence each."""
    hosts = [host for host in fleet.in_group(MACHINES) if host not in fleet.in_group(WINDOWS)]

    def ask(host: str) -> str:
        reply = ssh.run(fleet.hosts[host], ["cat", _ON_HOST], timeout_s=_ANSWER_WITHIN_S)
        if reply.status != 0:
            return f"{host} could not be asked: {reply.why}"
        there = reply.output.split()
        return (
            ""
            if all(each.split()[1] in there for each in signers)
            else f"{host} does not accept the key that is to stay; deploy first"
        )

    with ThreadPoolExecutor(len(hosts) or 1) as pool:
        return [why for why in pool.map(ask, hosts) if why]
