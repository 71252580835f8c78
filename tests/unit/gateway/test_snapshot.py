"""A snapshot's parts belong together, although the broker is asked for them one after the other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mt5crs.broker.sim.backend import Command
from mt5crs.gateway.reader import Reader
from mt5crs.gateway.refusal import Refusal
from mt5crs.protocol.events import trade_topic
from mt5crs.protocol.records import Deal
from mt5crs.protocol.replies import Snapshot
from mt5crs.protocol.requests import SyncAll
from tests.unit.gateway.counter import MAGIC, Counter


def by_hand(counter: Counter) -> None:
    counter.broker.command(Command(do="trade", symbol="EURUSD", side="BUY", volume=0.1, magic=MAGIC))


def disturbed(counter: Counter, times: int) -> Callable[[int], list[Deal]]:
    """The broker's `deals`; after each of the first so many, something is traded."""
    deals, left = counter.broker.deals, [None] * times

    def ask(since_msc: int) -> list[Deal]:
        found = deals(since_msc)
        if left:
            left.pop()
            by_hand(counter)
        return found

    return ask


def snapshot(counter: Counter) -> Snapshot:
    order_manager = counter.order_manager
    reader = Reader(
        counter.broker,
        order_manager,
        order_manager._watch,
        order_manager._ledger,
        counter.control,
        order_manager._stream,
    )
    reply = reader.answer(
        SyncAll(v=1, id="s", client="c", magic=MAGIC, whole_account=False, history_since_msc=0)
    )
    assert isinstance(reply, Snapshot)
    return reply


@pytest.mark.parametrize("times", [0, 1, 2])
def test_positions_deals_and_event_numbers_show_the_same_trades(tmp_path: Path, times: int) -> None:
    counter = Counter(tmp_path)
    by_hand(counter)
    counter.broker.deals = disturbed(counter, times)  # type: ignore[method-assign]
    reply = snapshot(counter)
    assert {p.identifier for p in reply.positions} == {d.position_id for d in reply.deals}
    assert len(reply.positions) == times + 1
    assert reply.seqs[trade_topic(MAGIC)] == 2 * len(reply.positions)  # a deal and a position for each
    assert reply.identity.login == 90_000_001


def test_an_account_that_never_stands_still_is_busy(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter.broker.deals = disturbed(counter, 1000)  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="BUSY"):
        snapshot(counter)
