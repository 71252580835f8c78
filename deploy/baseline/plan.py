"""What every Linux host needs before a generation is put on it: the question to the host, and the plan.

Pure, and the same for both engines: pyinfra (`deploy/operations/baseline.py`) and Ansible (`roles/baseline`,
by way of the action `plan_baseline`) ask this question and follow this plan.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from deploy.baseline.host_files import ManagedDirectory, ManagedFile, listed, listing_script, unlike
from deploy.fleet.rendering import TEMPLATES

PROJECT = Path(__file__).resolve().parents[2]
SUPPORTED = ("debian 12", "debian 13", "ubuntu 22.04", "ubuntu 24.04")
WINE = "wine64"
SUPPORTED_WITH_WINE = ("debian 13",)
"""Terminals refuse Wine before 10 and take 11 for a debugger; this one's package is 10."""
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
    "/etc/issue": "banner.j2",
    "/etc/issue.net": "banner.j2",
    "/etc/modprobe.d/50-mt5crs.conf": "modprobe.conf.j2",
    "/etc/mt5crs/allowed_signers": "allowed_signers.j2",
    "/etc/profile.d/50-mt5crs.sh": "profile.sh.j2",
    "/etc/security/limits.d/50-mt5crs.conf": "limits.conf.j2",
    "/etc/systemd/coredump.conf.d/50-mt5crs.conf": "coredump.conf.j2",
    "/etc/systemd/journald.conf.d/50-mt5crs.conf": "journald.conf.j2",
}
OF_DEBIAN = ("/etc/chrony/chrony.conf", "/etc/default/chrony", "/etc/issue", "/etc/issue.net")
"""Which of them Debian has itself."""
LAST_OF_FIRST = "/etc/mt5crs/allowed_signers"
"""Comes after those in every first deployment."""
# What has to take notice when a file changes; the same words that stale.sh prints.
NOTICED_BY = {
    "/etc/chrony/chrony.conf": "chrony",
    "/etc/default/chrony": "chrony",
    "/etc/systemd/journald.conf.d/50-mt5crs.conf": "journald",
}
REACTIONS = {
    "baseline": "sh /opt/mt5crs/baseline/current/in_force.sh use",
    "journald": "systemctl restart systemd-journald.service",
    "chrony": "systemctl restart chrony.service",
}
RELEASE_PROGRAM = "/usr/local/sbin/mt5crs-release"
PROGRAMS = {"/usr/local/bin/mt5crs": "templates/baseline/mt5crs.sh", RELEASE_PROGRAM: "dist/mt5crs-release"}
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
    release_units: bool = False


class ReleaseToolMissingError(RuntimeError):
    """The release tool was not built yet; the text names the command."""


def packages_of_baseline(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Debian packages of this part on a host with these variables."""
    return (*settings["baseline_packages"], *settings["baseline_role_packages"])


def system_problem(system: str, packages: Iterable[str]) -> str:
    """Why a host cannot be in the fleet with these packages, with the remedy; empty if it can."""
    under_wine = WINE in packages
    able = SUPPORTED_WITH_WINE if under_wine else SUPPORTED
    if system in able:
        return ""
    why = f" with Wine ({WINE}, gateway_platform)" if under_wine else ""
    return (
        f"runs {system or 'an unknown system'}; supported{why}: {', '.join(able)}. "
        "Install one of them or take the host out of the inventory"
    )


def question(packages: Iterable[str]) -> str:
    """Shell text that prints all there is to know about a host; `observed` reads its lines."""
    stale = (TEMPLATES / "baseline" / "stale.sh").read_text(encoding="utf-8")
    return "\n".join(
        (
            "export LC_ALL=C PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            '(. /etc/os-release && echo "system $ID $VERSION_ID")',
            "dpkg-query -W -f 'package ${db:Status-Status} ${Package}\\n' "
            + " ".join(shlex.quote(name) for name in packages)
            + " 2>/dev/null",
            'getent passwd mt5crs | awk -F: \'{print "account " $1 ":" $6 ":" $7}\'',
            "id -gn mt5crs 2>/dev/null | sed 's/^/group /'",
            *(f"systemctl is-enabled --quiet {u} 2>/dev/null && echo enabled {u}" for u in ENABLED_UNITS),
            listing_script(PATHS),
            f"( {stale}\n) | sed 's/^/stale /'",
            "mt5crs-release install-units --dry-run --json 2>/dev/null | sed 's/^/units /'",
            "true",
        )
    )


def observed(lines: Iterable[str]) -> Observed:
    """Read the lines that `question` prints."""
    found: dict[str, list[str]] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        found.setdefault(word, []).append(rest)
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
        seen=listed(found.get("seen", []), found.get("digest", [])),
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
        # A release tool that is about to be replaced cannot tell which units the new one brings.
        release_units=not now.release_units or RELEASE_PROGRAM in changed,
    )


def managed_files(render: Callable[[str], str]) -> tuple[ManagedFile, ...]:
    """Every file that baseline keeps on a host; `render` gives a template of `templates/` with its variables.

    ReleaseToolMissingError when dist/ has no release tool.
    """
    rendered = [
        ManagedFile(
            path,
            render(f"baseline/{template}").encode(),
            kept_unless=LAST_OF_FIRST if path in OF_DEBIAN else "",
        )
        for path, template in RENDERED.items()
    ]
    programs = [ManagedFile(path, _program(source), mode="0755") for path, source in PROGRAMS.items()]
    return (*rendered, *programs)


@cache
def _program(source: str) -> bytes:
    try:
        return (PROJECT / source).read_bytes()
    except FileNotFoundError:
        raise ReleaseToolMissingError(f"{source} is missing; build it with `make bundle`") from None
