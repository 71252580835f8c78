"""Part `baseline`: what every Linux host needs before a service is put on it.

One fact tells all there is to know, `plan` decides, the operations do. Same outcome as `roles/baseline`.
"""
# mypy: disable-error-code="misc,untyped-decorator"
# (pyinfra's own types are not followed, see pyproject.toml)

from __future__ import annotations

import shlex
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, Host, State, StringCommand, deploy, operation
from pyinfra.api.exceptions import ConnectError, DeployError

from deploy.host_files import ManagedDirectory, ManagedFile, listing_script, make_directory, place, unlike
from deploy.inventory import variables
from deploy.rendering import TEMPLATES, render

PROJECT = Path(__file__).resolve().parent.parent
RELEASE_TOOL = PROJECT / "dist" / "mt5crs-release"
SUPPORTED = ("debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04")
ENABLED_UNITS = ("chrony.service", "nftables.service")

DIRECTORIES = (
    ManagedDirectory("/etc/chrony"),
    ManagedDirectory("/etc/mt5crs"),
    ManagedDirectory("/opt/mt5crs"),
    ManagedDirectory("/opt/mt5crs/bundles"),
    ManagedDirectory("/opt/mt5crs/runtimes"),
    ManagedDirectory("/var/lib/mt5crs"),
    ManagedDirectory("/etc/systemd/journald.conf.d"),
)
RENDERED = {
    "/etc/chrony/chrony.conf": "chrony.conf.j2",
    "/etc/default/chrony": "chrony.default.j2",
    "/etc/mt5crs/allowed_signers": "allowed_signers.j2",
    "/etc/mt5crs/nftables.conf": "nftables.conf.j2",
    "/etc/mt5crs/sshd.conf": "sshd.conf.j2",
    "/etc/sysctl.d/60-mt5crs.conf": "sysctl.conf.j2",
    "/etc/systemd/journald.conf.d/50-mt5crs.conf": "journald.conf.j2",
}
# What has to take notice when a file changes; the same words that stale.sh prints.
NOTICED_BY = {
    "/etc/chrony/chrony.conf": "chrony",
    "/etc/default/chrony": "chrony",
    "/etc/mt5crs/nftables.conf": "access",
    "/etc/mt5crs/sshd.conf": "access",
    "/etc/sysctl.d/60-mt5crs.conf": "sysctl",
    "/etc/systemd/journald.conf.d/50-mt5crs.conf": "journald",
}
REACTIONS = {
    "sysctl": "/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-mt5crs.conf",
    "journald": "systemctl restart systemd-journald.service",
    "chrony": "systemctl restart chrony.service",
}
PROGRAMS = ("/usr/local/sbin/mt5crs-access", "/usr/local/sbin/mt5crs-release")
PATHS = (*(directory.path for directory in DIRECTORIES), *RENDERED, *PROGRAMS)
ACCOUNT = "mt5crs:/var/lib/mt5crs:/usr/sbin/nologin:mt5crs"


@dataclass(frozen=True)
class Observed:
    """What a host is like, as the fact found it."""

    system: str = ""
    packages: frozenset[str] = frozenset()
    account: str = ""
    enabled: frozenset[str] = frozenset()
    seen: Mapping[str, str] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()
    release_units: bool = False


@dataclass(frozen=True)
class Plan:
    """What has to be done on a host; all empty when it is as wanted."""

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    account: bool = False
    enable: tuple[str, ...] = ()
    reactions: tuple[str, ...] = ()
    access: bool = False
    release_units: bool = False


