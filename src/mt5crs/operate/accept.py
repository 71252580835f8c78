"""`mt5crs accept`: an operator's word that the broker is right and the reconciler's record is not."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from mt5crs.operate.chosen import Chosen
from mt5crs.operate.connection import chosen_file
from mt5crs.operate.report import one_line_errors
from mt5crs.reconciler.store import Acceptance, write_acceptance
from mt5crs.settings import envfile


@click.command()
@click.argument("host", required=False)
@click.option("--reason", required=True, help="Why the broker's state is the right one; it is logged.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="STATE_DIR of the reconciler; by default of this host's, or of the one on HOST.",
)
@click.option("--who", help="In whose name; by default that of this account.")
def accept(host: str | None, reason: str, state_dir: Path | None, who: str | None) -> None:
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
        given = ["--state-dir", str(state_dir)] if state_dir else []
        chosen.controller().accept(host, reason.strip(), [*given, "--who", who])
        return
    if host is not None:
        raise click.UsageError("HOST goes with `mt5crs --inventory`; here it is about this host")
    state_dir = state_dir or _of_this_host()
    if not state_dir.is_dir():
        raise click.BadParameter(f"{state_dir} is no directory", param_hint="--state-dir")
    with one_line_errors(OSError):
        write_acceptance(state_dir, Acceptance(reason=reason.strip(), who=who))
    click.echo(f"accepted; now run `systemctl restart mt5crs-{state_dir.name}`")


def _of_this_host() -> Path:
    """Where the reconciler whose `.env` this host's `mt5crs` has chosen keeps its state."""
    chosen = chosen_file(None)
    known = envfile.read(chosen) if chosen else {}
    return Path(known.get("STATE_DIR", "/var/lib/mt5crs/reconciler"))
