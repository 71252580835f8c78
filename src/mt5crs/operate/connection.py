"""Where a command gets its connection from: an `.env` file or the environment, by the services' names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import click

from mt5crs.client.connecting import connection_of
from mt5crs.client.connection import Peer
from mt5crs.client.gateway import GatewayClient
from mt5crs.service import exits
from mt5crs.settings import envfile
from mt5crs.settings.client import ClientSettings
from mt5crs.settings.fleet import MAKE_KEYS
from mt5crs.settings.schema import SettingsError, load, setting


class ConnectionSettings(ClientSettings, frozen=True, kw_only=True):
    """What a command needs of a service's settings."""

    part: ClassVar[str] = "connection"

    gateway_public_key: Annotated[
        str, setting("CURVE public key of the gateway.", kind="curve_public_key", create=MAKE_KEYS)
    ]
    client_secret_key: Annotated[
        str, setting("Our CURVE secret key.", kind="curve_secret_key", create=MAKE_KEYS)
    ]
    magic_number: Annotated[int, setting("Magic number to look at; 0 for none.", ge=0, le=2**63 - 1)] = 0
    expected_account_login: Annotated[int, setting("Login expected; 0: any.", ge=0, le=2**63 - 1)] = 0
    symbol: Annotated[str, setting("Symbol for dry-run orders.", min_length=1, max_length=32)] = "EURUSD"
    reconciler_socket: Annotated[str, setting("Local socket of the reconciler.", pattern=r"^/")] = (
        "/run/mt5crs-reconciler/state.sock"
    )
    state_dir: Annotated[str, setting("Directory of the service's state.")] = "/var/lib/mt5crs/reconciler"

    @property
    def peer(self) -> Peer:
        """The gateway and who we are."""
        return connection_of(self)[0]

    def client(self) -> GatewayClient:
        """A client with the configured patience."""
        return GatewayClient(*connection_of(self))


ENV_FILE = "MT5CRS_ENV_FILE"
"""Environment variable: the `.env` of this host's service; the `mt5crs` on a host's PATH sets it."""


def chosen_file(env_file: Path | None) -> Path | None:
    """The `.env` that a command reads: the one that is named, else this host's; None: the environment."""
    of_this_host = os.environ.get(ENV_FILE)
    if env_file is None and of_this_host and "GATEWAY_HOST" not in os.environ:
        return Path(of_this_host)
    return env_file


def load_connection(env_file: Path | None) -> ConnectionSettings:
    """Settings from the file (which wins) or the environment; exits with 78 and all problems at once.

    Without either, those of the service that runs on this host (:data:`ENV_FILE`).
    """
    env_file = chosen_file(env_file)
    try:
        values = envfile.read(env_file) if env_file is not None else dict(os.environ)
        return load(ConnectionSettings, values)
    except PermissionError as error:
        click.echo(f"error: only root may read {error.filename}: use sudo", err=True)
        raise SystemExit(exits.CONFIGURATION) from error
    except (SettingsError, OSError) as error:
        hint = "; name the fleet (`mt5crs --inventory …`), or a service's file with --env-file"
        click.echo(f"error: {error}{'' if env_file else hint}", err=True)
        raise SystemExit(exits.CONFIGURATION) from error


_F = TypeVar("_F", bound=Callable[..., Any])


def env_file_option(command: _F) -> _F:
    """`--env-file`, the same on every command that talks to a gateway."""
    return click.option(
        "--env-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Read connection and key from this .env file; without it from the environment.",
    )(command)


def json_option(command: _F) -> _F:
    """`--json`, the same on every command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)
