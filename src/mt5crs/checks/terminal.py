"""`mt5crs terminal`: why the gateway's MetaTrader 5 terminal does not start, on the gateway's own host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from mt5crs.broker.windows_programs import PROC, on_this_host, programs
from mt5crs.checks.terminal_causes import Seen, findings, verdict_of
from mt5crs.probes.health import HealthCheckBrokenError, ask_health
from mt5crs.protocol.addresses import reached_from_here
from mt5crs.service import exits
from mt5crs.wine_terminal.display import answers
from mt5crs.wine_terminal.installing import KEY

if TYPE_CHECKING:
    from mt5crs.settings.gateway import GatewaySettings

ENV_FILE = Path("/opt/mt5crs/gateway/current/.env")
_PICTURE_S = 20.0
_MARK = {"fine": "ok     ", "cause": "CAUSE  ", "unknown": "unknown"}
_STATUS = {"fine": exits.OK, "cause": exits.FAILED, "unknown": exits.INCONCLUSIVE}


def looked_at(settings: GatewaySettings) -> Seen:
    """Look at this host and ask the gateway."""
    from mt5crs.broker.wine import wine_of

    under_wine, wine = settings.platform == "wine", wine_of(settings)
    prefix = Path(wine.prefix)
    path = on_this_host(settings.mt5_path, prefix if under_wine else None)
    try:
        there: bool | None = path.is_file()
        user = Path(settings.state_dir).owner()
    except (OSError, KeyError, NotImplementedError):
        there, user = None, ""
    state, reason = _told(settings)
    return Seen(
        state=state,
        reason=reason,
        under_wine=under_wine,
        wine_problem=wine.problem() if under_wine else "",
        path=str(path),
        path_there=there,
        user=user,
        prefix=str(prefix),
        display=settings.wine_display,
        display_there=answers(settings.wine_display) if settings.wine_display else None,
        held=_held(prefix) if under_wine else None,
        programs=tuple(programs()) if PROC.is_dir() and user else None,
    )


def _held(prefix: Path) -> bool | None:
    from mt5crs.wine_terminal.readiness import is_held  # of Linux alone

    try:
        return is_held(prefix)
    except OSError:
        return None


def _told(settings: GatewaySettings) -> tuple[str, str]:
    """State and reason of the terminal, as the gateway has them."""
    try:
        _, content = ask_health(reached_from_here(settings.metrics_address), settings.metrics_port)
    except (OSError, HealthCheckBrokenError) as error:
        return "down", str(error)
    return str(content.get("terminal", "unknown")), str(content.get("terminal_reason", ""))


def _installed(settings: GatewaySettings, program: Path, arguments: tuple[str, ...]) -> int:
    from mt5crs.broker.wine import wine_of
    from mt5crs.wine_terminal.installing import CannotInstallError, run

    if settings.platform != "wine" or not settings.wine_display:
        click.echo(
            "error: this gateway has no terminal under Wine (gateway_platform, gateway_wine_display)",
            err=True,
        )
        return exits.CONFIGURATION
    wine = wine_of(settings)
    click.echo(f"{program} runs in {wine.prefix}, on display {wine.display}; what it shows: --picture FILE")
    try:
        status = run(program, arguments, wine)
    except CannotInstallError as error:
        click.echo(f"error: {error}", err=True)
        return exits.FAILED
    click.echo(f"it ended with exit status {status}")
    return exits.OK if status == 0 else exits.FAILED


def picture(file: Path, display: str, user: str) -> str:
    """Save what a display shows as a picture; why there is none, or empty."""
    program = shutil.which("import") if display else None
    if program is None:
        return "no picture: it needs a display and the program `import` (apt-get install imagemagick)"
    try:
        with file.open("xb") as saved:
            done = subprocess.run(
                [program, "-display", display, "-window", "root", "png:-"],
                env={**os.environ, **({"XAUTHORITY": str(KEY)} if KEY.exists() else {})},
                stdin=subprocess.DEVNULL,
                stdout=saved,
                stderr=subprocess.PIPE,
                text=True,
                user=user if os.geteuid() == 0 else None,
                timeout=_PICTURE_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no picture: {error}"
    return "" if done.returncode == 0 else f"no picture: {done.stderr.strip()[-300:]}"


@click.command()
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ENV_FILE,
    show_default=True,
    help="The gateway's .env file.",
)
@click.option(
    "--picture",
    "picture_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Save what the terminal's display shows there (PNG); look at it before you send it to anybody.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--install",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Under Wine: run this Windows program where the terminal lives, to its end, and look at nothing.",
)
@click.argument("arguments", nargs=-1)
def terminal(
    env_file: Path, picture_file: Path | None, as_json: bool, install: Path | None, arguments: tuple[str, ...]
) -> None:
    """Name which of the known causes keeps the gateway's MetaTrader 5 terminal from starting.

    On the gateway's host, as root. Exit 0: none of them; 1: a cause was found; 75: something could not be
    looked at; 78: the .env file cannot be used. With --install, ARGUMENTS are the program's (after `--`, if
    they begin with one).
    """
    from mt5crs.settings.envfile import load_env_text
    from mt5crs.settings.gateway import GatewaySettings
    from mt5crs.settings.schema import SettingsError

    try:
        settings = load_env_text(GatewaySettings, env_file.read_text(encoding="utf-8"), origin=str(env_file))
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(exits.CONFIGURATION) from error
    if install is not None:
        raise SystemExit(_installed(settings, install, arguments))
    if arguments:
        raise click.UsageError("ARGUMENTS go with --install")
    if settings.backend == "sim":
        click.echo("the gateway trades the simulated broker: there is no terminal")
        return
    seen = looked_at(settings)
    found = findings(seen)
    verdict = verdict_of(found)
    shown = picture(picture_file, seen.display, seen.user) if picture_file is not None else ""
    if as_json:
        each = [msgspec.to_builtins(one) for one in found]
        told = {"state": seen.state, "reason": seen.reason, "verdict": verdict, "findings": each}
        click.echo(json.dumps({**told, "picture": shown or str(picture_file or "")}, indent=2))
    else:
        click.echo(f"terminal {seen.state}{f': {seen.reason}' if seen.reason else ''}")
        for one in found:
            click.echo(f"{_MARK[one.verdict]}  {one.name}: {one.detail}")
            if one.verdict == "cause":
                click.echo(f"{'':9}{one.remedy}")
        if picture_file is not None:
            click.echo(shown or f"picture: {picture_file}")
    raise SystemExit(_STATUS[verdict])
