"""What commands that take a while on the controller share: steps told as they are done, and deploying."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import click


def clock() -> str:
    """The time of day, UTC."""
    return datetime.now(timezone.utc).strftime("%H:%M:%S")


@contextmanager
def step(what: str, *, err: bool = False) -> Iterator[None]:
    """Say what is done, and how long it took; with `err` on standard error."""
    began = time.monotonic()
    click.echo(f"{clock()} {what} … ", nl=False, err=err)
    try:
        yield
    except BaseException:
        click.echo("failed", err=err)
        raise
    click.echo(f"{time.monotonic() - began:.1f} s", err=err)


def deployment_command(inventory: Path, *, strategy: str = "", why: str = "", alerts: str = "") -> list[str]:
    """The documented command that deploys a fleet: pyinfra where its script is, otherwise Ansible. Pure."""
    binaries = Path(sys.executable).parent
    hosts = inventory.resolve().with_suffix(".py")
    pyinfra = hosts.is_file()
    command = (
        [str(binaries / "pyinfra"), "-y", str(hosts), "deploy.py"]
        if pyinfra
        else [str(binaries / "ansible-playbook"), "-i", str(inventory.resolve()), "site.yml"]
    )
    told = {
        "strategy" if pyinfra else "fleet_strategy": strategy,
        "alerts" if pyinfra else "fleet_alerts_firing": alerts,
        "why": why,
    }
    given = {name: value for name, value in told.items() if value}
    if pyinfra:
        return [*command, *(word for name, value in given.items() for word in ("--data", f"{name}={value}"))]
    return [*command, *(["-e", json.dumps(given)] if given else [])]


def deploy(command: Sequence[str], *, err: bool = False) -> int:
    """Run a deployment on this terminal; its exit status. Ctrl-C is the deployment's to answer."""
    from deploy.fleet.vault_password import PROJECT

    running = subprocess.Popen(command, cwd=PROJECT, stdout=sys.stderr if err else None)
    interrupted = False
    while True:
        try:
            status = running.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return status
