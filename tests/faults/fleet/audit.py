"""Was an order doubled, a position lost, or an order sent under a stale epoch? Pure, over collected records.

Three sources that know nothing of each other are compared: the broker's books, the gateway's journal, and the
record of each strategy. `tests.faults.fleet.collect` reads them from the hosts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

EPSILON = 1e-9


@dataclass(frozen=True)
class Deal:
    """An executed trade in the broker's books. `volume` in lots; `entry` IN opens, OUT closes."""

    ticket: int
    order: int
    position: int
    entry: str
    volume: float
    comment: str


@dataclass(frozen=True)
class Submission:
    """What the gateway handed to the broker: its journal, in the order of sending.

    `volume` in lots, None for what has none (a cancel). `sent` is False for what was refused before that; it
    has no place in the order. Epochs are counted by `account`.
    """

    client_order_id: str
    comment: str
    epoch: int
    state: str
    volume: float | None
    sent: bool = True
    account: str = ""


@dataclass(frozen=True)
class Books:
    """All records of one magic number. Positions: identifier → lots; intents: client order id → state."""

    magic: int
    deals: Sequence[Deal]
    positions: dict[int, float]
    submissions: Sequence[Submission]
    intents: dict[str, str]
    reconciled: dict[int, float] = field(default_factory=dict)


def audit(books: Books) -> list[str]:
    """Every violation in words; empty when the records agree. They are taken while nothing is under way."""
    return [f"magic {books.magic}: {text}" for text in _violations(books)]


def _violations(books: Books) -> Iterator[str]:
    yield from _doubled(books)
    yield from _lost_orders(books)
    yield from _lost_positions(books)
    yield from _stale_epochs(books)
    yield from _open_ends(books)


def _doubled(books: Books) -> Iterator[str]:
    by_comment: dict[str, list[Deal]] = defaultdict(list)
    for deal in books.deals:
        by_comment[deal.comment].append(deal)
    wanted = {one.comment: one for one in books.submissions if one.sent}
    for comment, deals in by_comment.items():
        orders = sorted({deal.order for deal in deals})
        if len(orders) > 1:
            yield f"doubled order: {comment} was executed as orders {orders}"
        one = wanted.get(comment)
        volume = sum(deal.volume for deal in deals)
        if one is not None and one.volume is not None and volume > one.volume + EPSILON:
            yield f"doubled order: {comment} asked for {one.volume} lots, {volume} were executed"


def _lost_orders(books: Books) -> Iterator[str]:
    executed = {deal.comment for deal in books.deals}
    submitted = {one.comment for one in books.submissions if one.sent}
    for comment in sorted(executed - submitted):
        yield f"unknown order: {comment} was executed, the gateway's journal did not send it"
    for one in books.submissions:
        if one.comment not in executed:
            continue
        state = books.intents.get(one.client_order_id)
        if state is None:
            yield f"unknown order: {one.client_order_id} was executed, the strategy has no such intent"
        elif state in ("never_sent", "refused"):
            yield f"lost order: {one.client_order_id} was executed, the strategy holds it for {state}"
    known = {one.client_order_id for one in books.submissions}
    for name, state in books.intents.items():
        if state == "done" and name not in known:
            yield f"lost order: {name} is done for the strategy, the gateway's journal knows nothing of it"


def _lost_positions(books: Books) -> Iterator[str]:
    by_deals: dict[int, float] = defaultdict(float)
    for deal in books.deals:
        by_deals[deal.position] += deal.volume if deal.entry == "IN" else -deal.volume
    due = {identifier: volume for identifier, volume in by_deals.items() if abs(volume) > EPSILON}
    for who, held in (("the broker", books.positions), ("the reconciler", books.reconciled)):
        for identifier in sorted({*due, *held}):
            expected, found = due.get(identifier, 0.0), held.get(identifier, 0.0)
            if abs(expected - found) > EPSILON:
                yield (
                    f"lost position: {identifier} is {expected:g} lots by its deals, {found:g} lots for {who}"
                )


def _stale_epochs(books: Books) -> Iterator[str]:
    newest: dict[str, int] = defaultdict(int)
    for one in books.submissions:
        if not one.sent:
            continue
        before = newest[one.account]
        if one.epoch < before:
            yield f"stale epoch: {one.client_order_id} was sent under {one.epoch}, after one under {before}"
        newest[one.account] = max(before, one.epoch)


def _open_ends(books: Books) -> Iterator[str]:
    for one in books.submissions:
        if one.state == "sent":
            yield f"unresolved: the gateway does not know what became of {one.client_order_id}"
    for name, state in books.intents.items():
        if state in ("intent", "unknown"):
            yield f"unresolved: the strategy does not know what became of {name}"
