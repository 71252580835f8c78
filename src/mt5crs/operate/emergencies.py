"""One command each for an emergency, beside `halt` and `flatten`: cancel what waits, withdraw trading rights.

Each says first what it does, asks every gateway that it is for, and goes on past one that does not answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from msgspec import Struct

from mt5crs.client.errors import GatewayError
from mt5crs.client.gateway import GatewayClient
from mt5crs.operate.acts import acted
from mt5crs.operate.connection import ConnectionSettings, env_file_option, json_option
from mt5crs.operate.flatten import GOOD, Step, begun, step_of, steps_text, told
from mt5crs.operate.gateways import ask, show, targets
from mt5crs.operate.reason import a_reason
from mt5crs.operate.trading import REASON_LENGTH, WITHDRAWN
from mt5crs.phases.profile import lowest
from mt5crs.protocol import replies, requests
from mt5crs.protocol.records import Order

_LOOKS = 3
"""The books are looked at so often: an order that was on its way at the halt appears a moment later."""
_reason_option = click.option(
    "--reason", required=True, callback=a_reason, help="Why; kept in the gateway's records."
)


class Cancelled(Struct, frozen=True):
    """What became of the working orders. `in_flight`: submissions that the broker had when the halt came."""

    steps: list[Step]
    in_flight: int
    left: list[int]
    """Tickets that the last look still shows."""
    unseen: str = ""
    """Why the books could not be looked at; empty: they were."""


@click.command()
@_reason_option
@click.option("--magic", type=click.IntRange(1), help="Only this magic number; without it the whole fleet.")
@env_file_option
@json_option
def cancel(reason: str, magic: int | None, env_file: Path | None, as_json: bool) -> None:
    """Halt, then cancel every working order, of one magic number or of all. Positions stay as they are.

    The halt keeps programs from ordering anew; `mt5crs resume` lifts it. Exit status 1: something is left, or
    a gateway did not answer.
    """

    def call(client: GatewayClient, _connection: ConnectionSettings) -> Cancelled:
        return _cancelled(client, magic, reason)

    def text(done: Cancelled) -> str:
        lines = [steps_text(done.steps) if done.steps else "no order was working"]
        if done.in_flight:
            lines.append(
                f"{done.in_flight} submissions were in the broker's hands at the halt: run it once more"
            )
        lines += [f"order {ticket} still works" for ticket in done.left]
        if done.unseen:
            lines = [*lines[bool(not done.steps) :], f"halted, but its orders are not known: {done.unseen}"]
        return "\n".join(lines)

    of = targets(env_file, magic)
    whom = f"magic number {magic}" if magic else "everything"
    begun(f"halts {whom}, then cancels all working orders of it; positions stay", of)
    answers = ask(of, call)
    failed = show(answers, text, as_json=as_json)
    steps = [told(step) for answer in answers if answer.value for step in answer.value.steps]
    acted("orders.cancelled", answers, magic=magic, reason=reason, steps=steps)
    done = [answer.value for answer in answers if answer.value]
    left = any(one.left or one.in_flight or one.unseen for one in done)
    bad = any(step["result"] not in GOOD for step in steps)
    raise SystemExit(failed or int(left or bad))


def _cancelled(client: GatewayClient, magic: int | None, reason: str) -> Cancelled:
    scope = "FLEET" if magic is None else "MAGIC"
    halted = client.call(requests.Halt, replies.HaltState, magic=magic or 0, scope=scope, reason=reason)
    tried: dict[int, Step] = {}
    orders: list[Order] = []
    for _ in range(_LOOKS):
        try:
            books = client.snapshot(magic or 0, history_since_msc=None, whole_account=magic is None)
        except GatewayError as error:
            return Cancelled(list(tried.values()), halted.in_flight, [], str(error))
        orders = books.orders
        new = [order for order in orders if order.ticket not in tried]
        tried |= {order.ticket: _cancel(client, order) for order in new}
        if not new and not halted.in_flight:
            break
    return Cancelled(list(tried.values()), halted.in_flight, [order.ticket for order in orders])


def _cancel(client: GatewayClient, order: Order) -> Step:
    if order.magic <= 0:
        why = "no magic number of ours: set by hand or by another program; cancel it in the terminal"
        return Step("order", order.ticket, "LEFT", why)
    return step_of(client, order.magic, "order", order.ticket)


class Withdrawn(Struct, frozen=True):
    """What `withdraw` did at a gateway: act → `done`, or why not. `enforced`: whether it uses phases."""

    acts: dict[str, str]
    enforced: bool | None


@click.command()
@_reason_option
@click.option("--magic", type=click.IntRange(1), required=True, help="The magic number.")
@env_file_option
@json_option
def withdraw(reason: str, magic: int, env_file: Path | None, as_json: bool) -> None:
    """Stop a magic number and take its trading rights, until a person gives them back.

    It is halted and may only reduce; where phases are on it falls to the lowest one, and no record from
    before counts any more. `start` then refuses it. What is open stays: `flatten` closes it. Exit status 1: a
    gateway did not answer, or did not do all of it.
    """
    if len(WITHDRAWN + reason) > REASON_LENGTH[1]:
        raise click.UsageError(f"say why in at most {REASON_LENGTH[1] - len(WITHDRAWN)} characters")

    def call(client: GatewayClient, _connection: ConnectionSettings) -> Withdrawn:
        return _withdrawn(client, magic, WITHDRAWN + reason)

    def text(done: Withdrawn) -> str:
        return "\n".join([*(f"{what}: {how}" for what, how in done.acts.items()), _way_back(done, magic)])

    of = targets(env_file, magic)
    begun(
        f"halts magic number {magic}, lets it only reduce, and puts it under the lowest phase where phases "
        "are on; positions and working orders stay",
        of,
    )
    answers = ask(of, call)
    failed = show(answers, text, as_json=as_json)
    acts = {answer.name: answer.value.acts for answer in answers if answer.value}
    acted("trading.withdrawn", answers, magic=magic, reason=reason, acts=acts)
    whole = all(how in _WHOLE for done in acts.values() for how in done.values())
    raise SystemExit(failed or int(not whole))


_DONE, _NO_PHASES = "done", "not done: this gateway uses no phases"
_WHOLE = frozenset({_DONE, _NO_PHASES})


def _withdrawn(client: GatewayClient, magic: int, reason: str) -> Withdrawn:
    """Each of the three by itself: one that fails keeps no other. GatewayError when the halt fails."""
    client.call(requests.Halt, replies.HaltState, magic=magic, scope="MAGIC", reason=reason)
    acts = {"halted": _DONE}
    enforced: bool | None = None

    def only_reducing() -> replies.PhaseState:
        return client.call(
            requests.PhaseTrading, replies.PhaseState, magic=magic, state="REDUCING", reason=reason
        )

    def to_the_lowest() -> replies.PhaseState:
        return client.call(
            requests.PhaseDemote, replies.PhaseState, magic=magic, profile=lowest().name, reason=reason
        )

    acts["only reducing"], state = _tried(only_reducing)
    if state is not None and not state.enforced:
        acts["under the lowest phase"], enforced = _NO_PHASES, False
    else:
        acts["under the lowest phase"], fallen = _tried(to_the_lowest)
        enforced = None if fallen is None else fallen.enforced
    return Withdrawn(acts, enforced)


def _tried(call: Callable[[], replies.PhaseState]) -> tuple[str, replies.PhaseState | None]:
    try:
        return _DONE, call()
    except GatewayError as error:
        return f"FAILED: {error}", None


def _way_back(done: Withdrawn, magic: int) -> str:
    if done.enforced:
        return (
            f"it trades again only after `mt5crs … phase activate --magic {magic}` or a newly signed record "
            "(`phase promote`), and then `start`; without a new record its orders are only checked"
        )
    if done.enforced is None:
        return (
            f"whether this gateway uses phases is not known: look with `mt5crs … phase show --magic {magic}`"
        )
    return (
        "phases are off here, so no signature stands before its return: any operator's "
        f"`mt5crs … phase activate --magic {magic}` and then `start` (or `resume`) give it back. To take the "
        "right itself: take fleet_limits of its host out of the inventory and deploy the gateway"
    )