class BaselineState(FactBase[Observed]):
    """Everything baseline wants to know about a host, in one command."""

    def command(self, packages: tuple[str, ...], paths: tuple[str, ...]) -> str:
        """Shell text whose output lines `process` reads."""
        stale = (TEMPLATES / "baseline" / "stale.sh").read_text(encoding="utf-8")
        script = "\n".join(
            (
                "export LC_ALL=C PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
                '(. /etc/os-release && echo "system $ID $VERSION_ID")',
                "dpkg-query -W -f 'package ${db:Status-Status} ${Package}\\n' "
                + " ".join(shlex.quote(name) for name in packages)
                + " 2>/dev/null",
                'getent passwd mt5crs | awk -F: \'{print "account " $1 ":" $6 ":" $7}\'',
                "id -gn mt5crs 2>/dev/null | sed 's/^/group /'",
                *(f"systemctl is-enabled --quiet {u} 2>/dev/null && echo enabled {u}" for u in ENABLED_UNITS),
                listing_script(paths),
                f"( {stale}\n) | sed 's/^/stale /'",
                "mt5crs-release install-units --dry-run --json 2>/dev/null | sed 's/^/units /'",
                "true",
            )
        )
        return f"sh -c {shlex.quote(script)}"

    @staticmethod
    def default() -> Observed:
        """What is assumed when the command printed nothing."""
        return Observed()

    def process(self, output: Iterable[str]) -> Observed:
        """Make sense of the command's lines."""
        return observed(output)


def observed(lines: Iterable[str]) -> Observed:
    """Read the output of the `BaselineState` command."""
    found: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        found.setdefault(word, []).append(rest)
    seen = dict(line.rsplit(" ", 1) for line in found.get("seen", []))
    account = ":".join([*found.get("account", []), *found.get("group", [])])
    return Observed(
        system="".join(found.get("system", [])),
        packages=frozenset(
            line.removeprefix("installed ")
            for line in found.get("package", [])
            if line.startswith("installed ")
        ),
        account=account,
        enabled=frozenset(found.get("enabled", [])),
        seen=seen,
        stale=frozenset(found.get("stale", [])),
        release_units='"changed": false' in "".join(found.get("units", [])),
    )


def plan(files: Iterable[ManagedFile], packages: Iterable[str], now: Observed) -> Plan:
    """Compare what is wanted with what is there."""
    wanted = tuple(files)
    changed = unlike(wanted, now.seen)
    notices = {NOTICED_BY[path] for path in changed if path in NOTICED_BY} | now.stale
    return Plan(
        directories=unlike(DIRECTORIES, now.seen),
        files=changed,
        packages=tuple(sorted(set(packages) - now.packages)),
        account=now.account != ACCOUNT,
        enable=tuple(unit for unit in ENABLED_UNITS if unit not in now.enabled),
        reactions=tuple(word for word in REACTIONS if word in notices),
        access="access" in notices,
        release_units=not now.release_units,
    )


def managed_files(settings: Mapping[str, Any]) -> tuple[ManagedFile, ...]:
    """Every file that baseline keeps on a host, for the host's variables."""
    rendered = [
        ManagedFile(path, render(f"baseline/{template}", settings).encode())
        for path, template in RENDERED.items()
    ]
    access = (TEMPLATES / "baseline" / "access.sh").read_bytes()
    return (
        *rendered,
        *(
            ManagedFile(path, content, mode="0755")
            for path, content in zip(PROGRAMS, (access, _release_tool()), strict=True)
        ),
    )


@cache
def _release_tool() -> bytes:
    try:
        return RELEASE_TOOL.read_bytes()
    except FileNotFoundError:
        raise DeployError(
            f"{RELEASE_TOOL.relative_to(PROJECT)} is missing; build it with `make bundle`"
        ) from None


@operation()
def lay_out(directories: Iterable[str], files: Iterable[ManagedFile]) -> Generator[StringCommand, None, None]:
    """Make directories, put files in place."""
    by_path = {directory.path: directory for directory in DIRECTORIES}
    for path in directories:
        yield make_directory(by_path[path])
    for file in files:
        yield place(file)


@operation()
def packages_present(missing: Iterable[str]) -> Generator[StringCommand, None, None]:
    """Install Debian packages; the package lists are fetched only when those at hand do not do."""
    names = " ".join(shlex.quote(name) for name in missing)
    if names:
        install = (
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "
            f"-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold {names}"
        )
        yield StringCommand(f"{install} || {{ apt-get update -q && {install}; }}")


