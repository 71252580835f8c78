"""Records of other people, as real accounts have them, beside ours."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from mt5crs.broker.sim.terminal import ODD_DEALS, ODD_ORDERS, ODD_POSITIONS
from mt5crs.gateway.frames import ReplyEncoder
from mt5crs.gateway.reader import Reader
from mt5crs.protocol.codec import decode_event, decode_reply, decode_request, encode
from mt5crs.protocol.events import AccountEvent, PositionClosedEvent, PositionEvent
from mt5crs.protocol.records import Account, Identity
from mt5crs.protocol.replies import Snapshot
from mt5crs.protocol.requests import SymbolQuery, SyncAll
from mt5crs.reconciler.compare import compare
from mt5crs.reconciler.evidence import flaws
from mt5crs.reconciler.model import evidence_of
from tests.unit.gateway.counter import LOGIN, MAGIC, Counter
from tests.unit.gateway.test_limits import filled
from tests.unit.reconciler import books


def test_they_do_not_hide_an_account_from_the_reconciler(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    filled(counter.order())
    counter.showing(odd_records=True)
    order_manager = counter.order_manager
    reader = Reader(
        counter.broker,
        order_manager,
        order_manager._watch,
        order_manager._ledger,
        counter.control,
        order_manager._stream,
    )
    question = SyncAll(v=1, id="s", client="c", magic=MAGIC, whole_account=True, history_since_msc=0)
    snapshot = decode_reply(ReplyEncoder()(reader.answer(question)))
    assert isinstance(snapshot, Snapshot)
    assert {p.identifier for p in snapshot.positions} >= {p.identifier for p in ODD_POSITIONS}
    assert {o.ticket for o in snapshot.orders} == {o.ticket for o in ODD_ORDERS}
    assert {d.ticket for d in snapshot.deals} >= {d.ticket for d in ODD_DEALS}
    assert {p.magic for p in snapshot.positions} == {MAGIC, -1, 99, 2**64 - 1, -(2**63)}
    assert flaws(snapshot, MAGIC, LOGIN) == []
    first = compare(None, evidence_of(snapshot, MAGIC))
    again = compare(first.state, evidence_of(snapshot, MAGIC))
    assert [p.volume for p in again.state.positions] == [0.1]
    assert (again.events, again.discrepancies) == ((), ())
    filled(counter.order())


def test_they_are_told_once_and_not_at_every_look(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    published: list[tuple[str, bytes]] = []
    counter.order_manager._stream._publish = lambda item: published.append((item.topic, item.payload))
    counter.showing(odd_records=True)
    counter.order_manager.look()
    assert len([topic for topic, _ in published if topic.startswith("trade.")]) == 8
    for _, payload in published:
        decode_event(payload)
    published.clear()
    for _ in range(3):
        counter.order_manager.look()
    assert published == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_any_money_can_be_told(value: float) -> None:
    account = Account(
        balance=value,
        equity=value,
        profit=value,
        margin=value,
        margin_free=value,
        margin_level=value,
        leverage=-1,
        currency="",
    )
    identity = Identity(
        login=1, server="", trade_mode="DEMO", margin_mode="HEDGING", currency="", connected=True,
        trade_allowed=True,
    )  # fmt: skip
    event = AccountEvent(v=1, stream="s", seq=1, time_msc=1, identity=identity, account=account)
    assert isinstance(decode_event(encode(event)), AccountEvent)


@pytest.mark.parametrize("magic", [-1, 2**64 - 1])
def test_any_magic_number_can_be_told(magic: int) -> None:
    for event in (
        PositionClosedEvent(v=1, stream="s", seq=1, magic=magic, identifier=1),
        PositionEvent(v=1, stream="s", seq=1, position=ODD_POSITIONS[0]),
    ):
        assert decode_event(encode(event)) == event


@pytest.mark.parametrize("name", ["Volatility 75 Index", "EUR/USD", "[DJI30]", "\u00a3!", "@ES"])
def test_a_brokers_symbol_can_be_asked_for(name: str) -> None:
    request = SymbolQuery(v=1, id="s", client="c", magic=MAGIC, symbol=name)
    assert decode_request(encode(request)) == request


@pytest.mark.parametrize("name", ["volume", "price_open", "sl", "tp"])
def test_what_is_no_number_in_a_record_of_ours_is_not_believed(name: str) -> None:
    ours = msgspec.structs.replace(books.position(1, 0.1), **{name: math.nan})
    assert any(name in flaw for flaw in flaws(books.snapshot(positions=[ours]), books.MAGIC, books.LOGIN))
    theirs = msgspec.structs.replace(ours, magic=9)
    assert flaws(books.snapshot(positions=[theirs]), books.MAGIC, books.LOGIN) == []
