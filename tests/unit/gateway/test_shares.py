"""Whose request comes next, who may ask, who has to go, and what is written about it."""

import time
from collections import Counter
from typing import Any

import pytest

from mt5crs.gateway.connections import MAX_INCOMPLETE_BYTES, MAX_UNREAD_BYTES, PEAK_S, Connections
from mt5crs.gateway.job import Job
from mt5crs.gateway.lanes import Lanes
from mt5crs.gateway.quota import Quota
from mt5crs.gateway.reading_time import SHARE, ReadingTime
from mt5crs.protocol import requests as ask
from mt5crs.service.bounded import BoundedNotes
from tests.unit.orders import TERMS


def job(kind: type[ask.Request], client: str = "c", *, operator: bool = False, at: float = 0.0) -> Job:
    head: dict[str, Any] = {"v": 1, "id": "i", "client": client, "magic": 1}
    order = {"client_order_id": "o", "lease_epoch": 1, "valid_ms": 1}
    fields: dict[type[ask.Request], dict[str, Any]] = {
        ask.OrderSend: {**TERMS, **order},
        ask.OrderCancel: {**order, "order": 1},
        ask.PositionClose: {**order, "position": 1, "volume": None, "max_slippage_points": None},
        ask.SyncAll: {"whole_account": True, "history_since_msc": None},
    }
    request: Any = kind(**head, **fields.get(kind, {}))
    return Job(request=request, reply_to=None, encode=lambda _: [], received=at, since=at, operator=operator)


def drained(lanes: Lanes) -> list[str]:
    taken = iter(lanes.take, None)
    return [f"{each.request.client}:{type(each.request).__name__}" for each in taken]


def test_what_ends_risk_comes_first_then_orders_then_reads() -> None:
    lanes = Lanes(100, 50, ReadingTime())
    for each in (
        job(ask.SyncAll, "observer"),
        job(ask.SyncAll, "observer"),
        job(ask.OrderSend, "a"),
        job(ask.OrderCancel, "b"),
        job(ask.PositionClose, "ops", operator=True),
    ):
        lanes.add(each)
    assert drained(lanes) == [
        "b:OrderCancel",
        "ops:PositionClose",
        "a:OrderSend",
        "observer:SyncAll",
        "observer:SyncAll",
    ]


def test_a_close_does_not_overtake_its_own_clients_order() -> None:
    """Else: close everything, and the order sent before opens it again."""
    lanes = Lanes(100, 50, ReadingTime())
    for each in (job(ask.OrderSend, "b"), job(ask.OrderSend, "a"), job(ask.PositionClose, "a")):
        lanes.add(each)
    assert drained(lanes) == ["a:OrderSend", "a:PositionClose", "b:OrderSend"]


def test_clients_take_turns() -> None:
    lanes = Lanes(100, 50, ReadingTime())
    for client in "aaab":
        lanes.add(job(ask.SyncAll, client))
    assert [each[0] for each in drained(lanes)] == ["a", "b", "a", "a"]


def test_what_an_operator_reads_takes_turns_with_orders_and_has_a_share() -> None:
    """An operator's key in a loop, or in wrong hands, delays an order by one read."""
    lanes = Lanes(100, 3, ReadingTime())
    lanes.add(job(ask.SyncAll, "observer"))
    for _ in range(3):
        lanes.add(job(ask.SyncAll, "ops", operator=True))
    assert lanes.full(job(ask.SyncAll, "ops", operator=True))
    assert lanes.full(job(ask.PositionClose, "ops", operator=True)) is None
    lanes.add(job(ask.OrderSend, "a"))
    assert drained(lanes)[:2] == ["ops:SyncAll", "a:OrderSend"]


def test_nobody_waits_for_ever() -> None:
    lanes = Lanes(1000, 1000, ReadingTime())
    lanes.add(job(ask.SyncAll, "reader"))
    for _ in range(100):
        lanes.add(job(ask.OrderSend, "a"))
    assert drained(lanes).index("reader:SyncAll") < 10


def test_beside_orders_a_clients_reads_have_a_share_of_the_terminal() -> None:
    """Two clients whose reads of 20 ms never end, one of them an operator, and an order every 100 ms."""
    now, spent = 0.0, Counter[str]()
    lanes = Lanes(10_000, 10_000, ReadingTime(lambda: now))
    for _ in range(2000):
        lanes.add(job(ask.SyncAll, "ops", operator=True))
        lanes.add(job(ask.SyncAll, "observer"))
    next_order = 0.0
    while now < 30:
        if now >= next_order:
            lanes.add(job(ask.OrderSend, "a"))
            next_order += 0.1
        taken = lanes.take()
        took = 0.001 if taken is None or taken.request.client == "a" else 0.02
        now += took
        if taken is not None:
            spent[taken.request.client] += 1
            lanes.done(taken, took)
    assert spent["a"] == 300
    for reader in ("ops", "observer"):
        assert 0.9 * SHARE < spent[reader] * 0.02 / now < 1.2 * SHARE
    now += 2  # nothing is traded: nobody is kept waiting
    assert sum(lanes.take() is not None for _ in range(100)) == 100


def test_no_client_takes_all_places_and_reads_leave_some_to_orders() -> None:
    lanes = Lanes(16, 6, ReadingTime())
    admitted: Counter[str] = Counter()

    def offer(each: Job) -> None:
        if lanes.full(each) is None:
            lanes.add(each)
            admitted[each.request.client] += 1

    for client in ("r1", "r2", "r3", "a", "b", "c"):
        for _ in range(10):
            offer(job(ask.SyncAll if client[0] == "r" else ask.OrderSend, client))
    assert (admitted["r1"], admitted["r2"], admitted["r3"]) == (6, 2, 0)
    assert admitted["a"] + admitted["b"] + admitted["c"] == 4
    for _ in range(4):
        offer(job(ask.PositionClose, "ops", operator=True))
    assert admitted["ops"] == 4
    assert len(lanes) == 16


