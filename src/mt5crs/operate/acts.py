"""Acts of an operator on a fleet, told to its audit log once they are done. Nothing waits for the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mt5crs.operate.chosen import Chosen
from mt5crs.operate.gateways import Answer


def acted(what: str, answers: Sequence[Answer[Any]] = (), **told: Any) -> None:
    """Record an act in the audit log of the fleet that --inventory names; never raises.

    Without --inventory there is no fleet to know of: the gateway's own records tell then.

    :param answers: what gateways said; recorded by host as `done`, or why not
    """
    chosen = click.get_current_context().find_root().obj
    if not isinstance(chosen, Chosen):
        return
    if answers:
        told["gateways"] = {
            answer.name: "done" if answer.value is not None else answer.error for answer in answers
        }
    try:
        why = chosen.controller().record(what, told)
    except Exception as error:  # whatever it is, the act itself stands
        why = f"{type(error).__name__}: {error}"
    if why:
        click.echo(f"this is not in the fleet's audit log: {why}", err=True)
