"""Where every variable of a host comes from: all layers that set it, which of them wins, and why.

Ansible itself only keeps the winner. The layers are read with its own loader, in the order of its own
precedence (`precedence` in ansible.cfg), so what wins here is what a deployment uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.fleet.inventory import InventoryError, explain, open_inventory, origin_of, plain
from deploy.fleet.settings import PARTS, variables_of
from deploy.fleet.vault_password import PROJECT, environment_of

BASE, ENVIRONMENT, SERVICE, HOST, SECRETS = "base", "environment", "service", "host", "secrets"
"""Kinds of layers: of all hosts, of one environment, of a group, of one host; and what is encrypted."""
RULE = (
    "the last one in Ansible's order wins: what is for all hosts, then for groups (an environment's before "
    "those within it), then for the host; of each the inventory file, files beside it, the project's files"
)
HIDDEN = "(secret)"
_VAULT = b"$ANSIBLE_VAULT"
_TELLING = 4
"""A shorter text is found in anything, whether it is made of the secret or not."""


@dataclass(frozen=True, repr=False)
class Layer:
    """One source of variables of a host: `kind` as above, `owner` its group or host."""

    kind: str
    owner: str
    file: str
    values: Mapping[str, Any]
    encrypted: bool = False


@dataclass(frozen=True)
class Setting:
    """What a layer says of a variable. `value` is the text as written, HIDDEN for a secret."""

    name: str
    kind: str
    owner: str
    origin: str
    value: str


def layers(inventory: Path) -> dict[str, tuple[Layer, ...]]:
    """Every layer of every host, weakest first. InventoryError for an unreadable inventory or vault."""
    from ansible.errors import AnsibleError

    loader, manager = open_inventory(inventory)
    environment = environment_of(inventory)
    try:
        return {
            str(host.name): tuple(_of_host(inventory, environment, loader, manager, host))
            for host in manager.get_hosts()
        }
    except AnsibleError as error:
        raise InventoryError(explain(inventory, error)) from None


def _of_host(inventory: Path, environment: str, loader: Any, manager: Any, host: Any) -> Iterator[Layer]:
    from ansible import constants
    from ansible.inventory.helpers import sort_groups

    every = [manager.groups["all"]]
    others = sort_groups([group for group in host.get_groups() if group.name != "all"])
    beside = {"inventory": Path(inventory).parent.resolve(), "play": PROJECT}

    def kind(group: Any) -> str:
        return BASE if group.name == "all" else ENVIRONMENT if group.name == environment else SERVICE

    for entry in constants.config.get_config_value("VARIABLE_PRECEDENCE"):
        groups = every if entry.startswith("all_") else others
        place = entry.rpartition("_")[2]
        for group in groups:
            if entry.endswith(("all_inventory", "groups_inventory")):
                yield Layer(kind(group), str(group.name), _shown(inventory), group.vars)
            else:
                yield from _files(loader, beside[place] / "group_vars", kind(group), str(group.name))
    yield Layer(HOST, str(host.name), _shown(inventory), host.vars)
    for directory in beside.values():
        yield from _files(loader, directory / "host_vars", HOST, str(host.name))


def _files(loader: Any, directory: Path, kind: str, owner: str) -> Iterator[Layer]:
    if not directory.is_dir():
        return
    for file in loader.find_vars_files(str(directory), owner):
        path = Path(file.decode() if isinstance(file, bytes) else file)
        values = loader.load_from_file(str(path), cache="all", unsafe=True, trusted_as_template=True)
        yield Layer(kind, owner, _shown(path), values or {}, path.read_bytes().startswith(_VAULT))


def _shown(path: Path) -> str:
    whole = path.resolve()
    return str(whole.relative_to(PROJECT)) if whole.is_relative_to(PROJECT) else str(path)


def history(of: tuple[Layer, ...], name: str) -> list[Setting]:
    """Every layer that sets a variable, the winner first; empty when none does."""
    found = [layer for layer in of if name in layer.values]
    return [
        Setting(
            name,
            SECRETS if is_encrypted(layer, name) else layer.kind,
            layer.owner,
            origin(layer, name),
            HIDDEN if is_secret(name) or is_encrypted(layer, name) else repr(plain(layer.values[name])),
        )
        for layer in reversed(found)
    ]


def shown(of: tuple[Layer, ...], resolved: Mapping[str, Any]) -> dict[str, str]:
    """Every variable's resolved value as text. HIDDEN stands for secrets, and for what is made of one."""
    hidden = {name for layer in of for name in layer.values if is_secret(name) or is_encrypted(layer, name)}
    secrets = {text for name in hidden for text in _texts(resolved.get(name)) if len(text) >= _TELLING}

    def text(name: str) -> str:
        if name not in resolved:
            return "unresolved: its expression cannot be evaluated"
        value = repr(resolved[name])
        return HIDDEN if name in hidden or any(secret in value for secret in secrets) else value

    return {name: text(name) for name in names(of)}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, escaped as where it is shown."""
    if isinstance(value, str):
        yield repr(value)[1:-1]
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def names(of: tuple[Layer, ...]) -> list[str]:
    """Every variable that some layer sets, sorted."""
    return sorted({str(name) for layer in of for name in layer.values})


def origin(layer: Layer, name: str) -> str:
    """File and line, or the file alone, where a layer says a variable."""
    value = layer.values[name]
    key = next(key for key in layer.values if key == name)
    return origin_of(value) or origin_of(key) or layer.file


def is_secret(name: str) -> bool:
    """Whether a variable holds secrets by what it is called or declared."""
    declared = next((of[name] for part in PARTS if name in (of := variables_of(part))), None)
    a_password = name.startswith("ansible_") and "pass" in name  # Ansible has several names for each
    return name.startswith("vault_") or a_password or (declared is not None and declared.secret)


def is_encrypted(layer: Layer, name: str) -> bool:
    """Whether the file is a vault, or this value alone is (`ansible-vault encrypt_string`)."""
    from ansible.parsing.vault import EncryptedString

    return layer.encrypted or isinstance(layer.values[name], EncryptedString)
