"""`mt5crs health SERVICE`: the release tool's question to a service, answered by its /health."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Mapping
from pathlib import Path

import click

from mt5crs.protocol.addresses import bracketed, reached_from_here, with_port
from mt5crs.service import exits
from mt5crs.service.live import digest_of
from mt5crs.settings import envfile
from mt5crs.settings.services import endpoint_of, programs

HTTP_OK = 200
_STARTING = ("starting", "syncing")
_TIMEOUT_S = 3.0


class HealthCheckBrokenError(Exception):
    """What answers is no service of ours."""


def ask_health(address: str, port: int, timeout_s: float = _TIMEOUT_S) -> tuple[int, dict[str, object]]:
    """HTTP status and body of /health. Raises OSError or HealthCheckBrokenError."""
    with _connected(address, port, timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(f"GET /health HTTP/1.0\r\nHost: {bracketed(address)}\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    try:
        status, content = int(words[1]), json.loads(body)
    except (IndexError, ValueError) as error:
        raise HealthCheckBrokenError(
            f"{with_port(address, port)} does not answer like a service of this product; "
            "another program has taken the port, or METRICS_PORT (the Hub's HTTP_PORT) differs"
        ) from error
    if not isinstance(content, dict):
        raise HealthCheckBrokenError(f"/health of {with_port(address, port)} is not an object")
    return status, content


def _connected(address: str, port: int, timeout_s: float) -> socket.socket:
    """A connection from the very address that is asked, if it is this host's.

    The kernel would take the interface's first address, and a service lets in none but the one it has.
    """
    try:
        return socket.create_connection((address, port), timeout_s, source_address=(address, 0))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
    return socket.create_connection((address, port), timeout_s)


def exit_status_of(status: int, content: dict[str, object]) -> int:
    """0 healthy, 75 still starting, 1 otherwise."""
    if status == HTTP_OK:
        return exits.OK
    return exits.INCONCLUSIVE if content.get("state") in _STARTING else exits.FAILED


def _former_settings(content: Mapping[str, object], path: Path | None) -> str:
    """Why these are not the settings in force; empty if they are, or are not asked for."""
    if path is None:
        return ""
    try:
        wanted = digest_of(path.read_bytes())
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}), so what should be in force is not known"
    told = content.get("settings")
    told = told if isinstance(told, dict) else {}
    if told.get("in_force") == wanted:
        return ""
    refused = told.get("refused") or {}
    if refused.get("digest") in (wanted, ""):
        return f"it refuses {path}, and keeps the settings it had: {refused.get('reason')}"
    return f"it has other settings in force than {path}: read again on SIGHUP, or restart it"


def _former_access(content: Mapping[str, object], path: Path | None) -> str:
    """Why this is not the access list in force; empty if it is, or is not asked for."""
    if path is None:
        return ""
    try:
        wanted = int(json.loads(path.read_bytes())["serial"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} cannot be used ({error!r}), so which access list should be in force is not known"
    if content.get("access") == wanted:
        return ""
    return (
        f"it has version {content.get('access')} of the access list in force, not version {wanted} of {path}"
    )


def _unit(service: str, file: Path | None) -> str:
    """The service's unit; whether it is that of an instance (strategy@NAME), a file of it tells."""
    parts = file.absolute().parts if file else ()
    return f"mt5crs-{next((part for part in parts if part.startswith(f'{service}@')), service)}"


@click.command()
@click.argument("service", type=click.Choice(programs()))
@click.option(
    "--address", help="Address of its metrics end point; default: of the .env file, else 127.0.0.1."
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of it; default: of the .env file, else as shipped."
)
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Take address and port from this .env file (METRICS_…, of the Hub HTTP_…).",
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Unhealthy unless it has these live settings in force (live.env of its generation).",
)
@click.option(
    "--access",
    "access_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Unhealthy unless it has this access list in force (gateway).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def health(
    service: str,
    address: str | None,
    port: int | None,
    env_file: Path | None,
    settings_file: Path | None,
    access_file: Path | None,
    as_json: bool,
) -> None:
    """Exit 0 when SERVICE is healthy, 75 while it starts, 1 when it is not, 3 when the check is broken.

    78: the .env file cannot be used.
    """
    if env_file is not None or not (address and port):
        of_address, of_port = endpoint_of(service)
        try:
            values = envfile.read(env_file) if env_file is not None else {}
            address = address or values.get(str(of_address.env)) or "127.0.0.1"
            port = port or int(values.get(str(of_port.env)) or of_port.default)
        except (OSError, ValueError) as error:  # SettingsError is one
            click.echo(f"error: {error}", err=True)
            raise SystemExit(exits.CONFIGURATION) from error
    address = reached_from_here(address)
    try:
        status, content = ask_health(address, port)
    except HealthCheckBrokenError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(3) from error
    except OSError as error:
        status = 0
        content = {
            "healthy": False,
            "state": "down",
            "reason": f"nothing answers on {with_port(address, port)} ({error}); "
            f"see `journalctl -u {_unit(service, settings_file or env_file)}`",
        }
    former = status and (_former_settings(content, settings_file) or _former_access(content, access_file))
    if former and status == HTTP_OK:
        status, content = 0, {**content, "healthy": False, "state": "former_settings", "reason": former}
    if as_json:
        click.echo(json.dumps({"service": service, **content}, indent=2))
    else:
        why = content.get("reason") or content.get("error")
        reason = f": {why}" if why else ""
        click.echo(f"{service} {content.get('state', '?')}{reason}")
    raise SystemExit(exit_status_of(status, content))
