"""Acts of an operator on a fleet, told to its audit log once they are done. Nothing waits for the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mt5crs.operate.gateways import Answer, Chosen, fleet_of


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
        why = _add(chosen, what, told)
    except Exception as error:  # whatever it is, the act itself stands
        why = f"{type(error).__name__}: {error}"
    if why:
        click.echo(f"this is not in the fleet's audit log: {why}", err=True)


def _add(chosen: Chosen, what: str, told: dict[str, Any]) -> str:
    fleet = fleet_of(chosen.inventory)
    from deploy.coordination import audit_log

    operators = fleet.hosts[next(iter(fleet.hosts))].get("fleet_operators") or [{}]
    operator = chosen.operator or operators[0].get("name")
    known = {name: value for name, value in told.items() if value is not None}
    return audit_log.add(
        audit_log.reach_of(fleet),
        [audit_log.act(what, **known, **({"operator": operator} if operator else {}))],
    )
