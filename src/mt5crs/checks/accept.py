"""`mt5crs accept`: an operator's word that the broker is right and the reconciler's record is not."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from mt5crs.checks.report import one_line_errors
from mt5crs.reconciler.store import Acceptance, write_acceptance


@click.command()
@click.option("--reason", required=True, help="Why the broker's state is the right one; it is logged.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/lib/mt5crs/reconciler"),
    show_default=True,
    help="STATE_DIR of the reconciler.",
)
def accept(reason: str, state_dir: Path) -> None:
    """Let the next start of the reconciler take over the broker's state, whatever its record says.

    For the one case in which it rightly refuses to start: positions that no deal explains. Look at the
    terminal first; nothing is changed at the broker.
    """
    if len(reason.strip()) < 3:
        raise click.BadParameter("say why in at least three characters", param_hint="--reason")
    with one_line_errors(OSError):
        write_acceptance(state_dir, Acceptance(reason=reason.strip(), who=getpass.getuser()))
    click.echo("accepted; now run `systemctl restart mt5crs-reconciler`")