@operation()
def account_present(needed: bool) -> Generator[StringCommand, None, None]:
    """Make the system user and group that the services run as."""
    if needed:
        where = "--home-dir /var/lib/mt5crs --shell /usr/sbin/nologin --gid mt5crs"
        yield StringCommand("getent group mt5crs >/dev/null || groupadd --system mt5crs")
        yield StringCommand(
            f"if getent passwd mt5crs >/dev/null; then usermod --home /var/lib/mt5crs "
            "--shell /usr/sbin/nologin --gid mt5crs mt5crs; "
            f"else useradd --system --no-create-home {where} mt5crs; fi"
        )


@operation()
def take_notice(enable: Iterable[str], reactions: Iterable[str]) -> Generator[StringCommand, None, None]:
    """Enable units and make what runs follow its configuration."""
    for unit in enable:
        yield StringCommand("systemctl", "enable", "--quiet", unit)
    for word in reactions:
        yield StringCommand(REACTIONS[word])


@operation()
def release_units(needed: bool) -> Generator[StringCommand, None, None]:
    """Install the release tool's own units (recovery at boot, reverting unconfirmed generations)."""
    if needed:
        yield StringCommand("/usr/local/sbin/mt5crs-release", "install-units")


@operation()
def access_in_force(needed: bool, confirm_s: int) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Put firewall and sshd configuration into force; the host takes them back unless we still get in."""
    if needed:
        yield StringCommand("/usr/local/sbin/mt5crs-access", "apply", str(confirm_s))
        yield FunctionCommand(_connect_anew, (confirm_s,), {})
        yield StringCommand("/usr/local/sbin/mt5crs-access", "confirm")


def _connect_anew(state: State, host: Host, confirm_s: int) -> bool:  # noqa: ARG001 -- pyinfra's signature
    """Replace the connection by a new one, so that what follows proves that one still gets in."""
    host.connector.client.close()
    host.disconnect()
    deadline = time.monotonic() + confirm_s / 2
    while True:
        try:
            host.connect(show_errors=False, raise_exceptions=True)
            return True
        except ConnectError as error:
            # sshd does not listen for a moment while it reads its configuration anew.
            if time.monotonic() > deadline:
                host.log(
                    f"cannot be reached with the new firewall and sshd configuration ({error}); it puts "
                    f"the old one back within {confirm_s} s. Add this controller's address to "
                    "baseline_ssh_sources or correct templates/baseline/sshd.conf.j2",
                    logger.error,
                )
                return False
        time.sleep(0.2)  # pyinfra made it cooperative


def observe() -> Observed:
    """What the current host is like, asked once a run (also about the packages that later parts want)."""
    names = wanted_packages(variables(host.name))
    now: Observed = host.get_fact(BaselineState, packages=names, paths=PATHS)
    return now


def wanted_packages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Every Debian package that any part wants on a host with these variables."""
    return tuple(sorted({*settings["baseline_packages"], *packages_of_monitoring(settings)}))


def packages_of_monitoring(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Debian packages of the part `monitoring` on a host with these variables."""
    on_hub = settings["monitoring_packages_hub"] if "hub" in settings["group_names"] else ()
    return (*settings["monitoring_packages"], *on_hub)


@deploy("Baseline")
def baseline() -> None:
    """Bring the current host to the baseline."""
    settings = variables(host.name)
    files = managed_files(settings)
    names = tuple(settings["baseline_packages"])
    now = observe()
    if now.system not in SUPPORTED:
        raise DeployError(
            f"{host.name} runs {now.system or 'an unknown system'}; supported are {', '.join(SUPPORTED)}. "
            "Install one of them or take the host out of the inventory"
        )
    todo = plan(files, names, now)
    # Files before packages: a package starts its service at once, which must find its configuration.
    lay_out(
        name="Files and directories",
        directories=todo.directories,
        files=[f for f in files if f.path in todo.files],
    )
    packages_present(name="Packages", missing=todo.packages)
    account_present(name="User mt5crs", needed=todo.account)
    take_notice(name="Kernel settings, journal, time", enable=todo.enable, reactions=todo.reactions)
    release_units(name="Units of the release tool", needed=todo.release_units)
    access_in_force(
        name="Firewall and sshd", needed=todo.access, confirm_s=int(settings["baseline_access_confirm_s"])
    )
