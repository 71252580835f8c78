"""`python -m lab`: boot a fleet of systemd hosts on this machine, look at it, hurt it, remove it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from lab import faults, fleet, image, machine, namespace
from lab.errors import LabError
from lab.handle import Lab
from lab.plan import DEFAULT_NAME, RELEASES, UBUNTU
from lab.podman import Podman

Command = TypeVar("Command", bound=Callable[..., Any])
_console = Console(highlight=False, markup=False)


class _Group(click.Group):
    """Shows a LabError as one sentence and ends with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException(str(error)) from None


def _name_option(command: Command) -> Command:
    return click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which lab.")(command)


def _report(phase: fleet.Phase) -> None:
    _console.print(f"  {phase.name:<16} {phase.outcome:<44} {phase.seconds:6.1f} s", soft_wrap=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A fleet of real systemd and sshd hosts on this machine."""


@main.command()
@_name_option
@click.option(
    "--hosts", type=int, help="Hosts in total, 3 to 40: one hub, one gateway, the rest Inf. [new lab: 4]"
)
@click.option(
    "--debian",
    type=click.Choice([*RELEASES, *UBUNTU, "mixed"]),
    help="Debian release of the hosts, or Ubuntu's. [new lab: 13]",
)
@click.option(
    "--gateway",
    type=click.Choice(["linux", "wine"]),
    help="wine: its host has Wine and a Python for Windows (gateway_platform: wine). [new lab: linux]",
)
@click.option("--mirror", envvar="LAB_DEBIAN_MIRROR", help="Debian mirror for building the image.")
def up(
    name: str, hosts: int | None, debian: str | None, gateway: fleet.Gateway | None, mirror: str | None
) -> None:
    """Boot the lab, or what is down of it, and wait until it can be deployed to."""
    outcomes: list[fleet.Phase] = []

    def report(phase: fleet.Phase) -> None:
        outcomes.append(phase)
        _report(phase)

    _console.print(f"lab {name}")
    with _console.status(f"booting lab {name} (building an image, once, takes about 40 s)"):
        plan = fleet.up(name, report, hosts, debian, mirror, gateway=gateway)
    seconds = sum(phase.seconds for phase in outcomes)
    did = next(phase.outcome for phase in outcomes if phase.name == "hosts")
    if "booted" in did or "started" in did:
        click.echo(f"lab {name}: {did} in {seconds:.1f} s")
    else:
        click.echo(f"lab {name} is up already, nothing changed: {len(plan.hosts)} hosts")
    suffix = "" if name == DEFAULT_NAME else f" --name {name}"
    click.echo(f"next: .venv/bin/python -m lab status{suffix}")


@main.command()
def check() -> None:
    """Tell whether this machine can boot a lab; what is missing is said at once, each with its remedy."""
    machine.check()
    click.echo("this machine can boot a lab")


@main.command()
@_name_option
def down(name: str) -> None:
    """Remove the lab with all its hosts, keys and files. Images stay."""
    existed = fleet.down(name, _report)
    click.echo(f"lab {name} removed" if existed else f"there is no lab {name}: nothing to do")


@main.command()
@_name_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def status(name: str, as_json: bool) -> None:
    """Show every host and its state. Exit status 1 unless all of them run."""
    hosts = fleet.status(name)
    if as_json:
        click.echo(json.dumps({"lab": name, "hosts": [host.to_dict() for host in hosts]}, indent=2))
    else:
        table = Table(
            "host", "group", "address", "Debian", "state", title=f"lab {name}", title_justify="left"
        )
        for host in hosts:
            state = host.state + (f" ({', '.join(host.failed_units)})" if host.failed_units else "")
            table.add_row(host.name, host.group, host.address, host.debian, state)
        _console.print(table)
    sys.exit(0 if all(host.state == "running" for host in hosts) else 1)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_name_option
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, host: str, command: tuple[str, ...]) -> None:
    """Log in to HOST as ops, or run COMMAND there."""
    argv = Lab.open(name).ssh_argv(host, command)
    os.execv(argv[0], argv)  # noqa: S606 - the shell is the remote one, as with ssh itself


@main.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_name_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND as root in HOST, not over the network."""
    lab = Lab.open(name)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    argv = lab.podman.exec_argv(lab.container(host), command, tty=tty)
    os.execv(argv[0], argv)  # noqa: S606


@main.command()
@_name_option
@click.argument("host")
@click.option("--unit", help="Only this unit.")
@click.option("--lines", type=click.IntRange(min=1), default=100, show_default=True, help="How many lines.")
def logs(name: str, host: str, unit: str | None, lines: int) -> None:
    """Show HOST's journal, or its console if it does not run."""
    lab = Lab.open(name)
    argv = ["journalctl", "--no-pager", f"--lines={lines}", *([f"--unit={unit}"] if unit else [])]
    if lab.system_state(host) != "down":
        click.echo(lab.exec(host, argv).stdout, nl=False)
    else:
        click.echo(f"{host} is down; its console:", err=True)
        done = lab.podman.run("logs", "--tail", str(lines), lab.container(host))
        click.echo(done.stdout + done.stderr, nl=False)


@main.command()
@_name_option
@click.argument("host")
@click.option("--hard", is_flag=True, help="As by a power cut: nothing is stopped in order.")
def reboot(name: str, host: str, hard: bool) -> None:
    """Reboot HOST and wait until it is back."""
    faults.reboot(Lab.open(name), host, hard=hard)
    click.echo(f"{host} rebooted")


@main.command()
@_name_option
@click.argument("host")
def kill(name: str, host: str) -> None:
    """Take the power away from HOST."""
    faults.kill(Lab.open(name), host)
    click.echo(f"{host} is down; `.venv/bin/python -m lab start {host}` brings it back")


@main.command()
@_name_option
@click.argument("host")
def start(name: str, host: str) -> None:
    """Switch HOST on again."""
    faults.start(Lab.open(name), host)
    click.echo(f"{host} is up")


@main.command()
@_name_option
@click.argument("host")
@click.argument("peers", nargs=-1)
def cut(name: str, host: str, peers: tuple[str, ...]) -> None:
    """Cut HOST off from PEERS until `heal`. None: every other host; `controller`: this machine."""
    faults.cut(Lab.open(name), host, *peers)
    click.echo(
        f"{host} is cut off from {', '.join(peers) or 'every other host'}; "
        "`.venv/bin/python -m lab heal` undoes it"
    )


@main.command()
@_name_option
def heal(name: str) -> None:
    """Lift every cut."""
    Lab.open(name)
    faults.heal(name)
    click.echo(f"no cuts in lab {name}")


@main.command("image")
@click.option("--debian", type=click.Choice([*RELEASES, *UBUNTU]), default="13", show_default=True)
@click.option("--mirror", envvar="LAB_DEBIAN_MIRROR", help="Debian mirror to build from.")
def image_(debian: str, mirror: str | None) -> None:
    """Build the image of a Debian release, if it is not there already."""
    machine.check()
    with namespace.machine_lock():
        podman = Podman.connect(start_keeper=True)
    try:
        there = image.exists(podman, debian)
        with _console.status(f"building the Debian {debian} image (about 40 s)"):
            name = image.build(podman, debian, mirror)
    finally:
        with namespace.machine_lock():
            fleet.stop_keeper_if_unused(podman)
    click.echo(f"{name} {'unchanged' if there else 'built'}")
