"""`mt5crs flatten`: cancel and close everything of one halted magic number."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from mt5crs.client.errors import GatewayError, RefusedError
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.chosen import Target
from mt5crs.operate.connection import ConnectionSettings, env_file_option, json_option
from mt5crs.operate.gateways import Answer, ask, show, targets
from mt5crs.operate.report import table
from mt5crs.protocol import replies, requests

_VALID_MS = 10_000
_NO_LEASE = 1
"""The protocol wants an epoch; the gateway looks at the halt instead when an operator closes."""
GOOD = frozenset({"FILLED", "CANCELED"})


class Step(msgspec.Struct, frozen=True):
    """One order cancelled or one position closed, or why not."""

    what: str
    ticket: int
    result: str
    message: str


@click.command()
@click.option("--magic", type=click.IntRange(1), required=True, help="The halted magic number.")
@click.option("--dry-run", is_flag=True, help="Show what would be cancelled and closed.")
@env_file_option
@json_option
def flatten(magic: int, dry_run: bool, env_file: Path | None, as_json: bool) -> None:
    """Cancel every working order and close every position of a halted magic number, at market.

    Needs a client with the permissions observe and administer that does not trade this magic number. Exit 1
    when something is left.
    """

    def call(client: GatewayClient, _connection: ConnectionSettings) -> list[Step]:
        books = client.snapshot(magic, history_since_msc=None, whole_account=False)
        steps = [step_of(client, magic, "order", order.ticket, dry_run) for order in books.orders]
        return steps + [step_of(client, magic, "position", p.identifier, dry_run) for p in books.positions]

    def text(steps: list[Step]) -> str:
        return steps_text(steps) if steps else "nothing is open"

    of = targets(env_file, magic)
    if not dry_run:
        begun(f"cancels every working order of {magic} and closes every position of it at market", of)
    answers = ask(of, call)
    failed = show(answers, text, as_json=as_json)
    if not dry_run:
        acted("flatten", answers, magic=magic, steps=[step for answer in answers for step in _told(answer)])
    left = any(step.result not in GOOD for answer in answers for step in answer.value or ())
    raise SystemExit(failed or (1 if left and not dry_run else 0))


def begun(what: str, of: Sequence[Target]) -> None:
    """Say what is about to be done, and at which gateways; on standard error, since it is no answer."""
    where = ", ".join(target.name or "the gateway of this .env" for target in of)
    click.echo(f"this {what}; at {where}", err=True)


def _told(answer: Answer[list[Step]]) -> list[dict[str, Any]]:
    return [told(step) for step in answer.value or ()]


def told(step: Step) -> dict[str, Any]:
    """A step as the audit log keeps it."""
    return {"what": step.what, "ticket": step.ticket, "result": step.result}


def steps_text(steps: Sequence[Step]) -> str:
    """A table of what was tried."""
    rows = [(step.what, step.ticket, step.result, step.message) for step in steps]
    return table(("WHAT", "TICKET", "RESULT", "MESSAGE"), rows)


def step_of(client: GatewayClient, magic: int, what: str, ticket: int, dry_run: bool = False) -> Step:
    """Cancel an `order`, or close a `position`; that it did not work out is a step too."""
    if dry_run:
        return Step(what, ticket, "would be cancelled" if what == "order" else "would be closed", "")
    common: dict[str, Any] = {
        "magic": magic,
        "client_order_id": f"flatten-{uuid.uuid4().hex}",
        "lease_epoch": _NO_LEASE,
        "valid_ms": _VALID_MS,
    }
    try:
        if what == "order":
            answer = client.call(requests.OrderCancel, replies.OrderResult, order=ticket, **common)
        else:
            answer = client.call(
                requests.PositionClose,
                replies.OrderResult,
                position=ticket,
                volume=None,
                max_slippage_points=None,
                **common,
            )
    except RefusedError as error:
        return Step(what, ticket, error.reply.code, f"{error.reply.message}; {error.reply.remedy}")
    except GatewayError as error:
        return Step(what, ticket, "UNKNOWN", str(error))
    return Step(what, ticket, answer.outcome, answer.message)
