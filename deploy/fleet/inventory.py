"""The fleet as Ansible resolves it, in plain values: hosts, groups, every variable, vault and Jinja included.

Knows nothing of pyinfra; what a pyinfra run makes of a fleet is in `deploy.operations.context`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.fleet import compiled, worked_out
from deploy.fleet.services import MACHINES
from deploy.fleet.vault_password import (
    PROJECT,
    VaultPasswordMissingError,
    environment_of,
    next_file,
    password_file,
    read_password,
    vault_files,
)

WINDOWS = "windows"
"""The group of hosts that Ansible manages also in a pyinfra run."""


_opening: Any = None
"""What opens single encrypted values in this process, unless Ansible has its own."""


class InventoryError(RuntimeError):
    """The inventory cannot be read; the text names cause and remedy."""


@dataclass(frozen=True)
class Unresolved:
    """A variable whose expression cannot be resolved, and why."""

    host: str
    name: str
    reason: str


@dataclass(frozen=True, repr=False)
class Fleet:
    """One environment: its hosts' variables (plain values), its groups, and where each variable is set."""

    inventory: Path
    environment: str
    hosts: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, tuple[str, ...]]
    unresolved: tuple[Unresolved, ...] = ()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(host, variable) → file and line where it has its value from."""

    def __repr__(self) -> str:
        return f"Fleet({self.inventory.name}, {len(self.hosts)} hosts)"

    def in_group(self, group: str) -> tuple[str, ...]:
        """Hosts of a group in the inventory's order; none if there is no such group."""
        if group == MACHINES:
            return tuple(host for host, values in self.hosts.items() if not values.get("fleet_instance"))
        return self.groups.get(group, ())

    def service_on(self, host: str, service: str) -> str:
        """What a service is called on a host: with the name of the instance, if the host is one."""
        return f"{service}{self.hosts[host].get('fleet_suffix') or ''}"

    def machine_of(self, host: str) -> str:
        """The machine of an instance: the host with its address; the host itself if it is none."""
        if not self.hosts[host].get("fleet_instance"):
            return host
        address = self.hosts[host].get("fleet_address")
        same = (one for one in self.in_group(MACHINES) if self.hosts[one].get("fleet_address") == address)
        return next(same, host)

    def on_machine(self, host: str) -> tuple[str, ...]:
        """A machine and the further instances on it; of an instance itself alone."""
        return (host, *self.instances_on(host))

    def instances_on(self, host: str) -> tuple[str, ...]:
        """The further instances on a machine, in the inventory's order."""
        return tuple(one for one in self.hosts if one != host and self.machine_of(one) == host)


# Ansible puts these into every host's variables; they describe the run, not the fleet.
_MAGIC = frozenset(
    {
        "groups",
        "hostvars",
        "omit",
        "playbook_dir",
        "ansible_playbook_python",
        "ansible_version",
        "ansible_config_file",
        "ansible_facts",
        "ansible_local",
        "inventory_dir",
        "inventory_file",
        "vars",
        "environment",
        "role_names",
        "ansible_play_batch",
        "ansible_play_hosts",
        "ansible_play_hosts_all",
        "play_hosts",
    }
)


def prepare_ansible() -> None:
    """Make Ansible's library usable in this process: our configuration, its plugin loader."""
    os.environ.setdefault("ANSIBLE_CONFIG", str(PROJECT / "ansible.cfg"))
    with _unpatched_getaddrinfo():
        from ansible.plugins.loader import init_plugin_loader
        from ansible.utils.collection_loader import AnsibleCollectionConfig

    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    compiled.once()


@contextlib.contextmanager
def _unpatched_getaddrinfo() -> Iterator[None]:
    """Ansible tries getaddrinfo with a bad argument at import; gevent's version would print a traceback."""
    monkey = sys.modules.get("gevent.monkey")
    patched = socket.getaddrinfo
    if monkey is not None:
        socket.getaddrinfo = monkey.get_original("socket", "getaddrinfo")
    try:
        yield
    finally:
        socket.getaddrinfo = patched


def files_of(sources: Iterable[str] | None) -> list[Path]:
    """The inventory files among the sources that Ansible was given with `-i`; lists of hosts are none."""
    return [Path(source) for source in sources or () if Path(source).is_file()]


def file_of(sources: Iterable[str] | None) -> Path:
    """The first inventory file among Ansible's sources. InventoryError when there is none."""
    sources = list(sources or ())
    found = files_of(sources)
    if not found:
        for source in sources:
            require_file(Path(source))
        raise InventoryError("no inventory file is given; name one: -i inventory/<environment>.yml")
    return found[0]


def require_file(inventory: Path) -> None:
    """InventoryError for a directory: a fleet is one file, from which its environment and vault follow."""
    if inventory.is_dir():
        there = ", ".join(sorted(path.name for path in inventory.glob("*.y*ml"))) or "none"
        raise InventoryError(
            f"inventory {inventory} is a directory, and one file describes a fleet; name the file (there: "
            f"{there})"
        )


