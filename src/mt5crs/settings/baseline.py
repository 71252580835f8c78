"""Settings of the baseline that every Linux host gets (variables `baseline_…`); no service reads them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from mt5crs.settings.schema import Settings, setting

_PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|sk-ssh-ed25519@openssh\.com|ecdsa-sha2-nistp256) [A-Za-z0-9+/]+=*( .*)?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_SYSCTL_KEY = re.compile(r"net\.[a-z0-9_.]+")
_SIZE = r"^[1-9][0-9]*[KMG]\Z"

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*[a-z0-9+]")


def package_problems(name: str, packages: Iterable[str]) -> Iterable[str]:
    """What is no name of a Debian package (policy, 5.6.1): for apt-get it is an option, a removal, a file."""
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            yield (
                f"{name} has {package!r}, which is no name of a Debian package (lower-case letters, digits, "
                ". + - between them); options and versions of apt cannot be given"
            )


class BaselineSettings(Settings, frozen=True, kw_only=True):
    """What every Linux host needs before a service is put on it."""

    part: ClassVar[str] = "baseline"

    packages: Annotated[
        list[str],
        setting("Debian packages every host has; installed only when one is missing.", in_env=False),
    ] = msgspec.field(
        default_factory=lambda: [
            "ca-certificates",
            "chrony",
            "dbus",
            "nftables",
            "openssh-client",
            "openssh-server",
            "python3",
        ]
    )
    role_packages: Annotated[
        list[str],
        setting(
            "Debian packages that this host's services need beside; a gateway's under Wine: `wine64`.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    release_signers: Annotated[
        list[str],
        setting(
            "OpenSSH public keys whose signature on a bundle the hosts accept.",
            min_length=1,
            in_env=False,
            create="make bundle",
        ),
    ]
    review_signers: Annotated[
        list[str],
        setting(
            "OpenSSH public keys whose signature on a verdict of a review the hosts accept.", in_env=False
        ),
    ] = msgspec.field(default_factory=list)
    ssh_port: Annotated[int, setting("TCP port of sshd.", ge=1, le=65535, in_env=False)] = 22
    ssh_sources: Annotated[
        list[str],
        setting(
            "Addresses and networks of the controllers: who may reach sshd, the gateway's ports for "
            "administration, Prometheus and Alertmanager.",
            min_length=1,
            in_env=False,
        ),
    ]
    ssh_users: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"^[a-z_][a-z0-9_.-]{0,31}\Z")]],
        setting(
            "Who may log in by SSH besides the user that deploys; empty: everyone who has a key on the host.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    ssh_tcp_forwarding: Annotated[
        bool,
        setting(
            "Whether sshd forwards connections: true for a host over which others are reached (ProxyJump).",
            in_env=False,
        ),
    ] = False
    ssh_host_key_algorithms: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9@.-]+\Z")]],
        setting(
            "Kinds of host keys that sshd shows; the known_hosts file must hold one of them for each host.",
            min_length=1,
            in_env=False,
        ),
    ] = msgspec.field(
        default_factory=lambda: [
            "ssh-ed25519",
            "ssh-ed25519-cert-v01@openssh.com",
            "rsa-sha2-512",
            "rsa-sha2-256",
            "rsa-sha2-512-cert-v01@openssh.com",
            "rsa-sha2-256-cert-v01@openssh.com",
        ]
    )
    banner: Annotated[
        str,
        setting(
            "What a console shows before somebody logs in (/etc/issue); sshd does not send it.",
            pattern=r"^[ -\[\]-~]{1,500}\Z",
            in_env=False,
        ),
    ] = (
        "Private system. Access is restricted to those whom its owner has authorised; what is done here is "
        "recorded and monitored."
    )
    shell_idle_s: Annotated[
        int,
        setting(
            "Seconds after which the unused prompt of a login shell ends; 0: never.",
            ge=0,
            le=86400,
            in_env=False,
        ),
    ] = 1800
    kernel_modules_refused: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,55}\Z")]],
        setting(
            "Kernel modules that are not loaded: protocols, buses and file systems that no host needs. "
            "Take out what yours does.",
            in_env=False,
        ),
    ] = msgspec.field(
        default_factory=lambda: [
            *("dccp", "rds", "sctp", "tipc"),
            *("firewire-core", "firewire-ohci", "usb-storage"),
            *("cramfs", "freevxfs", "hfs", "hfsplus", "jffs2"),
        ]
    )
    access_confirm_s: Annotated[
        int,
        setting(
            "Seconds after which a new firewall or sshd configuration is put back by the host itself, unless "
            "the controller proved over a new connection that it still gets in.",
            ge=10,
            le=600,
            in_env=False,
        ),
    ] = 45
    ntp_pools: Annotated[list[str], setting("Names that stand for many time servers.", in_env=False)] = (
        msgspec.field(default_factory=lambda: ["2.debian.pool.ntp.org"])
    )
    ntp_servers: Annotated[list[str], setting("Single time servers, by name or address.", in_env=False)] = (
        msgspec.field(default_factory=list)
    )
    ntp_serve: Annotated[
        list[str],
        setting(
            "Addresses and networks that may ask this host for the time; it then serves its own clock even "
            "when no source is reachable.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=list)
    clock_control: Annotated[
        bool,
        setting(
            "Whether chrony sets the clock. False in containers: the clock belongs to the machine beneath, "
            "chrony then only watches it.",
            in_env=False,
        ),
    ] = True
    tcp_window_bytes: Annotated[
        int,
        setting(
            "Largest TCP window in bytes. The buffers are twice as large, because Linux keeps half of a "
            "buffer for its own bookkeeping (tcp_adv_win_scale=1).",
            ge=65536,
            le=1073741824,
            in_env=False,
        ),
    ] = 1048576
    sysctl: Annotated[
        dict[str, str],
        setting("Further kernel settings; only net.… keys, the others belong to the machine.", in_env=False),
    ] = msgspec.field(default_factory=dict)
    sysctl_strict: Annotated[
        bool,
        setting(
            "Whether a kernel setting that cannot be set fails the deployment. False in containers, where "
            "the kernel shows only the network settings that a network namespace owns.",
            in_env=False,
        ),
    ] = True
    journal_max_use: Annotated[
        str, setting("Most disk space of the journal (K, M or G).", pattern=_SIZE, in_env=False)
    ] = "500M"
    journal_keep_days: Annotated[
        int, setting("Days after which journal entries are dropped.", ge=1, le=3650, in_env=False)
    ] = 30

    windows_account_password: Annotated[
        str,
        setting("Windows: password of the local account the gateway runs as.", secret=True, in_env=False),
    ] = ""
    windows_active_hours_start: Annotated[
        int, setting("Windows: hour from which updates must not restart the host.", ge=0, le=23, in_env=False)
    ] = 6
    windows_active_hours_end: Annotated[
        int, setting("Windows: hour until which they must not; at most 18 later.", ge=0, le=23, in_env=False)
    ] = 23
    windows_defender_exclusions: Annotated[
        list[str],
        setting(
            "Windows: directories that Defender does not scan on every write; by default only the journal's.",
            in_env=False,
        ),
    ] = msgspec.field(default_factory=lambda: ["C:/ProgramData/mt5crs/state"])

    def problems(self) -> Iterable[str]:
        """Lists whose entries cannot be used, and a host that would have no time source at all."""
        yield from package_problems("baseline_packages", self.packages)
        yield from package_problems("baseline_role_packages", self.role_packages)
        for name, networks in (
            ("baseline_ssh_sources", self.ssh_sources),
            ("baseline_ntp_serve", self.ntp_serve),
        ):
            for network in networks:
                problem = network_problem(network)
                if problem:
                    yield f"{name} has {network!r}: {problem}"
        signers = [("release", *each) for each in enumerate(self.release_signers, start=1)]
        signers += [("review", *each) for each in enumerate(self.review_signers, start=1)]
        for kind, number, key in signers:
            if not _PUBLIC_KEY.fullmatch(key):
                yield (
                    f"baseline_{kind}_signers, entry {number}, is no OpenSSH public key of one line "
                    "('ssh-ed25519 AAAA… comment'); print it with `ssh-keygen -y -f <private key>`"
                )
        for name, servers in (
            ("baseline_ntp_pools", self.ntp_pools),
            ("baseline_ntp_servers", self.ntp_servers),
        ):
            for server in servers:
                if not _HOST_NAME.fullmatch(server) and network_problem(server):
                    yield f"{name} has {server!r}, which is neither a host name nor an address"
        if not (self.ntp_pools or self.ntp_servers or self.ntp_serve):
            yield "baseline_ntp_pools and baseline_ntp_servers are both empty; name at least one time source"
        hours = (self.windows_active_hours_end - self.windows_active_hours_start) % 24
        if not 1 <= hours <= 18:
            yield (
                f"baseline_windows_active_hours_start and …_end span {hours} hours; Windows takes 1 to 18, "
                "updates are kept from restarting the host outside of them by policy"
            )
        for key in self.sysctl:
            if not _SYSCTL_KEY.fullmatch(key):
                yield f"baseline_sysctl has {key!r}; only net.… keys are taken, set others outside this kit"


def network_problem(text: str) -> str | None:
    """Why a text names no address and no network that peers come from; None if it does."""
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        return f"{error}; write an address or a network such as 192.0.2.0/24"
    if network.prefixlen == 0:
        return "that is everyone; name the networks that they are in"
    return None