def test_what_waited_too_long_is_taken_out() -> None:
    lanes = Lanes(10, 10, ReadingTime())
    for at in (1.0, 2.0, 3.0):
        lanes.add(job(ask.SyncAll, at=at))
    assert [each.received for each in lanes.overdue(2.5)] == [1.0, 2.0]
    assert len(lanes) == 1


def test_a_client_asks_so_often_and_goes_when_it_does_not_stop() -> None:
    now = 0.0
    quota = Quota(100, lambda: now)
    assert sum(quota.take("a") for _ in range(150)) == 100
    assert quota.take("b")
    assert not quota.exhausted("a")
    assert not any(quota.take("a") for _ in range(200))
    assert quota.exhausted("a")
    assert not quota.exhausted("a")  # once
    now += 0.5
    assert sum(quota.take("a") for _ in range(100)) == 50


def test_of_one_address_the_oldest_silent_connection_goes() -> None:
    connections = Connections(per_source=2)
    for fd in (1, 2):
        connections.accepted(fd, "requests", ("h", fd))
    connections.heard[1] = 1
    assert connections.excess("h", 10) is None
    connections.accepted(3, "events", ("h", 3))
    connections.accepted(4, "events", ("other", 4))
    assert connections.excess("h", 10) == (2, "source")
    connections.drop(2)
    assert connections.excess("h", 10) is None
    assert connections.excess("h", 2) == (3, "total")


def test_a_number_that_was_given_out_again_is_another_connection() -> None:
    connections = Connections(per_source=5)
    connections.accepted(1, "requests", ("h", 1))
    connections.heard[1] = connections.subscribed[1] = 9
    connections.accepted(1, "events", ("i", 2))
    assert (connections.heard, connections.subscribed, connections.count()) == ({}, {}, 1)
    connections.closed(1, "requests")  # the end of the first one, told late
    assert connections.peer(1) == ("i", 2)


def test_who_spoke_before_it_was_told_of_is_not_silent() -> None:
    """The network thread may hear a subscription before the connection guard hears of the connection."""
    connections = Connections(per_source=1)
    connections.heard[1] = connections.replied[1] = 1
    connections.accepted(1, "events", ("h", 1))
    connections.accepted(2, "events", ("h", 2))
    assert connections.excess("h", 10) == (2, "source")
    assert connections.replied == {}  # of whom, is not known


def test_a_peak_between_two_scrapes_is_told() -> None:
    now = 0.0
    connections = Connections(per_source=9, clock=lambda: now)
    for fd in (1, 2, 3):
        connections.accepted(fd, "requests", ("h", fd))
    for fd in (1, 2):
        connections.drop(fd)
    now += PEAK_S
    assert connections.most_from_one() == 3
    now += 1
    assert connections.most_from_one() == 1
    connections.accepted(4, "requests", ("h", 4))
    connections.drop(4)
    assert connections.most_from_one() == 2


def test_bytes_without_a_message_are_too_many_at_some_point() -> None:
    connections = Connections(per_source=5)
    for fd in (1, 2, 3):
        connections.accepted(fd, "requests", ("h", fd))
    sent: dict[int, int | None] = {1: MAX_INCOMPLETE_BYTES, 2: MAX_INCOMPLETE_BYTES + 1, 3: None}
    connections.heard[2] = 1
    look = lambda: list(connections.incomplete(lambda fd, _: sent[fd]))  # noqa: E731
    assert look() == []
    assert connections.count() == 2  # one had gone
    sent[1] = sent[2] = 2 * MAX_INCOMPLETE_BYTES + 1
    assert look() == [1]


def test_who_does_not_read_owes_so_much_and_then_goes() -> None:
    connections = Connections(per_source=5)
    for fd, source in ((1, "h"), (2, "h"), (3, "i")):
        connections.accepted(fd, "requests", (source, fd))
    taken: dict[int, int | None] = {1: 900, 2: 900, 3: 900}  # the handshake
    look = lambda: list(connections.unread(lambda fd, _: taken[fd]))  # noqa: E731
    assert look() == []
    half = MAX_UNREAD_BYTES // 2
    connections.replied.update({1: half, 2: half + 2000, 3: 2 * MAX_UNREAD_BYTES})
    taken[3] = 2 * MAX_UNREAD_BYTES + 5_000_000  # has read it all; encryption comes on top
    taken[1] = taken[2] = 900
    assert look() == [2]  # of the address that owes too much, the one that owes most
    taken[2] = half + 2900
    assert look() == []
    connections.replied[3] += MAX_UNREAD_BYTES + 1
    assert look() == [3]
    taken[3] = None  # the system does not tell
    assert look() == []


@pytest.mark.parametrize("sorts", [1, 1000])
def test_a_flood_writes_few_lines_and_says_how_many_it_left_out(sorts: int) -> None:
    now, written = time.monotonic(), list[tuple[str, dict[str, object]]]()
    clock = lambda: now  # noqa: E731
    notes = BoundedNotes(lambda event, **fields: written.append((event, fields)), clock)
    for number in range(10_000):
        notes(number % sorts, "refused", kind="SYNC_ALL")
    assert len(written) == (5 if sorts == 1 else 50)
    now += 11
    notes.flush()
    event, fields = written[-1]
    assert (event, fields["of"], fields["left_out"]) == ("log.bounded", "refused", 10_000 - len(written) + 1)
    notes("x", "refused")
    assert written[-1][0] == "refused"