def resolve(
    inventory: Path,
    extra: Mapping[str, Any] | None = None,
    on: Mapping[str, Mapping[str, Any]] | None = None,
    instead: Mapping[Path, str | None] | None = None,
) -> Fleet:
    """Read an inventory with Ansible's own machinery.

    extra: variables that win over all others (Ansible's `-e`). on: host → variables that win on that host.
    instead: texts that count in place of these files (None: as if it were not there); none is written.
    Expressions that cannot be resolved are listed in `Fleet.unresolved` and missing from the host's
    variables. Raises InventoryError for an inventory or vault that cannot be read.
    """
    loader, manager = open_inventory(inventory, instead)
    from ansible.errors import AnsibleError
    from ansible.vars.manager import VariableManager

    try:
        variable_manager = VariableManager(loader=loader, inventory=manager)
        variable_manager.safe_basedir = True
        if extra:
            variable_manager._extra_vars = dict(extra)
        for host, values in (on or {}).items():
            variable_manager.set_nonpersistent_facts(host, dict(values))
        worked_out.hostvars(manager, variable_manager, loader)
        return _resolve_hosts(inventory, loader, manager, variable_manager)
    except AnsibleError as error:
        raise InventoryError(explain(inventory, error)) from None


def open_inventory(inventory: Path, instead: Mapping[Path, str | None] | None = None) -> tuple[Any, Any]:
    """Ansible's loader, with the vault open, and its inventory manager. InventoryError as in `resolve`."""
    require_file(inventory)
    if not inventory.is_file():
        raise InventoryError(f"inventory {inventory} does not exist; name one such as inventory/lab.yml")
    prepare_ansible()
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager

    _forget_variable_files()
    loader = _loader({path.resolve(): text for path, text in (instead or {}).items()})
    loader.set_basedir(str(PROJECT))
    _open_vaults(loader, inventory)
    try:
        return loader, InventoryManager(loader=loader, sources=[str(inventory)])
    except AnsibleError as error:
        raise InventoryError(explain(inventory, error)) from None


def _loader(instead: Mapping[Path, str | None]) -> Any:
    """Ansible's loader of files, for which these texts count in place of what is on the disk."""
    from ansible.parsing.dataloader import DataLoader

    there = {path for path, text in instead.items() if text is not None}
    directories = {directory for path in there for directory in path.parents}

    class Loader(DataLoader):  # type: ignore[misc]
        def _whole(self, path: str) -> Path:
            return Path(self.path_dwim(path)).resolve()

        def get_text_file_contents(self, file_name: str, encoding: str | None = None) -> Any:
            whole = self._whole(file_name)
            return (
                instead[whole] or ""
                if whole in instead
                else super().get_text_file_contents(file_name, encoding)
            )

        def path_exists(self, path: str) -> Any:
            whole = self._whole(path)
            return whole in there or (
                whole not in instead and (whole in directories or super().path_exists(path))
            )

        def is_directory(self, path: str) -> Any:
            return self._whole(path) in directories or super().is_directory(path)

        def is_file(self, path: str) -> Any:
            whole = self._whole(path)
            return whole in there or (whole not in instead and super().is_file(path))

        def list_directory(self, path: str) -> list[str]:
            whole = self._whole(path)
            found = super().list_directory(path) if whole.is_dir() else []
            new = {of.relative_to(whole).parts[0] for of in there if of.is_relative_to(whole)}
            return [*found, *sorted(new - set(found))]

    return Loader() if instead else DataLoader()


def groups_in(inventory: Path, instead: str | None = None) -> dict[str, list[str]]:
    """Group → its hosts, as the file says it; no variable is read, so no vault has to be opened.

    instead: the text that counts in place of the file's. InventoryError as in `resolve`.
    """
    prepare_ansible()
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager

    try:
        loader = _loader({} if instead is None else {inventory.resolve(): instead})
        groups = InventoryManager(loader=loader, sources=[str(inventory)]).get_groups_dict()
    except AnsibleError as error:
        raise InventoryError(explain(inventory, error)) from None
    return {str(name): [str(host) for host in hosts] for name, hosts in groups.items()}


def _forget_variable_files() -> None:
    """Make Ansible look again which files are in group_vars and host_vars; it looks once per process."""
    from ansible.plugins.vars import host_group_vars

    host_group_vars.FOUND.clear()
    host_group_vars.NAK.clear()


def _open_vaults(loader: Any, inventory: Path) -> None:
    from ansible.constants import DEFAULT_VAULT_IDENTITY
    from ansible.parsing.vault import VaultSecret

    if not vault_files(inventory):
        return
    try:
        secret = VaultSecret(read_password(inventory).encode())
    except VaultPasswordMissingError as error:
        raise InventoryError(str(error)) from None
    loader.set_vault_secrets([(DEFAULT_VAULT_IDENTITY, secret)])
    _open_single_values([(DEFAULT_VAULT_IDENTITY, secret)])


