"""Which gateways a command is for: the one of an `.env`, or all of a fleet with an operator's key.

`mt5crs --inventory inventory/<environment>.yml halt …` works on the controller: addresses, ports and the key
come from the inventory and its vault. All gateways are asked at once, and one that does not answer keeps no
other from being asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import click
import msgspec

from mt5crs.client.errors import GatewayError, GatewayUnreachableError, KeyRefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.chosen import Chosen, Target
from mt5crs.operate.connection import ConnectionSettings, load_connection

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a gateway said, or why it did not."""

    name: str
    value: T | None
    error: str = ""


def targets(env_file: Path | None, magic: int | None = None) -> list[Target]:
    """The gateways that the command line names.

    magic: only the one through which this magic number is traded. Exits with 2 or 78 and the reason.
    """
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        return [Target("", load_connection(env_file))]
    if env_file is not None:
        raise click.UsageError("--inventory and --env-file are two ways to say the same; name one")
    found = chosen.controller().targets()
    if magic is None:
        return found
    fitting = [target for target in found if magic in (target.magics or ())]
    if not fitting:
        known = ", ".join(str(number) for target in found for number in sorted(target.magics or ()))
        raise click.UsageError(
            f"no Inf host of {chosen.inventory} trades {magic}; there are {known or 'none'}"
        )
    return fitting


def ask(of: Sequence[Target], call: Callable[[GatewayClient, ConnectionSettings], T]) -> list[Answer[T]]:
    """Ask every gateway, all at once; a failed call is an answer too.

    Where a key was rotated and that is not deployed yet, the one of before is tried; while a gateway moves,
    its other address: a halt gets through.
    """

    def one(target: Target) -> Answer[T]:
        first, silent = "", set[str]()
        for connection in (target.connection, *target.formers):
            if connection.gateway_host in silent:
                continue
            try:
                with connection.client() as client:
                    return Answer(target.name, call(client, connection))
            except GatewayUnreachableError as error:  # nothing was sent
                first = first or str(error)
                if not isinstance(error, KeyRefusedError):
                    silent.add(connection.gateway_host)
            except GatewayError as error:
                return Answer(target.name, None, str(error))
        return Answer(target.name, None, first)

    with ThreadPoolExecutor(len(of)) as pool:
        return list(pool.map(one, of))


def show(
    answers: Sequence[Answer[T]],
    text: Callable[[T], str],
    *,
    as_json: bool,
    plain: Callable[[T], Any] = lambda value: value,
) -> int:
    """Print what every gateway said; the exit status is 1 when one did not answer.

    As JSON: the answer itself for the one gateway of an `.env`, for a fleet one object by host.
    """
    alone = [answer for answer in answers if not answer.name]
    if as_json:
        told: Mapping[str, Any] | Any = {
            answer.name: {"error": answer.error} if answer.value is None else plain(answer.value)
            for answer in answers
        }
        if alone and alone[0].value is not None:
            told = plain(alone[0].value)
        if not alone or alone[0].value is not None:
            click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    for answer in answers:
        if answer.value is None:
            who = f"{answer.name}: " if answer.name else ""
            click.echo(f"error: {who}{answer.error}", err=True)
        elif not as_json:
            if answer.name:
                click.secho(answer.name, bold=True)
            click.echo(text(answer.value))
    return int(any(answer.value is None for answer in answers))
