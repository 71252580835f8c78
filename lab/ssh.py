"""SSH into lab hosts: keys, `known_hosts`, argument lists. Host keys are always checked."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.machine import program
from lab.plan import Host, Plan
from lab.state import LabDirectory

USER = "ops"
CONNECT_TIMEOUT_S = 5


def options(directory: LabDirectory) -> list[str]:
    """Return the ssh options that reach this lab's hosts, and only those whose key is the expected one."""
    return [
        "-F", "none", "-i", str(directory.key_file),
        "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
        "-o", f'UserKnownHostsFile="{directory.known_hosts}"', "-o", "GlobalKnownHostsFile=none",
        "-o", "StrictHostKeyChecking=yes",
        "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}",
        "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
        "-o", "LogLevel=ERROR",
    ]  # fmt: skip


def ssh_argv(directory: LabDirectory, host: Host, command: Sequence[str] = ()) -> list[str]:
    """Return the argument list that logs in to `host` as `ops` and runs `command` (or a shell)."""
    return [program("ssh"), *options(directory), f"{USER}@{host.address}", *command]


def known_hosts_line(host: Host, public_key: str) -> str:
    """Return the `known_hosts` line of a host, without its comment."""
    kind, key = public_key.split()[:2]
    return f"{host.address},{host.name} {kind} {key}\n"


def _generate(path: Path, comment: str) -> None:
    if path.exists() and path.with_suffix(".pub").exists():
        return
    path.unlink(missing_ok=True)
    done = subprocess.run(
        [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"ssh-keygen could not write {path}: {done.stderr.strip()}; check the disk and its permissions"
        )


def write_keys(directory: LabDirectory, plan: Plan) -> None:
    """Make the login key, one host key per host and `known_hosts`. Keys that exist are kept."""
    directory.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _generate(directory.key_file, f"mt5crs-lab-{plan.name}")
    authorized = directory.key_file.with_suffix(".pub").read_text()
    lines = []
    for host in plan.hosts:
        seed = directory.seed(host.name)
        seed.mkdir(mode=0o700, parents=True, exist_ok=True)
        host_key = seed / "ssh_host_ed25519_key"
        _generate(host_key, host.name)
        (seed / "authorized_keys").write_text(authorized)
        lines.append(known_hosts_line(host, host_key.with_suffix(".pub").read_text()))
    directory.known_hosts.write_text("".join(lines))