def _open_single_values(secrets: list[tuple[str, Any]]) -> None:
    """Let values be opened that are encrypted one by one (`!vault`); in Ansible's own processes they are."""
    global _opening  # Ansible has one for the process, too
    from ansible.parsing.vault import VaultSecretsContext

    if VaultSecretsContext.current(optional=True) is None:
        _opening = VaultSecretsContext([])
        VaultSecretsContext.initialize(_opening)
    if _opening is not None:
        _opening.secrets = secrets


def _resolve_hosts(inventory: Path, loader: Any, manager: Any, variable_manager: Any) -> Fleet:
    from ansible.errors import AnsibleError
    from ansible.template import Templar

    hosts: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    unresolved: list[Unresolved] = []
    for host in manager.get_hosts():
        raw = variable_manager.get_vars(host=host)
        templar = Templar(loader=loader, variables=raw)
        resolved: dict[str, Any] = {}
        for name, value in raw.items():
            if name in _MAGIC:
                continue
            origins[host.name, str(name)] = origin_of(value)
            if is_constant(value):
                resolved[str(name)] = plain(value)
                continue
            try:
                resolved[str(name)] = plain(templar.template(value))
            except AnsibleError as error:
                unresolved.append(Unresolved(host.name, str(name), _reason(error)))
        hosts[host.name] = resolved
    groups = {
        str(name): tuple(str(host) for host in members) for name, members in manager.get_groups_dict().items()
    }
    environment = _environment(inventory, hosts, origins)
    return Fleet(inventory, environment, hosts, groups, tuple(unresolved), origins)


def _environment(
    inventory: Path, hosts: Mapping[str, Mapping[str, Any]], origins: Mapping[tuple[str, str], str]
) -> str:
    """The environment of a fleet. InventoryError when hosts say another one than decided on the vault."""
    environment = environment_of(inventory)
    for host, variables in hosts.items():
        said = str(variables.get("fleet_environment") or environment)
        if said != environment:
            where = origins.get((host, "fleet_environment"))
            raise InventoryError(
                f"fleet_environment of {host} is {said!r}{f' ({where})' if where else ''}, but {inventory} "
                f"is of {environment!r}: an inventory is of one environment, which its file says itself "
                f"(`fleet_environment: {said}` below `vars:`), since that decides which vault is opened"
            )
    return environment


def is_constant(value: Any) -> bool:
    """Whether there is no expression in a value; most are constant, and templating them takes the time."""
    if value is None or isinstance(value, (bool, int, float)):
        return True
    if isinstance(value, str):
        return not any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return all(is_constant(key) and is_constant(item) for key, item in value.items())
    return isinstance(value, list) and all(is_constant(item) for item in value)


def plain(value: Any) -> Any:
    """A value without Ansible's tags: only dict, list, str, int, float, bool and None are left."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)


def origin_of(value: Any) -> str:
    """Where a value was written, `group_vars/inf/main.yml:12`, or '' when Ansible does not know."""
    try:
        from ansible._internal._datatag._tags import Origin  # from ansible-core 2.19 on
    except ImportError:
        return ""
    origin = value if isinstance(value, Origin) else Origin.get_tag(value)
    if origin is None or not origin.path:
        return ""
    shown = str(origin.path).removeprefix(f"{PROJECT}{os.sep}")
    return f"{shown}:{origin.line_num}" if origin.line_num else shown


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "message", error)).strip().splitlines()[0].rstrip(".")
    where = origin_of(getattr(error, "obj", None))
    return f"{text} ({where})" if where else text


def _cause(inventory: Path, error: Exception) -> BaseException:
    """Why an inventory cannot be read; Ansible itself only says that it cannot be parsed."""
    from ansible.errors import AnsibleError
    from ansible.parsing.dataloader import DataLoader

    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "obj", None) is not None:
            return cause
        cause = cause.__cause__ or cause.__context__
    if inventory.suffix not in (".yml", ".yaml", ".json"):
        return InventoryError(
            "it is no YAML file; `ansible-inventory --list --yaml --export -i` makes one of any other"
        )
    try:
        there = DataLoader().load_from_file(str(inventory))
    except AnsibleError as unreadable:
        error = unreadable
        there = True
    return error if there else InventoryError("it is empty; describe hosts in it, as inventory/lab.yml does")


def explain(inventory: Path, error: Exception) -> str:
    """Sentence for an inventory or vault that Ansible cannot read: cause and remedy."""
    text = str(error)
    if "vault" in text.lower() or "decrypt" in text.lower():
        path = password_file(inventory)
        files = ", ".join(str(file) for file in vault_files(inventory)) or "its vault"
        if next_file(path).exists():
            return (
                f"{files}: a change of the vault's password was interrupted; "
                f"`mt5crs --inventory {inventory} secrets rotate vault` finishes it"
            )
        return (
            f"{files} cannot be opened with the vault password in {path}: wrong password. Put the right one "
            "there, or name its file in ANSIBLE_VAULT_PASSWORD_FILE"
        )
    return f"inventory {inventory} cannot be read: {_reason(_cause(inventory, error))}"
