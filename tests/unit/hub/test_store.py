"""What the Hub keeps is kept once, stays within its bounds, and survives what can happen to a file."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from mt5crs.hub.event_file import EventFile
from mt5crs.hub.store import Book, Bounds, Store, made
from mt5crs.protocol.records import Account, Deal
from mt5crs.service.database import BrokenError, UnusableError

BOUNDS = Bounds(
    trades_days=30,
    samples_days=2,
    events_days=2,
    events=1000,
    database_bytes=10**9,
    file_bytes=10**8,
)
MONEY = Account(
    balance=100.0,
    equity=99.0,
    profit=-1.0,
    margin=5.0,
    margin_free=94.0,
    margin_level=1980.0,
    leverage=100,
    currency="USD",
)
NOW_MSC = int(time.time() * 1000)


def deal(ticket: int, *, time_msc: int = NOW_MSC, profit: float = 1.0, comment: str = "") -> Deal:
    return Deal(
        ticket=ticket,
        order=ticket,
        position_id=ticket,
        symbol="EURUSD",
        type="BUY",
        entry="IN",
        magic=202401,
        volume=0.1,
        price=1.1,
        commission=-0.25,
        fee=0.0,
        swap=0.0,
        profit=profit,
        time_msc=time_msc,
        reason=0,
        comment=comment,
    )


def kept(store: Store, *deals: Deal) -> None:
    store.keep_books("gtw-01", Book("1@a", "USD", 0, NOW_MSC), deals, [])


def tickets(store: Store, after: int = 0, limit: int = 1000, newest: bool = False) -> list[str]:
    found = store.trades(since_msc=0, after=after, limit=limit, newest=newest, gateway=None, magic=None)
    return [trade["ticket"] for trade in found]


def test_a_deal_is_kept_once_however_often_it_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    kept(store, deal(1), deal(2))
    store.keep_live("gtw-01", "1@a", [made("gtw-01", "deal", deal(2))], [deal(2), deal(3)], [])
    again = store.keep_books("gtw-01", Book("1@a", "USD", 0, NOW_MSC), [deal(1), deal(2), deal(3)], [])
    assert again == ([], []), "nothing of it is new"
    assert tickets(store) == ["1", "2", "3"]
    assert tickets(store, limit=2, newest=True) == ["2", "3"]
    assert store.realised("gtw-01", "1@a", 0) == (2.25, 3)
    store.close()
    reopened = Store(tmp_path, BOUNDS)
    assert tickets(reopened) == ["1", "2", "3"]
    assert reopened.book("gtw-01", "1@a") == Book("1@a", "USD", 0, NOW_MSC)
    assert reopened.book("gtw-01", "2@a") is None
    reopened.close()


def test_numbers_that_are_none_and_identifiers_of_64_bits(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    odd = msgspec.structs.replace(deal(2**64 - 1, profit=math.nan), magic=2**64 - 1, price=math.inf)
    kept(store, odd)
    (trade,) = store.trades(since_msc=0, after=0, limit=9, newest=False, gateway=None, magic=str(2**64 - 1))
    assert (trade["ticket"], trade["price"], trade["net"]) == (str(2**64 - 1), None, None)
    assert store.realised("gtw-01", "1@a", 0) is None  # a sum with an unknown figure is not known
    json.dumps(trade, allow_nan=False)
    store.close()


def test_what_is_too_old_goes_and_the_rest_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    now = NOW_MSC / 1000
    kept(store, deal(1, time_msc=NOW_MSC - 40 * 86_400_000), deal(2))
    store.keep_sample("gtw-01", "1@a", now - 3 * 86_400, MONEY)
    store.keep_sample("gtw-01", "1@a", now, MONEY)
    store.keep_gap("gtw-01", now - 4 * 86_400, now - 3 * 86_400, "old")
    store.keep_gap("gtw-01", now - 60, now, "new")
    while store.prune(now + 1):
        pass
    assert tickets(store) == ["2"]
    assert store.curve("gtw-01", "1@a", 0, 100) == [(now, 100.0, 99.0)]
    assert [gap["reason"] for gap in store.gaps("gtw-01", 10)] == ["new"]
    store.close()


def test_the_database_stays_below_its_size_and_keeps_trades_longest(tmp_path: Path) -> None:
    bounds = msgspec.structs.replace(BOUNDS, events=10**6, database_bytes=600_000)
    store = Store(tmp_path, bounds)
    kept(store, *(deal(ticket) for ticket in range(1, 501)))
    for _ in range(20):
        store.keep_events([{"at": NOW_MSC / 1000, "gateway": "gtw-01", "kind": "x", "x": "y" * 900}] * 100)
    assert store.size_bytes() > 1_500_000
    while store.prune():
        pass
    assert store.size_bytes() <= 600_000
    assert len(tickets(store)) == 500
    store.close()


def test_the_newest_events_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    store.keep_events([{"at": NOW_MSC / 1000, "gateway": "g", "kind": "x", "n": n} for n in range(1500)])
    while store.prune():
        pass
    with sqlite3.connect(tmp_path / "hub.db") as db:
        assert db.execute("SELECT count(*), max(id) FROM event").fetchone() == (1000, 1500)
    db.close()
    store.close()


def test_a_curve_has_its_last_point_and_no_more_points_than_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path, BOUNDS)
    for second in range(100):
        store.keep_sample("gtw-01", "1@a", 1000.0 + second, MONEY)
    curve = store.curve("gtw-01", "1@a", 0, 10)
    assert len(curve) == 10
    assert curve[-1][0] == 1099.0
    assert store.curve("gtw-01", "2@other", 0, 10) == []
    store.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database" * 1000)
    with pytest.raises(BrokenError, match=r"hub\.db is damaged .*: move it, its -wal and its -shm aside"):
        Store(tmp_path, BOUNDS)


def test_a_full_disk_keeps_nothing_half_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, BOUNDS)
    kept(store, deal(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventFile, "append", full)
    with pytest.raises(UnusableError, match="free space"):
        kept(store, deal(2))
    monkeypatch.undo()
    assert tickets(store) == ["1"]
    kept(store, deal(2))
    assert tickets(store) == ["1", "2"]
    store.close()


def test_the_event_file_is_bounded_and_a_cut_line_ends(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"whole":1}\n{"cut":')
    file = EventFile(tmp_path, 4000)
    for number in range(200):
        file.append([json.dumps({"number": number, "text": "\ud800"})])
    file.close()
    lines = [
        line
        for path in (file.previous, file.path)
        for line in path.read_text().splitlines()
        if not line.startswith('{"cut"')
    ]
    assert json.loads(lines[-1])["number"] == 199
    assert file.path.stat().st_size + file.previous.stat().st_size <= 4000
