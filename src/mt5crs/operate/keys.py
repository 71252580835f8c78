"""`mt5crs keys`: CURVE keys of one program. Secrets go to files of mode 0600, never to the screen."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mt5crs.operate.connection import env_file_option, load_connection
from mt5crs.operate.report import one_line_errors
from mt5crs.protocol.curve import new_keypair, public_of


@click.group()
def keys() -> None:
    """Make keys, or show a public one. A whole fleet's keys: `python -m deploy.keys`."""


@keys.command()
@click.option(
    "--secret-file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the secret (64 hex characters, mode 0600); must not exist.",
)
def new(secret_file: Path) -> None:
    """Make a pair: the secret into a file, the public key on the screen."""
    public, secret = new_keypair()
    with one_line_errors(OSError):
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
    click.echo(public)


@keys.command()
@env_file_option
def public(env_file: Path | None) -> None:
    """Show the public key that belongs to CLIENT_SECRET_KEY."""
    click.echo(public_of(load_connection(env_file).client_secret_key))
