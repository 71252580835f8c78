"""`mt5crs accept`: an operator's word that the broker is right and the reconciler's record is not."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from deploy.commands import hosts
from mt5crs.operate.acts import acted
from mt5crs.operate.gateways import Chosen, fleet_of
from mt5crs.operate.report import one_line_errors
from mt5crs.reconciler.store import Acceptance, write_acceptance

_PROGRAM = "/usr/local/bin/mt5crs"
_UNIT = "mt5crs-reconciler.service"
_WITHIN_S = 90
"""For a reconciler that starts, which a strategy that stops may have to wait for."""


@click.command()
@click.argument("host", required=False)
@click.option("--reason", required=True, help="Why the broker's state is the right one; it is logged.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/mt5crs/reconciler"),
    show_default=True,
    help="STATE_DIR of the reconciler.",
)
@click.option("--who", help="In whose name; by default that of this account.")
def accept(host: str | None, reason: str, state_dir: Path, who: str | None) -> None:
    """Let the next start of the reconciler take over the broker's state, whatever its record says.

    For the one case in which it rightly refuses to start: positions that no deal explains. Look at the
    terminal first; nothing is changed at the broker. With `mt5crs --inventory` on HOST, whose reconciler is
    then started again, and its strategy with it; exit status 1 if it does not get ready. One that runs has
    nothing to accept: it is left alone.
    """
    if len(reason.strip()) < 3:
        raise click.BadParameter("say why in at least three characters", param_hint="--reason")
    who = who or getpass.getuser()
    chosen = click.get_current_context().find_root().obj
    if isinstance(chosen, Chosen):
        _on(chosen, host, reason.strip(), ["--state-dir", str(state_dir), "--who", who])
        return
    if host is not None:
        raise click.UsageError("HOST goes with `mt5crs --inventory`; here it is about this host")
    if not state_dir.is_dir():
        raise click.BadParameter(f"{state_dir} is no directory", param_hint="--state-dir")
    with one_line_errors(OSError):
        write_acceptance(state_dir, Acceptance(reason=reason.strip(), who=who))
    click.echo("accepted; now run `systemctl restart mt5crs-reconciler`")


def _on(chosen: Chosen, host: str | None, reason: str, words: list[str]) -> None:
    """Do it on a host of the fleet, and start its reconciler."""
    fleet = fleet_of(chosen.inventory)
    from deploy.remote import ssh

    there = fleet.in_group("inf")
    if host not in there:
        raise click.UsageError(f"name an Inf host of {chosen.inventory}: {', '.join(there) or 'it has none'}")
    variables = fleet.hosts[host]
    runs = ssh.run(variables, ["systemctl", "is-active", _UNIT], timeout_s=_WITHIN_S)
    if runs.status is None:
        raise click.ClickException(f"{host}: nothing was accepted: {runs.why}")
    if runs.status == 0:
        raise click.ClickException(
            f"{host}: its reconciler runs, so it agrees with the broker and nothing is to be accepted; "
            "nothing was done"
        )
    accepted = ssh.run(variables, [_PROGRAM, "accept", "--reason", reason, *words], timeout_s=_WITHIN_S)
    if accepted.status != 0:
        raise click.ClickException(f"{host}: nothing was accepted: {accepted.why}")
    acted("broker.accepted", host=host, reason=reason)
    # It refused so often that systemd may have given it up, and would refuse a start for up to a minute.
    ssh.run(variables, ["systemctl", "reset-failed", _UNIT], timeout_s=_WITHIN_S)
    started = ssh.run(variables, ["systemctl", "restart", _UNIT], timeout_s=_WITHIN_S)
    if started.status != 0:
        why = hosts.why_it_ended(variables, _UNIT) or f"{started.why}; see its journal"
        raise click.ClickException(
            f"{host}: accepted for its next start, but its reconciler did not get ready: {why}"
        )
    click.echo(f"{host}: accepted; its reconciler has taken over the broker's state")
